"""The reference engine: executes a scheme, flow by flow, in NumPy float64."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from mlff_sim.forces import Array
from mlff_sim.integrators.force_table import ForceTable
from mlff_sim.integrators.schemes import Bath, Drift, Flow, Kick, Scheme, merged
from mlff_sim.state import State, kinetic_energy
from mlff_sim.units import KB, PS


class Langevin:
    """A heat bath with one random stream per replica, so that replicas do not depend on each other.

    Args:
        temperature_K: target.
        friction_per_ps: rate at which momenta are forgotten.
        seed: of the run; replica r draws from the stream (seed, r).
        replicas: number of streams.
    """

    def __init__(self, temperature_K: float, friction_per_ps: float, seed: int, replicas: int) -> None:
        """Open the streams."""
        self.kT, self.friction = KB * temperature_K, friction_per_ps / PS
        self.streams = [np.random.Generator(np.random.PCG64([seed, 1, r])) for r in range(replicas)]

    def noise(self, draws: int, n_atoms: int) -> Array:
        """Unit normal numbers of shape (draws, replicas, n, 3), draw after draw from each stream."""
        return np.stack([s.standard_normal((draws, n_atoms, 3)) for s in self.streams], axis=1)

    def coefficients(self, t: float) -> tuple[float, float]:
        """Decay c = exp(-gamma t) and sqrt((1 - c^2) kT): p -> c p + sqrt((1 - c^2) kT m) xi."""
        c = float(np.exp(-self.friction * t))
        return c, float(np.sqrt((1.0 - c * c) * self.kT))


class Stepper:
    """Advances all replicas by one outer step at a time.

    Args:
        scheme: what a step is.
        timestep: outer time step, internal units.
        masses: u, shape (n,).
        forces: the table of named forces the scheme's kicks refer to.
        state: where to start.
        bath: needed when the scheme holds a `Bath`.

    Attributes:
        state: positions and momenta now.
        heat: eV, shape (replicas,), energy the bath has put in since the start. `K + U - heat` is conserved.
        maxwellian: the momenta are m v and, at equilibrium, Maxwell's: they have a temperature.
        conserving: `K + U - heat` is conserved to the accuracy of the steps; the guards rely on what these two declare.
    """

    maxwellian = True
    conserving = True

    def __init__(
        self,
        scheme: Scheme,
        timestep: float,
        masses: Array,
        forces: ForceTable,
        state: State,
        bath: Langevin | None = None,
    ) -> None:
        """Bind everything; nothing is evaluated yet."""
        self.scheme, self.timestep, self.forces = merged(scheme), float(timestep), forces
        if bath is None and any(isinstance(flow, Bath) for flow, _ in scheme):
            raise ValueError("the scheme has a bath flow and no bath was given.")
        self.masses = np.asarray(masses, dtype=np.float64)
        self.kicks = list(dict.fromkeys(flow.force for flow, _ in scheme if isinstance(flow, Kick)))
        self.restart(state, bath)

    def restart(self, state: State, bath: Langevin | None) -> None:
        """Go to another state, with another bath, and forget what was evaluated here and the heat."""
        self.state, self.bath = state, bath
        self.heat = np.zeros(len(state.positions))
        self.forces.move(state.positions)

    def step(self) -> None:
        """One outer step."""
        for flow, fraction in self.scheme:
            self.apply(flow, fraction)

    def potential(self) -> Array:
        """eV, shape (replicas,): the energy of all the forces that kick, which with `K - heat` is conserved."""
        energies = [np.asarray(self.forces[name].energy, dtype=np.float64) for name in self.kicks]
        total: Array = np.sum(energies, axis=0)
        return total

    def gradient(self) -> Array:
        """eV/A, shape (replicas, n, 3): minus the forces of this energy."""
        total: Array = -np.sum([np.asarray(self.forces[name].forces, dtype=np.float64) for name in self.kicks], axis=0)
        return total

    def apply(self, flow: Flow, fraction: Fraction) -> None:
        """One flow over a fraction of the outer step."""
        t = self.timestep * float(fraction)
        x, p = self.state.positions, self.state.momenta
        if isinstance(flow, Kick):
            self.state = State(x, p + t * self.forces[flow.force].forces)
        elif isinstance(flow, Drift):
            self.state = State(x + t * p / self.masses[:, None], p)
            self.forces.move(self.state.positions)
        else:
            assert self.bath is not None
            c, s = self.bath.coefficients(t)
            new = c * p + s * np.sqrt(self.masses)[:, None] * self.bath.noise(1, p.shape[1])[0]
            self.heat = self.heat + kinetic_energy(new, self.masses) - kinetic_energy(p, self.masses)
            self.state = State(x, new)
