"""What an assessment is made of: runs as arrays, and what was found of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mlff_sim.forces import Array
from mlff_sim.validation.breakeven import Speedup
from mlff_sim.validation.distances import RdfResult
from mlff_sim.validation.energy import Drift
from mlff_sim.validation.ensemble import Temperatures
from mlff_sim.validation.methods import Method
from mlff_sim.validation.montecarlo import MonteCarlo
from mlff_sim.validation.verdict import Verdict, worst

OF_INPUT = ("spacing", "kinetic")
"""Findings about what was given rather than about the physics: they fail a run, and pass none."""


class Run(Protocol):
    """What a run folder holds; see `mlff_sim.runfolder.RunData` for shapes and units.

    Files made elsewhere (`mlff_sim.trajectory`) may know no times, energies or velocities: None.
    """

    @property
    def folder(self) -> Path: ...  # noqa: D102
    @property
    def settings(self) -> dict[str, Any]: ...  # noqa: D102
    @property
    def time_ps(self) -> Array | None: ...  # noqa: D102
    @property
    def conserved(self) -> Array | None: ...  # noqa: D102
    @property
    def residual_mae(self) -> Array | None: ...  # noqa: D102
    @property
    def counts(self) -> dict[str, Array]: ...  # noqa: D102
    @property
    def potential_energy(self) -> Array | None: ...  # noqa: D102
    @property
    def positions(self) -> Array: ...  # noqa: D102
    @property
    def momenta(self) -> Array | None: ...  # noqa: D102
    @property
    def wall(self) -> dict[str, Array]: ...  # noqa: D102


class Finding(Protocol):
    """The answer of a validator: judged, or only reported."""

    @property
    def verdict(self) -> Verdict | None:
        """What the data say; None where nothing is judged."""

    @property
    def note(self) -> str:
        """Which rule decided, and what would settle it."""


@dataclass(frozen=True)
class Speed:
    """Wall time of a hybrid run against the all-teacher baseline.

    Attributes:
        measured: from alternating blocks; None where the run timed no baseline.
        predicted: from the times of single calls; None where the run did not measure them.
        investment_s: s spent on sampling, labels and training of the student; None if unknown.
        split_s_per_ps: s/ps per replica of the run by "teacher", "student" (or "predictor") and "rest".
        break_even_ci95: ps, interval of `break_even_ps`, infinite where it may be never; None without one.
    """

    measured: Speedup | None
    predicted: float | None
    investment_s: float | None
    split_s_per_ps: Mapping[str, float]
    break_even_ci95: tuple[float, float] | None = None

    @property
    def ratio(self) -> float | None:
        """Measured over predicted."""
        return self.measured.value / self.predicted if self.measured and self.predicted else None

    @property
    def break_even_ps(self) -> float | None:
        """Simulated ps after which distillation has paid for itself; None if never or unknown."""
        return (
            self.measured.break_even_ps(self.investment_s) if self.measured and self.investment_s is not None else None
        )


@dataclass(frozen=True, eq=False)
class Jumps:
    """Macro-steps of a predictor.

    Attributes:
        made: of all replicas.
        dropped: of these, made by the slow dynamics instead, because nothing that was drawn could be a frame.
        redraws: draws beyond the first of a macro-step.
    """

    made: int
    dropped: int
    redraws: int

    @property
    def share(self) -> float:
        """Of the draws that were dropped."""
        return self.dropped / self.made if self.made else 0.0


@dataclass(frozen=True, eq=False)
class RunAssessment:
    """One run folder, judged.

    Attributes:
        name: of the folder.
        settings: its `run.json`.
        cut_ps: start of the run that temperature and structure leave out as equilibration.
        time_ps: ps, shape (frames,); 0, 1, 2, ... where no times are known.
        energy: conserved energy relative to the first frame, meV/atom, shape (frames, replicas), (frames, 0) without one.
        residual: mean absolute residual force, meV/A, shape (frames, replicas); None without a student.
        drift: NVE only.
        temperatures: judged in NVT, reported in NVE.
        rdf: None without a reference.
        speed: None for plain dynamics.
        ghmc: None where nothing was proposed.
        notes: what was not judged and why, or how the run ended.
        findings: answers of further validators by name.
        jumps: None where no predictor drew.
    """

    name: str
    settings: Mapping[str, Any]
    cut_ps: float
    time_ps: Array
    energy: Array
    residual: Array | None
    drift: Drift | None
    temperatures: Temperatures | None
    rdf: RdfResult | None
    speed: Speed | None
    ghmc: MonteCarlo | None
    notes: tuple[str, ...]
    findings: Mapping[str, Finding] = field(default_factory=dict)
    jumps: Jumps | None = None

    @property
    def ensemble(self) -> str:
        """The word "nve" or "nvt", or "unknown"."""
        return str(self.settings["ensemble"] or "unknown")

    @property
    def ended(self) -> Verdict | None:
        """FAIL where a guard stopped the run, INCONCLUSIVE where it was interrupted, None where it finished."""
        if self.settings.get("status") == "finished":
            return None
        return Verdict.FAIL if self.settings.get("stop") else Verdict.INCONCLUSIVE

    @property
    def parts(self) -> dict[str, Verdict | None]:
        """Verdict of each part; None where it was not judged."""
        return {
            "ended": self.ended,
            "nve": self.drift.verdict if self.drift else None,
            "temperature": self.temperatures.verdict if self.temperatures else None,
            "rdf": self.rdf.verdict if self.rdf else None,
            "ghmc": self.ghmc.verdict if self.ghmc else None,
            **{name: finding.verdict for name, finding in self.findings.items()},
        }

    @property
    def verdict(self) -> Verdict:
        """The worst of the judged parts."""
        return worst(self.counting)

    @property
    def counting(self) -> list[Verdict | None]:
        """Verdicts that the whole rests on."""
        return [v for name, v in self.parts.items() if name not in OF_INPUT or v is Verdict.FAIL]


@dataclass(frozen=True, eq=False)
class Assessment:
    """One or several runs of a study.

    Attributes:
        runs: in the order given.
        notes: about the study as a whole.
        methods: ways to simulate that were timed, to be shown side by side where there are several.
    """

    runs: tuple[RunAssessment, ...]
    notes: tuple[str, ...]
    methods: tuple[Method, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """The worst of all judged parts of all runs; inconclusive where nothing could be judged."""
        return worst(v for run in self.runs for v in run.counting)

    @property
    def main(self) -> RunAssessment:
        """The run that speed and settings are quoted from: hybrid before plain, NVT before NVE."""
        return min(self.runs, key=lambda r: (r.settings.get("kind") != "hybrid", r.ensemble != "nvt"))

    def worst_of(self, part: str) -> RunAssessment | None:
        """The run whose `part` ("nve", "temperature", "rdf", "ended") came out worst; the main run among equals."""
        judged = [r for r in self.runs if r.parts.get(part) is not None]
        if not judged:
            return None
        bad = worst(r.parts[part] for r in judged)
        equals = [r for r in judged if r.parts[part] is bad]
        return next((r for r in equals if r is self.main), equals[0])


def clock(run: Run) -> Array:
    """Times in ps, or the number of each frame where no times are known."""
    return np.arange(len(run.positions), dtype=np.float64) if run.time_ps is None else run.time_ps


def sound(run: Run) -> NDArray[np.bool_]:
    """Frames before the first that is not finite (a run that was stopped may end in one)."""
    bad = np.zeros(len(run.positions), dtype=bool)
    for part in (run.conserved, run.positions, run.momenta):
        if part is not None:
            bad |= ~np.isfinite(part).all(axis=tuple(range(1, part.ndim)))
    first = int(np.argmax(bad)) if bad.any() else len(bad)
    return np.arange(len(bad)) < first
