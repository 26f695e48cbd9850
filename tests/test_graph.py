"""Graph networks as providers: one backward pass for everything, and a gate for whatever makes it faster."""

from __future__ import annotations

import time
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from torch import Tensor

from mlff_sim.acceleration import Acceleration, Execution, chosen
from mlff_sim.errors import InputError
from mlff_sim.forces import Evaluation, check_provider, stacked
from mlff_sim.models import compiled as compiled_module
from mlff_sim.models.graph import GraphProvider
from mlff_sim.neighbors import NeighborList

EAGER = Acceleration(compile=False)


class Pairs(torch.nn.Module):
    """Atomic energies from a small network on pair distances, with an envelope that is zero beyond the cutoff."""

    def __init__(self, cutoff: float = 4.0, envelope: bool = True, width: int = 16, inputs: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cutoff, self.envelope, self.inputs = cutoff, envelope, inputs
        self.net = torch.nn.Sequential(torch.nn.Linear(inputs, width), torch.nn.Tanh(), torch.nn.Linear(width, 1))

    def forward(self, positions: Tensor, numbers: Tensor, cell: Tensor, pairs: Tensor, images: Tensor) -> Tensor:
        d = positions[pairs[1]] - positions[pairs[0]] + images @ cell
        r = d.norm(dim=-1)
        z = numbers.to(r.dtype)
        features = [r, z[pairs[0]] / 10, z[pairs[1]] / 10, *(torch.sin(k * r) for k in range(1, self.inputs - 2))]
        e = self.net(torch.stack(features, -1))[:, 0]
        if self.envelope:
            u = (r / self.cutoff).clamp(max=1.0)
            e = e * (1 - u) ** 3
        return torch.zeros_like(positions[:, 0]).index_add(0, pairs[0], e)


@pytest.fixture
def crystal() -> Atoms:
    atoms = bulk("NaCl", "rocksalt", a=5.64) * (2, 2, 2)
    atoms.rattle(0.1, seed=2)
    return atoms


def provider(
    atoms: Atoms, acceleration: Acceleration = EAGER, dtype: str = "float32", **settings: Any
) -> GraphProvider:
    execution = Execution(dtype=dtype, acceleration=acceleration)
    return GraphProvider(Pairs(), atoms.numbers, pbc=tuple(atoms.pbc), execution=execution, **settings)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_laws_of_a_force_field(ethanol: Atoms, dtype: str) -> None:
    check = check_provider(provider(ethanol, dtype=dtype), ethanol.get_positions(), permutation=True)
    assert not check.failures, check


def test_stress_is_the_derivative_by_strain(crystal: Atoms) -> None:
    """Voigt components against central differences of the energy of the strained crystal, exact to h^2."""
    p, h, volume = provider(crystal, dtype="float64"), 1e-4, crystal.get_volume()
    stress = p(crystal.positions, crystal.cell.array).stress
    assert stress is not None and np.abs(stress).max() > 1e-4
    for voigt, (a, b) in enumerate([(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]):
        energies = []
        for sign in (1, -1):
            strain = np.eye(3)
            strain[a, b] += sign * h / 2
            strain[b, a] += sign * h / 2
            energies.append(float(p(crystal.positions @ strain, crystal.cell.array @ strain).energy))
        assert (energies[0] - energies[1]) / (2 * h * volume) == pytest.approx(stress[voigt], abs=1e-8)


def test_energies_of_isolated_atoms_are_added_in_float64(ethanol: Atoms) -> None:
    """Differences of 1e-6 eV survive a reference of 1e6 eV, where float32 has steps of 0.06 eV."""
    x = ethanol.get_positions()
    plain, shifted = provider(ethanol), provider(ethanol, reference=np.full(9, -1e6 / 9))
    y = x + 1e-4 * np.random.default_rng(0).standard_normal(x.shape)
    change, same = (float(p(y).energy) - float(p(x).energy) for p in (plain, shifted))
    assert abs(change) > 1e-6 and same == pytest.approx(change, abs=1e-8)
    answer = shifted(x)
    assert answer.atomic_energies is not None and answer.stress is None
    assert answer.atomic_energies.sum() == pytest.approx(float(answer.energy), abs=1e-6)


def test_compiled_it_says_the_same_for_any_number_of_edges(crystal: Atoms) -> None:
    """Squeezed and expanded, as by a barostat: other numbers of pairs, one compilation."""
    fast, slow = provider(crystal, Acceleration(compile=True)), provider(crystal)
    edges = set()
    for scale in (1.0, 1.005, 0.92, 1.0, 0.93, 1.3):
        x, h = scale * crystal.positions, scale * crystal.cell.array
        edges.add(len(fast.lists[0](x, h, (True,) * 3)[1]))
        same(fast(x, h), slow(x, h))
    assert len(edges) > 3 and fast.function.compilations == 1
    report = fast.report()
    assert report["compiled"] and report["because"] == "engaged" and report["compile_s"] > 0
    assert report["recompilations"] == 0 and report["padded_edges"] == 0
    assert report["force_deviation_meV_per_A"] < 0.1 and report["accelerated_ms"] > 0
    columns = [np.asfortranarray(a) for a in (crystal.positions, crystal.cell.array)]  # another order in memory
    same(fast(*columns), slow(crystal.positions, crystal.cell.array))
    assert slow.report()["because"] == "compile = False" and not slow.report()["compiled"]


def same(a: Evaluation, b: Evaluation, atol: float = 1e-5) -> None:
    """Equal within the rounding of float32."""
    np.testing.assert_allclose(a.energy, b.energy, atol=atol)
    np.testing.assert_allclose(a.forces, b.forces, atol=atol)
    assert (a.stress is None) == (b.stress is None)
    if a.stress is not None and b.stress is not None:
        np.testing.assert_allclose(a.stress, b.stress, atol=atol / 100)


def test_padded_edges_are_compiled_anew_when_there_are_more(crystal: Atoms, eagerly: None) -> None:
    """Squeezed by 8 % the crystal has more pairs than the padding holds; expanding again changes nothing."""
    fast, slow = provider(crystal, Acceleration(compile=True, static_edges=True)), provider(crystal)
    compilations = []
    for scale in (1.0, 1.005, 0.92, 1.0, 0.93):
        x, h = scale * crystal.positions, scale * crystal.cell.array
        same(fast(x, h), slow(x, h))
        compilations.append(fast.function.compilations)
    assert compilations == [1, 1, 2, 2, 2] and fast.report()["recompilations"] == 1
    assert fast.report()["padded_edges"] > len(fast.lists[0](crystal.positions, crystal.cell.array, (True,) * 3)[1])


@pytest.fixture
def eagerly(monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of the compiler, the flat graph as it was traced: the shapes and the padding are real."""
    monkeypatch.setattr(compiled_module, "compiled", lambda flat, inputs, options: flat)


@pytest.mark.parametrize("apart", [1.0, 3.9, 4.1], ids=["bonded", "near", "no edge"])
def test_two_atoms_or_none_in_reach(apart: float, eagerly: None) -> None:
    """As many edges as atoms, and no edge at all: sizes that a tracer could take for one another or for special."""
    near = Atoms("HO", positions=[[0, 0, 0], [0, 0, 1.0]])
    fast, slow = provider(near, Acceleration(compile=True)), provider(near)
    fast(near.positions)
    x = near.positions * [1, 1, apart]
    same(fast(x), slow(x))
    assert fast.report()["compiled"] and fast.function.compilations == 1


def stubbed(monkeypatch: pytest.MonkeyPatch, change: Any) -> None:
    """In place of what the compiler makes, the traced graph with its answers changed."""

    def compiled(flat: Any, inputs: Any, options: Any) -> Any:
        return lambda *tensors: change(*flat(*tensors))

    monkeypatch.setattr(compiled_module, "compiled", compiled)


def test_a_broken_graph_does_not_pass_the_gate(ethanol: Atoms, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiled model whose forces are off by 2 meV/A: one warning with the figures, and the eager answers."""
    p, truth = provider(ethanol, Acceleration(compile=True)), provider(ethanol)(ethanol.get_positions())
    stubbed(monkeypatch, lambda energy, forces: (energy, forces + 0.002))
    with pytest.warns(UserWarning, match=r"differs from the eager model by .* and 2 meV/A, and 0.1 and 1 are allowed"):
        answer = p(ethanol.get_positions())
    np.testing.assert_array_equal(answer.forces, truth.forces)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        p(ethanol.get_positions() + 0.01)
    assert p.report()["compiled"] is False and p.report()["force_deviation_meV_per_A"] == pytest.approx(2, rel=1e-3)


def test_a_model_without_an_envelope_is_not_padded_behind_its_back(ethanol: Atoms, eagerly: None) -> None:
    """Edges beyond the cutoff contribute there, so padding changes the energy; the gate notices."""
    padded = Execution(acceleration=Acceleration(compile=True, static_edges=True))
    p = GraphProvider(Pairs(envelope=False), ethanol.numbers, execution=padded)
    with pytest.warns(UserWarning, match="differs from the eager model"):
        p(ethanol.get_positions())
    assert not p.report()["compiled"]


@pytest.mark.parametrize(
    "change",
    [
        lambda e, f, v: (e, f * np.nan, v),
        lambda e, f, v: (e * np.nan, f, v),
        lambda e, f, v: (e, f, 2 * v),
        lambda e, f, v: (e.flip(0), f, v),
    ],
    ids=["nan-forces", "nan-energy", "virial", "energies-by-atom"],
)
def test_the_gate_looks_at_everything(change: Any, crystal: Atoms, monkeypatch: pytest.MonkeyPatch) -> None:
    p = provider(crystal, Acceleration(compile=True))
    stubbed(monkeypatch, change)
    with pytest.warns(UserWarning, match="differs from the eager model"):
        p(crystal.positions, crystal.cell.array)
    assert not p.report()["compiled"]


def test_padding_does_without_the_first_cell_vector(ethanol: Atoms, eagerly: None) -> None:
    atoms = ethanol.copy()
    atoms.set_cell([0, 9, 9])
    atoms.pbc = (False, True, True)
    p = provider(atoms, Acceleration(compile=True, static_edges=True))
    p(atoms.positions, atoms.cell.array)
    assert p.report()["compiled"] and p.report()["padded_edges"] > 72


@pytest.mark.parametrize(("precision", "worst"), [("bfloat16", 2.0**-8), ("float16", 2.0**-11)])
def test_large_products_are_rounded_to_16_bits_and_nothing_else_is(
    ethanol: Atoms, precision: Any, worst: float
) -> None:
    """Every factor is off by half a unit in its last place at most, relative; some product is, and geometry never."""
    wide = Pairs(width=64, inputs=16)
    x, exact = ethanol.get_positions(), GraphProvider(wide, ethanol.numbers)
    a = Acceleration(compile=False, autocast=precision, gate_energy_meV_per_atom=1e3, gate_force_meV_per_A=1e4)
    low = GraphProvider(wide, ethanol.numbers, execution=Execution(acceleration=a))
    right, rounded = exact(x), low(x)
    assert low.report()["autocast"] == precision and not low.report()["compiled"]
    error = np.abs(rounded.forces - right.forces).max() / np.abs(right.forces).max()
    assert 1e-3 * worst < error < 20 * worst
    with pytest.warns(UserWarning, match="runs without acceleration: it differs from the eager model"):
        strict = Acceleration(compile=False, autocast=precision, gate_force_meV_per_A=1e-6)
        p = GraphProvider(wide, ethanol.numbers, execution=Execution(acceleration=strict))
        np.testing.assert_array_equal(p(x).forces, right.forces)


def test_replicas_in_one_call_are_what_they_are_alone(crystal: Atoms, ethanol: Atoms) -> None:
    """Energies, forces, stress and energies by atom, each replica in its own cell."""
    rng = np.random.default_rng(1)
    for atoms in (crystal, ethanol):
        p = provider(atoms, dtype="float64")
        x = atoms.positions + 0.05 * rng.standard_normal((3, len(atoms), 3))
        cells = np.stack([(1 + 0.02 * k) * atoms.cell.array for k in range(3)]) if atoms.pbc.any() else None
        many = p(x, cells)
        alone = stacked([p(y, None if cells is None else cells[k]) for k, y in enumerate(x)])
        same(many, alone, atol=1e-10)
        np.testing.assert_allclose(many.atomic_energies, alone.atomic_energies, atol=1e-12)
        assert many.forces.shape == (3, len(atoms), 3) and (many.stress is not None) == atoms.pbc.all()


def test_replicas_are_split_by_memory(ethanol: Atoms, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven replicas where three fit, and a call that runs out of memory, which is repeated in halves."""
    p, sizes = provider(ethanol), []
    x = ethanol.positions + 0.05 * np.random.default_rng(1).standard_normal((7, 9, 3))
    right = p(x)
    inner = p._side_by_side

    def watched(jobs: Any) -> Any:
        sizes.append(len(jobs))
        if len(jobs) > 2:
            raise torch.OutOfMemoryError("no more")
        return inner(jobs)

    monkeypatch.setattr(p, "_side_by_side", watched)
    p.memory_GB = 3.5 * p._bytes / 1e9
    same(p(x), right)
    assert sizes == [3, 1, 2, 3, 1, 2, 1]


def test_a_module_that_uses_the_cell_in_its_own_way_is_looped_over(crystal: Atoms) -> None:
    class Volume(Pairs):
        def forward(self, positions: Tensor, numbers: Tensor, cell: Tensor, pairs: Tensor, images: Tensor) -> Tensor:
            return super().forward(positions, numbers, cell, pairs, images) * torch.linalg.det(cell)

    p = GraphProvider(Volume(), crystal.numbers, pbc=(True,) * 3)
    x = np.stack([crystal.positions, crystal.positions + 0.01])
    many = p(x, crystal.cell.array)
    assert p._loops
    np.testing.assert_allclose(many.energy[0], p(x[0], crystal.cell.array).energy, rtol=1e-6)


@pytest.mark.parametrize("envelope", [True, False])
def test_edges_are_left_unpruned_where_the_list_dominates_and_they_do_not_matter(
    crystal: Atoms, envelope: bool, eagerly: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pruning made to cost 20 ms. A model without an envelope feels edges beyond the cutoff, and never gets them."""
    prune = NeighborList.__call__

    def slowly(*arguments: Any) -> Any:
        time.sleep(0.02)
        return prune(*arguments)

    monkeypatch.setattr(NeighborList, "__call__", slowly)
    execution = Execution(acceleration=Acceleration(compile=True, skin_A=0.6))
    fast = GraphProvider(Pairs(envelope=envelope), crystal.numbers, pbc=(True,) * 3, execution=execution)
    slow = GraphProvider(Pairs(envelope=envelope), crystal.numbers, pbc=(True,) * 3)
    x, h = crystal.positions, crystal.cell.array
    rng = np.random.default_rng(3)
    for scale in (1.0, 1.0, 1.01, 0.97):  # the list is kept, and built anew
        y = scale * x + 0.05 * rng.standard_normal(x.shape)
        same(fast(y, scale * h), slow(y, scale * h))
    assert fast.report()["edges"] == ("within cutoff + skin" if envelope else "within cutoff")
    assert fast.report()["compiled"] and fast.report()["list_rebuilds"] > 1


def test_the_module_stays_as_it_is(ethanol: Atoms) -> None:
    """Two providers of one module, in two precisions, and the caller's weights still float64 and trainable."""
    module = Pairs().double().train()
    weights = [w.clone() for w in module.parameters()]
    single, double = (
        GraphProvider(module, ethanol.numbers, execution=Execution(dtype=d)) for d in ("float32", "float64")
    )
    x = ethanol.get_positions()
    assert float(single(x).energy) == pytest.approx(float(double(x).energy), abs=1e-4)
    assert module.training and all(w.requires_grad and w.dtype == torch.float64 for w in module.parameters())
    assert all(torch.equal(a, b) for a, b in zip(weights, module.parameters(), strict=True))


def test_energies_of_another_shape_are_refused(ethanol: Atoms) -> None:
    class Odd(Pairs):
        def forward(self, *inputs: Tensor) -> Tensor:
            return super().forward(*inputs)[:3]

    with pytest.raises(InputError, match=r"shape \(3,\)"):
        GraphProvider(Odd(), ethanol.numbers, execution=Execution())(ethanol.get_positions())


def test_a_compiler_that_fails_is_no_end(ethanol: Atoms, monkeypatch: pytest.MonkeyPatch) -> None:
    p = provider(ethanol, Acceleration(compile=True))

    def fails(flat: Any, inputs: Any, options: Any) -> Any:
        raise RuntimeError("no C++ compiler\nlong tail")

    monkeypatch.setattr(compiled_module, "compiled", fails)
    with pytest.warns(UserWarning, match=r"compilation failed \(RuntimeError: no C\+\+ compiler"):
        p(ethanol.get_positions())


def test_auto_waits_until_it_pays(ethanol: Atoms, eagerly: None) -> None:
    """Not before the eager model has cost as much as compiling is reckoned to."""
    p = provider(ethanol, Acceleration())
    p(ethanol.get_positions())
    assert p.function.compilations == 0 and "waiting" in p.report()["because"]
    p.function.seconds["eager"] = 61.0
    p(ethanol.get_positions())
    assert p.function.compilations == 1 and p.report()["because"] == "engaged"


def test_what_depends_on_constants_is_computed_once() -> None:
    """A product of two weights becomes a constant; random numbers and what depends on inputs do not."""
    from torch.fx.experimental.proxy_tensor import make_fx

    a, b = torch.randn(4, 5), torch.randn(5, 4)
    flat = make_fx(lambda x: (x @ (a @ b).relu() + torch.rand_like(a @ b),))(torch.randn(3, 4)[:1].expand(4, 4))
    x = torch.randn(4, 4)
    torch.manual_seed(0)
    (before,) = flat(x)
    compiled_module.fold_constants(flat)
    names = [str(n.target) for n in flat.graph.nodes if n.op == "call_function"]
    assert (
        sum("mm" in n for n in names) == 1 and not any("relu" in n for n in names) and any("rand" in n for n in names)
    )
    torch.manual_seed(0)
    torch.testing.assert_close(flat(x)[0], before)


def follows(module: torch.nn.Module, atoms: Atoms, frames: int = 4) -> dict[str, Any]:
    """Hold the accelerated module to the eager one on several frames; returns what it reports."""
    fast = GraphProvider(module, atoms.numbers, execution=Execution(acceleration=Acceleration(compile=True)))
    slow = GraphProvider(module, atoms.numbers)
    for k in range(frames):
        x = atoms.positions + 0.05 * k * np.random.default_rng(k).standard_normal(atoms.positions.shape)
        same(fast(x), slow(x))
    return fast.report()


def test_constants_that_are_changed_in_place_are_no_constants(ethanol: Atoms, eagerly: None) -> None:
    """A sum that starts from zeros like the atomic numbers, or from a row of a table, starts there at every call."""

    class Sums(Pairs):
        def forward(self, positions: Tensor, numbers: Tensor, cell: Tensor, pairs: Tensor, images: Tensor) -> Tensor:
            energy = torch.zeros_like(numbers, dtype=positions.dtype)
            energy[:] += super().forward(positions, numbers, cell, pairs, images)
            table = torch.arange(10.0)[numbers]
            return table.add_(energy)

    report = follows(Sums(), ethanol)
    assert report["compiled"] and report["energy_deviation_meV_per_atom"] < 0.01


def test_as_many_atoms_as_the_prime_that_stands_for_edges(eagerly: None) -> None:
    """A thin gas with fewer pairs than atoms, 1009 and twice that: the first prime above 1000."""
    for n in (1009, 2018):
        gas = Atoms(f"H{n}", np.random.default_rng(0).uniform(0, 200, (n, 3)))
        assert follows(Pairs(), gas, frames=2)["compiled"]


def test_sizes_that_depend_on_values_are_not_frozen_into_a_graph(ethanol: Atoms, eagerly: None) -> None:
    """A mask keeps as many pairs on the frame the gate sees as when traced, and another number later."""

    class Half(Pairs):
        def forward(self, positions: Tensor, numbers: Tensor, cell: Tensor, pairs: Tensor, images: Tensor) -> Tensor:
            kept = pairs[0] < pairs[1]
            return super().forward(positions, numbers, cell, pairs[:, kept], images[kept])

    class Heavy(Pairs):
        def forward(self, positions: Tensor, numbers: Tensor, cell: Tensor, pairs: Tensor, images: Tensor) -> Tensor:
            return super().forward(positions, numbers, cell, pairs, images)[numbers > 1].sum()

    with pytest.warns(UserWarning, match=r"compilation failed .*index.* depends on values"):
        assert not follows(Half(), ethanol)["compiled"]
    assert follows(Heavy(), ethanol)["compiled"]  # atomic numbers are constants


def test_the_largest_deviation_of_all_graphs_is_told(ethanol: Atoms, monkeypatch: pytest.MonkeyPatch) -> None:
    """Off by 0.5 meV/A for one shape and exact for the next: 0.5."""
    p = provider(ethanol, Acceleration(compile=True, static_edges=True))
    stubbed(monkeypatch, lambda energy, forces: (energy, forces + 0.0005))
    p(1.5 * ethanol.positions)
    stubbed(monkeypatch, lambda energy, forces: (energy, forces))
    p(0.9 * ethanol.positions)
    assert p.function.compilations == 2 and p.report()["compiled"]
    assert p.report()["force_deviation_meV_per_A"] == pytest.approx(0.5, rel=0.1)


def test_inputs_of_a_graph_have_one_order_in_memory(ethanol: Atoms) -> None:
    """Compiled graphs are not asked to look."""
    from mlff_sim.models.graph_batch import Graph, side_by_side

    columns, cell = np.asfortranarray(ethanol.positions), np.asfortranarray(np.diag([9.0, 8.0, 7.0]) + 0.1)
    p = GraphProvider(Pairs(), ethanol.numbers, pbc=(True,) * 3)
    pairs = p.lists[0](columns, cell, p.pbc)
    graph = Graph(p.numbers, columns, pairs[0], np.asfortranarray(pairs[1] @ cell))
    for inputs in (p._inputs(columns, cell), side_by_side([graph], p.device, torch.float32)[0]):
        assert all(t.is_contiguous() for t in inputs)


def test_settings_that_make_no_sense() -> None:
    assert chosen("none").compile is False and chosen("auto") == Acceleration()
    for wrong in (
        {"compile": "maybe"},
        {"skin_A": -1.0},
        {"gate_force_meV_per_A": float("nan")},
        {"autocast": "int8"},
        {"compile_mode": "fast"},
        {"cuda_graphs": True, "compile": False},
        {"cuda_graphs": True, "static_edges": False},
    ):
        with pytest.raises(InputError):
            Acceleration(**wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="'warp' is unknown"):
        chosen("warp")
