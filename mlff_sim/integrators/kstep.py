"""Macro-steps of a learned predictor, corrected by some steps of the teacher.

One step of S + N baseline steps of the time h is

1. a draw of the predictor: positions and momenta S h later, with the total momentum and angular momentum of before;
2. the teacher's energy there; internal momenta are scaled by one factor so that `K + U_teacher` is what it was;
3. at constant temperature, the exact Ornstein-Uhlenbeck step of the momenta over S h;
4. N steps of the teacher's own dynamics.

Where the drawn frame cannot be (no energy is left for the momenta, or a rule says no), that replica draws again, which costs
one call of the teacher; after `DRAWS` of them its S steps are made by the dynamics of `fallback` instead. Both are counted.

This is no integrator of the equations of motion: what happens within S h is only right in distribution, and that only as
far as the predictor is. Time is approximate; energy is conserved by construction, and says nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mlff_sim.errors import NonFinite
from mlff_sim.forces import Array, Evaluation, evaluate
from mlff_sim.integrators.schemes import Bath
from mlff_sim.integrators.stepper import Langevin, Stepper
from mlff_sim.motion import angular_velocity
from mlff_sim.state import State, kinetic_energy


class Draw(Protocol):
    """What makes a macro-step.

    Attributes:
        calls: draws made, counted per replica.
        seconds: wall time spent in them.
    """

    calls: int
    seconds: float

    def draw(self, state: State, streams: Sequence[np.random.Generator]) -> State:
        """A state a macro-step later, of each replica with its own random stream."""


Judge = Callable[[State, NDArray[np.int64]], NDArray[np.bool_]]
"""Says of some replicas' state, and which replicas they are, which may be gone on from."""

DRAWS = 5
"""Tries at a macro-step: another one costs a call, a fallback S of them."""


