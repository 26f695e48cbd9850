"""Proposals of several outer steps, and lengths of trajectories that are tuned in the warm-up."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from conftest import Well
from scipy.integrate import quad

from mlff_sim import RunConfig, run
from mlff_sim.errors import InputError, SimulationStopped
from mlff_sim.forces import Array
from mlff_sim.integrators.force_table import ForceTable
from mlff_sim.integrators.metropolis import Metropolis
from mlff_sim.integrators.schemes import respa, substeps, verlet
from mlff_sim.integrators.stepper import Langevin, Stepper
from mlff_sim.runfolder import read_run
from mlff_sim.simulation.assembly import Dynamics, assemble
from mlff_sim.simulation.rules import Breach
from mlff_sim.simulation.temperature import Temperature
from mlff_sim.simulation.tuning import Ladder, choose, jumps, ladder
from mlff_sim.state import State
from mlff_sim.units import FS, KB
from mlff_sim.validation import Verdict, assess

KT = KB * 300.0


TEACHER, BAD = Well(3.0, -0.4), Well(1.0, 1.0, "bad")


def chain(k: int, proposal_steps: int | None, friction: float, replicas: int, student: Well = BAD) -> Metropolis:
    """Of the double well, inner steps of 10 fs, one atom of 12 u."""
    rng = np.random.default_rng(3)
    start = State(rng.choice([-1.0, 1.0], (replicas, 1, 3)), rng.standard_normal((replicas, 1, 3)) * np.sqrt(12 * KT))
    providers = {"teacher": TEACHER, "student": student}
    dynamics = Dynamics("ghmc", 10.0, k, proposal_steps=proposal_steps)
    s = assemble(dynamics, providers, np.full(1, 12.0), start, Langevin(300.0, friction, 3, replicas))
    assert isinstance(s, Metropolis)
    return s


def exact(f: Any, model: Well) -> float:
    """Average of f(x) by quadrature."""
    weight = lambda y: np.exp(-model.energy(y) / KT)  # noqa: E731
    return quad(lambda y: f(y) * weight(y), -4, 4)[0] / quad(weight, -4, 4)[0]


@pytest.mark.parametrize(
    ("k", "proposal_steps", "friction", "lengths"),
    [(8, 3, 5.0, ()), (8, 2, 1e6, ()), (3, None, 5.0, (1, 2, 4))],
    ids=["respa", "respa, all momenta new", "lengths in turn"],
)
def test_a_double_well_is_sampled_exactly_with_a_bad_student(
    k: int, proposal_steps: int | None, friction: float, lengths: tuple[int, ...]
) -> None:
    """<x>, <x^2> and the share of the deeper well against quadrature, within four standard errors over 400 replicas.

    Lengths in turn is what the warm-up does whose trajectories are tuned.
    """
    s = chain(k, proposal_steps, friction, 400)
    samples = []
    for step in range(800):
        if lengths:
            s.steps = lengths[step % len(lengths)]
        s.step()
        if step >= 200:
            samples.append(s.state.positions[:, 0, 0])
    x = np.array(samples)
    for f in (lambda y: y, lambda y: y * y, lambda y: 1.0 * (y > 0)):
        means = f(x).mean(axis=0)
        stderr = means.std(ddof=1) / np.sqrt(len(means))
        assert abs(means.mean() - exact(f, TEACHER)) < 4 * stderr
        assert abs(exact(f, BAD) - exact(f, TEACHER)) > 10 * stderr, "the test could not tell"
    assert 0.1 < s.accepted.sum() / (s.proposals * 400) < 0.99


def test_without_the_test_respa_is_not_exact() -> None:
    """At these steps RESPA alone has errors that the test above sees: it is the acceptance that makes it exact."""
    s = chain(4, 3, 1e6, 400)
    s.bath.streams = [Always(stream) for stream in s.bath.streams]  # type: ignore[union-attr, misc]
    samples = []
    for step in range(600):
        s.step()
        if step >= 100:
            samples.append(s.state.positions[:, 0, 0])
    assert (s.accepted == s.proposals).all()
    means = (np.array(samples) ** 2).mean(axis=0)
    assert abs(means.mean() - exact(lambda y: y * y, TEACHER)) > 6 * means.std(ddof=1) / np.sqrt(len(means))


class Always:
    """A random stream whose decisions are always to accept."""

    def __init__(self, stream: np.random.Generator) -> None:
        self.standard_normal = stream.standard_normal

    def random(self) -> float:
        return -1.0


@pytest.mark.parametrize("proposal_steps", [1, 3, None])
def test_the_map_is_reversible_and_keeps_volume(proposal_steps: int | None) -> None:
    """Go, flip, go, flip is the identity; the Jacobian by central differences has determinant 1.

    With h = 1e-5 the truncation is h^2 = 1e-10 of third derivatives of order 10, and rounding 1e-16 / h: 1e-7 is ample.
    """
    s = chain(2, proposal_steps, 1.0, 1)
    rng = np.random.default_rng(0)
    x0, p0 = s.state.positions + 0.2 * rng.standard_normal((1, 1, 3)), s.state.momenta
    scale = np.sqrt(12 * KT)

    def go(z: Array) -> Array:
        state = State(z[:3].reshape(1, 1, 3), scale * z[3:].reshape(1, 1, 3))
        s.forces.move(state.positions)
        end, sound = s._proposed(state)
        assert sound.all()
        return np.concatenate([end.positions.ravel(), end.momenta.ravel() / scale])

    z = np.concatenate([x0.ravel(), p0.ravel() / scale])
    flip = np.array([1, 1, 1, -1, -1, -1])
    end = go(z)
    assert np.abs(end - z).max() > 0.01
    np.testing.assert_allclose(flip * go(flip * end), z, atol=1e-12)
    h = 1e-5
    jacobian = np.array([(go(z + h * e) - go(z - h * e)) / (2 * h) for e in np.eye(6)])
    assert abs(np.linalg.det(jacobian) - 1) < 1e-7


def test_several_steps_of_a_scheme_are_one_of_its_repetition() -> None:
    """The same trajectories, momenta refreshed over the same time, to the rounding of another order of sums."""
    rng = np.random.default_rng(3)
    start = State(rng.choice([-1.0, 1.0], (20, 1, 3)), rng.standard_normal((20, 1, 3)) * np.sqrt(12 * KT))
    ends = []
    for scheme, times, steps in ((respa("residual", verlet("student"), 2), 1, 3), (None, 3, 1)):
        scheme = scheme or substeps(respa("residual", verlet("student"), 2), 3)
        table = ForceTable({"teacher": TEACHER, "student": BAD}, {"residual": ("teacher", "student")})
        proposer = Stepper(scheme, times * 20 * FS, np.full(1, 12.0), table, start)
        s = Metropolis(proposer, Langevin(300.0, 5.0, 3, 20), steps=steps)
        for _ in range(20):
            s.step()
        ends.append(s)
    np.testing.assert_allclose(ends[0].state.positions, ends[1].state.positions, atol=1e-9)
    np.testing.assert_allclose(ends[0].state.momenta, ends[1].state.momenta, atol=1e-9)
    np.testing.assert_array_equal(ends[0].accepted, ends[1].accepted)
    assert 0 < ends[0].accepted.sum() < 400


def test_the_teacher_is_asked_once_for_each_outer_step(toys: Any) -> None:
    teacher = toys.counted(toys.trap(1, KT))
    start = State(np.ones((5, 1, 3)), np.zeros((5, 1, 3)))
    providers = {"teacher": teacher, "student": toys.trap(1, 0.8 * KT)}
    dynamics = Dynamics("ghmc", 10.0, 2, proposal_steps=3)
    s = assemble(dynamics, providers, np.full(1, 12.0), start, Langevin(300.0, 5.0, 3, 5))
    s.potential()
    before = teacher.calls
    for _ in range(20):
        s.step()
    assert teacher.calls - before == 60


# Tuning.


def test_the_lengths_that_fit_into_the_warm_up() -> None:
    """All sweeps together take at most the warm-up; one more length would take more, or a tenth of the run."""
    config = RunConfig(
        "x", "lj", "lj", scheme="ghmc", k_steps="auto", equilibrate_ps=10.0, duration_ps=1000.0, timestep_fs=0.5
    )
    assert ladder(config, 1) == Ladder(20, (1, 2, 4, 8), 66)  # sweeps of 150 fs; of 310 fs only 32, and 40 are needed
    assert ladder(config, 4) == Ladder(20, (1, 2, 4, 8, 16, 32), 15)  # 630 fs; of 1270 only 7, and 10 are needed
    assert ladder(replace(config, duration_ps=0.5), 4).multiples == (1, 2, 4)  # a tenth of the run is 50 fs
    assert ladder(replace(config, timestep_fs=40.0), 4).unit == 1
    for few in ({"equilibrate_ps": 2.0}, {"duration_ps": 0.3}):
        with pytest.raises(InputError, match=r"too little time to try 3 lengths.*at least 2.8 and 0.4"):
            ladder(replace(config, **few), 1)


def test_jumps_are_of_the_shape() -> None:
    """Turning and shifting the atoms is none; moving one by 1 A away from one of two others is."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 5, 3))
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    np.testing.assert_allclose(jumps(x, x @ turn.T + 3.0), 0.0, atol=1e-25)
    line = np.array([[[0.0, 0, 0], [1, 0, 0], [2, 0, 0]]])
    moved = line + np.array([[[0.0, 0, 0], [0, 0, 0], [1, 0, 0]]])
    np.testing.assert_allclose(jumps(line, moved), 2 / 3)
    assert (jumps(x[:, :1], x[:, 1:2]) == 0).all()


