"""Time studies: the table says what the run folders hold, a killed study goes on where it was, mistakes are one line.

Four phosphorus or arsenic atoms at the corners of a tetrahedron, every pair bonded: bond springs alone keep them together.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from importlib import resources
from itertools import groupby
from pathlib import Path
from typing import Any

import h5py
import jsonschema
import numpy as np
import pytest
from ase import Atoms
from ase.io import write

from mlff_sim.cost import CYCLES, allowed_student_time, predicted_speedup
from mlff_sim.errors import InputError
from mlff_sim.runfolder import read_run
from mlff_sim.simulation import RunConfig
from mlff_sim.timestudy import MacroSteps, TimeStudy, carry_out, molecules, ways
from mlff_sim.validation.timestudy import judge_folder

SCHEMA = json.loads(resources.files("mlff_sim.report").joinpath("timestudy.schema.json").read_text())
TETRAHEDRON = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / np.sqrt(8)
WAYS = ("teacher", "respa-4", "ghmc-4")
PAIR = ("--teacher", "morse", "--students", "harmonic", "--schemes", "respa:4,ghmc:4", "--timestep-fs", "2")
SHORT = ("--duration-ps", "1.6", "--equilibrate-ps", "0.2", "--replicas", "3", "--friction-per-ps", "5", "--no-compile")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("molecules")
    for symbol, edge in (("P", 2.2), ("As", 2.44)):
        write(folder / f"{symbol}4.xyz", Atoms(f"{symbol}4", edge * TETRAHEDRON))
    return folder


@pytest.fixture(scope="module")
def asked(files: Path) -> tuple[object, ...]:
    both = ("--structure", files / "P4.xyz", "--structure", files / "As4.xyz")
    return ("time-study", *both, *PAIR, *SHORT)


@pytest.fixture(scope="module")
def done(
    asked: tuple[object, ...], shell: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Any]:
    """The folder of a study, and what the command said."""
    out = tmp_path_factory.mktemp("time") / "out"
    outcome = shell(*asked, "--out", out)
    assert outcome.code == 0, outcome
    return out, outcome


def results(out: Path) -> dict[str, Any]:
    return dict(json.loads((out / "results.json").read_text()))


def arrays(folder: Path) -> dict[str, bytes]:
    """Every array of every log.h5 outside /wall."""
    found: dict[str, bytes] = {}
    for path in sorted(folder.rglob("log.h5")):
        with h5py.File(path) as f:
            for name in f:
                if name != "wall":
                    found[f"{path.parent.relative_to(folder)}/{name}"] = f[name][()].tobytes()
    return found


TIMED = (
    "s_per_ps",
    "s_per_ps_ci95",
    "run_s",
    "speedup",
    "speedup_ci95",
    "predicted",
    "timing",
    "allowed_s",
    "model_s",
    "break_even_ps",
)
TIMED += ("model_calls_s", "pays", "came_true", "samples_per_s", "samples_per_s_stderr")


def timeless(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows without what the clock says."""
    return [{k: v for k, v in cell.items() if k not in TIMED} for cell in found["cells"]]


def test_every_molecule_has_a_row_for_every_way(done: tuple[Path, Any]) -> None:
    out, outcome = done
    found = results(out)
    jsonschema.validate(found, SCHEMA, cls=jsonschema.Draft202012Validator)
    assert [(c["molecule"], c["way"]) for c in found["cells"]] == [(m, w) for m in ("P4", "As4") for w in WAYS]
    assert outcome.err == ""  # quiet in a pipe
    assert found["title"] in outcome.out and "nan" not in outcome.out
    page = (out / "report.html").read_text()
    assert page.count("<html") == 1 and found["title"] in page and "None" not in page.split("<h2>Provenance")[0]
    assert not [w for w in ("src=", "@import", "<link") if w in page.split("<script>")[0]]


