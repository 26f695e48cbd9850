"""Plots of speed: where the time goes, the speed-up, and the methods side by side."""

from __future__ import annotations

import numpy as np

from mlff_sim.forces import Array
from mlff_sim.report.drawing import BLUE, GREEN, GREY, ORANGE, Figure, layout, numbers
from mlff_sim.validation import Assessment, Method, RunAssessment, accuracy_per_second, method_bars


def speed(assessment: Assessment) -> list[Figure]:
    """Of the main run against its teacher alone; with two methods or more, these side by side."""
    own = _against_teacher(assessment.main)
    methods = assessment.methods
    if len(methods) < 2:
        return own
    return [*own, _bars(methods), *([_accuracy(methods)] if sum(m.error is not None for m in methods) > 1 else [])]


def _bars(methods: tuple[Method, ...]) -> Figure:
    """What a picosecond costs."""
    found = method_bars(methods)
    bar = {
        "type": "bar",
        "orientation": "h",
        "y": list(found.names),
        "x": numbers(found.s_per_ps),
        "marker": {"color": BLUE},
        "error_x": _ends(found.s_per_ps, found.low, found.high),
        "showlegend": False,
    }
    frame = layout("wall time / s per simulated ps", "", "What a picosecond costs", height=260 + 20 * len(found.names))
    frame["yaxis"] = {"type": "category", "automargin": True}
    return {"data": [bar], "layout": frame}


def _accuracy(methods: tuple[Method, ...]) -> Figure:
    """Error against speed: what a second buys."""
    found = accuracy_per_second(methods)
    middle = 0.5 * np.max(found.ns_per_day)
    data = []
    for which, colour, name in (
        (found.best, GREEN, "no other is faster and closer"),
        (np.logical_not(found.best), GREY, "another is faster and closer"),
    ):
        if not which.any():
            continue
        data.append(
            {
                "type": "scatter",
                "mode": "markers+text",
                "x": numbers(found.ns_per_day[which]),
                "y": numbers(found.error[which]),
                "text": [n for n, w in zip(found.names, which, strict=True) if w],
                "textposition": [f"top {'left' if v > middle else 'right'}" for v in found.ns_per_day[which]],
                "cliponaxis": False,
                "error_x": _ends(found.ns_per_day[which], found.low[which], found.high[which]),
                "error_y": {"type": "data", "array": numbers(found.error_stderr[which]), "color": GREY},
                "marker": {"size": 11, "color": colour},
                "name": name,
            }
        )
    frame = layout("speed / ns per day", "difference in pair distances / %", "What accuracy a second buys")
    frame["xaxis"]["rangemode"] = frame["yaxis"]["rangemode"] = "tozero"
    return {"data": data, "layout": frame}


def _ends(value: Array, low: Array, high: Array) -> Figure:
    """Bars from `low` to `high`; none where there is no interval."""
    above, below = np.nan_to_num(high - value), np.nan_to_num(value - low)
    return {"type": "data", "symmetric": False, "array": numbers(above), "arrayminus": numbers(below), "color": GREY}


def _against_teacher(run: RunAssessment) -> list[Figure]:
    if run.speed is None or run.speed.measured is None:
        return []
    m, split = run.speed.measured, dict(run.speed.split_s_per_ps) or {"hybrid": run.speed.measured.hybrid_s_per_ps}
    names = ["hybrid", "teacher alone"]
    bars: list[Figure] = []
    for part, color in zip(split, (ORANGE, BLUE, GREY), strict=False):
        baseline = m.baseline_s_per_ps if part == "teacher" or len(split) == 1 else 0.0
        bars.append(
            {
                "type": "bar",
                "orientation": "h",
                "y": names,
                "x": numbers(np.array([split[part], baseline])),
                "name": part,
                "marker": {"color": color},
            }
        )
    wall: Figure = {
        "data": bars,
        "layout": layout(
            "wall time / s per simulated ps", "", f"{run.name}: where the time goes", barmode="stack", height=260
        ),
    }
    wall["layout"]["yaxis"] = {"type": "category", "automargin": True}
    values, labels = [m.value], ["measured"]
    above, below = [m.ci95[1] - m.value if m.ci95 else 0.0], [m.value - m.ci95[0] if m.ci95 else 0.0]
    if run.speed.predicted is not None:
        values, labels, above, below = (
            [*values, run.speed.predicted],
            [*labels, "predicted"],
            [*above, 0.0],
            [*below, 0.0],
        )
    error = {
        "type": "data",
        "symmetric": False,
        "array": numbers(np.array(above)),
        "arrayminus": numbers(np.array(below)),
        "color": GREY,
    }
    bar = {
        "y": labels,
        "x": numbers(np.array(values)),
        "marker": {"color": [GREEN, GREY]},
        "error_x": error,
        "showlegend": False,
    }
    ratio: Figure = {
        "data": [{"type": "bar", "orientation": "h", **bar}],
        "layout": layout(
            "times faster than the teacher alone", "", f"Speed-up against {m.baseline_timestep_fs:g} fs", height=260
        ),
    }
    ratio["layout"]["yaxis"] = {"type": "category", "automargin": True}
    return [wall, ratio]
