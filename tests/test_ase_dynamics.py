"""`HybridDynamics`: ASE's protocol around the engine of `mlff-sim hybrid`."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms, units
from ase.calculators.lj import LennardJones
from ase.constraints import FixAtoms
from ase.io import read
from ase.md.velocitydistribution import Stationary
from ase.md.verlet import VelocityVerlet

from mlff_sim import HybridDynamics, MLFFCalculator, RunConfig, run
from mlff_sim.errors import InputError, SimulationStopped
from mlff_sim.models.registry import load_model
from mlff_sim.runfolder import read_run


@pytest.fixture
def moving(ethanol: Atoms) -> Atoms:
    atoms = ethanol.copy()
    rng = np.random.default_rng(5)
    atoms.set_momenta(0.1 * rng.standard_normal((9, 3)) * np.sqrt(atoms.get_masses())[:, None])
    Stationary(atoms)
    return atoms


def test_with_the_teacher_as_student_it_is_asses_verlet(moving: Atoms) -> None:
    """No residual: k steps of velocity Verlet, to rounding, after 100 inner steps."""
    plain = moving.copy()
    plain.calc = MLFFCalculator("morse")
    VelocityVerlet(plain, 0.5 * units.fs).run(100)
    dynamics = HybridDynamics(moving, 0.5 * units.fs, student="morse", teacher="morse", k_steps=4)
    dynamics.run(25)
    np.testing.assert_allclose(moving.positions, plain.positions, atol=1e-9)
    np.testing.assert_allclose(moving.get_momenta(), plain.get_momenta(), atol=1e-9)
    assert dynamics.nsteps == 25 and dynamics.get_time() == pytest.approx(100 * 0.5 * units.fs)


@pytest.mark.parametrize("scheme", ["respa", "mollified", "ghmc"])
def test_it_is_what_the_command_line_runs(scheme: str, moving: Atoms, tmp_path: Path, student_file: Path) -> None:
    """The same states as `run`, bit for bit, at constant energy; at constant temperature for "ghmc"."""
    file = tmp_path / "start.xyz"
    moving.write(file)
    start = read(file)
    kelvin = 300.0 if scheme == "ghmc" else None
    config = RunConfig(
        str(file),
        "morse",
        str(student_file),
        ensemble="nvt" if kelvin else "nve",
        k_steps=2,
        duration_ps=0.008,
        friction_per_ps=5.0,
        scheme=scheme,
        baseline=False,
        compile=False,
        every=1,
        seed=4,
    )
    rows = read_run(run(config, tmp_path / "run"))
    seen: list[Any] = []
    dynamics = HybridDynamics(
        start, 0.5 * units.fs, student=str(student_file), teacher="morse", k_steps=2, scheme=scheme,
        temperature_K=kelvin, friction_per_ps=5.0, seed=4, compile=False,
    )  # fmt: skip
    dynamics.attach(
        lambda: seen.append((start.get_positions(), start.get_potential_energy(), start.get_kinetic_energy()))
    )
    dynamics.run(8)
    np.testing.assert_allclose([x for x, _, _ in seen], rows.positions[:, 0], atol=1e-9)
    np.testing.assert_allclose([u for _, u, _ in seen], rows.potential_energy[:, 0], atol=1e-6)
    np.testing.assert_allclose([k for _, _, k in seen], rows.kinetic_energy[:, 0], atol=1e-6)
    assert (dynamics.acceptance is not None) == (scheme == "ghmc")


def test_logs_and_observers_cost_no_call(moving: Atoms, toys: Any, tmp_path: Path) -> None:
    """A log line, a trajectory frame and three looks at each outer step: 11 teacher calls for 10 steps."""
    morse = load_model("morse", moving)
    teacher = toys.counted(morse)
    dynamics = HybridDynamics(
        moving, 0.5 * units.fs, student="harmonic", teacher=teacher, k_steps=5,
        logfile=str(tmp_path / "md.log"), trajectory=str(tmp_path / "md.traj"),
    )  # fmt: skip
    dynamics.attach(lambda: (moving.get_potential_energy(), moving.get_forces(), moving.get_total_energy()))
    dynamics.run(10)
    assert teacher.calls == 11
    frames = read(tmp_path / "md.traj", ":")
    assert len(frames) == 11 and len((tmp_path / "md.log").read_text().splitlines()) == 12
    for frame in (frames[0], frames[-1]):
        expected = morse(frame.positions)
        assert frame.get_potential_energy() == pytest.approx(float(expected.energy), abs=1e-9)
        np.testing.assert_allclose(frame.get_forces(), expected.forces, atol=1e-9)
    elsewhere = moving.copy()
    elsewhere.calc = moving.calc
    elsewhere.positions += 0.01
    assert elsewhere.get_potential_energy() == pytest.approx(float(morse(elsewhere.positions).energy))
    assert teacher.calls == 12


def test_energy_fluctuates_with_the_square_of_the_step(moving: Atoms) -> None:
    """Half the inner step, and so half the outer one, over the same time: a quarter of the fluctuation of K + U."""
    spread = []
    for h in (0.2, 0.1):
        atoms = moving.copy()
        energies: list[float] = []
        dynamics = HybridDynamics(atoms, h * units.fs, student="harmonic", teacher="morse", k_steps=4)
        dynamics.attach(lambda atoms=atoms, energies=energies: energies.append(atoms.get_total_energy()))
        dynamics.run(round(40 / (4 * h)))
        spread.append(np.std(energies))
    assert 3.5 < spread[0] / spread[1] < 4.5


def test_momenta_turned_round_lead_back(moving: Atoms) -> None:
    """Reversibility, with an observer's change of momenta noticed."""
    x0 = moving.get_positions()
    dynamics = HybridDynamics(moving, 0.25 * units.fs, student="harmonic", teacher="morse", k_steps=4)
    dynamics.run(40)
    moved = np.abs(moving.positions - x0).max()
    moving.set_momenta(-moving.get_momenta())
    dynamics.run(40)
    assert moved > 0.01 and np.abs(moving.positions - x0).max() < 1e-9


