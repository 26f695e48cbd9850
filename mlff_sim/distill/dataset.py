"""Labelled frames: what the teacher said about which positions."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice, permutations, product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlff_sim.errors import InputError
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


def read_labels(path: str | Path, numbers: Sequence[int]) -> Labels:
    """Labelled frames of a file, such as the relabel.npz of a run, less those with forces beyond `MAX_LABEL_FORCE`.

    Args:
        path: a NumPy archive with positions (frames, n, 3) in A, energies (frames,) in eV, forces (frames, n, 3) in
            eV/A and atomic numbers (n,).
        numbers: the atomic numbers that it has to be for.

    Raises:
        InputError: no such file, another content, or another molecule.
    """
    if not Path(path).is_file():
        raise InputError(f"label file '{path}' does not exist; give the relabel.npz of a run.")
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as f:
            its = f["numbers"].tolist()
            x, e, forces = (np.asarray(f[k], dtype=np.float64) for k in ("positions", "energies", "forces"))
    except (KeyError, ValueError, OSError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise InputError(
            f"label file '{path}' is truncated, or no archive of positions, energies, forces and numbers."
        ) from error
    if its != [int(z) for z in numbers]:
        raise InputError(f"label file '{path}' is of other atoms, or of another order of them, than the structure.")
    if x.shape != forces.shape or x.shape[1:] != (len(its), 3) or e.shape != x.shape[:1] or not len(e):
        raise InputError(f"label file '{path}' holds no frames whose positions, energies and forces fit together.")
    if not (np.isfinite(x).all() and np.isfinite(e).all() and np.isfinite(forces).all()):
        raise InputError(f"label file '{path}' holds values that are not finite numbers.")
    sound = np.abs(forces).max(axis=(1, 2)) < MAX_LABEL_FORCE
    return Labels(x[sound], e[sound], forces[sound])


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
