"""MACE through our provider against MACE's own calculator, on a small random model."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule

from mlff_sim.acceleration import Acceleration, Execution
from mlff_sim.errors import InputError
from mlff_sim.models import compiled as compiled_module
from mlff_sim.models.contraction import FoldedContraction
from mlff_sim.models.mace import load_mace
from mlff_sim.models.registry import load_model

pytestmark = pytest.mark.filterwarnings("ignore")  # e3nn and MACE warn on import and on loading
ELEMENTS = [1, 6, 8]


def save_small_mace(path: Path, kind: str = "ScaleShiftMACE") -> None:
    """A MACE of two layers with random weights, in float64, of either class; products up to three-fold and vectors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mace import modules  # first: it makes e3nn's constants loadable

        from e3nn import o3  # isort: skip

        torch.manual_seed(3)
        default = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        try:
            scale = {"atomic_inter_scale": 1.3, "atomic_inter_shift": 0.1} if kind == "ScaleShiftMACE" else {}
            model = getattr(modules, kind)(
                r_max=3.5,
                num_bessel=4,
                num_polynomial_cutoff=5,
                max_ell=2,
                interaction_cls=modules.interaction_classes["RealAgnosticResidualInteractionBlock"],
                interaction_cls_first=modules.interaction_classes["RealAgnosticInteractionBlock"],
                num_interactions=2,
                num_elements=len(ELEMENTS),
                hidden_irreps=o3.Irreps("4x0e + 4x1o" if scale else "8x0e"),
                MLP_irreps=o3.Irreps("4x0e"),
                gate=torch.nn.functional.silu,
                atomic_energies=np.array([-13.0, -1030.0, -2040.0]),
                avg_num_neighbors=6.0,
                atomic_numbers=ELEMENTS,
                correlation=3 if scale else 2,
                radial_type="bessel",
                **scale,
            )
        finally:
            torch.set_default_dtype(default)
    torch.save(model, path)


@pytest.fixture(scope="session", params=["ScaleShiftMACE", "MACE"])
def mace_file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mace") / "small.model"
    save_small_mace(path, request.param)
    return path


def theirs(path: Path, atoms: Atoms, dtype: str = "float64") -> Atoms:
    from mace.calculators import MACECalculator

    default = torch.get_default_dtype()
    copy = atoms.copy()
    copy.calc = MACECalculator(model_paths=str(path), device="cpu", default_dtype=dtype)
    copy.get_forces()
    torch.set_default_dtype(default)
    return copy


def test_molecule_in_float64(mace_file: Path, ethanol: Atoms) -> None:
    model, ref = load_mace(str(mace_file), ethanol, Execution(dtype="float64")), theirs(mace_file, ethanol)
    answer = model(ethanol.get_positions())
    assert float(answer.energy) == pytest.approx(ref.get_potential_energy(), abs=1e-9)
    np.testing.assert_allclose(answer.forces, ref.get_forces(), atol=1e-11)
    assert np.abs(answer.forces).max() > 0.01 and answer.stress is None
    assert model.provenance["sha256"] and model.provenance["dtype"] == "float64"


def test_periodic_water_in_float64(mace_file: Path) -> None:
    """A cell narrower than the cutoff, with stress and energies by atom."""
    water = molecule("H2O", cell=[3.1, 3.2, 3.0], pbc=True) * (2, 1, 1)
    water.rattle(0.05, seed=4)
    ref = theirs(mace_file, water)
    answer = load_mace(str(mace_file), water, Execution(dtype="float64"))(water.positions, water.cell.array)
    assert float(answer.energy) == pytest.approx(ref.get_potential_energy(), abs=1e-9)
    np.testing.assert_allclose(answer.forces, ref.get_forces(), atol=1e-11)
    np.testing.assert_allclose(answer.stress, ref.get_stress(), atol=1e-12)
    np.testing.assert_allclose(answer.atomic_energies, ref.get_potential_energies(), atol=1e-9)


def test_float32_keeps_energy_differences(mace_file: Path, ethanol: Atoms) -> None:
    """Near -4200 eV a float32 has steps of 0.5 meV; the isolated atoms are added in float64, so ours are finer."""
    x = ethanol.get_positions()
    y = x + 0.01 * np.random.default_rng(0).standard_normal(x.shape)
    single, double = (
        (lambda m: float(m(y).energy) - float(m(x).energy))(load_mace(str(mace_file), ethanol, Execution(dtype=dtype)))
        for dtype in ("float32", "float64")
    )
    assert abs(double) > 1e-5
    assert single == pytest.approx(double, abs=5e-6)


def test_a_model_of_charges_is_refused(mace_file: Path, ethanol: Atoms, tmp_path: Path) -> None:
    module = torch.load(mace_file, weights_only=False)
    module.embedding_specs = {"total_charge": {}, "total_spin": {}}
    torch.save(module, tmp_path / "charged.model")
    with pytest.raises(InputError, match="also takes total_charge, total_spin"):
        load_mace(str(tmp_path / "charged.model"), ethanol)


