"""Questions about a model, from the command line: asked, answered, gone on with after a kill, and refused in one line."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import h5py
import jsonschema
import numpy as np
import pytest
from ase import Atoms
from ase.io import write

from mlff_sim.errors import InputError
from mlff_sim.simulation import RunConfig
from mlff_sim.studies import TRIALS, Study, carry_out, trial

SCHEMA = json.loads(resources.files("mlff_sim.report").joinpath("results.schema.json").read_text())
TINY = ("--structure", "ethanol", "--duration-ps", "0.1", "--equilibrate-ps", "0.02", "--replicas", "2", "--no-compile")
PAIR = ("--teacher", "morse", "--student", "harmonic", "--k-steps", "2")
CODES = {"pass": 0, "fail": 1, "inconclusive": 3}
ROWS = {
    "nve": "Energy drift, NVE",
    "nvt": "Temperature of H",
    "step-size": "Energy error, 1 against 0.5 fs",
    "ensemble": "Boltzmann's ratio of energies",
    "vibrations": "Lines of the spectrum",
    "stability": "Stability",
    "certify": "Control: verlet",
}
"""What the table must have."""


def asked(question: str, *more: object) -> list[object]:
    """The command line of a question, of a tiny run."""
    verb = ["certify", *PAIR] if question == "certify" else ["validate", question, "--model", "morse"]
    return [*verb, *TINY, *more]


def arrays(folder: Path) -> dict[str, bytes]:
    """Every array of every log.h5 outside /wall, and the starts."""
    out: dict[str, bytes] = {p.name: p.read_bytes() for p in folder.glob("starts/starts.xyz")}
    for path in sorted(folder.rglob("log.h5")):

        def visit(name: str, item: object, path: Path = path) -> None:
            if isinstance(item, h5py.Dataset) and not name.startswith("wall/"):
                out[f"{path.parent.relative_to(folder)}/{name}"] = repr(item.shape).encode() + item[()].tobytes()

        with h5py.File(path) as f:
            f.visititems(visit)
    return out


def listing(folder: Path) -> dict[str, bytes]:
    """Every file but the report, which says when it was made by nothing but its content."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("question", [*TRIALS, "certify"])
def test_a_question_is_asked_and_answered(question: str, cli: Callable[..., Any], tmp_path: Path) -> None:
    """From a name to a verdict, an exit code that is its, results that keep the schema, and a page; twice is once."""
    out = tmp_path / "out"
    done = cli(*asked(question, "--out", out))
    results = json.loads((out / "results.json").read_text())
    jsonschema.validate(results, SCHEMA)
    assert done.code == CODES[results["verdict"]], done
    assert done.err == ""
    row = next(line for line in done.out.splitlines() if line.lstrip().startswith(ROWS[question]))
    assert "[" not in row  # the answer of a study is no single run's
    assert "nan" not in done.out
    assert (out / "report.html").read_text().count("<html") == 1
    before = listing(out)
    again = cli(*asked(question, "--out", out))
    assert (again.code, again.out) == (done.code, done.out)
    assert listing(out) == before
    judged = cli("validate", out)
    assert (judged.code, judged.out) == (done.code, done.out)


def test_answers(cli: Callable[..., Any], tmp_path: Path) -> None:
    """Morse bonds are smooth and conservative: the law of the step holds. Nothing but bonds holds its hydrogens apart."""
    smooth = cli(*asked("step-size", "--duration-ps", "0.3", "--replicas", "5", "--out", tmp_path / "law"))
    assert smooth.code == 0 and "PASS" in smooth.out
    loose = cli(*asked("stability", "--duration-ps", "1", "--out", tmp_path / "loose"))
    assert loose.code == 1 and "2 of 2 broke" in loose.out


@pytest.mark.parametrize("question", [*TRIALS, "certify"])
def test_a_step_that_is_too_long_is_no_traceback(question: str, cli: Callable[..., Any], tmp_path: Path) -> None:
    """8 fs is beyond any bond's stability: everything flies apart at once, and that is the answer."""
    done = cli(*asked(question, "--timestep-fs", "8", "--duration-ps", "0.2", "--out", tmp_path / "out"))
    assert done.code == 1 and done.err == ""
    jsonschema.validate(json.loads((tmp_path / "out" / "results.json").read_text()), SCHEMA)


