"""What every file format is turned into: frames of the same atoms, one after the other, in the units of this package."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mlff_sim.errors import InputError
from mlff_sim.forces import Array


@dataclass(frozen=True)
class Frame:
    """One instant.

    Attributes:
        positions: A, shape (n, 3), as they stand in the file, wrapped or not.
        momenta: (eV u)^1/2, shape (n, 3); None without velocities.
        cell: A, rows are the cell's vectors, shape (3, 3); None where not periodic.
        scalars: some of time_ps (ps), potential_energy, kinetic_energy, total_energy (eV, of the whole system).
    """

    positions: Array
    momenta: Array | None = None
    cell: Array | None = None
    scalars: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """A trajectory file that has been opened; it is read once, from the start.

    Attributes:
        path: of the file.
        numbers: atomic numbers, shape (n,).
        masses: u, shape (n,).
        frames: the frames. A file that ends within one yields those before it and adds a note.
        notes: what the reader has to say; complete when `frames` has ended.
    """

    path: Path
    numbers: NDArray[np.int64]
    masses: Array
    frames: Iterator[Frame]
    notes: list[str]


def standard_masses(numbers: NDArray[np.int64]) -> Array:
    """Masses in u, shape (n,), of elements in their natural composition (IUPAC 2016, as in ASE)."""
    from ase.data import atomic_masses

    return np.asarray(atomic_masses[numbers], dtype=np.float64)


def in_double(numbers: Array) -> Array:
    """The same in double precision. NumPy warns of damaged bytes that make a signalling NaN; they are found later."""
    with np.errstate(invalid="ignore"):
        return np.asarray(numbers, dtype=np.float64)


def cell_from_lengths(lengths: Array, angles: Array) -> Array | None:
    """Cell vectors in the rows of (3, 3) from lengths in A and angles in degrees; None for a cell of no size."""
    from ase.geometry import cellpar_to_cell

    if not (np.isfinite(lengths).all() and np.all(lengths > 0)):
        return None
    return np.asarray(cellpar_to_cell([*lengths, *angles]), dtype=np.float64)


def cut_note(path: Path, frames: int) -> str:
    """What is said of a file that ends within a frame.

    Raises:
        InputError: it ends within its first.
    """
    if frames == 0:
        raise InputError(f"trajectory '{path}' ends within its first frame: it is truncated; copy or record it again.")
    return f"'{path.name}' is truncated: it ends within frame {frames}; the {frames} before it were used."
