"""Many structures in one call are what they are one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from test_graph import Pairs
from test_mace import mace_file  # noqa: F401  (a fixture)
from torch import Tensor

from mlff_sim import Acceleration, MLFFCalculator, evaluate_batch
from mlff_sim.acceleration import Execution
from mlff_sim.errors import InputError
from mlff_sim.forces import Evaluation
from mlff_sim.models import compiled as compiled_module
from mlff_sim.models.graph import GraphProvider


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
    with pytest.raises(InputError, match="bound to one composition"):
        evaluate_batch(GraphProvider(Pairs(), ethanol.numbers), [ethanol, molecule("H2O")])
    flat = molecule("H2O", cell=[9, 9, 0], pbc=True)
    with pytest.raises(InputError, match="structure 1: the periodic cell vectors are zero"):
        evaluate_batch(Pairs(), [bulk("NaCl", "rocksalt", a=5.6), flat])
    choosy = Pairs()
    choosy.elements = (1, 6, 8)  # type: ignore[assignment]
    with pytest.raises(InputError, match="structure 2: 'module' does not know the element S"):
        evaluate_batch(choosy, [ethanol, molecule("H2O"), molecule("SH2")])
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


class Mean(Pairs):
    """Energies by atom that depend on the mean over all atoms of a call, as after a neutralisation of charges."""

    def forward(self, *inputs: Tensor) -> Tensor:
        energy = super().forward(*inputs)
        return energy + torch.tanh(energy - energy.mean())


class Volume(Pairs):
    def forward(self, positions: Tensor, numbers: Tensor, cell: Tensor, pairs: Tensor, images: Tensor) -> Tensor:
        return super().forward(positions, numbers, cell, pairs, images) * torch.linalg.det(cell)


class Total(Pairs):
    def forward(self, *inputs: Tensor) -> Tensor:
        return super().forward(*inputs).sum(0, keepdim=True)


class EachItsWeight(Pairs):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.arange(9.0))

    def forward(self, *inputs: Tensor) -> Tensor:
        return super().forward(*inputs) * self.weight


@pytest.mark.parametrize("kind", [Mean, Volume, Total, EachItsWeight])
def test_networks_that_cannot_take_several_at_once_are_called_one_by_one(kind: type[Pairs], ethanol: Atoms) -> None:
    """Whatever else is in the call: replicas, atoms, other compositions."""
    crystals = [bulk("NaCl", "rocksalt", a=5.64) * (1, 1, k) for k in (1, 2, 2, 3)]
    for k, atoms in enumerate(crystals):
        atoms.rattle(0.1, seed=k)
    replicas = [ethanol.copy() for _ in range(3)]
    for k, atoms in enumerate(replicas):
        atoms.rattle(0.1, seed=k)
    protons = [Atoms("H", [[k, 0, 0]]) for k in range(3)]
    for many in (replicas,) if kind is EachItsWeight else (replicas, molecules(), crystals, protons):
        compare(evaluate_batch(kind(), many, dtype="float64"), [alone(kind(), a) for a in many], 1e-10)


def test_cells_of_their_own_for_what_cannot_batch() -> None:
    crystals = [bulk("Cu", a=3.6 + 0.05 * k, cubic=True) for k in range(3)]
    name = "ase:ase.calculators.emt:EMT"
    compare(evaluate_batch(name, crystals), [alone(name, a) for a in crystals], 1e-10)
    assert len({float(e.energy) for e in evaluate_batch(name, crystals)}) == 3


def test_what_is_periodic_needs_a_model_that_sees_it(ethanol: Atoms) -> None:
    box = ethanol.copy()
    box.set_cell([9, 9, 9])
    box.pbc = True
    for model in ("morse", GraphProvider(Pairs(), ethanol.numbers)):
        with pytest.raises(InputError, match=r"structure 0: the model .* is periodic along"):
            evaluate_batch(model, [box, box])


def test_a_part_too_large_for_this_machine_is_halved() -> None:
    """Ten petabytes, as PyTorch itself refuses them; and other errors are not taken for that."""
    from mlff_sim.models.graph_batch import in_parts

    def call(items: Sequence[int]) -> Sequence[int]:
        if len(items) > 1:
            torch.empty(10**16, dtype=torch.uint8)
        return items

    assert in_parts([1, 2, 3], [1.0] * 3, 3.0, call) == [1, 2, 3]
    with pytest.raises(RuntimeError, match="size"):
        in_parts([1, 2], [1.0] * 2, 2.0, lambda items: torch.zeros(2) + torch.zeros(3))


def test_a_network_may_keep_a_table_of_numbers() -> None:
    module = Pairs()
    module.register_buffer("numbers", torch.arange(10))
    compare(evaluate_batch(module, molecules(), dtype="float64"), [alone(Pairs(), a) for a in molecules()], 1e-10)


def test_parts_do_not_follow_every_change_of_free_memory(ethanol: Atoms, monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph is compiled for a number of structures: room for 5, 6 or 7 of them makes parts of 4; and only those."""
    from mlff_sim.models import graph

    monkeypatch.setattr(compiled_module, "compiled", lambda flat, inputs, options: flat)
    p = GraphProvider(Pairs(), ethanol.numbers, execution=Execution(acceleration=Acceleration(compile=True)))
    x = ethanol.positions + 0.05 * np.random.default_rng(0).standard_normal((8, 9, 3))
    p(x[:2])
    assert p.function.compilations == 0 and p.report()["batches"][2]["compiled"]
    for room in (5.5, 6.5, 7.5):
        monkeypatch.setattr(graph, "free_bytes", lambda device, room=room: 2 * room * p._bytes)
        p(x)
    assert set(p._many) == {2, 4} and p._many[4].compilations == 1
