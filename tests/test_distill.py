"""Distillation: within its budget, resumable, with a record of what it did and cost."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms

from mlff_sim.distill import DistillConfig, distill
from mlff_sim.distill.dataset import MAX_LABEL_FORCE, Labels, label
from mlff_sim.errors import InputError
from mlff_sim.forces import Evaluation, ForceProvider, check_provider
from mlff_sim.models.checkpoint import load_student, read_record
from mlff_sim.models.registry import load_model

COMMAND = ["distill", "--structure", "ethanol", "--teacher", "gfn2-xtb", "--width", "64,64"]


def thermal_frames(atoms: Atoms, teacher: ForceProvider) -> Labels:
    """Frames near the minimum with the teacher's answers, none of which distillation has seen."""
    x = atoms.get_positions() + 0.04 * np.random.default_rng(77).standard_normal((20, len(atoms), 3))
    return label(teacher, x)


@pytest.fixture(scope="module")
def distilled(shell: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, float]:
    """A student of ethanol from twelve seconds."""
    out = tmp_path_factory.mktemp("distill") / "ethanol.student"
    begin = time.monotonic()
    result = shell(*COMMAND, "--budget", "20s", "--seed", "4", "--out", out)
    return out, result, time.monotonic() - begin


def test_a_short_budget_gives_a_usable_student(distilled: tuple[Path, Any, float], ethanol: Atoms) -> None:
    """A claim on its quality would be one on the machine's speed; it is better than no forces at all."""
    out, result, _ = distilled
    assert result.code == 0 and result.err == "", result
    assert [p.name for p in out.parent.iterdir()] == [out.name], "the work folder is gone"
    student = load_model(f"student:{out}", ethanol)
    assert check_provider(student, ethanol.get_positions()).failures == []
    unseen = thermal_frames(ethanol, load_model("gfn2-xtb", ethanol))
    error = np.abs(student(unseen.positions).forces - unseen.forces).mean()
    assert error < 0.7 * np.abs(unseen.forces).mean()


def test_it_keeps_to_its_budget(distilled: tuple[Path, Any, float]) -> None:
    """All that is spent is booked, and it ends within a fifth of the budget; start-up of Python is extra."""
    out, _, wall = distilled
    spent = sum(read_record(out)["seconds"].values())
    assert 15 < spent < 20 * 1.2
    assert spent < wall


def test_a_teacher_that_gets_slower_does_not_break_the_budget(ethanol: Atoms, tmp_path: Path) -> None:
    """Labels are planned from the cost of a thermal frame; a strained one can cost an SCF ten times as much."""
    quick = load_model("harmonic", ethanol)

    class Tiring:
        """Harmonic bonds, 1 ms a call to begin with, 20 ms once the planning is done."""

        numbers, reset, provenance, calls = quick.numbers, quick.reset, quick.provenance, 0

        def __call__(self, x: Any, cell: Any = None, /) -> Evaluation:
            self.calls += 1
            time.sleep(0.001 if self.calls < 1500 else 0.020)
            return quick(x)

    config = DistillConfig("harmonic", budget_s=8, widths=(16,))
    result = distill(ethanol, Tiring(), config, tmp_path / "a.student")  # type: ignore[arg-type]
    assert result.teacher_s + result.training_s + result.sampling_s + result.test_s < 1.5 * 8


def test_the_record_tells_what_was_done(distilled: tuple[Path, Any, float]) -> None:
    out, result, _ = distilled
    record = read_record(out)
    assert record["species"] == "C2H6O" and record["numbers"] == [6, 6, 8, 1, 1, 1, 1, 1, 1]
    assert record["recipe"]["teacher"] == "gfn2-xtb" and record["recipe"]["seed"] == 4
    assert record["recipe"]["widths"] == [64, 64] == record["architecture"]["widths"]
    assert record["recipe"]["teacher_model"]["accuracy"] == 0.01
    assert record["labels"] == record["history"][-1]["labels"] > 200
    assert record["training_range"]["temperature_K"] == [300.0, 500.0]
    low, high = record["training_range"]["pair_distance_A"]
    assert 0.5 < low < 1.1 and 3 < high < 12
    assert set(record["seconds"]) == {"test", "teacher", "sampling", "training", "rest"}
    assert all(s > 0 for s in record["seconds"].values())
    assert record["errors"]["force_mae_meV_per_A"] == record["history"][-1]["force_mae_meV_per_A"] > 0
    assert set(record["versions"]) == {"torch", "numpy", "safetensors", "mlff-sim"}
    assert f"force MAE {record['errors']['force_mae_meV_per_A']:.2f} meV/A" in result.out
    assert f"{record['labels']} labels" in result.out
    rounds = [h["round"] for h in record["history"]]
    assert rounds == list(range(len(rounds))) and len(rounds) == 6


