"""Reading a structure once, and refusing what no simulation could start from, or what a model does not know."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mlff_sim.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms

MIN_DISTANCE_A = 0.4
"""Two atoms closer than this are one spot: the shortest bond there is (H2) measures 0.74 A."""

MIN_VOLUME_A3 = 0.1
"""Less room for an atom is a mistake of units: diamond has 5.7, and a thousandth of that where a cell is in nm."""

SHIPPED = ("aspirin", "ethanol")
"""Names of the structures that come with the package, usable wherever a structure file is."""

SMILES = "smiles:"
"""What stands before a SMILES where a structure file could be."""


def read_structures(spec: str) -> list[Atoms]:
    """Read `FILE` or `FILE@INDEX` with ASE, or make `smiles:SMILES`, check every frame and return them.

    Args:
        spec: a path in any format ASE reads, or one of the shipped names ("aspirin", "ethanol"), optionally
            followed by `@` and a frame number or slice (`@0`, `@-1`, `@0:5`). Without one: the first frame.
            Or `smiles:` and a SMILES, see `mlff_sim.smiles`: one frame, made with RDKit.

    Raises:
        InputError: missing, empty or unreadable file, no such frame, NaN positions, coinciding atoms, a SMILES that
            makes no molecule.
    """
    if spec.startswith(SMILES):
        from mlff_sim.smiles import from_smiles

        made = from_smiles(spec.removeprefix(SMILES))
        check_structure(made, spec)
        return [made]
    path, _, index = spec.partition("@")
    file = Path(path)
    if path in SHIPPED and not file.exists():
        file = Path(str(resources.files("mlff_sim") / "data" / "structures" / f"{path}.xyz"))
    if not file.is_file():
        raise InputError(
            f"structure file '{path}' does not exist; give a file ASE can read, one of: {', '.join(SHIPPED)}; or, for a "
            f"molecule, '{SMILES}SMILES'."
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


def check_free(atoms: Atoms, source: str = "structure") -> None:
    """Refuse what dynamics of all atoms would pass over in silence: constraints, and sites that are no atoms.

    Raises:
        InputError: naming the kinds of constraints, or the first site (counted from 0).
    """
    if atoms.constraints:
        kinds = ", ".join(sorted({type(c).__name__ for c in atoms.constraints}))
        raise InputError(f"{source}: dynamics knows no constraints, and the atoms have {kinds}; remove them.")
    sites = np.flatnonzero(atoms.numbers == 0)
    if sites.size:
        raise InputError(f"{source}: atom {sites[0]} (X) is a virtual site, and dynamics knows atoms only; remove it.")


def check_cell(cell: NDArray[np.float64], pbc: Sequence[bool], n_atoms: int) -> None:
    """Refuse a cell (3, 3) that is missing along a periodic direction, not independent, or no room for its atoms.

    A cell that is smaller than a cutoff is no mistake, one in nm is: its neighbours would fill the memory.

    Raises:
        InputError: saying which.
    """
    vectors = cell[np.array(pbc)]
    if len(vectors) and np.linalg.matrix_rank(vectors, tol=1e-6) < len(vectors):
        raise InputError("the periodic cell vectors are zero or not independent; give one for each direction.")
    if all(pbc) and (volume := abs(float(np.linalg.det(cell)))) < MIN_VOLUME_A3 * n_atoms:
        raise InputError(
            f"the cell has a volume of {volume:.3g} A^3 for {n_atoms} atoms, less than {MIN_VOLUME_A3:g} for each; cell "
            "vectors are in A."
        )


def whole(value: Any, name: str, least: int | None = None) -> int:
    """A whole number of at least `least`: 1.0 is one, 0.5 is none.

    Raises:
        InputError: anything else; `name` says what was asked for.
    """
    number = None
    try:
        if abs(float(value) - round(float(value))) < 1e-6:
            number = round(float(value))
    except (TypeError, ValueError, OverflowError):
        pass
    if number is None or (least is not None and number < least):
        bound = "" if least is None else f" of at least {least}"
        raise InputError(f"{name} = {value!r} must be a whole number{bound}.")
    return number


def charge_and_spin(atoms: Atoms) -> tuple[int, int]:
    """Total charge in e and multiplicity 2S + 1 from `atoms.info["charge"]` and `["spin"]`; 0 and 1 where not given.

    Raises:
        InputError: no whole numbers, or more charge or unpaired electrons than these nuclei can have.
    """
    charge = whole(atoms.info.get("charge", 0), "charge")
    spin = whole(atoms.info.get("spin", 1), "spin", least=1)
    electrons = int(atoms.numbers.sum()) - charge
    formula = atoms.get_chemical_formula("hill")
    if electrons < 0:
        raise InputError(f"charge = {charge} is more than the nuclei of {formula} have, {electrons + charge}.")
    if spin > electrons + 1:
        raise InputError(f"spin = {spin} needs {spin - 1} unpaired electrons; {formula} has {electrons} in all.")
    return charge, spin


def repartitioned_masses(atoms: Atoms, bonds: Iterable[tuple[int, int]], hydrogen_mass: float) -> NDArray[np.float64]:
    """Masses in u, shape (n,), with each hydrogen at `hydrogen_mass`, taken from the atom it is bonded to.

    That is OpenMM's `hydrogenMass` (Feenstra, Hess & Berendsen, J. Comput. Chem. 20, 786 (1999),
    doi:10.1002/(SICI)1096-987X(199906)20:8<786::AID-JCC5>3.0.CO;2-B). Total mass is kept; a hydrogen with several
    heavier neighbours takes from the first, one with none stays what it is.

    Raises:
        InputError: no hydrogen has a heavier neighbour, or one of these would be left lighter than ordinary hydrogen.
    """
    from ase.data import atomic_masses

    masses: NDArray[np.float64] = atoms.get_masses()
    moved = set()
    for pair in bonds:
        heavy, h = sorted(pair, key=lambda i: atoms.numbers[i], reverse=True)
        if atoms.numbers[h] == 1 < atoms.numbers[heavy] and h not in moved:
            masses[heavy] -= hydrogen_mass - masses[h]
            masses[h] = hydrogen_mass
            moved.add(h)
            if masses[heavy] < atomic_masses[1]:
                raise InputError(
                    f"hydrogen_mass = {hydrogen_mass:g} u leaves {masses[heavy]:.3g} u or less to atom {heavy} "
                    f"({atoms.symbols[heavy]}), less than a hydrogen has; take less, 3 is usual."
                )
    if not moved:
        raise InputError(f"hydrogen_mass = {hydrogen_mass:g} needs X-H bonds to take from, and the atoms have none.")
    return masses


def per_atom(atoms: Atoms, value: float, by_element: Mapping[str, float], name: str) -> float | NDArray[np.float64]:
    """One value for all atoms, or, where some elements have their own, of each, shape (n,).

    Raises:
        InputError: the structure has no atom of a named element.
    """
    if not by_element:
        return value
    symbols = atoms.get_chemical_symbols()
    for element in by_element:
        if element not in symbols:
            raise InputError(f"{name} is given for {element}; the structure is {atoms.get_chemical_formula('hill')}.")
    return np.array([by_element.get(s, value) for s in symbols])


def check_elements(numbers: Sequence[int], known: Sequence[int], source: str) -> None:
    """Refuse atoms of elements that a model was not made for.

    Args:
        numbers: atomic numbers of the structure.
        known: atomic numbers the model knows.
        source: the model, in the caller's words.

    Raises:
        InputError: naming the first unknown element and listing the known ones.
    """
    from ase.data import chemical_symbols

    for z in map(int, numbers):
        if z not in known:
            raise InputError(f"{source} does not know the element {chemical_symbols[z]}; it knows {_listed(known)}.")


def _listed(numbers: Sequence[int]) -> str:
    """Symbols of atomic numbers, four and more in a row as "H to Ne"."""
    from ase.data import chemical_symbols

    words = []
    for _, row in groupby(enumerate(sorted(map(int, numbers))), lambda pair: pair[1] - pair[0]):
        symbols = [chemical_symbols[z] for _, z in row]
        words += [f"{symbols[0]} to {symbols[-1]}"] if len(symbols) > 3 else symbols
    return ", ".join(words)


def check_species(numbers: Iterable[int], atoms: Atoms, model: str) -> None:
    """Refuse a model that is bound to another molecule, or to the same one with another order of atoms.

    Raises:
        InputError: naming both formulas, or the first atom out of order.
    """
    from ase.formula import Formula
    from ase.symbols import Symbols

    mine, given = list(map(int, numbers)), atoms.numbers.tolist()
    if mine == given:
        return
    trained = str(Formula(str(Symbols(mine))).convert("hill"))
    if sorted(mine) != sorted(given):
        raise InputError(f"{model} is for {trained}; the structure is {atoms.get_chemical_formula('hill')}.")
    k = next(i for i, (a, b) in enumerate(zip(mine, given, strict=True)) if a != b)
    raise InputError(
        f"{model} is for {trained} in another atom order: "
        f"its atom {k} is {Symbols(mine)[k]}, the structure's is {atoms.symbols[k]}; reorder it to {Symbols(mine)}."
    )


def covalent_bonds(atoms: Atoms) -> list[tuple[int, int]]:
    """Pairs (i, j), i < j, closer than 1.2 times the sum of their covalent radii (Cordero 2008, as in ASE)."""
    from ase.neighborlist import natural_cutoffs, neighbor_list

    i, j = neighbor_list("ij", atoms, natural_cutoffs(atoms, mult=1.2))
    return sorted({(int(a), int(b)) for a, b in zip(i, j, strict=True) if a < b})
