"""What several ways to simulate several molecules cost, what that was predicted to be, and what accuracy it bought."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mlff_sim.cost import CYCLES
from mlff_sim.errors import InputError
from mlff_sim.runfolder import read_run, read_study
from mlff_sim.validation.assess import assess, kept
from mlff_sim.validation.assessment import Run, RunAssessment, clock, sound
from mlff_sim.validation.breakeven import (
    CallTimes,
    Cycle,
    Interval,
    Prediction,
    Rate,
    Speedup,
    predict,
    sample_rates,
)
from mlff_sim.validation.energy import Drift, fewest_frames, nve_drift
from mlff_sim.validation.floor import BesideFloor, beside_floor
from mlff_sim.validation.methods import Method, method_bars
from mlff_sim.validation.montecarlo import observables
from mlff_sim.validation.sampling import effective_samples, student_t
from mlff_sim.validation.timing import blocks
from mlff_sim.validation.verdict import Verdict, worst

TEACHER = "teacher"
"""The way that all others are held to."""


@dataclass(frozen=True, eq=False)
class Cell:
    """One molecule run in one way.

    Attributes:
        molecule: its name.
        way: name of the run.
        judged: the run by everything that applies to it, against the teacher's.
        s_per_ps: s/ps for each replica, median over blocks; NaN where no block was finished.
        s_per_ps_ci95: its bootstrap interval; None with fewer than three blocks.
        run_s: s, what the whole run took; where only call times were taken, what all replicas would take by these.
        cycle: what the scheme does between two corrections; None for the teacher alone.
        predicted: what times of single calls promise; None where there are none.
        model_s: s, what the calls of the cheap model took in a cycle, over the whole run and for each replica; None
            without one.
        figures: of the structure, beside their floors, which those of the teacher alone are; empty without frames.
        drift: of the conserved energy over the run; with a bath of `K + U` less its heat, which is what the steps put in and
            the bath takes out, and is not judged. None with too few frames.
        rate: effective samples a second of the slowest of energy, size and torsions; None where it is not known.
        slowest: which that is; empty where it is not known.
    """

    molecule: str
    way: str
    judged: RunAssessment
    s_per_ps: float
    s_per_ps_ci95: Interval | None
    run_s: float
    cycle: Cycle | None
    predicted: Prediction | None
    model_s: float | None
    figures: Mapping[str, BesideFloor]
    drift: Drift | None
    rate: Rate | None
    slowest: str

    @property
    def measured(self) -> Speedup | None:
        """Against blocks of the teacher that alternate with the run's own."""
        return self.judged.speed.measured if self.judged.speed else None

    @property
    def came_true(self) -> bool | None:
        """Whether what pays and what does not is as predicted; None where either is not known, or not told apart from 1."""
        if self.measured is None or self.measured.ci95 is None or self.predicted is None:
            return None
        low, high = self.measured.ci95
        return None if low <= 1 <= high else (low > 1) == self.predicted.pays

    @property
    def dynamics(self) -> bool:
        """Whether it has a time, if only approximately, as jumps do; what only samples has none."""
        s = self.judged.settings
        return bool(s.get("physical_time", True)) or s.get("scheme") == "kstep"

    @property
    def parts(self) -> dict[str, Verdict | None]:
        """Verdicts on accuracy: of the figures, and of what every run is judged by.

        Pair distances are judged by their figure: that of `compare` expects frames as close as the reference's.
        """
        own = {k: v for k, v in self.judged.parts.items() if k != "rdf" or not self.figures}
        return {**own, **{k: f.verdict for k, f in self.figures.items()}}

    @property
    def verdict(self) -> Verdict:
        """The worst of the parts."""
        return worst(self.parts.values())


@dataclass(frozen=True)
class Mean:
    """One way over all molecules.

    Attributes:
        way: its name.
        molecules: how many it was run for.
        failed: names of those for which something was found wrong.
        undecided: names of those for which something could not be told.
        speedup: geometric mean; None where none was measured.
        speedup_ci95: its interval over the molecules, Student's t of the logarithms; None with fewer than three.
        predicted: geometric mean.
        sampling: geometric mean of effective samples a second over the teacher's.
        sampling_stderr: its standard error, of counting effective samples; relative to 1.
        dynamics: whether it has a time.
        drift: meV/atom/ps, mean slope of the conserved energy, and that furthest from zero; None where there is none.
        figures: name to the means of value and floor, over the molecules that have it.
    """

    way: str
    molecules: int
    failed: tuple[str, ...]
    undecided: tuple[str, ...]
    speedup: float | None
    speedup_ci95: Interval | None
    predicted: float | None
    sampling: float | None
    sampling_stderr: float | None
    dynamics: bool
    drift: tuple[float, float] | None
    figures: Mapping[str, tuple[float, float]]