def test_every_promised_number_is_described(done: tuple[Path, Any]) -> None:
    found, cell = results(done[0]), SCHEMA["properties"]["cells"]["items"]["properties"]
    assert set(found) == set(SCHEMA["properties"])
    assert all(set(c) == set(cell) for c in found["cells"])
    assert set(found["means"][0]) == set(SCHEMA["properties"]["means"]["items"]["properties"])


def test_the_schema_notices_what_is_wrong(done: tuple[Path, Any]) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    for change in ({"cells": []}, {"title": None}, {"cells": [{}]}, {"version": 2}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(results(done[0]) | change, SCHEMA)


def test_numbers_are_those_of_the_run_folders(done: tuple[Path, Any]) -> None:
    """Seconds, speed-up, break-even, acceptance and samples, by hand from log.h5 and run.json."""
    out, _ = done
    for c in results(out)["cells"]:
        run = read_run(out / c["molecule"] / c["way"])
        assert c["s_per_ps"] == pytest.approx(np.median(run.wall["block_hybrid_s_per_ps"]), rel=1e-12)
        assert c["run_s"] == pytest.approx(run.settings["wall_s"]["total"], rel=1e-12)
        if c["way"] == "teacher":
            assert c["verdict"] is None and c["speedup"] is None and c["cycle"] is None
            continue
        ratio = np.median(run.wall["block_baseline_s_per_ps"]) / np.median(run.wall["block_hybrid_s_per_ps"])
        assert c["speedup"] == pytest.approx(ratio, rel=1e-12)
        t = run.settings["timing"]
        t_b, t_e, t_c = 1e-3 * t["baseline_teacher_ms"], 1e-3 * t["teacher_ms"], 1e-6 * t["student_inner_us"]
        assert c["allowed_s"] == pytest.approx(4 * t_b - t_e, rel=1e-9)
        assert c["model_calls_s"] == pytest.approx(4 * t_c, rel=1e-9)
        assert c["predicted"] == pytest.approx(4 * t_b / (t_e + 4 * t_c), rel=1e-9)
        assert c["predicted"] == pytest.approx(t["predicted_speedup"], rel=1e-9)  # calls counted by the run itself
        assert c["pays"] == (4 * t_c < 4 * t_b - t_e) == (c["predicted"] > 1)
        low, high = c["speedup_ci95"]
        assert c["came_true"] == (None if low <= 1 <= high else (low > 1) == c["pays"])
        steps = 1600 / 8
        assert c["model_s"] == pytest.approx(run.settings["wall_s"]["student"] / (steps * 3), rel=1e-9)
        if c["way"] == "ghmc-4":
            assert c["acceptance"] == pytest.approx(run.counts["accepted"].sum() / (steps * 3), rel=1e-12)


def test_figures_stand_beside_the_floor_of_the_teachers_replicas(done: tuple[Path, Any]) -> None:
    """Bonds by hand: each replica about the mean of the teacher's others, after the frames that are left out."""
    out, _ = done
    for c in results(out)["cells"]:
        run, teacher = (read_run(out / c["molecule"] / w) for w in (c["way"], "teacher"))
        x, y = (r.positions[r.time_ps >= 0.2 * r.time_ps[-1]] for r in (run, teacher))
        worth = []
        for replica in x.swapaxes(0, 1):  # what Monte Carlo refuses stands several times
            times = np.array([len([*same]) for _, same in groupby(replica, key=lambda frame: frame.tobytes())])
            worth.append(times.sum() ** 2 / (times**2).sum())
        frames = min(round(np.mean(worth)), len(y))
        y_thin = y[np.linspace(0, len(y) - 1, frames).round().astype(int)]
        i, j = np.triu_indices(4, 1)
        a, b, b_thin = (np.linalg.norm(z[:, :, i] - z[:, :, j], axis=-1) for z in (x, y, y_thin))
        for mine, key in ((a, "value"), (b_thin, "floor")):
            rows = []
            for r in range(3):
                mean = np.delete(b, r, axis=1).mean(axis=(0, 1))
                rows.append(np.sqrt(((mine[:, r] - mean) ** 2).mean(axis=0)).mean())
            assert c["figures"]["mean_bond_rmse"][key] == pytest.approx(np.mean(rows), rel=1e-9), (c["way"], key)
        assert set(c["figures"]) == {"mean_bond_rmse", "mean_angle_rmse", "mean_dihedral_rmse", "mean_rdf_l1"}


def test_means_over_molecules(done: tuple[Path, Any]) -> None:
    found = results(done[0])
    for m in found["means"]:
        cells = [c for c in found["cells"] if c["way"] == m["way"]]
        alone = {c["molecule"]: c["samples_per_s"] for c in found["cells"] if c["way"] == "teacher"}
        gains = [c["samples_per_s"] / alone[c["molecule"]] for c in cells]
        assert m["speedup"] == pytest.approx(np.sqrt(np.prod([c["speedup"] for c in cells])), rel=1e-9)
        assert m["sampling"] == pytest.approx(np.sqrt(np.prod(gains)), rel=1e-9)
        for name, pair in m["figures"].items():
            for key in ("value", "floor"):
                assert pair[key] == pytest.approx(np.mean([c["figures"][name][key] for c in cells]), rel=1e-9)
        assert m["failed"] == [c["molecule"] for c in cells if c["verdict"] == "fail"]
        slopes = [c["drift_meV_per_atom_ps"] for c in cells]
        assert m["drift_meV_per_atom_ps"] == pytest.approx(np.mean(slopes), rel=1e-9)
        assert abs(m["drift_most_meV_per_atom_ps"]) == pytest.approx(np.abs(slopes).max(), rel=1e-9)


def test_with_a_bath_the_drift_is_of_what_is_left_without_its_heat(done: tuple[Path, Any]) -> None:
    """By least squares, mean over replicas; shown for every way and judged for none. Monte Carlo books all it does."""
    out, outcome = done
    for c in results(out)["cells"]:
        run = read_run(out / c["molecule"] / c["way"])
        slope = np.polyfit(run.time_ps, 1e3 * run.conserved / 4, 1)[0].mean()
        assert c["drift_meV_per_atom_ps"] == pytest.approx(slope, rel=1e-6, abs=1e-9)
        assert (abs(slope) < 1e-9) == (c["way"] == "ghmc-4") and c["parts"]["nve"] is None
        low, high = c["drift_ci95"]
        assert low <= slope <= high
    table = outcome.out.partition("accuracy:")[2].partition("over all molecules")[0]
    assert table.count(" 0 (0 to 0) ") == 2 and "e-" not in table


def test_ways_have_noise_of_their_own(done: tuple[Path, Any]) -> None:
    """From the same starts with the same random numbers, runs would be copies, and no test of each other."""
    out, _ = done
    teacher, respa = (read_run(out / "P4" / w) for w in ("teacher", "respa-4"))
    assert np.array_equal(teacher.positions[0], respa.positions[0])
    assert teacher.settings["seed"] != respa.settings["seed"]


def test_the_same_command_repeats_nothing(
    done: tuple[Path, Any], asked: tuple[object, ...], shell: Callable[..., Any]
) -> None:
    out, outcome = done
    before = {p: p.stat().st_mtime_ns for p in out.glob("*/*/*") if p.is_file()}
    again = shell(*asked, "--out", out)
    assert (again.code, again.out) == (outcome.code, outcome.out)
    assert {p: p.stat().st_mtime_ns for p in out.glob("*/*/*") if p.is_file()} == before


def test_a_study_that_has_moved_goes_on(
    done: tuple[Path, Any], asked: tuple[object, ...], shell: Callable[..., Any], tmp_path: Path
) -> None:
    out = tmp_path / "elsewhere"
    shutil.copytree(done[0], out)
    (out / "results.json").unlink()
    before = {p: p.stat().st_mtime_ns for p in out.glob("*/*/*") if p.is_file()}
    again = shell(*asked, "--out", out)
    assert again.code == 0, again
    assert timeless(results(out)) == timeless(results(done[0]))
    assert {p: p.stat().st_mtime_ns for p in out.glob("*/*/*") if p.is_file()} == before


def test_a_killed_study_goes_on(
    done: tuple[Path, Any],
    asked: tuple[object, ...],
    start: Callable[..., Any],
    shell: Callable[..., Any],
    tmp_path: Path,
) -> None:
    """Killed in the middle of a run of the second molecule, it ends with the same arrays and verdicts, bit for bit."""
    out = tmp_path / "out"
    process = start(*asked, "--out", out)
    end = time.monotonic() + 120
    while not (out / "As4" / "respa-4" / "segments" / "000001.h5").exists():
        assert process.poll() is None and time.monotonic() < end, process.communicate()
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.communicate()
    assert [c["molecule"] for c in results(out)["cells"]] == ["P4"] * 3  # what is finished can be looked at
    finished = (out / "As4" / "teacher" / "log.h5").stat().st_mtime_ns
    assert not (out / "As4" / "respa-4" / "log.h5").exists()
    outcome = shell(*asked, "--out", out)
    assert outcome.code == 0, outcome
    assert (out / "As4" / "teacher" / "log.h5").stat().st_mtime_ns == finished
    assert arrays(out) == arrays(done[0])
    assert timeless(results(out)) == timeless(results(done[0]))


def test_call_times_alone(files: Path, cli: Callable[..., Any], tmp_path: Path) -> None:
    """Few steps, no warm-up, and totals by the cost of a cycle: their ratio is the predicted speed-up."""
    out = tmp_path / "out"
    said = cli(
        "time-study", "--structure", files / "P4.xyz", *PAIR, "--no-compile", "--call-times-only", "--replicas", "7",
        "--duration-ps", "1000", "--out", out,
    )  # fmt: skip
    assert said.code == 0 and "extrapolated" in said.out
    assert not (out / "P4" / "starts").exists()
    found = results(out)
    jsonschema.validate(found, SCHEMA, cls=jsonschema.Draft202012Validator)
    assert found["extrapolated_to_ps"] == 1000 and "extrapolated" in found["sentence"]
    by_way = {c["way"]: c for c in found["cells"]}
    baselines = [by_way[w]["timing"]["baseline_teacher_ms"] for w in WAYS[1:]]
    assert by_way["teacher"]["run_s"] == pytest.approx(7 * 500_000 * 1e-3 * np.median(baselines), rel=1e-9)
    for way in WAYS[1:]:
        c, run = by_way[way], read_run(out / "P4" / way)
        t = c["timing"]
        cycle_s = 1e-3 * t["teacher_ms"] + 4e-6 * t["student_inner_us"]
        assert c["run_s"] == pytest.approx(7 * 125_000 * cycle_s, rel=1e-9)
        assert len(run.time_ps) == 6 and run.positions.shape[1] == 1
        assert not c["figures"] and c["speedup_ci95"] is not None


@pytest.mark.parametrize("more", [(), ("--call-times-only",)])
def test_a_predictor_is_a_way_like_others(
    predictor_file: Path, cli: Callable[..., Any], tmp_path: Path, more: tuple[str, ...]
) -> None:
    """A row for each macro-step; S + N steps a cycle for N + 1 calls of the teacher and one of the predictor."""
    out = tmp_path / "out"
    words = [
        "time-study",
        "--structure",
        "ethanol",
        "--teacher",
        "mmff",
        "--schemes",
        "kstep",
        "--predictor",
        predictor_file,
    ]
    words += ["--macro-steps", "20,40", "--save-interval", "20", "--corrector-fraction", "0.1", *more]
    words += ["--duration-ps", "0.88", "--equilibrate-ps", "0.05", "--replicas", "3", "--no-compile", "--out", out]
    said = cli(*words)
    assert said.code == 0, said
    found = results(out)
    jsonschema.validate(found, SCHEMA, cls=jsonschema.Draft202012Validator)
    assert found["ways"] == ["teacher", "kstep-small-20-0.1", "kstep-small-40-0.1"]
    for c, (s, n) in zip(found["cells"][1:], ((20, 2), (40, 4)), strict=True):
        run = read_run(out / "ethanol" / c["way"])
        assert c["cycle"] == {"steps": s + n, "teacher_calls": n + 1, "student_calls": 1}
        t = c["timing"]
        t_b, t_e, t_c = 1e-3 * t["baseline_teacher_ms"], 1e-3 * t["teacher_ms"], 1e-6 * t["student_inner_us"]
        assert c["allowed_s"] == pytest.approx((s + n) * t_b - (n + 1) * t_e, rel=1e-9)
        assert c["predicted"] == pytest.approx((s + n) * t_b / ((n + 1) * t_e + t_c), rel=1e-9)
        assert c["jumps"]["dropped"] == run.counts["fallbacks"].sum()
        cycles = run.positions.shape[1] * round(1000 * run.time_ps[-1] / (0.5 * (s + n)))
        assert c["jumps"]["made"] == cycles
        assert c["model_s"] == pytest.approx(run.settings["wall_s"]["predictor"] / cycles, rel=1e-9)
        assert c["dynamics"] and bool(c["figures"]) == (not more)


@pytest.mark.parametrize(
    ("settings", "cycle"),
    [
        ({"scheme": "respa", "k_steps": 8}, (8, 1, 8)),
        ({"scheme": "mollified", "k_steps": 12}, (12, 1, 13)),
        ({"scheme": "ghmc", "k_steps": 200, "proposal_steps": None}, (200, 1, 200)),
        ({"scheme": "ghmc", "k_steps": 8, "proposal_steps": 5}, (40, 5, 40)),
        ({"scheme": "kstep", "k_steps": 4, "save_interval": 50, "corrector_steps": 10}, (210, 11, 1)),
    ],
)
def test_cycles_are_those_of_the_table_of_costs(settings: dict[str, Any], cycle: tuple[float, float, float]) -> None:
    """S, e and c of the table in `mlff_sim.cost`; with calls of one price, a model pays below (1 - f) S t_force."""
    s, e, c = CYCLES[settings["scheme"]](settings)
    assert (s, e, c) == pytest.approx(cycle)
    allowed = allowed_student_time(s, 2.0, 2.0, e)
    assert allowed == pytest.approx((1 - e / s) * s * 2.0)
    assert (
        predicted_speedup(s, 2.0, 2.0, 0.999 * allowed / c, c, e)
        > 1
        > predicted_speedup(s, 2.0, 2.0, 1.001 * allowed / c, c, e)
    )


def test_a_molecule_whose_warm_up_stops_does_not_stop_the_others(
    files: Path, cli: Callable[..., Any], tmp_path: Path
) -> None:
    """Atoms of 0.02 u fly apart at a step of 2 fs, w h = 20 and far beyond 2; the other molecule has its rows."""
    write(tmp_path / "hot.xyz", Atoms("P4", 2.2 * TETRAHEDRON, masses=[0.02] * 4))
    out = tmp_path / "out"
    said = cli(
        "time-study", "--structure", tmp_path / "hot.xyz", "--structure", files / "P4.xyz", *PAIR, *SHORT, "--out", out
    )
    assert said.code == 1
    assert "hot was not judged" in said.out
    assert {c["molecule"] for c in results(out)["cells"]} == {"P4"}


def test_a_stopped_run_is_a_row(files: Path, cli: Callable[..., Any], tmp_path: Path) -> None:
    """Argon's repulsion at 2.2 A as a student: kicks of hundreds of eV/A throw the run off, which the table says and survives."""
    out = tmp_path / "out"
    words = [*PAIR, *SHORT, "--students", "lj", "--schemes", "respa:4"]
    said = cli("time-study", "--structure", files / "P4.xyz", *words, "--out", out)
    teacher, respa = results(out)["cells"]
    assert said.code == 0 and (teacher["status"], respa["status"]) == ("finished", "stopped")
    assert respa["verdict"] == "fail" and respa["stop"]
    assert "stopped (" in said.out and "found wrong with respa-4 (1 of 1: P4)" in said.out
    assert results(out)["title"].startswith("No dynamics stands beside")


def test_at_constant_energy_drift_is_judged(files: Path, cli: Callable[..., Any], tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = [*PAIR, *SHORT, "--schemes", "respa:2", "--ensemble", "nve"]
    assert cli("time-study", "--structure", files / "P4.xyz", *words, "--out", out).code == 0
    for c in results(out)["cells"]:
        assert "nve" in c["parts"] and c["drift_meV_per_atom_ps"] is not None
        run = read_run(out / "P4" / c["way"])
        slopes = np.polyfit(run.time_ps, run.conserved, 1)[0] / (4 * 1e-3)
        assert c["drift_meV_per_atom_ps"] == pytest.approx(slopes.mean(), rel=0.2, abs=0.02)


@pytest.mark.slow
def test_a_student_is_distilled_for_each_molecule(files: Path, cli: Callable[..., Any], tmp_path: Path) -> None:
    """The run that uses it knows what it cost, and the second command distils nothing."""
    out = tmp_path / "out"
    words = ["time-study", "--structure", files / "P4.xyz", "--teacher", "morse", "--student-minutes", "0.1", *SHORT]
    words += ["--schemes", "respa:2", "--timestep-fs", "2", "--out", out]
    assert cli(*words).code == 0
    student = out / "students" / "P4.safetensors"
    made = student.stat().st_mtime_ns
    respa = results(out)["cells"][1]
    assert respa["investment_s"] > 1.0
    assert read_run(out / "P4" / "respa-2").settings["student"] == str(student)
    assert cli(*words).code == 0
    assert student.stat().st_mtime_ns == made


def test_students_of_a_folder(files: Path, student_file: Path, cli: Callable[..., Any], tmp_path: Path) -> None:
    """Every molecule needs its own; what is missing is said before anything is run."""
    said = cli("time-study", "--structure", "ethanol", "--structure", files / "P4.xyz", "--teacher", "morse", "--students",
               student_file.parent, "--schemes", "respa", "--out", tmp_path / "out")  # fmt: skip
    assert said.code == 2
    assert "holds no student P4.*" in said.line
    assert not (tmp_path / "out").exists()


def test_molecules_from_a_file(tmp_path: Path) -> None:
    write(tmp_path / "mine.xyz", Atoms("P4", TETRAHEDRON))
    listing = tmp_path / "list.smi"
    listing.write_text(f"# alcohols\nCC(C)CO isobutanol\nC#C\n\nC=C\nethanol\n{tmp_path / 'mine.xyz'}\nsmiles:C\n")
    found = molecules(["aspirin"], listing)
    assert found == {
        "aspirin": "aspirin",
        "isobutanol": "smiles:CC(C)CO",
        "C-C": "smiles:C#C",
        "C-C-2": "smiles:C=C",
        "ethanol": "ethanol",
        "mine": str(tmp_path / "mine.xyz"),
        "C": "smiles:C",
    }
    assert molecules(["students"]) == {"students-2": "students"}  # a folder of that name holds the distilled ones


def test_the_teacher_alone_comes_first_in_any_case() -> None:
    assert [w.name for w in ways(["respa:6", "mollified", "ghmc:auto"])] == [
        "teacher",
        "respa-6",
        "mollified-12",
        "ghmc-auto",
    ]
    assert [w.name for w in ways(["ghmc", "teacher"])] == ["teacher", "ghmc-200"]


def test_jumps_are_a_way_for_each_number(tmp_path: Path) -> None:
    file = tmp_path / "p.safetensors"
    file.write_text("")
    found = list(MacroSteps((str(file),), (200, 400), (0.025, 0.1)).ways("kstep"))
    assert [w.name for w in found] == ["kstep-p-200-0.025", "kstep-p-200-0.1", "kstep-p-400-0.025", "kstep-p-400-0.1"]
    last = found[3].settings
    assert last["k_steps"] * last["save_interval"] == 400 and last["corrector_steps"] == 40
    base = RunConfig("", "morse", friction_per_ps=5.0, friction_by_element={"P": 20.0}, replicas=3)
    study = TimeStudy({"P4": "P4.xyz"}, base, ways(["kstep"], MacroSteps((str(file),))))
    jumps = study.config(study.ways[1], "P4.xyz", None, 1)
    assert jumps.friction_per_ps == 300.0 and not jumps.friction_by_element  # theirs, and that of dynamics stays
    assert study.config(study.ways[0], "P4.xyz", None, 0).friction_per_ps == 5.0
    with pytest.raises(InputError, match="no whole number of at least 1; the nearest that is"):
        list(MacroSteps((str(file),), (200,), (0.001,)).ways("kstep"))


def test_predictors_are_told_apart_by_their_names(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("egnn.predictor", "attention.predictor", "more/egnn.predictor")]
    for file in files:
        file.parent.mkdir(exist_ok=True)
        file.write_text("")
    found = list(MacroSteps(tuple(map(str, files))).ways("kstep"))
    assert [w.name for w in found] == ["kstep-egnn-200-0.05", "kstep-attention-200-0.05", "kstep-egnn-2-200-0.05"]
    assert [w.settings["predictor"] for w in found] == [*map(str, files)]
    with pytest.raises(InputError, match=r"predictor '.*attention.predictor' is given twice"):
        next(MacroSteps((str(files[1]),) * 2).ways("kstep"))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--schemes", "respa,leapfrog"), r"scheme 'leapfrog' is unknown.*kstep"),
        (("--schemes", "teacher"), r"nothing to compare"),
        (("--schemes", "respa:x"), r"no whole number"),
        (("--schemes", "respa:4,respa:4"), r"given twice"),
        (("--schemes", "teacher:4"), r"takes no steps"),
        (("--schemes", "respa:0"), r"k_steps = 0"),
        (("--schemes", "ghmc:9999"), r"shorter than one outer step"),
        (("--students", "no-such"), r"no-such"),
        (("--student-minutes", "-1"), r"must not be negative"),
        (("--replicas", "2"), r"how far seeds differ"),
        (("--ensemble", "nve"), r"samples at constant temperature"),
        (("--molecules", "no-such.smi"), r"cannot be read"),
        (("--structure", "no-such.xyz"), r"'no-such.xyz' does not exist"),
        (("--structure", "{P4}"), r"given twice"),
        (("--schemes", "ghmc:auto", "--call-times-only"), r"give a number"),
        (("--corrector-fraction", "a"), r"--corrector-fraction 'a'"),
        (("--macro-steps", "1.5"), r"--macro-steps '1.5'"),
        (("--teacher", "no-such"), r"unknown model 'no-such'"),
        (("--schemes", "mollified"), r"needs X-H bonds"),
        (("--schemes", "kstep"), r"needs a predictor"),
    ],
)
def test_mistakes_are_one_line(
    words: tuple[object, ...], says: str, files: Path, cli: Callable[..., Any], tmp_path: Path
) -> None:
    p4 = files / "P4.xyz"
    given = [str(w).replace("{P4}", str(p4)) for w in words]
    said = cli("time-study", "--structure", p4, *PAIR, *SHORT, *given, "--out", tmp_path / "out")
    assert said.code == 2
    assert re.search(says, said.line), said.line
    assert not (tmp_path / "out").exists()


