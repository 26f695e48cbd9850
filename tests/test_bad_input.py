"""Mistakes of the user: one line that says what was given and what is allowed, exit code 2, and nothing written."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.io import write

from mlff_sim.structure import read_structures

HYBRID = {
    "--structure": "ethanol",
    "--teacher": "gfn2-xtb",
    "--student": "STUDENT",
    "--k-steps": "2",
    "--duration-ps": "0.1",
    "--no-compile": None,
}
MD = {"--structure": "ethanol", "--model": "morse", "--ensemble": "nve", "--duration-ps": "0.1"}
DISTILL = {"--structure": "ethanol", "--teacher": "gfn2-xtb", "--budget": "5s"}


@pytest.fixture
def inputs(tmp_path: Path, ethanol: Atoms, student_file: Path) -> Callable[[str], str]:
    """Stand-ins in an argument, in capitals, become files that are made on the spot."""

    def atoms(change: Callable[[Atoms], Any]) -> Callable[[Path], None]:
        def make(path: Path) -> None:
            copy = ethanol.copy()
            write(path, change(copy) or copy, format="extxyz")

        return make

    def nan(a: Atoms) -> None:
        a.positions[4, 1] = np.nan

    def spot(a: Atoms) -> None:
        a.positions[3] = a.positions[5] + 0.01

    def periodic(a: Atoms) -> None:
        a.set_cell([9, 9, 9])
        a.set_pbc(True)

    header = 8 + int.from_bytes(student_file.read_bytes()[:8], "little")
    whole = student_file.read_bytes()
    makers: dict[str, Callable[[Path], object]] = {
        "STUDENT": lambda p: p.write_bytes(whole),
        "CORRUPT": lambda p: p.write_bytes(whole[:60] + bytes(b ^ 0xFF for b in whole[60:90]) + whole[90:]),
        "TRUNCATED": lambda p: p.write_bytes(whole[: header + 100]),
        "SHORT": lambda p: p.write_bytes(whole[:5]),
        "EMPTY": lambda p: p.touch(),
        "GARBAGE": lambda p: p.write_bytes(bytes(range(256)) * 4),
        "NAN": atoms(nan),
        "SPOT": atoms(spot),
        "PERIODIC": atoms(periodic),
        "OXYGEN": atoms(lambda a: Atoms("O2", positions=[[0, 0, 0], [1.2, 0, 0]])),
        "REORDERED": atoms(lambda a: a[[1, 0, 3, 2, 4, 5, 6, 7, 8]]),
        "FERMIUM": atoms(lambda a: Atoms(["Fm", "H", "H"], positions=[[0, 0, 0], [1.9, 0, 0], [0, 1.9, 0]])),
        "TWO": lambda p: write(p, [ethanol, ethanol], format="extxyz"),
        "MIXED": lambda p: write(p, [ethanol, ethanol[[1, 0, 3, 2, 4, 5, 6, 7, 8]]], format="extxyz"),
        "MISSING": lambda p: None,
        "FOLDER": lambda p: p.mkdir(),
    }

    def fill(text: str) -> str:
        for name, make in makers.items():
            if name in text:
                path = tmp_path / f"{name.lower()}.xyz"
                if not path.exists():
                    make(path)
                text = text.replace(name, str(path))
        return text

    return fill


def command(
    verb: str, base: dict[str, str | None], changes: dict[str, str | None], fill: Callable[[str], str], out: Path
) -> list[str]:
    """The arguments of a command that would work, but for the changes; an option set to "-" is left out."""
    options = {**base, "--out": str(out), **changes}
    words = [verb]
    for name, value in options.items():
        if value != "-":
            words += [name] if value is None else [name, fill(value)]
    return words


MISTAKES: dict[str, tuple[str, dict[str, str | None], dict[str, str | None], str]] = {
    # structures
    "missing-structure": ("hybrid", HYBRID, {"--structure": "MISSING"}, "does not exist"),
    "empty-structure": ("hybrid", HYBRID, {"--structure": "EMPTY"}, "is empty"),
    "unreadable-structure": ("hybrid", HYBRID, {"--structure": "GARBAGE"}, "cannot read"),
    "folder-for-structure": ("hybrid", HYBRID, {"--structure": "FOLDER"}, "does not exist"),
    "no-such-frame": ("hybrid", HYBRID, {"--structure": "TWO@7"}, "frame '7'"),
    "bad-frame": ("hybrid", HYBRID, {"--structure": "TWO@first"}, "frame 'first'"),
    "nan-positions": ("hybrid", HYBRID, {"--structure": "NAN"}, r"atom 4 \(H\) is not a finite number"),
    "one-spot": ("hybrid", HYBRID, {"--structure": "SPOT"}, "atoms 3 and 5|atoms 5 and 3"),
    "periodic": ("hybrid", HYBRID, {"--structure": "PERIODIC"}, "periodic"),
    "periodic-without-a-student": ("md", MD, {"--structure": "PERIODIC"}, "is periodic; runs are of molecules"),
    "unsupported-element": ("md", MD, {"--structure": "FERMIUM", "--model": "gfn2-xtb"}, "Fm"),
    "frames-and-replicas": ("hybrid", HYBRID, {"--structure": "TWO@0:2", "--replicas": "3"}, "2 frames for 3 replicas"),
    "frames-of-two-molecules": ("hybrid", HYBRID, {"--structure": "MIXED@0:2"}, "differ in their atoms"),
    # models
    "unknown-teacher": ("hybrid", HYBRID, {"--teacher": "gfn9"}, "unknown model 'gfn9'; known: .*gfn2-xtb"),
    "unknown-model": ("md", MD, {"--model": "gfn9"}, "unknown model 'gfn9'; known: .*gfn2-xtb"),
    "teacher-without-factory": ("hybrid", HYBRID, {"--teacher": "ase:no.such:thing"}, "cannot be loaded"),
    "missing-student": ("hybrid", HYBRID, {"--student": "MISSING"}, "does not exist; train one"),
    "student-of-another-molecule": (
        "hybrid",
        HYBRID,
        {"--student": "aspirin-gfn2"},
        "is for C9H8O4; the structure is C2H6O",
    ),
    "student-in-another-order": ("hybrid", HYBRID, {"--structure": "REORDERED"}, "another atom order: its atom 2 is O"),
    "corrupted-student": ("hybrid", HYBRID, {"--student": "CORRUPT"}, "truncated or no safetensors file|corrupted"),
    "truncated-student": ("hybrid", HYBRID, {"--student": "TRUNCATED"}, "truncated"),
    "short-student": ("hybrid", HYBRID, {"--student": "SHORT"}, "truncated"),
    "empty-student": ("hybrid", HYBRID, {"--student": "EMPTY"}, "truncated"),
    "structure-for-student": ("hybrid", HYBRID, {"--student": "TWO"}, "no safetensors file"),
    # the cadence
    "k-0": ("hybrid", HYBRID, {"--k-steps": "0"}, "at least 1"),
    "k-negative": ("hybrid", HYBRID, {"--k-steps": "-3"}, "at least 1"),
    "k-half": ("hybrid", HYBRID, {"--k-steps": "2.5"}, "k_steps = '2.5' is no integer and not 'auto'"),
    "k-word": ("hybrid", HYBRID, {"--k-steps": "many"}, "k_steps = 'many' is no integer and not 'auto'"),
    "k-adaptive": ("hybrid", HYBRID, {"--k-steps": "adaptive"}, "adapts in production does not keep the ensemble"),
    "k-auto-respa": ("hybrid", HYBRID, {"--k-steps": "auto"}, "'auto' cannot be predicted .*student's own dynamics"),
    "k-auto-cold": (
        "hybrid",
        HYBRID,
        {"--k-steps": "auto", "--scheme": "ghmc"},
        "tuned in the warm-up; give some equil",
    ),
    "k-auto-brief": (
        "hybrid",
        HYBRID,
        {"--k-steps": "auto", "--scheme": "ghmc", "--equilibrate-ps": "1"},
        "too little time to try 3 lengths: equilibrate_ps = 1 and duration_ps = 0.1; give at least 2.8 and 0.4",
    ),
    "k-auto-proposal": (
        "hybrid",
        HYBRID,
        {"--k-steps": "auto", "--scheme": "ghmc", "--equilibrate-ps": "9", "--proposal-steps": "2"},
        "give it or proposal_steps",
    ),
    "proposal-of-respa": ("hybrid", HYBRID, {"--proposal-steps": "2"}, "scheme 'respa' proposes nothing"),
    "proposal-0": ("hybrid", HYBRID, {"--scheme": "ghmc", "--proposal-steps": "0"}, "proposal_steps = 0 must be"),
    "proposal-half": ("hybrid", HYBRID, {"--scheme": "ghmc", "--proposal-steps": "1.5"}, "--proposal-steps.*integer"),
    "proposal-long": ("hybrid", HYBRID, {"--scheme": "ghmc", "--proposal-steps": "200"}, "one outer step of 200 fs"),
    "workers-0": ("hybrid", HYBRID, {"--teacher-workers": "0"}, "teacher_workers = 0 must be"),
    "workers-without-replicas": ("hybrid", HYBRID, {"--teacher-workers": "2"}, "2 for 1 replica: .*use at most 1"),
    "workers-of-a-network": (
        "md",
        MD,
        {"--model": "student:STUDENT", "--replicas": "2", "--teacher-workers": "2"},
        "evaluates all replicas in one call",
    ),
    "no-k": ("hybrid", HYBRID, {"--k-steps": "-"}, "exactly one of .*; got none"),
    "two-k": ("hybrid", HYBRID, {"--corrector-fraction": "0.5"}, "exactly one of"),
    "fraction-0": ("hybrid", HYBRID, {"--k-steps": "-", "--corrector-fraction": "0"}, r"outside \(0, 1\]"),
    "fraction-negative": ("hybrid", HYBRID, {"--k-steps": "-", "--corrector-fraction": "-0.5"}, r"outside \(0, 1\]"),
    "fraction-above-1": ("hybrid", HYBRID, {"--k-steps": "-", "--corrector-fraction": "1.5"}, r"outside \(0, 1\]"),
    "fraction-nan": ("hybrid", HYBRID, {"--k-steps": "-", "--corrector-fraction": "nan"}, r"outside \(0, 1\]"),
    "fraction-not-1/K": ("hybrid", HYBRID, {"--k-steps": "-", "--corrector-fraction": "0.3"}, r"not 1/K .*\(K = 3\)"),
    "corrector-steps-0": ("hybrid", HYBRID, {"--k-steps": "-", "--corrector-steps": "0"}, "between 1 and"),
    "corrector-steps-uneven": ("hybrid", HYBRID, {"--k-steps": "-", "--corrector-steps": "7"}, "do not divide"),
    "corrector-steps-of-no-time": (
        "hybrid",
        HYBRID,
        {"--k-steps": "-", "--corrector-steps": "10", "--timestep-fs": "0"},
        "time ?step",
    ),
    # other numbers
    "time-step-negative": ("hybrid", HYBRID, {"--timestep-fs": "-0.5"}, "timestep_fs = -0.5 must be a positive"),
    "time-step-nan": ("hybrid", HYBRID, {"--timestep-fs": "nan"}, "timestep_fs = nan must be a positive"),
    "too-short": ("hybrid", HYBRID, {"--duration-ps": "0.0005"}, "shorter than one outer step of 1 fs"),
    "duration-negative": ("md", MD, {"--duration-ps": "-1"}, "duration_ps = -1"),
    "temperature-0": ("hybrid", HYBRID, {"--temperature-K": "0"}, "temperature_K = 0 must be a positive"),
    "temperature-negative": ("md", MD, {"--temperature-K": "-300"}, "temperature_K = -300"),
    "friction-negative": ("hybrid", HYBRID, {"--friction-per-ps": "-1"}, "friction_per_ps = -1"),
    "friction-word": (
        "hybrid",
        HYBRID,
        {"--friction-per-ps": "much"},
        "'much' is no friction; write for instance 5, or",
    ),
    "friction-of-nothing": ("md", MD, {"--friction-per-ps": "5,N=2"}, "given for N; the structure is C2H6O"),
    "friction-of-an-element-negative": ("md", MD, {"--friction-per-ps": "5,H=-2"}, "= -2 of H must not be negative"),
    "friction-and-com": ("md", MD, {"--friction-per-ps": "5,H=2", "--remove-com": None}, "needs one friction"),
    "hydrogen-mass-0": ("hybrid", HYBRID, {"--hydrogen-mass": "0"}, "hydrogen_mass = 0 u must be at least 1"),
    "hydrogen-mass-5": ("hybrid", HYBRID, {"--hydrogen-mass": "5"}, r"or less to atom \d \(C\)"),
    "no-hydrogens": ("md", MD, {"--structure": "OXYGEN", "--hydrogen-mass": "3"}, "needs X-H bonds"),
    "middle-alone": ("hybrid", HYBRID, {"--middle": "morse"}, "middle and middle_steps come together"),
    "middle-steps-uneven": ("hybrid", HYBRID, {"--middle": "morse", "--middle-steps": "3"}, "divides k_steps = 2"),
    "unknown-middle": ("hybrid", HYBRID, {"--middle": "no:such", "--middle-steps": "1"}, "unknown model 'no:such'"),
    "middle-ghmc": (
        "hybrid",
        HYBRID,
        {"--middle": "morse", "--middle-steps": "1", "--scheme": "ghmc"},
        "there is scheme 'ghmc'",
    ),
    "unknown-integrator": ("md", MD, {"--integrator": "aboba"}, "'aboba' is unknown; choose one of: baoab, obabo"),
    "integrator-in-nve": ("md", MD, {"--integrator": "obabo"}, "'nve' runs another inside"),
    "equilibration-negative": ("hybrid", HYBRID, {"--equilibrate-ps": "-1"}, "equilibrate_ps = -1"),
    "seed-negative": ("hybrid", HYBRID, {"--seed": "-1"}, "seed = -1"),
    "every-0": ("hybrid", HYBRID, {"--every": "0"}, "every = 0"),
    "replicas-0": ("hybrid", HYBRID, {"--replicas": "0"}, "replicas = 0"),
    # words
    "unknown-ensemble": ("hybrid", HYBRID, {"--ensemble": "npt"}, "'npt' is unknown; choose one of: nve, nvt"),
    "unknown-scheme": ("hybrid", HYBRID, {"--scheme": "leapfrog"}, "'leapfrog' is unknown; choose one of: respa"),
    "nothing-to-mollify": (
        "hybrid",
        HYBRID,
        {"--structure": "OXYGEN", "--scheme": "mollified"},
        "needs X-H bonds and '.*' has none; use 'respa'",
    ),
    "unknown-option": ("hybrid", HYBRID, {"--temperture-K": "300"}, "--temperture-K"),
    "missing-option": ("hybrid", HYBRID, {"--teacher": "-"}, "--teacher"),
    "missing-value": ("md", MD, {"--seed": None}, "--seed"),
    # distillation
    "bad-budget": ("distill", DISTILL, {"--budget": "soon"}, "'soon' is no duration; write for instance"),
    "budget-0": ("distill", DISTILL, {"--budget": "0s"}, "no duration"),
    "distill-seed-negative": ("distill", DISTILL, {"--seed": "-1"}, "must not be negative"),
    "distill-temperature-0": ("distill", DISTILL, {"--temperature-K": "0"}, "must be positive"),
    "distill-temperature-nan": ("distill", DISTILL, {"--temperature-K": "nan"}, "must be positive"),
    "distill-temperature-word": ("distill", DISTILL, {"--temperature-K": "300,hot"}, "no list of numbers"),
    "distill-width-0": ("distill", DISTILL, {"--width": "0"}, "must be positive"),
    "distill-width-half": ("distill", DISTILL, {"--width": "16.5"}, "width"),
    "distill-target-0": ("distill", DISTILL, {"--target-mae": "0"}, "must be positive"),
    "distill-unknown-teacher": ("distill", DISTILL, {"--teacher": "gfn9"}, "unknown model 'gfn9'"),
    "distill-missing-structure": ("distill", DISTILL, {"--structure": "MISSING"}, "does not exist"),
    "distill-nan": ("distill", DISTILL, {"--structure": "NAN"}, "not a finite number"),
    "distill-periodic": ("distill", DISTILL, {"--structure": "PERIODIC"}, "periodic"),
    "distill-fermium": ("distill", DISTILL, {"--structure": "FERMIUM"}, "Fm"),
    "distill-from-nothing": ("distill", DISTILL, {"--from": "MISSING"}, "does not exist; train one"),
    "distill-from-damage": ("distill", DISTILL, {"--from": "TRUNCATED"}, "truncated"),
    "distill-from-structure": ("distill", DISTILL, {"--from": "TWO"}, "no safetensors file"),
    "distill-from-another": ("distill", DISTILL, {"--from": "aspirin-gfn2"}, "is for C9H8O4; the structure is C2H6O"),
    "distill-from-other-widths": (
        "distill",
        DISTILL,
        {"--from": "STUDENT", "--width": "64"},
        r"widths \(64,\) are asked for and the student .* has \(16, 16\); leave them out",
    ),
    "distill-two-frames": ("distill", DISTILL, {"--structure": "TWO@0:2"}, "2 frames"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_one_line_exit_code_2_nothing_written(
    mistake: str, cli: Callable[..., Any], inputs: Callable[[str], str], tmp_path: Path
) -> None:
    verb, base, changes, words = MISTAKES[mistake]
    out = tmp_path / "out"
    result = cli(*command(verb, base, changes, inputs, out))
    assert result.code == 2
    assert re.search(words, result.line), result.line
    assert len(result.line) < 500
    assert "Traceback" not in result.out and result.out == ""
    assert not list(tmp_path.glob("out*"))


def test_the_command_without_the_mistake_works(
    cli: Callable[..., Any], inputs: Callable[[str], str], tmp_path: Path
) -> None:
    """Or the test above would show nothing."""
    result = cli(*command("md", MD, {}, inputs, tmp_path / "out"))
    assert result.code == 0 and result.err == "", result
    assert (tmp_path / "out" / "log.h5").exists()


# Output folders.


def listing(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_folder_of_another_run_is_refused(
    cli: Callable[..., Any], inputs: Callable[[str], str], tmp_path: Path
) -> None:
    """It names what differs, and leaves the folder as it was, with and without --resume."""
    out = tmp_path / "out"
    assert cli(*command("md", MD, {}, inputs, out)).code == 0
    before = listing(out)
    for resume in ({}, {"--resume": None}):
        result = cli(*command("md", MD, {"--seed": "5", **resume}, inputs, out))
        assert result.code == 2
        assert "different run (seed 0 there, 5 here)" in result.line
    result = cli(*command("md", MD, {}, inputs, out))
    assert result.code == 2
    assert "already holds this run; continue it with --resume" in result.line
    assert listing(out) == before


def test_a_folder_with_something_else_in_it_is_refused(
    cli: Callable[..., Any], inputs: Callable[[str], str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    result = cli(*command("md", MD, {}, inputs, out))
    assert result.code == 2 and "not empty and holds no run" in result.line
    assert listing(out) == {"thesis.tex": b"years of work"}
    file = tmp_path / "file"
    file.write_text("")
    result = cli(*command("md", MD, {}, inputs, file))
    assert result.code == 2 and "is a file" in result.line


def test_a_folder_whose_run_cannot_be_read_is_refused(
    cli: Callable[..., Any], inputs: Callable[[str], str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for content in ("{", "{}", "[]", '{"format": "mlff-sim-run"}'):
        (out / "run.json").write_text(content)
        result = cli(*command("md", MD, {"--resume": None}, inputs, out))
        assert result.code == 2, content
        assert "run.json" in result.line or "different run" in result.line


def test_a_student_file_is_written_where_there_is_a_folder(
    cli: Callable[..., Any], inputs: Callable[[str], str], tmp_path: Path
) -> None:
    assert "does not exist" in cli(*command("distill", DISTILL, {}, inputs, tmp_path / "no" / "out")).line
    assert "is a folder" in cli(*command("distill", DISTILL, {}, inputs, tmp_path)).line


@pytest.mark.parametrize("arguments", [["validate", "nowhere"], ["models", "--all"], ["frobnicate"], ["validate"]])
def test_other_verbs_answer_in_one_line_too(
    arguments: list[str], cli: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = cli(*arguments)
    assert result.code == 2 and result.line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("verb", "words"), [("models", "interrupted."), ("distill", "interrupted; the same command c")]
)
def test_an_interrupted_verb_says_whether_it_can_go_on(
    verb: str, words: str, cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*arguments: Any, **settings: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mlff_sim.models.registry.entry_points", stop)
    options = ("--structure", "ethanol", "--teacher", "lj", "--budget", "5s", "--out", "x") if verb == "distill" else ()
    result = cli(verb, *options)
    assert result.code == 130 and result.line.startswith(words)


def test_as_a_process_it_is_the_same(shell: Callable[..., Any], inputs: Callable[[str], str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    for changes, words in (({"--k-steps": "0"}, "at least 1"), ({"--student": "aspirin-gfn2"}, "C9H8O4")):
        result = shell(*command("hybrid", HYBRID, changes, inputs, out))
        assert result.code == 2 and words in result.line and result.out == ""
    assert not out.exists()


EARLY: list[tuple[str, dict[str, str | None], dict[str, str | None]]] = [
    ("hybrid", HYBRID, {"--k-steps": "0"}),
    ("hybrid", HYBRID, {"--ensemble": "npt"}),
    ("hybrid", HYBRID, {"--timestep-fs": "-1"}),
    ("hybrid", HYBRID, {"--structure": "MISSING"}),
    ("hybrid", HYBRID, {"--structure": "NAN"}),
    ("hybrid", HYBRID, {"--teacher": "gfn9"}),
    ("hybrid", HYBRID, {"--student": "aspirin-gfn2"}),
    ("hybrid", HYBRID, {"--student": "TRUNCATED"}),
    ("distill", DISTILL, {"--budget": "soon"}),
    ("distill", DISTILL, {"--seed": "-1"}),
    ("distill", DISTILL, {"--structure": "EMPTY"}),
    ("distill", DISTILL, {"--target-mae": "-1"}),
    ("distill", DISTILL, {"--from": "aspirin-gfn2"}),
]


def test_mistakes_are_found_before_anything_heavy_loads(inputs: Callable[[str], str], tmp_path: Path) -> None:
    """One process makes all these mistakes and has not imported torch, nor any engine, at the end."""
    commands = [command(*mistake, inputs, tmp_path / "out") for mistake in EARLY]
    code = (
        "import sys\nfrom mlff_sim.cli.main import main\n"
        f"for arguments in {commands!r}:\n"
        "    try:\n        main(arguments)\n"
        "    except SystemExit as end:\n        assert end.code == 2, (end.code, arguments)\n"
        "    loaded = {'torch', 'tblite', 'openmm', 'h5py'} & set(sys.modules)\n"
        "    assert not loaded, (loaded, arguments)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stderr.splitlines()) == len(EARLY), done.stderr


def test_frames_are_counted_as_in_ase(inputs: Callable[[str], str]) -> None:
    """FILE is the first frame, FILE@0:2 both, FILE@-1 the last."""
    assert [len(read_structures(inputs(s))) for s in ("TWO", "TWO@-1", "TWO@0:2", "TWO@:")] == [1, 1, 2, 2]
