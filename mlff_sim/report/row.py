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
        verdict: None where it is only reported, or could not be judged.
        advice: what to do next, or how the number was made.
    """

    quantity: str
    value: str
    limit: str
    verdict: Verdict | None
    advice: str

    @property
    def word(self) -> str:
        """The verdict in the table."""
        return self.verdict.value if self.verdict else "not judged" if self.limit else "reported"


def number(x: float | None, digits: int = 3) -> str:
    """A number for reading, with about `digits` significant digits; "-" for none."""
    if x is None or not math.isfinite(x):
        return "-"
    return f"{x:.0f}" if abs(x) >= 10 ** (digits - 1) else f"{x:.{digits}g}"


def beside(x: float, limit: float) -> str:
    """A number with the digits that matter beside its limit: a tenth of the first of the limit's."""
    return f"{x:.{max(0, 1 - math.floor(math.log10(limit)))}f}" if math.isfinite(x) else "-"


def compared(error: float, noise: float, noise95: float, limit: float, unit: str) -> str:
    """A difference with the one that sampling alone would show."""
    value = f"{beside(error, limit)}{unit}"
    if not math.isfinite(noise):
        return f"{value} (what sampling alone shows is not known)"
    return f"{value} (sampling alone: {beside(noise, limit)}{unit}, 95 % below {beside(noise95, limit)}{unit})"
