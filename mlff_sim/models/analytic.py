"""Analytic force fields with exact answers: Lennard-Jones, harmonic bonds and Morse bonds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlff_sim.errors import InputError
from mlff_sim.forces import Array, Evaluation


class PairModel:
    """Sum of a pair function over a fixed list of pairs, without a cell; the base of the three models."""

    cutoff: float | None = None
    dtype = "float64"
    conservative = True
    batched = True

    def __init__(self, name: str, numbers: Array, pairs: NDArray[np.int64], parameters: dict[str, float]) -> None:
        """Bind to atomic numbers (n,) and pairs of atom indices (m, 2)."""
        self.name = name
        self.numbers = np.asarray(numbers, dtype=np.int64)
        self.i, self.j = np.asarray(pairs, dtype=np.int64).reshape(-1, 2).T
        self.parameters = parameters

    @property
    def interacting(self) -> NDArray[np.int64]:
        """Pairs of atoms that see each other, shape (m, 2); all others may be at one spot."""
        return np.stack([self.i, self.j], axis=1)

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Name and parameters."""
        return {"name": self.name, **self.parameters}

    def reset(self) -> None:
        """Nothing to forget: a pure function."""

    def pair(self, r: Array) -> tuple[Array, Array]:
        """Energy and its derivative with respect to the distance, eV and eV/A."""
        raise NotImplementedError

    def __call__(self, positions: Array, cell: Array | None = None, /) -> Evaluation:
        """Evaluate positions (n, 3) or (replicas, n, 3)."""
        x = positions if positions.ndim == 3 else positions[None]
        d = x[:, self.i] - x[:, self.j]
        r = np.sqrt((d * d).sum(axis=-1))
        u, du = self.pair(r)
        g = (-du / r)[..., None] * d
        forces = np.zeros_like(x)
        for replica, contribution in zip(forces, g, strict=True):
            np.add.at(replica, self.i, contribution)
            np.add.at(replica, self.j, -contribution)
        energy = u.sum(axis=-1)
        return Evaluation(energy, forces) if positions.ndim == 3 else Evaluation(energy[0], forces[0])


class LennardJones(PairModel):
    """4 eps ((sigma/r)^12 - (sigma/r)^6) over all pairs; by default argon, eps = 0.0103 eV, sigma = 3.4 A."""

    def __init__(self, numbers: Array, epsilon: float = 0.0103, sigma: float = 3.4) -> None:
        """Bind to atomic numbers (n,); epsilon in eV, sigma in A."""
        n = len(numbers)
        super().__init__("lj", numbers, np.stack(np.triu_indices(n, 1), axis=1), {"epsilon": epsilon, "sigma": sigma})
        self.epsilon, self.sigma = epsilon, sigma

    def pair(self, r: Array) -> tuple[Array, Array]:
        """The Lennard-Jones function."""
        s6 = (self.sigma / r) ** 6
        return 4 * self.epsilon * (s6 * s6 - s6), 4 * self.epsilon * (6 * s6 - 12 * s6 * s6) / r


class Harmonic(PairModel):
    """k (r - r0)^2 / 2 over the bonds of a reference structure, r0 its bond lengths; by default k = 20 eV/A^2."""

    def __init__(self, numbers: Array, bonds: NDArray[np.int64], lengths: Array, k: float = 20.0) -> None:
        """Bind to atomic numbers (n,), bonds (m, 2) and their lengths (m,) in A; k in eV/A^2."""
        super().__init__("harmonic", numbers, bonds, {"k": k})
        self.k, self.r0 = k, np.asarray(lengths, dtype=np.float64)

    def pair(self, r: Array) -> tuple[Array, Array]:
        """The harmonic function."""
        return 0.5 * self.k * (r - self.r0) ** 2, self.k * (r - self.r0)


class Morse(PairModel):
    """D (1 - exp(-a (r - r0)))^2 over the bonds of a reference structure; by default D = 4.6 eV, a = 1.9 / A.

    Morse, Phys. Rev. 34, 57 (1929), doi:10.1103/PhysRev.34.57.
    """

    def __init__(
        self, numbers: Array, bonds: NDArray[np.int64], lengths: Array, depth: float = 4.6, a: float = 1.9
    ) -> None:
        """Bind to atomic numbers (n,), bonds (m, 2) and their lengths (m,) in A; depth in eV, a in 1/A."""
        super().__init__("morse", numbers, bonds, {"depth": depth, "a": a})
        self.depth, self.a, self.r0 = depth, a, np.asarray(lengths, dtype=np.float64)

    def pair(self, r: Array) -> tuple[Array, Array]:
        """The Morse function."""
        e = np.exp(-self.a * (r - self.r0))
        return self.depth * (1 - e) ** 2, 2 * self.depth * self.a * (1 - e) * e


def bonded(kind: type[Harmonic] | type[Morse], atoms: Any) -> PairModel:
    """Build a bonded model with the covalent bonds and bond lengths of a structure."""
    from mlff_sim.structure import covalent_bonds

    bonds = np.array(covalent_bonds(atoms), dtype=np.int64)
    if not len(bonds):
        raise InputError("the structure has no covalent bonds for a bonded model; use 'lj'.")
    x = atoms.get_positions()
    return kind(atoms.numbers, bonds, np.linalg.norm(x[bonds[:, 0]] - x[bonds[:, 1]], axis=1))
