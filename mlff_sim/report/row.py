"""A line of the verdict table, and how numbers are written in it."""

from __future__ import annotations

import math
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


def number(x: float | None, digits: int = 3) -> str:
    """A number for reading, with about `digits` significant digits; "-" for none."""
    if x is None or not math.isfinite(x):
        return "-"
    return f"{x:.0f}" if abs(x) >= 10 ** (digits - 1) else f"{x:.{digits}g}"


def beside(x: float, limit: float) -> str:
    """A number with the digits that matter beside its limit: a tenth of the first of the limit's."""
    return f"{x:.{max(0, 1 - math.floor(math.log10(limit)))}f}" if math.isfinite(x) else "-"
