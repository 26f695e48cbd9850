"""Every kind of model behind the one seam, and the registry that finds them."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.calculators.calculator import Calculator

from mlff_sim.errors import InputError, MissingExtra
from mlff_sim.forces import Evaluation, ForceProvider, check_provider, evaluate
from mlff_sim.models import registry
from mlff_sim.models.analytic import Harmonic
from mlff_sim.models.ase_backed import AseProvider
from mlff_sim.models.registry import ModelFamily, families, load_model, resolve


def argon() -> Atoms:
    """Five argon atoms near the minimum distance of the pair potential, 3.8 A."""
    x = 3.8 * np.array([[0, 0, 0], [1, 0, 0], [0.5, 0.87, 0], [0.5, 0.29, 0.82], [1.5, 0.9, 0.2]])
    return Atoms("Ar5", positions=x)


def strained(atoms: Atoms) -> Atoms:
    """Off the minimum, where forces are not zero."""
    out = atoms.copy()
    out.set_positions(atoms.get_positions() + 0.03 * np.random.default_rng(4).standard_normal((len(atoms), 3)))
    return out


def test_the_check_finds_what_is_wrong(ethanol: Atoms) -> None:
    """Each law is broken once, and named."""
    x = strained(ethanol).get_positions()

    class Wrong(Harmonic):
        """Harmonic bonds with one thing changed."""

        def __init__(self, fault: str) -> None:
            good = load_model("harmonic", ethanol)
            super().__init__(ethanol.numbers, np.stack([good.i, good.j], axis=1), good.r0)
            self.fault = fault

        def __call__(self, positions: Any, cell: Any = None, /) -> Evaluation:
            e = super().__call__(positions)
            if self.fault == "gradient":
                return Evaluation(e.energy, 1.01 * e.forces)
            if self.fault == "translation":
                return Evaluation(e.energy + 0.05 * (positions**2).sum((-1, -2)), e.forces - 0.1 * positions)
            if self.fault == "rotation":
                field = np.zeros(3)
                field[0] = 0.3
                return Evaluation(e.energy - 0.3 * positions[..., 0].sum(-1), e.forces + field)
            if self.fault == "batch" and positions.ndim == 3:
                return Evaluation(e.energy, e.forces[::-1])
            return e

    for fault, expected in {
        "gradient": {"gradient"},
        "translation": {"translation"},
        "rotation": {"rotation"},
        "batch": {"batch"},
    }.items():
        failures = set(check_provider(Wrong(fault), x).failures)
        assert expected <= failures, (fault, failures)
    assert check_provider(Wrong("none"), x).failures == []
    assert check_provider(Wrong("none"), x, permutation=True).failures == ["permutation"]


def test_what_cannot_batch_is_looped_over() -> None:
    provider = load_model("ase:ase.calculators.lj:LennardJones", argon())
    assert not provider.batched
    x = np.stack([strained(argon()).get_positions(), argon().get_positions()])
    both = evaluate(provider, x)
    assert both.energy.shape == (2,) and both.forces.shape == x.shape
    for k in range(2):
        np.testing.assert_array_equal(both.forces[k], provider(x[k]).forces)


def test_an_ase_calculator_gives_its_own_numbers() -> None:
    from ase.calculators.emt import EMT

    atoms = molecule("CH3CH2OH")
    provider = load_model("ase:ase.calculators.emt:EMT", atoms)
    atoms.calc = EMT()
    assert provider(atoms.get_positions()).energy == pytest.approx(atoms.get_potential_energy(), abs=1e-12)
    np.testing.assert_allclose(provider(atoms.get_positions()).forces, atoms.get_forces(), atol=1e-12)


def test_stress_of_an_ase_calculator_is_kept_where_it_has_a_meaning() -> None:
    """ASE's own numbers for a crystal, none for a slab or a molecule, none from a calculator that has none."""
    from ase.calculators.emt import EMT

    crystal = strained(bulk("Cu", cubic=True))
    answer = load_model("ase:ase.calculators.emt:EMT", crystal)(crystal.positions, 1.01 * crystal.cell.array)
    own = crystal.copy()
    own.set_cell(1.01 * crystal.cell.array)
    own.calc = EMT()
    assert answer.stress is not None and answer.atomic_energies is not None
    np.testing.assert_array_equal(answer.stress, own.get_stress())
    np.testing.assert_array_equal(answer.atomic_energies, own.get_potential_energies())
    for atoms in (fcc111("Cu", (2, 2, 2), vacuum=5.0), molecule("H2O")):
        assert load_model("ase:ase.calculators.emt:EMT", atoms)(atoms.positions, atoms.cell.array).stress is None
    for kind in (Stressless, Moody):
        answer = AseProvider(crystal, kind, "theirs")(crystal.positions, crystal.cell.array)
        assert answer.stress is None and answer.atomic_energies is None and answer.forces.shape == (4, 3)