def test_no_molecule_no_student_no_predictor(files: Path, cli: Callable[..., Any], tmp_path: Path) -> None:
    out, p4 = tmp_path / "out", files / "P4.xyz"
    assert "no molecule" in cli("time-study", *PAIR, "--out", out).line
    assert "no time to distil" in cli(
        "time-study", "--structure", p4, "--teacher", "morse", "--schemes", "respa", "--student-minutes", "0", "--out", out
    ).line  # fmt: skip
    write(two := tmp_path / "two.xyz", Atoms("P2", [[0, 0, 0], [0, 0, 1.9]]))
    assert "a student needs at least 3" in cli(
        "time-study", "--structure", two, "--teacher", "morse", "--schemes", "respa", "--out", out
    ).line  # fmt: skip
    assert "needs X-H bonds" in cli(
        "time-study", "--structure", p4, "--teacher", "morse", "--schemes", "mollified", "--out", out
    ).line  # fmt: skip
    with pytest.raises(InputError, match="needs a predictor"):
        next(MacroSteps().ways("kstep"))
    with pytest.raises(InputError, match="is no file"):
        next(MacroSteps(("no-such",)).ways("kstep"))
    with pytest.raises(InputError, match="no multiple"):
        next(MacroSteps((str(p4),), (120,)).ways("kstep"))
    assert not out.exists()


