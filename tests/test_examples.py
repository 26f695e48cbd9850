"""The examples run, shortened: each as a user starts it, in a folder of its own, with what it prints looked at."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(folder: Path, *command: str) -> str:
    """Standard output of `python command`; a warning of ours, or a traceback, fails."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr, done.stderr
    return done.stdout


def shortened(folder: Path, name: str, changes: dict[str, str]) -> str:
    """A copy of an example with less to do; every change must apply exactly once."""
    code = (EXAMPLES / name).read_text()
    for before, after in changes.items():
        assert code.count(before) == 1, f"{name} no longer says {before!r} once"
        code = code.replace(before, after)
    (folder / name).write_text(code)
    return name


def test_ase_calculator(tmp_path: Path) -> None:
    out = run(tmp_path, str(EXAMPLES / "ase_calculator.py"), "--steps", "50")
    assert re.search(r"student:aspirin-gfn2: 50 steps of 0\.5 fs, [\d.]+ ms/step", out), out
    moved = re.search(r"moved by ([+-][\d.]+) meV/atom, fluctuates by ([\d.]+)", out)
    assert moved is not None and 0 < float(moved[2]) < 1.0 and abs(float(moved[1])) < 1.0, out
    assert "acceleration:" in out


def test_own_module(tmp_path: Path) -> None:
    pytest.importorskip("openmm")
    out = run(tmp_path, str(EXAMPLES / "own_module.py"), "--eager")
    said = re.search(r"energy in ASE (-[\d.]+) eV, in OpenMM (-[\d.]+) eV, difference ([\d.e+-]+) eV", out)
    assert said is not None, out
    # Both ask the same float32 network; the constants of the two packages differ by 1e-8 of the energy.
    assert float(said[1]) < -1 and float(said[3]) < 1e-6, out
    assert "because: compile = False" in out


@pytest.mark.slow
def test_aspirin(tmp_path: Path) -> None:
    changes = {"duration_ps=5.0": "duration_ps=0.06", "equilibrate_ps=0.5": "equilibrate_ps=0.0, compile=False"}
    out = run(tmp_path, shortened(tmp_path, "aspirin.py", changes))
    assert "verdict:" in out and "times faster" in out and (tmp_path / "runs/example-aspirin/report.html").exists()


@pytest.mark.slow
def test_own_calculator(tmp_path: Path) -> None:
    # Eight seconds teach nothing worth eight steps; after every step it is corrected to the teacher's own dynamics.
    changes = {
        "budget_s=90.0": "budget_s=8.0",
        "duration_ps=5.0": "duration_ps=0.06, compile=False",
        "k_steps=8": "k_steps=1",
    }
    out = run(tmp_path, shortened(tmp_path, "own_calculator.py", changes))
    assert "laws broken: none" in out and "meV/A on a trajectory it never saw" in out and "verdict:" in out