@dataclass(frozen=True, eq=False)
class TimeTable:
    """A time study, judged.

    Attributes:
        cells: molecule by molecule, the teacher alone first.
        notes: what could not be judged, and why.
        extrapolated: ps, the length for each replica that `run_s` is predicted for from few calls; None where runs were
            made in full.
    """

    cells: tuple[Cell, ...]
    notes: tuple[str, ...] = ()
    extrapolated: float | None = None

    @property
    def molecules(self) -> tuple[str, ...]:
        """Names, in order."""
        return tuple(dict.fromkeys(c.molecule for c in self.cells))

    @property
    def ways(self) -> tuple[str, ...]:
        """Names, in order."""
        return tuple(dict.fromkeys(c.way for c in self.cells))

    def of(self, way: str) -> tuple[Cell, ...]:
        """The cells of a way."""
        return tuple(c for c in self.cells if c.way == way)

    def means(self) -> tuple[Mean, ...]:
        """Every way but the teacher alone, over all molecules."""
        base = {c.molecule: c.rate for c in self.of(TEACHER)}
        return tuple(_mean(way, self.of(way), base) for way in self.ways if way != TEACHER)


def judge_molecule(
    molecule: str, runs: Mapping[str, Run], *, drift_limit: float = 0.1, length: tuple[float, int] | None = None
) -> tuple[Cell, ...]:
    """Judge the runs of one molecule, each against the teacher alone.

    Args:
        molecule: its name.
        runs: by way; that of the teacher alone is among them.
        drift_limit: meV/atom/ps, of runs at constant energy.
        length: ps and replicas that times are extrapolated to, of runs too short for anything else; None of runs in full.

    Raises:
        InputError: the teacher alone is missing.
    """
    if TEACHER not in runs:
        raise InputError(f"the runs of {molecule} lack the teacher alone, which the others are held to.")
    cells = tuple(_cell(molecule, way, run, runs[TEACHER], drift_limit, length is None) for way, run in runs.items())
    return cells if length is None else tuple(_extrapolated(cells, *length))


def judge_folder(
    molecule: str, folder: Path, *, drift_limit: float = 0.1, length: tuple[float, int] | None = None
) -> tuple[tuple[Cell, ...], tuple[str, ...]]:
    """Judge the folder of one molecule; see `judge_molecule`.

    Returns:
        Its cells, and notes on what is missing: a molecule whose warm-up was stopped has no runs.
    """
    names = list(read_study(folder).get("runs", {}))
    there = [name for name in names if (folder / name / "log.h5").is_file()]
    if TEACHER not in there:
        return (), (f"{molecule} was not judged: the teacher stopped in the warm-up; see {folder / 'starts' / 'run'}.",)
    cells = judge_molecule(
        molecule, {name: read_run(folder / name) for name in there}, drift_limit=drift_limit, length=length
    )
    lacking = tuple(f"{molecule} was not run in way {name}." for name in names if name not in there)
    return cells, lacking


def _cell(molecule: str, way: str, run: Run, teacher: Run, drift_limit: float, full: bool) -> Cell:
    alone = way == TEACHER
    comparable = full and min(int(kept(r).sum()) for r in (run, teacher)) >= 2
    judged = assess([run], teacher if comparable and not alone else None, drift_limit).runs[0]
    s, s_ci = np.nan, None
    if len(own := blocks(run, "hybrid")):
        bars = method_bars([Method(way, own)])
        s = float(bars.s_per_ps[0])
        s_ci = (float(bars.low[0]), float(bars.high[0])) if np.isfinite(bars.low[0]) else None
    cycle = None if alone else Cycle(*CYCLES[run.settings["scheme"]](run.settings))
    predicted = _predicted(run.settings, cycle)
    structure = run.settings["structure"]
    figures: dict[str, BesideFloor] = {}
    if comparable and run.positions.shape[1] > 1:  # of the teacher itself, the floors
        bonds = [(int(i), int(j)) for i, j in structure.get("bonds") or ()]
        figures = beside_floor(
            run.positions[kept(run)], teacher.positions[kept(teacher)], np.asarray(structure["numbers"]), bonds
        )
    wall = run.settings.get("wall_s") or {}
    run_s = float(wall.get("total") or np.nan)
    slowest, rate = _rate(run, run_s) if comparable and run_s > 0 else ("", None)
    return Cell(
        molecule=molecule,
        way=way,
        judged=judged,
        s_per_ps=s,
        s_per_ps_ci95=s_ci,
        run_s=run_s,
        cycle=cycle,
        predicted=predicted,
        model_s=_model_s(run, cycle),
        figures=figures,
        drift=judged.drift or (_drift(run, drift_limit) if comparable else None),
        rate=rate,
        slowest=slowest,
    )


def _drift(run: Run, limit: float) -> Drift | None:
    """Slope of the conserved energy of a run of any ensemble."""
    rows = sound(run)
    if run.conserved is None or rows.sum() < fewest_frames(run.positions.shape[1]):
        return None
    return nve_drift(clock(run)[rows], run.conserved[rows].T, run.positions.shape[2], limit)


