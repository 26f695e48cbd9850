"""MMFF94: published energies, its terms by hand, laws of a fixed topology, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from scipy.optimize import minimize

from mlff_sim.errors import InputError
from mlff_sim.forces import Array, ForceProvider, check_provider
from mlff_sim.models.registry import load_model
from mlff_sim.smiles import from_smiles
from mlff_sim.structure import read_structure
from mlff_sim.units import KCAL_PER_MOL

SUITE = {
    "CYANAM01": ("NC#N", -36.48458),
    "CILWUP11": ("c1cnnnc1", 0.68501),
    "CAFORM07": ("[O-]C=O", 0.01281),
    "DESYOP": ("C=C(N)C#N", 26.36674),
    "AR14A": ("c1cocn1", 5.70458),
    "NO03A": ("CN=O", -0.17492),
    "NC10A": ("C[NH+]=C", 9.82297),
    "SO18A": ("CS(=S)[O-]", 2.10304),
    "AN11A": ("c1nn[n-]n1", -5.70232),
    "PR02A": ("CP", 0.18897),
    "HL13A": ("C=CF", 0.88660),
}
"""Energies in kcal/mol at the minimum, of molecules that have one, from the MMFF94 validation suite (Halgren 1998,
MMFF94.energies; described in J. Comput. Chem. 17, 490 (1996)). Charges and aromatic rings, sulfur and phosphorus."""
AGREEMENT = 1e-4
"""kcal/mol: what the suite's two programs, OPTIMOL and BatchMin, are held to there."""


def moved(atoms: Atoms, by: float = 0.03, seed: int = 4) -> Array:
    """Positions off the minimum, by a random displacement of each coordinate in A."""
    x: Array = atoms.get_positions() + by * np.random.default_rng(seed).standard_normal((len(atoms), 3))
    return x


def minimum(model: ForceProvider, x: Array) -> tuple[float, Array]:
    """Energy in kcal/mol and positions of the minimum next to x, along the model's own forces."""

    def fun(flat: Array) -> tuple[float, Array]:
        answer = model(flat.reshape(-1, 3))
        return float(answer.energy), -answer.forces.ravel()

    found = minimize(fun, x.ravel(), jac=True, method="BFGS", options={"gtol": 1e-6, "maxiter": 2000})
    assert np.abs(found.jac).max() < 1e-4
    return float(found.fun) / KCAL_PER_MOL, found.x.reshape(-1, 3)


@pytest.mark.parametrize("case", SUITE)
def test_minima_of_the_validation_suite(case: str) -> None:
    """Types, charges and parameters from a geometry alone: from a displaced one down to the published energy."""
    smiles, published = SUITE[case]
    atoms = from_smiles(smiles)
    energy, _ = minimum(load_model("mmff", atoms), moved(atoms))
    assert energy == pytest.approx(published, abs=AGREEMENT)


@pytest.mark.parametrize(
    ("case", "other", "charge", "published"),
    [
        ("CLMW1", Atoms("Cl", positions=[[0.0, 0.9, -2.6]]), -1, -14.30054),
        ("H3OPW1", Atoms("OH3", [[2.6, 0, 0.3], [1.9, 0, 0.3], [3, 0.8, 0.3], [3, -0.8, 0.3]]), 1, -28.28397),
    ],
)
def test_molecules_see_each_other(case: str, other: Atoms, charge: int, published: float) -> None:
    """Water and an ion, of the same suite: all of the energy lies between two molecules."""
    atoms = molecule("H2O") + other
    atoms.info["charge"] = charge
    energy, _ = minimum(load_model("mmff", atoms), atoms.get_positions())
    assert energy == pytest.approx(published, abs=AGREEMENT)


