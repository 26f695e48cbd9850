"""MLFFCalculator: the same answers as the model's, one evaluation for everything, and nothing that changes is missed."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.lj import LennardJones
from ase.md.verlet import VelocityVerlet

from mlff_sim import Acceleration, MLFFCalculator
from mlff_sim.errors import InputError
from mlff_sim.integrators.force_table import ForceTable
from mlff_sim.integrators.schemes import verlet
from mlff_sim.integrators.stepper import Stepper
from mlff_sim.models.registry import load_model
from mlff_sim.state import State
from mlff_sim.units import FS


@pytest.mark.parametrize("model", ["gfn2-xtb", "morse", "student"])
def test_any_model_by_name(model: str, ethanol: Atoms, student_file: Path) -> None:
    name = f"student:{student_file}" if model == "student" else model
    atoms = ethanol.copy()
    atoms.calc = MLFFCalculator(name)
    answer = load_model(name, ethanol)(ethanol.get_positions())
    assert atoms.get_potential_energy() == float(answer.energy)
    assert atoms.get_potential_energy(force_consistent=True) == float(answer.energy)
    np.testing.assert_array_equal(atoms.get_forces(), answer.forces)
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_stress()
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_dipole_moment()


def test_a_step_costs_one_evaluation_and_a_look_none(ethanol: Atoms, toys: Any) -> None:
    model = toys.counted(load_model("harmonic", ethanol))
    atoms = ethanol.copy()
    atoms.calc = MLFFCalculator(model)
    for look in (atoms.get_potential_energy, atoms.get_forces, atoms.get_potential_energy):
        look()
    assert model.calls == 1
    assert not atoms.calc.calculation_required(atoms, ["energy", "forces"])
    atoms.get_forces()[:] = 7.0  # what is handed out is a copy
    assert not (atoms.get_forces() == 7.0).any()
    atoms.positions[0, 0] += 1e-12
    assert atoms.calc.check_state(atoms) == ["positions"] and atoms.calc.calculation_required(atoms, ["energy"])
    atoms.get_forces()
    assert model.calls == 2
    VelocityVerlet(atoms, 0.5 * units.fs).run(10)
    assert model.calls == 2 + 10
    atoms.calc.reset()
    atoms.get_forces()
    assert model.calls == 13


def test_dynamics_in_ase_is_ours(ethanol: Atoms, thermal: Callable[..., State]) -> None:
    """Velocity Verlet of ASE and of this package, 100 steps of the same model, agree to rounding."""
    start, atoms = thermal(), ethanol.copy()
    atoms.set_momenta(start.momenta[0])
    atoms.calc = MLFFCalculator("morse")
    VelocityVerlet(atoms, 0.5 * units.fs).run(100)
    table = ForceTable({"f": load_model("morse", ethanol)})
    stepper = Stepper(verlet("f"), 0.5 * FS, ethanol.get_masses(), table, start)
    for _ in range(100):
        stepper.step()
    assert np.abs(atoms.positions - ethanol.positions).max() > 0.1
    np.testing.assert_allclose(atoms.positions, stepper.state.positions[0], atol=1e-9)


def test_charge_and_spin_are_noticed() -> None:
    """The ion is another molecule, whether the calculator is told so or the structure."""
    atoms = Atoms("OH", [[0, 0, 0], [0, 0, 0.97]])
    energies = {}
    for where in ("calculator", "info"):
        anion = MLFFCalculator("gfn2-xtb", charge=-1) if where == "calculator" else MLFFCalculator("gfn2-xtb", spin=2)
        atoms.info.clear()
        atoms.calc = anion
        if where == "info":
            radical = atoms.get_potential_energy()
            atoms.info.update(charge=-1, spin=1)
            assert anion.check_state(atoms) == ["initial_charges"]
        energies[where] = atoms.get_potential_energy()
    assert energies["info"] == pytest.approx(energies["calculator"], abs=1e-9)
    assert abs(radical - energies["info"]) > 1.0


def test_other_atoms_cells_and_periodicity_are_noticed() -> None:
    from test_graph import Pairs

    module = Pairs()
    calc = MLFFCalculator(module, acceleration="none", dtype="float64")
    crystal = bulk("NaCl", "rocksalt", a=5.64) * (2, 1, 1)
    seen = []
    for change in (
        lambda a: None,
        lambda a: a.set_cell(1.02 * a.cell.array, scale_atoms=True),
        lambda a: a.set_pbc((True, True, False)),
        lambda a: a.numbers.__setitem__(0, 19),
        lambda a: a.append("Na") or a.positions.__setitem__(-1, [1.0, 2.0, 0.5]),
    ):
        change(crystal)
        crystal.calc = calc
        fresh = crystal.copy()
        fresh.calc = MLFFCalculator(module, acceleration="none", dtype="float64")
        seen.append(crystal.get_potential_energy())
        assert seen[-1] == pytest.approx(fresh.get_potential_energy(), abs=1e-12)
        np.testing.assert_allclose(crystal.get_forces(), fresh.get_forces(), atol=1e-12)
        if crystal.pbc.all():
            np.testing.assert_allclose(crystal.get_stress(), fresh.get_stress(), atol=1e-12)
        else:
            with pytest.raises(PropertyNotImplementedError, match="stress"):
                crystal.get_stress()
    assert len(set(np.round(seen, 9))) == 5
    assert crystal.get_potential_energies().sum() == pytest.approx(seen[-1])


def test_what_is_periodic_needs_a_model_that_sees_it(ethanol: Atoms, student_file: Path) -> None:
    from test_graph import Pairs

    from mlff_sim.models.graph import GraphProvider

    box = ethanol.copy()
    box.set_cell([12, 12, 12])
    box.pbc = True
    for model in (f"student:{student_file}", "morse", GraphProvider(Pairs(), ethanol.numbers)):
        box.calc = MLFFCalculator(model)
        with pytest.raises(InputError, match=r"is periodic along .*False.* and the structure along .*True"):
            box.get_forces()
    ethanol = ethanol.copy()
    ethanol.calc = MLFFCalculator(GraphProvider(Pairs(), ethanol.numbers, pbc=(True, True, True)))
    with pytest.raises(InputError, match=r"set atoms\.pbc"):
        ethanol.get_forces()


def test_the_model_is_built_once(ethanol: Atoms, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not again after a reset, an error, or a direct call: a compiled graph would be lost each time."""
    calc, built = MLFFCalculator("morse"), []
    bind = calc._bind
    monkeypatch.setattr(calc, "_bind", lambda atoms: built.append(1) or bind(atoms))
    atoms = ethanol.copy()
    atoms.calc = calc
    atoms.get_forces()
    atoms.positions[0, 0] += 0.1
    energy = atoms.get_potential_energy()
    calc.reset()
    assert atoms.get_potential_energy() == energy > 0
    calc.calculate(atoms)
    x = atoms.positions[0, 0]
    atoms.positions[0, 0] = np.nan
    with pytest.raises(InputError):
        atoms.get_forces()
    atoms.positions[0, 0] = x
    assert atoms.get_potential_energy() == energy and len(built) == 1