def test_killed_it_is_taken_up_with_the_seconds_already_spent(
    start: Callable[..., Any], shell: Callable[..., Any], cli: Callable[..., Any], tmp_path: Path
) -> None:
    """kill -9 after the second round; the same command goes on there, and other settings are refused meanwhile."""
    out = tmp_path / "a.student"
    progress = tmp_path / "a.student.work" / "progress.json"
    command = [*COMMAND, "--budget", "8s", "--out", out]
    process, end = start(*command), time.monotonic() + 60
    while not (progress.exists() and json.loads(progress.read_text())["stage"] >= 2):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not out.exists()
    left = json.loads(progress.read_text())
    before = sum(left["spent"].values())
    assert before > 0.5

    other = cli(*COMMAND, "--budget", "9s", "--out", out)
    assert other.code == 2
    assert "unfinished distillation with other settings (budget_s); repeat them, or delete the folder" in other.line
    assert json.loads(progress.read_text()) == left

    result = shell(*command)
    assert result.code == 0 and result.err == ""
    record = read_record(out)
    assert [h["round"] for h in record["history"]] == list(range(6))
    assert record["history"][:2] == left["history"][:2], "the first rounds were not done again"
    for purpose, seconds in left["spent"].items():
        assert record["seconds"][purpose] >= seconds
    # Without "rest": of so short a budget, starting Python and torch twice is a large part.
    assert sum(s for purpose, s in record["seconds"].items() if purpose != "rest") < 8 * 1.25
    assert not progress.parent.exists()


def test_it_stops_early_at_the_target(ethanol: Atoms, tmp_path: Path) -> None:
    """An easy target is met after the first round that meets it, long before the budget is spent."""
    config = DistillConfig("harmonic", budget_s=100, target_mae=2000, widths=(16,))
    result = distill(ethanol, load_model("harmonic", ethanol), config, tmp_path / "easy.student")
    assert result.force_mae <= 2000 and result.force_mae == result.history[-1]["force_mae_meV_per_A"]
    assert len(result.history) < 6
    assert result.teacher_s + result.training_s + result.sampling_s + result.test_s < 50
    assert load_student(tmp_path / "easy.student").record["errors"]["force_mae_meV_per_A"] == result.force_mae


def test_sampling_stays_where_there_are_labels(ethanol: Atoms, make_student: Callable[..., Any]) -> None:
    """An early student knows no repulsion: atoms a quarter closer, or bonds a quarter longer, are no frames."""
    from mlff_sim.distill.sampling import student_frames

    known = thermal_frames(ethanol, load_model("harmonic", ethanol))
    masses, rng = ethanol.get_masses(), np.random.default_rng(0)
    frames = student_frames(
        make_student(ethanol).network, known, masses, ethanol.numbers, temperatures_K=(300, 500), count=256, rng=rng
    )
    assert frames.shape == (256, 9, 3)

    def distances(x: np.ndarray) -> np.ndarray:
        return np.linalg.norm(x[:, :, None] - x[:, None], axis=-1)[:, *np.triu_indices(9, 1)]

    seen, new = distances(known.positions), distances(frames)
    i, j = np.triu_indices(9, 1)
    kinds = np.array([tuple(sorted(pair)) for pair in zip(ethanol.numbers[i], ethanol.numbers[j], strict=True)])
    for kind in np.unique(kinds, axis=0):
        alike = (kinds == kind).all(axis=1)
        assert new[:, alike].min() > 0.75 * seen[:, alike].min(), f"elements {kind}"
    bonds = seen.max(axis=0) < 2.0
    assert bonds.sum() >= 8
    assert (new[:, bonds] < 1.25 * seen[:, bonds].max(axis=0)).all()


