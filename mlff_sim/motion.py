"""Kinetic energy by kind of motion: molecules travel, turn and vibrate, and each has its share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mlff_sim.forces import Array
from mlff_sim.state import State, kinetic_energy
from mlff_sim.units import KB


def inertia(x: Array, masses: Array) -> Array:
    """Inertia tensors, u A^2, shape (..., 3, 3), of positions about the centre of mass, (..., n, 3)."""
    square = np.einsum("n,...na,...nb->...ab", masses, x, x)
    tensor: Array = np.trace(square, axis1=-2, axis2=-1)[..., None, None] * np.eye(3) - square
    return tensor


def angular_velocity(x: Array, masses: Array, spin: Array) -> Array:
    """I^-1 L, shape (..., 3), of positions about the centre (..., n, 3) and angular momenta (..., 3).

    By the pseudo-inverse: a linear molecule does not turn about its axis.
    """
    inverse = np.linalg.pinv(inertia(x, masses), rcond=1e-9, hermitian=True)
    rate: Array = np.einsum("...ab,...b->...a", inverse, spin)
    return rate


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
        first = inertia(x[0], m)
        turn += float(np.linalg.matrix_rank(first, hermitian=True, tol=1e-9 * max(np.abs(first).max(), 1e-300)))
        turning = turning + 0.5 * np.einsum("fa,fa->f", spin, angular_velocity(x, m, spin))
    internal = kinetic_energy(momenta[:, atoms], masses[atoms]) - travelling - turning
    parts = {
        "translation": (travelling, travel),
        "rotation": (turning, turn),
        "internal": (internal, 3.0 * len(atoms) - 3.0 * com_removed - travel - turn),
    }
    return {name: (energy, dof) for name, (energy, dof) in parts.items() if dof > 0}


def aimed_momenta(
    state: State, masses: Array, temperature_K: float, above_minimum_eV: Array | float, *, com_removed: bool
) -> Array:
    """Momenta scaled so that the mean kinetic temperature of constant-energy dynamics aims at `temperature_K`.

    Internal energy E above the minimum is on average half kinetic, half potential (the virial theorem in the harmonic
    limit), while a free molecule keeps the energy of its translation and rotation: <K> = K_trans + K_rot +
    (K_internal + U) / 2. One factor s on all kinetic energies makes this the temperature's dof kT / 2,

        s = (dof kT - U) / (2 K_trans + 2 K_rot + K_internal).

    From the minimum, U = 0, the vibrations start about twice as hot as they will be.

    Args:
        state: where to start, molecules whole; of each replica all atoms are one molecule.
        masses: u, shape (n,).
        temperature_K: K.
        above_minimum_eV: potential energy of the start less that of the minimum it belongs to, shape (R,) or a number.
        com_removed: whether the total momentum is fixed at zero.

    Returns:
        Momenta, (eV u)^1/2, shape (R, n, 3).

    Raises:
        ValueError: nothing moves, or the start already holds more potential energy than the temperature allows.
    """
    n = len(masses)
    dof = 3 * n - 3 * com_removed
    parts = kinetic_by_motion(state.positions, state.momenta, masses, [np.arange(n)], com_removed=com_removed)
    none = np.zeros(len(state.momenta)), 0.0
    rigid = sum(parts.get(name, none)[0] for name in ("translation", "rotation"))
    weight = 2.0 * rigid + parts.get("internal", none)[0]
    left = dof * KB * temperature_K - np.asarray(above_minimum_eV, dtype=np.float64)
    if not (weight > 0).all():
        raise ValueError("momenta of zero cannot be scaled; draw them first, at any temperature.")
    if not (left > 0).all():
        raise ValueError(
            f"the start lies {np.max(above_minimum_eV):.3g} eV above the minimum, more than {temperature_K} K allow "
            f"({dof * KB * temperature_K:.3g} eV); relax it or equilibrate it at that temperature."
        )
    scaled: Array = state.momenta * np.sqrt(left / weight)[:, None, None]
    return scaled
