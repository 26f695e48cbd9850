"""Plots of a time study: wall-clock bars, accuracy per second, and what was predicted beside what happened."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlff_sim.report.drawing import BLUE, GREEN, GREY, ORANGE, Figure, layout, numbers
from mlff_sim.validation.methods import DAY_S, PS_PER_NS
from mlff_sim.validation.timestudy import TEACHER, Cell, TimeTable

SECTIONS = {
    "bars": (
        "Wall-clock time",
        "What a simulated picosecond takes, for one replica; medians over blocks of the run, with 95 % intervals.",
    ),
    "accuracy": (
        "Accuracy per second",
        "How far a run is from the teacher, as a multiple of how far the teacher's own replicas are from each other (1: no "
        "farther), over how fast it is. Right and low is good; bars are the joint 95 % intervals of the excess.",
    ),
    "predicted": (
        "Break-even: predicted and measured",
        "Below the diagonal a run is slower than its calls promised. Above 1 on both axes it pays, as predicted.",
    ),
}
"""Title and caption of each section, in their order."""
COLOURS = (BLUE, ORANGE, GREEN, "#a05ab4", "#c2a83e", "#4aa3a2", "#b0455f", "#6b6fb5")
"""Of ways, the teacher alone in grey."""
SHOWN = {"mean_rdf_l1": "pair distances (L1)", "mean_bond_rmse": "bonds (RMSE)"}
"""Figures with a plot of their own."""


def timeplots(table: TimeTable) -> dict[str, list[Figure]]:
    """Figures by section; a section without any is empty."""
    colours = {way: GREY if way == TEACHER else COLOURS[i % len(COLOURS)] for i, way in enumerate(table.ways, -1)}
    return {
        "bars": [_bars(table, colours)],
        "accuracy": [f for name in SHOWN if (f := _accuracy(table, name, colours)) is not None],
        "predicted": [f for f in [_predicted(table, colours)] if f is not None],
    }


def _bars(table: TimeTable, colours: dict[str, str]) -> Figure:
    data = []
    for way in table.ways:
        cells = [c for c in table.of(way) if np.isfinite(c.s_per_ps)]
        ends = [c.s_per_ps_ci95 or (c.s_per_ps, c.s_per_ps) for c in cells]
        data.append(
            {
                "type": "bar",
                "name": way,
                "x": [c.molecule for c in cells],
                "y": [c.s_per_ps for c in cells],
                "marker": {"color": colours[way]},
                "error_y": _ends([c.s_per_ps for c in cells], ends),
            }
        )
    frame = layout("", "wall time / s per simulated ps", "What a picosecond takes", barmode="group", height=420)
    frame["yaxis"]["type"] = "log"
    frame["xaxis"]["type"] = "category"
    return {"data": data, "layout": frame}


def _accuracy(table: TimeTable, name: str, colours: dict[str, str]) -> Figure | None:
    data = []
    for way in table.ways:
        cells = [
            c for c in table.of(way) if name in c.figures and np.isfinite(c.s_per_ps) and c.figures[name].floor > 0
        ]
        if not cells:
            continue
        shown = [c.figures[name] for c in cells]
        ratios = [f.value / f.floor for f in shown]
        data.append(
            _points(way, cells, [DAY_S / PS_PER_NS / c.s_per_ps for c in cells], ratios, colours)
            | {"error_y": _ends(ratios, [tuple(1 + e / f.floor for e in f.interval) for f in shown])}
        )
    if not data:
        return None
    frame = layout("speed / ns per day", "times the seed-to-seed floor", SHOWN[name], height=420)
    frame["xaxis"]["type"] = "log"
    frame["shapes"] = [_line(0, 1, 1, 1, xref="paper")]
    return {"data": data, "layout": frame}


def _predicted(table: TimeTable, colours: dict[str, str]) -> Figure | None:
    data, ends = [], []
    for way in table.ways:
        cells = [c for c in table.of(way) if c.measured and c.predicted]
        if not cells:
            continue
        measured = [c.measured.value for c in cells if c.measured]
        predicted = [c.predicted.value for c in cells if c.predicted]
        intervals = [c.measured.ci95 or (c.measured.value,) * 2 for c in cells if c.measured]
        ends += measured + predicted
        data.append(_points(way, cells, predicted, measured, colours) | {"error_y": _ends(measured, intervals)})
    if not data:
        return None
    frame = layout("predicted speed-up", "measured speed-up", "What calls promised, and what came of it", height=420)
    frame["xaxis"]["type"] = frame["yaxis"]["type"] = "log"
    low, high = 0.8 * min(*ends, 1.0), 1.25 * max(*ends, 1.0)
    frame["shapes"] = [_line(low, low, high, high), _line(0, 1, 1, 1, xref="paper"), _line(1, 0, 1, 1, yref="paper")]
    return {"data": data, "layout": frame}


def _points(way: str, cells: list[Cell], x: list[float], y: list[float], colours: dict[str, str]) -> Figure:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": way,
        "x": numbers(np.array(x)),
        "y": numbers(np.array(y)),
        "text": [c.molecule for c in cells],
        "marker": {"size": 10, "color": colours[way]},
    }


def _ends(values: Sequence[float], ends: Sequence[tuple[float, ...]]) -> Figure:
    above, below = (np.array([s * (e[k] - v) for v, e in zip(values, ends, strict=True)]) for k, s in ((1, 1), (0, -1)))
    return {"type": "data", "symmetric": False, "array": numbers(above), "arrayminus": numbers(below), "color": GREY}


def _line(x0: float, y0: float, x1: float, y1: float, **refs: str) -> Figure:
    style = {"color": GREY, "width": 1, "dash": "dot"}
    return {"type": "line", "x0": x0, "y0": y0, "x1": x1, "y1": y1, "line": style, **refs}
