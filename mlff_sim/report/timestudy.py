"""A time study as tables, as JSON and as one page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlff_sim.report.drawing import ANGSTROM
from mlff_sim.report.html import page
from mlff_sim.report.results import strict, write_results, write_text
from mlff_sim.report.row import number
from mlff_sim.report.timeplots import SECTIONS, timeplots
from mlff_sim.runfolder import hardware, versions
from mlff_sim.validation.floor import BesideFloor
from mlff_sim.validation.timestudy import TEACHER, Cell, Mean, TimeTable
from mlff_sim.validation.verdict import Verdict

TIME = (
    "molecule",
    "way",
    "s a ps",
    "speed-up (95 %)",
    "predicted",
    "model may take, ms",
    "takes, ms",
    "pays",
    "samples a s",
    "run, s",
)
COLUMNS = {
    "mean_bond_rmse": f"bonds, {ANGSTROM}",
    "mean_angle_rmse": "angles, deg",
    "mean_dihedral_rmse": "dihedrals, deg",
    "mean_rdf_l1": "pair distances, L1",
}
DRIFT = "drift, meV/atom/ps"
ACCURACY = ("molecule", "way", *COLUMNS.values(), "temperature, K", DRIFT, "accepted, given back", "verdict")
WORDS = {
    "mean_bond_rmse": "bonds",
    "mean_angle_rmse": "angles",
    "mean_dihedral_rmse": "dihedrals",
    "mean_rdf_l1": "pair distances",
    "rdf": "pair distances",
    "nve": "drift",
}
"""Parts of a verdict, where their names are no words."""
MEANS = (
    "way",
    "speed-up (95 %)",
    "predicted",
    "samples a s, of the teacher's",
    *COLUMNS.values(),
    f"{DRIFT} (most)",
    "found wrong",
    "open",
)
EXTRAPOLATED = "whole run, s (extrapolated)"
"""The last column of `TIME` where only call times were taken."""
RESOLVED = 0.5
"""Relative standard error below which rates of sampling are ranked in words."""
Part = tuple[tuple[str, ...], list[list[str]]]
"""A table: its header and its rows, cells of text."""


def time_part(table: TimeTable) -> Part:
    """What the runs cost, what that was predicted to be, and whether it pays."""
    rows = [_time(c) for c in table.cells]
    return (TIME, rows) if table.extrapolated is None else ((*TIME[:-1], EXTRAPOLATED), rows)


def _time(c: Cell) -> list[str]:
    m, p = c.measured, c.predicted
    pays = "" if p is None else "yes" if p.pays else "no"
    came = {None: "", True: ", and so it was", False: ", and it was not so"}[c.came_true]
    return [
        c.molecule,
        c.way,
        number(c.s_per_ps),
        "" if m is None else f"{number(m.value)} ({_interval(m.ci95)})",
        "" if p is None else number(p.value),
        "" if p is None else number(1e3 * p.allowed_s),
        "" if p is None else number(1e3 * (p.student_s if c.model_s is None else c.model_s)),
        pays + came,
        "" if c.rate is None else f"{number(c.rate.value, 2)} \u00b1 {number(c.rate.stderr, 2)}",
        number(c.run_s),
    ]


def accuracy_part(table: TimeTable) -> Part:
    """How close the runs are to the teacher; empty where only call times were taken."""
    return ACCURACY, [_accuracy(c) for c in table.cells] if table.extrapolated is None else []


def _accuracy(c: Cell) -> list[str]:
    temperatures = c.judged.temperatures.by_element if c.judged.temperatures else {}
    return [
        c.molecule,
        c.way,
        *(_beside(c.figures.get(name), c.way == TEACHER) for name in COLUMNS),
        ", ".join(f"{e} {t.mean_K:.0f} \u00b1 {t.stderr_K:.0f}" for e, t in temperatures.items()),
        "" if c.drift is None else f"{_slope(c.drift.slope)} ({' to '.join(map(_slope, c.drift.ci95))})",
        _counted(c),
        verdict_word(c),
    ]


def _counted(c: Cell) -> str:
    accepted = [] if c.judged.ghmc is None else [f"{100 * c.judged.ghmc.acceptance:.0f} %"]
    jumps = c.judged.jumps
    return ", ".join(accepted + ([] if jumps is None else [f"{jumps.dropped} of {jumps.made}"]))


def verdict_word(c: Cell) -> str:
    """The verdict of a cell with the parts that it rests on."""
    if c.way == TEACHER:
        return "reference" if c.judged.ended is None else "reference, stopped"
    if c.judged.ended is Verdict.FAIL:
        stop = c.judged.settings.get("stop") or {}
        return f"stopped ({stop.get('rule')})"
    which = [WORDS.get(k, k) for k, v in c.parts.items() if v is c.verdict] if c.verdict is Verdict.FAIL else []
    return c.verdict.value + (f" ({', '.join(which)})" if which else "")


def _beside(f: BesideFloor | None, alone: bool) -> str:
    """A figure, its floor, and a star where they differ by more than seeds do; of the teacher what seeds differ by."""
    if f is None:
        return ""
    return (
        f"{number(f.floor)} \u00b1 {number(f.floor_spread, 2)}"
        if alone
        else f"{number(f.value)}{'*' * f.seen} ({number(f.floor)})"
    )


def mean_part(table: TimeTable) -> Part:
    """The ways over all molecules."""
    wide = len(MEANS) if table.extrapolated is None else MEANS.index("predicted") + 1
    return MEANS[:wide], [_mean(m)[:wide] for m in table.means()]


def _mean(m: Mean) -> list[str]:
    interval = f" ({_interval(m.speedup_ci95)})" if m.speedup_ci95 else ""
    figures = [f"{number(m.figures[n][0])} ({number(m.figures[n][1])})" if n in m.figures else "" for n in COLUMNS]
    counts = [f"{len(names)} of {m.molecules}" for names in (m.failed, m.undecided)]
    drift = "" if m.drift is None else "{} ({})".format(*map(_slope, m.drift))
    return [m.way, number(m.speedup) + interval, number(m.predicted), _gain(m), *figures, drift, *counts]


def _gain(m: Mean) -> str:
    """Samples a second, as a multiple of the teacher's."""
    if m.sampling is None or m.sampling_stderr is None:
        return ""
    return f"{number(m.sampling, 2)} \u00b1 {number(m.sampling * m.sampling_stderr, 2)}"


