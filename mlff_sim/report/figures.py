"""Plotly figures as plain dictionaries; colours of text and grid are left to the page, which knows light from dark."""

from __future__ import annotations

import numpy as np

from mlff_sim.forces import Array
from mlff_sim.report.drawing import ANGSTROM, BLUE, GREY, ORANGE, Figure, layout, line, numbers
from mlff_sim.report.parts import SECTIONS, section_of
from mlff_sim.report.plots import plots
from mlff_sim.report.speed import speed
from mlff_sim.validation import Assessment, RdfResult, RunAssessment

MAX_LINES = 16
"""Replicas in a plot."""
MOST_BAR = 0.1
"""Share of the temperature to which the plot makes room for bars; longer ones run out of it."""


def figures(assessment: Assessment) -> dict[str, list[Figure]]:
    """All plots by section of the page (`SECTIONS`), in its order."""
    runs = assessment.runs
    nve = [r for r in runs if r.drift] or [r for r in runs[:1] if r.energy.size]
    judged = assessment.worst_of("temperature") or assessment.main
    structure = assessment.worst_of("rdf")
    drawn = {
        "energy": [_energy(r) for r in nve],
        "temperature": [_temperature(judged)] if judged.temperatures else [],
        "structure": _structure(structure.rdf) if structure and structure.rdf else [],
        "speed": speed(assessment),
        "residual": [_residual(r) for r in runs if r.residual is not None and r.residual.size],
    }
    made = {section: drawn.get(section, []) for section in SECTIONS}
    for finding in (finding for r in runs for finding in r.findings.values()):
        for plot in plots(finding):
            made[section_of(finding)].append(plot)
    return made


def _replicas(run: RunAssessment, series: Array) -> list[Figure]:
    """One thin line per replica, the first of them in the legend for all."""
    shown = min(series.shape[1], MAX_LINES)
    name = (
        f"{shown} of {series.shape[1]} replicas"
        if shown < series.shape[1]
        else f"{shown} replica{'s' if shown > 1 else ''}"
    )
    style: Figure = {
        "line": {"width": 1, "color": BLUE},
        "opacity": 0.45,
        "hoverinfo": "skip",
        "legendgroup": "replicas",
    }
    return [line(run.time_ps, series[:, r], name=name, showlegend=r == 0, **style) for r in range(shown)]


def _energy(run: RunAssessment) -> Figure:
    data = _replicas(run, run.energy)
    outer = run.settings.get("outer_step_fs")  # None where a run was stopped before it was chosen
    title = f"{run.name}: {f'outer step {outer:g} fs, ' if outer else ''}{run.ensemble.upper()}"
    if run.drift:
        ends = np.array([run.time_ps[0], run.time_ps[-1]])
        fit = np.mean(run.drift.intercepts) + run.drift.slope * ends
        data.append(
            line(ends, fit, name=f"drift {run.drift.slope:+.3f} meV/atom/ps", line={"width": 3, "color": ORANGE})
        )
        for sign, shown in ((1, True), (-1, False)):
            limit = np.mean(run.drift.intercepts) + sign * run.drift.limit * ends
            data.append(
                line(
                    ends,
                    limit,
                    name="limit",
                    showlegend=shown,
                    legendgroup="limit",
                    line={"width": 1.5, "dash": "dash", "color": GREY},
                )
            )
    return {"data": data, "layout": layout("time / ps", "energy change / meV/atom", title)}


def _temperature(run: RunAssessment) -> Figure:
    assert run.temperatures is not None
    t = run.temperatures
    groups = [t.total, *t.by_element.values(), *t.by_motion.values()]
    bars = [g.three_sigma_K if np.isfinite(g.three_sigma_K) else 0.0 for g in groups]
    data: list[Figure] = [
        {
            "type": "scatter",
            "mode": "markers",
            "x": ["all atoms" if g.name == "all" else g.name for g in groups],
            "y": numbers(np.array([g.mean_K for g in groups])),
            "error_y": {"type": "data", "array": numbers(np.array(bars)), "thickness": 2, "width": 8, "color": BLUE},
            "marker": {"size": 10, "color": BLUE},
            "name": "mean, with three standard errors",
        }
    ]
    frame = layout("", "kinetic temperature / K", run.name, showlegend=True)
    target = t.total.target_K
    if target is not None:
        bath = {
            "x": data[0]["x"],
            "y": [target] * len(groups),
            "name": f"bath, {target:g} K",
            "line": {"color": ORANGE, "dash": "dash"},
        }
        data.append({"type": "scatter", "mode": "lines", **bath})
    middle = t.total.mean_K if target is None else target
    if np.isfinite(middle):
        # Six degrees of freedom of translation and rotation have bars that would press all others flat.
        offs = [abs(g.mean_K - middle) + min(b, MOST_BAR * middle) for g, b in zip(groups, bars, strict=True)]
        reach = max(0.04 * middle, *(1.15 * off for off in offs if np.isfinite(off)))
        frame["yaxis"]["range"] = [middle - reach, middle + reach]
    frame["xaxis"] = {"type": "category"}
    return {"data": data, "layout": frame}


def _structure(r: RdfResult) -> list[Figure]:
    """One plot per element pair: the reference within the band that sampling explains, the run on top."""
    out = []
    for pair in r.reference:
        run, reference, band = r.run[pair], r.reference[pair], 2.0 * np.nan_to_num(r.band[pair], posinf=0.0)
        held = np.flatnonzero((run + reference) > 0)
        window = slice(max(0, int(held[0]) - 2), int(held[-1]) + 3)
        x = r.centres[window]
        lower, upper = np.maximum(reference - band, 0.0)[window], (reference + band)[window]
        data = [
            {
                "type": "scatter",
                "mode": "lines",
                "x": numbers(np.concatenate([x, x[::-1]])),
                "y": numbers(np.concatenate([upper, lower[::-1]])),
                "fill": "toself",
                "fillcolor": "rgba(221,127,59,0.28)",
                "line": {"width": 0},
                "name": "what sampling explains",
                "hoverinfo": "skip",
            },
            line(x, reference[window], name="reference", line={"color": ORANGE, "width": 1.5}),
            line(x, run[window], name="run", line={"color": BLUE, "width": 1.5}),
        ]
        title = f"{pair.replace('-', chr(8211))}, error {r.by_pair[pair]:.1f} %"
        out.append(
            {
                "data": data,
                "layout": layout(f"distance / {ANGSTROM}", f"density / {ANGSTROM}<sup>-1</sup>", title, height=300),
            }
        )
    return out


def _residual(run: RunAssessment) -> Figure:
    assert run.residual is not None
    mean = run.residual.mean(axis=1)
    data = [*_replicas(run, run.residual), line(run.time_ps, mean, name="mean", line={"width": 2.5, "color": ORANGE})]
    frame = layout("time / ps", "residual force / meV/" + ANGSTROM, run.name)
    frame["yaxis"]["rangemode"] = "tozero"
    return {"data": data, "layout": frame}
