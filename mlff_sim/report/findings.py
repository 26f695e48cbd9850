"""How the answer of each validator is told: lines of the table, and what goes into `results.json`.

One function for each kind of answer, registered by its type; an answer without one is shown by its note alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import singledispatch
from typing import Any

import numpy as np

from mlff_sim.report.drawing import ANGSTROM
from mlff_sim.report.row import Row, compared
from mlff_sim.validation import (
    Control,
    Difference,
    Differences,
    EnsembleCheck,
    FrameSpacing,
    KineticConsistency,
    PeakMatch,
    QuickNve,
    Spectrum,
    SpectrumResult,
    Stability,
    StepSizeLaw,
    StructureErrors,
    StructureFigure,
    Verdict,
)

SIGN, DEGREE, PER_CM = "\N{PLUS-MINUS SIGN}", "\N{DEGREE SIGN}", "cm\u207b\u00b9"


@singledispatch
def lines(finding: Any, name: str) -> list[Row]:
    """Rows of the table."""
    return [Row(name.capitalize(), "", "", finding.verdict, finding.note)]


def content(finding: Any) -> dict[str, Any]:
    """What `results.json` holds: the numbers that are no curves, the verdict and the note."""
    plain = _plain(finding)
    facts = plain if isinstance(plain, dict) else {}
    return facts | {"verdict": finding.verdict.value if finding.verdict else None, "note": finding.note}


CURVE = object()
"""Stands for what belongs in a plot."""


def _plain(value: Any) -> Any:
    """Data classes as mappings, words for verdicts, arrays left out."""
    if isinstance(value, Enum):
        return value.value
    if is_dataclass(value) and not isinstance(value, type):
        value = {f.name: getattr(value, f.name) for f in fields(value)}
    if isinstance(value, Mapping):
        inner = {str(k): _plain(v) for k, v in value.items()}
        kept = {k: v for k, v in inner.items() if v is not CURVE}
        return CURVE if inner and not kept else kept
    if isinstance(value, list | tuple):
        return [v for v in map(_plain, value) if v is not CURVE]
    if isinstance(value, np.ndarray):
        return CURVE if value.ndim else value.item()
    return value.item() if isinstance(value, np.generic) else value


@lines.register
def _(finding: Differences, name: str) -> list[Row]:
    return [_difference(d, finding.note) for d in finding.items]


def _difference(d: Difference, note: str) -> Row:
    low, high = d.ci95
    value = f"{d.value:+.2f} ({low:+.2f} to {high:+.2f}) {d.unit}"
    limit = f"{SIGN}{d.limit:.3g} {d.unit}" if d.limit is not None else ""
    advice = {
        Verdict.PASS: "The whole interval is within the limit.",
        Verdict.FAIL: f"Off by more than chance: take a shorter outer step or a better student. {note}",
        None: "" if d.limit is None else "The interval crosses the limit: that takes longer runs or more replicas.",
    }[d.verdict]
    return Row(f"Difference in {d.name}", value, limit, d.verdict, advice)


@lines.register
def _(finding: Control, name: str) -> list[Row]:
    value = "fails" if finding.verdict else "sound"
    return [Row(f"Control: {finding.name}", value, "", finding.verdict, finding.note)]


@lines.register
def _(finding: StructureErrors, name: str) -> list[Row]:
    rows = [_coordinate(f) for f in finding.figures]
    four = (
        ("bonds", "mean_bond_rmse", finding.mean_bond_rmse, f" {ANGSTROM}", 4),
        ("angles", "mean_angle_rmse", finding.mean_angle_rmse, DEGREE, 2),
        ("dihedrals", "mean_dihedral_rmse", finding.mean_dihedral_rmse, DEGREE, 1),
        ("pair distances", "mean_rdf_l1", finding.mean_rdf_l1, "", 3),
    )
    known = [figure for figure in four if np.isfinite(figure[2])]
    said = [f"{what} {value:.{digits}f}{unit}" for what, _, value, unit, digits in known]
    own = [(finding.floors[key], unit, digits) for _, key, _, unit, digits in known]
    floors = [f"{floor:.{digits}f}{unit}" if np.isfinite(floor) else "an unknown part" for floor, unit, digits in own]
    advice = (
        "Root mean squares about the reference's means, and the L1 distance (mean_bond_rmse and its sisters); "
        f"the reference shows {', '.join(floors)} of itself."
    )
    return [*rows, Row("Structure in four figures", ", ".join(said), "", None, advice)]


def _coordinate(f: StructureFigure) -> Row:
    unit = {"A": f" {ANGSTROM}", "deg": DEGREE}[f.unit]
    what = {"mean": "means, RMSE", "width": "widths, RMSE", "wasserstein": "Wasserstein distance"}[f.statistic]
    value = compared(f.error, f.noise, f.noise95, f.limit or 1.0, unit)
    return Row(f"{f.kind.capitalize()}s: {what}", value, f"{f.limit:g}{unit}", f.verdict, f.note)


@lines.register
def _(finding: SpectrumResult, name: str) -> list[Row]:
    what, limit = "Density of states: Wasserstein distance", f"{finding.limit_cm:g} {PER_CM}"
    value = compared(finding.error_cm, finding.noise_cm, finding.noise95_cm, finding.limit_cm, f" {PER_CM}")
    if not np.isfinite(finding.error_cm):
        value = "no spectrum"
    return [Row(what, value, limit, finding.verdict, finding.note)]


@lines.register
def _(finding: Spectrum, name: str) -> list[Row]:
    return [Row("Density of states", f"{finding.segments} segments", "", finding.verdict, finding.note)]


@lines.register
def _(finding: PeakMatch, name: str) -> list[Row]:
    low, high = finding.limits_percent
    value = "no line found"
    if finding.lines:
        missing = f", {len(finding.missing_cm)} missing" if finding.missing_cm else ""
        factor = 100 * (finding.factor - 1)
        value = f"{len(finding.lines)} lines, together {factor:+.2f} % off{missing}"
    return [Row("Lines of the spectrum", value, f"{low:+g} % to {high:+g} %", finding.verdict, finding.note)]


@lines.register
def _(finding: QuickNve, name: str) -> list[Row]:
    return [
        Row(f"Quick: {c.name}", f"{c.value:.3g} {c.unit}", f"{c.limit:g} {c.unit}", c.verdict, c.note)
        for c in finding.criteria
    ]


@lines.register
def _(finding: StepSizeLaw, name: str) -> list[Row]:
    steps = finding.timesteps_fs
    rows = []
    for a, b, ratio, (low, high) in zip(steps, steps[1:], finding.ratios, finding.ci95, strict=False):
        value = f"{ratio:.3f} ({low:.3f} to {high:.3f}) of the law"
        limit = f"{1 / (1 + finding.limit):.2f} to {1 + finding.limit:.2f}"
        rows.append(Row(f"Energy error, {b:g} against {a:g} fs", value, limit, finding.verdict, finding.note))
    return rows


@lines.register
def _(finding: EnsembleCheck, name: str) -> list[Row]:
    low, high = finding.nominal_K
    value = f"{finding.difference_K:.1f} {SIGN} {finding.stderr_K:.1f} K between them"
    if not np.isfinite(finding.difference_K):
        value = "no overlap"
    return [Row("Boltzmann's ratio of energies", value, f"{high - low:.1f} K", finding.verdict, finding.note)]


@lines.register
def _(finding: Stability, name: str) -> list[Row]:
    low, high = finding.ci95_ps
    broken = sum(b is not None for b in finding.breaks)
    lasted = f"{low:.3g} to {high:.3g} ps" if np.isfinite(high) else f"more than {low:.3g} ps"
    value = f"{broken} of {len(finding.breaks)} broke; mean survival {lasted} (95 %)"
    return [Row("Stability", value, "", finding.verdict, finding.note)]


@lines.register
def _(finding: FrameSpacing, name: str) -> list[Row]:
    value = f"{1e3 * finding.measured_ps:.4g} fs, and the times say {1e3 * finding.claimed_ps:.4g}"
    return [Row("Time between frames", value, f"{SIGN}{100 * finding.limit:g} %", finding.verdict, finding.note)]


@lines.register
def _(finding: KineticConsistency, name: str) -> list[Row]:
    value = f"{finding.ratio:.4f} of what velocities say"
    return [Row("Kinetic energy as stated", value, f"{SIGN}{100 * finding.limit:g} %", finding.verdict, finding.note)]