class Stressless(Calculator):
    """Energy and forces only."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012 (as ASE declares it)

    def calculate(self, atoms: Any = None, properties: Any = (), system_changes: Any = ()) -> None:
        super().calculate(atoms, properties, system_changes)
        self.results = {"energy": 1.0, "forces": np.zeros((len(self.atoms), 3))}


class Moody(Stressless):
    """Says that it has a stress, and then has none."""

    implemented_properties = ["energy", "forces", "stress"]  # noqa: RUF012


def test_lennard_jones_is_the_textbook_function() -> None:
    """-epsilon at 2^(1/6) sigma, zero at sigma, no force at the minimum."""
    provider = load_model("lj", Atoms("Ar2", positions=[[0, 0, 0], [1, 0, 0]]))
    for r, energy in ((3.4 * 2 ** (1 / 6), -0.0103), (3.4, 0.0)):
        result = provider(np.array([[0.0, 0, 0], [r, 0, 0]]))
        assert result.energy == pytest.approx(energy, abs=1e-15)
    assert np.abs(provider(np.array([[0.0, 0, 0], [3.4 * 2 ** (1 / 6), 0, 0]])).forces).max() < 1e-15


# The teacher is a function of positions.


def path(atoms: Atoms, steps: int = 8) -> np.ndarray:
    """Frames along a straight line to a strained geometry, some hundredths of an A apart."""
    d = 0.15 * np.random.default_rng(9).standard_normal((len(atoms), 3))
    return atoms.get_positions() + np.linspace(0, 1, steps)[:, None, None] * d


def test_warm_starts_do_not_show_in_the_forces(ethanol: Atoms, gfn2: ForceProvider) -> None:
    """Forces from a warm SCF against those from scratch, along a path: below 0.01 meV/A (0.002 when this was written)."""
    frames = path(ethanol)
    warm = [gfn2(x).forces for x in frames]
    cold = []
    for x in frames:
        gfn2.reset()
        cold.append(gfn2(x).forces)
    change = np.abs(np.array(warm) - np.array(cold)).max()
    assert 0 < change < 1e-5, "eV/A; exactly zero would mean that nothing was warm"


def test_reset_makes_evaluations_bit_identical(ethanol: Atoms, gfn2: ForceProvider) -> None:
    frames = path(ethanol)
    results = []
    for history in ([], [frames[-1]], [frames[3], frames[5]]):
        for x in history:
            gfn2(x)
        gfn2.reset()
        results.append(gfn2(frames[1]))
    assert len({(float(r.energy), r.forces.tobytes()) for r in results}) == 1


def test_each_replica_has_a_guess_of_its_own(ethanol: Atoms, gfn2: ForceProvider) -> None:
    """Replicas in one batch are, bit for bit, what separate teachers with the same histories say."""
    a, b = path(ethanol), path(ethanol)[::-1]
    together = [gfn2(np.stack([x, y])) for x, y in zip(a, b, strict=True)]
    for replica, frames in enumerate((a, b)):
        alone = load_model("gfn2-xtb", ethanol)
        for k, x in enumerate(frames):
            one = alone(x[None])
            np.testing.assert_array_equal(one.forces[0], together[k].forces[replica])
            assert one.energy[0] == together[k].energy[replica]


def test_charge_and_spin_come_from_the_structure() -> None:
    """An ammonium ion has other energies than a molecule of the same atoms would; impossible spins are refused."""
    ammonium = molecule("NH3")
    ammonium.append("H")
    ammonium.positions[-1] = ammonium.positions[0] + [0, 0, 1.05]
    with pytest.raises(InputError, match="11 electrons cannot have multiplicity 1"):
        load_model("gfn2-xtb", ammonium)
    ammonium.info["charge"] = 1
    assert load_model("gfn2-xtb", ammonium).provenance["charge"] == 1
    ammonium.info.update(charge=0, spin=2)
    assert load_model("gfn2-xtb", ammonium).provenance["spin"] == 2


# The registry.


def test_an_unknown_name_lists_the_known_ones(ethanol: Atoms) -> None:
    with pytest.raises(InputError) as error:
        load_model("gfn3-xtb", ethanol)
    assert "unknown model 'gfn3-xtb'" in str(error.value)
    for known in (
        "gfn1-xtb",
        "gfn2-xtb",
        "mmff",
        "ase:package.module:factory",
        "student:FILE",
        "lj",
        "harmonic",
        "morse",
    ):
        assert known in str(error.value)


def test_an_argument_is_asked_for_and_not_ignored() -> None:
    for name in ("student", "ase", "gfn2-xtb:fast", "student:"):
        with pytest.raises(InputError, match="should read"):
            resolve(name)


def test_third_party_models_are_found(ethanol: Atoms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that registers an entry point is used by name, and listed."""
    (tmp_path / "their_models.py").write_text(
        "from mlff_sim.models.analytic import LennardJones\n"
        "from mlff_sim.models.registry import ModelFamily\n"
        "soft = ModelFamily(lambda argument, atoms, execution: LennardJones(atoms.numbers, float(argument)), 'soft spheres', argument='EPS')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    real = registry.entry_points
    theirs = EntryPoint("soft", "their_models:soft", registry.GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [*real(group=group), theirs])
    assert "soft" in families() and "gfn2-xtb" in families()
    provider = load_model("soft:0.5", ethanol)
    assert provider.provenance == {"name": "lj", "epsilon": 0.5, "sigma": 3.4}
    with pytest.raises(InputError, match="soft:EPS"):
        resolve("nothing")


def test_a_third_party_that_does_not_import_harms_nobody_else(
    ethanol: Atoms, cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = registry.entry_points
    theirs = EntryPoint("odd", "no_such_package.models:odd", registry.GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [*real(group=group), theirs])
    listing = cli("models")
    assert listing.code == 0 and "broken" in listing.out and "gfn2-xtb" in listing.out
    with pytest.raises(InputError, match=r"'odd' is registered, but no_such_package.models:odd cannot be loaded"):
        load_model("odd", ethanol)
    assert load_model("harmonic", ethanol) is not None


def test_a_missing_package_is_named_with_its_extra(ethanol: Atoms, monkeypatch: pytest.MonkeyPatch) -> None:
    family = ModelFamily(
        lambda argument, atoms, execution: Harmonic(atoms.numbers, [], []),
        "needs more",
        requires=("no_such_module",),
        extra="more",
    )
    monkeypatch.setattr(registry, "entry_points", lambda group: [Stub("odd", family)])
    assert family.missing == ["no_such_module"]
    with pytest.raises(MissingExtra, match=r"pip install 'mlff-sim\[more\]'"):
        load_model("odd", ethanol)


class Stub:
    """An entry point that is already loaded."""

    def __init__(self, name: str, family: ModelFamily) -> None:
        self.name, self.family = name, family

    def load(self) -> ModelFamily:
        return self.family


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ase:nothing", "incomplete"),
        ("ase:no.such.module:f", "cannot be loaded"),
        ("ase:ase.calculators.emt:NoSuch", "cannot be loaded"),
        ("ase:ase.units:fs", "no callable"),
        ("ase:ase.calculators.lj:wrong:thing", "cannot be loaded"),
        ("ase:math:sqrt", "failed to build"),
    ],
)
def test_a_factory_that_cannot_be_used_is_explained(name: str, words: str, ethanol: Atoms) -> None:
    with pytest.raises(InputError, match=words) as error:
        load_model(name, ethanol)
    assert "\n" not in str(error.value)


def test_bonded_models_need_bonds() -> None:
    with pytest.raises(InputError, match="no covalent bonds"):
        load_model("harmonic", argon())
