"""results.json under the promised names, and a page from which no request leaves."""

from __future__ import annotations

import html
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from studies import make_run

from mlff_sim.report import headline, print_table, results, rows, write_report
from mlff_sim.report.results import write_text
from mlff_sim.validation import Assessment, Verdict, assess

PROMISED = (
    "verdict",
    "speedup.measured",
    "speedup.predicted",
    "speedup.baseline_timestep_fs",
    "speedup.ci95",
    "speedup.measured_vs_1fs",
    "speedup.break_even_ps",
    "timing.teacher_ms",
    "timing.student_inner_us",
    "teacher_calls",
    "outer_step_fs",
    "nve.slope_meV_per_atom_ps",
    "nve.ci95",
    "nve.limit",
    "nve.verdict",
    "nve.slopes",
    "nve.outer_step_fs",
    "rdf.error_percent",
    "rdf.noise_percent",
    "rdf.noise95_percent",
    "rdf.limit",
    "rdf.verdict",
    "rdf.by_pair",
    "temperature_K.by_element",
    "temperature_K.mean",
    "temperature_K.stderr_by_element",
    "temperature_K.target",
    "temperature_K.verdict",
    "residual.force_mae_meV_per_A",
    "student.force_mae_meV_per_A",
    "runs",
)


def look_up(content: dict[str, Any], name: str) -> Any:
    """Follow a dotted name."""
    for part in name.split("."):
        content = content[part]
    return content


@pytest.fixture(scope="module")
def study() -> Assessment:
    """A hybrid study of an NVT and an NVE run against a teacher's."""
    return assess(
        [make_run("nvt", rows=2000), make_run("nve", seed=1)], make_run("nvt", "md", rows=2000, replicas=8, seed=9)
    )


@pytest.fixture(scope="module")
def plain() -> Assessment:
    """One NVE run of the teacher alone, no reference."""
    return assess([make_run("nve", "md", seed=2)])


def test_every_promised_name_is_there(study: Assessment) -> None:
    """With a value, and the values are those of the assessment."""
    content = results(study)
    for name in PROMISED:
        assert look_up(content, name) is not None, name
    nvt, nve = study.runs
    assert nve.drift is not None
    assert nvt.speed is not None
    assert nvt.speed.measured is not None
    assert content["verdict"] == "pass"
    assert content["nve"]["ci95"] == list(nve.drift.ci95)
    assert content["speedup"]["measured"] == nvt.speed.measured.value
    assert content["speedup"]["measured_vs_1fs"] == pytest.approx(content["speedup"]["measured"] / 2)
    assert content["residual"]["force_mae_meV_per_A"] == pytest.approx(5.0, abs=0.1)  # the runs were made with 5 meV/A
    assert content["student"]["force_mae_meV_per_A"] == 4.6
    assert set(content["temperature_K"]["by_element"]) == {"C", "O", "H"}
    assert [r["name"] for r in content["runs"]] == ["hybrid-nvt", "hybrid-nve"]


def test_what_does_not_apply_is_null(plain: Assessment) -> None:
    """Plain NVE dynamics has no speed, no student, no bath and here no reference."""
    content = results(plain)
    for name in ("speedup", "timing", "rdf", "residual", "student", "teacher_calls"):
        assert content[name] is None, name
    assert content["temperature_K"]["verdict"] is None
    assert content["nve"]["verdict"] == "pass"
    assert results(assess([make_run("nvt", rows=100)]))["nve"] is None


def test_json_is_strict(tmp_path: Path) -> None:
    """Two replicas that agree have an interval of zero; one that cannot be judged is null, never NaN."""
    run = make_run("nvt", rows=3)
    run.settings["timing"]["baseline_teacher_ms"] = float("nan")
    write_report(assess([run]), tmp_path)

    def refuse(word: str) -> None:
        raise AssertionError(word)

    content = json.loads((tmp_path / "results.json").read_text(), parse_constant=refuse)
    assert content["timing"]["baseline_teacher_ms"] is None