def _slope(drift: float) -> str:
    """Thousandths of a meV/atom/ps; what rounding leaves of a law that is exact is 0."""
    return f"{round(drift, 3) + 0.0:g}"


def _interval(ends: tuple[float, float] | None) -> str:
    return "-" if ends is None else f"{number(ends[0])} to {number(ends[1])}"


def conclusion(table: TimeTable) -> tuple[str, str]:
    """Which way is best at equal accuracy: a title and sentences."""
    means = table.means()
    if table.extrapolated is not None:
        return _fastest(
            [m for m in means if m.speedup],
            "Fastest",
            f"Measured over a few calls, totals extrapolated to {table.extrapolated:g} ps for each replica. Accuracy was "
            "not looked at.",
        )
    sound = [m for m in means if not m.failed and m.molecules == len(table.molecules)]
    said = []
    if sampled := [m for m in sound if m.sampling_stderr is not None and m.sampling_stderr < RESOLVED]:
        most = max(sampled, key=lambda m: m.sampling or 0.0)
        said.append(f"Most independent samples a second: {most.way}, {_gain(most)} times the teacher's.")
    wrong = [f"{m.way} ({len(m.failed)} of {m.molecules}: {', '.join(m.failed)})" for m in means if m.failed]
    said.append(f"Something was found wrong with {'; '.join(wrong)}." if wrong else "Nothing was found wrong with any.")
    if undecided := [f"{m.way} ({len(m.undecided)} of {m.molecules})" for m in sound if m.undecided]:
        said.append(f"Not everything could be told, for want of sampling, of {'; '.join(undecided)}.")
    equal = not any(m.undecided for m in sound)
    words = "Fastest at equal accuracy" if equal else "Fastest with nothing found wrong"
    return _fastest([m for m in sound if m.speedup and m.dynamics], words, " ".join(said))


def _fastest(means: list[Mean], words: str, rest: str) -> tuple[str, str]:
    """Of ways whose time is one; those that only sample are told by their samples."""
    if not means:
        return "No dynamics stands beside the teacher alone", rest
    best = max(means, key=lambda m: m.speedup or 0.0)
    if (best.speedup or 0.0) <= 1:
        return (
            "No dynamics is faster than the teacher alone",
            f"The next is {best.way}, {number(best.speedup)} times as fast. {rest}",
        )
    interval = f", 95 % {_interval(best.speedup_ci95)}" if best.speedup_ci95 else ""
    many = f"geometric mean of {best.molecules} molecules{interval}" if best.molecules > 1 else "one molecule"
    return f"{words}: {best.way}, {number(best.speedup)} times the teacher alone ({many})", rest


