"""Kohn-Sham density functional theory through PySCF, in process; molecules in vacuum.

Sun et al., J. Chem. Phys. 153, 024109 (2020), doi:10.1063/5.0006074. The forces hold the response of the integration
grid to the nuclei (Johnson, Gill & Pople, J. Chem. Phys. 98, 5612 (1993), doi:10.1063/1.464906), without which they
are no gradient of the energy that is computed: B3LYP/STO-3G water misses it by 0.1 meV/A and SCAN by far more, against
0.001 with it, the truncation of the difference. Forces of B3LYP/def2-SVP ethanol change by 0.8 meV/A, and their sum
goes from 0.3 meV/A to 0. It costs no time that could be measured.
"""

from __future__ import annotations

import importlib.metadata
import os
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlff_sim.errors import InputError, MissingExtra
from mlff_sim.forces import Array
from mlff_sim.models.self_consistent import SelfConsistent
from mlff_sim.units import BOHR, HARTREE

ENERGY_CHANGE, GRADIENT = 1e-9, 3e-7
"""Hartree; the SCF has converged when the last change of the energy and the norm of the orbital gradient are below.
Forces of B3LYP/def2-SVP ethanol are then within 0.0013 meV/A of the limit from any guess; at 1e-5, what PySCF takes
for this change, 0.028."""


class DFT(SelfConsistent):
    """A Kohn-Sham teacher bound to one molecule; restricted for multiplicity 1, unrestricted otherwise.

    Each replica's SCF starts from the replica's own last density, converged tightly enough that the result is a
    function of positions; `reset` drops these guesses.
    """

    def __init__(
        self, numbers: NDArray[np.int64], *, functional: str, basis: str, charge: int = 0, spin: int = 1
    ) -> None:
        """Bind to atomic numbers (n,), a total charge and a multiplicity `spin` = 2S + 1.

        Raises:
            InputError: a functional, basis or element PySCF does not know, or a multiplicity that does not fit.
        """
        # OpenMP reads this when the library loads; replicas side by side use more cores better than one molecule does.
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        try:
            from pyscf import dft, gto
        except ImportError as error:
            raise MissingExtra(f"the model 'dft:{functional}/{basis}' (pyscf)", "dft") from error
        self.name, self.functional, self.basis = f"dft:{functional}/{basis}", functional, basis
        self.numbers = np.asarray(numbers, dtype=np.int64)
        self._charge, self._spin = charge, spin
        electrons = int(self.numbers.sum()) - charge
        if electrons % 2 != (spin - 1) % 2:
            raise InputError(f"{electrons} electrons cannot have multiplicity {spin}; give a charge or spin that fits.")
        _check_functional(dft, functional)
        super().__init__()
        self._dft = dft
        orbitals, cores = _load_basis(gto, basis, self.numbers)
        apart = np.arange(3.0 * len(self.numbers)).reshape(-1, 3)
        self._molecule = gto.M(
            atom=[(int(z), x) for z, x in zip(self.numbers, apart, strict=True)],
            unit="Angstrom",
            basis=orbitals,
            ecp=cores,
            charge=charge,
            spin=spin - 1,
            verbose=0,
        )

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Functional, basis, convergence and library version."""
        return {
            "name": self.name,
            "library": f"pyscf {importlib.metadata.version('pyscf')}",
            "functional": self.functional,
            "basis": self.basis,
            "convergence": [ENERGY_CHANGE, GRADIENT],
            "charge": self._charge,
            "spin": self._spin,
        }

    def _converged(self, positions: Array, guess: Array | None) -> Any:
        """The solution of one geometry (n, 3) in A.

        A guess from far away can keep the SCF from converging: once more from scratch, with the second-order solver.

        Raises:
            RuntimeError: it did not converge then, either.
        """
        molecule = self._molecule.set_geom_(positions / BOHR, unit="Bohr", inplace=False)
        for second in (False, True):
            field = (self._dft.RKS if self._spin == 1 else self._dft.UKS)(molecule, xc=self.functional)
            field.chkfile = None
            if second:
                field = field.newton()
            field.conv_tol, field.conv_tol_grad = ENERGY_CHANGE, GRADIENT
            try:
                field.kernel(dm0=None if second else guess)
            except (np.linalg.LinAlgError, ValueError):  # overlapping atoms, or numbers that ran away
                continue
            if field.converged:
                return field
        raise RuntimeError(f"{self.name}: the SCF did not converge.")

    def _solve(self, slot: int, positions: Array, guess: Any) -> tuple[float, Array, Any]:
        field = self._converged(positions, guess)
        gradient = field.nuc_grad_method()
        gradient.grid_response = self._dft.libxc.xc_type(self.functional) != "HF"  # which has no grid
        density = field.make_rdm1()
        return float(field.e_tot) * HARTREE, -gradient.kernel() * (HARTREE / BOHR), density


def split(argument: str) -> tuple[str, str]:
    """Functional and basis of `FUNCTIONAL/BASIS`.

    Raises:
        InputError: one of them is missing.
    """
    functional, _, basis = (part.strip() for part in argument.partition("/"))
    if not functional or not basis:
        raise InputError(f"'dft:{argument}' should read dft:FUNCTIONAL/BASIS, e.g. dft:b3lyp/def2-svp.")
    return functional, basis


def _check_functional(dft: Any, functional: str) -> None:
    from pyscf.scf.dispersion import parse_dft

    try:
        _, _, dispersion = parse_dft(functional)
        nonlocal_correlation = dft.libxc.is_nlc(functional)
        dft.libxc.parse_xc(functional)
    except Exception as error:  # its parser has many ways to fail
        raise InputError(
            f"PySCF does not know the functional '{functional}' ({error}); give one of libxc, e.g. b3lyp or pbe0.".replace(
                "\n", " "
            )
        ) from error
    if dispersion or nonlocal_correlation:
        raise InputError(
            f"the functional '{functional}' has dispersion or non-local correlation added, which is not offered here; "
            "give one without, e.g. b3lyp, pbe0 or wb97x."
        )


def _load_basis(gto: Any, basis: str, numbers: NDArray[np.int64]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Shells and, where the basis comes with them, effective core potentials, by element."""
    from ase.data import chemical_symbols

    orbitals, cores = dict[str, Any](), dict[str, Any]()
    for symbol in sorted({chemical_symbols[z] for z in numbers}):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it advertises another package
            try:
                orbitals[symbol] = gto.basis.load(basis, symbol)
            except Exception as error:
                raise InputError(
                    f"PySCF has no basis '{basis}' for the element {symbol}; give one it has, e.g. def2-svp."
                ) from error
            try:
                core = gto.basis.load_ecp(basis, symbol)
            except Exception:  # most have none
                core = None
        if core:
            cores[symbol] = core
    return orbitals, cores
