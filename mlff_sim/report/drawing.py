"""Pieces of Plotly figures as plain dictionaries."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlff_sim.forces import Array

BLUE, ORANGE, GREEN, GREY = "#4c84d6", "#dd7f3b", "#3a9d76", "#8a8f98"
ANGSTROM = "\u00c5"
MAX_POINTS = 400
"""Of a line: what a screen can show, and a page can carry."""

Figure = dict[str, Any]


def numbers(x: Array) -> list[float | None]:
    """Five significant digits, None for what JSON lacks."""
    return [float(f"{v:.5g}") if np.isfinite(v) else None for v in np.asarray(x, dtype=np.float64).ravel()]


def line(x: Array, y: Array, **style: Any) -> Figure:
    """A line, thinned to what a screen can show."""
    stride = max(1, -(-len(x) // MAX_POINTS))
    return {"type": "scatter", "mode": "lines", "x": numbers(x[::stride]), "y": numbers(y[::stride]), **style}


def layout(x: str, y: str, title: str = "", **more: Any) -> Figure:
    """Titles of axes and plot."""
    return {
        "title": {"text": title, "x": 0, "xanchor": "left", "xref": "paper"},
        "xaxis": {"title": {"text": x}},
        "yaxis": {"title": {"text": y}},
        "height": 340,
        **more,
    }