@pytest.mark.parametrize("model", ["gfn2-xtb", "module"])
def test_it_can_be_copied_and_pickled(model: str, ethanol: Atoms) -> None:
    from test_graph import Pairs

    atoms = ethanol.copy()
    atoms.calc = MLFFCalculator(Pairs() if model == "module" else model, charge=0.0)  # type: ignore[arg-type]
    energy = atoms.get_potential_energy()
    for other in (copy.deepcopy(atoms), pickle.loads(pickle.dumps(atoms))):
        assert other.get_potential_energy() == pytest.approx(energy, abs=1e-8)


def test_acceleration_is_reported(ethanol: Atoms) -> None:
    from test_graph import Pairs

    atoms = ethanol.copy()
    atoms.calc = MLFFCalculator(Pairs(), acceleration=Acceleration(compile=False))
    assert atoms.calc.acceleration_report() == {}
    atoms.get_forces()
    report = atoms.calc.acceleration_report()
    assert report["compiled"] is False and report["eager_ms"] > 0 and report["list_rebuilds"] == 1
    atoms.calc = MLFFCalculator("harmonic")
    atoms.get_forces()
    assert atoms.calc.acceleration_report() == {}


def test_mistakes(ethanol: Atoms, toys: Any) -> None:
    import torch

    with pytest.raises(InputError, match="unknown model 'mace-mp'; known"):
        MLFFCalculator("mace-mp")
    with pytest.raises(InputError, match="device 'tpu'"):
        MLFFCalculator("harmonic", device="tpu")
    with pytest.raises(InputError, match="dtype 'float16'"):
        MLFFCalculator("harmonic", dtype="float16")
    with pytest.raises(InputError, match="'fast' is unknown"):
        MLFFCalculator("harmonic", acceleration="fast")
    for charge in (0.5, None, "one", float("nan")):
        with pytest.raises(InputError, match=r"charge = .* must be a whole number"):
            MLFFCalculator("harmonic", charge=charge)  # type: ignore[arg-type]
    atoms = ethanol.copy()
    atoms.calc = MLFFCalculator(torch.nn.Linear(1, 1))
    with pytest.raises(InputError, match="needs an attribute `cutoff`"):
        atoms.get_forces()
    atoms.calc = MLFFCalculator("harmonic")
    atoms.positions[4, 1] = np.nan
    with pytest.raises(InputError, match=r"atom 4 \(H\) is not a finite number"):
        atoms.get_forces()
    water = Atoms("OH2", [[0, 0, 0], [0, 0.76, 0.6], [0, -0.76, 0.6]])
    water.calc = MLFFCalculator(load_model("harmonic", ethanol))
    with pytest.raises(InputError, match="is for C2H6O; the structure is H2O"):
        water.get_forces()
    with pytest.raises(InputError, match="no structure"):
        MLFFCalculator("harmonic").calculate()
    with pytest.raises(InputError, match="no structure"):
        MLFFCalculator("harmonic").get_potential_energy()
    nothing = Atoms(calculator=MLFFCalculator("harmonic"))
    with pytest.raises(InputError, match="no atoms"):
        nothing.get_potential_energy()
    ethanol = ethanol.copy()
    ethanol.calc = MLFFCalculator("ase:ase.calculators.lj:LennardJones")
    ethanol.set_pbc(True)
    with pytest.raises(InputError, match="cell vectors are zero or not independent"):
        ethanol.get_forces()
    ethanol.set_cell([0.9, 0.9, 0.9])  # nm
    with pytest.raises(InputError, match=r"volume of 0\.729 A\^3 for 9 atoms, .* cell vectors are in A"):
        ethanol.get_forces()
    ethanol.set_pbc(False)
    for model in (None, Path("my.model"), LennardJones()):
        ethanol.calc = MLFFCalculator(model)
        with pytest.raises(InputError, match=r"the model is an object of the class .*, or a name such as mace:FILE"):
            ethanol.get_forces()
    for skin in ("wide", -1.0, float("nan")):
        with pytest.raises(InputError, match=r"skin_A = .* must be a number, finite and not negative"):
            Acceleration(skin_A=skin)  # type: ignore[arg-type]
