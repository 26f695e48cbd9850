"""Generating functions from the command line: trained on trajectories, and proposing in hybrid Monte Carlo."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mlff_sim.cost import CYCLES
from mlff_sim.errors import InputError
from mlff_sim.leaps.file import load_generating, save_generating
from mlff_sim.leaps.generating import GeneratingNet
from mlff_sim.leaps.lessons import LeapConfig, learn, save_learnt
from mlff_sim.leaps.training import errors, joined, midpoints
from mlff_sim.lessons import read_lessons
from mlff_sim.models.registry import load_model
from mlff_sim.predictors.lesson import Lesson
from mlff_sim.runfolder import read_run
from mlff_sim.simulation import RunConfig, run
from mlff_sim.simulation.assembly import Dynamics, assemble, leaps
from mlff_sim.state import State, maxwell_boltzmann
from mlff_sim.structure import read_structure

SMALL = LeapConfig(4, updates=120, learning_rate=1e-2, width=8, layers=1, seed=1)
WATER = ("--structure", "smiles:O", "--teacher", "mmff", "--scheme", "ghmc")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four replicas of water, 0.2 ps at constant energy, a frame every fs."""
    out = tmp_path_factory.mktemp("lesson") / "run"
    config = RunConfig("smiles:O", "mmff", ensemble="nve", duration_ps=0.2, equilibrate_ps=0.2, replicas=4, every=2)
    return run(config, out)


@pytest.fixture(scope="module")
def lesson(folder: Path) -> Lesson:
    return read_lessons([folder])[0]


