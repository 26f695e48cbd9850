"""Any ASE calculator as a force provider."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mlff_sim.errors import InputError
from mlff_sim.forces import Array, Evaluation

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

    def __call__(self, positions: Array, cell: Array | None = None, /) -> Evaluation:
        """Evaluate positions of shape (n, 3)."""
        self._atoms.set_positions(positions, apply_constraint=False)
        if cell is not None:
            self._atoms.set_cell(cell)
        forces = np.array(self._atoms.get_forces(apply_constraint=False), dtype=np.float64)
        return Evaluation(np.array(self._atoms.get_potential_energy(), dtype=np.float64), forces)

    def reset(self) -> None:
        """Start over with a fresh calculator, and so without whatever the old one remembered."""
        self._atoms.calc = self._factory()


def from_name(argument: str, atoms: Atoms) -> AseProvider:
    """Build `ase:package.module:factory`; the factory takes no argument and returns an ASE calculator.

    Raises:
        InputError: the module cannot be imported, or has no such callable.
    """
    module, _, attribute = argument.partition(":")
    if not module or not attribute:
        raise InputError(f"'ase:{argument}' is incomplete; write ase:package.module:factory.")
    try:
        factory = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise InputError(f"'ase:{argument}' cannot be loaded ({error}); is the module on the Python path?") from error
    if not callable(factory):
        raise InputError(f"'ase:{argument}' is no callable; it must take no argument and return an ASE calculator.")
    try:
        return AseProvider(atoms, factory, f"ase:{argument}")
    except Exception as error:
        raise InputError(
            f"'ase:{argument}' failed to build its calculator ({type(error).__name__}: {error}).".replace("\n", " ")
        ) from error
