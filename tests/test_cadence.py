"""`mlff-sim cadence`: what it predicts for models with known differences, what it writes, and what it refuses."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms

from mlff_sim.errors import InputError
from mlff_sim.models.analytic import Harmonic, bonded
from mlff_sim.simulation.cadence import CadenceConfig, Estimate, Mode, Step, longest, windows
from mlff_sim.simulation.forecast import Forecast
from mlff_sim.units import CM1, FS

QUICK = CadenceConfig("ethanol", "harmonic", "morse", teacher_calls=1)


def softer_bonds(ethanol: Atoms, **settings: Any) -> Any:
    """Harmonic bonds corrected by harmonic bonds 1 % stiffer: everything about it can be worked out by hand."""
    teacher, student = bonded(Harmonic, ethanol), bonded(Harmonic, ethanol)
    teacher.k, student.k = 30.0, 30.0 / 1.01
    return Forecast(replace(QUICK, **settings), ethanol, teacher, student).cadence(timing=False)


@pytest.fixture(scope="module")
def certificate(ethanol: Atoms) -> Any:
    return softer_bonds(ethanol)


@pytest.fixture(autouse=True, scope="module")
def _short() -> Iterator[None]:
    """The start is the minimum of harmonic bonds; a fifth of a picosecond at 5/ps warms it enough for these tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mlff_sim.simulation.forecast.WARM_UP_PS", 0.2)
        yield


def test_modes_and_what_the_student_misses(certificate: Any) -> None:
    """Every bond is 1 % stiffer in the teacher, so every mode is; where X-H is left to the student, nothing is missed."""
    plain, mollified = certificate.outlooks
    assert (plain.scheme, mollified.scheme) == ("respa", "mollified")
    stretches = [m for m in plain.modes if m.hydrogen > 0.9]
    assert len(stretches) == 6
    assert all(abs(m.error / 0.01 - 1) < 0.03 for m in stretches)  # differences of 0.01 A see anharmonic angles
    assert all(m.error < 1e-3 for m in mollified.modes if m.hydrogen > 0.9)
    m = stretches[0]
    assert abs(m.growth - 0.5 * 0.01 * m.cm1 * 0.18836) < 0.03 * m.growth  # epsilon w / 2; 1/cm is 0.18836 rad/ps


def test_heating_follows_the_stretches(certificate: Any) -> None:
    """Kicks inside the windows of X-H stretches heat, and heat hydrogens; without them in the residual they do not."""
    plain, mollified = certificate.outlooks
    period = 1e15 / (2.99792458e10 * plain.modes[0].cm1)  # fs
    k = round(period / 2 / 0.5)
    there, before = plain.step(k), plain.step(2)
    assert there.heating.value > 100 * before.heating.value > 0
    assert there.hottest == "H"
    assert mollified.step(k).heating.value < 0.2 * there.heating.value
    assert plain.nve is None or plain.nve < k
    if plain.nve is not None:  # half of the limit, for a prediction that may be too low
        assert plain.step(plain.nve).heating.upper <= 0.05 < plain.step(plain.nve + 1).heating.upper
    assert certificate.teacher_calls == 2 * (5 * 301 + 6 * 9 * 4)
    # The walk and the heating are one thing, seen twice: walk^2 = 2 kT heating, per atom.
    kT_meV = 0.0861733 * 300
    assert abs(there.walk**2 * 9 / (2 * kT_meV * there.heating.value) - 1) < 1e-4


def test_friction_and_excess(ethanol: Atoms) -> None:
    """The element with twice the friction runs half as hot, to first order; the friction for the next step is enough."""
    one, two = (softer_bonds(ethanol, friction_per_ps=g, schemes=("respa",)).outlooks[0] for g in (20.0, 40.0))
    a, b = one.step(6).hot["H"].value, two.step(6).hot["H"].value
    x, y = a / (300 + a), b / (300 + b)
    assert abs(x / y - 2) < 1e-9 and a > 0
    assert one.nvt is not None and one.next_friction is not None
    enough = softer_bonds(ethanol, friction_per_ps=one.next_friction * 1.0001, schemes=("respa",)).outlooks[0]
    assert enough.nvt is not None and enough.nvt > one.nvt