def test_the_terms_of_water_by_hand() -> None:
    """Stretches, bend and their coupling of a distorted water, which has no other terms.

    Equations 2, 3 and 5 of J. Comput. Chem. 17, 490 (1996), in mdyn, A and rad, with the parameters of types 70
    (oxygen of water) and 31; 143.9325 kcal/mol are one mdyn A.
    """
    k, r0, k_bend, bend0, k_both = 7.880, 0.969, 0.658, np.radians(103.978), 0.210
    x = moved(molecule("H2O"), 0.1)
    a, b = x[1] - x[0], x[2] - x[0]
    d = np.array([np.linalg.norm(a), np.linalg.norm(b)]) - r0
    t = np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) - bend0
    stretches = (0.5 * k * d**2 * (1 - 2 * d + 7 / 12 * (2 * d) ** 2)).sum()
    expected = 143.9325 * (stretches + 0.5 * k_bend * t**2 * (1 - 0.4 * t) + k_both * d.sum() * t)
    answer = load_model("mmff", molecule("H2O"))(x)
    assert expected > 1.0
    assert float(answer.energy) / KCAL_PER_MOL == pytest.approx(expected, rel=1e-9)


def test_energy_and_forces_are_of_the_positions_given(ethanol: Atoms) -> None:
    """Whatever was asked before: RDKit keeps distances from one call to the next."""
    model, (x, y) = load_model("mmff", ethanol), (moved(ethanol, seed=1), moved(ethanol, seed=2))
    first = model(x)
    model(y)
    again = load_model("mmff", ethanol)(x)
    for answer in (model(x), again):
        assert answer.energy == first.energy and np.array_equal(answer.forces, first.forces)
    both = model(np.stack([y, x]))
    assert both.energy[1] == first.energy and np.array_equal(both.forces[1], first.forces)


def test_like_atoms_can_be_exchanged_where_the_bonds_allow_it() -> None:
    """Hydrogens of the methyl group of methanol, and not one of them with that of the hydroxyl."""
    atoms = from_smiles("CO")
    assert atoms.get_chemical_symbols() == ["C", "O", "H", "H", "H", "H"]
    model, x = load_model("mmff", atoms), moved(atoms)
    forces = model(x).forces
    for order, like in (([0, 1, 3, 2, 4, 5], True), ([0, 1, 5, 3, 4, 2], False)):
        assert bool(np.abs(model(x[order]).forces - forces[order]).max() < 1e-9) is like


def test_no_pair_is_left_out_for_its_distance() -> None:
    """Bound 300 A apart and then brought together: the same as bound together. By default RDKit drops pairs beyond 100 A."""
    near = molecule("H2O") + Atoms("Cl", positions=[[0.0, 0.9, -2.6]])
    near.info["charge"] = -1
    far = near.copy()
    far.positions[3] += [0, 0, -300.0]
    x = near.get_positions()
    ours, theirs = load_model("mmff", far)(x), load_model("mmff", near)(x)
    assert ours.energy == theirs.energy and np.array_equal(ours.forces, theirs.forces)
    apart = load_model("mmff", far)(far.get_positions())
    assert np.abs(apart.forces[3]).max() > 0, "charge and dipole at 300 A"


def test_bonds_stay_what_they_were() -> None:
    """Drawn to three times its length the O-H bond still pulls; what is bound there is refused: it reads as ions."""
    atoms = from_smiles("CO")
    model = load_model("mmff", atoms)
    atoms.set_distance(1, 5, 3.0, fix=0)
    along = atoms.positions[5] - atoms.positions[1]
    assert model(atoms.get_positions()).forces[5] @ along < 0
    with pytest.raises(
        InputError, match=r"no types or parameters for C\[O-\]\.\[H\+\], as the bonds of the structure read"
    ):
        load_model("mmff", atoms)


GROUPS = (
    "CS(C)=O", "CS(C)(=O)=O", "CC(=O)[O-]", "[NH3+]CC(=O)[O-]", "NC(N)=[NH2+]", "C[N+](=O)[O-]", "CN=[N+]=[N-]", "S=C=S",
    "COP(=O)([O-])OC", "c1c[nH]c[nH+]1", "Cn1cnc2c1c(=O)n(C)c(=O)n2C", "CC(=O)Nc1ccc(O)cc1", "C[N+](C)(C)[O-]", "CC(N)=S",
    "[O-]Cl(=O)(=O)=O", "O=C1C=CC(=O)C=C1",
)  # fmt: skip


