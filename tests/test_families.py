"""The laws of a force field, for every family of the registry: register one, and a case has to be added here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from test_mace import save_small_mace
from test_providers import argon, strained

from mlff_sim.acceleration import Execution
from mlff_sim.forces import Evaluation, ForceProvider, check_provider
from mlff_sim.models.registry import families, load_model
from mlff_sim.models.torchscript_export import export_torchscript

EXAMPLES = Path(__file__).parents[1] / "examples"


@dataclass
class Case:
    """A model and a structure that suits it, off any minimum.

    Attributes:
        permutation: True if like atoms can be exchanged; False for models that know their atoms.
        dtype: of networks whose file does not say.
        tolerance: eV/A, None for the default of `check_provider`.
    """

    name: str
    atoms: Atoms
    permutation: bool = True
    dtype: str = "float64"
    tolerance: float | None = None


def ethanol() -> Atoms:
    return strained(molecule("CH3CH2OH"))


def water() -> Atoms:
    """Two molecules in a cell narrower than the cutoffs."""
    return strained(molecule("H2O", cell=[3.1, 3.2, 3.0], pbc=True) * (2, 1, 1))


def copper() -> Atoms:
    return strained(bulk("Cu", cubic=True))


def rock_salt() -> Atoms:
    return strained(bulk("NaCl", "rocksalt", a=5.64, cubic=True))


def small_mace(folder: Path) -> str:
    save_small_mace(folder / "small.model")
    return f"mace:{folder / 'small.model'}"


def exported(folder: Path, atoms: Atoms) -> Case:
    """The network of the example as a TorchScript file for these atoms."""
    network = load_model(f"module:{EXAMPLES / 'own_module.py'}:build", atoms, Execution(dtype="float64"))
    file = folder / f"{atoms.get_chemical_formula()}.pt"
    export_torchscript(network, file, atoms)
    return Case(f"torchscript:{file}", atoms)


CASES: dict[str, Callable[[Path, Path, Atoms], list[Case]]] = {
    "gfn2-xtb": lambda tmp, student, shipped: [Case("gfn2-xtb", ethanol())],
    "gfn1-xtb": lambda tmp, student, shipped: [Case("gfn1-xtb", ethanol())],
    # A molecule of which the quadrature's orientation does not show: that of water turns the forces by 0.2 meV/A.
    "dft": lambda tmp, student, shipped: [Case("dft:b3lyp/sto-3g", strained(molecule("H2")))],
    "mmff": lambda tmp, student, shipped: [Case("mmff", ethanol(), permutation=False)],
    "harmonic": lambda tmp, student, shipped: [Case("harmonic", shipped, permutation=False)],
    "morse": lambda tmp, student, shipped: [Case("morse", shipped, permutation=False)],
    "lj": lambda tmp, student, shipped: [Case("lj", strained(argon()))],
    "ase": lambda tmp, student, shipped: [
        Case("ase:ase.calculators.emt:EMT", ethanol()),
        Case("ase:ase.calculators.emt:EMT", copper()),
    ],
    # The energies of this network are below 1 eV, the large shift is added in float64: rounding is far below 1e-3.
    "student": lambda tmp, student, shipped: [
        Case(f"student:{student}", shipped, permutation=False, dtype="float32", tolerance=1.1e-3)
    ],
    "mace": lambda tmp, student, shipped: [Case(small_mace(tmp), ethanol()), Case(small_mace(tmp), water())],
    "module": lambda tmp, student, shipped: [
        Case(f"module:{EXAMPLES / 'own_module.py'}:build", atoms) for atoms in (ethanol(), water())
    ],
    "torchscript": lambda tmp, student, shipped: [exported(tmp, ethanol()), exported(tmp, water())],
    "chgnet": lambda tmp, student, shipped: [Case("chgnet", rock_salt(), dtype="float32")],
}
MOLECULES_ONLY = {"gfn2-xtb", "gfn1-xtb", "dft", "mmff", "harmonic", "morse", "lj", "student"}


@pytest.mark.filterwarnings("ignore")  # e3nn, MACE and pymatgen warn when they are imported
@pytest.mark.parametrize("family", sorted(families()))
def test_forces_and_stress_are_derivatives_of_the_energy(
    family: str, request: pytest.FixtureRequest, student_file: Path, tmp_path: Path
) -> None:
    """Gradient, strain, translation, rotation, exchange of like atoms, batch; in a crystal and in a molecule."""
    assert family in CASES, f"the family '{family}' is registered and has no case in {Path(__file__).name}"
    if families()[family].missing:
        pytest.skip(f"{families()[family].missing} is not installed")
    periodic = []
    for case in CASES[family](tmp_path, student_file, request.getfixturevalue("ethanol")):
        atoms, execution = case.atoms, Execution(dtype=case.dtype)
        provider = load_model(case.name, atoms, execution)
        assert isinstance(provider, ForceProvider)
        assert provider.name.split(":")[0] == case.name.split(":")[0]
        assert np.array_equal(provider.numbers, atoms.numbers)
        x, cell = strained(atoms).positions, atoms.cell.array if atoms.pbc.any() else None
        check = check_provider(provider, x, cell, permutation=case.permutation, tolerance=case.tolerance)
        assert check.failures == [], check
        assert check.tolerance < 2e-3 if case.dtype == "float32" else check.tolerance == 1e-4
        answer = provider(x) if cell is None else provider(x, cell)
        assert np.abs(answer.forces).max() > 20 * check.tolerance, "laws of small forces would say nothing"
        if atoms.pbc.all():
            assert answer.stress is not None and check.stress is not None
            assert np.abs(answer.stress).max() * atoms.get_volume() ** (2 / 3) > 20 * check.tolerance
        if answer.atomic_energies is not None:
            rounding = np.finfo(case.dtype).eps * np.abs(answer.atomic_energies).sum()
            assert answer.atomic_energies.sum() == pytest.approx(float(answer.energy), abs=4 * rounding)
        periodic.append(bool(atoms.pbc.all()))
    assert any(periodic) or family in MOLECULES_ONLY, "what can describe a crystal is asked for its stress"


def test_no_case_is_left_over() -> None:
    assert set(CASES) <= set(families()) and set(CASES) >= MOLECULES_ONLY


@pytest.mark.parametrize("order", [[1, 0, 2, 3, 4, 5], [0, 1, 2, 4, 3, 5], [0, 1, 2, 3, 5, 4]])
def test_a_wrong_stress_is_found(order: list[int]) -> None:
    """Two components exchanged, or the sign turned, in a crystal where no two are equal."""
    atoms = water()
    inner = load_model(f"module:{EXAMPLES / 'own_module.py'}:build", atoms, Execution(dtype="float64"))

    class Wrong:
        numbers, dtype, batched = inner.numbers, inner.dtype, False

        def __init__(self, change: Callable[[np.ndarray], np.ndarray]) -> None:
            self.change = change

        def __call__(self, positions: np.ndarray, cell: np.ndarray, /) -> Evaluation:
            answer = inner(positions, cell)
            assert answer.stress is not None
            return replace(answer, stress=self.change(answer.stress))

    x, cell = strained(atoms).positions, atoms.cell.array
    for change, failures in ((lambda s: s, []), (lambda s: s[order], ["stress"]), (lambda s: -s, ["stress"])):
        assert check_provider(Wrong(change), x, cell).failures == failures  # type: ignore[arg-type]
