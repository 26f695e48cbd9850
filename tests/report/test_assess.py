"""Run folders in, one assessment out: what is judged where, and what a run that ended badly does to it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from studies import NUMBERS, FakeRun, make_run

from mlff_sim.errors import InputError
from mlff_sim.report import results
from mlff_sim.report.html import render
from mlff_sim.validation import Verdict, assess, load_reference, reference_of


@pytest.fixture(scope="module")
def teacher() -> FakeRun:
    """All-teacher NVT reference of the same made-up molecule."""
    return make_run("nvt", "md", rows=2000, replicas=8, seed=9)


def test_a_sound_study_passes(teacher: FakeRun) -> None:
    """Temperature and structure from the NVT run, drift from the NVE run, speed from the NVT run."""
    a = assess([make_run("nve", seed=1), make_run("nvt", rows=2000)], teacher)
    assert a.verdict is Verdict.PASS
    nve, nvt = a.runs
    assert nve.parts == {"ended": None, "nve": Verdict.PASS, "temperature": None, "rdf": None, "ghmc": None}
    judged = dict.fromkeys(("temperature", "rdf", "geometry"), Verdict.PASS)
    assert nvt.parts == {"ended": None, "nve": None, "ghmc": None} | judged
    assert a.main is nvt
    assert a.notes == ()
    assert nvt.speed is not None
    assert nvt.speed.investment_s == 300.0
    assert nvt.speed.break_even_ps == pytest.approx(300.0 / (1.7 - 0.3), rel=0.1)
    assert sum(nvt.speed.split_s_per_ps.values()) == pytest.approx(0.3, rel=0.1)


def test_a_drifting_run_fails_the_study(teacher: FakeRun) -> None:
    """1 meV/atom/ps, ten times the limit; a wider limit lets it pass."""
    runs = [make_run("nvt", rows=2000), make_run("nve", drift=1.0)]
    assert assess(runs, teacher).verdict is Verdict.FAIL
    assert assess(runs, teacher, drift_limit=2.0).verdict is Verdict.PASS


def test_a_stopped_run_fails_and_says_why() -> None:
    """Its last frame is not finite and is left out; the rule is in the note."""
    stop = {"rule": "finite forces", "step": 77, "replica": 2, "atom": 4, "detail": "not a number"}
    run = make_run("nve", rows=50, status="stopped", stop=stop)
    run.positions[-1, 2, 4] = np.nan
    (judged,) = assess([run]).runs
    assert judged.verdict is Verdict.FAIL
    assert "finite forces" in judged.notes[0]
    assert "atom 4" in judged.notes[0]
    assert len(judged.time_ps) == 49


def test_a_run_that_stopped_at_once_is_still_assessed() -> None:
    """One frame: nothing can be judged but the stop itself."""
    stop = {"rule": "temperature", "step": 1, "replica": 0, "atom": 0, "detail": "hot"}
    for rows in (0, 1):
        for ensemble in ("nve", "nvt"):
            a = assess([make_run(ensemble, rows=rows, status="stopped", stop=stop)])
            assert a.verdict is Verdict.FAIL
            assert a.runs[0].temperatures is None
            assert results(a)["residual"] is None or rows
            assert "stopped" in render(a)


def test_nothing_to_judge_is_inconclusive() -> None:
    """A study of one NVE frame; the notes say what would settle it."""
    a = assess([make_run("nve", rows=2)])
    assert a.verdict is Verdict.INCONCLUSIVE
    assert any("Energy drift was not judged: 2 frames" in n for n in a.runs[0].notes)
    assert any("reference" in n for n in a.notes)


def test_equilibration_is_left_out() -> None:
    """A bath of 1/ps forgets in 3 ps; a fifth of 10 ps is the most that is cut; 5 ps unrecorded spare the rest."""
    cold = make_run("nvt", rows=1000, equilibrate_ps=0.0)
    cold.momenta[:150] *= 0.5
    (judged,) = assess([cold]).runs
    assert judged.cut_ps == pytest.approx(2.0, abs=0.02)
    assert judged.verdict is Verdict.PASS
    cold.settings["equilibrate_ps"] = 5.0
    (judged,) = assess([cold]).runs
    assert judged.cut_ps == 0.0
    assert judged.temperatures.total.verdict is Verdict.INCONCLUSIVE  # a drifting temperature is worth few samples
    assert (
        judged.temperatures.distribution.verdict is Verdict.FAIL
    )  # 15 % of the frames at 75 K are no Gamma distribution


def test_structure_in_nve_only_where_there_is_no_nvt(teacher: FakeRun) -> None:
    """And a reference of the same system that was stored does what the run itself does."""
    nve = make_run("nve", rows=2000, seed=4)
    assert assess([nve], teacher).runs[0].rdf is not None
    assert assess([nve, make_run("nvt", rows=500)], teacher).runs[0].rdf is None


def test_a_stored_reference_is_the_run_it_came_from(teacher: FakeRun, tmp_path: Path) -> None:
    """To the rounding of float32."""
    reference_of(teacher).save(tmp_path / "reference.npz")
    run = make_run("nvt", rows=500)
    live = assess([run], teacher).runs[0].rdf
    stored = assess([run], load_reference(tmp_path / "reference.npz")).runs[0].rdf
    assert live is not None
    assert stored is not None
    assert stored.error_percent == pytest.approx(live.error_percent, rel=1e-5)
    assert stored.noise_percent == pytest.approx(live.noise_percent, rel=1e-5)


def test_another_molecule_is_refused(teacher: FakeRun) -> None:
    """The same atoms under other names."""
    run = make_run("nvt", rows=100)
    run.settings["structure"]["numbers"] = np.where(NUMBERS == 8, 7, NUMBERS).tolist()
    with pytest.raises(InputError, match="not the same molecule"):
        assess([run], teacher)


def test_no_runs() -> None:
    """An empty list is a mistake, not a verdict."""
    with pytest.raises(ValueError, match="no run"):
        assess([])


def test_runs_of_one_ensemble_pool_to_a_reference_as_their_replicas_would() -> None:
    parts = [make_run(seed=s, replicas=2, rows=400) for s in (1, 2)]
    together = replace(parts[0], positions=np.concatenate([p.positions for p in parts], axis=1))
    pooled, whole = reference_of(*parts), reference_of(together)
    assert pooled.sampled_ps == pytest.approx(whole.sampled_ps)
    for pair in whole.blocks:
        np.testing.assert_allclose(pooled.mean(pair), whole.mean(pair), atol=1e-12)


def test_runs_of_different_ensembles_do_not_pool() -> None:
    with pytest.raises(InputError, match="temperature_K"):
        reference_of(make_run(rows=100), make_run(rows=100, seed=2, temperature_K=350.0))
    first, other = make_run(rows=100), make_run(rows=100, seed=2)
    other.settings["scheme"] = "ghmc"
    with pytest.raises(InputError, match="scheme"):
        reference_of(first, other)
