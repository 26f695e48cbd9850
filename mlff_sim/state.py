"""What moves: positions and momenta of the replicas of one structure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlff_sim.forces import Array
from mlff_sim.units import KB


@dataclass(frozen=True, slots=True)
class State:
    """Positions and momenta of R replicas of n atoms at one instant.

    Attributes:
        positions: A, shape (R, n, 3), never wrapped.
        momenta: (eV u)^1/2, shape (R, n, 3).
    """

    positions: Array
    momenta: Array

    def __post_init__(self) -> None:
        """Check the shapes once."""
        if self.positions.ndim != 3 or self.positions.shape != self.momenta.shape:
            raise ValueError(
                f"positions {self.positions.shape} and momenta {self.momenta.shape} must both be (replicas, atoms, 3)."
            )


def kinetic_energy(momenta: Array, masses: Array) -> Array:
    """Kinetic energy sum p^2 / 2m in eV, shape (...), of momenta (..., n, 3) and masses (n,) in u."""
    kinetic: Array = 0.5 * np.einsum("...ni,...ni,n->...", momenta, momenta, 1.0 / masses)
    return kinetic


def at_rest(momenta: Array, masses: Array) -> Array:
    """Momenta (..., n, 3) without the motion of the centre of mass: p_i - m_i P / M.

    Projected Gaussians have the canonical distribution conditioned on zero total momentum.
    """
    still: Array = momenta - masses[:, None] * (momenta.sum(axis=-2, keepdims=True) / masses.sum())
    return still


def maxwell_boltzmann(masses: Array, temperature_K: float, rng: np.random.Generator, *, remove_com: bool) -> Array:
    """Draw momenta (n, 3) of the canonical ensemble; optionally without centre-of-mass motion.

    With `remove_com` the result is the canonical distribution conditioned on zero total momentum, which
    has 3n - 3 degrees of freedom; it is not rescaled, so the kinetic energy keeps its fluctuations.
    """
    p = rng.standard_normal((len(masses), 3)) * np.sqrt(KB * temperature_K * masses)[:, None]
    return at_rest(p, masses) if remove_com else p


def temperature_by_group(
    momenta: Array, masses: Array, groups: Mapping[str, NDArray[np.int64]], *, com_removed: bool
) -> dict[str, Array]:
    """Kinetic temperature of groups of atoms in K, each of shape (R,).

    An atom of mass m carries 3 degrees of freedom, or 3 (1 - m/M) when the total momentum of the mass M is
    fixed at zero: <p^2>/m = 3 kT (1 - m/M), the variance of a Gaussian conditioned on its weighted sum.
    """
    total = masses.sum()
    out = {}
    for name, index in groups.items():
        dof = 3.0 * (1.0 - masses[index] / total).sum() if com_removed else 3.0 * len(index)
        out[name] = (
            2.0 * kinetic_energy(momenta[:, index], masses[index]) / (KB * dof)
            if dof
            else np.full(len(momenta), np.nan)
        )
    return out
