"""Pairs of atoms within a cutoff, with a skin: found by vesin, reused until they could be wrong."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mlff_sim.forces import Array
from mlff_sim.structure import check_cell


class NeighborList:
    """Ordered pairs (i, j, S) with |x_j - x_i + S h| < cutoff, both directions, for cell vectors in the rows of h.

    Candidates within cutoff + skin are kept. Two atoms approach by at most twice the largest displacement, and an
    image by its change S (h - h0) = (S h) h^-1 (h - h0) on top, where S h is no longer than the cutoff and the extent
    of the atoms together; while that sum is below the skin no pair can be missing. Displacements are raw Cartesian
    ones: an atom that was folded back into the cell has moved far, and the list is built anew.

    Args:
        cutoff: A.
        skin: A; 0 builds anew for every position.

    Attributes:
        rebuilds: how often candidates were searched.
    """

    def __init__(self, cutoff: float, skin: float) -> None:
        """Nothing is known yet."""
        self.cutoff, self.skin, self.rebuilds = float(cutoff), float(skin), 0
        self._where: tuple[Array, Array, tuple[bool, ...]] | None = None
        self._pairs = np.empty((2, 0), dtype=np.int64)
        self._images = np.empty((0, 3))

    def __call__(
        self, positions: Array, cell: Array | None = None, pbc: tuple[bool, ...] = (False, False, False)
    ) -> tuple[NDArray[np.int64], Array]:
        """Pairs (2, E) and image shifts S (E, 3) for positions (n, 3) in A and a cell (3, 3)."""
        self.candidates(positions, cell, pbc)
        x, h = np.asarray(positions, dtype=np.float64), np.zeros((3, 3)) if cell is None else np.asarray(cell)
        i, j = self._pairs
        d = x[j] - x[i]
        if any(pbc):
            d += self._images @ h
        near = np.einsum("ei,ei->e", d, d) < self.cutoff**2
        return np.ascontiguousarray(self._pairs[:, near]), self._images[near]

    def candidates(
        self, positions: Array, cell: Array | None = None, pbc: tuple[bool, ...] = (False, False, False)
    ) -> tuple[NDArray[np.int64], Array]:
        """The same for all pairs that have been kept, those beyond the cutoff too; they change with `rebuilds` only."""
        x, h = np.asarray(positions, dtype=np.float64), np.zeros((3, 3)) if cell is None else np.asarray(cell)
        if self._stale(x, h, pbc):
            self._build(x, h, pbc)
        return self._pairs, self._images

    def _stale(self, x: Array, h: Array, pbc: tuple[bool, ...]) -> bool:
        if self._where is None or self._where[0].shape != x.shape or self._where[2] != pbc:
            return True
        moved = float(np.sqrt(((x - self._where[0]) ** 2).sum(1).max(initial=0.0)))
        vectors, before = h[np.array(pbc)], self._where[1][np.array(pbc)]
        reach = 0.0
        if not np.array_equal(vectors, before):
            extent = float(np.linalg.norm(np.ptp(x, axis=0)))
            reach = (self.cutoff + extent) * float(np.linalg.norm(np.linalg.pinv(vectors) @ (vectors - before), 2))
        return not 2 * moved + reach < self.skin

    def forget(self) -> None:
        """Build anew at the next call, so that the order of pairs has no history."""
        self._where = None

    def _build(self, x: Array, h: Array, pbc: tuple[bool, ...]) -> None:
        from ase.geometry import complete_cell
        from vesin import NeighborList as Search

        check_cell(h, pbc, len(x))
        search = Search(cutoff=self.cutoff + self.skin, full_list=True)
        box = complete_cell(np.where(np.array(pbc)[:, None], h, 0.0))
        i, j, images = search.compute(points=x, box=box, periodic=list(pbc), quantities="ijS")
        self._pairs = np.stack([i, j]).astype(np.int64)
        self._images = np.asarray(images, dtype=np.float64)
        self._where = (x.copy(), np.array(h, dtype=np.float64), pbc)
        self.rebuilds += 1
