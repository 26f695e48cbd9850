"""GFN1-xTB and GFN2-xTB through tblite, in process.

Bannwarth, Ehlert & Grimme, J. Chem. Theory Comput. 15, 1652 (2019), doi:10.1021/acs.jctc.8b01176 (GFN2);
Grimme, Bannwarth & Shushkov, J. Chem. Theory Comput. 13, 1989 (2017), doi:10.1021/acs.jctc.7b00118 (GFN1).
"""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from mlff_sim.errors import InputError, MissingExtra
from mlff_sim.forces import Array
from mlff_sim.models.self_consistent import SelfConsistent
from mlff_sim.units import BOHR, HARTREE

ACCURACY = 0.01
"""Convergence factor of the SCF. At 1.0 a warm-started force depends on its history by 0.1-0.2 meV/A and the
all-teacher trajectory drifts by -0.16 meV/atom/ps; at 0.01 the dependence is 0.002 meV/A and the drift is gone."""


class XTB(SelfConsistent):
    """A tight-binding teacher bound to one molecule.

    Each replica's SCF starts from the replica's own last solution, converged tightly enough that the result is
    a function of positions; `reset` drops these guesses.
    """

    def __init__(
        self, numbers: Array, *, method: str = "GFN2-xTB", charge: int = 0, spin: int = 1, accuracy: float = ACCURACY
    ) -> None:
        """Bind to atomic numbers (n,), a total charge and a multiplicity `spin` = 2S + 1."""
        super().__init__()
        # OpenMP reads this when the library loads; a 20-atom molecule is faster on one thread.
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        try:
            from tblite import interface
        except ImportError as error:
            raise MissingExtra(f"the model '{method.lower()}' (tblite)", "xtb") from error
        self._interface = interface
        self.name, self.method = method.lower(), method
        self.numbers = np.asarray(numbers, dtype=np.int64)
        self._charge, self._uhf, self.accuracy = charge, spin - 1, float(accuracy)
        electrons = int(self.numbers.sum()) - charge
        if electrons % 2 != self._uhf % 2:
            raise InputError(f"{electrons} electrons cannot have multiplicity {spin}; give a charge or spin that fits.")
        self._slots: list[Any] = []
        self._calculator(np.arange(3.0 * len(self.numbers)).reshape(-1, 3))  # an unsupported element shows here

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Method, convergence and library version."""
        return {
            "name": self.name,
            "library": f"tblite {importlib.metadata.version('tblite')}",
            "accuracy": self.accuracy,
            "charge": self._charge,
            "spin": self._uhf + 1,
        }

    def _calculator(self, positions: Array) -> Any:
        try:
            calculator = self._interface.Calculator(
                self.method, self.numbers, positions / BOHR, self._charge, self._uhf
            )
        except Exception as error:
            from ase.data import chemical_symbols

            symbols = ", ".join(sorted({chemical_symbols[z] for z in self.numbers}))
            raise InputError(
                f"{self.method} cannot be set up for the elements {symbols}: {str(error).strip()}".replace("\n", " ")
            ) from error
        calculator.set("verbosity", 0)
        calculator.set("accuracy", self.accuracy)
        return calculator

    def _solve(self, slot: int, positions: Array, guess: Any) -> tuple[float, Array, Any]:
        while len(self._slots) <= slot:
            self._slots.append(self._calculator(positions))
        calculator = self._slots[slot]
        calculator.update(positions / BOHR)
        try:
            result = calculator.singlepoint(guess)
        except RuntimeError:  # a guess from far away can keep the SCF from converging: once more from scratch
            result = calculator.singlepoint()
        return result.get("energy") * HARTREE, -result.get("gradient") * (HARTREE / BOHR), result
