"""How the answer of each validator is drawn: one function for each kind of answer, registered by its type."""

from __future__ import annotations

from functools import singledispatch
from typing import Any

import numpy as np

from mlff_sim.forces import Array
from mlff_sim.report.drawing import ANGSTROM, BLUE, GREY, ORANGE, Figure, layout, line, numbers
from mlff_sim.validation import Differences, PeakMatch, Spectrum, SpectrumResult, StepSizeLaw, StructureErrors
from mlff_sim.validation.structure import StructureFigure

MOST_NAMES = 24
"""Coordinates in a plot; of more, those that are off by most for what sampling shows."""
ZERO = {"zeroline": True, "zerolinecolor": GREY, "zerolinewidth": 1.5}
"""An axis on which zero is what one hopes for."""
WAVE_NUMBER, DENSITY = "wave number / cm<sup>-1</sup>", "density of states / cm"


@singledispatch
def plots(finding: Any) -> list[Figure]:
    """Plotly figures."""
    return []


def marks(x: Any, y: Any, name: str, colour: str = BLUE, **error: Array) -> Figure:
    """Points, with bars of `error_x` or `error_y`."""
    bars = {
        axis: {"type": "data", "array": numbers(e), "thickness": 2, "width": 6, "color": colour}
        for axis, e in error.items()
    }
    return {
        "type": "scatter",
        "mode": "markers",
        "x": x,
        "y": y,
        "marker": {"size": 8, "color": colour},
        "name": name,
        **bars,
    }


@plots.register
def _(finding: Differences) -> list[Figure]:
    kelvin = [d for d in finding.items if d.unit == "K"]
    names = [d.name.removeprefix("kinetic temperature").removeprefix(" of ") or "all atoms" for d in kelvin]
    half = np.array([0.5 * (d.ci95[1] - d.ci95[0]) for d in kelvin])
    data = []
    judged = [(name, d.limit) for name, d in zip(names, kelvin, strict=True) if d.limit is not None]
    if judged:
        ends = {
            "x": [name for name, _ in judged for _ in (1, -1)],
            "y": numbers(np.array([sign * limit for _, limit in judged for sign in (1, -1)])),
        }
        style = {"symbol": "line-ew", "size": 30, "color": GREY, "line": {"width": 2, "color": GREY}}
        data.append({"type": "scatter", "mode": "markers", **ends, "marker": style, "name": "limits"})
    data.append(
        marks(names, numbers(np.array([d.value for d in kelvin])), "fast less slow, 95 % together", error_y=half)
    )
    figure = layout("", "difference / K", "Kinetic temperature, fast less slow")
    figure["xaxis"] = {"type": "category"}
    figure["yaxis"] |= ZERO
    return [{"data": data, "layout": figure}]


@plots.register
def _(finding: StructureErrors) -> list[Figure]:
    kinds = list(dict.fromkeys(f.kind for f in finding.figures))
    # A dihedral that hops has no mean; its distribution is what there is to compare.
    shown = [finding.figure(kind, "wasserstein" if kind == "dihedral" else "mean") for kind in kinds]
    return [_coordinates(f) for f in shown]


def _coordinates(f: StructureFigure) -> Figure:
    """One line of the plot for each coordinate, its name at the side, so that long ones can be read."""
    unit = {"A": ANGSTROM, "deg": "degrees"}[f.unit]
    floors = 2.0 * np.nan_to_num(f.floors, posinf=0.0)
    order = np.argsort(-np.abs(f.errors) / np.where(floors > 0, floors, np.inf), kind="stable")[:MOST_NAMES]
    # Plotly draws the first category at the bottom; coordinates stand in the order of the molecule, from the top.
    order = np.sort(order)[::-1]
    names = [f.names[i] for i in order]
    title = {"mean": f"Means of {f.kind}s", "wasserstein": f"Distributions of {f.kind}s"}[f.statistic]
    if len(order) < len(f.names):
        title += f", {len(order)} of {len(f.names)}"
    what = "run less reference" if f.statistic == "mean" else "Wasserstein distance"
    if f.statistic == "mean":
        data = [marks(numbers(f.errors[order]), names, "with what sampling shows", error_x=floors[order])]
    else:
        data = [
            marks(numbers(f.floors[order]), names, "sampling alone", GREY),
            marks(numbers(f.errors[order]), names, "run from reference"),
        ]
    figure = layout(f"{what} / {unit}", "", title, height=max(300, 130 + 17 * len(names)))
    figure["yaxis"] = {"type": "category", "dtick": 1, "tickfont": {"size": 11}}
    if f.statistic == "mean":
        figure["xaxis"] |= ZERO
    else:
        figure["xaxis"]["rangemode"] = "tozero"
    return {"data": data, "layout": figure}


@plots.register
def _(finding: SpectrumResult) -> list[Figure]:
    """The run above its reference."""
    data = []
    for spectrum, name, style in (
        (finding.reference, "reference", {"color": ORANGE, "width": 2.5}),
        (finding.run, "run", {"color": BLUE, "width": 1.3}),
    ):
        if spectrum.blocks:
            data.append(_density(spectrum, next(iter(spectrum.blocks)), name, style))
    title = "Density of vibrational states"
    return [{"data": data, "layout": layout(WAVE_NUMBER, DENSITY, title)}] if data else []


@plots.register
def _(finding: Spectrum) -> list[Figure]:
    data = []
    for k, (name, colour) in enumerate(zip(finding.blocks, (BLUE, ORANGE, GREY), strict=False)):
        shown = "all atoms" if name == "all" else name
        data.append(_density(finding, name, shown, {"width": 1.5 - 0.3 * k, "color": colour}))
    return [{"data": data, "layout": layout(WAVE_NUMBER, DENSITY, "Density of vibrational states")}] if data else []


def _density(spectrum: Spectrum, name: str, shown: str, style: dict[str, Any]) -> Figure:
    return line(spectrum.wavenumbers_cm, spectrum.mean(name), name=shown, line=style)


@plots.register
def _(finding: PeakMatch) -> list[Figure]:
    if not finding.lines:
        return []
    at = np.array([found.expected_cm for found in finding.lines])
    shift = np.array([100 * found.shift_cm / found.expected_cm for found in finding.lines])
    error = np.array([200 * found.error_cm / found.expected_cm for found in finding.lines])
    ends = np.array([at[0], at[-1]])
    data = [marks(numbers(at), numbers(shift), "lines", error_y=error)]
    factor = 100 * (finding.factor - 1)
    data.append(
        line(ends, np.full(2, factor), name=f"all at {factor:+.2f} %", line={"color": ORANGE, "width": 2}),
    )
    for limit, first in zip(finding.limits_percent, (True, False), strict=True):
        dash = {"color": GREY, "dash": "dash", "width": 1.5}
        style = {"name": "limits of the common factor", "showlegend": first, "legendgroup": "limits", "line": dash}
        data.append(line(ends, np.full(2, limit), **style))
    frame = layout("expected " + WAVE_NUMBER, "found less expected / %", "Lines")
    frame["yaxis"] |= ZERO
    return [{"data": data, "layout": frame}]


@plots.register
def _(finding: StepSizeLaw) -> list[Figure]:
    h, seen = np.array(finding.timesteps_fs), np.array(finding.fluctuations)
    law = seen[0] * (h / h[0]) ** 2
    data = [
        line(h, law, name="square of the step", line={"color": ORANGE, "dash": "dash"}),
        marks(numbers(h), numbers(seen), "seen"),
    ]
    return [{"data": data, "layout": layout("time step / fs", "fluctuation of the energy / meV", "Step-size law")}]
