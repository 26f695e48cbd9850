"""MACE through our provider against MACE's own calculator, on a small random model."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule

from mlff_sim.acceleration import Acceleration, Execution
from mlff_sim.errors import InputError
from mlff_sim.models.mace import load_mace
from mlff_sim.models.registry import load_model

pytestmark = pytest.mark.filterwarnings("ignore")  # e3nn and MACE warn on import and on loading
ELEMENTS = [1, 6, 8]


@pytest.fixture(scope="session", params=["ScaleShiftMACE", "MACE"])
def mace_file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A MACE of two layers with random weights, in float64, of either class."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mace import modules  # first: it makes e3nn's constants loadable

        from e3nn import o3  # isort: skip

        torch.manual_seed(3)
        default = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        try:
            scale = {"atomic_inter_scale": 1.3, "atomic_inter_shift": 0.1} if request.param == "ScaleShiftMACE" else {}
            model = getattr(modules, request.param)(
                r_max=3.5,
                num_bessel=4,
                num_polynomial_cutoff=5,
                max_ell=2,
                interaction_cls=modules.interaction_classes["RealAgnosticResidualInteractionBlock"],
                interaction_cls_first=modules.interaction_classes["RealAgnosticInteractionBlock"],
                num_interactions=2,
                num_elements=len(ELEMENTS),
                hidden_irreps=o3.Irreps("8x0e"),
                MLP_irreps=o3.Irreps("4x0e"),
                gate=torch.nn.functional.silu,
                atomic_energies=np.array([-13.0, -1030.0, -2040.0]),
                avg_num_neighbors=6.0,
                atomic_numbers=ELEMENTS,
                correlation=2,
                radial_type="bessel",
                **scale,
            )
        finally:
            torch.set_default_dtype(default)
    path = tmp_path_factory.mktemp("mace") / "small.model"
    torch.save(model, path)
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
    y = x + 0.002 * np.random.default_rng(0).standard_normal(x.shape)
    single, double = (
        (lambda m: float(m(y).energy) - float(m(x).energy))(load_mace(str(mace_file), ethanol, Execution(dtype=dtype)))
        for dtype in ("float32", "float64")
    )
    assert abs(double) > 1e-5
    assert single == pytest.approx(double, abs=5e-6)


@pytest.mark.slow
def test_compiled(mace_file: Path, ethanol: Atoms) -> None:
    model = load_mace(str(mace_file), ethanol, Execution(acceleration=Acceleration(compile=True)))
    answer = model(ethanol.get_positions())
    assert model.report()["compiled"], model.report()
    reference = theirs(mace_file, ethanol)
    assert np.abs(answer.forces - reference.get_forces()).max() < 1e-3  # the gate's 1 meV/A


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