def content(table: TimeTable) -> dict[str, Any]:
    """What `results.json` holds; names may be added, never changed."""
    title, sentence = conclusion(table)
    out = {
        "format": "mlff-sim-time-study-results",
        "version": 1,
        "title": title,
        "sentence": sentence,
        "extrapolated_to_ps": table.extrapolated,
        "molecules": list(table.molecules),
        "ways": list(table.ways),
        "notes": list(table.notes),
        "cells": [_cell(c) for c in table.cells],
        "means": [
            {
                "way": m.way,
                "molecules": m.molecules,
                "failed": list(m.failed),
                "undecided": list(m.undecided),
                "speedup": m.speedup,
                "speedup_ci95": m.speedup_ci95,
                "predicted": m.predicted,
                "sampling": m.sampling,
                "sampling_stderr": None if m.sampling is None else m.sampling * (m.sampling_stderr or 0.0),
                "dynamics": m.dynamics,
                "drift_meV_per_atom_ps": None if m.drift is None else m.drift[0],
                "drift_most_meV_per_atom_ps": None if m.drift is None else m.drift[1],
                "figures": {k: {"value": v, "floor": f} for k, (v, f) in m.figures.items()},
            }
            for m in table.means()
        ],
        "versions": versions(),
        "hardware": hardware(),
    }
    clean: dict[str, Any] = strict(out)
    return clean


def _cell(c: Cell) -> dict[str, Any]:
    m, p, t, s = c.measured, c.predicted, c.judged.temperatures, c.judged.settings
    stop = s.get("stop")
    return {
        "molecule": c.molecule,
        "formula": s["structure"].get("formula"),
        "way": c.way,
        "verdict": None if c.way == TEACHER else c.verdict.value,
        "parts": {k: v.value if v else None for k, v in c.parts.items()},
        "status": s.get("status"),
        "stop": None if not stop else f"{stop['rule']}: {stop['detail']}",
        "s_per_ps": c.s_per_ps,
        "s_per_ps_ci95": c.s_per_ps_ci95,
        "run_s": c.run_s,
        "speedup": m.value if m else None,
        "speedup_ci95": m.ci95 if m else None,
        "predicted": p.value if p else None,
        "cycle": None if c.cycle is None else vars(c.cycle),
        "timing": s.get("timing"),
        "allowed_s": p.allowed_s if p else None,
        "model_calls_s": p.student_s if p else None,
        "model_s": c.model_s,
        "pays": p.pays if p else None,
        "came_true": c.came_true,
        "investment_s": c.judged.speed.investment_s if c.judged.speed else None,
        "break_even_ps": c.judged.speed.break_even_ps if c.judged.speed else None,
        "figures": {k: _figure(f) for k, f in c.figures.items()},
        "temperature_K": None
        if t is None
        else {
            "mean": t.total.mean_K,
            "by_element": {k: g.mean_K for k, g in t.by_element.items()},
            "stderr_by_element": {k: g.stderr_K for k, g in t.by_element.items()},
        },
        "drift_meV_per_atom_ps": c.drift.slope if c.drift else None,
        "drift_ci95": c.drift.ci95 if c.drift else None,
        "acceptance": c.judged.ghmc.acceptance if c.judged.ghmc else None,
        "jumps": None if c.judged.jumps is None else {"made": c.judged.jumps.made, "dropped": c.judged.jumps.dropped},
        "samples_per_s": c.rate.value if c.rate else None,
        "samples_per_s_stderr": c.rate.stderr if c.rate else None,
        "slowest": c.slowest or None,
        "dynamics": c.dynamics,
        "notes": list(c.judged.notes),
    }


def _figure(f: BesideFloor) -> dict[str, Any]:
    return {
        "unit": f.unit,
        "value": f.value,
        "floor": f.floor,
        "floor_spread": f.floor_spread,
        "excess": f.excess,
        "interval": f.interval,
        "limit": f.limit,
        "verdict": f.verdict.value,
        "values": f.values.tolist(),
        "floors": f.floors.tolist(),
    }


def write_time_study(table: TimeTable, folder: Path, asked: dict[str, Any]) -> dict[str, Any]:
    """Write `results.json` and `report.html` into a folder; returns what the JSON holds.

    Args:
        table: one cell at least.
        folder: there already.
        asked: what was run, for the end of the page.
    """
    found = content(table)
    plots = timeplots(table)
    html = page(
        "timestudy.html.j2",
        plots,
        title=found["title"],
        sentence=found["sentence"],
        extrapolated=table.extrapolated,
        time=time_part(table),
        accuracy=accuracy_part(table),
        means=mean_part(table),
        notes=found["notes"],
        sections=[(key, *SECTIONS[key], len(plots[key])) for key in SECTIONS if plots[key]],
        facts={
            **{k.replace("_", " "): v for k, v in asked.items() if v is not None},
            **{f"version of {k}": v for k, v in found["versions"].items()},
            **found["hardware"],
        },
    )
    write_text(folder / "report.html", html)
    write_results(found, folder / "results.json")
    return found
