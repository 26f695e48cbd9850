"""Any ASE calculator as a force provider."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.calculators.calculator import PropertyNotImplementedError

from mlff_sim.errors import InputError
from mlff_sim.forces import Array, Evaluation
from mlff_sim.models.factory import find

if TYPE_CHECKING:
    from ase import Atoms


class AseProvider:
    """Wraps an ASE calculator bound to one structure; replicas are looped over by the caller."""

    cutoff: float | None = None
    dtype = "float64"
    conservative = True
    batched = False

    def __init__(self, atoms: Atoms, factory: Callable[[], Any], name: str) -> None:
        """Bind to the species, cell, charge and spin of `atoms`; `factory()` returns a fresh calculator."""
        self.name, self._factory = name, factory
        self.numbers, self.pbc = atoms.numbers.astype(np.int64), tuple(atoms.pbc.tolist())
        self._atoms = atoms.copy()
        self._atoms.calc = factory()

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Where the calculator came from and its class."""
        kind = type(self._atoms.calc)
        return {"name": self.name, "calculator": f"{kind.__module__}.{kind.__qualname__}"}

    @property
    def folder(self) -> str | None:
        """Where a calculator that works through files does so; two at once need two folders. None for others."""
        from ase.calculators.calculator import FileIOCalculator
        from ase.calculators.genericfileio import GenericFileIOCalculator

        calc = self._atoms.calc
        if not isinstance(calc, FileIOCalculator | GenericFileIOCalculator):
            return None
        return str(Path(calc.directory).resolve())

    def __call__(self, positions: Array, cell: Array | None = None, /) -> Evaluation:
        """Evaluate positions of shape (n, 3) and, if periodic, a cell (3, 3).

        Stress is there if all is periodic and the calculator has it, energies by atom if they come with the forces.
        """
        self._atoms.set_positions(positions, apply_constraint=False)
        if cell is not None:
            self._atoms.set_cell(cell)
        forces = np.array(self._atoms.get_forces(apply_constraint=False), dtype=np.float64)
        energy = np.array(self._atoms.get_potential_energy(), dtype=np.float64)
        return Evaluation(energy, forces, self._stress(), self._energies())

    def _stress(self) -> Array | None:
        if not all(self.pbc) or "stress" not in getattr(self._atoms.calc, "implemented_properties", ()):
            return None
        try:
            return np.array(self._atoms.get_stress(apply_constraint=False), dtype=np.float64)
        except PropertyNotImplementedError:  # some have it for other settings than theirs
            return None

    def _energies(self) -> Array | None:
        """Energies by atom, only where no further evaluation is needed for them."""
        energies = getattr(self._atoms.calc, "results", {}).get("energies")
        return None if energies is None else np.array(energies, dtype=np.float64)

    def reset(self) -> None:
        """Start over with a fresh calculator, and so without whatever the old one remembered."""
        self._atoms.calc = self._factory()


def from_name(argument: str, atoms: Atoms) -> AseProvider:
    """Build `ase:package.module:factory` or `ase:file.py:factory`; the factory returns an ASE calculator.

    Raises:
        InputError: the module or file cannot be imported, or has no such callable, or the callable fails or returns
            something else.
    """
    factory = find("ase", argument, "an ASE calculator")
    try:
        provider = AseProvider(atoms, factory, f"ase:{argument}")
    except Exception as error:
        raise InputError(
            f"'ase:{argument}' failed to build its calculator ({type(error).__name__}: {error}).".replace("\n", " ")
        ) from error
    given = provider._atoms.calc
    if not all(hasattr(given, method) for method in ("get_forces", "get_potential_energy")):
        raise InputError(f"'ase:{argument}' gives an object of the class {type(given).__name__}, no ASE calculator.")
    return provider
