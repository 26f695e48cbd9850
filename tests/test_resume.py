"""A killed run is taken up where it was, and what it leaves behind in the end is, bit for bit, the unbroken run's."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from ase import Atoms
from ase.io import read, write

from mlff_sim.errors import InputError
from mlff_sim.models.registry import load_model
from mlff_sim.runfolder import read_run
from mlff_sim.simulation import Run, RunConfig, run
from mlff_sim.state import kinetic_energy
from mlff_sim.units import FS, KB


def arrays(folder: Path) -> dict[str, bytes]:
    """Every array of log.h5 outside /wall, as bytes with shape and type."""
    out: dict[str, bytes] = {}

    def visit(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset) and not name.startswith("wall/"):
            out[name] = repr((item.shape, item.dtype)).encode() + item[()].tobytes()

    with h5py.File(folder / "log.h5") as f:
        f.visititems(visit)
    return out


def same(a: Path, b: Path) -> bool:
    one, other = arrays(a), arrays(b)
    assert one.keys() == other.keys() and len(one) >= 7
    return one == other and (a / "trajectory.xyz").read_bytes() == (b / "trajectory.xyz").read_bytes()


def command(config: RunConfig, out: Path) -> list[str]:
    """The command line of a two-model run."""
    words = ["hybrid", "--structure", config.structure, "--teacher", config.teacher, "--student", str(config.student)]
    for name in (
        "ensemble",
        "timestep_fs",
        "k_steps",
        "duration_ps",
        "friction_per_ps",
        "equilibrate_ps",
        "replicas",
        "seed",
    ):
        words += ["--" + name.replace("_", "-"), str(getattr(config, name))]
    switches = ["--compile" if config.compile else "--no-compile", "--baseline" if config.baseline else "--no-baseline"]
    return [*words, *switches, "--out", str(out)]


def kill_when(process: subprocess.Popen[str], ready: Callable[[], bool], seconds: float = 120) -> None:
    """kill -9 as soon as something has happened."""
    end = time.monotonic() + seconds
    while not ready():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.communicate()


@pytest.fixture
def settings(student_file: Path) -> RunConfig:
    """Two replicas at constant temperature, four segments of 200 outer steps."""
    return RunConfig(
        "ethanol",
        "gfn2-xtb",
        str(student_file),
        k_steps=2,
        duration_ps=0.8,
        friction_per_ps=20.0,
        equilibrate_ps=0.05,
        replicas=2,
        seed=3,
        baseline=False,
        compile=False,
    )


def killed_twice_and_resumed(
    config: RunConfig, folder: Path, start: Callable[..., Any], shell: Callable[..., Any]
) -> Path:
    """Kill before the first checkpoint, then in the middle, then let it finish; every time the same command."""
    broken, segments = folder / "broken", folder / "broken" / "segments"
    words = [*command(config, broken), "--resume"]
    kill_when(start(*words), (broken / "run.json").exists)
    assert not (segments / "checkpoint.npz").exists()
    kill_when(start(*words), (segments / "000001.h5").exists)
    assert json.loads((broken / "run.json").read_text())["status"] == "running"
    assert not (broken / "log.h5").exists()
    with pytest.raises(InputError, match="unfinished run"):
        read_run(broken)
    done = shell(*words)
    assert done.code in (0, 1), done  # the code says how the report came out
    assert done.err == "" or config.compile, done.err  # torch's compiler may remark on a missing GPU
    assert "error" not in done.err.lower()
    assert json.loads((broken / "run.json").read_text())["status"] == "finished"
    assert not segments.exists()
    return broken


def test_a_killed_run_is_the_unbroken_run(
    settings: RunConfig, start: Callable[..., Any], shell: Callable[..., Any], cli: Callable[..., Any], tmp_path: Path
) -> None:
    """kill -9 twice; the unbroken run is made in this process, so that the two share nothing."""
    broken = killed_twice_and_resumed(settings, tmp_path, start, shell)
    unbroken = run(settings, tmp_path / "unbroken")
    assert same(broken, unbroken)
    data = read_run(broken)
    assert data.positions.shape == (81, 2, 9, 3)
    before = {p: p.read_bytes() for p in broken.iterdir()}
    again = cli(*command(settings, broken), "--resume")
    assert again.code == 0 and "already finished" in again.out
    assert {p: p.read_bytes() for p in broken.iterdir()} == before


@pytest.mark.slow
def test_a_killed_compiled_run_is_the_unbroken_run(
    settings: RunConfig, start: Callable[..., Any], shell: Callable[..., Any], tmp_path: Path
) -> None:
    """The same with compiled inner loops, at constant energy and with the baseline: another process, another graph."""
    config = replace(settings, compile=True, ensemble="nve", baseline=True, replicas=1, k_steps=3, duration_ps=1.2)
    broken = killed_twice_and_resumed(config, tmp_path, start, shell)
    assert same(broken, run(config, tmp_path / "unbroken"))


class Killed(BaseException):
    """The process is gone: nothing that handles exceptions may notice."""


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("after", "change"),
    [
        (False, {}),
        (True, {"scheme": "mollified"}),
        (True, {"scheme": "ghmc"}),
        (True, {"middle": "harmonic", "middle_steps": 1, "integrator": "obabo", "friction_by_element": {"H": 40.0}}),
        (True, {"remove_com": True, "hydrogen_mass": 3.0}),
    ],
    ids=["before", "after", "ghmc", "three-levels", "heavy"],
)
def test_killed_at_every_rename(
    after: bool, change: dict[str, Any], settings: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files appear by renaming. Ended just before or after any of them, the run is resumed as if nothing had been.

    Files that are open then stay so in this process, unlike in one that is really killed.
    """
    monkeypatch.setattr("mlff_sim.simulation.config.CHECKPOINT_STEPS", 10)
    config = replace(settings, teacher="morse", duration_ps=0.04, friction_per_ps=5.0, **change)
    if (
        config.scheme == "mollified"
    ):  # its X-H stretches are the student's, which must have some, and may remember an SCF
        config = replace(config, teacher="gfn2-xtb", student="gfn1-xtb")
    unbroken = run(config, tmp_path / "unbroken")
    assert not same(unbroken, run(replace(config, seed=4), tmp_path / "other")), "the comparison can fail"
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
            run(config, broken)
        except Killed:
            left = 10**9
            run(config, broken, resume=True)
            assert same(broken, unbroken), f"killed at rename {k}"
            assert json.loads((broken / "run.json").read_text())["status"] == "finished"
        else:
            break
    assert k > 12, "four segments and checkpoints, run.json, log.h5, two trajectories, topology, run.json again"


