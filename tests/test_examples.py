"""The examples run, shortened: each as a user starts it, in a folder of its own, with what it prints looked at."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
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


def test_own_trajectory(tmp_path: Path) -> None:
    """Verlet of a smooth force at a fiftieth of its fastest period does not drift, and files and arrays agree on it."""
    out = run(tmp_path, shortened(tmp_path, "own_trajectory.py", {"1000, 5": "400, 5"}))
    assert "verdict:\n  pass" in out and "Structure was not judged" in out, out
    said = re.search(r"drift (\S+) \((\S+) to (\S+)\) meV/atom/ps: pass", out)
    assert said is not None and abs(float(said[1])) < 0.01, out
    found = json.loads((tmp_path / "runs/example-trajectory/results.json").read_text())
    assert f"{found['nve']['slope_meV_per_atom_ps']:+.1g}" == said[1]
    assert (tmp_path / "runs/example-trajectory/report.html").exists()


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


def test_alanine_dipeptide_in_water() -> None:
    """20 fs of it: the peptide has the energy of its model, and the solution its temperature.

    GFN2-xTB puts ACE-ALA-NME at -897 eV, which is -86.6 MJ/mol; 420 waters at -40 kJ/mol add about -17. Started with
    300 K at a minimum, about half of the kinetic energy becomes potential before the bath has made up for it.
    """
    for package in ("openmmml", "tblite"):
        pytest.importorskip(package)
    command = [sys.executable, "-W", "error", str(EXAMPLES / "alanine_dipeptide.py"), "--steps", "20"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    first, _, *rows, last = done.stdout.splitlines()
    assert first.startswith("22 atoms by gfn2-xtb, ") and last.endswith(" steps/s") and float(last.split()[0]) > 0
    steps, potential, temperature = np.array([row.split(",") for row in rows], dtype=float).T
    assert steps.tolist() == [4, 8, 12, 16, 20]
    assert np.all((potential > -1.06e5) & (potential < -1.00e5))  # kJ/mol
    assert np.all((temperature > 100) & (temperature < 350))
