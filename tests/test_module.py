"""A network of the user's own by name: the same in every engine and verb, and its mistakes explained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from torch.fx.experimental.proxy_tensor import make_fx

from mlff_sim import MLFFCalculator, evaluate_batch, openmm_force
from mlff_sim.acceleration import Execution
from mlff_sim.errors import InputError
from mlff_sim.models.module import bind_module, fingerprint
from mlff_sim.models.registry import load_model
from mlff_sim.models.torchscript_export import script_module

OWN = Path(__file__).parents[1] / "examples" / "own_module.py"
NAME = f"module:{OWN}:build"

CODE = """
import torch

class Wells(torch.nn.Module):
    cutoff = 3.0

    def __init__(self, depth):
        super().__init__()
        self.depth = torch.nn.Parameter(torch.tensor(depth))

    def forward(self, positions, numbers, cell, pairs, images):
        d = positions[pairs[1]] - positions[pairs[0]] + images @ cell
        return -0.5 * self.depth * ((1 - d.square().sum(-1) / 9).clamp(min=0) ** 3).sum()

def build():
    return Wells({depth})

def number():
    return 7

def fails():
    raise RuntimeError("no weights\\nhere")

def changed(**attributes):
    out = build()
    for name, value in attributes.items():
        setattr(out, name, value)
    return out

def nowhere():
    return changed(cutoff=0.0)

def worded():
    return changed(cutoff="far")

def short():
    return changed(forward=lambda positions, numbers: positions.sum())

def bare():
    out = torch.nn.Linear(1, 1)
    return out

def choosy():
    return changed(elements=(1, 6))

def returns(change):
    out = build()
    energy = out.forward
    return changed(forward=lambda positions, numbers, cell, pairs, images: change(
        energy(positions, numbers, cell, pairs, images)))

def named():
    return returns(lambda energy: {"energy": energy})

def cut():
    return returns(lambda energy: energy.detach())

