"""Which frames a predictor draws may be gone on from.

A draw that is dropped costs another, at worst its stretch of time with the teacher, and is no error. So the limits are those that a sound
frame exceeds once in a thousand, which costs a thousandth of what the macro-steps save, instead of the six standard deviations
at which a guard ends a run.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mlff_sim.forces import Array
from mlff_sim.limits import closest_pairs, longest_bonds
from mlff_sim.state import State
from mlff_sim.units import KB

FALSE_ALARMS = 1e-3
"""Share of sound frames that are dropped."""


class Sound:
    """Looks at bonds, pairs of atoms, and the kinetic energy of each element and of all.

    Momenta of a sound frame are canonical, so that 2 K / kT of n atoms is a chi-square variate of 3 n degrees of freedom; at
    constant energy it varies less. Both ends are looked at: the energy of a drawn frame is that of the frame before, so
    potential energy that it has too much is missing in K.

    Args:
        numbers: atomic numbers, (n,).
        bonds: pairs of bonded atoms.
        start: A, positions of the start, (replicas, n, 3).
        masses: u, (n,).
        temperature_K: of the run, for each replica: (replicas,).
    """

    def __init__(
        self,
        numbers: Sequence[int],
        bonds: Sequence[tuple[int, int]],
        start: Array,
        masses: Array,
        temperature_K: Array,
    ) -> None:
        """Set the limits."""
        from scipy.stats import chi2

        z = np.asarray(numbers)
        self.i, self.j = np.stack(np.triu_indices(len(z), 1))
        lengths = self._lengths(start)
        self.least_A = closest_pairs(numbers, self.i, self.j, lengths)
        longest = np.full(len(self.i), np.inf)
        bonded = {(min(a, b), max(a, b)) for a, b in bonds}
        which = [k for k, pair in enumerate(zip(self.i.tolist(), self.j.tolist(), strict=True)) if pair in bonded]
        longest[which] = longest_bonds(numbers, self.i[which], self.j[which], lengths[:, which])
        self.most_A = longest
        self.groups = [np.flatnonzero(z == e) for e in np.unique(z)]
        if len(self.groups) > 1:
            self.groups.append(np.arange(len(z)))
        share = FALSE_ALARMS / (2 * len(self.groups))
        ends = np.array([chi2.ppf([share, 1 - share], 3 * len(g)) for g in self.groups])
        self.ends = 0.5 * KB * ends[..., None] * np.asarray(temperature_K)  # (groups, 2, replicas), eV
        self.masses = masses

    def _lengths(self, x: Array) -> Array:
        d = x[:, self.i] - x[:, self.j]
        lengths: Array = np.sqrt(np.einsum("rpi,rpi->rp", d, d))
        return lengths

    def __call__(self, state: State, which: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of the replicas `which`, in this state, are sound."""
        lengths = self._lengths(state.positions)
        good: NDArray[np.bool_] = np.all((lengths > self.least_A) & (lengths < self.most_A), axis=1)
        kinetic = np.einsum("rni,rni->rn", state.momenta, state.momenta) / (2 * self.masses)
        for group, (low, high) in zip(self.groups, self.ends[..., which], strict=True):
            k = kinetic[:, group].sum(axis=1)
            good &= (k > low) & (k < high)
        return good
