"""A line of the verdict table."""

from __future__ import annotations

from dataclasses import dataclass

from mlff_sim.validation import Verdict


@dataclass(frozen=True)
class Row:
    """One line of the verdict table.

    Attributes:
        quantity: what was looked at.
        value: with error or interval, and unit.
        limit: what it was held to; empty where it is only reported.
        verdict: None where it is only reported.
        advice: what to do next, or how the number was made.
    """

    quantity: str
    value: str
    limit: str
    verdict: Verdict | None
    advice: str