@pytest.mark.parametrize("smiles", GROUPS)
def test_bonds_and_types_are_those_of_the_smiles(smiles: str) -> None:
    """Read off the geometry, they give the energy that RDKit gives for the bonds the SMILES says."""
    from rdkit import Chem, ForceField  # noqa: F401
    from rdkit.Chem import rdForceFieldHelpers

    atoms = from_smiles(smiles)
    known = Chem.AddHs(Chem.MolFromSmiles(smiles))
    conformer = Chem.Conformer(len(atoms))
    conformer.SetPositions(atoms.get_positions())
    known.AddConformer(conformer)
    types = rdForceFieldHelpers.MMFFGetMoleculeProperties(known)
    expected = rdForceFieldHelpers.MMFFGetMoleculeForceField(known, types).CalcEnergy()
    model = load_model("mmff", atoms)
    assert float(model(atoms.get_positions()).energy) / KCAL_PER_MOL == pytest.approx(expected, abs=1e-8)
    assert check_provider(model, moved(atoms)).failures == []


def test_what_it_says_of_itself() -> None:
    model = load_model("mmff", from_smiles("CC(=O)[O-]"))
    said = model.provenance
    assert (said["variant"], said["charge"], said["smiles"]) == ("MMFF94", -1, "CC(=O)[O-]")
    assert said["library"].startswith("rdkit ")


def with_info(name: str, **info: int) -> Callable[[], Atoms]:
    def make() -> Atoms:
        atoms = molecule(name)
        atoms.info.update(info)
        return atoms

    return make


MISTAKES: dict[str, tuple[Callable[[], Atoms], str]] = {
    "periodic": (lambda: molecule("H2O", cell=[9.0] * 3, pbc=True), "in vacuum here; the structure is periodic"),
    "atom": (lambda: Atoms("Cl"), "the structure is a single atom, Cl"),
    "element": (lambda: molecule("BF3"), "MMFF94 does not know the element B; it knows H, Li, C to F"),
    "radical": (lambda: molecule("CH3"), "closed shells only; CH3 with charge = 0, spin = 1 has 9 electrons"),
    "charge": (with_info("H2O", charge=1), "closed shells only; H2O with charge = 1, spin = 1 has 9 electrons"),
    "triplet": (with_info("CH4", spin=3), "closed shells only; CH4 with charge = 0, spin = 3"),
    "carbene": (lambda: molecule("CH2_s1A1d"), "no bonds of CH2 with charge = 0 could be made out"),
    "bonds": (lambda: molecule("NaCl"), "no bonds of ClNa with charge = 0 could be made out"),
    "wrong-charge": (with_info("CH4", charge=2), "no bonds of CH4 with charge = 2 could be made out"),
    "far": (lambda: Atoms("OH2", [[0, 0, 0], [0, 0, 4], [0, 4, 0]]), "no bonds of H2O with charge = 0"),
    "ions": (
        lambda: Atoms("OH2", [[0, 0, 0], [0.96, 0, 0], [-0.3, 0.9, 3]]),
        r"for \[H\+\]\.\[OH-\], as the bonds of the",
    ),
    "type": (lambda: molecule("CO"), r"no types or parameters for \[C-\]#\[O\+\]"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_what_it_cannot_describe_is_one_line(case: str, capfd: pytest.CaptureFixture[str]) -> None:
    make, message = MISTAKES[case]
    with pytest.raises(InputError, match=message) as caught:
        load_model("mmff", make())
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", ""), "RDKit says nothing of its own"


def test_a_run_of_it(cli: Callable[..., Any], tmp_path: Any) -> None:
    """From a SMILES to an energy drift, on the command line."""
    words = ("md", "--model", "mmff", "--structure", "smiles:CC(C)CO", "--ensemble", "nve", "--duration-ps", "0.1")
    done = cli(*words, "--equilibrate-ps", "0.05", "--replicas", "2", "--out", tmp_path / "run")
    assert done.code in (0, 3), done.err
    assert read_structure(str(tmp_path / "run" / "trajectory.xyz")).get_chemical_formula() == "C4H10O"