constant = 3
"""


@pytest.fixture
def wells(tmp_path: Path) -> Path:
    path = tmp_path / "wells.py"
    path.write_text(CODE.replace("{depth}", "2.0"))
    return path


def test_a_file_and_a_package_are_the_same_network(
    wells: Path, ethanol: Atoms, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(wells.parent)
    x = ethanol.get_positions()
    file, package = load_model(f"module:{wells}:build", ethanol), load_model("module:wells:build", ethanol)
    d = np.linalg.norm(x[:, None] - x[None], axis=-1)
    expected = -0.5 * 2.0 * ((1 - d**2 / 9).clip(min=0) ** 3)[~np.eye(len(x), dtype=bool)].sum()
    for model in (file, package):
        assert float(model(x).energy) == pytest.approx(expected, rel=1e-5)
    assert file.provenance["sha256"] == package.provenance["sha256"]
    assert file.provenance["factory"] == f"{wells}:build" and package.provenance["factory"] == "wells:build"
    wells.write_text(CODE.replace("{depth}", "2.5"))
    other = load_model(f"module:{wells}:build", ethanol)  # the file as it is now
    assert other.provenance["sha256"] != file.provenance["sha256"]
    assert float(other(x).energy) == pytest.approx(1.25 * expected, rel=1e-5)


def test_the_fingerprint_sees_names_shapes_types_and_values() -> None:
    class Holds(torch.nn.Module):
        def __init__(self, name: str, value: torch.Tensor) -> None:
            super().__init__()
            self.register_buffer(name, value)

        def get_extra_state(self) -> object:
            return {"version": 1}

        def set_extra_state(self, state: object) -> None: ...

    zero = torch.zeros(4)
    seen = [
        fingerprint(Holds(*given))
        for given in (
            ("a", zero),
            ("b", zero),
            ("a", zero.reshape(2, 2)),
            ("a", zero.to(torch.int32)),
            ("a", zero + 1),
            ("a", torch.tensor(True)),
        )
    ]
    assert len(set(seen)) == len(seen)
    assert fingerprint(Holds("a", torch.zeros(4))) == seen[0]


def test_it_moves_in_both_engines_and_in_a_verb(ethanol: Atoms, cli: Callable[..., Any], tmp_path: Path) -> None:
    pytest.importorskip("openmm")
    from test_openmm import answer, context, topology

    atoms = ethanol.copy()
    atoms.calc = MLFFCalculator(NAME, dtype="float64")
    energy, forces = answer(context(ethanol, openmm_force(NAME, topology(ethanol), dtype="float64")))
    assert energy == pytest.approx(atoms.get_potential_energy(), rel=1e-8)
    np.testing.assert_allclose(forces, atoms.get_forces(), atol=1e-8)
    assert np.abs(forces).max() > 0.1
    out = tmp_path / "run"
    settings = ("--ensemble", "nve", "--duration-ps", "0.02")
    result = cli("md", "--structure", "ethanol", "--model", NAME, *settings, "--out", out)
    assert result.code in (0, 3) and (out / "log.h5").exists(), result


def test_the_example_can_be_traced_for_any_number_of_edges() -> None:
    """Energy and gradient as one flat graph, traced for one number of edges and right for another."""
    water = molecule("H2O", cell=[6, 6, 6], pbc=True) * (2, 2, 1)
    model = load_model(NAME, water, Execution(dtype="float64"))
    network, numbers = model.module, torch.from_numpy(model.numbers)

    def energy_and_gradient(*inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x, box, pairs, images = inputs
        x = x.detach().requires_grad_(True)
        energy = network(x, numbers, box, pairs, images).sum()
        return energy.detach(), torch.autograd.grad(energy, x)[0]

    def inputs(edges: int, seed: int) -> tuple[torch.Tensor, ...]:
        rng = np.random.default_rng(seed)
        i, j, images = rng.integers(12, size=edges), rng.integers(12, size=edges), rng.integers(1, 3, size=(edges, 3))
        x = water.positions + 0.1 * rng.standard_normal((12, 3))
        pairs = np.stack([i, j])
        return tuple(torch.from_numpy(a) for a in (x, 3.0 * np.eye(3), pairs, images.astype(float)))

    # The weights stay tensors of their own in the graph, hence the last argument.
    graph = make_fx(energy_and_gradient, tracing_mode="symbolic", _allow_non_fake_inputs=True)(*inputs(300, 0))
    for edges in (300, 41, 700):
        given = inputs(edges, edges)
        for ours, expected in zip(graph(*given), energy_and_gradient(*given), strict=True):
            torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)
            assert expected.abs().max() > 0.01


def test_edges_at_the_cutoff_and_beyond_are_worth_nothing() -> None:
    """The envelope is exactly zero there, and flat: energy and forces are continuous when a pair comes or goes."""
    pair = Atoms("CO", positions=[[0, 0, 0], [1, 0, 0]])
    model = load_model(NAME, pair, Execution(dtype="float64"))
    network, numbers = model.module, torch.from_numpy(model.numbers)

    def energy(r: float, edges: bool = True) -> float:
        pairs = torch.tensor([[0, 1], [1, 0]]) if edges else torch.zeros(2, 0, dtype=torch.long)
        x = torch.tensor([[0.0, 0, 0], [r, 0, 0]], dtype=torch.float64)
        shift = torch.zeros(pairs.shape[1], 3, dtype=torch.float64)
        return float(network(x, numbers, torch.eye(3, dtype=torch.float64), pairs, shift).sum())

    apart, cutoff = energy(9.0, edges=False), model.cutoff
    assert cutoff is not None
    assert energy(cutoff) == apart == energy(cutoff + 2) and energy(2.0) != pytest.approx(apart, abs=1e-3)
    assert abs(energy(cutoff - 1e-3) - apart) < 1e-8  # falls with the third power


@pytest.mark.parametrize(
    ("factory", "words"),
    [
        ("number", "gives an object of the class int; a torch.nn.Module with forward"),
        ("fails", r"failed to build its module \(RuntimeError: no weights here\)"),
        ("nowhere", "cutoff of a Wells is 0.0; it must be positive"),
        ("worded", "cutoff of a Wells is 'far'"),
        ("short", r"forward\(positions, numbers\) of a Wells should be forward"),
        ("bare", "a Linear needs an attribute `cutoff`"),
        ("choosy", "does not know the element O; it knows H, C"),
        ("constant", "is no callable; it must take no argument and return a torch.nn.Module"),
        ("missing", "cannot be loaded .*has no attribute 'missing'"),
    ],
)
def test_a_factory_that_cannot_be_used_is_explained(factory: str, words: str, wells: Path, ethanol: Atoms) -> None:
    with pytest.raises(InputError, match=words) as error:
        load_model(f"module:{wells}:{factory}", ethanol)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("factory", "words"), [("named", "returned a dict; a tensor"), ("cut", "leave out detach")])
def test_an_energy_that_cannot_be_used_is_explained(factory: str, words: str, wells: Path, ethanol: Atoms) -> None:
    """With and without stress, alone, in a batch and on the way out."""
    name, crystal = f"module:{wells}:{factory}", bulk("NaCl", "rocksalt", a=5.64)
    for atoms in (ethanol, crystal):
        atoms = atoms.copy()
        atoms.calc = MLFFCalculator(name)
        with pytest.raises(InputError, match=words):
            atoms.get_forces()
    with pytest.raises(InputError, match=words):
        evaluate_batch(name, [ethanol, ethanol[:3]])
    with pytest.raises(InputError, match=words):
        script_module(load_model(name, ethanol), ethanol)


def test_an_ase_factory_of_something_else_is_explained(wells: Path, ethanol: Atoms) -> None:
    for factory, words in (("number", "class int, no ASE calculator"), ("build", "class Wells, no ASE calculator")):
        with pytest.raises(InputError, match=words):
            load_model(f"ase:{wells}:{factory}", ethanol)


def test_a_file_that_cannot_be_used_is_explained(tmp_path: Path, ethanol: Atoms) -> None:
    (tmp_path / "broken.py").write_text("def build(:\n")
    (tmp_path / "needs.py").write_text("import no_such_package\n")
    for file, words in {
        "broken.py": "cannot be loaded .*SyntaxError",
        "needs.py": "cannot be loaded .*No module named 'no_such_package'.*does the file run by itself",
        "absent.py": "cannot be loaded .*no such file",
    }.items():
        with pytest.raises(InputError, match=words) as error:
            load_model(f"module:{tmp_path / file}:build", ethanol)
        assert "\n" not in str(error.value)
    for name, words in {
        "module": "should read module:package.module:factory",
        "module:nothing": "incomplete; write module:package.module:factory or module:file.py:factory",
        "module:no.such.package:f": "is the module on the Python path",
    }.items():
        with pytest.raises(InputError, match=words):
            load_model(name, ethanol)


def test_an_ase_calculator_can_come_from_a_file_too(tmp_path: Path, ethanol: Atoms) -> None:
    (tmp_path / "calc.py").write_text("from ase.calculators.emt import EMT\n")
    model = load_model(f"ase:{tmp_path / 'calc.py'}:EMT", ethanol)
    expected = load_model("ase:ase.calculators.emt:EMT", ethanol)
    np.testing.assert_array_equal(model(ethanol.positions).forces, expected(ethanol.positions).forces)


def test_a_module_object_is_checked_in_the_same_way(ethanol: Atoms, wells: Path) -> None:
    from test_graph import Pairs

    module = Pairs()
    module.elements = (1, 6)  # type: ignore[assignment]
    atoms = ethanol.copy()
    atoms.calc = MLFFCalculator(module)
    with pytest.raises(InputError, match="does not know the element O; it knows H, C"):
        atoms.get_forces()
    with pytest.raises(InputError, match="class dict"):
        bind_module({}, ethanol)  # type: ignore[arg-type]
