"""The plots of the report as files for a paper: PDF with type that stays type, drawn by matplotlib from the same data."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

WIDTH_IN, HEIGHT_IN = 3.35, 2.4
"""One column of most journals."""
USUAL = 340
"""Height in pixels of most plots on the page; those with many names are higher, here, too."""
ERROR_BAR = {"elinewidth": 0.8, "capsize": 2, "ecolor": "#444444"}
RGBA = re.compile(r"rgba\((\d+),(\d+),(\d+),([\d.]+)\)")


def write_figures(plots: Mapping[str, Sequence[dict[str, Any]]], folder: Path) -> list[Path]:
    """Write each plot of a report as PDF, `SECTION-NUMBER.pdf`, each whole or not at all.

    Args:
        plots: Plotly figures by section of the page, as `mlff_sim.report.figures.figures` makes them.
        folder: made if missing.

    Returns:
        The files, in the order of the page.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    style: dict[Any, Any] = {"font.size": 8, "axes.linewidth": 0.6, "pdf.fonttype": 42, "legend.frameon": False}
    with rc_context(style):
        for section, drawn in plots.items():
            for index, plot in enumerate(drawn):
                figure = Figure(
                    figsize=(WIDTH_IN, HEIGHT_IN * max(1.0, plot["layout"]["height"] / USUAL)), layout="constrained"
                )
                _draw(figure.add_subplot(), plot)
                path = folder / f"{section}-{index + 1}.pdf"
                temporary = folder / f".{path.name}.{os.getpid()}.tmp"
                try:
                    figure.savefig(temporary, format="pdf")
                    os.replace(temporary, path)
                finally:
                    temporary.unlink(missing_ok=True)
                written.append(path)
    return written


def _draw(axes: Any, plot: Mapping[str, Any]) -> None:
    """One plot: lines, marks with errors, filled bands, bars."""
    layout = plot["layout"]
    stacked = layout.get("barmode") == "stack"
    left: dict[str, float] = {}
    for trace in plot["data"]:
        if trace["type"] == "bar":
            _bars(axes, trace, left if stacked else {})
        elif trace.get("fill") == "toself":
            x, y = _values(trace["x"]), _values(trace["y"])
            axes.fill(x, y, color=_colour(trace["fillcolor"]), lw=0, label=_label(trace))
        else:
            _line(axes, trace)
    for axis, say in (("xaxis", axes.set_xlabel), ("yaxis", axes.set_ylabel)):
        say(_plain((layout.get(axis, {}).get("title") or {}).get("text", "")))
    for axis, limit in (("xaxis", axes.set_xlim), ("yaxis", axes.set_ylim)):
        if layout.get(axis, {}).get("range"):
            limit(*layout[axis]["range"])
        elif layout.get(axis, {}).get("rangemode") == "tozero":
            limit(0)
    axes.set_title(_plain(layout["title"]["text"]), fontsize=8, loc="left")
    if len(axes.get_legend_handles_labels()[0]) > 1:
        axes.legend(fontsize=6.5)


def _line(axes: Any, trace: Mapping[str, Any]) -> None:
    line, marker = trace.get("line") or {}, trace.get("marker") or {}
    marks = "markers" in trace.get("mode", "lines")
    x, y = (_places(trace[axis]) for axis in ("x", "y"))
    style = {
        "color": _colour(line.get("color") or marker.get("color") or "#4c84d6"),
        "lw": 0.0 if marks and "lines" not in trace["mode"] else 0.6 * line.get("width", 1.5),
        "ls": "--" if line.get("dash") else "-",
        "marker": {"line-ew": "_"}.get(marker.get("symbol", ""), "o") if marks else None,
        "ms": 14 if marker.get("symbol") == "line-ew" else 3.5,
        "alpha": trace.get("opacity"),
        "label": _label(trace),
    }
    errors = {f"{axis}err": _error(trace[f"error_{axis}"]) for axis in ("x", "y") if trace.get(f"error_{axis}")}
    if errors:
        axes.errorbar(x, y, capsize=2, elinewidth=0.8, **errors, **style)
    else:
        axes.plot(x, y, **style)
    sides = trace.get("textposition") or ()
    for place, name, side in zip(zip(x, y, strict=True), trace.get("text") or (), sides, strict=False):
        left = side.endswith("left")
        style = {"ha": "right" if left else "left", "textcoords": "offset points", "fontsize": 6.5}
        axes.annotate(name, place, xytext=(-3 if left else 3, 3), **style)


def _error(error: Mapping[str, Any]) -> Any:
    """Lengths of error bars, downwards and upwards, none where there is no number."""
    return np.abs([np.nan_to_num(_values(error.get(side, error["array"]))) for side in ("arrayminus", "array")])


def _places(values: Sequence[Any]) -> Any:
    """Names as they are, numbers as an array."""
    return list(values) if values and all(isinstance(v, str) for v in values) else _values(values)


def _bars(axes: Any, trace: Mapping[str, Any], left: dict[str, float]) -> None:
    values = np.nan_to_num(_values(trace["x"]))
    start = [left.get(name, 0.0) for name in trace["y"]]
    colours = (trace.get("marker") or {}).get("color", "#4c84d6")
    colours = [_colour(c) for c in colours] if isinstance(colours, list) else _colour(colours)
    error = trace.get("error_x")
    spread = _error(error) if error else None
    axes.barh(
        list(trace["y"]),
        values,
        left=start,
        color=colours,
        xerr=spread,
        error_kw=ERROR_BAR,
        label=_label(trace),
        height=0.6,
    )
    for name, value in zip(trace["y"], values, strict=True):
        left[name] = left.get(name, 0.0) + float(value)


def _label(trace: Mapping[str, Any]) -> str | None:
    return trace.get("name") if trace.get("showlegend", True) else None


def _values(values: Sequence[float | None]) -> Any:
    return np.array([np.nan if v is None else v for v in values], dtype=np.float64)


def _colour(colour: str) -> Any:
    """A colour of matplotlib's from one of the web's."""
    found = RGBA.fullmatch(colour)
    return (*(int(c) / 255 for c in found.groups()[:3]), float(found[4])) if found else colour


def _plain(text: str) -> str:
    """Raised text in matplotlib's words."""
    return re.sub(r"<sup>(.*?)</sup>", r"$^{\1}$", text)
