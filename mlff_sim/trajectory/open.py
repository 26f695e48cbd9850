"""Which file is what, and opening it: by its content first, by its suffix where that says nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mlff_sim.errors import InputError
from mlff_sim.trajectory import dcd, xtc
from mlff_sim.trajectory.ase_traj import open_traj
from mlff_sim.trajectory.extxyz import open_extxyz
from mlff_sim.trajectory.frame import Frame, Source, standard_masses
from mlff_sim.trajectory.lammps import open_dump
from mlff_sim.trajectory.mdtraj_hdf5 import open_hdf5

SUFFIXES = {
    ".traj": "traj",
    ".xyz": "extxyz",
    ".extxyz": "extxyz",
    ".dcd": "dcd",
    ".xtc": "xtc",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
    ".dump": "lammps",
    ".lammpstrj": "lammps",
    ".csv": "table",
    ".pdb": "topology",
    ".cif": "topology",
    ".gro": "topology",
    ".prmtop": "topology",
    ".psf": "topology",
}
TRAJECTORIES = ("traj", "extxyz", "dcd", "xtc", "hdf5", "lammps")
PDB_RECORDS = (b"ATOM  ", b"HETATM", b"HEADER", b"REMARK", b"CRYST1", b"MODEL ", b"TITLE ", b"COMPND")


def kind_of(path: Path) -> str:
    """One of `TRAJECTORIES`, "table" or "topology".

    Raises:
        InputError: no such file, a folder, empty, or nothing that is known.
    """
    if path.is_dir():
        raise InputError(f"'{path}' is a folder; give one folder of runs, or the trajectory files themselves.")
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except FileNotFoundError as error:
        raise InputError(f"'{path}' does not exist; give trajectory files, or the folder of a run.") from error
    except OSError as error:
        raise InputError(f"trajectory '{path}' cannot be read ({error.strerror}).") from error
    if not start:
        raise InputError(f"trajectory '{path}' is empty.")
    kind = _by_content(start) or SUFFIXES.get(path.suffix.lower())
    if kind is None:
        raise InputError(
            f"'{path}' is no trajectory that can be read: ASE .traj, extended XYZ, DCD or XTC with a PDB, HDF5 of MDTraj "
            "and LAMMPS dumps can."
        )
    return kind


def _by_content(start: bytes) -> str | None:
    if start[:8] == b"- of Ulm":
        return "traj"
    if start[:8] == b"\x89HDF\r\n\x1a\n":
        return "hdf5"
    if start[4:8] == b"CORD":
        return "dcd"
    if start[:4] in xtc.MAGIC:
        return "xtc"
    if start[:5] == b"ITEM:":
        return "lammps"
    if start[:2] == b'#"':
        return "table"
    if start[:6] in PDB_RECORDS:
        return "topology"
    return None


def open_trajectory(
    path: Path, kind: str, topology: Path | None, units: str | None, types: Sequence[str] | None
) -> Source:
    """Open a trajectory of a known kind.

    Args:
        path: the file.
        kind: one of `TRAJECTORIES`.
        topology: elements for DCD and XTC.
        units: of LAMMPS, for dumps that do not say them.
        types: elements of LAMMPS' atom types.

    Raises:
        InputError: see the readers.
    """
    if kind == "traj":
        source = open_traj(path)
    elif kind == "extxyz":
        source = open_extxyz(path)
    elif kind == "hdf5":
        source = open_hdf5(path)
    elif kind == "lammps":
        source = open_dump(path, units, types)
    else:
        source = _with_topology(path, kind, topology)
    if not (np.all(source.numbers >= 1) and np.isfinite(source.masses).all() and np.all(source.masses > 0)):
        atom = int(np.argmax((source.numbers < 1) | ~(source.masses > 0)))
        raise InputError(f"trajectory '{path}': atom {atom} is a site without an element or mass; record without it.")
    return source


def _with_topology(path: Path, kind: str, topology: Path | None) -> Source:
    """A DCD or XTC, which know no elements."""
    if topology is None:
        raise InputError(f"trajectory '{path}' does not say its elements: add a PDB of the same atoms (the topology).")
    atoms = dcd.read_header(path).atoms if kind == "dcd" else xtc.count_atoms(path)
    read: Callable[[Path, list[str]], Iterator[Frame]] = dcd.frames if kind == "dcd" else xtc.frames
    numbers = read_topology(topology)
    if len(numbers) != atoms:
        raise InputError(f"trajectory '{path}' has {atoms} atoms and the topology '{topology}' {len(numbers)}.")
    notes: list[str] = []
    return Source(path, numbers, standard_masses(numbers), read(path, notes), notes)


def read_topology(path: Path) -> NDArray[np.int64]:
    """Atomic numbers, shape (n,), of a PDB or another topology that MDTraj reads.

    Raises:
        InputError: it cannot be read, or holds sites that are no atoms.
    """
    import mdtraj

    try:
        atoms = list(mdtraj.load_topology(str(path)).atoms)
        numbers = np.array([a.element.atomic_number for a in atoms], dtype=np.int64)
    except Exception as error:  # each format of MDTraj has errors of its own
        reason = " ".join(str(error).split())
        raise InputError(f"topology '{path}' cannot be read ({type(error).__name__}: {reason}).") from error
    if not len(numbers):
        raise InputError(f"topology '{path}' holds no atoms.")
    if np.any(numbers <= 0):
        site = int(np.argmax(numbers <= 0))
        raise InputError(f"topology '{path}': atom {site} has no element; give one, or record without virtual sites.")
    return numbers