class KStep(Stepper):
    """A `Stepper` whose steps are macro-steps.

    Args:
        corrector: the teacher's dynamics in baseline steps, at the start.
        predictor: draws states `steps` baseline steps later.
        steps: S.
        corrections: N, at least 1.
        bath: random streams, which the draws need too; without friction at constant energy.
        fallback: makes dynamics of `steps` baseline steps, for some of the replicas: from their state and bath to the end.
        sound: says which replicas may go on from where they are; None takes every draw, with the momenta drawn where the
            energy does not allow for others.

    Attributes:
        fallbacks: macro-steps that were made otherwise, shape (replicas,).
        redraws: draws beyond the first of a macro-step, shape (replicas,).
    """

    counted = ("fallbacks", "redraws")

    def __init__(
        self,
        corrector: Stepper,
        predictor: Draw,
        steps: int,
        corrections: int,
        bath: Langevin,
        fallback: Callable[[State, Langevin], tuple[State, Array]],
        sound: Judge | None = None,
    ) -> None:
        """Bind; nothing is evaluated yet."""
        self.corrector, self.predictor, self.fallback, self.sound = corrector, predictor, fallback, sound
        self.steps, self.corrections = steps, corrections
        outer = (steps + corrections) * corrector.timestep
        super().__init__(corrector.scheme, outer, corrector.masses, corrector.forces, corrector.state, bath)
        self.forces.calls["predictor"], self.forces.seconds["predictor"] = 0, 0.0

    def restart(self, state: State, bath: Langevin | None) -> None:
        """Go to another state, and count anew."""
        super().restart(state, bath)
        self.fallbacks, self.redraws = (np.zeros(len(state.positions)) for _ in range(2))

    def step(self) -> None:
        """Jump, or fall back; then correct."""
        start = self.state
        good = self._jump(start)
        if not good.all():
            self.fallbacks = self.fallbacks + ~good
            self._fall_back(start, ~good)
        self._correct()

    def _correct(self) -> None:
        """The teacher's own steps."""
        inner = self.corrector
        inner.state, inner.bath, inner.heat = self.state, self.bath, self.heat
        for _ in range(self.corrections):
            inner.step()
        self.state, self.heat = inner.state, inner.heat

    def _jump(self, start: State) -> NDArray[np.bool_]:
        """Go where the predictor says; True for the replicas that may stay there."""
        energy = kinetic_energy(start.momenta, self.masses) + self.potential()
        known, calls, begun = self.forces["teacher"], 0, time.perf_counter()
        x, p, u, f = (a.copy() for a in (start.positions, start.momenta, known.energy, known.forces))
        good = np.zeros(len(energy), dtype=np.bool_)
        drawing = 0.0
        for attempt in range(DRAWS):
            which = np.flatnonzero(~good)
            if not len(which):
                break
            if attempt:
                self.redraws[which] += 1
            drawn, seconds = self._drawn(start, which)
            drawing += seconds
            finite = np.isfinite(drawn.positions).all(axis=(1, 2)) & np.isfinite(drawn.momenta).all(axis=(1, 2))
            which, drawn = which[finite], State(drawn.positions[finite], drawn.momenta[finite])
            if not len(which):  # what is no number is not the teacher's business
                continue
            calls += len(which)
            try:
                answer = evaluate(self.forces.providers["teacher"], drawn.positions)
            except (NonFinite, RuntimeError):  # which replica it failed for is not known
                self.forces.reset()
                continue
            momenta, enough = scaled_to(drawn, self.masses, energy[which] - answer.energy)
            taken = np.isfinite(answer.forces).all(axis=(1, 2))
            if self.sound is not None:
                taken &= enough & self.sound(State(drawn.positions, momenta), which)
            x[which[taken]], p[which[taken]] = drawn.positions[taken], momenta[taken]
            u[which[taken]], f[which[taken]] = answer.energy[taken], answer.forces[taken]
            good[which[taken]] = True
        self.state = State(x, p)
        self.forces.move(x)
        self.forces.put("teacher", Evaluation(u, f), calls, time.perf_counter() - begun - drawing)
        assert self.bath is not None
        if good.any() and np.any(self.bath.friction):
            self._bathe(good)
        return good

    def _drawn(self, start: State, which: NDArray[np.int64]) -> tuple[State, float]:
        """A draw for some of the replicas, and its seconds."""
        assert self.bath is not None
        seconds, calls = self.predictor.seconds, self.predictor.calls
        drawn = self.predictor.draw(
            State(start.positions[which], start.momenta[which]), [self.bath.streams[r] for r in which]
        )
        spent, table = self.predictor.seconds - seconds, self.forces
        table.seconds["predictor"] += spent
        table.calls["predictor"] += self.predictor.calls - calls
        return drawn, spent

    def _bathe(self, good: NDArray[np.bool_]) -> None:
        """The bath over the time of the jump. Where it did not happen the noise is drawn and not used."""
        before = kinetic_energy(self.state.momenta, self.masses)
        scaled, heat = self.state, self.heat
        self.apply(Bath(), Fraction(self.steps, self.steps + self.corrections))
        self.state = _chosen(good, self.state, scaled)
        self.heat = heat + kinetic_energy(self.state.momenta, self.masses) - before

    def _fall_back(self, start: State, bad: NDArray[np.bool_]) -> None:
        """The same stretch of time with the slow dynamics, where the draw was dropped."""
        assert self.bath is not None
        which = np.flatnonzero(bad)
        end, heat = self.fallback(State(start.positions[which], start.momenta[which]), self.bath.of(which))
        x, p = self.state.positions.copy(), self.state.momenta.copy()
        x[which], p[which] = end.positions, end.momenta
        self.heat = self.heat.copy()
        self.heat[which] += heat
        self.state = State(x, p)
        self.forces.move(x)
        self.forces.reset()


def scaled_to(state: State, masses: Array, kinetic_eV: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Momenta with the given kinetic energy and the same total and angular momentum.

    Momenta are the sum of a rigid motion and an internal part, whose kinetic energies add; only the second is scaled.

    Args:
        state: of R replicas, each one molecule.
        masses: u, (n,).
        kinetic_eV: wanted, (R,).

    Returns:
        Momenta (R, n, 3), unchanged where the rigid motion alone has more, and where it has less, (R,).
    """
    rigid = _rigid_momenta(state, masses)
    internal = state.momenta - rigid
    left, has = kinetic_eV - kinetic_energy(rigid, masses), kinetic_energy(internal, masses)
    enough = (left > 0) & (has > 0)
    factor = np.sqrt(np.where(enough, left, 1.0) / np.where(enough, has, 1.0))
    factor = np.where(enough, factor, 1.0)
    return rigid + factor[:, None, None] * internal, enough


def _rigid_momenta(state: State, masses: Array) -> Array:
    """Momenta of the rigid motion that has the state's total and angular momentum, (R, n, 3)."""
    m = masses[:, None]
    x = state.positions - (m * state.positions).sum(axis=1, keepdims=True) / masses.sum()
    velocity = state.momenta.sum(axis=1, keepdims=True) / masses.sum()
    spin = np.cross(x, state.momenta).sum(axis=1)
    rate = angular_velocity(x, masses, spin)
    momenta: Array = m * (velocity + np.cross(rate[:, None], x))
    return momenta


def _chosen(which: NDArray[np.bool_], one: State, other: State) -> State:
    """The replicas of one state where it says so, and of the other elsewhere."""
    wide = which[:, None, None]
    return State(np.where(wide, one.positions, other.positions), np.where(wide, one.momenta, other.momenta))
