"""What an atom of a trajectory cannot do: bonds that are held, atoms that stand still, a centre of mass at rest.

Files seldom say so, and a kinetic temperature that counts such degrees of freedom is wrong.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlff_sim.forces import Array
from mlff_sim.structure import covalent_bonds

HELD = 0.2
"""A bond is held when its ends approach each other at less than this share of their thermal speed (root mean square)."""
AT_REST = 1e-3
"""The centre of mass is at rest when its kinetic energy is less than this share of what heat would give it."""
SAMPLE = 32
"""Frames that are looked at."""


def restraints(
    positions: Array, momenta: Array | None, cells: Array | None, masses: Array, numbers: NDArray[np.int64]
) -> tuple[dict[str, Any], str | None]:
    """The structure of the first frame, and why elements have fewer degrees of freedom than three for each atom.

    The ends of a bond of reduced mass mu approach at <v^2> = kT / mu, those of a bond that is held do not.

    Args:
        positions: A, shape (frames, replicas, n, 3).
        momenta: (eV u)^1/2, the same shape, or None.
        cells: A, shape (frames, replicas, 3, 3), or None.
        masses: u, shape (n,).
        numbers: atomic numbers, shape (n,).

    Returns:
        "numbers", "masses", "bonds" and "formula", and a reason or None.
    """
    from ase import Atoms

    cell = None if cells is None else cells[0, 0]
    atoms = Atoms(numbers, positions[0, 0], masses=masses, cell=cell, pbc=cell is not None)
    bonds = covalent_bonds(atoms)
    structure = {
        "formula": atoms.get_chemical_formula("hill"),
        "numbers": numbers.tolist(),
        "masses": masses.tolist(),
        "bonds": [list(b) for b in bonds],
    }
    return structure, None if momenta is None else _held(positions, momenta, cells, masses, np.array(bonds))


def _held(positions: Array, momenta: Array, cells: Array | None, masses: Array, bonds: NDArray[np.int64]) -> str | None:
    frames = np.unique(np.linspace(0, len(positions) - 1, SAMPLE).round().astype(int))
    x, v = positions[frames], momenta[frames] / masses[:, None]
    twice = float((momenta[frames] ** 2 / masses[:, None]).mean())  # kT where nothing is held
    if twice == 0.0:
        return "no atom moves"
    still = int((~v.any(axis=(0, 1, 3))).sum())
    if still:
        return f"{still} atoms stand still"
    if not len(bonds):
        return None
    i, j = bonds.T
    apart = x[:, :, i] - x[:, :, j]
    if cells is not None:
        box = cells[frames]
        apart -= np.round(apart @ np.linalg.inv(box)) @ box
    along = ((v[:, :, i] - v[:, :, j]) * apart).sum(-1) / np.linalg.norm(apart, axis=-1)
    thermal = twice * (1.0 / masses[i] + 1.0 / masses[j])
    held = int(((along**2).mean(axis=(0, 1)) < HELD**2 * thermal).sum())
    return f"{held} bonds are held at their lengths" if held else None


def total_momentum_vanishes(momenta: Array, masses: Array) -> bool:
    """Whether the centre of mass is at rest in all frames, of momenta (frames, replicas, n, 3)."""
    heat = (momenta**2 / masses[:, None]).mean()
    moving = (momenta.sum(axis=2) ** 2).sum(-1) / masses.sum()
    return bool(moving.max() <= AT_REST * 3.0 * heat)
