"""Generalised hybrid Monte Carlo: trajectories of anything, accepted on the teacher's energy.

One step is (Horowitz, Phys. Lett. B 268, 247 (1991), doi:10.1016/0370-2693(91)90812-5):

1. part of the momenta is forgotten: p -> c p + sqrt((1 - c^2) m kT) xi, with c = exp(-friction t);
2. a reversible, volume-preserving map proposes (x', p'): k steps of velocity Verlet with the student (Duane et al.,
   Phys. Lett. B 195, 216 (1987), doi:10.1016/0370-2693(87)91197-X), or some steps of reversible RESPA;
3. it is accepted with probability min(1, exp(-dH / kT)), H = K + U_teacher; otherwise x stays and p turns round.

The teacher's canonical ensemble is sampled exactly, whatever the student is; a poor one is accepted less often.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from mlff_sim.errors import NonFinite
from mlff_sim.forces import Array, Evaluation
from mlff_sim.integrators.schemes import Bath, is_symmetric
from mlff_sim.integrators.stepper import Langevin, Stepper
from mlff_sim.state import State, kinetic_energy

REFRESH = Bath()


class Metropolis(Stepper):
    """A `Stepper` whose steps are proposals of another, accepted or refused for each replica.

    Args:
        proposer: at the start; its scheme is symmetric and has no bath. Its force table holds the target, too.
        bath: temperature, friction and random streams.
        target: name of the force whose energy decides.
        steps: of the proposer in a proposal; a symmetric map, repeated, is one.

    Attributes:
        heat: eV, (replicas,), what the refreshed momenta and the accepted changes of H have put in: `K + U - heat` stays
            what it was, by construction.
        proposals: of each replica, since the last restart.
        accepted: of these, shape (replicas,).
        counted: "accepted", and what the proposer counts.
    """

    conserving = False  # accepted changes of energy are meant

    def __init__(self, proposer: Stepper, bath: Langevin, target: str = "teacher", steps: int = 1) -> None:
        """Bind; nothing is evaluated yet."""
        if proposer.bath is not None or not is_symmetric(proposer.scheme):
            raise ValueError("only reversible proposals keep the ensemble: a symmetric scheme without a bath.")
        self.proposer, self.target, self.steps = proposer, target, steps
        self.counted = ("accepted", *proposer.counted)
        super().__init__(proposer.scheme, proposer.timestep, proposer.masses, proposer.forces, proposer.state, bath)

    def restart(self, state: State, bath: Langevin | None) -> None:
        """Go to another state, and count anew."""
        super().restart(state, bath)
        self.proposals, self.accepted = 0, np.zeros(len(state.positions))
        self.proposer.counts()

    def counts(self) -> dict[str, Array]:
        """Of the proposals, and of what they are made of; see `Stepper.counts`."""
        accepted, self.accepted = self.accepted, np.zeros_like(self.accepted)
        return {"accepted": accepted, **self.proposer.counts()}

    def potential(self) -> Array:
        """eV, shape (replicas,): the energy that decides."""
        energy: Array = np.asarray(self.forces[self.target].energy, dtype=np.float64)
        return energy

    def gradient(self) -> Array:
        """eV/A, shape (replicas, n, 3), of the energy that decides."""
        return -np.asarray(self.forces[self.target].forces, dtype=np.float64)

    def step(self) -> None:
        """Refresh, propose, decide."""
        self.apply(REFRESH, Fraction(self.steps))
        assert self.bath is not None
        start, before = self.state, self._hamiltonian()
        known = {name: self.forces[name] for name in (self.target, *self.proposer.kicks)}
        self.proposals += 1
        end, take, change = start, np.zeros(len(before), dtype=np.bool_), np.zeros(len(before))
        try:
            end, sound = self._proposed(start)
            self.state = end
            change = self._hamiltonian() - before
            draws = np.array([stream.random() for stream in self.bath.streams])
            take = sound & (draws < np.exp(np.minimum(0.0, -change / self.bath.kT)))
        except (NonFinite, RuntimeError):
            # Where a model fails the energy is infinite. The way back from a sound end leads over the same points, so
            # refusing all replicas when one fails keeps the ensemble of each. Which of them were evaluated before is not
            # known, so all memory goes.
            self.forces.reset()
        self.accepted = self.accepted + take
        self.heat = self.heat + np.where(take, change, 0.0)
        if not take.all():
            self._go_back(start, end, known, take)

    def _proposed(self, start: State) -> tuple[State, NDArray[np.bool_]]:
        """The end of a trajectory, and for which replicas it is one; the others are put back where they started."""
        self.proposer.state = start
        with np.errstate(all="ignore"):  # a proposal may fly apart
            for _ in range(self.steps):
                self.proposer.step()
        end = self.proposer.state
        finite = np.isfinite(end.positions) & np.isfinite(end.momenta)
        sound: NDArray[np.bool_] = np.asarray(finite.reshape(len(finite), -1).all(axis=1))
        if not sound.all():  # not the teacher's business
            wide = sound[:, None, None]
            end = State(np.where(wide, end.positions, start.positions), np.where(wide, end.momenta, start.momenta))
            self.forces.move(end.positions)
        return end, sound

    def _hamiltonian(self) -> Array:
        total: Array = kinetic_energy(self.state.momenta, self.masses) + self.potential()
        return total

    def _go_back(self, start: State, end: State, known: dict[str, Evaluation], take: NDArray[np.bool_]) -> None:
        """Where a proposal was refused: the positions of before, the momenta turned round, the forces known already."""
        wide = take[:, None, None]
        now = {name: self.forces[name] for name in known} if take.any() else known
        self.state = State(np.where(wide, end.positions, start.positions), np.where(wide, end.momenta, -start.momenta))
        self.forces.move(self.state.positions)
        for name, old in known.items():
            energy = np.where(take, now[name].energy, old.energy)
            self.forces.known[name] = Evaluation(energy, np.where(wide, now[name].forces, old.forces))
