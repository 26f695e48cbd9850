"""How the answer of each validator is shown: lines of the table, plots, and what goes into `results.json`.

One function for each kind of answer, registered by its type; an answer without one is shown by its note alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from functools import singledispatch
from typing import Any

import numpy as np

from mlff_sim.report.row import Row
from mlff_sim.validation import Control, Difference, Differences, Verdict

SIGN = "\N{PLUS-MINUS SIGN}"


@singledispatch
def lines(finding: Any, name: str) -> list[Row]:
    """Rows of the table."""
    return [Row(name, "", "", finding.verdict, finding.note)]


@singledispatch
def plots(finding: Any) -> list[dict[str, Any]]:
    """Plotly figures."""
    return []


@singledispatch
def content(finding: Any) -> dict[str, Any]:
    """What `results.json` holds: the numbers that are no curves, the verdict and the note."""
    fields = asdict(finding) if is_dataclass(finding) and not isinstance(finding, type) else {}
    kept = {key: value for key, value in fields.items() if not _is_curve(value)}
    return kept | {"verdict": finding.verdict.value if finding.verdict else None, "note": finding.note}


def _is_curve(value: Any) -> bool:
    """Arrays belong in plots; so do mappings of them."""
    if isinstance(value, Mapping):
        return any(_is_curve(v) for v in value.values())
    return isinstance(value, np.ndarray) and value.ndim > 0


@lines.register
def _(finding: Differences, name: str) -> list[Row]:
    return [_difference(d, finding.note) for d in finding.items]


def _difference(d: Difference, note: str) -> Row:
    low, high = d.ci95
    value = f"{d.value:+.2f} ({low:+.2f} to {high:+.2f}) {d.unit}"
    limit = f"{SIGN}{d.limit:.3g} {d.unit}" if d.limit is not None else ""
    advice = f"Two such runs of plain Verlet would differ by {d.noise:.2f} {d.unit}. {note}"
    if d.verdict is Verdict.FAIL:
        advice = (
            "The fast run heats or cools by more than chance: take a shorter outer step or a better student. " + advice
        )
    return Row(f"Against Verlet: {d.name}", value, limit, d.verdict, advice)


@lines.register
def _(finding: Control, name: str) -> list[Row]:
    return [Row(f"Control: {finding.name}", "fails" if finding.verdict else "sound", "", finding.verdict, finding.note)]


@plots.register
def _(finding: Differences) -> list[dict[str, Any]]:
    return []
