"""The page and its plots: parts in order, nothing that a reader cannot read, nothing wider than a phone, all of it for a paper."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from studies import MASSES, NUMBERS, make_run
from test_report import Requests

from mlff_sim.forces import Array
from mlff_sim.report import results, rows, write_report
from mlff_sim.report.figures import figures
from mlff_sim.report.paper import write_figures
from mlff_sim.report.parts import HEADINGS, SECTIONS
from mlff_sim.report.plots import plots
from mlff_sim.report.row import beside, compared, number
from mlff_sim.report.text import ORDER, grouped
from mlff_sim.validation import Assessment, Method, Verdict, assess, certify, match_peaks, step_size_law, vibrations
from mlff_sim.validation.spectra import compare_spectra


def pair(rows: int = 1000) -> tuple[Any, Any]:
    """A hybrid run and plain Verlet from the same starts."""
    fast, slow = (make_run("nve", k, seed=s, rows=rows, teacher="gfn2-xtb") for s, k in enumerate(("hybrid", "md")))
    slow.positions[0] = fast.positions[0]
    return fast, slow


@pytest.fixture(scope="module")
def certificate() -> Assessment:
    """With everything that a certificate holds."""
    return certify(*pair())


def test_rows_stand_in_parts_with_what_failed_first(certificate: Assessment) -> None:
    """Parts in the order of `HEADINGS`, and in each fail, inconclusive, pass, reported; no row is lost."""
    table = grouped(certificate)
    headings = [heading for heading, _ in table]
    assert headings == [h for h in HEADINGS.values() if h in headings]
    assert {"Energy", "Structure", "Against plain Verlet", "Speed"} <= set(headings)
    for _, part in table:
        ranks = [ORDER.index(row.verdict) for row in part]
        assert part and ranks == sorted(ranks)
    assert rows(certificate) == [row for _, part in table for row in part]
    failing = grouped(assess([make_run("nve", drift=1.0), make_run("nvt", seed=4)]))
    assert dict(failing)["Energy"][0].verdict is Verdict.FAIL


@pytest.mark.parametrize(
    "assessment",
    [
        assess([make_run("nvt", rows=2)]),
        assess([make_run("nvt", rows=3, replicas=1)], make_run("nvt", "md", rows=3, replicas=1)),
        assess([make_run("nve", rows=12)], make_run("nve", "md", rows=12, replicas=1)),
        certify(*pair(rows=12)),
    ],
    ids=["two frames", "three frames", "one replica of the reference", "a short certificate"],
)
def test_nothing_reads_nan_or_inf(assessment: Assessment, tmp_path: Path) -> None:
    """What is not known has a word, in the table and on the page."""
    for row in rows(assessment):
        assert not re.search(r"\b(nan|inf)\b", f"{row.value} {row.limit} {row.advice}"), row
    write_report(assessment, tmp_path)
    visible = (tmp_path / "report.html").read_text(encoding="utf-8").split("<script>")[0].split("Provenance")[0]
    assert not re.search(r"\b(nan|inf)\b", visible.split("</style>")[1])


def test_numbers_have_the_digits_that_matter() -> None:
    """A tenth of the limit's first digit, and a dash for what is none."""
    assert beside(0.000103, 0.005) == "0.0001"
    assert beside(0.0166, 0.5) == "0.02"
    assert beside(2.2041, 5.0) == "2.2"
    assert beside(51.7, 10.0) == "52"
    assert beside(float("nan"), 5.0) == number(float("inf")) == number(None) == "-"


