"""CHGNet through our provider against its own calculator, on a small crystal."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule

from mlff_sim import MLFFCalculator
from mlff_sim.acceleration import Execution
from mlff_sim.errors import InputError
from mlff_sim.forces import Evaluation
from mlff_sim.models.registry import load_model

pytest.importorskip("chgnet")
pytestmark = pytest.mark.filterwarnings("ignore:Converting a tensor")  # of CHGNet's own calculator, by PyTorch


@pytest.fixture
def crystal() -> Atoms:
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    atoms.rattle(0.1, seed=2)
    return atoms


@pytest.fixture(scope="module")
def theirs() -> Any:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from chgnet.model.dynamics import CHGNetCalculator

        return CHGNetCalculator(use_device="cpu", return_site_energies=True)


def test_everything_is_what_its_own_calculator_says(crystal: Atoms, theirs: Any) -> None:
    """The same code on the same input: equal to float32, which has 7 digits."""
    own = crystal.copy()
    own.calc = theirs
    crystal.calc = MLFFCalculator("chgnet")
    energy = crystal.get_potential_energy()
    assert energy == pytest.approx(own.get_potential_energy(), rel=1e-6) and energy < -20
    assert crystal.get_potential_energy(force_consistent=True) == energy
    np.testing.assert_allclose(crystal.get_forces(), own.get_forces(), atol=1e-5)
    np.testing.assert_allclose(crystal.get_stress(), own.get_stress(), atol=1e-6)
    np.testing.assert_allclose(crystal.get_potential_energies(), theirs.results["energies"], atol=1e-5)
    assert crystal.get_potential_energies().sum() == pytest.approx(energy, rel=1e-6)


def test_the_stress_follows_the_cell(crystal: Atoms) -> None:
    """Squeezed, it pushes outward: negative, as in ASE; and the cell of the call is the one that counts.

    The bulk modulus of rock salt is 24 GPa = 0.15 eV/A^3: 5 and 10 % by length, 15 and 30 % by volume, are far above
    the rattling's 0.02 eV/A^3 one way and 0.01 the other.
    """
    model = load_model("chgnet", crystal)
    squeezed, stretched = (np.asarray(model(k * crystal.positions, k * crystal.cell.array).stress) for k in (0.95, 1.1))
    assert (squeezed[:3] < -0.02).all() and (stretched[:3] > 0.01).all()


def test_a_left_handed_cell_has_the_same_stress(crystal: Atoms) -> None:
    """The order of the cell vectors is a convention. CHGNet's own calculator turns the sign (0.4.2)."""
    model = load_model("chgnet", crystal)
    right, left = model(crystal.positions, crystal.cell.array), model(crystal.positions, crystal.cell.array[[1, 0, 2]])
    assert right.stress is not None and left.stress is not None and np.abs(right.stress).max() > 1e-3
    np.testing.assert_allclose(left.stress, right.stress, atol=1e-6)
    np.testing.assert_allclose(left.forces, right.forces, atol=1e-5)


def test_it_is_quiet_and_says_what_it_is(crystal: Atoms) -> None:
    """In a process of its own, where nothing is filtered and nothing imported."""
    code = (
        "from ase.build import bulk\nfrom mlff_sim import load_model\n"
        "crystal = bulk('NaCl', 'rocksalt', a=5.64)\nmodel = load_model('chgnet', crystal)\n"
        "model.reset()\nmodel(crystal.positions, crystal.cell.array)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout == "" and done.stderr == "", done
    model = load_model("chgnet", crystal)
    assert model.provenance["library"].startswith("chgnet 0.") and model.provenance["weights"]
    assert model.dtype == "float32" and model.cutoff == 6.0


def test_mistakes(crystal: Atoms) -> None:
    slab = fcc111("Cu", (1, 1, 2), vacuum=5.0)
    for atoms in (molecule("H2O"), slab):
        with pytest.raises(InputError, match=r"CHGNet describes crystals and the structure is periodic along .*False"):
            load_model("chgnet", atoms)
    for symbol in ("Po", "Cm"):  # one without training and one without a row
        with pytest.raises(InputError, match=f"does not know the element {symbol}; it knows H to Bi, Ac to Pu"):
            load_model("chgnet", bulk(symbol, "sc", a=3.4))
    with pytest.raises(InputError, match="computes in float32"):
        load_model("chgnet", crystal, Execution(dtype="float64"))
    lonely = Atoms("He", cell=[9, 9, 9], pbc=True)
    model = load_model("chgnet", lonely)
    with pytest.raises(InputError, match="an atom has no other within 6 A"):
        model(lonely.positions, lonely.cell.array)


def test_what_fails_otherwise_is_not_renamed(crystal: Atoms, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlff_sim.models.ase_backed import AseProvider

    def fails(self: Any, *arguments: Any) -> Evaluation:
        raise ValueError("something else")

    model = load_model("chgnet", crystal)
    monkeypatch.setattr(AseProvider, "__call__", fails)
    with pytest.raises(ValueError, match="something else"):
        model(crystal.positions, crystal.cell.array)
