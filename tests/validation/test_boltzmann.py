"""Two temperatures: exact harmonic samples pass, a thermostat at 310 K that says 300 K does not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from mlff_sim.units import KB
from mlff_sim.validation import Verdict, ensemble_check
from mlff_sim.validation.sampling import decorrelated

MODES = 57
"""Vibrations of aspirin."""


def harmonic(temperature_K: float, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Potential energies of 57 harmonic modes, kT / 2 each on average: Gamma-distributed, on top of -4000 eV."""
    return -4000.0 + np.random.default_rng(seed).gamma(MODES / 2, KB * temperature_K, shape)


@pytest.mark.parametrize("seed", range(5))
def test_exact_samples_pass(seed: int) -> None:
    """300 and 340 K, 4 x 1000 samples each."""
    check = ensemble_check(harmonic(300, (4, 1000), seed), harmonic(340, (4, 1000), 100 + seed), 300, 340)
    assert check.verdict is Verdict.PASS
    assert abs(check.difference_K - 40.0) < 4 * check.stderr_K


@pytest.mark.parametrize("seed", range(5))
def test_a_thermostat_at_310_K_that_says_300_K_fails(seed: int) -> None:
    """1/kT differs by a quarter less than it should: 30 K rather than 40, more or less."""
    check = ensemble_check(harmonic(310, (4, 1000), seed), harmonic(340, (4, 1000), 100 + seed), 300, 340)
    assert check.verdict is Verdict.FAIL
    # The slope is (1/310 - 1/340) / (1/300 - 1/340) of the law's.
    assert check.difference_K == pytest.approx(40.0 * (1 / 310 - 1 / 340) / (1 / 300 - 1 / 340), abs=4 * check.stderr_K)


def test_error_bars_hold() -> None:
    """The nominal difference lies within 1.96 standard errors in 95 of 100 studies (99.9 % of the binomial)."""
    missed = sum(
        ensemble_check(harmonic(300, (1, 400), s), harmonic(340, (1, 400), 1000 + s), 300, 340).sigmas > 1.96
        for s in range(200)
    )
    least, most = binom.ppf([0.0005, 0.9995], 200, 0.05)
    assert least <= missed <= most


def test_correlated_samples_count_less() -> None:
    """Every sample four times in a row: the standard error is that of the samples, not of the frames."""
    low, high = harmonic(300, (1, 1000), 0), harmonic(340, (1, 1000), 1)
    once = ensemble_check(low, high, 300, 340)
    again = ensemble_check(np.repeat(low, 4, axis=1), np.repeat(high, 4, axis=1), 300, 340)
    assert again.stderr_K == pytest.approx(once.stderr_K, rel=0.25)


def test_slope_and_error_are_those_of_physical_validation() -> None:
    """The fit that physical_validation.ensemble.check ends in, of the same samples of one frame in g."""
    from physical_validation.util.ensemble import do_max_likelihood_fit

    low, high = harmonic(300, (1000,), 0) + 4000.0, harmonic(340, (1000,), 1) + 4000.0
    slope = (1 / 300 - 1 / 340) / KB
    theirs = do_max_likelihood_fit(
        decorrelated(low), decorrelated(high), 1.0, 1.0, init_params=np.array([-3.5, slope]), verbose=False
    )
    mine = ensemble_check(low, high, 300, 340)
    assert mine.difference_K == pytest.approx(40.0 * theirs[0][1] / slope, rel=1e-5)
    assert mine.stderr_K == pytest.approx(40.0 * theirs[1][1] / slope, rel=1e-5)


def test_few_samples_and_no_overlap_are_inconclusive() -> None:
    """Forty samples, one frame, constants; energies of which the highest at 300 K is below the lowest at 1800 K."""
    few = ensemble_check(harmonic(300, (40,), 0), harmonic(340, (40,), 1), 300, 340)
    assert few.verdict is Verdict.INCONCLUSIVE and "Run longer" in few.note
    apart = ensemble_check(harmonic(300, (500,), 0), harmonic(1800, (500,), 1), 300, 1800)
    assert apart.verdict is Verdict.INCONCLUSIVE and "closer" in apart.note
    for e in (np.array([1.0]), np.ones(500)):
        assert ensemble_check(e, e, 300, 340).verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(
    ("low", "t", "message"),
    [
        (np.ones(9), (340, 300), "lower one first"),
        (np.ones(9), (300, 300), "lower one first"),
        (np.full(9, np.nan), (300, 340), "finite"),
        (np.ones(0), (300, 340), "one frame"),
        (np.ones((2, 3, 4)), (300, 340), "frames"),
    ],
)
def test_what_cannot_be_compared_is_refused(low: np.ndarray, t: tuple[float, float], message: str) -> None:
    """Temperatures in the wrong order or equal, NaN, nothing, three axes."""
    with pytest.raises(ValueError, match=message):
        ensemble_check(low, np.arange(9.0), *t)
