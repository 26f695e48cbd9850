"""Pair distances: identical, alike, shifted; the noise that is predicted is the noise that is there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.special import erf

from mlff_sim.errors import InputError
from mlff_sim.validation import Distribution, Verdict, compare, pair_distributions

NUMBERS = np.array([6, 8])
SIGMA = 0.05


def bond(frames: int, replicas: int = 4, *, seed: int, length: float = 1.4) -> Distribution:
    """A diatomic on the x axis with a Gaussian bond length, frames 10 fs apart."""
    x = np.zeros((frames, replicas, 2, 3))
    x[:, :, 1, 0] = np.random.default_rng(seed).normal(length, SIGMA, (frames, replicas))
    return pair_distributions(x, 0.01 * np.arange(frames), NUMBERS, recipe={"temperature_K": 300.0})


@pytest.fixture(scope="module")
def reference() -> Distribution:
    """40,000 frames."""
    return bond(10000, seed=0)


def test_densities_are_normalised(reference: Distribution) -> None:
    """Integral of p is 1 and its mean the bond length, to the standard error of the mean and half a bin squared."""
    p, width = reference.mean("C-O"), np.diff(reference.edges)
    centres = 0.5 * (reference.edges[1:] + reference.edges[:-1])
    assert p @ width == pytest.approx(1.0, abs=1e-12)
    assert (p * width) @ centres == pytest.approx(1.4, abs=4 * SIGMA / np.sqrt(40000) + 1e-4)
    assert reference.samples == pytest.approx(40000, rel=0.2)


def test_identical_data_have_no_error(reference: Distribution) -> None:
    """Zero, to rounding, and a pass."""
    result = compare(reference, reference)
    assert result.error_percent == pytest.approx(0.0, abs=1e-9)
    assert result.verdict is Verdict.PASS


def test_two_samples_of_one_bond_pass(reference: Distribution) -> None:
    """Half as long as the reference."""
    assert compare(bond(5000, seed=1), reference).verdict is Verdict.PASS


def test_a_shifted_bond_fails(reference: Distribution) -> None:
    """By 0.02 A, less than half its width."""
    result = compare(bond(5000, seed=2, length=1.42), reference)
    assert result.verdict is Verdict.FAIL
    assert result.error_percent > result.noise95_percent


def test_the_error_is_the_analytic_one(reference: Distribution) -> None:
    """Two equal Gaussians at a distance d: integral |p - q| = 2 erf(d / (2 sqrt(2) sigma)).

    Tolerance: the whole of the expected sampling error (2 %), which adds to a true difference with both
    signs and so mostly cancels. A wrong factor or a lost bin is far outside.
    """
    for d in (0.02, 0.05):
        result = compare(bond(10000, seed=3, length=1.4 + d), reference)
        exact = 200.0 * erf(d / (2 * np.sqrt(2) * SIGMA))
        assert result.noise_percent < 2.0
        assert abs(result.error_percent - exact) < result.noise_percent


def test_predicted_noise_is_the_noise(reference: Distribution) -> None:
    """60 runs of the same physics: mean error within 10 % of the prediction, 95 % quantile passed by 0 to 9 of them.

    9 is the 99.9 % quantile of the binomial with 60 and 0.05.
    """
    runs = [compare(bond(400, seed=10 + i), reference) for i in range(60)]
    errors = np.array([r.error_percent for r in runs])
    stderr = errors.std() / np.sqrt(60)
    assert abs(errors.mean() - runs[0].noise_percent) < 0.05 * runs[0].noise_percent + 4 * stderr
    assert sum(r.error_percent > r.noise95_percent for r in runs) <= 9
    assert not any(r.verdict is Verdict.FAIL for r in runs)


def test_a_short_run_is_inconclusive(reference: Distribution) -> None:
    """With 40 frames sampling alone shows more than the limit."""
    result = compare(bond(10, seed=5), reference)
    assert result.noise_percent > result.limit_percent
    assert result.verdict is Verdict.INCONCLUSIVE


def test_a_thin_reference_decides_nothing() -> None:
    """Fewer than 50 effective samples, even against itself."""
    thin = bond(10, seed=6)
    result = compare(thin, thin)
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "reference" in result.note


def test_blocks_do_not_change_the_mean() -> None:
    """The same frames in many blocks or few, and frames that do not divide evenly."""
    rng = np.random.default_rng(7)
    x = rng.normal(0.0, 0.1, (503, 3, 4, 3)) + np.arange(4)[:, None]
    t = 0.01 * np.arange(503)
    few, many = (pair_distributions(x, t, np.array([6, 1, 1, 8]), block_ps=b) for b in (5.0, 0.13))
    assert len(many.weights) > 10 * len(few.weights)
    assert set(few.blocks) == {"C-H", "C-O", "H-H", "H-O"}
    for pair in few.blocks:
        np.testing.assert_allclose(few.mean(pair), many.mean(pair), atol=1e-12)
    assert few.sampled_ps == pytest.approx(many.sampled_ps)


def test_save_and_load(reference: Distribution, tmp_path: Path) -> None:
    """Everything comes back, to the rounding of float32."""
    reference.save(tmp_path / "reference.npz")
    back = Distribution.load(tmp_path / "reference.npz")
    np.testing.assert_allclose(back.mean("C-O"), reference.mean("C-O"), rtol=1e-6)
    assert back.recipe == reference.recipe
    assert (back.samples, back.block_ps) == (reference.samples, reference.block_ps)
    assert (tmp_path / "reference.npz").stat().st_size < 300_000


def test_other_files_and_other_systems_are_refused(reference: Distribution, tmp_path: Path) -> None:
    """In the words of the caller."""
    with pytest.raises(InputError, match="does not exist"):
        Distribution.load(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(InputError, match="not a distribution"):
        Distribution.load(tmp_path / "text.npz")
    other = pair_distributions(np.random.default_rng(0).normal(size=(9, 1, 2, 3)), np.arange(9.0), np.array([1, 8]))
    with pytest.raises(InputError, match="not the same molecule"):
        compare(other, reference)
    hot = Distribution(
        reference.edges,
        reference.blocks,
        reference.weights,
        reference.block_ps,
        reference.samples,
        {"temperature_K": 500.0},
    )
    with pytest.raises(InputError, match="500 K"):
        compare(hot, reference)
