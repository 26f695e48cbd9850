"""Drift: the planted slope comes back, and the 95 % interval misses it in 5 of 100 runs, whatever the noise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import lfilter
from scipy.stats import binom

from mlff_sim.validation import Verdict, nve_drift, worst

TIMES = 0.01 * np.arange(400)
ATOMS = 9


def noise(kind: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """White noise, AR(1) noise with a correlation time of 50 frames, or a random walk; eV."""
    white = 1e-3 * rng.standard_normal(shape)
    if kind == "white":
        return white
    return lfilter([1.0], [1.0, -0.98 if kind == "ar1" else -1.0], white, axis=-1)


def test_a_planted_slope_is_found_exactly() -> None:
    """A straight line has one slope, whatever the offset of the total energy."""
    drift = nve_drift(TIMES, -4000.0 + 1e-3 * ATOMS * 0.25 * TIMES * np.ones((5, 1)), ATOMS)
    # Rounding of 4000 eV in float64 (9e-13) over 4 ps and 9 atoms: 3e-11 meV/atom/ps.
    assert drift.slope == pytest.approx(0.25, abs=1e-9)
    assert drift.slopes == pytest.approx([0.25] * 5, abs=1e-9)
    assert drift.verdict is Verdict.FAIL


def test_replicas_that_drift_apart_are_not_averaged_away() -> None:
    """Slopes of +1 and -1 have a mean of 0 and an interval that says so."""
    slopes = np.array([1.0, -1.0, 1.0, -1.0, 0.0])
    drift = nve_drift(TIMES, 1e-3 * ATOMS * slopes[:, None] * TIMES, ATOMS)
    assert drift.slope == pytest.approx(0.0, abs=1e-9)
    assert drift.ci95[1] == pytest.approx(
        2.7764 * 1.0 / np.sqrt(5), rel=1e-4
    )  # t(0.975, 4) and a sample deviation of 1
    assert drift.verdict is Verdict.INCONCLUSIVE
    assert "run longer" in drift.note


@pytest.mark.parametrize("kind", ["white", "ar1", "walk"])
@pytest.mark.parametrize("replicas", [5, 2])
def test_false_alarms_of_replicas_are_nominal(kind: str, replicas: int) -> None:
    """Zero lies outside the interval in 5 % of studies without drift: within the central 99.9 % of the binomial."""
    rng = np.random.default_rng(1)
    studies = 400
    alarms = 0
    for energies in noise(kind, (studies, replicas, len(TIMES)), rng):
        low, high = nve_drift(TIMES, energies, ATOMS).ci95
        alarms += not low <= 0.0 <= high
    least, most = binom.ppf([0.0005, 0.9995], studies, 0.05)
    assert least <= alarms <= most


@pytest.mark.parametrize("kind", ["white", "ar1", "walk"])
def test_false_alarms_of_one_replica_are_at_most_nominal(kind: str) -> None:
    """The interval of block increments is built for the worst case, a random walk."""
    rng = np.random.default_rng(2)
    studies = 400
    alarms = sum(
        not d.ci95[0] <= 0.0 <= d.ci95[1]
        for d in (nve_drift(TIMES, e, ATOMS) for e in noise(kind, (studies, len(TIMES)), rng))
    )
    assert alarms <= binom.ppf(0.9995, studies, 0.05)


def test_least_squares_error_bars_would_have_failed_here() -> None:
    """The same AR(1) noise with the textbook error bar of one fit: the test above can fail, and this is how."""
    rng = np.random.default_rng(2)
    alarms = 0
    t = TIMES - TIMES.mean()
    for e in noise("ar1", (400, len(TIMES)), rng):
        slope = e @ t / (t @ t)
        residual = e - e.mean() - slope * t
        alarms += abs(slope) > 1.96 * np.sqrt(residual @ residual / (len(t) - 2) / (t @ t))
    assert alarms > binom.ppf(0.9995, 400, 0.05)


def test_one_replica_sees_a_large_drift() -> None:
    """1 meV/atom/ps over 4 ps in noise of 0.1 meV/atom is found, and the interval covers it."""
    rng = np.random.default_rng(3)
    drift = nve_drift(TIMES, 1e-3 * ATOMS * (TIMES + 0.1 * rng.standard_normal(len(TIMES))), ATOMS)
    assert drift.verdict is Verdict.FAIL
    assert drift.ci95[0] < 1.0 < drift.ci95[1]


@pytest.mark.parametrize(
    ("energies", "message"),
    [(np.zeros((2, 3)), "do not fit"), (np.full((2, 400), np.nan), "finite"), (np.zeros((3, 2, 400)), "do not fit")],
)
def test_what_cannot_be_fitted_is_refused(energies: np.ndarray, message: str) -> None:
    """Shapes that do not fit and energies that are not numbers."""
    with pytest.raises(ValueError, match=message):
        nve_drift(TIMES, energies, ATOMS)


def test_worst_of_verdicts() -> None:
    """Fail over inconclusive over pass; nothing judged is inconclusive."""
    assert worst([Verdict.PASS, None, Verdict.FAIL, Verdict.INCONCLUSIVE]) is Verdict.FAIL
    assert worst([Verdict.PASS, Verdict.INCONCLUSIVE]) is Verdict.INCONCLUSIVE
    assert worst([None, Verdict.PASS]) is Verdict.PASS
    assert worst([None]) is Verdict.INCONCLUSIVE
