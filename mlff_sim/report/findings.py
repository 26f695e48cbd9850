"""How the answer of each validator is shown: lines of the table, plots, and what goes into `results.json`.

One function for each kind of answer, registered by its type; an answer without one is shown by its note alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import singledispatch
from typing import Any

import numpy as np

from mlff_sim.report.drawing import BLUE, GREY, ORANGE, Figure, layout, line, numbers
from mlff_sim.report.row import Row
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

SIGN = "\N{PLUS-MINUS SIGN}"


@singledispatch
def lines(finding: Any, name: str) -> list[Row]:
    """Rows of the table."""
    return [Row(name.capitalize(), "", "", finding.verdict, finding.note)]


@singledispatch
def plots(finding: Any) -> list[Figure]:
    """Plotly figures."""
    return []


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
    advice = note
    if d.verdict is Verdict.FAIL:
        advice = f"Off by more than chance: take a shorter outer step or a better student. {advice}"
    return Row(f"Against Verlet: {d.name}", value, limit, d.verdict, advice)


@plots.register
def _(finding: Differences) -> list[Figure]:
    kelvin = [d for d in finding.items if d.unit == "K"]
    names = [d.name.removeprefix("kinetic temperature").removeprefix(" of ") or "all atoms" for d in kelvin]
    half = np.array([0.5 * (d.ci95[1] - d.ci95[0]) for d in kelvin])
    data = [_marks(names, np.array([d.value for d in kelvin]), half, "fast less slow, 95 % together")]
    for sign, shown in ((1, True), (-1, False)):
        limit = [sign * d.limit if d.limit is not None else None for d in kelvin]
        if None not in limit:
            dash = {"color": GREY, "dash": "dash", "width": 1.5}
            data.append(
                {
                    "type": "scatter",
                    "mode": "lines",
                    "x": names,
                    "y": limit,
                    "name": "limit",
                    "line": dash,
                    "showlegend": shown,
                }
            )
    figure = layout("", "difference / K", "Kinetic temperature against plain Verlet")
    figure["xaxis"] = {"type": "category"}
    return [{"data": data, "layout": figure}]


def _marks(x: list[str], y: Any, error: Any, name: str, colour: str = BLUE) -> Figure:
    bar = {"type": "data", "array": numbers(error), "thickness": 2, "width": 8, "color": colour}
    return {
        "type": "scatter",
        "mode": "markers",
        "x": x,
        "y": numbers(y),
        "error_y": bar,
        "marker": {"size": 9, "color": colour},
        "name": name,
    }


@lines.register
def _(finding: Control, name: str) -> list[Row]:
    value = "fails" if finding.verdict else "sound"
    return [Row(f"Control: {finding.name}", value, "", finding.verdict, finding.note)]


@lines.register
def _(finding: StructureErrors, name: str) -> list[Row]:
    rows = [_coordinate(f) for f in finding.figures]
    four = (
        ("mean_bond_rmse", finding.mean_bond_rmse, "\u00c5"),
        ("mean_angle_rmse", finding.mean_angle_rmse, "\u00b0"),
        ("mean_dihedral_rmse", finding.mean_dihedral_rmse, "\u00b0"),
        ("mean_rdf_l1", finding.mean_rdf_l1, ""),
    )
    said = [f"{name} {value:.3g} {unit}".strip() for name, value, unit in four if np.isfinite(value)]
    floors = [f"{finding.floors[name]:.3g}" for name, value, _ in four if np.isfinite(value)]
    advice = (
        f"Spread about the reference's means, and the L1 distance; the reference shows {', '.join(floors)} of itself."
    )
    return [*rows, Row("Structure in four figures", "; ".join(said), "", None, advice)]


def _coordinate(f: StructureFigure) -> Row:
    unit = {"A": "\u00c5", "deg": "\u00b0"}[f.unit]
    what = {"mean": "means, RMSE", "width": "widths, RMSE", "wasserstein": "Wasserstein distance"}[f.statistic]
    value = f"{f.error:.3g} {unit} (sampling alone: {f.noise:.2g}, 95 % below {f.noise95:.2g})"
    return Row(f"{f.kind.capitalize()}s: {what}", value, f"{f.limit:g} {unit}", f.verdict, f.note)


@plots.register
def _(finding: StructureErrors) -> list[Figure]:
    out = []
    for f in finding.figures:
        if f.statistic != "mean":
            continue
        unit = {"A": "\u00c5", "deg": "degrees"}[f.unit]
        names, floors = list(f.names), 2.0 * np.nan_to_num(f.floors, posinf=0.0)
        data = [_marks(names, f.errors, floors, "run less reference; bars: twice what sampling shows")]
        figure = layout("", f"{f.kind} / {unit}", f"Means of {f.kind}s")
        figure["xaxis"] = {"type": "category"}
        out.append({"data": data, "layout": figure})
    return out


@lines.register
def _(finding: SpectrumResult, name: str) -> list[Row]:
    value = "-"
    if np.isfinite(finding.error_cm):
        value = f"{finding.error_cm:.1f} cm\u207b\u00b9 (sampling alone: {finding.noise_cm:.1f}, 95 % below {finding.noise95_cm:.1f})"
    return [
        Row(
            "Vibrations: Wasserstein distance",
            value,
            f"{finding.limit_cm:g} cm\u207b\u00b9",
            finding.verdict,
            finding.note,
        )
    ]


@lines.register
def _(finding: Spectrum, name: str) -> list[Row]:
    return [Row("Spectrum", f"{finding.segments} segments", "", finding.verdict, finding.note)]


@plots.register
def _(finding: Spectrum) -> list[Figure]:
    data = []
    for k, (name, colour) in enumerate(zip(finding.blocks, (BLUE, ORANGE, GREY), strict=False)):
        shown = "all atoms" if name == "all" else name
        data.append(
            line(finding.wavenumbers_cm, finding.mean(name), name=shown, line={"width": 1.5 - 0.3 * k, "color": colour})
        )
    axis = "wave number / cm<sup>-1</sup>"
    return [{"data": data, "layout": layout(axis, "density of states / cm", "Vibrations")}] if data else []


@lines.register
def _(finding: PeakMatch, name: str) -> list[Row]:
    low, high = finding.limits_percent
    value = f"{len(finding.lines)} lines found, {len(finding.missing_cm)} not"
    if np.isfinite(finding.factor):
        value += f"; all at {finding.factor:.4f} of where expected"
    return [Row("Vibrations: lines", value, f"{low:+g} % to {high:+g} %", finding.verdict, finding.note)]


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


@plots.register
def _(finding: StepSizeLaw) -> list[Figure]:
    h, seen = np.array(finding.timesteps_fs), np.array(finding.fluctuations)
    law = seen[0] * (h / h[0]) ** 2
    data = [
        {
            "type": "scatter",
            "mode": "markers",
            "x": numbers(h),
            "y": numbers(seen),
            "marker": {"size": 9, "color": BLUE},
            "name": "seen",
        },
        line(h, law, name="square of the step", line={"color": ORANGE, "dash": "dash"}),
    ]
    return [{"data": data, "layout": layout("time step / fs", "fluctuation of the energy / meV", "Step-size law")}]


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
