"""The HDF5 files of MDTraj (mdtraj.org/1.9.8/hdf5_format.html), which its reporter for OpenMM writes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlff_sim.errors import InputError
from mlff_sim.trajectory.frame import Frame, Source, cell_from_lengths, in_double, standard_masses
from mlff_sim.units import KCAL_PER_MOL, KJ_PER_MOL, NM, PS

UNITS = {
    "nanometers": NM,
    "nanometer": NM,
    "angstroms": 1.0,
    "angstrom": 1.0,
    "degrees": 1.0,
    "picoseconds": 1.0,
    "picosecond": 1.0,
    "femtoseconds": 1e-3,
    "nanometers/picosecond": NM / PS,
    "angstroms/picosecond": 1.0 / PS,
    "kilojoules_per_mole": KJ_PER_MOL,
    "kilocalories_per_mole": KCAL_PER_MOL,
}
"""To A, degrees, ps, velocities of this package, and eV."""
ENERGIES = {"potential_energy": "potentialEnergy", "kinetic_energy": "kineticEnergy"}
NUMBERS_AT_ONCE = 500_000
"""Coordinates read at a time, 4 MB."""


def open_hdf5(path: Path) -> Source:
    """Positions, velocities, times, energies and cell lengths, each where the file has it, by the units it says.

    It is read with h5py alone: MDTraj itself asks for PyTables.

    Raises:
        InputError: not such a file, truncated, without a topology, or units that are not known.
    """
    import h5py

    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise InputError(f"trajectory '{path}' is truncated or no HDF5 file; copy or record it again.") from error
    try:
        frames, scale, numbers, notes = _look(path, file)
    except Exception as error:
        file.close()
        if isinstance(error, InputError):
            raise
        # Damage shows in many ways, by where it is.
        raise InputError(
            f"trajectory '{path}' is damaged ({type(error).__name__}); copy or record it again."
        ) from error
    return Source(path, numbers, standard_masses(numbers), _frames(path, file, frames, scale, numbers), notes)


def _look(path: Path, file: Any) -> tuple[int, dict[str, float], NDArray[np.int64], list[str]]:
    """Frames, the unit of each array, atomic numbers and notes."""
    if "coordinates" not in file:
        raise InputError(f"'{path}' holds no coordinates: it was not written by MDTraj.")
    numbers = _numbers(path, file)
    names = [n for n in ("coordinates", "time", "velocities", *ENERGIES.values(), "cell_lengths") if n in file]
    scale = {name: _scale(path, file[name], name) for name in names}
    frames = min(len(file[name]) for name in names)
    if file["coordinates"].shape[1:] != (len(numbers), 3):
        raise InputError(
            f"trajectory '{path}': coordinates {file['coordinates'].shape} for {len(numbers)} atoms of its topology."
        )
    if not frames:
        raise InputError(f"trajectory '{path}' holds no frame.")
    notes: list[str] = []
    if frames < (longest := max(len(file[name]) for name in names)):
        notes.append(f"'{path.name}' is incomplete: {frames} of {longest} frames have all their parts and were used.")
    return frames, scale, numbers, notes


def _numbers(path: Path, file: Any) -> NDArray[np.int64]:
    """Atomic numbers in the order of the topology's atoms."""
    from ase.data import atomic_numbers

    if "topology" not in file:
        raise InputError(f"trajectory '{path}' has no topology: save it with one, mdtraj.Trajectory.save_hdf5 does.")
    try:
        text = file["topology"][0]
        topology = json.loads(text.decode() if isinstance(text, bytes) else str(text))
        atoms = [a for chain in topology["chains"] for residue in chain["residues"] for a in residue["atoms"]]
        atoms.sort(key=lambda a: a["index"])
        return np.array([atomic_numbers[a["element"].capitalize()] for a in atoms], dtype=np.int64)
    except (ValueError, KeyError, IndexError, TypeError, OSError) as error:
        raise InputError(
            f"trajectory '{path}': its topology cannot be read ({type(error).__name__}: {error}); atoms need elements."
        ) from error


def _scale(path: Path, data: Any, name: str) -> float:
    """What a number of the file is here."""
    written = data.attrs.get("units")
    word = written.decode() if isinstance(written, bytes) else str(written)
    if word not in UNITS:
        raise InputError(f"trajectory '{path}': the unit of its {name} is {word}, which is not known.")
    return UNITS[word]


def _frames(path: Path, file: Any, frames: int, scale: dict[str, float], numbers: NDArray[np.int64]) -> Iterator[Frame]:
    masses = standard_masses(numbers)[:, None]
    with file:
        some = max(1, NUMBERS_AT_ONCE // (3 * len(numbers)))
        for start in range(0, frames, some):
            rows = slice(start, min(start + some, frames))
            try:
                part = {name: in_double(file[name][rows]) * k for name, k in scale.items()}
                angles = in_double(file["cell_angles"][rows]) if "cell_lengths" in scale else None
            except Exception as error:  # the same
                raise InputError(
                    f"trajectory '{path}' is damaged after frame {start} ({type(error).__name__}); copy or record it again."
                ) from error
            for i, x in enumerate(part["coordinates"]):
                scalars = {name: float(part[own][i]) for name, own in ENERGIES.items() if own in part}
                if "time" in part:
                    scalars["time_ps"] = float(part["time"][i])
                momenta = part["velocities"][i] * masses if "velocities" in part else None
                cell = cell_from_lengths(part["cell_lengths"][i], angles[i]) if angles is not None else None
                yield Frame(x, momenta, cell, scalars)
