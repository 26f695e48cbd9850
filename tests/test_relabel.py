"""Frames beyond the student's training range: kept with the teacher's answers, without a trace in the run."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from ase import Atoms

from mlff_sim.errors import InputError, SimulationStopped
from mlff_sim.integrators.force_table import ForceTable
from mlff_sim.integrators.mollifier import Mollifier
from mlff_sim.integrators.schemes import verlet
from mlff_sim.integrators.stepper import Stepper
from mlff_sim.models.checkpoint import save_student
from mlff_sim.models.registry import load_model
from mlff_sim.runfolder import read_run, read_settings
from mlff_sim.simulation import RunConfig, run
from mlff_sim.simulation.assembly import relaxed
from mlff_sim.simulation.guards import Guard
from mlff_sim.simulation.relabel import Relabel
from mlff_sim.simulation.rules import Residual
from mlff_sim.state import State
from mlff_sim.structure import covalent_bonds
from mlff_sim.units import FS

LIMIT = 3.0
"""eV/A, twice what the student's file says was its largest error; an untrained student is often beyond."""


def taught(student: Any, limit: float) -> Any:
    """The student with a record that it may differ by so much, eV/A."""
    student.record["errors"] = {"largest_on_an_atom_meV_per_A": 1e3 * limit / 2}
    return student


@pytest.fixture
def settings(make_student: Callable[..., Any], ethanol: Atoms, tmp_path: Path) -> RunConfig:
    """Two replicas, 80 outer steps of 1 fs."""
    save_student(taught(make_student(ethanol), LIMIT), tmp_path / "student")
    return RunConfig(
        "ethanol", "morse", str(tmp_path / "student"), k_steps=2, duration_ps=0.08, friction_per_ps=5.0, replicas=2,
        seed=3, baseline=False, compile=False, every=1, on_residual="relabel",
    )  # fmt: skip


def kept(folder: Path) -> dict[str, Any]:
    with np.load(folder / "relabel.npz", allow_pickle=False) as f:
        return {k: f[k] for k in f.files}


def log(folder: Path) -> dict[str, bytes]:
    with h5py.File(folder / "log.h5") as f:
        return {k: f[k][()].tobytes() for k in f if k != "wall"}


@pytest.mark.parametrize("scheme", ["respa", "mollified", "ghmc"])
def test_frames_beyond_the_range_are_kept_as_labels(
    scheme: str, settings: RunConfig, make_student: Callable[..., Any], ethanol: Atoms, tmp_path: Path
) -> None:
    """Every frame is one of the run, its energy and forces are the teacher's, it lies beyond, and 20 fs apart."""
    limit, config = LIMIT, replace(settings, scheme=scheme)
    if scheme == "mollified":  # the X-H stretches are the student's, and an untrained one has none
        config = replace(config, duration_ps=0.03, unguarded=("pairs", "bonds", "temperature"))
    if scheme == "ghmc":  # most proposals of such a student are refused, and the run stays near its start
        limit = 0.7
        save_student(taught(make_student(ethanol), limit), tmp_path / "student")
    folder = run(config, tmp_path / "run")
    data, frames = read_run(folder), kept(folder)
    teacher, student = load_model("morse", ethanol), load_model(f"student:{config.student}", ethanol)
    visited = data.positions
    if scheme == "mollified":
        bonds = covalent_bonds(ethanol)
        visited = Mollifier(ethanol.numbers.tolist(), bonds, relaxed(student, ethanol.get_positions()))(
            visited.reshape(-1, 9, 3)
        ).reshape(visited.shape)
    assert len(frames["step"]) >= 2 and frames["numbers"].tolist() == ethanol.numbers.tolist()
    for x, e, f, step, replica in zip(*(frames[k] for k in ("positions", "energies", "forces", "step", "replica"))):  # noqa: B905
        np.testing.assert_allclose(x, visited[step, replica], atol=1e-12)
        truth = teacher(x)
        assert e == pytest.approx(float(truth.energy), abs=1e-9)
        np.testing.assert_allclose(f, truth.forces, atol=1e-9)
        assert np.linalg.norm(f - student(x).forces, axis=1).max() > limit
    for r in range(2):
        assert np.all(np.diff(frames["step"][frames["replica"] == r]) >= 20)
    # Those that are not there were within, or too near to one that is.
    size = np.linalg.norm(
        teacher(visited.reshape(-1, 9, 3)).forces - student(visited.reshape(-1, 9, 3)).forces, axis=-1
    )
    beyond = size.max(axis=-1).reshape(visited.shape[:2]) > limit + 1e-4
    for step, r in np.argwhere(beyond[1:]) + np.array([1, 0]):
        mine = frames["step"][frames["replica"] == r]
        near = (mine <= step) & (mine > step - 20)
        same = any(np.array_equal(visited[step, r], visited[s, r]) for s in mine)  # a refused proposal
        assert near.any() or same
    assert read_settings(folder)["relabelled"] == len(frames["step"])