def test_the_folder_of_another_study_is_left_alone(
    done: tuple[Path, Any], asked: tuple[object, ...], cli: Callable[..., Any], tmp_path: Path
) -> None:
    out, _ = done
    before = (out / "results.json").read_bytes()
    said = cli(*asked, "--seed", "5", "--out", out)
    assert said.code == 2 and "holds another time study (its runs differ)" in said.line
    assert (out / "results.json").read_bytes() == before
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("dear")
    assert "not empty and holds no time study" in cli(*asked, "--out", tmp_path / "full").line
    assert "is a file" in cli(*asked, "--out", tmp_path / "full" / "letter.txt").line


def test_a_study_may_grow(files: Path, tmp_path: Path) -> None:
    """Further schemes and molecules: what is there stays, to the byte, and only what is new is run."""
    base = RunConfig("", "morse", timestep_fs=2.0, duration_ps=0.4, replicas=3, compile=False, friction_per_ps=5.0)

    def study(words: list[str], names: list[str]) -> TimeStudy:
        structures = molecules([str(files / f"{name}.xyz") for name in names])
        return TimeStudy(structures, base, ways(words), "harmonic", warm_ps=0.1)

    out = tmp_path / "out"
    list(carry_out(study(["respa:2"], ["P4"]), out))
    before = {p: p.read_bytes() for p in (out / "P4").rglob("log.h5")}
    names = [name for name, _ in carry_out(study(["respa:2", "respa:4"], ["P4", "As4"]), out)]
    assert len(before) == 3 and all(p.read_bytes() == content for p, content in before.items())
    ways_of = {name: [c.way for c in judge_folder(name, out / name)[0]] for name in names}
    assert ways_of == {key: ["teacher", "respa-2", "respa-4"] for key in ("P4", "As4")}
    for words, left in ((["respa:2"], "P4"), (["respa:4", "respa:2"], "P4")):  # less; others at these places
        with pytest.raises(InputError, match=r"another time study \(its (runs|molecules) differ"):
            next(carry_out(study(words, [left]), out))


def test_from_python(files: Path, tmp_path: Path) -> None:
    """The same without the command line, molecule by molecule."""
    base = RunConfig("", "morse", timestep_fs=2.0, duration_ps=0.4, replicas=3, compile=False, friction_per_ps=5.0)
    study = TimeStudy(molecules([str(files / "P4.xyz")]), base, ways(["respa:2"]), "harmonic", warm_ps=0.1)
    ((name, folder),) = carry_out(study, tmp_path / "out")
    cells, notes = judge_folder(name, folder)
    assert [c.way for c in cells] == ["teacher", "respa-2"] and not notes
