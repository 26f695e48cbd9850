"""Heavier hydrogens, elements with frictions of their own, and a centre of mass at rest, from settings to report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms, units
from ase.constraints import FixAtoms
from ase.io import read, write

from mlff_sim import HybridDynamics
from mlff_sim.cli.options import friction
from mlff_sim.errors import InputError
from mlff_sim.report.text import rows as report_rows
from mlff_sim.runfolder import RunData, read_run
from mlff_sim.simulation import Run, RunConfig, run
from mlff_sim.state import kinetic_energy
from mlff_sim.structure import check_free, covalent_bonds, repartitioned_masses
from mlff_sim.units import KB
from mlff_sim.validation import assess
from mlff_sim.validation.assess import _equilibration_ps


def settings(**changes: Any) -> RunConfig:
    return RunConfig(**{"structure": "ethanol", "teacher": "morse", "duration_ps": 0.1, "every": 2, **changes})


def carried_out(folder: Path, **changes: Any) -> RunData:
    return read_run(run(settings(**changes), folder))


# Masses.


def test_mass_moves_within_bonds_and_none_is_lost(ethanol: Atoms) -> None:
    """CH3-CH2-OH at 3 u: each hydrogen takes 3 u less its own from its heavy atom (OpenMM's hydrogenMass)."""
    before = ethanol.get_masses()
    masses = repartitioned_masses(ethanol, covalent_bonds(ethanol), 3.0)
    hydrogens = ethanol.numbers == 1
    np.testing.assert_array_equal(masses[hydrogens], 3.0)
    assert masses.sum() == pytest.approx(before.sum(), abs=1e-12)
    taken = sorted((before - masses)[~hydrogens] / (3.0 - before[hydrogens][0]))
    np.testing.assert_allclose(taken, [1, 2, 3])
    np.testing.assert_array_equal(ethanol.get_masses(), before)
    heavy = ethanol.copy()
    heavy.set_masses(masses)
    np.testing.assert_allclose(repartitioned_masses(heavy, covalent_bonds(heavy), 3.0), masses, rtol=1e-15)


def test_too_heavy_hydrogens_name_the_atom_that_cannot_pay(ethanol: Atoms) -> None:
    with pytest.raises(InputError, match=r"hydrogen_mass = 5 u leaves 0\.\d+ u or less to atom \d \(C\)"):
        repartitioned_masses(ethanol, covalent_bonds(ethanol), 5.0)
    with pytest.raises(InputError, match="needs X-H bonds"):
        repartitioned_masses(Atoms("O2", positions=[[0, 0, 0], [1.2, 0, 0]]), [(0, 1)], 3.0)


@pytest.mark.parametrize("ensemble", ["nve", "nvt"])
def test_every_part_of_a_run_has_the_repartitioned_masses(ensemble: str, tmp_path: Path, ethanol: Atoms) -> None:
    """Kinetic energies in log.h5 and those that ASE makes of trajectory.xyz are of the same masses; K + U is conserved.

    Velocity Verlet has v_n = (x_n+1 - x_n-1) / 2h exactly: p / m of the file is held to that, with its 8 decimals.
    """
    data = carried_out(tmp_path / "run", hydrogen_mass=3.0, ensemble=ensemble, replicas=2, timestep_fs=1.0, every=1)
    masses = np.array(data.settings["structure"]["masses"])
    assert masses.sum() == pytest.approx(ethanol.get_masses().sum()) and masses.max() < 15.0
    kinetic = np.array([kinetic_energy(p, masses) for p in data.momenta])
    np.testing.assert_allclose(data.kinetic_energy, kinetic, rtol=1e-12)
    for r, name in enumerate(("trajectory.xyz", "trajectory-r1.xyz")):
        frames = read(data.folder / name, ":")
        assert isinstance(frames, list) and len(frames) == len(data.time_ps)
        np.testing.assert_allclose([f.get_kinetic_energy() for f in frames], kinetic[:, r], atol=1e-6)
        v = np.array([f.get_velocities() for f in frames[1:-1]])
        x = np.array([f.get_positions() for f in frames])
        error = np.abs(v - (x[2:] - x[:-2]) / (2 * 1.0 * units.fs)).max()
        assert (error < 1e-6) == (ensemble == "nve")
    if ensemble == "nve":
        assert np.ptp(data.conserved[:, 0]) < 0.05 * data.kinetic_energy.mean()
        assert np.abs(data.momenta.sum(axis=2)).max() < 1e-10
    text = [row for row in report_rows(assess([data])) if row.quantity == "Mass of hydrogens"]
    assert len(text) == 1 and text[0].value == "3 u" and "rates are not the molecule's" in text[0].advice


def test_given_velocities_keep_each_atoms_kinetic_energy(tmp_path: Path, ethanol: Atoms) -> None:
    """Momenta drawn for other masses are scaled by the root of the ratio, which is the canonical distribution's way.

    What was at rest as a whole is put to rest again. A frame of a run with heavier hydrogens is taken as it is.
    """
    atoms, rng = ethanol.copy(), np.random.default_rng(0)
    atoms.set_momenta(0.3 * rng.standard_normal((9, 3)) * np.sqrt(atoms.get_masses())[:, None])
    write(tmp_path / "moving.xyz", atoms)
    moving = Run(settings(structure=str(tmp_path / "moving.xyz"), hydrogen_mass=3.0), tmp_path / "a")
    p = moving.start.momenta[0]
    k_before = (read(tmp_path / "moving.xyz").get_momenta() ** 2).sum(axis=1) / (2 * ethanol.get_masses())
    np.testing.assert_allclose((p**2).sum(axis=1) / (2 * moving.masses), k_before, rtol=1e-12)

    first = carried_out(tmp_path / "b", hydrogen_mass=3.0, ensemble="nve", duration_ps=0.01)
    again = str(first.folder / "trajectory.xyz@-1")
    for heavier in (3.0, None):
        follow = Run(settings(structure=again, hydrogen_mass=heavier, ensemble="nve"), tmp_path / "c")
        np.testing.assert_allclose(follow.masses, first.settings["structure"]["masses"], atol=1e-7)
        np.testing.assert_allclose(follow.start.momenta[0], first.momenta[-1, 0], atol=1e-7)
        assert follow.com_removed
    lighter = Run(settings(structure=again, hydrogen_mass=2.0, ensemble="nve"), tmp_path / "d")
    assert lighter.com_removed and np.abs(lighter.start.momenta.sum(axis=1)).max() < 1e-12


def test_hybrid_dynamics_has_the_masses_of_the_atoms(tmp_path: Path, ethanol: Atoms) -> None:
    atoms = ethanol.copy()
    atoms.set_masses(repartitioned_masses(atoms, covalent_bonds(atoms), 3.0))
    atoms.set_momenta(0.3 * np.random.default_rng(3).standard_normal((9, 3)))
    file = tmp_path / "start.xyz"
    write(file, atoms)
    data = carried_out(tmp_path / "run", structure=str(file), ensemble="nve", hydrogen_mass=3.0, duration_ps=0.02)
    start = read(file)
    HybridDynamics(start, 0.5 * units.fs, student="morse", teacher="morse", k_steps=2, compile=False).run(20)
    np.testing.assert_allclose(start.positions, data.positions[-1, 0], atol=1e-6)
    np.testing.assert_allclose(start.get_kinetic_energy(), data.kinetic_energy[-1, 0], atol=1e-6)


@pytest.mark.parametrize(
    "bath", [{"remove_com": True}, {"friction_by_element": {"H": 30.0}, "integrator": "obabo"}], ids=["com", "obabo"]
)
def test_hybrid_dynamics_has_the_bath_of_the_run(bath: dict[str, Any], tmp_path: Path, ethanol: Atoms) -> None:
    """The same numbers from the same seed, so the same states as `run`."""
    atoms, file = ethanol.copy(), tmp_path / "start.xyz"
    p = 0.3 * np.random.default_rng(3).standard_normal((9, 3))
    atoms.set_momenta(p - atoms.get_masses()[:, None] * p.sum(axis=0) / atoms.get_masses().sum())
    write(file, atoms)
    data = carried_out(
        tmp_path / "run", structure=str(file), student="harmonic", k_steps=2, duration_ps=0.02, friction_per_ps=5.0,
        baseline=False, **bath,
    )  # fmt: skip
    start = read(file)
    HybridDynamics(
        start, 0.5 * units.fs, student="harmonic", teacher="morse", k_steps=2, temperature_K=300.0,
        friction_per_ps=5.0, compile=False, **bath,
    ).run(20)  # fmt: skip
    np.testing.assert_allclose(start.positions, data.positions[-1, 0], atol=1e-6)
    still = np.abs(start.get_momenta().sum(axis=0)).max() < 1e-12
    assert still == bath.get("remove_com", False)


# The centre of mass.


def test_a_run_at_constant_temperature_keeps_the_centre_of_mass_at_rest(tmp_path: Path) -> None:
    """From the first row to the last, in the hybrid and through equilibration; the report counts 3n - 3."""
    data = carried_out(
        tmp_path / "run", student="harmonic", k_steps=2, remove_com=True, friction_per_ps=50.0, replicas=2,
        equilibrate_ps=0.02, baseline=False,
    )  # fmt: skip
    assert data.settings["com_removed"] is True
    assert np.abs(data.momenta.sum(axis=2)).max() < 1e-12
    masses = np.array(data.settings["structure"]["masses"])
    drift = np.abs(np.einsum("n,trni->tri", masses, data.positions - data.positions[:1])).max()
    assert drift < 1e-9
    found = assess([data]).main
    assert found.temperatures is not None
    keep = data.time_ps >= found.cut_ps
    total = 2 * data.kinetic_energy[keep].mean() / (KB * (3 * 9 - 3))
    assert found.temperatures.total.mean_K == pytest.approx(total, rel=1e-9)
    free = Run(settings(), tmp_path / "free")
    assert free.com_removed is False and np.abs(free.start.momenta.sum(axis=1)).max() > 0.1


def test_given_velocities_lose_the_motion_of_the_centre_of_mass_when_asked(tmp_path: Path, ethanol: Atoms) -> None:
    atoms = ethanol.copy()
    atoms.set_velocities(np.full((9, 3), 0.01) + 0.01 * np.random.default_rng(0).standard_normal((9, 3)))
    write(tmp_path / "start.xyz", atoms)
    for ensemble in ("nve", "nvt"):
        change = {"structure": str(tmp_path / "start.xyz"), "ensemble": ensemble}
        still, moving = (Run(settings(**change, remove_com=r), tmp_path / "x") for r in (True, False))
        assert still.com_removed and np.abs(still.start.momenta.sum(axis=1)).max() < 1e-12
        assert not moving.com_removed and np.abs(moving.start.momenta.sum(axis=1)).max() > 0.1


# Friction.


def test_friction_on_the_command_line() -> None:
    assert friction("5") == (5.0, {})
    assert friction("5,H=20, O=2.5") == (5.0, {"H": 20.0, "O": 2.5})
    for text in ("", "much", "H=20", "5,H", "5,H=", "5,H=20,H=3", "5,,", "5;H=20"):
        with pytest.raises(InputError, match="no friction; write for instance"):
            friction(text)


def test_elements_have_frictions_of_their_own_in_a_run(tmp_path: Path) -> None:
    """Atoms without friction gain no heat: with a bath on hydrogens only, C and O keep to Verlet's first kicks.

    `results.json` and the cut for equilibration know it, too: the slowest element decides.
    """
    run_ = Run(settings(friction_per_ps=5.0, friction_by_element={"H": 20.0}), tmp_path / "run")
    np.testing.assert_array_equal(run_.friction, np.where(run_.atoms.numbers == 1, 20.0, 5.0))
    run_.run()
    data = read_run(tmp_path / "run")
    assert data.settings["friction_per_ps"] == 5.0 and data.settings["friction_by_element"] == {"H": 20.0}
    times = np.linspace(0, 100, 11)
    for own, slowest in (({"H": 20.0}, 5.0), ({"H": 0.5}, 0.5), ({"H": 2.0, "C": 3.0, "O": 4.0}, 2.0)):
        assert _equilibration_ps({**data.settings, "friction_by_element": own}, times) == pytest.approx(3 / slowest)
    silent, driven = (
        carried_out(tmp_path / f"f{g:g}", friction_per_ps=0.0, friction_by_element={"H": g}, duration_ps=0.001, every=1)
        for g in (0.0, 1e5)
    )
    hydrogens = np.array(silent.settings["structure"]["numbers"]) == 1
    change = np.abs(silent.momenta[1] - driven.momenta[1])[0].max(axis=1)
    assert (change[hydrogens] > 0.1).all() and (change[~hydrogens] < 0.1 * change[hydrogens].min()).all()


# Mistakes.


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hydrogen_mass": 0.5}, "must be at least 1"),
        ({"hydrogen_mass": float("nan")}, "must be at least 1"),
        ({"hydrogen_mass": 5.0}, r"to atom \d \(C\)"),
        ({"friction_by_element": {"H": -1.0}}, "of H must not be negative"),
        ({"friction_by_element": {"N": 1.0}}, "given for N; the structure is C2H6O"),
        ({"friction_by_element": {"H": 1.0}, "remove_com": True}, "needs one friction"),
        ({"integrator": "leapfrog"}, "choose one of: baoab, obabo"),
        ({"integrator": "obabo", "ensemble": "nve"}, "ensemble 'nve' runs another inside"),
        ({"integrator": "obabo", "student": "lj", "scheme": "ghmc"}, "scheme 'ghmc' runs another inside"),
    ],
)
def test_mistakes(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        Run(settings(**change), tmp_path / "run")


def test_constraints_and_virtual_sites_are_refused_by_name(
    ethanol: Atoms, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    """Wherever a structure comes in that is to move: runs, distillation, HybridDynamics; a frame of many is enough."""
    held = ethanol.copy()
    held.set_constraint(FixAtoms([0, 3]))
    write(tmp_path / "held.traj", [ethanol, held])
    site = ethanol + Atoms("X", positions=[[9.0, 9.0, 9.0]])
    write(tmp_path / "site.xyz", site)
    md = ("md", "--model", "lj", "--duration-ps", "0.01", "--out", tmp_path / "out", "--structure")
    distill = ("distill", "--teacher", "morse", "--budget", "5s", "--out", tmp_path / "out", "--structure")
    for words in (md, distill):
        result = cli(*words, tmp_path / "held.traj@1")
        assert result.code == 2 and "FixAtoms; remove them" in result.line
        result = cli(*words, tmp_path / "site.xyz")
        assert result.code == 2 and "atom 9 (X) is a virtual site" in result.line, result
    assert "FixAtoms" in cli(*md, tmp_path / "held.traj@0:2").line
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="atom 9"):
        check_free(site)
    site.calc = None
    with pytest.raises(InputError, match="virtual site"):
        HybridDynamics(site, 0.5 * units.fs, student="lj", teacher="lj")
    with pytest.raises(InputError, match="remove_com is the bath's"):
        HybridDynamics(ethanol.copy(), 0.5 * units.fs, student="lj", teacher="lj", remove_com=True)
