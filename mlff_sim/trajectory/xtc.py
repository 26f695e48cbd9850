"""XTC files of GROMACS and OpenMM, by MDTraj."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mlff_sim.errors import InputError
from mlff_sim.forces import Array
from mlff_sim.trajectory.frame import Frame, cut_note, in_double
from mlff_sim.units import NM

MAGIC = (1995).to_bytes(4, "big"), (2023).to_bytes(4, "big")
SMALLEST = 52
"""Bytes before the positions of the first frame."""


def count_atoms(path: Path) -> int:
    """Atoms of the first frame.

    Raises:
        InputError: no XTC file.
    """
    with path.open("rb") as file:
        data = file.read(SMALLEST)
    if not any(data[:4] == magic[: len(data)] for magic in MAGIC):
        raise InputError(f"trajectory '{path}' is no XTC file.")
    if len(data) < SMALLEST:
        cut_note(path, 0)
    return int.from_bytes(data[4:8], "big")


def frames(path: Path, notes: list[str]) -> Iterator[Frame]:
    """Positions to the precision of the file (0.01 A by default), times and cells; no velocities and no energies.

    Raises:
        InputError: no complete frame.
    """
    from mdtraj.formats import XTCTrajectoryFile

    index = 0
    try:
        with XTCTrajectoryFile(str(path)) as file:
            while True:
                x, time, _, box = file.read(n_frames=1)
                if not len(x):
                    break
                cell: Array | None = None
                if box is not None and np.all(np.diagonal(box[0]) > 0):
                    cell = in_double(box[0]) * NM
                yield Frame(in_double(x[0]) * NM, None, cell, {"time_ps": float(time[0])})
                index += 1
    except (RuntimeError, OSError):
        notes.append(cut_note(path, index))
        return
    # XDR writes in units of four bytes; fewer at the end look like a proper end to the reader.
    if path.stat().st_size % 4 or not index:
        notes.append(cut_note(path, index))