def step(k: int, heating: float) -> Step:
    return Step(k, k / 2, Estimate(heating, 0.0), 0.0, {}, 0.0, 0.0, None)


def test_no_valley_is_trusted() -> None:
    steps = tuple(step(k, h) for k, h in ((2, 0.0), (3, 0.01), (4, 0.3), (5, 0.02)))
    assert longest(steps, lambda s: s.heating.upper <= 0.1) == 3
    assert longest(steps, lambda s: s.heating.upper < 0) is None


def test_windows_of_modes() -> None:
    """They lie at n pi / w and are epsilon n pi / w wide to either side at most."""
    mode = Mode(3000.0, 1.0, 0.01, 1.0)
    found = windows((mode,), 12.0)
    w = 3000 * CM1 * FS
    assert len(found) == 2
    for n, (a, b, growth) in enumerate(found, 1):
        assert abs((a + b) / 2 - n * np.pi / w) < 1e-12 and abs((b - a) / 2 - 0.01 * n * np.pi / w) < 1e-12
        assert growth == 1.0


def test_break_even(certificate: Any) -> None:
    """600 s spent, a baseline of 2 ms a step of 0.5 fs, five times faster: 600 / (4 s/ps x 0.8) ps."""
    paid = replace(certificate, timing={"baseline": 2.0, "teacher": 2.0, "student": 0.01}, investment_s=600.0)
    assert abs(paid.break_even_ps(replace(step(8, 0.0), speedup=5.0)) - 600 / (4 * 0.8)) < 1e-9
    assert paid.break_even_ps(replace(step(8, 0.0), speedup=0.9)) is None


