"""Density functional theory as a teacher: a function of positions, of known energy, silent, and honest when it fails."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from test_providers import strained

from mlff_sim.models.registry import load_model
from mlff_sim.units import BOHR, HARTREE

pytest.importorskip("pyscf")


@pytest.fixture(autouse=True)
def nothing_is_left_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Not in the working folder, and no longer in the one for temporary files."""
    from pyscf import lib

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(lib.param, "TMPDIR", str(tmp_path))
    yield
    assert not list(tmp_path.iterdir())


def hydrogen(distance: float) -> Atoms:
    return Atoms("H2", positions=[[0, 0, 0], [0, 0, distance]])


@pytest.mark.parametrize(
    ("atoms", "hartree"), [(hydrogen(1.4 * BOHR), -1.1167), (Atoms("H", info={"spin": 2}), -0.46658)], ids=["H2", "H"]
)
def test_energies_of_the_textbook(atoms: Atoms, hartree: float, capfd: pytest.CaptureFixture[str]) -> None:
    """Szabo & Ostlund, Modern Quantum Chemistry (1989), section 3.5: closed and open shell, to the digits given there.

    Hartree-Fock is the functional of all exact exchange and nothing else, so that the grid has no part in it.
    """
    model = load_model("dft:hf/sto-3g", atoms)
    digit = 10.0 ** -len(str(hartree).partition(".")[2])
    assert float(model(atoms.positions).energy) / HARTREE == pytest.approx(hartree, abs=0.5 * digit)
    assert model.provenance["spin"] == atoms.info.get("spin", 1)
    out = capfd.readouterr()
    assert out.out == "" and out.err == ""


def test_the_grid_moves_with_the_nuclei() -> None:
    """Forces sum to zero, as the energy does not change under a shift; to 0.3 meV/A without the response of the grid.

    Johnson, Gill & Pople (1993), doi:10.1063/1.464906. What is left is the convergence of the SCF, far below 1e-6 eV/A.
    """
    atoms = strained(molecule("H2O"))
    forces = load_model("dft:b3lyp/sto-3g", atoms)(atoms.positions).forces
    assert np.abs(forces.sum(axis=0)).max() < 1e-6
    assert np.abs(forces).max() > 0.1


def methyl() -> Atoms:
    atoms = strained(molecule("CH3"))
    atoms.info["spin"] = 2
    return atoms


@pytest.mark.parametrize("atoms", [strained(molecule("H2O")), methyl()], ids=["closed", "open"])
def test_forces_do_not_remember(atoms: Atoms) -> None:
    """Warm against cold: below 0.005 meV/A. Bit by bit the same after `reset`, and each replica has its own density."""
    model = load_model("dft:b3lyp/sto-3g", atoms)
    far = atoms.positions + 0.05 * np.random.default_rng(2).standard_normal(atoms.positions.shape)
    cold = model(atoms.positions[None])
    both = model(np.stack([far, atoms.positions]))  # the first replica from the other geometry, the second from scratch
    warm = model(np.stack([atoms.positions, far]))
    assert both.forces[1].tobytes() == cold.forces[0].tobytes() and both.energy[1] == cold.energy[0]
    assert 0 < np.abs(warm.forces[0] - cold.forces[0]).max() < 5e-6
    model.reset()
    again = model(atoms.positions)
    assert again.forces.tobytes() == cold.forces[0].tobytes() and float(again.energy) == cold.energy[0]


def test_a_bad_guess_is_dropped() -> None:
    """From a density that is no number no SCF converges: once more from scratch, to the same answer."""
    atoms = hydrogen(0.8)
    model: Any = load_model("dft:b3lyp/sto-3g", atoms)
    right = model(atoms.positions)
    model._guesses[0] = np.full_like(model._guesses[0], np.nan)
    repaired = model(atoms.positions)
    assert float(repaired.energy) == pytest.approx(float(right.energy), abs=1e-8)
    assert np.abs(repaired.forces - right.forces).max() < 5e-6


def test_an_scf_that_does_not_converge_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """And no number: the guards make a stop of it, and exact sampling a refusal."""
    from pyscf.scf import hf

    atoms = strained(molecule("H2O"))
    model = load_model("dft:b3lyp/sto-3g", atoms)
    monkeypatch.setattr(hf.SCF, "max_cycle", 1)
    with pytest.raises(RuntimeError, match="the SCF did not converge"):
        model(atoms.positions)


def test_heavy_elements_get_the_core_of_their_basis() -> None:
    """def2 bases of iodine describe 25 electrons and leave 28 to a potential, which has to come with them.

    Weigend & Ahlrichs, Phys. Chem. Chem. Phys. 7, 3297 (2005), doi:10.1039/b508541a.
    """
    model: Any = load_model("dft:pbe/def2-svp", Atoms("HI", positions=[[0, 0, 0], [0, 0, 1.6]]))
    assert model._molecule.nelectron == 1 + 53 - 28
