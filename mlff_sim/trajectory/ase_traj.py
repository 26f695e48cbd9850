"""ASE's own trajectories."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlff_sim.errors import InputError
from mlff_sim.trajectory.extxyz import check_same_atoms, written_time
from mlff_sim.trajectory.frame import Frame, Source, cut_note

if TYPE_CHECKING:
    from ase import Atoms


def open_traj(path: Path) -> Source:
    """Positions, momenta, energies and cells as ASE keeps them, in its units, which are those of this package.

    ASE's dynamics writes no time: it is taken from `atoms.info["time_ps"]` or `["time_fs"]` where somebody did.

    Raises:
        InputError: not such a file, damaged at its start, or empty. While reading: other atoms in a later frame.
    """
    from ase.io.trajectory import TrajectoryReader

    with path.open("rb") as file:  # ASE does not close what it could not read
        try:
            reader = TrajectoryReader(file)
            first = reader[0] if len(reader) else None
            numbers = np.array([] if first is None else first.numbers)
            masses = np.array([] if first is None else first.get_masses())
        except Exception as error:  # a damaged file breaks ASE in many ways
            raise InputError(
                f"trajectory '{path}' is no ASE trajectory, or truncated ({type(error).__name__}); copy or record it "
                "again."
            ) from error
    if first is None:
        raise InputError(f"trajectory '{path}' holds no frame.")
    notes: list[str] = []
    return Source(path, numbers, masses, _frames(path, numbers, notes), notes)


def _frames(path: Path, numbers: NDArray[np.int64], notes: list[str]) -> Iterator[Frame]:
    from ase.io.trajectory import TrajectoryReader

    with path.open("rb") as file:
        reader = TrajectoryReader(file)
        for index in range(len(reader)):
            try:
                atoms = reader[index]
            except Exception:  # the same
                notes.append(cut_note(path, index))
                return
            check_same_atoms(path, index, atoms.numbers, numbers)
            yield _frame(atoms, notes)


def _frame(atoms: Atoms, notes: list[str]) -> Frame:
    scalars = written_time(atoms.info, notes)
    energy = atoms.calc.results.get("energy") if atoms.calc is not None else None
    if energy is not None:
        scalars["potential_energy"] = float(energy)
    momenta = atoms.get_momenta() if atoms.has("momenta") else None
    cell = np.array(atoms.cell) if atoms.pbc.all() else None
    return Frame(atoms.positions, momenta, cell, scalars)