def test_the_best_length_of_an_oscillator() -> None:
    """J = 2 (1 - cos wT) kT / kappa when all momenta are new: J / sqrt(T) is largest near wT = 2.33, here at 2^4 of T / 16.

    And of one that is damped out at once, J does not depend on T: the shortest. Where J grows with T: the longest.
    """
    m = np.array([1, 2, 4, 8, 16, 32])
    rungs = Ladder(5, tuple(m.tolist()), 4)
    ones = np.ones((4, 6))
    turn = 2.33 * m / 16
    assert choose(rungs, ones, ones * (1 - np.cos(turn)))["k_steps"] == 80
    assert choose(rungs, ones, ones)["k_steps"] == 5
    last = choose(rungs, 0.5 * ones, ones * m)
    assert last["k_steps"] == 160 and last["longest"] and last["trials"][0]["acceptance"] == 0.5
    # Only the second half counts: the first may be far from equilibrium.
    early = ones.copy()
    early[:2, 5] = 1e6
    assert choose(rungs, ones, early)["k_steps"] == 5


@pytest.fixture
def settings() -> RunConfig:
    return RunConfig(
        "ethanol",
        "morse",
        "harmonic",
        scheme="ghmc",
        k_steps="auto",
        equilibrate_ps=1.5,
        duration_ps=1.0,
        timestep_fs=1.0,
        friction_per_ps=10.0,
        replicas=4,
        baseline=False,
    )


