"""Convergence: where equilibration ends, what the rest is worth, and no verdict under 50 samples."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from scipy.signal import lfilter

from mlff_sim.validation import Verdict, convergence
from mlff_sim.validation.sampling import decorrelated, silent_pymbar


def ar1(tau: float, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Stationary AR(1) noise of unit variance with a correlation time in frames."""
    a = np.exp(-1.0 / tau)
    white = np.random.default_rng(seed).standard_normal(shape) * np.sqrt(1.0 - a * a)
    white[..., 0] /= np.sqrt(1.0 - a * a)
    return lfilter([1.0], [1.0, -a], white, axis=-1)


@pytest.mark.parametrize("seed", range(3))
def test_a_stationary_series_is_kept_and_counted(seed: int) -> None:
    """AR(1): g = (1 + a) / (1 - a) = 20 at tau = 10; four standard errors of 8 % (Madras & Sokal 1988, see test_ensemble)."""
    found = convergence(ar1(10.0, (4, 10_000), seed))
    assert found.inefficiency == pytest.approx(1 / np.tanh(0.05), rel=0.32)
    assert found.start <= 0.25 * 10_000
    assert found.verdict is Verdict.PASS
    assert found.samples == pytest.approx(4 * (10_000 - found.start) / found.inefficiency)


@pytest.mark.parametrize("seed", range(3))
def test_equilibration_is_left_out(seed: int) -> None:
    """A start 20 deviations off that decays over 100 frames: after 300 frames one deviation is left."""
    decay = 20.0 * np.exp(-np.arange(4000) / 100)
    found = convergence(ar1(2.0, (4, 4000), seed) + decay)
    assert 300 <= found.start <= 1000
    assert found.verdict is Verdict.PASS


def test_replicas_that_disagree_are_worth_little() -> None:
    """Each converged within itself, about different means: slow correlation, not many samples."""
    series = ar1(2.0, (4, 4000), 0) + np.array([[-5.0], [-2.0], [2.0], [5.0]])
    assert convergence(series).verdict is Verdict.INCONCLUSIVE


def test_too_few_samples_say_what_would_settle_it() -> None:
    """2000 frames with a correlation time of 100 are 10 samples: five times as long."""
    found = convergence(ar1(100.0, (2000,), 0))
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "times as long" in found.note


@pytest.mark.parametrize("series", [np.ones(100), np.ones((3, 100)), np.ones(1)])
def test_what_never_changes_is_one_sample(series: np.ndarray) -> None:
    """No division by zero."""
    assert convergence(series).samples == 1.0


@pytest.mark.parametrize("series", [[], np.ones((2, 0)), np.full(10, np.nan), np.ones((2, 2, 2))])
def test_what_is_no_series_is_refused(series: np.ndarray) -> None:
    """Empty, not finite, three axes."""
    with pytest.raises(ValueError, match="series"):
        convergence(series)


def test_decorrelated_frames_are_independent() -> None:
    """Neighbours among one in g correlate by exp(-g / tau) = 0.13: four standard errors of 400 are 0.2."""
    thin = decorrelated(ar1(10.0, (1, 8000), 0))
    assert abs(np.corrcoef(thin[1:], thin[:-1])[0, 1]) < np.exp(-2.0) + 4 / np.sqrt(len(thin))


def test_loggers_are_left_as_they_were() -> None:
    """The advertisements of pymbar are silenced while it is imported, and nothing else."""
    logger = logging.getLogger("pymbar")
    before = logger.level
    with silent_pymbar():
        assert logger.level == logging.ERROR
    assert logger.level == before
