"""Labelled frames: what the teacher said about which positions."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlff_sim.forces import Array, ForceProvider

MAX_LABEL_FORCE = 30.0
"""eV/A. Frames with a larger teacher force lie far outside any thermal ensemble and are not trained on."""


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
