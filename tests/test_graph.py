"""Graph networks as providers: one backward pass for everything, and a gate for whatever makes it faster."""

from __future__ import annotations

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
from mlff_sim.forces import check_provider
from mlff_sim.models.graph import GraphProvider

EAGER = Acceleration(compile=False)


class Pairs(torch.nn.Module):
    """Atomic energies from a small network on pair distances, with an envelope that is zero beyond the cutoff."""

    def __init__(self, cutoff: float = 4.0, envelope: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cutoff, self.envelope = cutoff, envelope
        self.net = torch.nn.Sequential(torch.nn.Linear(3, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))

    def forward(self, positions: Tensor, numbers: Tensor, cell: Tensor, pairs: Tensor, images: Tensor) -> Tensor:
        d = positions[pairs[1]] - positions[pairs[0]] + images @ cell
        r = d.norm(dim=-1)
        z = numbers.to(r.dtype)
        e = self.net(torch.stack([r, z[pairs[0]] / 10, z[pairs[1]] / 10], -1))[:, 0]
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


def test_compiled_it_says_the_same_and_is_compiled_anew_for_more_edges(crystal: Atoms) -> None:
    """Squeezed by 8 % the crystal has more pairs than the padding holds; expanding again changes nothing."""
    fast, slow = provider(crystal, Acceleration(compile=True)), provider(crystal)
    compilations = []
    for scale in (1.0, 1.005, 0.92, 1.0, 0.93):
        x, h = scale * crystal.positions, scale * crystal.cell.array
        a, b = fast(x, h), slow(x, h)
        assert float(a.energy) == pytest.approx(float(b.energy), abs=1e-5)
        np.testing.assert_allclose(a.forces, b.forces, atol=1e-5)
        assert a.stress is not None and b.stress is not None
        np.testing.assert_allclose(a.stress, b.stress, atol=1e-7)
        compilations.append(fast.compilations)
    assert compilations == [1, 1, 2, 2, 2]
    report = fast.report()
    assert report["compiled"] and report["because"] == "engaged" and report["compile_s"] > 0
    assert report["force_deviation_meV_per_A"] < 0.1 and report["compiled_ms"] > 0
    assert slow.report()["because"] == "compile = False" and not slow.report()["compiled"]


def test_a_broken_graph_does_not_pass_the_gate(ethanol: Atoms, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiled model whose forces are off by 2 meV/A: one warning with the figures, and the eager answers."""
    p, truth = provider(ethanol, Acceleration(compile=True)), provider(ethanol)(ethanol.get_positions())

    def built(inputs: Any) -> Any:
        def broken(*tensors: Tensor) -> Any:
            with torch.inference_mode(False), torch.enable_grad():
                energy, forces, virial = p._graph(*(t.clone() for t in tensors))
            return energy, forces + 0.002, virial

        return broken

    monkeypatch.setattr(p, "_built", built)
    with pytest.warns(UserWarning, match=r"differs from the eager model by .* and 2 meV/A, and 0.1 and 1 are allowed"):
        answer = p(ethanol.get_positions())
    np.testing.assert_array_equal(answer.forces, truth.forces)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        p(ethanol.get_positions() + 0.01)
    assert p.report()["compiled"] is False and p.report()["force_deviation_meV_per_A"] == pytest.approx(2, rel=1e-3)


def test_a_model_without_an_envelope_is_not_padded_behind_its_back(
    ethanol: Atoms, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Edges beyond the cutoff contribute there, so padding changes the energy; the gate notices (no compiler needed)."""
    p = GraphProvider(
        Pairs(envelope=False), ethanol.numbers, execution=Execution(acceleration=Acceleration(compile=True))
    )

    def eager(*tensors: Tensor) -> Any:
        with torch.inference_mode(False), torch.enable_grad():
            return p._graph(*(t.clone() for t in tensors))

    monkeypatch.setattr(p, "_built", lambda inputs: eager)
    with pytest.warns(UserWarning, match="differs from the eager model"):
        p(ethanol.get_positions())
    assert not p.report()["compiled"]


def stubbed(p: GraphProvider, monkeypatch: pytest.MonkeyPatch, change: Any) -> None:
    """In place of a compiled graph, the eager one with its answers changed."""

    def graph(*tensors: Tensor) -> Any:
        with torch.inference_mode(False), torch.enable_grad():
            return change(*p._graph(*(t.clone() for t in tensors)))

    monkeypatch.setattr(p, "_built", lambda inputs: graph)


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
    stubbed(p, monkeypatch, change)
    with pytest.warns(UserWarning, match="differs from the eager model"):
        p(crystal.positions, crystal.cell.array)
    assert not p.report()["compiled"]


def test_padding_does_without_the_first_cell_vector(ethanol: Atoms, monkeypatch: pytest.MonkeyPatch) -> None:
    atoms = ethanol.copy()
    atoms.set_cell([0, 9, 9])
    atoms.pbc = (False, True, True)
    p = provider(atoms, Acceleration(compile=True))
    stubbed(p, monkeypatch, lambda *answer: answer)
    p(atoms.positions, atoms.cell.array)
    assert p.report()["compiled"] and p.report()["padded_edges"] > 72


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

    def fails(inputs: Any) -> Any:
        raise RuntimeError("no C++ compiler\nlong tail")

    monkeypatch.setattr(p, "_built", fails)
    with pytest.warns(UserWarning, match=r"compilation failed \(RuntimeError: no C\+\+ compiler"):
        p(ethanol.get_positions())


def test_auto_waits_until_it_pays(ethanol: Atoms, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not before the eager model has cost as much as compiling is reckoned to."""
    p, compiled = provider(ethanol, Acceleration()), []
    monkeypatch.setattr(p, "_compile", lambda *a: compiled.append(a))
    p(ethanol.get_positions())
    assert not compiled and "waiting" in p.report()["because"]
    p.seconds["eager"] = 61.0
    p(ethanol.get_positions())
    assert len(compiled) == 1


def test_settings_that_make_no_sense() -> None:
    assert chosen("none").compile is False and chosen("auto") == Acceleration()
    for wrong in ({"compile": "maybe"}, {"skin_A": -1.0}, {"gate_force_meV_per_A": float("nan")}):
        with pytest.raises(InputError):
            Acceleration(**wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="'warp' is unknown"):
        chosen("warp")