def test_the_command(cli: Callable[..., Any], student_file: Path, tmp_path: Path) -> None:
    """A table for each scheme, one sentence, two files of which the page needs no network; repeatable to the last bit."""
    out = tmp_path / "made" / "cadence"
    ask = ["cadence", "--structure", "ethanol", "--teacher", "harmonic", "--student", "morse", "--teacher-calls", "1"]
    done = cli(*ask, "--ensemble", "nve", "--max-outer-fs", "3", "--out", out)
    assert done.code in (0, 1) and done.err == "" and "report: " in done.out
    assert "respa" in done.out and "mollified" in done.out
    assert sorted(p.name for p in out.iterdir()) == ["cadence.html", "cadence.json"]
    told = json.loads((out / "cadence.json").read_text())
    assert told["timing"].keys() == {"teacher", "student", "baseline"}
    assert [s["k"] for s in told["outlooks"][0]["steps"]] == [2, 3, 4, 5, 6]
    assert (done.code == 0) == (told["recommended"] is not None)
    page = (out / "cadence.html").read_text()
    assert "default-src 'none'" in page and not re.search(r"<(script|link|img)[^>]*(src|href)=", page)
    again = cli(*ask, "--ensemble", "nve", "--max-outer-fs", "3", "--no-timing", "--scheme", "respa", "--out", out)
    retold = json.loads((out / "cadence.json").read_text())
    assert again.code == done.code or told["recommended"]["scheme"] == "mollified"
    for a, b in zip(told["outlooks"][0]["steps"], retold["outlooks"][0]["steps"], strict=True):
        assert a["heating"] == b["heating"] and b["speedup"] is None and a["speedup"] > 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ensemble": "npt"}, "ensemble 'npt' is unknown; choose one of: nve, nvt"),
        ({"schemes": ("ghmc",)}, "scheme 'ghmc' has no cadence to predict; choose one of: respa, mollified"),
        ({"timestep_fs": 2.0}, "too long to see X-H stretches"),
        ({"max_outer_fs": 0.5}, "must be 2 to 100 inner steps"),
        ({"max_outer_fs": 60.0, "timestep_fs": 1.0}, "must be at most 50"),
        ({"friction_per_ps": 0.0}, "is no bath; give some friction, or ensemble 'nve'"),
        ({"friction_per_ps": -1.0}, "must not be negative"),
        ({"temperature_K": float("nan")}, "must be a positive number"),
        ({"teacher_calls": 0}, "must be a whole number of at least 1"),
        ({"seed": -1}, "must not be negative"),
    ],
)
def test_settings_that_make_no_sense(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        replace(QUICK, **change)


def test_mistakes_of_the_command(cli: Callable[..., Any], tmp_path: Path, student_file: Path) -> None:
    """One line and code 2, before anything is sampled."""
    from ase.build import bulk
    from ase.io import write

    write(tmp_path / "box.xyz", bulk("Ar", "fcc", 5.3, cubic=True))
    (tmp_path / "file").touch()
    ask = {"--structure": "ethanol", "--teacher": "harmonic", "--student": str(student_file), "--out": tmp_path / "out"}
    for change, words in (
        ({"--structure": tmp_path / "box.xyz", "--student": "lj", "--teacher": "lj"}, "is periodic"),
        ({"--structure": "aspirin"}, "is for C2H6O; the structure is C9H8O4"),
        ({"--teacher": "gfn9"}, "unknown model 'gfn9'"),
        ({"--out": tmp_path / "file"}, "is a file; give a folder"),
        ({"--scheme": "sinr"}, "has no cadence to predict"),
    ):
        said = cli("cadence", *(x for pair in (ask | change).items() for x in pair))
        assert said.code == 2 and re.search(words, said.line), said.line
    assert not (tmp_path / "out").exists()


def test_auto_runs_at_what_is_predicted_and_resumes_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The k of the certificate; frozen in run.json and results.json; taken up, not predicted anew, after a kill."""
    from mlff_sim import validate
    from mlff_sim.runfolder import RunWriter, read_run, read_settings
    from mlff_sim.simulation import Run, RunConfig, run

    monkeypatch.setattr(sys.modules[Run.__module__], "CadenceConfig", partial(CadenceConfig, teacher_calls=1))
    config = RunConfig(
        "ethanol", "harmonic", "morse", k_steps="auto", duration_ps=0.2, friction_per_ps=20, replicas=2, compile=False
    )
    whole = read_run(run(config, tmp_path / "whole"))
    k = whole.settings["k_steps"]
    asked = replace(QUICK, student="morse", schemes=("respa",), friction_per_ps=20.0)
    from mlff_sim.simulation.forecast import predict

    assert k == predict(asked, timing=False).outlooks[0].nvt == whole.settings["cadence"]["predicted"]["k"]
    assert whole.settings["outer_step_fs"] == k / 2 and whole.settings["config"]["k_steps"] == "auto"
    assert validate(tmp_path / "whole")["cadence"]["k_steps"] == k

    class Killed(Exception):
        pass

    written = RunWriter.segment

    def die(self: RunWriter, *arguments: Any) -> None:
        written(self, *arguments)
        if self.count == 3:
            raise Killed

    monkeypatch.setattr(RunWriter, "segment", die)
    with pytest.raises(Killed):
        run(config, tmp_path / "cut")
    monkeypatch.setattr(RunWriter, "segment", written)
    monkeypatch.setattr("mlff_sim.simulation.forecast.Forecast.cadence", lambda *_: pytest.fail("predicted again"))
    cut = read_run(run(config, tmp_path / "cut", resume=True))
    assert np.array_equal(cut.positions, whole.positions) and np.array_equal(cut.conserved, whole.conserved)
    assert read_settings(tmp_path / "cut")["cadence"] == whole.settings["cadence"]


def test_auto_where_nothing_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line that names the verb which explains; nothing is written."""
    from mlff_sim.simulation import Run, RunConfig, run

    strict = partial(CadenceConfig, teacher_calls=1, drift_limit=1e-12)
    monkeypatch.setattr(sys.modules[Run.__module__], "CadenceConfig", strict)
    config = RunConfig("ethanol", "harmonic", "morse", ensemble="nve", k_steps="auto", duration_ps=0.1, compile=False)
    with pytest.raises(InputError, match="no outer step of scheme 'respa' is predicted to hold for nve"):
        run(config, tmp_path / "none")
    assert not (tmp_path / "none").exists()
