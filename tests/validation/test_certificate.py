"""The certificate: intervals that hold, faults that are named, and a control that can spoil it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))

from studies import MASSES, NUMBERS, make_run

from mlff_sim.errors import InputError
from mlff_sim.validation import Verdict, certify
from mlff_sim.validation.certificate import difference


def pair(ensemble: str = "nve", **changes: Any) -> tuple[Any, Any]:
    """A fast and a slow run of one physics from the same starts, 20 ps of 5 replicas."""
    fast = make_run(ensemble, "hybrid", seed=1, teacher="gfn2-xtb", rows=2000, **changes)
    slow = make_run(ensemble, "md", seed=2, teacher="gfn2-xtb", rows=2000)
    slow.positions[0] = fast.positions[0]
    return fast, slow


def test_intervals_hold_together() -> None:
    """Bonferroni over six comparisons of equal means: any interval misses zero in at most 5 % (+3 sigma of 2000 trials).

    Pairs share what their start gives them, which the pairing takes out: the width does not know of it.
    """
    rng = np.random.default_rng(0)
    trials, together, missed, widths = 2000, 6, 0, []
    for _ in range(trials):
        shared = 10.0 * rng.standard_normal(5)
        found = [
            difference(
                "x", "K", shared + rng.standard_normal(5), shared + rng.standard_normal(5), 1.0, together=together
            )
            for _ in range(together)
        ]
        missed += any(d.ci95[0] > 0 or d.ci95[1] < 0 for d in found)
        widths.append(found[0].ci95[1] - found[0].ci95[0])
    assert missed / trials < 0.05 + 3 * np.sqrt(0.05 * 0.95 / trials)
    assert missed / trials > 0.02, "intervals that never miss are too wide"
    assert np.median(widths) < 10.0


def test_one_physics_passes() -> None:
    found = certify(*pair())
    run = found.runs[0]
    assert run.findings["differences"].verdict is Verdict.PASS
    assert run.findings["control"].verdict is None and "breaks none" in run.findings["control"].note
    assert run.drift is not None and run.drift.verdict is Verdict.PASS
    # Made-up momenta have no memory, hence no lines: the one thing that cannot be judged.
    judged = {name: v for name, v in run.parts.items() if name != "lines" and v is not None}
    assert set(judged) == {"nve", "rdf", "geometry", "differences"} and set(judged.values()) == {Verdict.PASS}


def test_hot_hydrogens_are_found_though_the_mean_is_right() -> None:
    """Hydrogens 20 % hot, carbon and oxygen cold by what keeps the total: fails by element, not by the total."""
    fast, slow = pair()
    hydrogens = NUMBERS == 1
    kinetic = (fast.momenta**2 / MASSES[:, None]).sum(axis=(0, 1, 3))
    fast.momenta[..., hydrogens, :] *= np.sqrt(1.2)
    fast.momenta[..., ~hydrogens, :] *= np.sqrt(1 - 0.2 * kinetic[hydrogens].sum() / kinetic[~hydrogens].sum())
    items = {d.name: d for d in certify(fast, slow).runs[0].findings["differences"].items}
    assert items["kinetic temperature of H"].verdict is Verdict.FAIL
    assert items["kinetic temperature"].verdict is Verdict.PASS


def test_a_drift_fails() -> None:
    assert certify(*pair(drift=0.5)).verdict is Verdict.FAIL


def test_a_control_that_fails_certifies_nothing() -> None:
    fast, slow = pair()
    slow.conserved[:] += 0.006 * slow.time_ps[:, None]  # 1 meV/atom/ps
    found = certify(fast, slow)
    control = found.runs[0].findings["control"]
    assert control.verdict is Verdict.INCONCLUSIVE and "its energy drifts" in control.note
    assert found.verdict is Verdict.INCONCLUSIVE


def test_a_bath_is_the_better_reference() -> None:
    """At constant temperature elements are held to the bath, and differences are only reported."""
    differences = certify(*pair("nvt")).runs[0].findings["differences"]
    assert differences.verdict is None and {d.limit for d in differences.items} == {None}


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda f, s: (s, f), "hybrid run with a run of its teacher alone"),
        (lambda f, s: (f, make_run("nvt", "md", teacher="gfn2-xtb")), "differ in ensemble"),
        (lambda f, s: (f, make_run("nve", "md", teacher="mace:x")), "differ in teacher"),
        (lambda f, s: (f, make_run("nve", "md", teacher="gfn2-xtb", replicas=4)), "differ in replicas"),
        (lambda f, s: (f, make_run("nve", "md", teacher="gfn2-xtb", seed=9)), "do not start at the same positions"),
    ],
)
def test_what_cannot_be_compared_is_refused(spoil: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        certify(*spoil(*pair()))


@pytest.mark.parametrize(("a", "b"), [([1.0], [1.0]), ([1.0, 2.0], [1.0]), ([[1.0, 2.0]], [[1.0, 2.0]])])
def test_no_pairs_are_refused(a: Any, b: Any) -> None:
    with pytest.raises(ValueError, match="no pairs"):
        difference("x", "K", np.array(a), np.array(b), None)


def test_noise_has_no_lines() -> None:
    """Momenta without memory have a flat spectrum: no lines are judged, and that alone fails nothing."""
    run = certify(*pair()).runs[0]
    assert run.findings["lines"].verdict is Verdict.INCONCLUSIVE
    assert run.findings["vibrations"].verdict is None
