"""Kinetic energy by kind of motion: molecules travel, turn and vibrate, and each has its share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mlff_sim.forces import Array
from mlff_sim.state import kinetic_energy


def kinetic_by_motion(
    positions: Array,
    momenta: Array,
    masses: Array,
    molecules: Sequence[NDArray[np.int64]],
    *,
    com_removed: bool,
) -> dict[str, tuple[Array, float]]:
    """Kinetic energy of translation, rotation and internal motion, with the degrees of freedom of each.

    Of a molecule of mass M with momentum P, angular momentum L about its centre and inertia tensor I: P^2 / 2M,
    L I^-1 L / 2 and the rest. At given positions these are independent sums of squares of canonical momenta, so each
    is kT/2 per degree of freedom on average, whatever the molecule's shape is at that instant.

    Args:
        positions: A, shape (frames, n, 3), molecules not torn apart by a cell's faces.
        momenta: (eV u)^1/2, shape (frames, n, 3).
        masses: u, shape (n,).
        molecules: indices of the atoms of each; an atom belongs to one.
        com_removed: whether the total momentum is fixed at zero.

    Returns:
        "translation", "rotation" and "internal", as far as there are any: eV, shape (frames,), and their number.
    """
    turning = travelling = np.zeros(len(momenta))
    travel = 3.0 * len(molecules) - 3.0 * com_removed
    turn = 0.0
    atoms = np.concatenate(list(molecules))
    for index in molecules:
        p, m = momenta[:, index], masses[index]
        total = p.sum(axis=1)
        travelling = travelling + 0.5 * (total**2).sum(axis=1) / m.sum()
        x = positions[:, index] - np.average(positions[:, index], axis=1, weights=m)[:, None]
        spin = np.cross(x, p - total[:, None] * (m / m.sum())[:, None]).sum(axis=1)
        square = np.einsum("i,fia,fib->fab", m, x, x)
        inertia = np.trace(square, axis1=1, axis2=2)[:, None, None] * np.eye(3) - square
        turn += float(
            np.linalg.matrix_rank(inertia[0], hermitian=True, tol=1e-9 * max(np.abs(inertia[0]).max(), 1e-300))
        )
        inverse = np.linalg.pinv(inertia, rcond=1e-9, hermitian=True)
        turning = turning + 0.5 * np.einsum("fa,fab,fb->f", spin, inverse, spin)
    internal = kinetic_energy(momenta[:, atoms], masses[atoms]) - travelling - turning
    parts = {
        "translation": (travelling, travel),
        "rotation": (turning, turn),
        "internal": (internal, 3.0 * len(atoms) - 3.0 * com_removed - travel - turn),
    }
    return {name: (energy, dof) for name, (energy, dof) in parts.items() if dof > 0}