@pytest.fixture(scope="module")
def leap_file(lesson: Lesson, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Leaps of 2 fs; not to be changed."""
    path = tmp_path_factory.mktemp("leap") / "water.leap"
    save_learnt(learn(SMALL, [lesson]), SMALL, [lesson], path)
    return path


@pytest.fixture
def settings(leap_file: Path) -> RunConfig:
    return RunConfig(
        "smiles:O",
        "mmff",
        scheme="ghmc",
        predictor=str(leap_file),
        k_steps=2,
        save_interval=4,
        duration_ps=0.04,
        replicas=2,
        every=1,
        friction_per_ps=20.0,
        seed=3,
    )


def test_trained_and_run(cli: Callable[..., Any], folder: Path, tmp_path: Path) -> None:
    """The two commands, and what they say: a leap is in the counts of proposals, calls and files."""
    out = tmp_path / "l.predictor"
    words = ["train-predictor", "--arch", "generating", "--trajectories", folder, "--macro-steps", 4, "--out", out]
    made = cli(*words, "--updates", 120, "--learning-rate", 0.01, "--width", 8, "--layers", 1)
    assert made.code == 0 and not made.err
    assert "120 updates; leaps of 2 fs; on held-out frames the force is off by" in made.out
    record = load_generating(out)[1]
    assert record["stride_fs"] == 2.0 and record["architecture"]["channels"] == 8 and record["errors"]["power"] < 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["l.predictor"]
    done = cli(
        *("hybrid", *WATER, "--predictor", out, "--k-steps", 2, "--duration-ps", 0.08, "--replicas", 2),
        *("--equilibrate-ps", 0.01, "--out", tmp_path / "run"),
    )
    assert done.code in (0, 1) and "Leaps solved both ways" in done.out and "leaps of 2 fs" not in done.err
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    ghmc, data = results["ghmc"], read_run(tmp_path / "run")
    assert ghmc["proposals"] == 2 * 20 and 0 < ghmc["acceptance"] <= 1
    assert ghmc["acceptance"] == pytest.approx(data.counts["accepted"][1:].sum() / 40)
    assert ghmc["leaps"]["tried"] <= 80 and ghmc["leaps"]["stride_fs"] == 2.0
    assert results["physical_time"] is False and results["outer_step_fs"] == pytest.approx(4.0)
    assert results["speedup"]["predicted"] > 0 and data.settings["wall_s"]["predictor"] > 0
    assert data.settings["teacher_calls"] >= 40


def test_nothing_accepted_is_reported(cli: Callable[..., Any], tmp_path: Path) -> None:
    """Untrained, with forces a thousand times too large: no midpoint is found, and that is the answer, not a crash."""
    torch.manual_seed(0)
    network = GeneratingNet([1, 8], channels=8, layers=1)
    with torch.no_grad():
        network.readout[-1].weight.mul_(1e4)
    save_generating(network, 5.0, tmp_path / "wild", {})
    words = ("--predictor", tmp_path / "wild", "--k-steps", 3, "--duration-ps", 0.15, "--out", tmp_path / "run")
    done = cli("hybrid", *WATER, *words)
    assert done.code == 0 and "None of 10 proposals, so nothing was sampled; take fewer leaps" in done.out.replace(
        "\n", " "
    )
    ghmc = json.loads((tmp_path / "run" / "results.json").read_text())["ghmc"]
    assert ghmc["acceptance"] == 0 and ghmc["proposals"] == 10
    assert ghmc["leaps"] == {"tried": 10, "unsolved": 10, "unsolved_on_the_way_back": 0, "stride_fs": 5.0}


@pytest.mark.parametrize("student", [None, "harmonic"])
def test_a_run_that_is_cut_ends_as_the_unbroken(
    settings: RunConfig, tmp_path: Path, cut_and_resumed: Callable[..., Path], student: str | None
) -> None:
    config = replace(settings, baseline=False, student=student)
    whole = read_run(run(config, tmp_path / "whole"))
    again = read_run(cut_and_resumed(config, tmp_path / "cut"))
    assert whole.counts["accepted"].any()
    for name in ("positions", "momenta", "conserved"):
        np.testing.assert_array_equal(getattr(again, name), getattr(whole, name))
    assert set(whole.counts) == {"accepted", "leaps", "unsolved", "one_way"}
    for name, counted in whole.counts.items():
        np.testing.assert_array_equal(again.counts[name], counted)
    assert whole.counts["leaps"][1:].max() == 2 and not whole.counts["leaps"][0].any()  # none of the probe's


def test_training_that_is_cut_ends_as_the_unbroken(
    lesson: Lesson, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlff_sim.leaps.training.SNAPSHOT_EVERY", 10)
    config, snapshot = replace(SMALL, updates=40), tmp_path / "state"
    whole = learn(config, [lesson])

    class Cut:
        def update(self, done: float, total: float, note: str = "") -> None:
            if done == 30:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn(config, [lesson], snapshot, Cut())
    assert snapshot.exists()
    seen: list[float] = []
    monkeypatch.setattr(Cut, "update", lambda _, done, total, note="": seen.append(done))
    end = learn(config, [lesson], snapshot, Cut())
    assert seen == [30, 40], "it went on at 20"
    assert (end.mae, end.power) == (whole.mae, whole.power)
    for a, b in zip(end.network.parameters(), whole.network.parameters(), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(InputError, match=r"other settings \(macro_step, seed\); repeat them, or delete it"):
        learn(replace(config, macro_step=2, seed=2), [lesson], snapshot)
    snapshot.write_bytes(b"anything")
    with pytest.raises(InputError, match=r"is no state of a training .*; delete it to begin anew") as refused:
        learn(config, [lesson], snapshot)
    assert "\n" not in str(refused.value)


def test_several_trajectories_of_one_molecule(lesson: Lesson) -> None:
    """Errors over two together are the mean of both; another molecule is refused."""
    config, network = replace(SMALL, updates=1), GeneratingNet([1, 8], channels=8, layers=1)
    parts = [
        midpoints(lesson.positions[half], lesson.momenta[half], 1.0, 2.0, lesson.numbers, lesson.masses)
        for half in (slice(0, 100), slice(100, 200))
    ]
    together = joined(parts)
    assert len(together) == 2 * 98 * 4 and len(together.some(100)) == 100
    mae = [errors(network, x)[0] for x in (together, *parts)]
    assert mae[0] == pytest.approx((mae[1] + mae[2]) / 2, rel=1e-5)  # float32
    assert learn(config, [lesson, lesson]).updates == 1
    with pytest.raises(InputError, match="one molecule at a time, and 'H2O' and 'heavy' differ in their atoms"):
        learn(config, [lesson, replace(lesson, name="heavy", masses=2 * lesson.masses)])


def test_a_student_says_where_to_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """The solver begins where velocity Verlet of the student ends, whatever the student was asked before."""
    atoms = read_structure("smiles:O")
    student, masses = load_model("mmff", atoms), atoms.get_masses()
    momenta = maxwell_boltzmann(masses, 300.0, np.random.default_rng(0), remove_com=False)
    state = State(atoms.get_positions()[None], momenta[None])

    class Still:
        stride, masses = 1.0, atoms.get_masses()

        def __call__(self, q: Any, p: Any) -> Any:
            return 0 * q, 0 * p

    bath: Any = RunConfig  # never asked here
    dynamics = Dynamics("ghmc", 0.5, 3)
    stepper = leaps(dynamics, {"teacher": student, "student": student}, masses, state, bath, Still(), 4)
    plain = assemble(Dynamics("respa", 0.5, 1), {"teacher": student}, masses, state)
    for _ in range(4):
        plain.step()
    proposer: Any = stepper.proposer
    forgotten: list[int] = []
    monkeypatch.setattr(student, "reset", lambda: forgotten.append(1))
    found = proposer.direct(state)
    assert forgotten == [1]
    np.testing.assert_array_equal(found.positions, plain.state.positions)
    np.testing.assert_array_equal(found.momenta, plain.state.momenta)
    assert stepper.steps == 3


def test_what_a_proposal_of_leaps_costs(settings: RunConfig) -> None:
    assert CYCLES["ghmc"](vars(settings)) == (8, 1, 2)
    assert CYCLES["ghmc"](vars(replace(settings, predictor=None, student="x"))) == (2, 1, 2)
    assert settings.inner_steps == 8 and settings.jump_steps == 4


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--macro-steps", "4,8"], "learns one stride, and --macro-steps names 4,8; give one number"),
        ([], "--macro-steps is missing"),
        (["--macro-steps", "4", "--rollout", "2"], "--rollout is for predictors that draw"),
        (["--macro-steps", "4", "--patience", "0"], "--patience is for predictors that draw"),
        (["--macro-steps", "3"], "no whole number of them"),
        (["--macro-steps", "800"], "record a longer run"),
        (["--macro-steps", "0"], "macro_step = 0 must be a whole number of at least 1"),
        (["--macro-steps", "4", "--width", "0"], "width = 0 must be a whole number of at least 1"),
        (["--macro-steps", "4", "--learning-rate", "0"], "learning_rate = 0 must be a positive number"),
    ],
)
def test_mistakes_in_training(
    cli: Callable[..., Any], folder: Path, tmp_path: Path, words: list[str], said: str
) -> None:
    out = tmp_path / "l"
    done = cli("train-predictor", "--arch", "generating", "--trajectories", folder, *words, "--out", out)
    assert done.code == 2 and said in done.line and not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--timestep-fs", "0.3"], "leaps 2 fs, which is no whole number of baseline steps of timestep_fs = 0.3"),
        (["--save-interval", "5"], "and save_interval = 5 baseline steps of 0.5 fs are 2.5 fs; use save_interval = 4"),
        (["--corrector-fraction", "0.5"], "wants --k-steps (leaps in a proposal) alone"),
        (["--proposal-steps", "2"], "proposal_steps cannot go with a predictor of scheme 'ghmc'"),
        (["--amp"], "amp cannot go with a predictor of scheme 'ghmc'"),
        (["--hydrogen-mass", "3"], "hydrogen_mass cannot go with a predictor of scheme 'ghmc': it was trained without"),
        (["--k-steps", "auto", "--equilibrate-ps", "5"], "'auto' has no rule for scheme 'ghmc' with a predictor"),
        (["--structure", "smiles:N"], "does not know the element N; it knows H, O"),
        (["--scheme", "respa"], "predictor is for schemes kstep and ghmc; scheme 'respa' has none"),
        (["--ensemble", "nve"], "samples at constant temperature"),
    ],
)
def test_mistakes_in_a_run(
    cli: Callable[..., Any], leap_file: Path, tmp_path: Path, words: list[str], said: str
) -> None:
    given = ["hybrid", *WATER, "--predictor", leap_file, *([] if "--k-steps" in words else ["--k-steps", 2])]
    given += ["--student", "harmonic"] if "respa" in words else []
    done = cli(*given, *words, "--out", tmp_path / "run")
    assert done.code == 2 and said in done.line and not (tmp_path / "run").exists()


def test_each_file_to_its_scheme(
    cli: Callable[..., Any], leap_file: Path, predictor_file: Path, tmp_path: Path
) -> None:
    """Which of the two kinds was given, and which is wanted."""
    run_of = ("hybrid", "--structure", "ethanol", "--teacher", "mmff", "--k-steps", 2, "--out", tmp_path / "run")
    drawn = cli(*run_of, "--scheme", "ghmc", "--predictor", predictor_file)
    assert (
        drawn.code == 2
        and "draws macro-steps (--arch egnn or transformer), for scheme 'kstep'; wanted is" in drawn.line
    )
    leapt = cli(*run_of, "--scheme", "kstep", "--corrector-steps", 2, "--predictor", leap_file)
    assert leapt.code == 2 and "leaps (--arch generating), for proposals of scheme 'ghmc'; wanted is" in leapt.line
