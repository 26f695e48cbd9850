"""The reference engine: executes a scheme, flow by flow, in NumPy float64."""

from __future__ import annotations

import copy
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from mlff_sim.forces import Array
from mlff_sim.integrators.force_table import ForceTable
from mlff_sim.integrators.isokinetic import THERMOSTATTED, Bounded
from mlff_sim.integrators.schemes import Bath, Drift, Fade, Flow, Kick, Scale, Scheme, merged
from mlff_sim.state import State, at_rest, kinetic_energy
from mlff_sim.units import KB, PS


class Langevin:
    """A heat bath with one random stream per replica, so that replicas do not depend on each other.

    Args:
        temperature_K: target.
        friction_per_ps: rate at which momenta are forgotten, of all atoms or of each, shape (n,).
        seed: of the run; replica r draws from the stream (seed, r).
        replicas: number of streams.
        remove_com: act on momenta relative to the centre of mass, whose own motion is removed. With one friction for
            all atoms that is the exact step of the process conditioned on zero total momentum; else there is none.
    """

    def __init__(
        self,
        temperature_K: float,
        friction_per_ps: float | Array,
        seed: int,
        replicas: int,
        *,
        remove_com: bool = False,
    ) -> None:
        """Open the streams."""
        if remove_com and np.ndim(friction_per_ps):
            raise ValueError("remove_com needs one friction for all atoms.")
        self.kT, self.friction, self.remove_com = KB * temperature_K, friction_per_ps / PS, remove_com
        self.streams = [np.random.Generator(np.random.PCG64([seed, 1, r])) for r in range(replicas)]

    def noise(self, draws: int, n_atoms: int) -> Array:
        """Unit normal numbers of shape (draws, replicas, n, 3), draw after draw from each stream."""
        return np.stack([s.standard_normal((draws, n_atoms, 3)) for s in self.streams], axis=1)

    def of(self, replicas: NDArray[np.int64]) -> Langevin:
        """The same bath for some of the replicas, with their streams."""
        part = copy.copy(self)
        part.streams = [self.streams[r] for r in replicas]
        return part

    def coefficients(self, t: float) -> tuple[float | Array, float | Array]:
        """Decay c = exp(-gamma t) and sqrt((1 - c^2) kT): p -> c p + sqrt((1 - c^2) kT m) xi.

        Numbers, or where each atom has a friction of its own, arrays of shape (n, 1).
        """
        c = np.exp(-self.friction * t)
        s = np.sqrt((1.0 - c * c) * self.kT)
        return (c[:, None], s[:, None]) if np.ndim(c) else (float(c), float(s))


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
        extension: variables of thermostats, each for every degree of freedom, shape (variables, replicas, n, 3); with
            the state and the bath's streams this is all that the next step depends on.
        conserving: `K + U - heat` is conserved to the accuracy of the steps; the guards rely on it.
        counted: names of what it counts for each replica; see `counts`.
    """

    conserving = True
    counted: tuple[str, ...] = ()

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
        self.thermostatted = any(isinstance(flow, THERMOSTATTED) for flow, _ in scheme)
        self.kicks = list(dict.fromkeys(flow.force for flow, _ in scheme if isinstance(flow, Kick)))
        self.restart(state, bath)

    def restart(self, state: State, bath: Langevin | None) -> None:
        """Go to another state, with another bath, and forget what was evaluated here and the heat."""
        self.state, self.bath = state, bath
        self.heat = np.zeros(len(state.positions))
        self.forces.move(state.positions)
        self.extension = np.zeros((0, *state.positions.shape))
        self.bounded: Bounded | None = None
        if self.thermostatted:
            assert bath is not None
            if np.ndim(bath.friction) or bath.remove_com:
                raise ValueError(
                    "bounded velocities have one friction for all atoms, and no centre of mass to keep still."
                )
            self.bounded = Bounded(self.masses, bath.kT, float(bath.friction))
            self.extension = self.bounded.start(bath.noise(1, state.positions.shape[1]))

    def step(self) -> None:
        """One outer step."""
        for flow, fraction in self.scheme:
            self.apply(flow, fraction)

    def counts(self) -> dict[str, Array]:
        """What was counted since it was last asked, each of shape (replicas,); and begin anew."""
        found = {name: getattr(self, name) for name in self.counted}
        for name, count in found.items():
            setattr(self, name, np.zeros_like(count))
        return found

    def kinetic(self) -> Array:
        """eV, shape (replicas,): the energy of the momenta."""
        p = self.state.momenta
        energy: Array = kinetic_energy(p, self.masses) if self.bounded is None else self.bounded.kinetic(p)
        return energy

    def thermal(self, state: State | None = None) -> State:
        """This state, or another, with momenta whose p^2 / m is kT on average, as equipartition wants p dK/dp to be."""
        state = state or self.state
        return state if self.bounded is None else State(state.positions, self.bounded.thermal(state.momenta))

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
        elif isinstance(flow, THERMOSTATTED):
            assert self.bath is not None and self.bounded is not None
            noise = self.bath.noise(1, p.shape[1])[0] if isinstance(flow, Fade) else None
            x, new, self.extension = self.bounded.act(flow, t, x, p, self.extension, noise)
            self.state = State(x, new)
            if isinstance(flow, Scale):
                self.heat = self.heat + self.bounded.kinetic(new) - self.bounded.kinetic(p)
            elif isinstance(flow, Drift):
                self.forces.move(x)
        elif isinstance(flow, Drift):
            self.state = State(x + t * p / self.masses[:, None], p)
            self.forces.move(self.state.positions)
        else:
            assert self.bath is not None
            c, s = self.bath.coefficients(t)
            new = c * p + s * np.sqrt(self.masses)[:, None] * self.bath.noise(1, p.shape[1])[0]
            if self.bath.remove_com:
                new = at_rest(new, self.masses)
            self.heat = self.heat + kinetic_energy(new, self.masses) - kinetic_energy(p, self.masses)
            self.state = State(x, new)
