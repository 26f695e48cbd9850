"""Mistakes in what a model is asked for: one line each, from the calculator and by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from mlff_sim import MLFFCalculator
from mlff_sim.acceleration import Execution
from mlff_sim.errors import InputError
from mlff_sim.models.registry import families, load_model
from mlff_sim.structure import charge_and_spin, check_elements, whole

OWN = f"module:{Path(__file__).parents[1] / 'examples' / 'own_module.py'}:build"


def water(**info: Any) -> Atoms:
    atoms = molecule("H2O", cell=[6.0, 6.0, 6.0])
    atoms.info.update(info)
    return atoms


def slab() -> Atoms:
    atoms = water()
    atoms.pbc = (True, True, False)
    return atoms


def without_cell() -> Atoms:
    return Atoms("CO", positions=[[0, 0, 0], [0, 0, 1.1]], pbc=True)


MISTAKES: dict[str, tuple[str, Callable[[], Atoms], dict[str, Any], str]] = {
    "mixed-xtb": ("gfn2-xtb", slab, {}, "molecules in vacuum here; the structure is periodic"),
    "mixed-lj": (
        "lj",
        slab,
        {},
        r"periodic along \(False, False, False\) and the structure along \(True, True, False\)",
    ),
    "mixed-student": ("student:aspirin-gfn2", slab, {}, "is for C9H8O4; the structure is H2O"),
    "mixed-chgnet": ("chgnet", slab, {}, r"CHGNet describes crystals .*\(True, True, False\)"),
    "no-cell": (OWN, without_cell, {}, "cell vectors are zero or not independent"),
    "no-model-mace": ("mace:TEXT", water, {}, "cannot be read as a MACE model"),
    "no-model-student": ("student:TEXT", water, {}, "no safetensors file"),
    "no-model-module": ("module:TEXT:build", water, {}, "cannot be loaded"),
    "element-module": (OWN, lambda: bulk("Cu"), {}, "does not know the element Cu; it knows H, C, N, O"),
    "element-chgnet": ("chgnet", lambda: bulk("Po", "sc", a=3.4), {}, "does not know the element Po"),
    "element-xtb": ("gfn2-xtb", lambda: Atoms("Fm"), {"charge": 0}, "for the elements Fm"),
    "charge-too-large": ("gfn2-xtb", water, {"charge": 11}, "charge = 11 is more than the nuclei of H2O have, 10"),
    "charge-too-large-in-info": ("lj", lambda: water(charge=11), {}, "charge = 11 is more than"),
    "charge-half": ("gfn2-xtb", lambda: water(charge=0.5), {}, "charge = 0.5 must be a whole number"),
    "spin-half": ("gfn2-xtb", lambda: water(spin=1.5), {}, "spin.* = 1.5 must be a whole number of at least 1"),
    "spin-zero": ("gfn2-xtb", lambda: water(spin=0), {}, "spin = 0 must be a whole number of at least 1"),
    "spin-too-large": ("gfn2-xtb", water, {"spin": 13}, "spin = 13 needs 12 unpaired electrons; H2O has 10 in all"),
    "spin-that-does-not-fit": ("gfn2-xtb", water, {"spin": 2}, "10 electrons cannot have multiplicity 2"),
    "cuda-xtb": ("gfn2-xtb", water, {"device": "cuda"}, "'gfn2-xtb' runs on the CPU only, and device = 'cuda'"),
    "dft-without-basis": ("dft:b3lyp", water, {}, "'dft:b3lyp' should read dft:FUNCTIONAL/BASIS, e.g. dft:b3lyp/def2"),
    "dft-without-functional": ("dft:/def2-svp", water, {}, "should read dft:FUNCTIONAL/BASIS"),
    "dft-functional": ("dft:b4lyp/def2-svp", water, {}, "does not know the functional 'b4lyp' .*e.g. b3lyp"),
    "dft-basis": ("dft:b3lyp/def9-svp", water, {}, "no basis 'def9-svp' for the element H; give one it has"),
    "dft-element": ("dft:b3lyp/def2-svp", lambda: Atoms("Fm"), {}, "no basis 'def2-svp' for the element Fm"),
    "dft-dispersion": ("dft:b3lyp-d3bj/def2-svp", water, {}, "has dispersion or non-local correlation added"),
    "dft-nonlocal": ("dft:wb97m-v/def2-svp", water, {}, "has dispersion or non-local correlation added"),
    "dft-periodic": ("dft:b3lyp/def2-svp", slab, {}, "molecules in vacuum here; the structure is periodic"),
    "dft-spin": ("dft:b3lyp/def2-svp", water, {"spin": 2}, "10 electrons cannot have multiplicity 2"),
    "cuda-dft": ("dft:b3lyp/def2-svp", water, {"device": "cuda"}, "runs on the CPU only, and device = 'cuda'"),
    "cuda-lj": ("lj", water, {"device": "cuda:1"}, "'lj' runs on the CPU only, and device = 'cuda:1'"),
    "cuda-ase": ("ase:ase.calculators.emt:EMT", water, {"device": "cuda"}, "runs on the CPU only"),
    "cuda-99-chgnet": ("chgnet", lambda: bulk("Cu"), {"device": "cuda:99"}, "device = 'cuda:99' is asked for"),
    "cuda-99": (OWN, water, {"device": "cuda:99"}, "device = 'cuda:99' is asked for and PyTorch sees .* GPU"),
}


@pytest.mark.filterwarnings("ignore")  # MACE and pymatgen warn when they are imported
@pytest.mark.parametrize("mistake", MISTAKES)
def test_one_line_that_says_what_and_why(mistake: str, tmp_path: Path) -> None:
    name, structure, settings, words = MISTAKES[mistake]
    text = tmp_path / "text.py"
    text.write_text("no model, but a text\n" * 5)
    family = families()[name.partition(":")[0]]
    if family.missing:
        pytest.skip(f"{family.missing} is not installed")
    atoms = structure()
    atoms.calc = MLFFCalculator(name.replace("TEXT", str(text)), **settings)
    with pytest.raises(InputError, match=words) as error:
        atoms.get_forces()
    assert "\n" not in str(error.value) and len(str(error.value)) < 500


def test_the_calculator_refuses_a_multiplicity_below_one() -> None:
    for spin in (0, -1, 0.5):
        with pytest.raises(InputError, match=r"spin = .* must be a whole number of at least 1"):
            MLFFCalculator("lj", spin=spin)  # type: ignore[arg-type]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there() -> None:
    from test_graph import Pairs

    with pytest.raises(InputError, match="device = 'cuda' is asked for and PyTorch sees no GPU here; say 'cpu' or"):
        load_model(OWN, water(), Execution("cuda"))
    atoms = water()
    atoms.calc = MLFFCalculator(Pairs(), device="cuda")
    with pytest.raises(InputError, match="PyTorch sees no GPU here"):
        atoms.get_forces()


def test_auto_and_cpu_are_for_every_model() -> None:
    for device in ("auto", "cpu"):
        assert np.isfinite(float(load_model("lj", water(), Execution(device))(water().positions).energy))


def test_charge_and_spin_are_whole_wherever_they_are_read() -> None:
    """Fractions used to be cut off by name: charge 0.9 was 0."""
    with pytest.raises(InputError, match=r"charge = 0\.9 must be a whole number"):
        load_model("gfn2-xtb", water(charge=0.9))
    model = load_model("gfn2-xtb", water(charge=1.0, spin=np.float64(2)))
    assert model.provenance["charge"] == 1 and model.provenance["spin"] == 2
    assert charge_and_spin(Atoms("H", info={"charge": 1})) == (1, 1)  # a proton has no electrons, and one state
    assert whole("2", "n", least=2) == 2
    for wrong in (None, "two", float("inf"), [1, 2], 1):
        with pytest.raises(InputError, match=r"n = .* must be a whole number of at least 2"):
            whole(wrong, "n", least=2)


def test_known_elements_are_listed_briefly() -> None:
    check_elements([1, 8], [1, 6, 8], "it")
    with pytest.raises(InputError, match=r"it does not know the element N; it knows H, C, O\.$"):
        check_elements([1, 7, 9], [8, 6, 1], "it")
    with pytest.raises(InputError, match=r"it knows H to Be, C, N, O, Na to Si, Fe\.$"):
        check_elements([5], [1, 2, 3, 4, 6, 7, 8, 11, 12, 13, 14, 26], "it")
