"""The temperature of each element: what a sound run shows less often than six standard deviations."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mlff_sim.forces import Array
from mlff_sim.integrators.stepper import Stepper
from mlff_sim.limits import SIX_SIGMA, highest_mean
from mlff_sim.simulation.rules import Breach
from mlff_sim.state import State
from mlff_sim.units import KB

LOOKS = (1, 8, 64)
"""Independent looks at a temperature that are averaged over: this instant, and two running means."""


class Temperature:
    """The kinetic temperature of each element, now and in running means, against six standard deviations.

    The momenta of a sound run are canonical at the temperature of its bath or, at constant energy, of its start. A mode
    of a molecule in a bath of friction g forgets its momentum at least as fast as exp(-g t / 2), so that the covariance
    of frames a time H apart has no eigenvalue above coth(g H / 4). A running mean that gives the latest frame the weight
    w averages over tanh(g H / 4) / w independent looks, and `highest_mean` says what it never exceeds; harmonic forces
    are assumed for the means, nothing for the instant. Without friction (NVE) there are no means, nor with bounded velocities,
    whose equipartition is looked at instead (`Stepper.thermal`).

    A sound run breaks this rule with a probability of 1e-9 in a step, all replicas, elements and means together.

    Args:
        stepper: at the start. The reference is the higher of the target and the start of each replica.
        numbers: atomic numbers, shape (n,).
        temperature_K: target.
    """

    name = "temperature runs away"

    def __init__(self, stepper: Stepper, numbers: Sequence[int], temperature_K: float) -> None:
        """Set the limits."""
        from ase.data import chemical_symbols

        z = np.asarray(numbers)
        self.elements = [chemical_symbols[e] for e in np.unique(z)]
        member = z[:, None] == np.unique(z)
        self.group = member / (1.5 * KB * member.sum(axis=0))  # from the kinetic energy of atoms to K of elements
        self.member, self.masses = member, stepper.masses
        replicas = len(stepper.state.momenta)
        bathed = stepper.bath is not None and not stepper.thermostatted  # thermostats do not damp in this simple way
        friction = float(np.min(stepper.bath.friction)) if stepper.bath is not None and bathed else 0.0
        looks = np.array(LOOKS, dtype=np.float64)
        self.weight = np.where(looks > 1, math.tanh(friction * stepper.timestep / 4) / looks, 1.0)[:, None, None]
        p = SIX_SIGMA / (len(looks) * replicas * len(self.elements))
        self.times = highest_mean(3.0 * member.sum(axis=0), looks[:, None], p)[:, None, :]
        self.reference_K: Array = np.full(replicas, float(temperature_K))
        self.warm(stepper.thermal())
        self.state = {"mean_K": np.broadcast_to(self.reference_K[:, None], self.limit_K.shape).copy()}

    def warm(self, state: State) -> None:
        """Allow what is as hot as this state: a start, or a user's new momenta."""
        here = self._kinetic(state).sum(axis=1) / (1.5 * KB * len(self.masses))
        self.reference_K = np.maximum(self.reference_K, here)
        self.limit_K: Array = self.times * self.reference_K[:, None]

    def _kinetic(self, state: State) -> Array:
        """eV, of each atom, (replicas, n)."""
        p = state.momenta
        kinetic: Array = np.einsum("rni,rni->rn", p, p) / (2 * self.masses)
        return kinetic

    def begin(self, stepper: Stepper) -> None:
        """The means start at the reference, which is where the limits are taken from."""

    def broken(self, stepper: Stepper) -> Breach | None:
        """Look at all elements of all replicas."""
        kinetic = self._kinetic(stepper.thermal())
        mean = self.state["mean_K"]
        mean = mean + self.weight * (kinetic @ self.group - mean)
        self.state["mean_K"] = mean
        high = mean > self.limit_K
        if not high.any():
            return None
        w, r, e = (int(i) for i in np.unravel_index(int(np.argmax(mean / self.limit_K)), mean.shape))
        atom = int(np.argmax(np.where(self.member[:, e], kinetic[r], -1.0)))
        value, limit, element = float(mean[w, r, e]), float(self.limit_K[w, r, e]), self.elements[e]
        when = "" if w == 0 else ", in the mean,"
        detail = (
            f"{element} at {value:.0f} K{when} exceeds {limit:.0f} K; atom {atom} is the hottest; try a shorter outer "
            "step or more friction"
        )
        return Breach(self.name, r, atom, value, limit, "K", detail)
