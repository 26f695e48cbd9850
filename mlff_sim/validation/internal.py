"""Bonds, angles and dihedrals of a molecule: which there are, what they are called, and their values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from mlff_sim.forces import Array

LINEAR_DEG = 160.0
"""Mean angles beyond this are linear, and dihedrals about them undefined; sp2 and sp3 angles stay below 140."""


@dataclass(frozen=True)
class Coordinate:
    """One bond length, angle or dihedral.

    Attributes:
        kind: "bond", "angle" or "dihedral".
        atoms: one tuple of atom indices, or of a dihedral those of all its equivalents (`internal_coordinates`).
        name: symbols and indices of its atoms, "C0-C1-O2".
    """

    kind: str
    atoms: tuple[tuple[int, ...], ...]
    name: str

    def values(self, x: Array) -> Array:
        """A of a bond, degrees of an angle in [0, 180] or of a dihedral in [-180, 180] (IUPAC's sign).

        Args:
            x: A, shape (3, n, sets).

        Returns:
            shape (equivalents, sets).
        """
        measure = {"bond": _lengths, "angle": _angles, "dihedral": _dihedrals}[self.kind]
        return np.stack([measure(x, atoms) for atoms in self.atoms])


def internal_coordinates(
    numbers: NDArray[np.int64], bonds: Sequence[tuple[int, int]], x: Array
) -> tuple[Coordinate, ...]:
    """All bonds, all angles of two bonds at one atom, and all dihedrals of three bonds in a row.

    Dihedrals with a linear angle are left out. Those that differ only in atoms of one element that are bonded to the same
    atom and to nothing else, such as the hydrogens of a methyl group, are one coordinate with several values in each
    frame: a hop of the group exchanges them and changes nothing, and would have to be sampled if they were told apart.

    Args:
        numbers: atomic numbers, shape (n,).
        bonds: pairs of bonded atoms.
        x: A, shape (3, n, sets), to tell linear angles by their mean.

    Raises:
        ValueError: a bond of an atom with itself, or of one there is not.
    """
    from ase.data import chemical_symbols

    n = len(numbers)
    pairs = sorted({(min(b), max(b)) for b in ((int(i), int(j)) for i, j in bonds)})
    for i, j in pairs:
        if i == j or i < 0 or j >= n:
            raise ValueError(f"bond ({i}, {j}) must be of two different atoms from 0 to {n - 1}.")
    near: list[list[int]] = [[] for _ in range(n)]
    for i, j in pairs:
        near[i].append(j)
        near[j].append(i)

    def name(atoms: tuple[int, ...]) -> str:
        return "-".join(f"{chemical_symbols[int(numbers[a])]}{a}" for a in atoms)

    found = [Coordinate("bond", (ij,), name(ij)) for ij in pairs]
    linear = set()
    for j in range(n):
        for i, k in combinations(sorted(near[j]), 2):
            found.append(Coordinate("angle", ((i, j, k),), name((i, j, k))))
            if found[-1].values(x).mean() > LINEAR_DEG:
                linear |= {(i, j, k), (k, j, i)}
    alike: dict[tuple[object, ...], list[tuple[int, ...]]] = {}

    def kind(a: int) -> object:
        return ("end", near[a][0], int(numbers[a])) if len(near[a]) == 1 else a

    for j, k in pairs:
        for i in near[j]:
            for m in near[k]:
                if i != k and m != j and i != m and not {(i, j, k), (j, k, m)} & linear:
                    alike.setdefault((kind(i), j, k, kind(m)), []).append((i, j, k, m))
    for same in alike.values():
        more = f" and {len(same) - 1} alike" if len(same) > 1 else ""
        found.append(Coordinate("dihedral", tuple(same), name(same[0]) + more))
    return tuple(found)


def _lengths(x: Array, atoms: tuple[int, ...]) -> Array:
    i, j = atoms
    d = x[:, j] - x[:, i]
    out: Array = np.sqrt((d * d).sum(axis=0))
    return out


def _angles(x: Array, atoms: tuple[int, ...]) -> Array:
    i, j, k = atoms
    a, b = x[:, i] - x[:, j], x[:, k] - x[:, j]
    c = _cross(a, b)
    out: Array = np.degrees(np.arctan2(np.sqrt((c * c).sum(axis=0)), (a * b).sum(axis=0)))
    return out


def _dihedrals(x: Array, atoms: tuple[int, ...]) -> Array:
    i, j, k, m = atoms
    a, b, c = x[:, j] - x[:, i], x[:, k] - x[:, j], x[:, m] - x[:, k]
    first, second = _cross(a, b), _cross(b, c)
    sine = np.sqrt((b * b).sum(axis=0)) * (a * second).sum(axis=0)
    out: Array = np.degrees(np.arctan2(sine, (first * second).sum(axis=0)))
    return out


def _cross(a: Array, b: Array) -> Array:
    """Vector products, shape (3, sets); `np.cross` is several times slower."""
    return np.stack([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])
