"""Labelled frames: what the teacher said about which positions."""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import islice, permutations, product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlff_sim.forces import Array, ForceProvider
from mlff_sim.structure import covalent_bonds

if TYPE_CHECKING:
    from ase import Atoms

MAX_LABEL_FORCE = 30.0
"""eV/A. Frames with a larger teacher force lie far outside any thermal ensemble and are not trained on."""
MAX_EXCHANGES = 24
"""Copies of a frame with like hydrogens exchanged, at most."""


@dataclass(frozen=True)
class Labels:
    """Frames with the teacher's answers.

    Attributes:
        positions: A, shape (frames, n, 3).
        energies: eV, shape (frames,).
        forces: eV/A, shape (frames, n, 3).
    """

    positions: Array
    energies: Array
    forces: Array

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.energies)

    @staticmethod
    def empty(n_atoms: int) -> Labels:
        """No frames of a molecule of n atoms."""
        return Labels(np.empty((0, n_atoms, 3)), np.empty(0), np.empty((0, n_atoms, 3)))

    def __add__(self, other: Labels) -> Labels:
        """These frames followed by those."""
        return Labels(
            np.concatenate([self.positions, other.positions]),
            np.concatenate([self.energies, other.energies]),
            np.concatenate([self.forces, other.forces]),
        )

    def exchanged(self, orders: NDArray[np.int64]) -> Labels:
        """Each frame once in every order of the atoms (orders, n): what holds for one holds for all, free of charge."""
        return Labels(
            np.concatenate([self.positions[:, order] for order in orders]),
            np.tile(self.energies, len(orders)),
            np.concatenate([self.forces[:, order] for order in orders]),
        )

    def save(self, path: Path) -> None:
        """Write to a NumPy archive, atomically."""
        temporary = path.with_suffix(".tmp.npz")
        np.savez(temporary, positions=self.positions, energies=self.energies, forces=self.forces)
        os.replace(temporary, path)

    @staticmethod
    def load(path: Path) -> Labels:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as f:
            return Labels(f["positions"], f["energies"], f["forces"])


def label(teacher: ForceProvider, frames: Array) -> Labels:
    """Ask the teacher about frames (m, n, 3) one by one; drop those it cannot answer or that are far too hot.

    Each frame is evaluated from scratch (`reset`), so that labels do not depend on their order.
    """
    x, e, f = [], [], []
    for frame in frames:
        teacher.reset()
        try:
            result = teacher(frame)
        except RuntimeError:  # an SCF that does not converge on a broken geometry
            continue
        if np.isfinite(result.forces).all() and np.abs(result.forces).max() < MAX_LABEL_FORCE:
            x.append(frame)
            e.append(float(result.energy))
            f.append(result.forces)
    if not x:
        return Labels.empty(frames.shape[1])
    return Labels(np.array(x), np.array(e), np.array(f))


def hydrogen_exchanges(atoms: Atoms) -> NDArray[np.int64]:
    """Orders of the atoms (orders, n) that exchange hydrogens of one neighbour: 12 of ethanol, the given one first.

    A network of labelled atoms does not know that they are alike, and has to be shown; at most `MAX_EXCHANGES` orders.
    """
    shared: dict[int, list[int]] = {}
    for pair in covalent_bonds(atoms):
        for hydrogen, neighbour in (pair, pair[::-1]):
            if atoms.numbers[hydrogen] == 1:
                shared.setdefault(neighbour, []).append(hydrogen)
    orders = []
    for choice in islice(product(*(permutations(group) for group in shared.values())), MAX_EXCHANGES):
        order = np.arange(len(atoms))
        for group, other in zip(shared.values(), choice, strict=True):
            order[group] = other
        orders.append(order)
    return np.array(orders)
