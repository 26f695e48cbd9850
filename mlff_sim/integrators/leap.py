"""Leaps: steps that a generating function makes, for proposals of `Metropolis`."""

from __future__ import annotations

import time
from fractions import Fraction
from typing import Protocol

import numpy as np

from mlff_sim.forces import Array
from mlff_sim.integrators.force_table import ForceTable
from mlff_sim.integrators.schemes import Flow, Leap, only
from mlff_sim.integrators.stepper import Langevin, Stepper
from mlff_sim.leaps.midpoint import STANDARD, Direct, Tolerance, solve_both_ways
from mlff_sim.state import State


class Generating(Protocol):
    """The gradient of a generating function of one stride; `leaps.generating.Generator` is one.

    Attributes:
        stride: internal time units.
        masses: u, shape (n,).
    """

    stride: float
    masses: Array

    def __call__(self, q: Array, p: Array, /) -> tuple[Array, Array]:
        """(qbar, pbar), each (R, n, 3), to dG/dqbar and dG/dpbar."""


class LeapStepper(Stepper):
    """Advances replicas by leaps: symplectic, reversible maps without forces.

    A replica whose leap is not solved both ways becomes NaN, which `Metropolis` refuses; that is its energy being infinite,
    decided alike from both ends (`leaps.midpoint.solve_both_ways`).

    Args:
        generator: of the leap; its calls in `forces` are leaps, their seconds all that solving takes.
        forces: table of the models that something else asks about the states reached.
        state: where to start.
        tolerance: when a leap counts as solved.
        direct: a cheaper predictor of where a state leads, for the solver to begin with; it changes how many leaps are
            solved, not where they lead.

    Attributes:
        leaps: tried, shape (replicas,).
        unsolved: of these, where the equation was not solved at all.
        one_way: of these, where it was, and the way back led elsewhere or nowhere.
        gradients: evaluations of the generator's gradient, of one replica each.
    """

    conserving = False  # nothing here knows an energy
    counted = ("leaps", "unsolved", "one_way")

    def __init__(
        self,
        generator: Generating,
        forces: ForceTable,
        state: State,
        tolerance: Tolerance = STANDARD,
        direct: Direct | None = None,
    ) -> None:
        """Bind; nothing is evaluated yet."""
        if len(generator.masses) != state.positions.shape[1]:
            raise ValueError(
                f"the generator is of {len(generator.masses)} atoms, the state of {state.positions.shape[1]}."
            )
        self.generator, self.tolerance, self.direct = generator, tolerance, direct
        self.gradients = 0
        super().__init__(only(Leap()), generator.stride, generator.masses, forces, state)
        self.forces.calls["predictor"], self.forces.seconds["predictor"] = 0, 0.0

    def restart(self, state: State, bath: Langevin | None) -> None:
        """Go to another state, and count anew."""
        super().restart(state, bath)
        self.leaps, self.unsolved, self.one_way = (np.zeros(len(state.positions)) for _ in range(3))

    def apply(self, flow: Flow, fraction: Fraction) -> None:
        """One leap; there are no parts of one."""
        if not isinstance(flow, Leap) or fraction != 1:
            raise ValueError("a LeapStepper takes whole leaps and nothing else.")
        tried, begun = np.isfinite(self.state.positions).all(axis=(1, 2)), time.perf_counter()
        found = solve_both_ways(self.generator, self.state, self.masses, self.timestep, self.tolerance, self.direct)
        wide = found.solved[:, None, None]
        self.state = State(np.where(wide, found.state.positions, np.nan), np.where(wide, found.state.momenta, np.nan))
        missed = found.residual > self.tolerance.residual
        self.leaps = self.leaps + tried
        self.unsolved = self.unsolved + (tried & missed)
        self.one_way = self.one_way + (tried & ~found.solved & ~missed)
        self.gradients += int(found.iterations.sum())
        self.forces.calls["predictor"] += int(tried.sum())
        self.forces.seconds["predictor"] += time.perf_counter() - begun
        self.forces.move(self.state.positions)
