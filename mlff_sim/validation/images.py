"""Distances of all pairs of atoms, frame after frame: of a molecule, or between nearest images in a cell."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
from numpy.typing import NDArray

from mlff_sim.forces import Array

CHUNK = 16384
"""Distances worked on at once: as many as the arrays of a step leave room for in a core's second-level cache."""


class PairDistances:
    """Distances in A of all pairs of atoms, element pair by element pair.

    In a cell, distances are those of nearest images, right up to `reach_A` in cells of any skew: the lattice is
    Minkowski-reduced (ASE), fractional differences are rounded, and of the neighbouring images those are tried that
    can come closer than `reach_A`. That is half the shortest lattice vector, the radius of the largest sphere that
    holds no two images of one atom (Nguyen & Stehle, ACM Trans. Algorithms 5, 46 (2009), doi:10.1145/1597036.1597050).
    Beyond it a distance may be that of a farther image.

    Args:
        numbers: atomic numbers, shape (n,).
        cells: A, rows are vectors, shape (m, 3, 3), one for each set of positions or one for all; None for a molecule.

    Attributes:
        pairs: element pair ("C-H", symbols in alphabetical order) to the number of its atom pairs.
        reach_A: A, infinite for a molecule.
        volumes: A^3, shape (m,); empty for a molecule.
    """

    def __init__(self, numbers: NDArray[np.int64], cells: Array | None = None) -> None:
        """Sort the atoms, reduce the cells."""
        from ase.data import chemical_symbols

        symbols = np.array([chemical_symbols[z] for z in np.asarray(numbers).tolist()])
        self.order = np.argsort(symbols, kind="stable")
        self.symbols, starts = np.unique(symbols[self.order], return_index=True)
        self.bounds = [*starts.tolist(), len(symbols)]
        sizes = np.diff(self.bounds)
        self.pairs: dict[str, int] = {}
        for a, b in product(range(len(sizes)), repeat=2):
            count = int(sizes[a] * sizes[b] if a < b else sizes[a] * (sizes[a] - 1) // 2 if a == b else 0)
            if count:
                self.pairs[f"{self.symbols[a]}-{self.symbols[b]}"] = count
        self.reach_A, self.volumes = float("inf"), np.empty(0)
        self.cells: Array | None = None
        if cells is not None:
            self._reduce(cells)

    def _reduce(self, cells: Array) -> None:
        """Take reduced lattices in lower triangular form, and the images that rounding can miss."""
        from ase.geometry import minkowski_reduce

        self.volumes = np.abs(np.linalg.det(cells))
        unique, inverse = np.unique(cells.reshape(-1, 9), axis=0, return_inverse=True)
        reduced = np.array([minkowski_reduce(c)[0] for c in unique.reshape(-1, 3, 3)])[inverse.ravel()]
        # A rotation that makes them lower triangular saves a third of the products.
        self.lower: Array = np.linalg.qr(reduced.transpose(0, 2, 1))[1].transpose(0, 2, 1)
        self.lower[:, [1, 2, 2], [0, 0, 1]] *= np.abs(self.lower[:, [1, 2, 2], [0, 0, 1]]) > 1e-12
        self.cells, self.inverse = cells, np.linalg.inv(reduced)
        lengths = np.linalg.norm(reduced, axis=2)
        self.reach_A = 0.5 * float(lengths.min())
        heights = 1.0 / np.linalg.norm(self.inverse, axis=1)
        self.shifts = []
        for s in product((-1, 0, 1), repeat=3):
            if any(s) and self._can_be_nearer(np.array(s, dtype=np.float64), heights):
                self.shifts.append(np.array(s, dtype=np.float64))

    def _can_be_nearer(self, s: Array, heights: Array) -> bool:
        """Whether an image s cells from the rounded one can lie within reach in any frame.

        Differences of rounded fractions f in [-1/2, 1/2]^3, moved by t = s L, are at least as long as along t,
        |t| - sum |t . a| / 2, and as along the height of each cell vector, |s| / 2 heights.
        """
        t = s @ self.lower
        length = np.linalg.norm(t, axis=1)
        along = length - 0.5 * np.abs(np.einsum("mij,mj->mi", self.lower, t)).sum(axis=1) / length
        across = (0.5 * np.abs(s) * heights).max(axis=1)
        return bool((np.maximum(along, across) < self.reach_A * (1 - 1e-12)).any())

    def of(self, positions: Array, rows: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], str, Array]]:
        """Distances, in pieces.

        Args:
            positions: A, shape (sets, n, 3).
            rows: which sets to look at.

        Yields:
            the rows of this piece, shape (k,), the element pair, and its distances in A, shape (pairs, k); an element
            pair comes in several pieces.
        """
        size = max(1, CHUNK // max(1, len(self.order)))
        for start in range(0, len(rows), size):
            piece = rows[start : start + size]
            x = positions[piece][:, self.order]
            if self.cells is None:
                scale = None
                x = np.ascontiguousarray(x.transpose(2, 1, 0))
            else:
                own = piece if len(self.lower) > 1 else np.zeros(1, dtype=np.int64)
                scale = self.lower[own].transpose(1, 2, 0)
                x = np.ascontiguousarray((x @ self.inverse[own]).transpose(2, 1, 0))
            for a, (first, last) in enumerate(zip(self.bounds[:-1], self.bounds[1:], strict=True)):
                for i in range(first, last):
                    if i + 1 == len(self.order):
                        continue
                    difference = x[:, i + 1 :] - x[:, i : i + 1]
                    lengths = np.sqrt(_squares(difference) if scale is None else self._nearest(difference, scale))
                    for b in range(a, len(self.symbols)):
                        part = lengths[max(self.bounds[b] - i - 1, 0) : self.bounds[b + 1] - i - 1]
                        if len(part):
                            yield piece, f"{self.symbols[a]}-{self.symbols[b]}", part

    def _nearest(self, fractions: Array, lower: Array) -> Array:
        """Squares in A^2 of nearest-image distances, shape (pairs, k), of fractional differences (3, pairs, k)."""
        f = fractions
        f -= np.rint(f)
        d = np.empty_like(f)
        for k in range(3):
            np.multiply(f[k], lower[k, k], out=d[k])
            for j in range(k + 1, 3):
                if lower[j, k].any():
                    d[k] += f[j] * lower[j, k]
        nearest = _squares(d.copy() if self.shifts else d)
        if self.shifts:
            rounded = nearest.copy()
            for s in self.shifts:
                t = np.einsum("i,ijk->jk", s, lower)
                image = rounded + (t * t).sum(axis=0)
                for k in range(3):
                    if t[k].any():
                        image += d[k] * (2.0 * t[k])
                np.minimum(nearest, image, out=nearest)
            np.maximum(nearest, 0.0, out=nearest)
        return nearest


def _squares(d: Array) -> Array:
    """Sum of squares over the first axis, in place."""
    d *= d
    d[0] += d[1]
    d[0] += d[2]
    out: Array = d[0]
    return out
