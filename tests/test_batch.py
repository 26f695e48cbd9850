"""Many structures in one call are what they are one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from test_graph import Pairs
from test_mace import mace_file  # noqa: F401  (a fixture)

from mlff_sim import MLFFCalculator, evaluate_batch
from mlff_sim.errors import InputError
from mlff_sim.forces import Evaluation


def alone(model: Any, atoms: Atoms) -> Evaluation:
    atoms = atoms.copy()
    atoms.calc = MLFFCalculator(model, acceleration="none", dtype="float64")
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    stress = atoms.get_stress() if atoms.pbc.all() else None
    return Evaluation(np.array(energy), forces, stress, atoms.calc.results.get("energies"))


def compare(together: list[Evaluation], one_by_one: list[Evaluation], atol: float) -> None:
    assert len(together) == len(one_by_one)
    for a, b in zip(together, one_by_one, strict=True):
        for name in ("energy", "forces", "stress", "atomic_energies"):
            x, y = getattr(a, name), getattr(b, name)
            assert (x is None) == (y is None), name
            if x is not None:
                assert x.shape == y.shape
                np.testing.assert_allclose(x, y, atol=atol)


def molecules() -> list[Atoms]:
    rng = np.random.default_rng(5)
    many = [molecule(name) for name in ("CH3CH2OH", "H2O", "CO2", "CH3CH2OH", "C6H6", "H2O", "H2O")]
    for atoms in many:
        atoms.positions += 0.05 * rng.standard_normal(atoms.positions.shape)
    return many


@pytest.mark.parametrize("memory_GB", [None, 1e-6], ids=["one call", "one by one"])
def test_molecules_of_several_compositions(memory_GB: float | None) -> None:
    together = evaluate_batch(Pairs(), molecules(), dtype="float64", memory_GB=memory_GB)
    compare(together, [alone(Pairs(), a) for a in molecules()], 1e-10)


def test_crystals_in_cells_of_their_own() -> None:
    crystals = []
    for k, scale in enumerate((1.0, 1.03, 0.97)):
        atoms = bulk("NaCl", "rocksalt", a=5.64 * scale) * (1, 2, 1 + k)
        atoms.rattle(0.1, seed=k)
        crystals.append(atoms)
    together = evaluate_batch(Pairs(), crystals, dtype="float64")
    compare(together, [alone(Pairs(), a) for a in crystals], 1e-10)


@pytest.mark.filterwarnings("ignore")  # of MACE and e3nn
def test_mace_of_several_compositions_and_back(mace_file: Any) -> None:  # noqa: F811
    name, many = f"mace:{mace_file}", molecules()
    compare(evaluate_batch(name, many, dtype="float64"), [alone(name, a) for a in many], 1e-9)
    with pytest.raises(InputError, match="does not know the element S"):
        evaluate_batch(name, [*many, molecule("SH2")])


def test_what_is_no_graph_network_is_called_in_a_loop(ethanol: Atoms, student_file: Any) -> None:
    shaken = [ethanol.copy() for _ in range(3)]
    for k, atoms in enumerate(shaken):
        atoms.rattle(0.02, seed=k)
    for name in ("harmonic", f"student:{student_file}"):
        if name == "harmonic":  # its rest lengths are the first structure's
            expected = [alone(name, shaken[0])]
            compare(evaluate_batch(name, shaken)[:1], expected, 1e-10)
        else:
            compare(evaluate_batch(name, shaken), [alone(name, a) for a in shaken], 1e-4)


def test_crystals_of_a_calculator_that_takes_one_at_a_time() -> None:
    """Each in a cell of its own."""
    crystals = [bulk("Cu", cubic=True, a=a) for a in (3.6, 3.7)]
    for k, atoms in enumerate(crystals):
        atoms.rattle(0.05, seed=k)
    model = "ase:ase.calculators.emt:EMT"
    compare(evaluate_batch(model, crystals), [alone(model, a) for a in crystals], 1e-10)


def test_mistakes_are_named_by_structure(ethanol: Atoms) -> None:
    broken = ethanol.copy()
    broken.positions[3, 1] = np.nan
    with pytest.raises(InputError, match="structure 1 has a position"):
        evaluate_batch(Pairs(), [ethanol, broken])
    from mlff_sim.models.graph import GraphProvider

    with pytest.raises(InputError, match="bound to one composition"):
        evaluate_batch(GraphProvider(Pairs(), ethanol.numbers), [ethanol, molecule("H2O")])
    unnamed, nowhere = ethanol.copy(), ethanol.copy()
    unnamed.info["charge"] = [1]
    nowhere.set_pbc(True)
    for wrong, words in (
        (unnamed, r"charge = \[1\] must be"),
        (nowhere, "cell vectors are zero"),
        (Atoms(), "no atoms"),
    ):
        with pytest.raises(InputError, match=rf"structure 1.*{words}"):
            evaluate_batch(Pairs(), [ethanol, wrong])
    with pytest.raises(InputError, match=r"a list of structures is needed; write \[atoms\]"):
        evaluate_batch(Pairs(), ethanol)  # type: ignore[arg-type]
    assert evaluate_batch(Pairs(), []) == []