def test_contractions_are_folded_and_take_any_power(mace_file: Path) -> None:
    """Scaled features: a contraction is a polynomial, so its value and gradient must follow MACE's own at every scale."""
    module = torch.load(mace_file, weights_only=False)
    for product in module.products:
        for contraction in product.symmetric_contractions.contractions:
            rows = torch.tensor([2, 0, 1, 0])
            ell = contraction.U_tensors(1).shape[-2]
            features = torch.randn(4, contraction.num_features, ell, dtype=torch.float64)
            one_hot = torch.eye(3, dtype=torch.float64)[rows]
            folded = FoldedContraction(contraction, rows)
            for scale in (0.1, 1.0, 7.0):
                answers = []
                for call in (partial(contraction, y=one_hot), folded):
                    x = (scale * features).requires_grad_(True)
                    y = call(x)
                    answers += [y.detach(), torch.autograd.grad(y.square().sum(), x)[0]]
                torch.testing.assert_close(answers[2], answers[0], rtol=1e-10, atol=1e-12)
                torch.testing.assert_close(answers[3], answers[1], rtol=1e-10, atol=1e-12)


def test_the_flat_graph_is_for_any_number_of_edges(
    mace_file: Path, ethanol: Atoms, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TorchScript inside, sizes freed: bent, stretched and torn apart, one graph and the answers of the module."""
    monkeypatch.setattr(compiled_module, "compiled", lambda flat, inputs, options: flat)
    x, execution = ethanol.get_positions(), Execution(dtype="float64", acceleration=Acceleration(compile=True))
    fast, slow = (load_mace(str(mace_file), ethanol, e) for e in (execution, Execution(dtype="float64")))
    for scale in (1.0, 0.9, 1.4, 5.0):
        a, b = fast(scale * x), slow(scale * x)
        assert float(a.energy) == pytest.approx(float(b.energy), abs=1e-9)
        np.testing.assert_allclose(a.forces, b.forces, atol=1e-10)
    assert fast.report()["compiled"] and fast.function.compilations == 1
    many = slow(np.stack([x, 0.9 * x, 1.4 * x]))
    np.testing.assert_allclose(many.forces[1], slow(0.9 * x).forces, atol=1e-10)
    assert not slow._loops


@pytest.mark.slow
@pytest.mark.parametrize("mace_file", ["MACE"], indirect=True)  # one compilation; the other's graph is tested above
def test_compiled(mace_file: Path, ethanol: Atoms) -> None:
    model = load_mace(str(mace_file), ethanol, Execution(acceleration=Acceleration(compile=True)))
    for scale in (1.0, 0.95):
        atoms = ethanol.copy()
        atoms.positions *= scale
        answer = model(atoms.positions)
        reference = theirs(mace_file, atoms)
        assert np.abs(answer.forces - reference.get_forces()).max() < 1e-3  # the gate's 1 meV/A
    assert model.report()["compiled"] and model.report()["compilations"] == 1, model.report()


def test_loading_leaves_the_process_as_it_was(mace_file: Path) -> None:
    """`import mace` lets every later torch.load run code, unless told otherwise; `load_mace` undoes that."""
    code = (
        "import os, torch\nfrom mlff_sim import load_model, read_structure\n"
        f"load_model('mace:{mace_file}', read_structure('ethanol'))\n"
        "assert 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD' not in os.environ\n"
        "assert torch.get_default_dtype() is torch.float32\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout == "" and done.stderr == "", done


def test_mistakes(mace_file: Path, ethanol: Atoms, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not know the element S; it knows H, C, O"):
        load_model(f"mace:{mace_file}", molecule("SH2"))
    with pytest.raises(InputError, match="does not exist"):
        load_model("mace:/no/such.model", ethanol)
    (tmp_path / "junk.model").write_bytes(b"junk" * 100)
    with pytest.raises(InputError, match="cannot be read as a MACE model"):
        load_model(f"mace:{tmp_path / 'junk.model'}", ethanol)
    torch.save({"a": 1}, tmp_path / "dict.model")
    with pytest.raises(InputError, match="holds a dict, which is no MACE model"):
        load_model(f"mace:{tmp_path / 'dict.model'}", ethanol)
    with pytest.raises(InputError, match="should read mace:FILE"):
        load_model("mace", ethanol)


def test_in_openmm(mace_file: Path) -> None:
    """Through openmm-ml, against MACE's own calculator; an element it does not know is named before the first step."""
    pytest.importorskip("openmm")
    potential = pytest.importorskip("openmmml").MLPotential("mlff-sim", model=f"mace:{mace_file}", dtype="float64")
    from test_openmm import answer, topology
    from test_openmm_ml import started

    ethanol = molecule("CH3CH2OH")
    ethanol.rattle(0.05, seed=3)
    energy, forces = answer(started(potential.createSystem(topology(ethanol)), ethanol))
    expected = theirs(mace_file, ethanol)
    assert energy == pytest.approx(expected.get_potential_energy(), abs=1e-8)
    np.testing.assert_allclose(forces, expected.get_forces(), atol=1e-7)
    with pytest.raises(InputError, match="does not know the element S; it knows H, C, O"):
        potential.createSystem(topology(molecule("CH3SH")))
