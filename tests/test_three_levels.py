"""A third model between the two: student at every step, middle model now and then, teacher at the outer points."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms, units

from mlff_sim import HybridDynamics
from mlff_sim.errors import InputError
from mlff_sim.forces import ForceProvider
from mlff_sim.integrators.stepper import Langevin, Stepper
from mlff_sim.models.analytic import Harmonic, PairModel
from mlff_sim.models.registry import load_model
from mlff_sim.runfolder import read_run
from mlff_sim.simulation import RunConfig, run
from mlff_sim.simulation.assembly import Dynamics, assemble
from mlff_sim.state import State, kinetic_energy

EPS = np.finfo(np.float64).eps


@pytest.fixture
def models(ethanol: Atoms) -> dict[str, ForceProvider]:
    """A Morse teacher, a harmonic student of the wrong stiffness, and one in between that is less wrong."""
    morse, soft = load_model("morse", ethanol), load_model("harmonic", ethanol)
    assert isinstance(soft, PairModel)
    bonds = np.stack([soft.i, soft.j], axis=1)
    stiff = Harmonic(ethanol.numbers, bonds, soft.r0, k=2 * morse.depth * morse.a**2)
    return {"teacher": morse, "student": soft, "middle": stiff}


def stepper(
    models: dict[str, ForceProvider], start: State, masses: Any, k: int, m: int | None, h_fs: float = 0.5, **more: Any
) -> Stepper:
    return assemble(Dynamics("respa", h_fs, k, compile=False, middle_steps=m), models, masses, start, **more)


def growth(ends: Callable[[State], State], start: State) -> float:
    """By how much a small displacement of the start has grown at the end, at least 1."""
    d = 1e-7 * np.random.default_rng(5).standard_normal(start.positions.shape)
    apart = ends(State(start.positions + d, start.momenta)).positions - ends(start).positions
    return float(max(1.0, np.abs(apart).max() / np.abs(d).max()))


def test_each_model_is_asked_at_its_own_steps(
    models: dict[str, ForceProvider], thermal: Callable[..., State], ethanol: Atoms, toys: Any
) -> None:
    """Six inner steps, the middle model every two: 6, 3 and 1 calls in an outer step, and one each at the start."""
    counted = {name: toys.counted(model) for name, model in models.items()}
    s = stepper(counted, thermal(), ethanol.get_masses(), 6, 2)
    outer = [s.state.positions[0]]
    for _ in range(4):
        s.step()
        outer.append(s.state.positions[0])
    assert s.forces.calls == {"teacher": 5, "middle": 4 * 3 + 1, "student": 4 * 6 + 1}
    assert {name: model.calls for name, model in counted.items()} == s.forces.calls
    np.testing.assert_array_equal(np.array(counted["teacher"].asked), np.array(outer))
    np.testing.assert_array_equal(np.array(counted["middle"].asked)[::3], np.array(outer))


@pytest.mark.parametrize(("same", "k", "m", "two"), [("student", 6, 2, 6), ("teacher", 6, 2, 2)])
@pytest.mark.parametrize("bath", [False, True])
def test_a_middle_model_that_is_one_of_the_two_leaves_two_levels(
    same: str,
    k: int,
    m: int,
    two: int,
    bath: bool,
    models: dict[str, ForceProvider],
    thermal: Callable[..., State],
    ethanol: Atoms,
) -> None:
    """If it is the student, its kicks are zero; if it is the teacher, the teacher's are: the same points, to rounding.

    Each of 96 inner steps rounds positions two or three times, and what is rounded grows as any displacement does.
    """
    masses, start = ethanol.get_masses(), thermal()

    def ends(models: dict[str, ForceProvider], k: int, m: int | None, begin: State = start) -> State:
        s = stepper(models, begin, masses, k, m, bath=Langevin(300.0, 5.0, 1, 1) if bath else None)
        for _ in range(96 // k):
            s.step()
        return s.state

    three = ends({**models, "middle": models[same]}, k, m)
    pair = ends({name: models[name] for name in ("teacher", "student")}, two, None)
    grown = growth(lambda begin: ends(models, k, m, begin), start)
    tolerance = 3 * 96 * EPS * np.abs(start.positions).max() * grown
    assert np.abs(three.positions - pair.positions).max() < tolerance
    assert np.abs(three.positions - start.positions).max() > 0.01
    other = ends(models, k, m)
    assert np.abs(other.positions - pair.positions).max() > 1e3 * tolerance, "or any middle model would do"


def test_it_conserves_k_plus_u_teacher_to_second_order(
    models: dict[str, ForceProvider], thermal: Callable[..., State], ethanol: Atoms
) -> None:
    """Halving all steps divides the error of K + U_teacher by four, as for two levels (test_dynamics.py).

    The next order is (wH)^2 (1/4 + wt/12) of the first, three times that is allowed; the outer step is 0.25 fs and the
    fastest modes, stretches of C-H and O-H with k = 2 D a^2 = 33 eV/A^2, have w = 0.6 / fs.
    """
    masses, teacher = ethanol.get_masses(), models["teacher"]

    def error(h_fs: float) -> float:
        s = stepper(models, thermal(temperature_K=600), masses, 4, 2, h_fs)
        energies = []
        for step in range(round(4.0 / (4 * h_fs)) + 1):
            if step:
                s.step()
            if step % round(0.5 / (4 * h_fs)) == 0:
                energies.append(kinetic_energy(s.state.momenta, masses)[0] + teacher(s.state.positions[0]).energy)
                assert s.potential()[0] == pytest.approx(teacher(s.state.positions[0]).energy, abs=1e-12)
        return float(np.linalg.norm(np.array(energies) - energies[0]))

    next_order = (0.6 * 0.25) ** 2 * (1 / 4 + 0.6 * 4 / 12)
    assert abs(error(0.0625) / error(0.03125) - 4) < 4 * 3 * next_order


def test_reversing_the_momenta_leads_back(
    models: dict[str, ForceProvider], thermal: Callable[..., State], ethanol: Atoms
) -> None:
    """600 drifts, each of which rounds positions (eps / 2 relative), and what is rounded grows as displacements do."""

    def after(start: State, steps: int = 100) -> State:
        one = stepper(models, start, ethanol.get_masses(), 6, 2)
        for _ in range(steps):
            one.step()
        return one.state

    s = stepper(models, thermal(temperature_K=600), ethanol.get_masses(), 6, 2)
    start = s.state
    for _ in range(50):
        s.step()
    assert np.abs(s.state.positions - start.positions).max() > 0.05
    s.restart(State(s.state.positions, -s.state.momenta), None)
    for _ in range(50):
        s.step()
    tolerance = 600 * EPS * np.abs(start.positions).max() * growth(after, start)
    assert tolerance < 1e-9
    assert np.abs(s.state.positions - start.positions).max() < tolerance


@pytest.fixture
def config(student_file: Path) -> RunConfig:
    return RunConfig(
        "ethanol",
        "gfn2-xtb",
        str(student_file),
        middle="morse",
        middle_steps=2,
        k_steps=4,
        duration_ps=0.02,
        friction_per_ps=5.0,
        every=1,
        compile=False,
        seed=2,
    )


def test_a_run_with_three_models_says_what_it_did(config: RunConfig, tmp_path: Path) -> None:
    rows = read_run(run(config, tmp_path / "run"))
    assert set(rows.settings["models"]) == {"teacher", "student", "middle"}
    assert rows.settings["models"]["middle"]["name"] == "morse"
    assert rows.settings["teacher_calls"] == 11
    assert set(rows.settings["wall_s"]) == {"teacher", "student", "middle", "total", "baseline", "rest"}
    assert rows.settings["timing"]["predicted_speedup"] > 0
    model = load_model("gfn2-xtb", Atoms(rows.settings["structure"]["numbers"], positions=rows.positions[-1, 0]))
    assert rows.potential_energy[-1, 0] == pytest.approx(model(rows.positions[-1, 0]).energy, abs=1e-5)


def test_hybrid_dynamics_takes_a_middle_model(config: RunConfig, tmp_path: Path, ethanol: Atoms) -> None:
    """The same states as `run`, from the same start."""
    file = tmp_path / "start.xyz"
    moving = ethanol.copy()
    moving.set_momenta(0.2 * np.random.default_rng(1).standard_normal((9, 3)))
    moving.write(file)
    same = {"structure": str(file), "teacher": "harmonic", "baseline": False}
    rows = read_run(run(RunConfig(**{**vars(config), **same}), tmp_path / "run"))
    from ase.io import read

    atoms = read(file)
    dynamics = HybridDynamics(
        atoms, 0.5 * units.fs, student=config.student, teacher="harmonic", middle="morse", middle_steps=2, k_steps=4,
        temperature_K=300.0, friction_per_ps=5.0, seed=2, compile=False,
    )  # fmt: skip
    dynamics.run(10)
    np.testing.assert_allclose(atoms.positions, rows.positions[-1, 0], atol=1e-9)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"middle_steps": None}, "come together"),
        ({"middle": None}, "come together"),
        ({"middle_steps": 3}, "divides k_steps = 4"),
        ({"middle_steps": 0}, "at least 1"),
        ({"middle_steps": 2.0}, "whole number"),
        ({"scheme": "mollified"}, "there is scheme 'mollified'"),
        ({"scheme": "ghmc"}, "there is scheme 'ghmc'"),
        ({"student": None, "k_steps": 1}, "there is no student"),
    ],
)
def test_mistakes(change: dict[str, Any], words: str, config: RunConfig) -> None:
    with pytest.raises(InputError, match=words):
        RunConfig(**{**vars(config), **change})
