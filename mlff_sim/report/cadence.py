"""A cadence certificate as a table, as JSON and as one page."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from mlff_sim.report.drawing import BLUE, GREY, ORANGE, Figure
from mlff_sim.report.html import page
from mlff_sim.report.results import strict, write_results, write_text
from mlff_sim.runfolder import hardware, versions
from mlff_sim.simulation.cadence import Cadence, Outlook, Step, windows

HEADER = (
    "outer step, fs",
    "k",
    "heating, meV/atom/ps",
    "five 20 ps runs scatter by",
    "hottest element, K",
    "linear growth, 1/ps",
    "bias, %",
    "speed-up",
    "",
)
COLOURS = {"respa": BLUE, "mollified": ORANGE}


def table(outlook: Outlook, every_fs: float = 1.0) -> list[list[str]]:
    """The predictions of a scheme as cells of text in the order of `HEADER`: at multiples of a step, and recommended."""
    marks = {outlook.nve: "NVE", outlook.nvt: "NVT"}
    if outlook.nve == outlook.nvt:
        marks = {outlook.nve: "NVE, NVT"}
    shown = [s for s in outlook.steps if abs(s.outer_fs / every_fs - round(s.outer_fs / every_fs)) < 1e-9]
    shown += [s for s in outlook.steps if s.k in marks and s not in shown]
    return [_cells(s, marks.get(s.k, "")) for s in sorted(shown, key=lambda s: s.k)]


def _cells(s: Step, mark: str) -> list[str]:
    hot = s.hot[s.hottest] if s.hot else None
    return [
        f"{s.outer_fs:g}",
        str(s.k),
        f"{s.heating.value:.3f} \N{PLUS-MINUS SIGN} {s.heating.stderr:.3f}",
        f"\N{PLUS-MINUS SIGN}{2 * s.scatter():.3f}",
        "-" if hot is None else f"{s.hottest} {_kelvin(hot.value)} \N{PLUS-MINUS SIGN} {_kelvin(hot.stderr)}",
        f"{s.growth:.2f}",
        f"{s.bias:.2g}",
        f"{s.speedup:.1f}x" if s.speedup else "-",
        f"longest for {mark}" if mark else "",
    ]


def _kelvin(x: float) -> str:
    return f"{x:+.1f}".replace("+-", "-") if np.isfinite(x) else "runs away"


def sentence(cadence: Cadence) -> str:
    """What to take from it."""
    c = cadence.config
    bath = f"NVT at {c.bath}" if c.ensemble == "nvt" else "NVE"
    if cadence.recommended is None:
        return f"No outer step is within the limits for {bath}: distil a better student, or take more friction."
    scheme, k = cadence.recommended
    outlook = next(o for o in cadence.outlooks if o.scheme == scheme)
    step = outlook.step(k)
    assert step is not None
    words = f"For {bath}: --scheme {scheme} --k-steps {k} ({step.outer_fs:g} fs)"
    if step.speedup:
        words += f", {step.speedup:.1f}x over the teacher at {c.timestep_fs:g} fs"
    length = cadence.break_even_ps(step)
    if length:
        words += f", worth distilling from {length:.2g} ps on"
    if k == outlook.steps[-1].k:
        words += "; no longer step was looked at"
    elif c.ensemble == "nvt" and outlook.next_friction:
        words += f"; a friction of {outlook.next_friction:.2g}/ps would allow the next"
    return words + "."


def write_cadence(cadence: Cadence, folder: Path) -> dict[str, Any]:
    """Write `cadence.json` and `cadence.html` into a folder (made if missing); returns what the JSON holds."""
    folder.mkdir(parents=True, exist_ok=True)
    recommended = cadence.recommended
    content: dict[str, Any] = strict(
        {
            "format": "mlff-sim-cadence",
            "version": 1,
            "recommended": None if recommended is None else {"scheme": recommended[0], "k_steps": recommended[1]},
            **asdict(cadence),
            "versions": versions(),
            "hardware": hardware(),
        }
    )
    c = cadence.config
    facts = {
        "structure": f"{c.structure}, {cadence.formula}",
        "teacher": c.teacher,
        "student": c.student,
        "temperature": f"{c.temperature_K:g} K",
        "friction": c.bath,
        "mass of hydrogens": f"{c.hydrogen_mass:g} u" if c.hydrogen_mass else "ordinary",
        "inner step": f"{c.timestep_fs:g} fs",
        "teacher calls": cadence.teacher_calls,
        "seed": c.seed,
        **{f"ms of a call, {k}": f"{v:.3g}" for k, v in cadence.timing.items()},
        **{f"version of {k}": v for k, v in content["versions"].items()},
        **content["hardware"],
    }
    plots = {"cadence": [_heating(cadence), _hot(cadence), _growth(cadence)]}
    if cadence.timing:
        plots["cadence"].append(_speed(cadence))
    html = page(
        "cadence.html.j2",
        plots,
        title=f"{cadence.formula}, {c.teacher}",
        sentence=sentence(cadence),
        header=HEADER,
        outlooks=[(o.scheme, table(o), _modes(o)) for o in cadence.outlooks],
        config=c,
        count=len(plots["cadence"]),
        facts=facts,
    )
    write_text(folder / "cadence.html", html)
    write_results(content, folder / "cadence.json")
    return content


def _modes(outlook: Outlook) -> list[list[str]]:
    return [
        [f"{m.cm1:.0f}", f"{100 * m.hydrogen:.0f}", f"{100 * m.error:.3f}", f"{m.growth:.2f}", f"{2 * m.growth:.2f}"]
        for m in outlook.modes
    ]


def _figure(title: str, y: str, data: list[Figure], cadence: Cadence, **axis: Any) -> Figure:
    layout = {
        "title": {"text": title, "x": 0, "xanchor": "left", "xref": "paper"},
        "xaxis": {"title": {"text": "outer step, fs"}, "range": [0, cadence.config.max_outer_fs + 0.5]},
        "yaxis": {"title": {"text": y}, **axis},
        "height": 380,
    }
    return {"data": data, "layout": layout}


def _limit(cadence: Cadence, value: float, name: str) -> Figure:
    ends = [0, cadence.config.max_outer_fs + 0.5]
    line = {"color": GREY, "dash": "dash", "width": 1}
    return {"type": "scatter", "mode": "lines", "name": name, "x": ends, "y": [value, value], "line": line}


def _line(outlook: Outlook, y: list[float | None], errors: list[float] | None = None, **style: Any) -> Figure:
    line: Figure = {
        "type": "scatter",
        "mode": "lines+markers",
        "name": outlook.scheme,
        "x": [s.outer_fs for s in outlook.steps],
        "y": y,
        "line": {"color": COLOURS[outlook.scheme]},
        **style,
    }
    return line | ({"error_y": {"array": errors, "thickness": 1}} if errors else {})


def _heating(cadence: Cadence) -> Figure:
    data = [_limit(cadence, cadence.config.drift_limit, "limit")]
    for o in cadence.outlooks:
        data.append(_line(o, [s.heating.value for s in o.steps], [s.heating.stderr for s in o.steps]))
    return _figure("Heating at constant energy", "meV/atom/ps", data, cadence)


def _hot(cadence: Cadence) -> Figure:
    c = cadence.config
    data = [_limit(cadence, c.temperature_limit_K, "limit")]
    for o in cadence.outlooks:
        hottest = [s.hot[s.hottest] if s.hot else None for s in o.steps]
        values = [h.value if h and np.isfinite(h.stderr) else None for h in hottest]
        data.append(_line(o, values, [h.stderr if h and np.isfinite(h.stderr) else 0.0 for h in hottest]))
    return _figure(f"Hottest element above the bath, {c.bath}", "K", data, cadence)


def _growth(cadence: Cadence) -> Figure:
    """Growth of the linear maps, and the windows of single modes as bars beneath."""
    data = [_line(o, [s.growth for s in o.steps]) for o in cadence.outlooks]
    for o in cadence.outlooks:
        found = windows(o.modes, cadence.config.max_outer_fs)
        data.append(
            {
                "type": "bar",
                "name": f"windows, {o.scheme}",
                "x": [(a + b) / 2 for a, b, _ in found],
                "width": [max(b - a, 0.02) for a, b, _ in found],
                "y": [g for _, _, g in found],
                "marker": {"color": COLOURS[o.scheme]},
                "opacity": 0.35,
            }
        )
    figure = _figure("Linear instability of frozen frames", "growth, 1/ps", data, cadence)
    figure["layout"]["barmode"] = "overlay"
    return figure


def _speed(cadence: Cadence) -> Figure:
    data = [_line(o, [s.speedup for s in o.steps]) for o in cadence.outlooks]
    title = f"Predicted speed-up over the teacher at {cadence.config.timestep_fs:g} fs"
    return _figure(title, "times faster", data, cadence, rangemode="tozero")