def test_the_atoms_own_calculator_is_the_teacher(moving: Atoms) -> None:
    moving.calc = LennardJones(sigma=1.0, epsilon=0.001, rc=8.0)
    reference = moving.get_potential_energy()
    dynamics = HybridDynamics(moving, 0.5 * units.fs, student="harmonic", k_steps=2)
    assert moving.get_potential_energy() == pytest.approx(reference)
    dynamics.run(3)
    assert dynamics.stepper.forces.calls["teacher"] == 4


def test_what_observers_change_is_taken_up(moving: Atoms, toys: Any) -> None:
    """New momenta at the same positions cost no call and reset no count; atoms heated on purpose are no runaway."""
    teacher = toys.counted(load_model("morse", moving))
    settings: Any = {"student": "harmonic", "teacher": teacher, "k_steps": 2}
    dynamics = HybridDynamics(moving, 0.5 * units.fs, scheme="ghmc", temperature_K=300.0, **settings)
    dynamics.attach(lambda: moving.set_momenta(-moving.get_momenta()))
    dynamics.run(10)
    assert teacher.calls == 11 and dynamics.stepper.proposals == 10
    hot = moving.copy()
    dynamics = HybridDynamics(hot, 0.2 * units.fs, **settings)
    limit = dynamics._temperature.limit_K[0].min()
    hot.set_momenta(5 * hot.get_momenta())
    assert hot.get_temperature() > limit
    dynamics.run(2)
    hot.set_constraint(FixAtoms([0]))
    with pytest.raises(InputError, match="FixAtoms"):
        dynamics.run(1)


def test_the_calculator_outlives_its_dynamics(moving: Atoms, tmp_path: Path) -> None:
    """Atoms are copied whole while a log is open; another dynamics takes the teacher, not what was conserved before."""
    morse = load_model("morse", moving)
    moving.rattle(0.03, seed=2)
    dynamics = HybridDynamics(
        moving, 0.2 * units.fs, student="harmonic", teacher=morse, k_steps=2, scheme="mollified",
        logfile=str(tmp_path / "md.log"),
    )  # fmt: skip
    dynamics.run(2)
    energy = moving.get_potential_energy()
    assert deepcopy(moving).get_potential_energy() == energy
    HybridDynamics(moving, 0.2 * units.fs, student="harmonic", k_steps=2)
    truth = float(morse(moving.positions).energy)
    assert abs(energy - truth) > 1e-3 and moving.get_potential_energy() == pytest.approx(truth, abs=1e-9)


def test_mistakes(moving: Atoms, cli: Callable[..., Any]) -> None:
    def make(**changes: Any) -> HybridDynamics:
        given = {"timestep": 0.5 * units.fs, "student": "harmonic", "teacher": "morse"} | changes
        return HybridDynamics(given.pop("atoms", moving), given.pop("timestep"), **given)

    box, held, bare = moving.copy(), moving.copy(), Atoms("Ar2", positions=[[0, 0, 0], [0, 0, 4.0]])
    box.set_cell([9, 9, 9])
    box.pbc = True
    held.set_constraint(FixAtoms([0]))
    for changes, words in (
        ({"atoms": box}, "periodic"),
        ({"atoms": held}, "constraints, and the atoms have FixAtoms"),
        ({"teacher": None}, "which teacher"),
        ({"k_steps": 0}, "k_steps = 0"),
        ({"k_steps": "auto", "scheme": "ghmc", "temperature_K": 300}, "HybridDynamics has no warm-up to find it in"),
        ({"scheme": "magic"}, "'magic' is unknown"),
        ({"scheme": "ghmc"}, "constant temperature"),
        ({"timestep": -1.0}, "timestep_fs"),
        ({"student": "no-such-student"}, "does not exist"),
        ({"atoms": bare, "student": "lj", "teacher": "lj", "scheme": "mollified"}, "needs X-H bonds"),
    ):
        with pytest.raises(InputError, match=words):
            make(**changes)
    hot = make(timestep=20 * units.fs, k_steps=2)
    with pytest.raises(SimulationStopped):
        hot.run(200)
