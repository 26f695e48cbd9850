"""Temperatures: the canonical ensemble passes, a hot element does not, and a short run says that it cannot tell."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import lfilter

from mlff_sim.state import maxwell_boltzmann
from mlff_sim.validation import Temperatures, Verdict, kinetic_temperatures
from mlff_sim.validation.sampling import statistical_inefficiency

NUMBERS = np.array([6, 6, 8, 1, 1, 1, 1, 1, 1])
MASSES = np.array([12.011, 12.011, 15.999, 1.008, 1.008, 1.008, 1.008, 1.008, 1.008])


def momenta(frames: int, *, com: bool, seed: int = 0) -> np.ndarray:
    """Independent canonical momenta at 300 K, shape (frames, 4, 9, 3)."""
    rng = np.random.default_rng(seed)
    return np.array([[maxwell_boltzmann(MASSES, 300.0, rng, remove_com=com) for _ in range(4)] for _ in range(frames)])


@pytest.mark.parametrize("com", [False, True])
def test_maxwell_boltzmann_passes(com: bool) -> None:
    """Every mean within 4 exact standard errors, and the estimated ones right."""
    frames = 1500
    result = kinetic_temperatures(momenta(frames, com=com), MASSES, NUMBERS, 300.0, com)
    assert result.verdict is Verdict.PASS
    shares = {name: MASSES[[z == {"C": 6, "O": 8, "H": 1}[name] for z in NUMBERS]] for name in result.by_element}
    for name, group in result.by_element.items():
        # Momenta over sqrt(mass) have the covariance kT (1 - s s^T / M), s = sqrt(mass); T is its mean square.
        s = np.sqrt(shares[name])
        a = np.eye(len(s)) - com * np.outer(s, s) / MASSES.sum()
        exact = 300.0 * np.sqrt(2 * np.trace(a @ a) / np.trace(a) ** 2 / 3 / (4 * frames))
        assert abs(group.mean_K - 300.0) < 4 * exact
        # g sums 10 lags of a correlation that is zero, each known to 1 / sqrt(6000): g = 1 +- 0.08, never below 1.
        assert 0.95 * exact < group.stderr_K < 1.15 * exact


def test_forgetting_the_fixed_momentum_is_caught() -> None:
    """Counting 27 degrees of freedom where 24 move reads 11 % low: the test above can fail."""
    result = kinetic_temperatures(momenta(1500, com=True), MASSES, NUMBERS, 300.0, False)
    assert result.total.mean_K == pytest.approx(300.0 * 24 / 27, rel=0.02)
    assert result.verdict is Verdict.FAIL


def test_hot_hydrogens_fail_and_are_named() -> None:
    """Hydrogens 10 % hot, the rest right."""
    p = momenta(1500, com=False)
    p[:, :, NUMBERS == 1] *= np.sqrt(1.1)
    result = kinetic_temperatures(p, MASSES, NUMBERS, 300.0, False)
    assert {name: g.verdict for name, g in result.by_element.items()} == {
        "C": Verdict.PASS,
        "O": Verdict.PASS,
        "H": Verdict.FAIL,
    }
    assert result.verdict is Verdict.FAIL


def test_a_short_run_is_inconclusive() -> None:
    """Ten frames do not resolve 3 % of a mean over 27 degrees of freedom: 3 sigma is 4 % and more."""
    assert (
        kinetic_temperatures(momenta(10, com=False)[:, :1], MASSES, NUMBERS, 300.0, False).total.verdict
        is Verdict.INCONCLUSIVE
    )


def test_nve_is_reported_and_not_judged() -> None:
    """Without a bath there is nothing to be held to."""
    result = kinetic_temperatures(momenta(200, com=True), MASSES, NUMBERS, None, True)
    assert isinstance(result, Temperatures)
    assert result.verdict is None
    assert result.total.mean_K == pytest.approx(300.0, rel=0.03)


def test_statistical_inefficiency_of_ar1() -> None:
    """AR(1) noise has g = (1 + a) / (1 - a) = 19 at a = 0.9; the estimate over 40,000 frames is within 20 %.

    Its variance is about 2 (2 M + 1) / N of g^2 (Madras & Sokal 1988): M = 60 lags until zero, 8 %.
    """
    rng = np.random.default_rng(0)
    series = lfilter([1.0], [1.0, -0.9], rng.standard_normal((8, 5000)), axis=-1)
    assert statistical_inefficiency(series) == pytest.approx(19.0, rel=0.2)


def test_a_constant_series_is_worth_one_sample() -> None:
    """No division by a variance of zero, and no false confidence."""
    assert statistical_inefficiency(np.full((2, 50), 1.1)) == 100.0
