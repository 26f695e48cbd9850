"""MMFF94 through RDKit: a classical force field, for molecules that keep their bonds.

Halgren, J. Comput. Chem. 17, 490 (1996), doi:10.1002/(SICI)1096-987X(199604)17:5/6<490::AID-JCC1>3.0.CO;2-P; as
implemented by Tosco, Stiefl & Landrum, J. Cheminform. 6, 37 (2014), doi:10.1186/s13321-014-0037-3. Bonds are read off
a geometry as Kim & Kim do, Bull. Korean Chem. Soc. 36, 1769 (2015), doi:10.1002/bkcs.10334.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mlff_sim.errors import InputError, MissingExtra
from mlff_sim.forces import Array, Evaluation
from mlff_sim.structure import charge_and_spin, check_elements
from mlff_sim.units import KCAL_PER_MOL

if TYPE_CHECKING:
    from ase import Atoms

KNOWN = (1, 3, 6, 7, 8, 9, 11, 12, 14, 15, 16, 17, 19, 20, 26, 29, 30, 35, 53)
"""Elements that MMFF94 has types for; metals as bare ions."""
EVERYWHERE = 1e9
"""A, the cutoff given to RDKit: it drops pairs that are further apart when the field is built, so none may be."""


class MMFF:
    """MMFF94 bound to one molecule, or several, whose bonds and atom types are read off the structure once.

    They stay: the energy goes on as if atoms were bonded however far they are drawn apart, and like atoms can be
    exchanged only where the bonds allow it. Where resonance would share a charge among atoms that MMFF94 has no common
    type for, it stays with one of them.
    """

    name = "mmff"
    cutoff: float | None = None
    dtype = "float64"
    conservative = True
    batched = True

    def __init__(self, atoms: Atoms) -> None:
        """Bind to elements, charge and bonds of `atoms`.

        Raises:
            InputError: a periodic structure, a single atom, a radical or open shell, an element or atom without a type,
                bonds that cannot be made out.
            MissingExtra: RDKit is not installed.
        """
        try:
            from rdkit import Chem, ForceField, rdBase  # noqa: F401 - older releases return no field without ForceField
            from rdkit.Chem import rdForceFieldHelpers
        except ImportError as error:
            raise MissingExtra("the model 'mmff' (rdkit)", "mmff") from error
        self.numbers = atoms.numbers.astype(np.int64)
        self._charge = _closed_shell(atoms)
        with rdBase.BlockLogs():  # what it says in many lines is said in one here
            self._molecule = _perceived(atoms, self._charge)
            self._smiles = Chem.MolToSmiles(Chem.RemoveHs(self._molecule))
            types = rdForceFieldHelpers.MMFFGetMoleculeProperties(self._molecule)
            field = types and rdForceFieldHelpers.MMFFGetMoleculeForceField(
                self._molecule, types, nonBondedThresh=EVERYWHERE, ignoreInterfragInteractions=False
            )
        if field is None:
            raise InputError(
                f"MMFF94 has no types or parameters for {self._smiles}, as the bonds of the structure read; use another "
                "model."
            )
        self._field = field

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Variant, library, charge, and the bonds that were made out, as SMILES."""
        return {
            "name": self.name,
            "variant": "MMFF94",
            "library": f"rdkit {importlib.metadata.version('rdkit')}",
            "charge": self._charge,
            "smiles": self._smiles,
        }

    def __call__(self, positions: Array, cell: Array | None = None, /) -> Evaluation:
        """Evaluate positions (n, 3) or (replicas, n, 3) of a molecule in vacuum."""
        if positions.ndim == 2:
            energy, forces = self._single(positions)
            return Evaluation(np.array(energy), forces)
        results = [self._single(x) for x in positions]
        return Evaluation(np.array([e for e, _ in results]), np.stack([f for _, f in results]))

    def _single(self, positions: Array) -> tuple[float, Array]:
        # The energy first, and of a list: that is when RDKit measures distances, which the gradient takes as they are.
        x = positions.ravel().tolist()
        energy = self._field.CalcEnergy(x) * KCAL_PER_MOL
        return energy, np.array(self._field.CalcGrad(x)).reshape(-1, 3) * -KCAL_PER_MOL

    def reset(self) -> None:
        """Nothing to forget: a pure function."""


def _closed_shell(atoms: Atoms) -> int:
    """The charge of what MMFF94 may be able to describe, in e.

    Raises:
        InputError: what it cannot, whatever the bonds are.
    """
    formula = atoms.get_chemical_formula("hill")
    if atoms.pbc.any():
        raise InputError("'mmff' is offered for molecules in vacuum here; the structure is periodic.")
    if len(atoms) == 1:
        raise InputError(f"'mmff' is for molecules; the structure is a single atom, {formula}.")
    check_elements(atoms.numbers.tolist(), KNOWN, "MMFF94")
    charge, spin = charge_and_spin(atoms)
    electrons = int(atoms.numbers.sum()) - charge
    if spin != 1 or electrons % 2:
        raise InputError(
            f"MMFF94 describes closed shells only; {formula} with charge = {charge}, spin = {spin} has {electrons} "
            "electrons. Give a charge or spin that fits, or use another model."
        )
    return charge


def _perceived(atoms: Atoms, charge: int) -> Any:
    """The RDKit molecule with bonds, bond orders and formal charges that fit the geometry and the total charge.

    Raises:
        InputError: there are none, or only with unpaired electrons.
    """
    from rdkit import Chem
    from rdkit.Chem import rdDetermineBonds

    molecule = Chem.RWMol()
    for z in atoms.numbers:
        atom = Chem.Atom(int(z))
        atom.SetNoImplicit(True)
        molecule.AddAtom(atom)
    conformer = Chem.Conformer(len(atoms))
    conformer.SetPositions(np.ascontiguousarray(atoms.get_positions(), dtype=np.float64))
    molecule.AddConformer(conformer)
    fits = True
    try:
        rdDetermineBonds.DetermineBonds(molecule, charge=charge)
        _sulfoxides(molecule, Chem)
    except (ValueError, RuntimeError):
        fits = False
    if not fits or any(atom.GetNumRadicalElectrons() for atom in molecule.GetAtoms()):
        raise InputError(
            f"no bonds of {atoms.get_chemical_formula('hill')} with charge = {charge} could be made out in which all "
            "electrons are paired, as MMFF94 needs; check geometry and charge, or use another model."
        )
    return molecule


def _sulfoxides(molecule: Any, chem: Any) -> None:
    """S=O for S(+)-O(-): MMFF94 types sulfoxides as double bonds, and would take the other for something else."""
    for bond in molecule.GetBonds():
        oxygen, sulfur = sorted((bond.GetBeginAtom(), bond.GetEndAtom()), key=lambda atom: atom.GetAtomicNum())
        found = [(atom.GetAtomicNum(), atom.GetFormalCharge()) for atom in (oxygen, sulfur)]
        if found == [(8, -1), (16, 1)]:
            bond.SetBondType(chem.BondType.DOUBLE)
            oxygen.SetFormalCharge(0)
            sulfur.SetFormalCharge(0)
    chem.SanitizeMol(molecule)