def test_a_compiled_teacher_is_resumed_exactly(
    settings: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its graph and its lists are made anew; nothing in them depends on the clock. (The graph is not compiled here.)"""
    monkeypatch.setattr("mlff_sim.models.compiled.compiled", lambda flat, inputs, options: flat)
    monkeypatch.setattr("mlff_sim.simulation.config.CHECKPOINT_STEPS", 10)
    network = f"module:{Path(__file__).parents[1] / 'examples' / 'own_module.py'}:build"
    config = replace(settings, teacher=network, duration_ps=0.04, equilibrate_ps=0.0, replicas=1, compile_teacher=True)
    config = replace(config, unguarded=("pairs", "bonds", "temperature"))  # an untrained network knows no molecules
    unbroken = run(config, tmp_path / "unbroken")
    plain = read_run(run(replace(config, compile_teacher=False), tmp_path / "plain"))
    np.testing.assert_allclose(read_run(unbroken).potential_energy[:2], plain.potential_energy[:2], atol=1e-5)
    rename, left = os.replace, 7

    def dying(source: Any, target: Any) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise Killed
        rename(source, target)

    monkeypatch.setattr(os, "replace", dying)
    with pytest.raises(Killed):
        run(config, tmp_path / "broken")
    left = 10**9
    assert same(run(config, tmp_path / "broken", resume=True), unbroken)


def test_a_run_killed_before_it_said_what_it_is_can_be_started(settings: RunConfig, tmp_path: Path) -> None:
    """An empty folder, or one with nothing but an empty `segments` and a half-written run.json."""
    config = replace(settings, teacher="morse", duration_ps=0.01, equilibrate_ps=0.0)
    for name, make in {
        "nothing": lambda p: None,
        "empty": lambda p: p.mkdir(),
        "half": lambda p: (p.mkdir(), (p / ".run.json.4711.tmp").write_text("{")),
        "segments": lambda p: (p / "segments").mkdir(parents=True),
    }.items():
        make(tmp_path / name)
        run(config, tmp_path / name, resume=True)
        assert read_run(tmp_path / name).settings["status"] == "finished"


# What does not change a run.


def test_the_clock_leaves_no_trace(settings: RunConfig, tmp_path: Path) -> None:
    """Timing the models beforehand and the baseline beside it happens on copies: the numbers stay the same bits."""
    exact = replace(settings, scheme="ghmc", teacher="morse", duration_ps=0.1)
    assert same(run(replace(exact, baseline=True), tmp_path / "timed"), run(exact, tmp_path / "untimed"))
    config = replace(settings, duration_ps=0.3)
    assert same(run(replace(config, baseline=True), tmp_path / "with"), run(config, tmp_path / "without"))
    timing = read_run(tmp_path / "with").settings["timing"]
    assert all(
        timing[name] > 0 for name in ("teacher_ms", "student_inner_us", "baseline_teacher_ms", "predicted_speedup")
    )


def test_recording_leaves_no_trace(settings: RunConfig, tmp_path: Path) -> None:
    config = replace(settings, teacher="morse", duration_ps=0.2)
    often, seldom = (read_run(run(replace(config, every=e), tmp_path / str(e))) for e in (1, 40))
    np.testing.assert_array_equal(often.positions[::40], seldom.positions)
    np.testing.assert_array_equal(often.heat[::40], seldom.heat)
    assert len(often.time_ps) == 201 and len(seldom.time_ps) == 6


# What a run leaves behind.


def test_rows_say_what_the_models_say(settings: RunConfig, ethanol: Atoms, tmp_path: Path) -> None:
    """K from the momenta, U from the teacher, and their sum less the heat; the residual between rows."""
    data = read_run(run(replace(settings, teacher="morse", duration_ps=0.1, every=1), tmp_path / "run"))
    teacher, student = load_model("morse", ethanol), load_model(str(f"student:{settings.student}"), ethanol)
    for row in (0, 7, -1):
        x, masses = data.positions[row], ethanol.get_masses()
        np.testing.assert_allclose(data.potential_energy[row], teacher(x).energy, atol=1e-12)
        np.testing.assert_allclose(data.kinetic_energy[row], kinetic_energy(data.momenta[row], masses), atol=1e-12)
        residual = np.abs(teacher(x).forces - student(x).forces).mean(axis=(1, 2))
        np.testing.assert_allclose(data.residual_mae[row], residual, atol=1e-5)
    np.testing.assert_array_equal(data.conserved, data.kinetic_energy + data.potential_energy - data.heat)
    np.testing.assert_allclose(data.time_ps, np.arange(101) * 1e-3, atol=1e-12)
    assert np.all(data.heat[0] == 0) and np.any(data.heat[-1] != 0)
    # A start row before production and one call for each outer step; equilibration has its own account.
    assert data.settings["teacher_calls"] == 2 * 101


def test_velocities_in_the_structure_are_kept(ethanol: Atoms, tmp_path: Path) -> None:
    atoms = ethanol.copy()
    p = np.random.default_rng(0).standard_normal((9, 3))
    atoms.set_momenta(p)
    write(tmp_path / "start.traj", atoms)
    config = RunConfig(str(tmp_path / "start.traj"), "morse", ensemble="nve", duration_ps=0.01)
    data = read_run(run(config, tmp_path / "run"))
    np.testing.assert_array_equal(data.momenta[0, 0], p)
    assert data.settings["com_removed"] is False
    with pytest.raises(InputError, match="would be copies"):
        run(replace(config, replicas=2), tmp_path / "copies")
    assert not (tmp_path / "copies").exists()


def test_drawn_velocities_are_those_of_the_ensemble(ethanol: Atoms, tmp_path: Path) -> None:
    """NVE starts without motion of the centre of mass and says so; every replica has its own draw at the temperature."""
    config = RunConfig("ethanol", "morse", ensemble="nve", duration_ps=0.001, replicas=400, temperature_K=500)
    data = read_run(run(config, tmp_path / "run"))
    assert data.settings["com_removed"] is True
    assert np.abs(data.momenta[0].sum(axis=1)).max() < 1e-12
    dof = 3 * 9 - 3
    error = 500 * np.sqrt(2 / dof / 400)
    assert abs(2 * data.kinetic_energy[0].mean() / (dof * KB) - 500) < 4 * error


def test_a_run_that_has_moved_is_the_same_run(ethanol: Atoms, tmp_path: Path) -> None:
    """Folder and structure file may be called otherwise; what the file holds may not change."""
    for name in ("here", "there"):
        write(tmp_path / f"{name}.xyz", ethanol, format="extxyz")
    config = RunConfig(str(tmp_path / "here.xyz"), "mmff", duration_ps=0.01)
    run(config, tmp_path / "run").rename(tmp_path / "moved")
    moved = replace(config, structure=str(tmp_path / "there.xyz"))
    assert Run(moved, tmp_path / "moved", resume=True).action == "finished"
    shifted = ethanol.copy()
    shifted.positions[0, 0] += 1e-5
    write(tmp_path / "there.xyz", shifted, format="extxyz")
    with pytest.raises(
        InputError, match=r"different run \(start .*here\.xyz \(\w{8}\) there, .*there\.xyz \(\w{8}\) here\)"
    ):
        Run(moved, tmp_path / "moved", resume=True)


def test_frames_in_the_file_become_replicas(ethanol: Atoms, tmp_path: Path) -> None:
    frames = [ethanol.copy() for _ in range(3)]
    for k, frame in enumerate(frames):
        frame.positions += 0.01 * k * np.random.default_rng(k).standard_normal((9, 3))
    write(tmp_path / "frames.traj", frames)
    config = RunConfig(str(tmp_path / "frames.traj") + "@0:3", "morse", duration_ps=0.01)
    data = read_run(run(config, tmp_path / "run"))
    np.testing.assert_array_equal(data.positions[0], [f.get_positions() for f in frames])


def test_trajectories_open_elsewhere(settings: RunConfig, ethanol: Atoms, tmp_path: Path) -> None:
    """In ASE with momenta, and in MDTraj with the names of topology.pdb; positions to the digits of the file."""
    mdtraj = pytest.importorskip("mdtraj")
    folder = run(replace(settings, teacher="morse", duration_ps=0.1), tmp_path / "run")
    data = read_run(folder)
    for replica, name in enumerate(["trajectory.xyz", "trajectory-r1.xyz"]):
        frames = read(folder / name, index=":")
        assert len(frames) == len(data.time_ps) == 11
        assert all(f.get_chemical_symbols() == ethanol.get_chemical_symbols() for f in frames)
        np.testing.assert_allclose([f.get_positions() for f in frames], data.positions[:, replica], atol=1e-7)
        np.testing.assert_allclose([f.get_momenta() for f in frames], data.momenta[:, replica], atol=1e-7)
        np.testing.assert_allclose([f.info["time_ps"] for f in frames], data.time_ps)
        trajectory = mdtraj.load(str(folder / name), top=str(folder / "topology.pdb"))
        assert trajectory.n_frames == 11 and trajectory.n_atoms == 9
        assert [a.element.symbol for a in trajectory.topology.atoms] == ethanol.get_chemical_symbols()
        np.testing.assert_allclose(10 * trajectory.xyz, data.positions[:, replica], atol=1e-5)
    assert read(folder / "topology.pdb").get_chemical_symbols() == ethanol.get_chemical_symbols()
    # A trajectory is a structure file: its last frame, with velocities, starts another run.
    more = RunConfig(f"{folder / 'trajectory.xyz'}@-1", "morse", ensemble="nve", duration_ps=0.01)
    np.testing.assert_allclose(read_run(run(more, tmp_path / "more")).momenta[0], data.momenta[-1, :1], atol=1e-7)


def test_k_1_through_the_front_door_is_the_teacher(settings: RunConfig, tmp_path: Path) -> None:
    """`--k-steps 1` of a whole run against `md`: 1e-10 A after 100 steps."""
    config = replace(settings, k_steps=1, ensemble="nve", duration_ps=0.05, equilibrate_ps=0.0, replicas=1, every=1)
    hybrid = read_run(run(config, tmp_path / "hybrid"))
    plain = read_run(run(replace(config, student=None), tmp_path / "plain"))
    assert len(plain.time_ps) == 101
    assert np.abs(hybrid.positions - plain.positions).max() < 1e-10
    # And at the stated time step: a free flight of one step from the first row.
    x, p = plain.positions[0, 0], plain.momenta[0, 0]
    model = load_model("gfn2-xtb", read(tmp_path / "plain" / "trajectory.xyz", index=0))
    masses = read(tmp_path / "plain" / "trajectory.xyz", index=0).get_masses()[:, None]
    h = 0.5 * FS
    step = x + h * (p + 0.5 * h * model(x).forces) / masses
    assert np.abs(step - plain.positions[1, 0]).max() < 1e-8