def test_what_happens_at_twice_the_step_is_not_held_against_the_model(cli: Callable[..., Any], tmp_path: Path) -> None:
    """The run at 3 fs is stopped and those at 1.5 and 0.75 fs are not."""
    done = cli(*asked("step-size", "--timestep-fs", "1.5", "--duration-ps", "0.2", "--out", tmp_path / "out"))
    stopped = json.loads((tmp_path / "out" / "double" / "run.json").read_text())["status"]
    assert stopped == "stopped"
    assert done.code == 3 and "shorter --timestep-fs" in done.out


def test_too_short_to_judge_is_said(cli: Callable[..., Any], tmp_path: Path) -> None:
    for question in ("step-size", "vibrations", "ensemble"):
        done = cli(*asked(question, "--duration-ps", "0.002", "--out", tmp_path / question))
        assert done.code == 3 and done.err == "", question
        assert "Not judged: " in done.out or "ask for so much" in done.out or "Run longer" in done.out, done.out


class Killed(BaseException):
    """The process is gone: nothing that handles exceptions may notice."""


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("question", ["vibrations", "certify"])
def test_killed_at_renames(question: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files appear by renaming; ended before every fourth of them, the study goes on as if nothing had been."""
    config = RunConfig("ethanol", "morse", duration_ps=0.03, replicas=2, compile=False)
    study = trial("vibrations", config, 0.01)
    if question == "certify":
        both = RunConfig("ethanol", "morse", "harmonic", "nve", k_steps=2, duration_ps=0.03, replicas=2, compile=False)
        study = Study("certify", {"fast": both, "verlet": study.runs["nve"]}, 0.01)
    whole = carry_out(study, tmp_path / "whole")
    found = (whole / "study.json").read_text()
    rename, left = os.replace, 10**9

    def dying(source: Any, target: Any) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise Killed
        rename(source, target)

    monkeypatch.setattr(os, "replace", dying)
    for k in range(1, 200, 4):
        broken, left = tmp_path / f"broken-{k}", k
        try:
            carry_out(study, broken)
        except Killed:
            left = 10**9
            carry_out(study, broken)
            assert arrays(broken) == arrays(whole), f"killed at rename {k}"
            assert (broken / "study.json").read_text() == found
        else:
            break
    assert k > 12
    assert len(arrays(whole)) > 12


REFUSED: dict[str, tuple[str, tuple[object, ...], str]] = {
    "no model": ("nve", ("--model", "gfn9"), "unknown model 'gfn9'"),
    "no structure": ("nve", ("--structure", "missing.xyz"), "does not exist"),
    "no duration": ("nvt", ("--duration-ps", "-1"), "duration_ps = -1"),
    "nan": ("stability", ("--duration-ps", "nan"), "duration_ps = nan"),
    "no step": ("step-size", ("--timestep-fs", "0"), "timestep_fs = 0"),
    "no replica": ("ensemble", ("--replicas", "0"), "replicas = 0"),
    "warm-up": ("nve", ("--equilibrate-ps", "-1"), "equilibrate_ps = -1"),
    "short warm-up": ("nve", ("--equilibrate-ps", "0.0005"), "shorter than one outer step"),
    "warm-up of two": ("ensemble", ("--equilibrate-ps", "-1"), "equilibrate_ps = -1"),
    "no bath": ("nvt", ("--friction-per-ps", "0"), "friction_per_ps = 0 is none"),
    "no heat": ("ensemble", ("--temperature-K", "0"), "temperature_K = 0"),
    "element": ("nvt", ("--friction-per-ps", "5,Xx=3"), "Xx"),
    "limit": ("nve", ("--drift-limit", "-1"), "drift limit -1"),
    "no limit": ("nve", ("--drift-limit", "nan"), "drift limit nan"),
    "any limit": ("certify", ("--drift-limit", "inf"), "drift limit inf"),
    "reference": ("nvt", ("--against", "nowhere"), "'nowhere' does not exist"),
    "useless reference": ("step-size", ("--against", "nowhere"), "leave --against out"),
    "own frames": ("vibrations", ("--every", "7"), "leave every out"),
    "odd frames": ("step-size", ("--every", "3"), "give an even number"),
    "preset": ("nve", ("--preset", "slow"), "there is one, 'quick'"),
    "preset of another": ("nvt", ("--preset", "quick"), "are for 'nve'"),
    "preset without warm-up": ("nve", ("--preset", "quick", "--equilibrate-ps", "0"), "give some equilibrate_ps"),
    "workers": ("nve", ("--teacher-workers", "3"), "use at most 2"),
    "one replica": ("certify", ("--replicas", "1"), "cannot be compared"),
    "scheme": ("certify", ("--scheme", "verlet"), "scheme 'verlet' is unknown"),
    "steps": ("certify", ("--k-steps", "0"), "k_steps = 0"),
    "no steps": ("certify", ("--k-steps", "some"), "no integer and not 'auto'"),
    "auto of ghmc": ("certify", ("--scheme", "ghmc", "--ensemble", "nvt", "--k-steps", "auto"), "give a number"),
    "ghmc in nve": ("certify", ("--scheme", "ghmc"), "samples at constant temperature"),
    "another student": ("certify", ("--student", "aspirin-gfn2"), "student 'aspirin-gfn2' is for C9H8O4"),
    "no student": ("certify", ("--student", "missing.student"), "missing.student"),
    "too short": ("certify", ("--k-steps", "1000"), "shorter than one outer step"),
    "guard": ("certify", ("--on-residual", "pray"), "on_residual 'pray' is unknown"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_mistakes_are_one_line_and_leave_nothing(case: str, cli: Callable[..., Any], tmp_path: Path) -> None:
    question, options, words = REFUSED[case]
    result = cli(*asked(question, *options, "--out", tmp_path / "out"))
    assert result.code == 2 and words in result.line, result
    assert result.out == ""
    assert not any(tmp_path.iterdir())


def test_another_question_in_the_same_folder_is_refused(cli: Callable[..., Any], tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert cli(*asked("nve", "--out", out)).code in (0, 1, 3)
    before = listing(out)
    for other, words in (
        (asked("nvt"), "its question is nve, not nvt"),
        (asked("nve", "--seed", "4"), "seed of nve is 0 there and 4 here"),
        (asked("nve", "--equilibrate-ps", "0.03"), "its warm_ps is 0.02, not 0.03"),
        (asked("nve", "--preset", "quick"), "facts"),
        (asked("certify"), "its question is nve"),
    ):
        result = cli(*other, "--out", out)
        assert result.code == 2 and "holds another study" in result.line and words in result.line, result
        assert listing(out) == before
    inside = cli(*asked("nve", "--out", out / "nve"))
    assert inside.code == 2 and "holds no study" in inside.line


def test_how_fast_it_is_made_is_not_what_is_asked(tmp_path: Path) -> None:
    """Workers change no number, and a study may go on with others."""
    study = trial("nve", RunConfig("ethanol", "morse", duration_ps=0.01, replicas=2, compile=False), 0.0)
    carry_out(study, tmp_path)
    faster = RunConfig("ethanol", "morse", duration_ps=0.01, replicas=2, compile=False, teacher_workers=2)
    carry_out(trial("nve", faster, 0.0), tmp_path)


def test_a_folder_with_something_else_in_it_is_refused(cli: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    for content in (None, "{", "{}", "[]"):
        if content is not None:
            (tmp_path / "study.json").write_text(content)
        before = listing(tmp_path)
        result = cli(*asked("nve", "--out", tmp_path))
        assert result.code == 2 and ("holds no study" in result.line or "study.json" in result.line)
        assert listing(tmp_path) == before
    file = cli(*asked("nve", "--out", tmp_path / "thesis.tex"))
    assert file.code == 2 and "is a file" in file.line


def test_an_unfinished_study_is_not_judged(cli: Callable[..., Any], tmp_path: Path) -> None:
    out = tmp_path / "out"
    config = RunConfig("ethanol", "morse", duration_ps=0.02, replicas=2, compile=False)
    carry_out(trial("step-size", config, 0.0), out)
    for path in (out / "half").iterdir():
        path.unlink()
    result = cli("validate", out)
    assert result.code == 2 and "unfinished study without its half; give the same command again" in result.line


def test_a_warm_up_keeps_charge_and_spin(tmp_path: Path) -> None:
    """An anion is one after it, too: uncharged, it would have an unpaired electron, which the model refuses."""
    config = RunConfig("smiles:CC(=O)[O-]", "mmff", duration_ps=0.01, replicas=2, compile=False)
    carry_out(trial("nve", config, 0.01), tmp_path / "out")
    settings = json.loads((tmp_path / "out" / "nve" / "run.json").read_text())
    assert settings["status"] == "finished" and settings["models"]["model"]["charge"] == -1


def test_a_warm_up_that_breaks_is_no_start(cli: Callable[..., Any], tmp_path: Path) -> None:
    """At 9000 K nothing holds; the second time it is told as the first, and no start is taken from the wreck."""
    out = tmp_path / "out"
    hot = ("--temperature-K", "9000", "--timestep-fs", "2", "--equilibrate-ps", "0.5", "--model", "harmonic")
    for _ in range(2):
        result = cli(*asked("nve", *hot, "--out", out))
        assert result.code == 1 and "during the warm-up, atoms" in result.line and "stop.txt" in result.line
        assert not (out / "nve").exists() and not (out / "starts" / "starts.xyz").exists()
    result = cli("validate", out)
    assert result.code == 2 and "unfinished study without its nve" in result.line


def test_one_atom_has_no_structure(cli: Callable[..., Any], tmp_path: Path) -> None:
    write(tmp_path / "ar.xyz", Atoms("Ar", [[0, 0, 0]]))
    atom = ("--structure", tmp_path / "ar.xyz", "--teacher", "lj", "--student", "lj")
    assert cli(*asked("certify", *atom, "--out", tmp_path / "out")).code in (0, 3)
    result = cli("validate", tmp_path / "out" / "fast", "--against", tmp_path / "out" / "verlet")
    assert result.code == 2 and "a single atom" in result.line


def test_a_diatomic_has_one_mode(cli: Callable[..., Any], tmp_path: Path) -> None:
    """Morse's default well, harmonic wave number alpha sqrt(2 D / mu): linear, so five modes are none."""
    write(tmp_path / "h2.xyz", Atoms("H2", [[0, 0, 0], [0, 0, 0.74]]))
    cli(*asked("vibrations", "--structure", tmp_path / "h2.xyz", "--out", tmp_path / "out"))
    assert len(json.loads((tmp_path / "out" / "study.json").read_text())["found"]["modes_cm"]) == 1


def test_a_reference_is_another_run(cli: Callable[..., Any], tmp_path: Path) -> None:
    """Nothing is its own reference; a study of one run is one, and of several it is said that one must be named."""
    a, b, c = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    assert cli(*asked("nvt", "--out", a)).code == 3
    assert "Pair distances" in cli(*asked("nvt", "--seed", "1", "--against", a, "--out", b)).out
    assert "compared with itself" in cli("validate", a, "--against", a / "nvt").line
    cli(*asked("step-size", "--out", c))
    assert "holds 3 runs; give the one" in cli("validate", a, "--against", c).line


def test_a_reference_is_written_where_there_is_a_folder(cli: Callable[..., Any], tmp_path: Path) -> None:
    out = tmp_path / "out"
    cli(*asked("nvt", "--out", out))
    assert "is a folder" in cli("validate", out, "--write-reference", tmp_path).line
    assert "which is no folder" in cli("validate", out, "--write-reference", tmp_path / "no" / "r.npz").line
    both = cli("validate", out, "--write-reference", tmp_path / "r.npz", "--figures", tmp_path / "figures")
    assert both.code == 2 and "leave --against and --figures out" in both.line
    assert cli("validate", out, "--write-reference", tmp_path / "r.npz").code == 0
    assert cli("validate", out, "--against", tmp_path / "r.npz").code in (0, 3)


def test_velocities_in_the_structure_are_no_copies_after_a_warm_up(
    ethanol: Atoms, cli: Callable[..., Any], tmp_path: Path
) -> None:
    """One frame with velocities for two replicas: what separates them is the bath of the warm-up."""
    atoms = ethanol.copy()
    atoms.set_momenta(0.1 * np.random.default_rng(0).standard_normal((9, 3)))
    write(tmp_path / "start.traj", atoms)
    start = ("--structure", tmp_path / "start.traj")
    assert cli(*asked("nve", *start, "--out", tmp_path / "out")).code == 3
    with pytest.raises(InputError, match="would be copies"):
        config = RunConfig(str(start[1]), "morse", ensemble="nve", duration_ps=0.01, replicas=2)
        carry_out(trial("nve", config, 0.0), tmp_path / "copies")
    assert not (tmp_path / "copies").exists()


def test_an_interrupted_study_can_go_on(cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*arguments: Any, **settings: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mlff_sim.cli.trial.carry_out", stop)
    for question in (*TRIALS, "certify"):
        result = cli(*asked(question, "--out", "x"))
        assert result.code == 130 and result.line == "interrupted; the same command continues."
    assert "see mlff-sim validate nve --help" in cli("validate", "nve", "--frobnicate").line


@pytest.mark.parametrize("verb", [["certify"], ["validate"], *(["validate", q] for q in TRIALS)], ids=" ".join)
def test_help_has_an_example(verb: list[str], cli: Callable[..., Any]) -> None:
    shown = cli(*verb, "--help")
    assert shown.code == 0
    assert "Example" in shown.out and f"\n    mlff-sim {' '.join(verb)} " in shown.out, shown.out