def _times(settings: Mapping[str, Any]) -> tuple[float, float, float] | None:
    """Baseline, teacher and model, s a call and replica, as timed before production; None where they were not."""
    timing = settings.get("timing") or {}
    baseline, teacher, model = (timing.get(k) for k in ("baseline_teacher_ms", "teacher_ms", "student_inner_us"))
    if baseline is None or teacher is None or model is None:
        return None
    return 1e-3 * float(baseline), 1e-3 * float(teacher), 1e-6 * float(model)


def _predicted(settings: Mapping[str, Any], cycle: Cycle | None) -> Prediction | None:
    times = _times(settings)
    if times is None or cycle is None:
        return None
    b, e, c = (np.array([t]) for t in times)
    return predict(CallTimes(b, e, c), cycle)


def _extrapolated(cells: Sequence[Cell], duration_ps: float, replicas: int) -> Iterator[Cell]:
    """The same with the time that a whole run would take, by the cost of its calls alone."""
    timed = {c.way: t for c in cells if (t := _times(c.judged.settings)) is not None}
    baseline = float(np.median([t[0] for t in timed.values()])) if timed else np.nan
    for c in cells:
        step_s = np.nan
        if c.cycle is None:
            step_s = baseline
        elif c.way in timed:
            _, e, m = timed[c.way]
            step_s = (c.cycle.teacher_calls * e + c.cycle.student_calls * m) / c.cycle.steps
        yield replace(c, run_s=step_s * replicas * duration_ps * 1000 / float(c.judged.settings["timestep_fs"]))


def _rate(run: Run, run_s: float) -> tuple[str, Rate | None]:
    """The slowest of the observables that hybrid Monte Carlo is told by, and its effective samples a second."""
    rows, structure = kept(run), run.settings["structure"]
    if run.potential_energy is None:
        return "", None
    masses, numbers = np.asarray(structure["masses"], dtype=np.float64), np.asarray(structure["numbers"])
    series = observables(run.positions[rows], run.potential_energy[rows], masses, structure["bonds"], numbers)
    samples = {name: effective_samples(values.T) for name, values in series.items()}
    slowest = min(samples, key=lambda name: samples[name])
    return slowest, sample_rates(samples, run_s)[slowest]


def _model_s(run: Run, cycle: Cycle | None) -> float | None:
    wall = run.settings.get("wall_s") or {}
    spent = wall.get("student") or wall.get("predictor")
    rows = np.flatnonzero(sound(run))
    if cycle is None or run.time_ps is None or not spent or not len(rows):
        return None
    replica_ps = float(run.time_ps[rows[-1]]) * run.positions.shape[1]
    cycles = replica_ps * 1000 / (cycle.steps * float(run.settings["timestep_fs"]))
    return float(spent) / cycles if cycles else None


def _mean(way: str, cells: Sequence[Cell], base: Mapping[str, Rate | None]) -> Mean:
    speeds = np.log([c.measured.value for c in cells if c.measured])
    interval = None
    if len(speeds) > 2:
        width = student_t(0.975, len(speeds) - 1.0) * float(speeds.std(ddof=1)) / np.sqrt(len(speeds))
        interval = float(np.exp(speeds.mean() - width)), float(np.exp(speeds.mean() + width))
    rates = [(c.rate, b) for c in cells if c.rate and (b := base.get(c.molecule))]
    relative = [(r.stderr / r.value) ** 2 for pair in rates for r in pair]
    names = dict.fromkeys(name for c in cells for name in c.figures)
    slopes = [c.drift.slope for c in cells if c.drift]
    return Mean(
        way=way,
        molecules=len(cells),
        failed=_named(cells, lambda c: c.verdict is Verdict.FAIL),
        undecided=_named(cells, lambda c: c.verdict is Verdict.INCONCLUSIVE),
        speedup=float(np.exp(speeds.mean())) if len(speeds) else None,
        speedup_ci95=interval,
        predicted=_geometric(c.predicted.value for c in cells if c.predicted),
        sampling=_geometric(mine.value / own.value for mine, own in rates),
        sampling_stderr=float(np.sqrt(sum(relative))) / len(rates) if rates else None,
        dynamics=all(c.dynamics for c in cells),
        drift=(float(np.mean(slopes)), max(slopes, key=abs)) if slopes else None,
        figures={
            name: (
                float(np.mean([c.figures[name].value for c in cells if name in c.figures])),
                float(np.mean([c.figures[name].floor for c in cells if name in c.figures])),
            )
            for name in names
        },
    )


def _geometric(values: Iterable[float]) -> float | None:
    logs = np.log([*values])
    return float(np.exp(logs.mean())) if len(logs) else None


def _named(cells: Sequence[Cell], which: Callable[[Cell], bool]) -> tuple[str, ...]:
    return tuple(c.molecule for c in cells if which(c))