def test_sampling_ends_with_its_time(ethanol: Atoms, make_student: Callable[..., Any]) -> None:
    """With a teacher that costs less than its student, the frames and not the labels would exceed the budget."""
    from mlff_sim.distill.sampling import student_frames

    known = thermal_frames(ethanol, load_model("harmonic", ethanol))
    network, masses, rng = make_student(ethanol).network, ethanol.get_masses(), np.random.default_rng(0)
    ask = {"temperatures_K": (300, 500), "count": 256, "replicas": 64, "stride": 5, "rng": rng}
    for limit_s, count in ((0.0, 64), (60.0, 256)):
        frames = student_frames(network, known, masses, ethanol.numbers, limit_s=limit_s, **ask)
        assert len(frames) == count


# Labels.


def test_labels_do_not_depend_on_their_order(ethanol: Atoms, gfn2: ForceProvider) -> None:
    x = ethanol.get_positions() + 0.05 * np.random.default_rng(0).standard_normal((6, 9, 3))
    one, other = label(gfn2, x), label(gfn2, x[::-1])
    np.testing.assert_array_equal(one.forces, other.forces[::-1])
    np.testing.assert_array_equal(one.energies, other.energies[::-1])


def test_what_the_teacher_cannot_answer_is_left_out(ethanol: Atoms) -> None:
    """An SCF that fails, forces that are not numbers, and frames far outside any ensemble."""
    good = load_model("harmonic", ethanol)

    class Moody:
        """Harmonic bonds, but the first coordinate of a frame says what goes wrong."""

        numbers, reset = good.numbers, good.reset

        def __call__(self, x: Any, cell: Any = None, /) -> Evaluation:
            e = good(x)
            if x[0, 0] == 1:
                raise RuntimeError("SCF did not converge")
            if x[0, 0] == 2:
                return Evaluation(e.energy, e.forces * np.nan)
            if x[0, 0] == 3:
                return Evaluation(e.energy, e.forces + MAX_LABEL_FORCE)
            return e

    frames = np.repeat(ethanol.get_positions()[None], 5, axis=0)
    frames[[1, 2, 3], 0, 0] = [1, 2, 3]
    frames[4] += 0.01
    kept = label(Moody(), frames)  # type: ignore[arg-type]
    np.testing.assert_array_equal(kept.positions, frames[[0, 4]])
    assert len(label(Moody(), frames[1:4])) == 0  # type: ignore[arg-type]


def test_labels_add_up_and_come_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    a = Labels(rng.random((3, 4, 3)), rng.random(3), rng.random((3, 4, 3)))
    both = a + Labels.empty(4) + a
    both.save(tmp_path / "labels.npz")
    again = Labels.load(tmp_path / "labels.npz")
    assert len(again) == 6 and [p.name for p in tmp_path.iterdir()] == ["labels.npz"]
    np.testing.assert_array_equal(again.forces, np.concatenate([a.forces, a.forces]))


@pytest.mark.parametrize(
    "change",
    [
        {"temperatures_K": ()},
        {"temperatures_K": (300.0, 0.0)},
        {"temperatures_K": (float("nan"),)},
        {"budget_s": 0.0},
        {"budget_s": float("nan")},
        {"target_mae": 0.0},
        {"target_mae": float("nan")},
        {"widths": ()},
        {"widths": (16, 0)},
    ],
    ids=str,
)
def test_settings_that_make_no_sense(change: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        DistillConfig(**{"teacher": "gfn2-xtb", **change})


def test_what_this_student_cannot_describe(ethanol: Atoms, tmp_path: Path) -> None:
    crystal = ethanol.copy()
    crystal.set_cell([9, 9, 9])
    crystal.set_pbc(True)
    for atoms, words in ((crystal, "periodic"), (ethanol[:2], "at least 3")):
        with pytest.raises(InputError, match=words):
            distill(atoms, load_model("harmonic", ethanol), DistillConfig("harmonic"), tmp_path / "no.student")
    assert not list(tmp_path.iterdir())