def arrays(folder: Path) -> dict[str, bytes]:
    with h5py.File(folder / "log.h5") as f:
        return {name: f[name][()].tobytes() for name in f if name != "wall"}


class Interrupted(Exception):
    pass


class Until:
    """A progress bar that ends the run at the first message about something, after some messages about it."""

    def __init__(self, note: str, after: float) -> None:
        self.note, self.after = note, after

    def update(self, done: float, total: float, note: str = "") -> None:
        if self.note in note and done > self.after:
            raise Interrupted


@pytest.mark.parametrize("how", ["auto", "respa"])
def test_resumed_exactly(how: str, settings: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted in the tuning, just after it and in production; the length is tuned once and stays."""
    monkeypatch.setattr("mlff_sim.simulation.config.CHECKPOINT_STEPS", 2)
    if how == "respa":
        settings = replace(settings, k_steps=3, proposal_steps=4, equilibrate_ps=0.1)
    whole = run(settings, tmp_path / "whole")
    early = ("equilibration", 3 if how == "auto" else -80)
    for note, after in (early, ("compiling and timing", -1), ("production", 3)):
        with pytest.raises(Interrupted):
            run(settings, tmp_path / "broken", resume=True, progress=Until(note, after))
    assert (tmp_path / "broken" / "segments" / "checkpoint.npz").exists()
    if how == "auto":  # what was chosen is read, not found anew
        monkeypatch.setattr(importlib.import_module("mlff_sim.simulation.run"), "choose", None)
    run(settings, tmp_path / "broken", resume=True)
    assert arrays(tmp_path / "broken") == arrays(whole)
    one, other = (read_run(tmp_path / name).settings for name in ("whole", "broken"))
    for name in ("k_steps", "tuning", "every", "outer_step_fs", "config", "teacher_calls"):
        assert one.get(name) == other.get(name)


def test_a_tuned_run_says_what_was_chosen(settings: RunConfig, tmp_path: Path) -> None:
    """In run.json, in the time between rows, in the report; the same again with the same settings, another with another."""
    data = read_run(run(settings, tmp_path / "run"))
    s = data.settings
    k = s["k_steps"]
    assert (
        isinstance(k, int) and k in [t["k_steps"] for t in s["tuning"]["trials"]] and s["config"]["k_steps"] == "auto"
    )
    assert k == max(s["tuning"]["trials"], key=lambda t: t["score"])["k_steps"]
    assert s["outer_step_fs"] == k * 1.0
    np.testing.assert_allclose(np.diff(data.time_ps), s["every"] * k * 1e-3)
    assert s["teacher_calls"] == 4 * (1 + round(1000 / k)), "the warm-up has its own account"
    again = read_run(run(settings, tmp_path / "again")).settings
    assert again["tuning"] == s["tuning"]
    assert read_run(run(replace(settings, seed=1), tmp_path / "other")).settings["tuning"] != s["tuning"]


def test_nothing_accepted_is_no_pass(tmp_path: Path) -> None:
    """Momenta are drawn at the right temperature all the same, so that everything else that is judged passes."""
    config = RunConfig("ethanol", "morse", "lj", k_steps=20, duration_ps=20.0, scheme="ghmc", timestep_fs=0.5)
    config = replace(config, friction_per_ps=200.0, replicas=16, baseline=False)
    data = read_run(run(config, tmp_path / "run"))
    assert not data.counts["accepted"].any(), "argon's repulsion throws the atoms of a molecule apart"
    judged = assess([data])
    assert judged.runs[0].parts["temperature"] is Verdict.PASS
    assert judged.verdict is Verdict.INCONCLUSIVE


def test_a_run_that_is_stopped_before_its_length_is_known(
    settings: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Any
) -> None:
    """It can be judged as any other, and says at which step of the warm-up."""
    breach = Breach("temperature runs away", 0, 0, 999.0, 300.0, "K", "too hot")
    monkeypatch.setattr(Temperature, "broken", lambda *_: breach)
    with pytest.raises(SimulationStopped, match="during equilibration"):
        run(settings, tmp_path / "run")
    monkeypatch.undo()
    assert cli("validate", tmp_path / "run").code == 1
    assert json.loads((tmp_path / "run" / "run.json").read_text())["k_steps"] == "auto"


def test_from_the_command_line(tmp_path: Path, cli: Any) -> None:
    common = ["hybrid", "--structure", "ethanol", "--teacher", "morse", "--student", "harmonic", "--scheme", "ghmc"]
    common += ["--timestep-fs", "1", "--replicas", "4", "--duration-ps", "1", "--no-baseline"]
    done = cli(*common, "--k-steps", "auto", "--equilibrate-ps", "1.5", "--out", tmp_path / "auto")
    assert done.code in (0, 1), done.err
    results = json.loads((tmp_path / "auto" / "results.json").read_text())
    assert results["ghmc"]["k_steps"] == results["runs"][0]["k_steps"] == results["ghmc"]["tuning"]["k_steps"]
    assert "Steps in a trajectory" in done.out
    done = cli(*common, "--k-steps", "2", "--proposal-steps", "5", "--out", tmp_path / "respa")
    assert done.code in (0, 1), done.err
    results = json.loads((tmp_path / "respa" / "results.json").read_text())
    assert results["ghmc"]["proposal_steps"] == 5 and results["outer_step_fs"] == 10
    assert results["teacher_calls"] == 4 * (1 + 5 * 100)
    assert results["timing"]["teacher_ms"] > 0
