"""What time is spent on: the all-teacher baseline, and the prediction made before production."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mlff_sim.integrators.force_table import ForceTable
from mlff_sim.integrators.schemes import verlet
from mlff_sim.integrators.stepper import Stepper
from mlff_sim.models.workers import load_shared
from mlff_sim.simulation.config import RunConfig
from mlff_sim.state import State
from mlff_sim.units import FS

if TYPE_CHECKING:
    from ase import Atoms

BASELINE_STEPS = 25
"""Timed all-teacher steps in one baseline block, after as many untimed ones at the start of the block."""
BASELINE_S, BASELINE_FEWEST = 3.0, 2
"""Where a step takes seconds each of these halves ends after so many of them, but not before so many steps."""
BASELINE_BLOCKS = 8
"""Baseline blocks in a run, at most."""


@dataclass(frozen=True)
class Timing:
    """Times measured before production, and the speed-up they predict.

    Attributes:
        teacher_ms: teacher call per replica after an outer step (t_e), wall time; with a warm start it costs more after a
            long stride, with several processes less.
        student_inner_us: student evaluation per replica (t_c), with the glue of an inner step.
        baseline_teacher_ms: all-teacher step per replica at the inner stride (t_b), in as many processes; None without a
            baseline.
        predicted_speedup: see `mlff_sim.cost`.
    """

    teacher_ms: float
    student_inner_us: float
    baseline_teacher_ms: float | None
    predicted_speedup: float | None


class Baseline:
    """All-teacher velocity Verlet at the inner time step, on copies, with a teacher of its own.

    Where the run's teacher has several processes, this one has as many, and a replica for each: the speed-up is what is
    gained on the same processors.
    """

    def __init__(self, config: RunConfig, atoms: Atoms) -> None:
        """Load the second teacher."""
        self.table = ForceTable(
            {"teacher": load_shared(config.teacher, atoms, config.execution, config.teacher_workers)}
        )
        self.config, self.masses = config, atoms.get_masses()

    def block(self, state: State) -> float:
        """Median seconds per step and replica, of the first one for each process, from copies of their present states."""
        self.table.reset()
        count = self.config.teacher_workers
        copy = State(state.positions[:count].copy(), state.momenta[:count].copy())
        stepper = Stepper(verlet("teacher"), self.config.timestep_fs * FS, self.masses, self.table, copy)
        _timed(stepper)  # a new SCF needs a few calls until its warm starts are warm
        return float(np.median(_timed(stepper))) / count


def _timed(stepper: Stepper) -> list[float]:
    """Seconds of each of a few steps."""
    times: list[float] = []
    while len(times) < BASELINE_STEPS and (len(times) < BASELINE_FEWEST or sum(times) < BASELINE_S):
        start = time.perf_counter()
        stepper.step()
        times.append(time.perf_counter() - start)
    return times
