"""Reading a structure once, and refusing what no simulation could start from."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mlff_sim.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms

MIN_DISTANCE_A = 0.4
"""Two atoms closer than this are one spot: the shortest bond there is (H2) measures 0.74 A."""

SHIPPED = ("aspirin", "ethanol")
"""Names of the structures that come with the package, usable wherever a structure file is."""


def read_structures(spec: str) -> list[Atoms]:
    """Read `FILE` or `FILE@INDEX` with ASE, check every frame and return them.

    Args:
        spec: a path in any format ASE reads, or one of the shipped names ("aspirin", "ethanol"), optionally
            followed by `@` and a frame number or slice (`@0`, `@-1`, `@0:5`). Without one: the first frame.

    Raises:
        InputError: missing, empty or unreadable file, no such frame, NaN positions, coinciding atoms.
    """
    path, _, index = spec.partition("@")
    file = Path(path)
    if path in SHIPPED and not file.exists():
        file = Path(str(resources.files("mlff_sim") / "data" / "structures" / f"{path}.xyz"))
    if not file.is_file():
        raise InputError(
            f"structure file '{path}' does not exist; give a file ASE can read or one of: {', '.join(SHIPPED)}."
        )
    if file.stat().st_size == 0:
        raise InputError(f"structure file '{path}' is empty.")
    from ase.io import read

    try:
        frames = read(file, index=index or "0")
    except Exception as error:
        raise InputError(
            f"structure file '{path}': ASE cannot read frame '{index or 0}' ({type(error).__name__}: {error}).".replace(
                "\n", " "
            )
        ) from error
    frames = frames if isinstance(frames, list) else [frames]
    if not frames or any(len(f) == 0 for f in frames):
        raise InputError(f"structure file '{path}' has no atoms in frame '{index or 0}'.")
    for frame in frames:
        check_structure(frame, path)
    return frames


def read_structure(spec: str) -> Atoms:
    """Read exactly one checked frame; see `read_structures`."""
    frames = read_structures(spec)
    if len(frames) != 1:
        raise InputError(f"'{spec}' holds {len(frames)} frames and one is needed; choose one with @INDEX.")
    return frames[0]


def check_structure(atoms: Atoms, source: str = "structure") -> None:
    """Refuse NaN positions and coinciding atoms, naming the atoms (counted from 0).

    Raises:
        InputError: with what is wrong and where.
    """
    x = atoms.get_positions()
    bad = np.flatnonzero(~np.isfinite(x).all(axis=1))
    if bad.size:
        raise InputError(f"{source}: position of atom {bad[0]} ({atoms.symbols[bad[0]]}) is not a finite number.")
    if len(atoms) > 1:
        from ase.neighborlist import neighbor_list

        i, j, d = neighbor_list("ijd", atoms, MIN_DISTANCE_A)
        if len(d):
            k = int(np.argmin(d))
            raise InputError(
                f"{source}: atoms {i[k]} and {j[k]} are {d[k]:.3f} A apart, closer than any bond ({MIN_DISTANCE_A} A)."
            )


def covalent_bonds(atoms: Atoms) -> list[tuple[int, int]]:
    """Pairs (i, j), i < j, closer than 1.2 times the sum of their covalent radii (Cordero 2008, as in ASE)."""
    from ase.neighborlist import natural_cutoffs, neighbor_list

    i, j = neighbor_list("ij", atoms, natural_cutoffs(atoms, mult=1.2))
    return sorted({(int(a), int(b)) for a, b in zip(i, j, strict=True) if a < b})
