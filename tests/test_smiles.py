"""Structures from SMILES: the same at every start, the lowest conformer, stereo and charge as written, mistakes in a line."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlff_sim import smiles
from mlff_sim.errors import InputError, MissingExtra
from mlff_sim.forces import Array
from mlff_sim.models.registry import load_model
from mlff_sim.smiles import from_smiles
from mlff_sim.structure import covalent_bonds, read_structure, read_structures


def handedness(x: Array, centre: int, *neighbours: int) -> float:
    """Sign of the volume that three neighbours of an atom span."""
    a, b, c = (x[k] - x[centre] for k in neighbours)
    return float(np.sign(np.dot(a, np.cross(b, c))))


def test_isobutanol() -> None:
    """Heavy atoms in the order written, then hydrogens; bonds as written; nothing else is left over in `info`."""
    (atoms,) = read_structures("smiles:CC(C)CO")
    assert str(atoms.symbols) == "C4OH10" and not atoms.pbc.any()
    assert [b for b in covalent_bonds(atoms) if max(b) < 5] == [(0, 1), (1, 2), (1, 3), (3, 4)]
    assert len(covalent_bonds(atoms)) == 14
    assert atoms.info == {"charge": 0, "smiles": "CC(C)CO"}


def test_the_same_at_every_start() -> None:
    """Bit for bit, in another process and after others; and a copy, which may be changed."""
    code = "from mlff_sim import read_structure; print(read_structure('smiles:CC(C)CO').positions.tobytes().hex())"
    fresh = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    smiles._embedded.cache_clear()
    read_structure("smiles:CCO")
    for _ in range(2):
        atoms = read_structure("smiles:CC(C)CO")
        assert atoms.positions.tobytes().hex() == fresh
        atoms.positions += 1.0
        atoms.info.clear()


def test_it_is_a_minimum_and_the_lowest() -> None:
    """Butane is anti, below gauche (Halgren & Nachbar, J. Comput. Chem. 17, 587 (1996)), and relaxed.

    RDKit stops where the root mean square of the gradient is small; 1e-3 eV/A is 0.02 kcal/mol/A.
    """
    atoms = read_structure("smiles:CCCC")
    assert atoms.get_dihedral(0, 1, 2, 3) == pytest.approx(180, abs=1)
    model = load_model("mmff", atoms)
    assert np.abs(model(atoms.get_positions()).forces).max() < 1e-3


@pytest.mark.parametrize(("written", "sign"), [("N[C@@H](C)C(=O)O", 1), ("N[C@H](C)C(=O)O", -1)])
def test_stereocentres_are_as_written(written: str, sign: int) -> None:
    """@@: seen from N the others, H, CH3 and COOH, come clockwise, which is a positive volume; @ is no frame number."""
    atoms = read_structure(f"smiles:{written}")
    hydrogen = next(int(k) for k in np.flatnonzero(atoms.numbers == 1) if atoms.get_distance(1, k) < 1.2)
    assert handedness(atoms.positions, 1, hydrogen, 2, 3) == sign


@pytest.mark.parametrize(("written", "angle"), [("F/C=C/F", 180), ("F/C=C\\F", 0)])
def test_double_bonds_are_as_written(written: str, angle: float) -> None:
    atoms = read_structure(f"smiles:{written}")
    assert np.cos(np.radians(atoms.get_dihedral(0, 1, 2, 3))) == pytest.approx(np.cos(np.radians(angle)), abs=1e-3)


def test_charge_and_isotopes() -> None:
    """The charge is where models look for it; an isotope has its mass, and only it."""
    assert [from_smiles(s).info["charge"] for s in ("CC(=O)[O-]", "C[NH3+]", "[NH3+]CC(=O)[O-]")] == [-1, 1, 0]
    heavy, plain = from_smiles("[2H]OC").get_masses(), from_smiles("OC").get_masses()
    assert heavy[0] == pytest.approx(2.014, abs=1e-3)
    assert sorted(heavy[1:]) == sorted(plain)[1:], "hydrogen, carbon and oxygen have those of ASE"


MISTAKES = {
    "no-smiles": ("C[", r"'smiles:C\[' is no SMILES that RDKit can read; write one such as 'smiles:CC\(C\)CO'"),
    "empty": ("", "'smiles:' is no SMILES"),
    "blank": (" ", "'smiles:' is no SMILES"),
    "a-name-behind": ("CC O", "is no SMILES"),
    "valence": ("C(C)(C)(C)(C)C", "is no SMILES"),
    "frame": ("CCO@0", "is no SMILES"),
    "fragments": ("[Na+].[Cl-]", "holds several molecules; give one, or a file"),
    "radical": ("C[CH2]", r"is a radical at atom 1 \(C\)"),
    "wildcard": ("*C", r"atom 0 \(\*\) is no element"),
    "element": ("CB(C)C", "MMFF94, which finds the geometry, has no parameters"),
    "strain": ("C1#CC1", "has no geometry that RDKit can find"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_one_line(case: str, cli: Callable[..., Any], tmp_path: Path) -> None:
    written, message = MISTAKES[case]
    words = ("md", "--model", "lj", "--ensemble", "nve", "--duration-ps", "0.1", "--out", tmp_path / "out")
    done = cli(*words, "--structure", f"smiles:{written}")
    assert done.code == 2 and not (tmp_path / "out").exists()
    with pytest.raises(InputError, match=message):
        raise InputError(done.line)


def test_a_forgotten_prefix_is_told(cli: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'CC\(C\)CO' does not exist; .* for a molecule, 'smiles:SMILES'"):
        read_structure("CC(C)CO")


def test_without_rdkit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rdkit", None)
    with pytest.raises(MissingExtra, match=r"'smiles:CCCO' \(rdkit\) needs .* pip install 'mlff-sim\[mmff\]'"):
        read_structure("smiles:CCCO")