def test_every_plot_has_a_section_and_a_place(certificate: Assessment, tmp_path: Path) -> None:
    """What is drawn is on the page, once, under a heading; axes say what they show."""
    drawn = figures(certificate)
    assert list(drawn) == list(SECTIONS)
    write_report(certificate, tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    places = re.findall(r'data-section="(\w+)" data-index="(\d+)"', page)
    assert places == [(section, str(k)) for section, made in drawn.items() for k in range(len(made))]
    assert {"geometry", "verlet", "speed"} <= {section for section, _ in places}
    for section, made in drawn.items():
        for figure in made:
            layout = figure["layout"]
            assert layout["title"]["text"], section
            assert any((layout[axis].get("title") or {}).get("text") for axis in ("xaxis", "yaxis")), section


def test_many_names_stay_readable() -> None:
    """Names stand at the side, each with its line; of very many, those that are off by most."""
    reference = make_run("nvt", "md", rows=1000, seed=9)
    found = assess([make_run("nvt", rows=1000)], reference).runs[0].findings["geometry"]
    first = found.figures[0]  # type: ignore[attr-defined]
    many = 60
    errors = np.linspace(0, 0.01, many)
    names = tuple(f"H{k}-C{k}-C{k + 1}-H{k + 2}" for k in range(many))
    crowded = replace(first, names=names, errors=errors, floors=np.full(many, 0.001))
    (figure, *_) = plots(replace(found, figures=(crowded,)))  # type: ignore[type-var]
    shown = figure["data"][0]["y"]
    assert figure["layout"]["height"] / len(shown) > 16
    assert len(shown) == 24 and set(shown) == set(names[-24:])
    assert figure["layout"]["title"]["text"].endswith("24 of 60")


def spectrum(shift: float, seed: int) -> Any:
    """Two lines, at 1000 and 1800 1/cm times `shift`, of many independent phases."""
    rng = np.random.default_rng(seed)
    time_ps = 0.001 * np.arange(6000)
    cycles = 0.0299792458 * shift * np.array([1000.0, 1800.0])  # 1/ps
    phases = rng.uniform(0, 2 * np.pi, (8, len(NUMBERS), 3, 2))
    waves: Array = np.cos(2 * np.pi * cycles * time_ps[:, None, None, None, None] + phases).sum(axis=-1)
    return vibrations(waves + 1e-3 * rng.standard_normal(waves.shape), MASSES, NUMBERS, time_ps, 0.5)


def test_spectra_and_their_lines_are_drawn() -> None:
    """Run above reference on one axis; a line that lies 2 % too high stands at 2 %."""
    run, reference = spectrum(1.02, 0), spectrum(1.0, 1)
    (density,) = plots(compare_spectra(run, reference))
    assert [trace["name"] for trace in density["data"]] == ["reference", "run"]
    tops = [trace["x"][int(np.argmax(trace["y"]))] for trace in density["data"]]
    assert all(min(abs(top / s - w) for w in (1000, 1800)) < 15 for top, s in zip(tops, (1.0, 1.02), strict=True))
    (lines,) = plots(match_peaks(run, reference))
    assert np.allclose(lines["data"][0]["y"], 2.0, atol=0.2)


def test_methods_stand_side_by_side(certificate: Assessment) -> None:
    """Slowest first; the bars are the medians of the blocks that alternated, and both have an error to be seen at."""
    assert [m.name for m in certificate.methods] == ["hybrid-nve", "md-nve"]
    *_, bars, accuracy = figures(certificate)["speed"]
    fast = pair()[0]
    assert bars["data"][0]["y"] == ["md-nve", "hybrid-nve"]
    medians = [np.median(fast.wall[f"block_{k}_s_per_ps"]) for k in ("baseline", "hybrid")]
    assert bars["data"][0]["x"] == pytest.approx(medians, rel=1e-4)
    assert sorted(name for trace in accuracy["data"] for name in trace["text"]) == ["hybrid-nve", "md-nve"]
    alone = replace(certificate, methods=(Method("one", np.ones(3)),))
    assert len(figures(alone)["speed"]) == len(figures(certificate)["speed"]) - 2


def test_when_it_pays_has_an_interval() -> None:
    """300 s over 1.4 s saved a ps; where the run may be the slower one, the interval ends at never, and JSON has null."""
    content = results(assess([make_run("nvt")]))["speedup"]
    low, high = content["break_even_ci95"]
    assert low < content["break_even_ps"] < high and low > 200 and high < 230
    slow = make_run("nvt")
    slow.wall["block_hybrid_s_per_ps"] = np.array([1.5, 1.6, 1.9, 1.5, 2.0, 1.4])
    assessment = assess([slow])
    (row,) = [r for r in rows(assessment) if r.quantity == "Pays for itself after"]
    assert row.value.endswith("to never)")
    assert results(assessment)["speedup"]["break_even_ci95"][1] is None


def test_unknown_noise_is_said() -> None:
    """One replica of the reference does not know by how much two of its kind would differ."""
    assert compared(140.0, float("inf"), float("inf"), 5.0, " %") == "140.0 % (what sampling alone shows is not known)"


def test_runs_of_one_name_are_told_apart() -> None:
    """Two folders may be called alike."""
    names = [m.name for m in assess([make_run("nvt"), make_run("nvt", seed=1)]).methods]
    assert names == ["hybrid-nvt (1)", "hybrid-nvt (2)", "teacher alone"]


def test_nothing_is_wider_than_a_phone(certificate: Assessment, tmp_path: Path) -> None:
    """No width in pixels above 330 but on paper, cells that break anywhere, and plots that follow the window."""
    write_report(certificate, tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert 'name="viewport" content="width=device-width' in page
    (styles,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    wide = [float(w) for w in re.findall(r"(?<!max-)(?<!min-)\bwidth: ([\d.]+)px", styles)]
    assert all(w <= 330 for w in wide)
    assert "td, th { overflow-wrap: anywhere; }" in styles
    assert "minmax(min(100%, 27rem), 1fr)" in styles and re.search(r"\.plot \{[^}]*min-width: 0", styles)
    assert re.search(r"pre \{[^}]*overflow-x: auto", styles)
    narrow = styles[styles.index("@media (max-width: 44rem)") :]
    assert re.search(r"table, tbody, tr, td, th \{ display: block; width: 100%; \}", narrow)
    assert "responsive: true" in page
    drawn = json.loads(re.findall(r'id="figures">(.*?)</script>', page, re.DOTALL)[0])
    assert not [f for made in drawn.values() for f in made if "width" in f["layout"]]


def test_a_certificate_makes_no_request(certificate: Assessment, tmp_path: Path) -> None:
    """Nor does it weigh more than a mail may."""
    write_report(certificate, tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    parser = Requests()
    parser.feed(page)
    assert parser.found == [] and "default-src 'none'" in parser.policy
    assert len(page.encode()) < 6_000_000


def test_figures_for_a_paper_show_all_of_it(certificate: Assessment, tmp_path: Path) -> None:
    """matplotlib draws every plot of the page, also those with names at the side."""
    law = step_size_law([0.25, 0.5, 1.0], [s * np.random.default_rng(0).standard_normal((5, 400)) for s in (1, 4, 16)])
    drawn = {**figures(certificate), "steps": plots(law)}
    written = write_figures(drawn, tmp_path)
    assert len(written) == sum(len(made) for made in drawn.values())
    assert all(path.read_bytes().startswith(b"%PDF") for path in written)