class Requests(HTMLParser):
    """Collects every attribute that would make a browser fetch something."""

    def __init__(self) -> None:
        """Nothing found yet."""
        super().__init__()
        self.found: list[tuple[str, str]] = []
        self.policy = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Look at one element."""
        values = dict(attrs)
        if values.get("http-equiv") == "Content-Security-Policy":
            self.policy = values["content"] or ""
        self.found += [(tag, v or "") for k, v in attrs if k in {"src", "href", "srcset", "data", "action", "poster"}]


def test_the_page_is_self_contained(study: Assessment, tmp_path: Path) -> None:
    """No element fetches, the policy forbids it to scripts, styles import nothing, and it fits in a mail."""
    write_report(study, tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    parser = Requests()
    parser.feed(page)
    assert parser.found == []
    assert "default-src 'none'" in parser.policy
    assert "http" not in parser.policy
    styles = "".join(re.findall(r"<style>(.*?)</style>", page, re.DOTALL))
    assert styles
    assert "url(" not in styles
    assert "@import" not in styles
    assert len(page.encode()) < 6_000_000
    assert sorted(p.name for p in tmp_path.iterdir()) == ["report.html", "results.json"]


def test_the_page_says_what_the_terminal_says(study: Assessment, tmp_path: Path) -> None:
    """Every row of the table is on the page and in the terminal."""
    write_report(study, tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    stream = io.StringIO()
    print_table(study, Console(file=stream, width=400))
    shown = html.unescape(re.sub(r"<[^>]*>", "", page.split("<script>")[0]))
    for row in rows(study):
        assert all(part in shown for part in (row.quantity, row.value, row.limit, row.advice))
        assert row.value in stream.getvalue()
    assert "PASS: Same physics" in stream.getvalue()


def test_figures_carry_the_data(study: Assessment, tmp_path: Path) -> None:
    """The drift line of the figure has the slope of the verdict, and every element pair has its plot."""
    write_report(study, tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    data = re.search(r'<script type="application/json" id="figures">(.*?)</script>', page, re.DOTALL)
    assert data is not None
    plots = json.loads(data.group(1))
    drift = study.runs[1].drift
    assert drift is not None
    line = next(t for t in plots["energy"][0]["data"] if t["name"].startswith("drift"))
    assert np.diff(line["y"])[0] / np.diff(line["x"])[0] == pytest.approx(drift.slope, rel=1e-3)
    assert len(plots["structure"]) == len({"C-C", "C-O", "C-H", "H-O", "H-H"})
    assert {"energy", "temperature", "structure", "geometry", "speed", "residual"} == {k for k, v in plots.items() if v}


def test_names_from_outside_cannot_run_as_code(tmp_path: Path) -> None:
    """A file name with markup in it stays text, in the page and in the figures."""
    run = make_run("nve")
    evil = type(run)(**{**vars(run), "folder": Path("</script><script>alert(1)<")})
    write_report(assess([evil, make_run("nvt")]), tmp_path)
    assert "<script>alert(1)" not in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_failing_study_advises(tmp_path: Path) -> None:
    """Drift of ten limits: the words change with the verdict, and each failed row says what to do."""
    a = assess([make_run("nve", drift=1.0)])
    assert results(a)["verdict"] == "fail"
    (row,) = [r for r in rows(a) if r.verdict is Verdict.FAIL]
    assert "outer step" in row.advice
    write_report(a, tmp_path)
    assert "Not the same physics" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_pass_claims_no_more_than_was_judged(study: Assessment, plain: Assessment) -> None:
    """The same physics needs energy, temperature and structure; what is missing is named."""
    assert headline(study)[0] == "Same physics"
    title, sentence = headline(plain)
    assert title == "Sound, as far as judged"
    assert "Not judged: temperature, structure." in sentence


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    """Whole or not at all, and no temporary file stays."""
    file = tmp_path / "results.json"
    file.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        write_text(file, "\ud800")
    assert file.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]
