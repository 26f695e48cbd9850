"""Molecules from SMILES: hydrogens, conformers, and of these the one that MMFF94 likes best.

Embedding is ETKDGv3 (Wang, Witek, Landrum & Riniker, J. Chem. Inf. Model. 60, 2044 (2020),
doi:10.1021/acs.jcim.0c00025), in RDKit.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from mlff_sim.errors import InputError, MissingExtra

if TYPE_CHECKING:
    from ase import Atoms

CONFORMERS = 10
"""Of which the lowest is taken."""
SEED = 1
"""Of the embedding: the same SMILES is the same geometry at every start."""
ITERATIONS = 10_000
"""Allowed to a minimisation; a molecule of 50 atoms takes some hundred."""
SAME_DIGITS = 3
"""Of an energy in kcal/mol: conformers that agree so far are one, so that rounding does not choose between them."""


def from_smiles(smiles: str) -> Atoms:
    """The molecule of a SMILES with its hydrogens, in the lowest of ten minima of MMFF94.

    Atoms come in the order of the SMILES, its implicit hydrogens last; isotopes have their masses. The charge is in
    `info["charge"]`, the SMILES in `info["smiles"]`. A stereocentre that the SMILES leaves open is settled by energy.

    Raises:
        InputError: no SMILES, several molecules, a radical, elements MMFF94 does not know, no geometry found.
        MissingExtra: RDKit is not installed.
    """
    made: Atoms = _embedded(smiles.strip()).copy()
    return made


@lru_cache(maxsize=16)
def _embedded(smiles: str) -> Atoms:
    try:
        from rdkit import Chem, rdBase
        from rdkit.Chem import rdDistGeom, rdForceFieldHelpers
    except ImportError:
        raise MissingExtra(f"the structure 'smiles:{smiles}' (rdkit)", "mmff") from None
    with rdBase.BlockLogs():  # what it says in many lines is said in one here
        molecule = _checked(smiles, Chem)
        if not rdForceFieldHelpers.MMFFHasAllMoleculeParams(molecule):
            raise InputError(
                f"'smiles:{smiles}': MMFF94, which finds the geometry, has no parameters for this molecule; give a file "
                "with its structure."
            )
        parameters: Any = rdDistGeom.ETKDGv3()
        parameters.randomSeed = SEED
        found = list(rdDistGeom.EmbedMultipleConfs(molecule, CONFORMERS, parameters))
        if not found:
            raise InputError(
                f"'smiles:{smiles}' has no geometry that RDKit can find; check rings and stereocentres, or give a file "
                "with its structure."
            )
        minima = rdForceFieldHelpers.MMFFOptimizeMoleculeConfs(molecule, maxIters=ITERATIONS)
    lowest = min(range(len(found)), key=lambda k: round(minima[k][1], SAME_DIGITS))
    return _as_atoms(molecule, molecule.GetConformer(found[lowest]).GetPositions(), Chem, smiles)


def _checked(smiles: str, chem: Any) -> Any:
    """The molecule with explicit hydrogens."""
    # RDKit takes what follows a blank for a name, and nothing for a molecule without atoms.
    molecule = chem.MolFromSmiles(smiles) if len(smiles.split()) == 1 else None
    if molecule is None or not molecule.GetNumAtoms():
        raise InputError(f"'smiles:{smiles}' is no SMILES that RDKit can read; write one such as 'smiles:CC(C)CO'.")
    if len(chem.GetMolFrags(molecule)) > 1:
        raise InputError(f"'smiles:{smiles}' holds several molecules; give one, or a file with the structure of all.")
    for atom in molecule.GetAtoms():
        if not atom.GetAtomicNum():
            raise InputError(f"'smiles:{smiles}': atom {atom.GetIdx()} (*) is no element.")
        if atom.GetNumRadicalElectrons():
            raise InputError(
                f"'smiles:{smiles}' is a radical at atom {atom.GetIdx()} ({atom.GetSymbol()}), which MMFF94 cannot "
                "describe; give a file with its structure."
            )
    return chem.AddHs(molecule)


def _as_atoms(molecule: Any, positions: Any, chem: Any, smiles: str) -> Atoms:
    from ase import Atoms

    atoms = Atoms([atom.GetAtomicNum() for atom in molecule.GetAtoms()], positions)
    isotopes = [atom.GetMass() if atom.GetIsotope() else None for atom in molecule.GetAtoms()]
    if any(isotopes):
        atoms.set_masses(isotopes)
    atoms.info.update(charge=chem.GetFormalCharge(molecule), smiles=smiles)
    return atoms
