"""The mollifier A of mollified RESPA: positions with every X-H bond at a fixed length.

The slow force of two-model dynamics is that of the residual U_teacher - U_student. Along X-H stretches the residual
oscillates several times between two kicks, and kicks in step with an oscillation, or with a harmonic of it, move
energy (resonance). Mollified RESPA (Garcia-Archilla, Sanz-Serna & Skeel, SIAM J. Sci. Comput. 20, 930 (1998),
doi:10.1137/S1064827596313851; Izaguirre, Reich & Skeel, J. Chem. Phys. 110, 9853 (1999), doi:10.1063/1.478995) takes
the residual at A(x), where it does not change along those stretches:

    U(x) = U_student(x) + (U_teacher - U_student)(A(x)),    F = F_student(x) + A'(x)^T (F_teacher - F_student)(A(x)).

This is the dynamics of a potential, so an energy is conserved. Its price: the X-H stretches are the student's.

| symbol | variable | shape |
|---|---|---|
| heavy atom of a hydrogen | `parent` | (n,), its own index for every atom that is left alone |
| r0 | `length` | (n,), A, 0 for every atom that is left alone |
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlff_sim.forces import Array


class Mollifier:
    """A(x) and the transpose of its derivative.

    Args:
        numbers: atomic numbers, shape (n,).
        bonds: pairs of bonded atoms. Hydrogens with exactly one bond, to a heavier atom, are moved.
        positions: A, shape (n, 3), the structure at rest, whose bond lengths are kept, to 1e-3 A.

    Attributes:
        hydrogens: atoms that are moved, shape (m,).
    """

    def __init__(self, numbers: Sequence[int], bonds: Sequence[tuple[int, int]], positions: Array) -> None:
        """Find the X-H bonds and measure them."""
        neighbours: dict[int, list[int]] = {}
        for i, j in bonds:
            neighbours.setdefault(i, []).append(j)
            neighbours.setdefault(j, []).append(i)
        single = {i: near[0] for i, near in neighbours.items() if len(near) == 1 and numbers[i] == 1}
        moved = {h: heavy for h, heavy in sorted(single.items()) if numbers[heavy] > 1}
        self.hydrogens: NDArray[np.int64] = np.array(list(moved), dtype=np.int64)
        self.parent: NDArray[np.int64] = np.array([moved.get(i, i) for i in range(len(numbers))], dtype=np.int64)
        self.length: Array = np.linalg.norm(positions - positions[self.parent], axis=-1).round(3)

    def __call__(self, positions: Array) -> Array:
        """A(x) for positions of shape (replicas, n, 3)."""
        moved: Array = at_fixed_length(positions, self.parent, self.length)
        return moved

    def pull_back(self, positions: Array, forces: Array) -> Array:
        """A'(x)^T f for positions x and forces f at A(x), both (replicas, n, 3).

        On a hydrogen (r0/r)(1 - u u^T) f_h, with the unit vector u along the bond; its heavy atom takes the rest
        of f_h, so total force and torque stay what they are.
        """
        h, heavy = self.hydrogens, self.parent[self.hydrogens]
        d = positions[:, h] - positions[:, heavy]
        r = np.linalg.norm(d, axis=-1, keepdims=True)
        u, f = d / r, forces[:, h]
        across = self.length[h][:, None] / r * (f - (f * u).sum(-1, keepdims=True) * u)
        pulled = forces.copy()
        pulled[:, h] = across
        pulled += (np.arange(forces.shape[1])[:, None] == heavy) @ (f - across)
        return pulled


def at_fixed_length(x: Any, parent: Any, length: Any) -> Any:
    """Each atom at `length` from its parent in the present direction; for NumPy arrays and torch tensors alike."""
    d = x - x[:, parent]
    r = ((d * d).sum(-1) + (length == 0)) ** 0.5  # d is zero for an atom that is its own parent
    return x + (length / r)[..., None] * d - d
