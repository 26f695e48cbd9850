"""A benchmark as a table, as JSON and as one page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlff_sim.benchmark import Ladder, Rung
from mlff_sim.report.drawing import BLUE, GREEN, GREY, ORANGE, Figure
from mlff_sim.report.html import page
from mlff_sim.report.results import strict, write_results, write_text
from mlff_sim.runfolder import hardware, versions

HEADER = (
    "rung",
    "structures a call",
    "ms a structure",
    "speed-up",
    "memory, MB",
    "start, s",
    "energy off, meV/atom",
    "force off, meV/\u00c5",
    "force error, %",
)


def table(ladder: Ladder) -> list[list[str]]:
    """The rungs as cells of text, in the order of `HEADER`."""
    return [_cells(r) for r in ladder.rungs]


def _cells(r: Rung) -> list[str]:
    if r.ms is None:
        return [r.name, str(r.batch), f"not available: {r.note}", *[""] * (len(HEADER) - 3)]
    assert r.start_s is not None and r.energy_deviation is not None
    return [
        r.name,
        str(r.batch),
        f"{r.ms:.3g}",
        f"{r.speedup:.1f}x",
        "" if r.memory_MB is None else f"{r.memory_MB:.3g}",
        f"{r.start_s:.2g}",
        f"{r.energy_deviation:.2g}",
        f"{r.force_deviation:.2g}",
        f"{r.force_error:.2g}",
    ]


def best(ladder: Ladder) -> Rung:
    """The fastest rung whose forces are within 1 meV/A of the eager model's."""
    good = [r for r in ladder.rungs if r.ms is not None and (r.force_deviation or 0.0) <= 1.0]
    return min(good, key=lambda r: r.ms or 0.0)


def sentence(ladder: Ladder) -> str:
    """What to take from it."""
    b = best(ladder)
    return (
        f"Fastest within 1 meV/A of the eager forces: {b.name}, {b.batch} structure{'s' if b.batch > 1 else ''} a call, "
        f"{b.ms:.3g} ms a structure, {b.speedup:.1f}x, {b.force_deviation:.2g} meV/A off."
    )


def write_bench(ladder: Ladder, folder: Path) -> dict[str, Any]:
    """Write `bench.json` and `bench.html` into a folder (made if missing); returns what the JSON holds."""
    folder.mkdir(parents=True, exist_ok=True)
    content: dict[str, Any] = strict(
        {"format": "mlff-sim-bench", "version": 1, **ladder.as_dict(), "versions": versions(), "hardware": hardware()}
    )
    periodic = "periodic" if ladder.periodic else "molecule"
    facts = {
        "model": ladder.model,
        "structure": f"{ladder.formula}, {ladder.n_atoms} atoms, {periodic}",
        "device": ladder.device,
        "precision": ladder.dtype,
        "threads": ladder.threads,
        **{f"version of {k}": v for k, v in content["versions"].items()},
        **content["hardware"],
    }
    plots = {"ladder": [_time(ladder), _error(ladder)]}
    html = page(
        "bench.html.j2",
        plots,
        title=f"{ladder.model}, {ladder.formula}",
        sentence=sentence(ladder),
        header=HEADER,
        rows=table(ladder),
        count=len(plots["ladder"]),
        facts=facts,
    )
    write_text(folder / "bench.html", html)
    write_results(content, folder / "bench.json")
    return content


def _lines(ladder: Ladder) -> dict[str, list[Rung]]:
    lines: dict[str, list[Rung]] = {}
    for r in ladder.rungs:
        if r.ms is not None:
            lines.setdefault(r.name, []).append(r)
    return lines


def _time(ladder: Ladder) -> Figure:
    data = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": name,
            "x": [r.batch for r in rungs],
            "y": [r.ms for r in rungs],
            "line": {"color": colour},
        }
        for (name, rungs), colour in zip(_lines(ladder).items(), (GREY, BLUE, ORANGE, GREEN), strict=False)
    ]
    layout = {
        "title": {"text": "Time for a structure", "x": 0, "xanchor": "left", "xref": "paper"},
        "xaxis": {
            "title": {"text": "structures a call"},
            "type": "log",
            "tickvals": sorted({r.batch for r in ladder.rungs}),
        },
        "yaxis": {"title": {"text": "ms"}, "type": "log"},
        "height": 380,
    }
    return {"data": data, "layout": layout}


def _error(ladder: Ladder) -> Figure:
    data = [
        {
            "type": "bar",
            "name": name,
            "x": [str(r.batch) for r in rungs],
            "y": [max(r.force_deviation or 0.0, 1e-6) for r in rungs],
            "marker": {"color": colour},
        }
        for (name, rungs), colour in zip(_lines(ladder).items(), (GREY, BLUE, ORANGE, GREEN), strict=False)
        if name != "eager"
    ]
    layout = {
        "title": {"text": "Force deviation from the eager model", "x": 0, "xanchor": "left", "xref": "paper"},
        "xaxis": {"title": {"text": "structures a call"}, "type": "category"},
        "yaxis": {"title": {"text": "meV/\u00c5, largest component"}, "type": "log"},
        "height": 380,
    }
    return {"data": data, "layout": layout}