def test_relabelling_changes_nothing_about_the_run(settings: RunConfig, tmp_path: Path) -> None:
    with_it, without = (
        run(settings, tmp_path / "with"),
        run(replace(settings, on_residual="ignore"), tmp_path / "without"),
    )
    assert log(with_it) == log(without)
    assert not (without / "relabel.npz").exists()
    assert any("mlff-sim distill --labels" in n for n in assess_notes(with_it))


def assess_notes(folder: Path) -> tuple[str, ...]:
    from mlff_sim.validation import assess_folder

    return assess_folder(folder).notes


class Killed(BaseException):
    """The process is gone: nothing that handles exceptions may notice."""


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("after", [False, True])
def test_killed_at_every_rename_the_frames_are_those_of_the_unbroken_run(
    after: bool, settings: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None is lost and none doubled, whichever of segment, frames and checkpoint had been written."""
    monkeypatch.setattr("mlff_sim.simulation.config.CHECKPOINT_STEPS", 10)
    unbroken = run(settings, tmp_path / "unbroken")
    assert len(kept(unbroken)["step"]) >= 4
    rename, left = os.replace, 10**9

    def dying(source: Any, target: Any) -> None:
        nonlocal left
        left -= 1
        if left == 0 and not after:
            raise Killed
        rename(source, target)
        if left == 0:
            raise Killed

    monkeypatch.setattr(os, "replace", dying)
    for k in range(1, 100):
        broken, left = tmp_path / f"broken-{k}", k
        try:
            run(settings, broken)
        except Killed:
            left = 10**9
            run(settings, broken, resume=True)
            assert log(broken) == log(unbroken), f"killed at rename {k}"
            assert (broken / "relabel.npz").read_bytes() == (unbroken / "relabel.npz").read_bytes(), f"rename {k}"
        else:
            break
    assert k > 20, "eight segments and checkpoints, frames in between, and the files of the end"


def test_a_stopped_run_keeps_its_frames(settings: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those since the last checkpoint."""
    whole = kept(run(settings, tmp_path / "whole"))
    last = int(whole["step"].max())

    def stop(self: Guard, step: int) -> None:
        if step == last + 1:
            raise SimulationStopped("enough", step, 0, 0, "for now")

    monkeypatch.setattr(Guard, "_check_finite", stop)
    with pytest.raises(SimulationStopped, match="enough"):
        run(settings, tmp_path / "run")
    assert last % settings.checkpoint_steps and kept(tmp_path / "run")["step"].tolist() == whole["step"].tolist()


def test_a_frame_is_kept_once(
    ethanol: Atoms, thermal: Callable[..., State], two_models: Callable[..., ForceTable]
) -> None:
    """Where proposals are refused a replica stays where it is: another 20 fs make no other frame of it."""
    state = thermal(2)
    table = two_models(load_model("morse", ethanol), load_model("harmonic", ethanol))
    start = State(1.1 * state.positions, state.momenta)  # stretched, where the two differ
    stepper = Stepper(verlet("student"), FS, ethanol.get_masses(), table, start)
    relabel = Relabel(Residual(1e-3), stepper, outer_step_fs=1.0)
    for step in (0, 50):
        relabel.look(step)
        assert len(relabel) == 2
    moved = start.positions.copy()
    moved[1] *= 1.001
    stepper.restart(State(moved, start.momenta), None)
    for step, count in ((100, 3), (110, 3), (130, 3)):
        relabel.look(step)
        assert len(relabel) == count
    assert relabel.arrays()["replica"].tolist() == [0, 1, 1] and relabel.arrays()["step"].tolist() == [0, 0, 100]


def test_no_more_frames_than_are_wanted(settings: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlff_sim.simulation.relabel.MOST", 3)
    frames = kept(run(settings, tmp_path / "run"))
    assert len(frames["step"]) == 3


# What distill makes of them.


def test_distill_learns_from_them(
    settings: RunConfig, ethanol: Atoms, cli: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They count as labels, and the new student knows its largest error on any of its frames."""
    frames = run(settings, tmp_path / "run") / "relabel.npz"
    words = ["distill", "--structure", "ethanol", "--teacher", "morse", "--budget", "3s", "--width", "16,16"]
    result = cli(*words, "--labels", frames, "--out", tmp_path / "new")
    assert result.code == 0, result
    student = load_model(f"student:{tmp_path / 'new'}", ethanol)
    record = student.record
    assert record["recipe"]["labels"] == str(frames) and len(record["recipe"]["labels_sha256"]) == 64
    x, f = (kept(frames.parent)[k] for k in ("positions", "forces"))
    largest = record["errors"]["largest_on_an_atom_meV_per_A"]
    assert 1e3 * np.linalg.norm(student(x).forces - f, axis=-1).max() <= largest * (1 + 1e-3)
    assert record["errors"]["force_mae_meV_per_A"] < largest < 1e5


def test_labels_of_something_else_are_refused(
    settings: RunConfig, cli: Callable[..., Any], tmp_path: Path, ethanol: Atoms
) -> None:
    """One line, and no work folder."""
    frames = run(settings, tmp_path / "run") / "relabel.npz"
    good = kept(frames.parent)

    def file(name: str, **changes: Any) -> Path:
        path = tmp_path / f"{name}.npz"
        content = {k: v for k, v in {**good, **changes}.items() if v is not None}
        np.savez(path, **content)
        return path

    garbage = tmp_path / "garbage.npz"
    garbage.write_bytes(frames.read_bytes()[:100])
    nan = good["forces"].copy()
    nan[0, 0, 0] = np.nan
    words = ["distill", "--structure", "ethanol", "--teacher", "morse", "--budget", "3s", "--out", tmp_path / "new"]
    for labels, said in (
        (tmp_path / "missing.npz", "does not exist"),
        (garbage, "truncated"),
        (file("bare", energies=None), "no archive of positions"),
        (file("other", numbers=good["numbers"][::-1]), "other atoms"),
        (file("short", energies=good["energies"][:1]), "fit together"),
        (file("nan", forces=nan), "not finite"),
        (file("shifted", energies=good["energies"] + 1.0), "not of teacher 'morse'"),
    ):
        result = cli(*words, "--labels", labels)
        assert result.code == 2 and said in result.line, (labels, result)
        assert not (tmp_path / "new.work").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"on_residual": "panic"}, "'panic' is unknown; choose one of: stop, relabel, ignore"),
        ({"student": None, "k_steps": 1}, "needs a student"),
        ({"unguarded": ("bonds", "gravity")}, "'gravity' is unknown; switch off any of: pairs, bonds"),
        ({"unguarded": ("residual",)}, "on_residual 'ignore'"),
        ({"energy_budget_meV": 0.0}, "must be a positive number"),
        ({"energy_budget_meV": float("nan")}, "must be a positive number"),
        ({"energy_budget_meV": 1.0, "unguarded": ("energy",)}, "exclude each other"),
        ({"energy_budget_meV": 1.0, "scheme": "ghmc"}, "'ghmc' has no energy_budget_meV"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, Any], said: str, settings: RunConfig) -> None:
    with pytest.raises(InputError, match=said):
        replace(settings, **changes)


def test_options_that_make_no_sense_are_refused(cli: Callable[..., Any], tmp_path: Path) -> None:
    hybrid = ["hybrid", "--structure", "ethanol", "--teacher", "morse", "--student", "harmonic", "--k-steps", "2"]
    for more, said in (
        (["--on-residual", "panic"], "choose one of: stop, relabel, ignore"),
        (["--no-guard", "gravity"], "switch off any of"),
        (["--energy-budget-meV", "-1"], "positive"),
    ):
        result = cli(*hybrid, *more, "--out", tmp_path / "out")
        assert result.code == 2 and said in result.line and not (tmp_path / "out").exists()
