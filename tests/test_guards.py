"""A run that leaves physics behind stops, says where, and keeps what it had."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.io import read

from mlff_sim.errors import SimulationStopped
from mlff_sim.models.checkpoint import save_student
from mlff_sim.runfolder import read_run
from mlff_sim.simulation import RunConfig, run
from mlff_sim.units import KB, MEV

CALCULATOR = '''
"""Springs between all atoms that fail after a number of calls, whoever makes them."""
import numpy as np
from ase.calculators.calculator import Calculator, all_changes
from mlff_sim.models.analytic import Harmonic
from mlff_sim.structure import read_structure

ATOMS = read_structure("ethanol")
PAIRS = np.stack(np.triu_indices(len(ATOMS), 1), axis=1)
MODEL = Harmonic(ATOMS.numbers, PAIRS, ATOMS.get_all_distances()[PAIRS[:, 0], PAIRS[:, 1]], k=5.0)
calls = 0

class Sour(Calculator):
    implemented_properties = ["energy", "forces"]
    last, how = 10**9, "nan"

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        global calls
        super().calculate(atoms, properties, system_changes)
        calls += 1
        e = MODEL(self.atoms.get_positions())
        energy, forces = float(e.energy), e.forces.copy()
        late = calls - self.last
        if late > 0:
            along = self.atoms.positions[5] - self.atoms.positions[0]  # of the bond of carbon 0 and hydrogen 5
            along /= np.linalg.norm(along)
            if self.how == "error":
                raise RuntimeError("the SCF\\ndid not converge")
            if self.how == "nan":
                forces[5, 1] = np.nan
            if self.how in ("pull", "push"):  # slowly, so that nothing gets hot
                pull = (0.1 if self.how == "pull" else -0.1) * late * along
                forces[5] += pull
                forces[0] -= pull
            if self.how == "spin":
                forces[5] += 5.0 * np.cross(along, [0.0, 0.0, 1.0])
            if self.how == "leak":
                energy += 0.001 * late
            if self.how == "jump":
                forces[5] += 20.0 * along
        self.results = {"energy": energy, "forces": forces}
'''


@pytest.fixture
def sour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """The registry name of a calculator that works `last` times."""
    folder = tmp_path / "modules"
    folder.mkdir()

    def make(last: int, how: str = "nan") -> str:
        name = f"sour_{last}_{how}_{tmp_path.name}".replace("-", "_").replace("[", "_").replace("]", "_")
        (folder / f"{name}.py").write_text(CALCULATOR + f"\nSour.last, Sour.how = {last}, '{how}'\n")
        return f"ase:{name}:Sour"

    monkeypatch.syspath_prepend(folder)
    return make


def stop(folder: Path, atoms: Atoms) -> dict[str, Any]:
    """What run.json says about the end, after checking that everything was kept and can be read."""
    settings = json.loads((folder / "run.json").read_text())
    assert settings["status"] == "stopped"
    assert settings["stop"].keys() >= {
        "rule",
        "step",
        "time_ps",
        "replica",
        "atom",
        "element",
        "value",
        "limit",
        "detail",
    }
    assert not (folder / "segments").exists()
    frames = read(folder / "last_frames.xyz", index=":")
    assert 1 <= len(frames) <= 10
    assert all(f.get_chemical_symbols() == atoms.get_chemical_symbols() for f in frames)
    assert all(np.isfinite(f.get_positions()).all() for f in frames)
    times = [f.info["time_ps"] for f in frames]
    assert times == sorted(times) and len(set(times)) == len(times)
    # What was recorded up to there is kept too; its last rows may be the ones that went wrong.
    data = read_run(folder)
    assert len(data.time_ps) >= 1 and np.isfinite(data.positions[0]).all()
    return dict(settings["stop"])


MD = ["--structure", "ethanol", "--duration-ps", "0.2", "--ensemble", "nve"]


PLANTED = {
    "spin": ("nvt", "temperature runs away", {5}, "K"),
    "pull": ("nvt", "a bond is broken", {0, 5}, "A"),
    "push": ("nvt", "atoms too close", {0, 5}, "A"),
    "leak": ("nve", "energy budget spent", set(range(9)), "meV/atom"),
}


@pytest.mark.parametrize("how", PLANTED)
def test_a_planted_fault_stops_the_run_and_is_dissected(
    how: str, cli: Callable[..., Any], sour: Callable[..., str], tmp_path: Path, ethanol: Atoms
) -> None:
    """From call 100 on; its clean twin, the same run without the fault, passes. Everything is named everywhere."""
    ensemble, rule, atoms, unit = PLANTED[how]
    arguments = ["--structure", "ethanol", "--duration-ps", "0.3", "--ensemble", ensemble, "--temperature-K", "100"]
    cli("md", "--model", sour(10**9, how), *arguments, "--out", tmp_path / "clean")
    assert json.loads((tmp_path / "clean" / "run.json").read_text())["status"] == "finished"
    assert not (tmp_path / "clean" / "stop.txt").exists()
    out = tmp_path / "out"
    result = cli("md", "--model", sour(100, how), *arguments, "--out", out)
    assert result.code == 1
    facts = stop(out, ethanol)
    assert facts["rule"] == rule and facts["atom"] in atoms and 100 <= facts["step"] < 600
    assert facts["element"] == ethanol.symbols[facts["atom"]] and facts["unit"] == unit
    assert facts["time_ps"] == pytest.approx(facts["step"] * 5e-4)
    assert (facts["value"] < facts["limit"]) == (how == "push")
    for words in (rule, f"step {facts['step']}", f"atom {facts['atom']}"):
        assert words in result.line
    # The frame that broke the rule is the last one kept, and what is said about it is true.
    last = read(out / "last_frames.xyz", index=-1)
    assert last.info["time_ps"] == pytest.approx(facts["time_ps"])
    found = json.loads((out / "run.json").read_text())["dissection"]
    assert found["step"] == facts["step"] and len(found["last_steps"]) == 10
    bond = found["longest_bonds"][0]
    assert bond["length_A"] == pytest.approx(last.get_distance(*bond["atoms"]), abs=1e-6)
    assert bond["start_A"] == pytest.approx(ethanol.get_distance(*bond["atoms"]))
    pair = found["closest_pairs"][0]
    assert pair["distance_A"] == pytest.approx(last.get_distance(*pair["atoms"]), abs=1e-6)
    if how == "pull":
        assert bond["atoms"] == [0, 5] and facts["value"] == pytest.approx(bond["length_A"])
    if how == "push":
        assert pair["atoms"] == [0, 5] and facts["value"] == pytest.approx(pair["distance_A"])
    if how == "spin":
        assert found["hottest_atoms"][0]["atom"] == 5 and found["temperature_K"]["H"] == pytest.approx(facts["value"])
    if how == "leak":
        assert found["last_steps"][-1]["conserved_meV_per_atom"] == pytest.approx(facts["value"])
        assert facts["limit"] == pytest.approx(0.5 * KB * 100 / MEV)
    text = (out / "stop.txt").read_text()
    page = (out / "report.html").read_text()
    for words in (rule, f"outer step {facts['step']}", f"atom {facts['atom']} ({facts['element']})", "closest pairs"):
        assert words in text and words in page
    if how != "leak":  # switched off, the guard is silent
        name = {"spin": "temperature", "pull": "bonds", "push": "pairs"}[how]
        cli("md", "--model", sour(99, how), *arguments, "--no-guard", name, "--out", tmp_path / "off")
        settings = json.loads((tmp_path / "off" / "run.json").read_text())
        assert not settings["stop"] or settings["stop"]["rule"] != rule


def test_a_residual_beyond_training_stops_the_run(
    cli: Callable[..., Any], sour: Callable[..., str], make_student: Callable[..., Any], tmp_path: Path, ethanol: Atoms
) -> None:
    """A student that was never wrong by more than 4 eV/A, and a teacher that kicks an atom with 20."""
    student = make_student(ethanol)
    student.record["errors"] = {"largest_on_an_atom_meV_per_A": 4000.0}
    save_student(student, tmp_path / "student")
    arguments = ["--student", tmp_path / "student", "--k-steps", "2", "--no-baseline", "--no-compile", *MD]
    cli("hybrid", "--teacher", sour(10**9, "jump"), *arguments, "--out", tmp_path / "clean")
    assert json.loads((tmp_path / "clean" / "run.json").read_text())["status"] == "finished"
    # The start and 16 + 3 * 51 calls before production: call 270 is step 100.
    out = tmp_path / "out"
    result = cli("hybrid", "--teacher", sour(269, "jump"), *arguments, "--out", out)
    facts = stop(out, ethanol)
    assert result.code == 1 and facts["rule"] == "residual beyond the training range"
    assert facts["atom"] == 5 and facts["element"] == "H" and facts["limit"] == 8.0 < facts["value"]
    found = json.loads((out / "run.json").read_text())["dissection"]["residual"]
    assert found[0]["atom"] == 5 and found[0]["meV_per_A"] == pytest.approx(1e3 * facts["value"])
    cli("hybrid", "--teacher", sour(268, "jump"), *arguments, "--on-residual", "ignore", "--out", tmp_path / "ignored")
    settings = json.loads((tmp_path / "ignored" / "run.json").read_text())
    assert not settings["stop"] or settings["stop"]["rule"] != facts["rule"]


def test_forces_that_turn_nan_stop_the_run(
    cli: Callable[..., Any], sour: Callable[..., str], tmp_path: Path, ethanol: Atoms
) -> None:
    """Call 1 is the start and call n + 1 belongs to step n, so the fault of call 38 is found at step 37."""
    out = tmp_path / "out"
    result = cli("md", "--model", sour(37), *MD, "--out", out)
    assert result.code == 1
    for word in ("step 37", "atom 5", "forces must be finite"):
        assert word in result.line
    facts = stop(out, ethanol)
    assert (facts["step"], facts["atom"], facts["replica"]) == (37, 5, 0)
    assert facts["rule"] == "forces must be finite"
    frames = read(out / "last_frames.xyz", index=":")
    assert len(frames) == 10 and frames[-1].info["time_ps"] == pytest.approx(0.018)
    # Rows come every 20 steps here (about 10 fs), so the start and step 20 are kept.
    assert read_run(out).time_ps == pytest.approx([0, 0.01])


def test_the_library_raises_what_the_command_says(sour: Callable[..., str], tmp_path: Path, ethanol: Atoms) -> None:
    config = RunConfig("ethanol", sour(10), ensemble="nve", duration_ps=0.1)
    with pytest.raises(SimulationStopped) as error:
        run(config, tmp_path / "out")
    assert (error.value.rule, error.value.step, error.value.replica, error.value.atom) == (
        "forces must be finite",
        10,
        0,
        5,
    )
    assert stop(tmp_path / "out", ethanol)["step"] == 10


@pytest.mark.parametrize("last", [0, 1, 6, 40])
@pytest.mark.parametrize("how", ["nan", "error"])
def test_two_model_runs_stop_too(
    last: int, how: str, cli: Callable[..., Any], sour: Callable[..., str], tmp_path: Path, ethanol: Atoms
) -> None:
    """At the start (0), while the models are timed before production (1, 6), or in production (40)."""
    out = tmp_path / "out"
    arguments = ["--student", "morse", "--k-steps", "2", "--no-baseline", "--no-compile", *MD]
    result = cli("hybrid", "--teacher", sour(last, how), *arguments, "--out", out)
    assert result.code == 1
    rule = "forces must be finite" if how == "nan" else "the teacher must converge"
    assert rule in result.line and re.search(r"step \d+", result.line) and re.search(r"atom \d", result.line)
    settings = json.loads((out / "run.json").read_text())
    assert settings["status"] == "stopped" and settings["stop"]["rule"] == rule
    assert (settings["stop"]["step"] == 0) == (last == 0)
    if last == 40:
        stop(out, ethanol)
    if how == "error":
        assert "the SCF did not converge" in result.line


def test_replicas_are_told_apart(
    cli: Callable[..., Any], sour: Callable[..., str], tmp_path: Path, ethanol: Atoms
) -> None:
    """Three calls make a step of three replicas: after the start, one call as ASE remembers it, call 12 is replica 1 of step 4."""
    out = tmp_path / "out"
    result = cli("md", "--model", sour(11), *MD, "--replicas", "3", "--out", out)
    assert result.code == 1 and "step 4" in result.line and "replica 1, atom 5" in result.line
    assert stop(out, ethanol)["replica"] == 1


def test_a_stop_during_equilibration_is_a_stop(
    cli: Callable[..., Any], sour: Callable[..., str], tmp_path: Path, ethanol: Atoms
) -> None:
    out = tmp_path / "out"
    result = cli("md", "--model", sour(20), *MD, "--equilibrate-ps", "0.05", "--out", out)
    assert result.code == 1 and "step 20" in result.line and "equilibration" in result.line
    settings = json.loads((out / "run.json").read_text())
    assert settings["status"] == "stopped" and settings["stop"]["atom"] == 5
    assert (out / "report.html").exists()


@pytest.mark.parametrize("ensemble", ["nve", "nvt"])
def test_a_temperature_that_runs_away_stops_the_run(
    ensemble: str, cli: Callable[..., Any], tmp_path: Path, ethanol: Atoms
) -> None:
    """Verlet is unstable above wh = 2 (Leimkuhler & Matthews, section 3.4): at 8 fs a C-H bond is at 3.6."""
    out = tmp_path / "out"
    arguments = ["--structure", "ethanol", "--duration-ps", "1", "--timestep-fs", "8", "--ensemble", ensemble]
    result = cli("md", "--model", "harmonic", *arguments, "--out", out)
    assert result.code == 1
    assert "temperature runs away" in result.line and "step" in result.line and "atom" in result.line
    facts = stop(out, ethanol)
    assert facts["rule"] == "temperature runs away" and facts["step"] < 20
    assert "K exceeds" in facts["detail"]


def test_two_models_with_a_huge_step_stop_in_one_line(
    shell: Callable[..., Any], tmp_path: Path, ethanol: Atoms
) -> None:
    """A process of its own: neither warnings nor the libraries below add to the one line."""
    out = tmp_path / "out"
    arguments = ["--structure", "ethanol", "--teacher", "gfn2-xtb", "--student", "harmonic", "--k-steps", "2"]
    result = shell("hybrid", *arguments, "--timestep-fs", "6", "--duration-ps", "2", "--no-compile", "--out", out)
    assert result.code == 1
    assert re.search(r"stopped at outer step \d+: .* \(replica 0, atom \d\)", result.line), result.err
    stop(out, ethanol)


def test_a_hot_but_sound_run_is_not_stopped(cli: Callable[..., Any], tmp_path: Path) -> None:
    """Six standard deviations: 300 K of ethanol never meets them, nor atoms that see only those they are bonded to."""
    arguments = ["--structure", "ethanol", "--ensemble", "nvt", "--duration-ps", "1", "--friction-per-ps", "20"]
    cli("md", "--model", "harmonic", *arguments, "--out", tmp_path / "out")
    assert json.loads((tmp_path / "out" / "run.json").read_text())["status"] == "finished"


def test_a_stopped_run_stays_stopped(cli: Callable[..., Any], sour: Callable[..., str], tmp_path: Path) -> None:
    """--resume does not pretend it could go on, and validate judges it a failure."""
    out = tmp_path / "out"
    command = ["md", "--model", sour(25), *MD, "--out", out]
    assert cli(*command).code == 1
    before = (out / "log.h5").read_bytes()
    again = cli(*command, "--resume")
    assert again.code == 1 and "stopped" in again.out
    assert (out / "log.h5").read_bytes() == before
    assert cli("validate", out).code == 1


def test_a_fault_while_the_baseline_is_timed_is_no_crash(
    cli: Callable[..., Any], sour: Callable[..., str], tmp_path: Path
) -> None:
    """The baseline runs a teacher of its own between segments: its trouble is not the run's, and no traceback.

    Calls: 1 at the start, 16 + 3 * 51 before production, 200 in the segment; then the block of 51.
    """
    out = tmp_path / "out"
    arguments = ["--student", "morse", "--k-steps", "2", "--no-compile", *MD]
    result = cli("hybrid", "--teacher", sour(1 + 16 + 3 * 51 + 200 + 10), *arguments, "--out", out)
    assert result.err == "" or result.line
    assert json.loads((out / "run.json").read_text())["status"] in ("finished", "stopped")
