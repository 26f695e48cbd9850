"""`mlff-sim validate FILES`: bad input is one line or an honest "not judged" on the terminal, never a wrong verdict."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from ase import Atoms
from ase.io import write

sys.path.insert(0, str(Path(__file__).parent / "trajectory"))
from files import Truth, frames_of, springs, write_csv, write_dcd, write_extxyz, write_pdb, write_traj, write_xtc

SCHEMA = json.loads(resources.files("mlff_sim.report").joinpath("results.schema.json").read_text())
NVE = ("--ensemble", "nve")


@pytest.fixture(scope="module")
def runs() -> list[Truth]:
    """Five runs at constant energy, from starts of their own."""
    return [springs(frames=400, seed=s) for s in range(5)]


def few(truth: Truth, rows: slice) -> Truth:
    parts = ("time_ps", "positions", "momenta", "potential", "kinetic")
    return replace(truth, **{name: getattr(truth, name)[rows] for name in parts})


@pytest.fixture
def judged(cli: Callable[..., Any], tmp_path: Path) -> Callable[..., tuple[Any, dict[str, Any]]]:
    """Judge files by the command line: how it ended, and what it wrote."""

    def judge(*words: object) -> tuple[Any, dict[str, Any]]:
        done = cli("validate", *words, "--out", tmp_path / "report")
        assert done.err == "", done.err
        results = json.loads((tmp_path / "report" / "results.json").read_text())
        jsonschema.validate(results, SCHEMA)
        assert done.code == {"pass": 0, "fail": 1, "inconclusive": 3}[results["verdict"]]
        assert "nan" not in done.out.replace("nan.", "")
        return done, results

    return judge


def test_a_sound_run_passes(judged: Callable[..., Any], runs: list[Truth], tmp_path: Path) -> None:
    """An ASE .traj with energies, alone and as five replicas; what five files were taken for is said."""
    files = [tmp_path / f"{k}.traj" for k in range(5)]
    for truth, path in zip(runs, files, strict=True):
        write_traj(truth, path)
    done, results = judged(files[0], *NVE)
    assert done.code == 0 and results["nve"]["verdict"] == "pass"
    done, results = judged(*files, *NVE)
    assert done.code == 0 and len(results["nve"]["slopes"]) == 5
    assert "5 files of the same atoms were taken for replicas of one run." in done.out
    wrong, results = judged(*files, *NVE, "--frame-ps", "0.002")
    assert wrong.code == 1 and results["runs"][0]["parts"]["spacing"] == "fail"
    assert "1.002 fs, and the times say 2" in wrong.out


def test_a_drift_fails(judged: Callable[..., Any], runs: list[Truth], tmp_path: Path) -> None:
    files = [tmp_path / f"{k}.traj" for k in range(5)]
    for truth, path in zip(runs, files, strict=True):
        write_traj(replace(truth, potential=truth.potential + 9e-3 * truth.time_ps), path)
    done, results = judged(*files, *NVE)
    assert done.code == 1 and abs(results["nve"]["slope_meV_per_atom_ps"] - 1.0) < 0.1


def test_what_files_do_not_say_is_not_judged(judged: Callable[..., Any], runs: list[Truth], tmp_path: Path) -> None:
    """That times and velocities agree is no physics, and passes nothing by itself."""
    write_traj(runs[0], tmp_path / "a.traj")
    done, results = judged(tmp_path / "a.traj")
    assert results["runs"][0]["parts"]["spacing"] == "pass"
    assert done.code == 3
    assert "the files do not say whether a bath was at work; say nve, or nvt" in done.out


def test_no_velocities_and_no_energies(judged: Callable[..., Any], runs: list[Truth], tmp_path: Path) -> None:
    write_dcd(runs[0], tmp_path / "a.dcd")
    write_pdb(runs[0], tmp_path / "a.pdb")
    done, _ = judged(tmp_path / "a.dcd", tmp_path / "a.pdb", *NVE)
    assert done.code == 3
    assert "Energy drift was not judged: the files hold no energies." in done.out
    assert "Temperature was not judged: the files hold no velocities." in done.out
    assert "quantity" not in done.out  # no table without a row
    done, _ = judged(tmp_path / "a.dcd", tmp_path / "a.pdb", "--ensemble", "nvt", "--temperature-K", "300")
    assert done.code == 3
    assert "Temperature was not judged: the files hold no velocities." in done.out


def test_another_trajectory_is_a_reference(
    judged: Callable[..., Any], cli: Callable[..., Any], runs: list[Truth], tmp_path: Path
) -> None:
    """Bonds and angles beside each other; spectra need the time step, which files do not say."""
    for k in range(2):
        write_traj(runs[k], tmp_path / f"{k}.traj")
    _, results = judged(tmp_path / "0.traj", *NVE, "--against", tmp_path / "1.traj")
    assert results["rdf"]["verdict"] == "inconclusive" and "geometry" in results["runs"][0]["parts"]
    itself = cli("validate", tmp_path / "0.traj", *NVE, "--against", tmp_path / "0.traj", "--out", tmp_path / "report")
    assert itself.code == 2 and "compared with itself" in itself.line


def test_a_truncated_file_is_told(judged: Callable[..., Any], runs: list[Truth], tmp_path: Path) -> None:
    for name, writer in (("a.traj", write_traj), ("a.extxyz", write_extxyz)):
        writer(runs[0], tmp_path / name)
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[: int(0.7 * len(data))])
        done, results = judged(tmp_path / name, *NVE)
        assert f"'{name}' is truncated" in done.out
        assert results["verdict"] != "fail"


def test_frames_that_are_no_numbers(judged: Callable[..., Any], runs: list[Truth], tmp_path: Path) -> None:
    """A run that ends in nan is never sound, however long it was before."""
    x = runs[0].positions.copy()
    x[390, 3, 1] = np.nan
    write_traj(replace(runs[0], positions=x), tmp_path / "broken.traj")
    done, results = judged(tmp_path / "broken.traj", *NVE)
    assert results["nve"]["verdict"] == "pass" and done.code == 3
    assert "breaks at frame 390: the position of atom 3" in done.out


@pytest.mark.parametrize("frames", [1, 2])
def test_too_few_frames(frames: int, judged: Callable[..., Any], runs: list[Truth], tmp_path: Path) -> None:
    write_extxyz(few(runs[0], slice(frames)), tmp_path / "a.extxyz")
    for ensemble in (NVE, ("--ensemble", "nvt", "--temperature-K", "300"), ()):
        done, _ = judged(tmp_path / "a.extxyz", *ensemble)
        assert done.code == 3
        assert "too few" in done.out


def test_frames_too_far_apart_leave_only_their_spacing_open(judged: Callable[..., Any], tmp_path: Path) -> None:
    """A frame every 20 fs: nothing can be said of the time between them, but the drift can be judged."""
    files = [tmp_path / f"{k}.traj" for k in range(5)]
    for seed, path in enumerate(files):
        write_traj(springs(frames=60, every=40, seed=seed), path)
    done, results = judged(*files, *NVE)
    assert done.code == 0 and results["nve"]["verdict"] == "pass"
    assert "The time between frames was taken as given" in done.out
    assert "spacing" not in results["runs"][0]["parts"]


def test_figures_for_a_paper(judged: Callable[..., Any], runs: list[Truth], tmp_path: Path) -> None:
    """A PDF for each plot, with type embedded as TrueType (42), and nothing half-written."""
    pytest.importorskip("matplotlib")
    write_traj(runs[0], tmp_path / "a.traj")
    done, _ = judged(tmp_path / "a.traj", *NVE, "--figures", tmp_path / "figures" / "new")
    made = sorted(p.name for p in (tmp_path / "figures" / "new").iterdir())
    assert made == ["energy-1.pdf", "temperature-1.pdf"] and "(2 files)" in done.out
    for name in made:
        data = (tmp_path / "figures" / "new" / name).read_bytes()
        assert data.startswith(b"%PDF") and data.rstrip().endswith(b"%%EOF")
        assert b"/Type3" not in data and b"/CIDFontType2" in data


def test_a_figure_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figure = pytest.importorskip("matplotlib.figure")
    from mlff_sim.report.drawing import layout, line
    from mlff_sim.report.paper import write_figures

    def breaks(self: Any, path: Path, **_: Any) -> None:
        Path(path).write_text("half")
        raise OSError("no space left on device")

    monkeypatch.setattr(figure.Figure, "savefig", breaks)
    plot = {"data": [line(np.arange(3.0), np.arange(3.0), name="a")], "layout": layout("x", "y", "title")}
    with pytest.raises(OSError, match="no space"):
        write_figures({"energy": [plot]}, tmp_path)
    assert not list(tmp_path.iterdir())


REFUSED: dict[str, tuple[str, str]] = {
    "missing": ("nope.traj", "'nope.traj' does not exist; give the folder of a run or study, or trajectory files"),
    "missing of two": ("a.traj nope.traj", "'nope.traj' does not exist"),
    "empty": ("empty.traj", "is empty"),
    "words": ("words.txt", "no trajectory that can be read"),
    "truncated at once": ("tiny.traj", "truncated"),
    "no topology": ("a.dcd", "add a PDB of the same atoms"),
    "no topology either": ("a.xtc", "add a PDB of the same atoms"),
    "another topology": ("a.dcd water.pdb", "has 9 atoms and the topology"),
    "two topologies": ("a.dcd a.pdb --topology water.pdb", "2 topologies"),
    "only a topology": ("a.pdb", "no trajectory among the files"),
    "no unit": ("a.dcd a.pdb unitless.csv", "no unit in the columns Time, Potential Energy"),
    "a table too many": ("a.dcd a.pdb a.csv b.csv", "2 tables were given for 1 trajectories"),
    "no number at first": ("first.traj", "of its first frame is not a finite number"),
    "mixed": ("mixed.extxyz", "frame 5 has 2 atoms and the first has 9"),
    "other atoms": ("a.traj water.extxyz", "judge one system at a time"),
    "twice": ("a.traj a.traj", "is given twice"),
    "copy": ("a.traj copy.traj", "no independent replicas"),
    "folders": ("folder folder", "is a folder; give one folder of runs"),
    "npt": ("a.traj --ensemble npt", "'npt' is not known"),
    "nvt of what": ("a.traj --ensemble nvt", "needs the temperature"),
    "temperature alone": ("a.traj --temperature-K 300", "is of a bath; say that the ensemble is nvt"),
    "temperature in nve": ("a.traj --ensemble nve --temperature-K 300", "is of a bath"),
    "cold": ("a.traj --ensemble nvt --temperature-K -3", "must be positive"),
    "spacing": ("a.traj --frame-ps 0", "frame_ps = 0 must be positive"),
    "no lammps": ("a.traj --lammps-units real", "none of the files is a LAMMPS dump"),
    "no types": ("a.traj --lammps-types C,H", "none of the files is a LAMMPS dump"),
    "limit": ("a.traj --drift-limit inf", "must be a positive number"),
    "no reference": ("a.traj --against nowhere", "'nowhere' does not exist"),
    "reference": ("a.traj --write-reference r.npz", "for run folders"),
    "figures": ("a.traj --figures words.txt", "--figures words.txt is a file"),
    "ensemble of a folder": ("folder --ensemble nve", "--ensemble is for trajectory files"),
    "topology of a folder": (
        "folder --topology a.pdb --frame-ps 1",
        "--topology and --frame-ps is for trajectory files",
    ),
    "nothing in a folder": ("folder", "holds no run"),
}


@pytest.fixture
def there(runs: list[Truth], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with good files and bad ones, and the working directory."""
    truth = few(runs[0], slice(20))
    write_traj(truth, tmp_path / "a.traj")
    write_traj(truth, tmp_path / "copy.traj")
    write_dcd(truth, tmp_path / "a.dcd")
    write_xtc(truth, tmp_path / "a.xtc")
    write_pdb(truth, tmp_path / "a.pdb")
    for name in ("a.csv", "b.csv"):
        write_csv(truth, tmp_path / name)
    columns = {"Step": np.arange(20), "Time": truth.time_ps, "Potential Energy": truth.potential}
    write_csv(truth, tmp_path / "unitless.csv", columns)
    (tmp_path / "tiny.traj").write_bytes((tmp_path / "a.traj").read_bytes()[:20])
    (tmp_path / "empty.traj").write_bytes(b"")
    (tmp_path / "words.txt").write_text("no frames here\n")
    (tmp_path / "folder").mkdir()
    x = truth.positions.copy()
    x[0, 3, 1] = np.nan
    write_traj(replace(truth, positions=x), tmp_path / "first.traj")
    two = Atoms("H2", [[0, 0, 0], [0, 0, 0.74]])
    write(tmp_path / "mixed.extxyz", [*frames_of(truth)[:5], two], format="extxyz")
    water = Atoms("OH2", [[0, 0, 0], [0, 0, 0.96], [0.93, 0, -0.24]])
    write(tmp_path / "water.extxyz", [water] * 3, format="extxyz")
    write(tmp_path / "water.pdb", water)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("case", REFUSED)
def test_mistakes_are_one_line(case: str, there: Path, cli: Callable[..., Any]) -> None:
    words, said = REFUSED[case]
    before = sorted(p.name for p in there.rglob("*"))
    result = cli("validate", *words.split())
    assert result.code == 2 and said in result.line, result
    assert result.out == ""
    assert sorted(p.name for p in there.rglob("*")) == before


def test_where_to_write(there: Path, cli: Callable[..., Any]) -> None:
    assert "--out words.txt is a file" in cli("validate", "a.traj", "--out", "words.txt").line
    assert "--out is for trajectory files" in cli("validate", "folder", "--out", "x").line
    done = cli("validate", "a.traj")
    assert done.code == 3 and (there / "runs" / "validation" / "report.html").exists()
