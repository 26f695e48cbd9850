"""Speed: the formula, the ratio of medians, its interval, and when the student has paid for itself."""

from __future__ import annotations

import numpy as np
import pytest

from mlff_sim.simulation.clock import predicted_speedup
from mlff_sim.validation import measured_speedup


def test_prediction_by_hand() -> None:
    """20 steps of 1 ms against one call of 1.2 ms and 20 inner steps of 0.04 ms: 20 / 2 = 10."""
    assert predicted_speedup(20, 1.0, 1.2, 0.04) == pytest.approx(10.0)
    assert predicted_speedup(1, 1.0, 1.0, 0.0) == 1.0
    assert predicted_speedup(20, 1.0, 1.16, 0.04, student_calls=21) == pytest.approx(10.0)
    assert predicted_speedup(20, 1.0, 1.2, 0.04, teacher_calls=2) == pytest.approx(6.25)


def test_exact_blocks() -> None:
    """Without scatter the interval is the value; a baseline of 1 fs takes half the steps of 0.5 fs."""
    s = measured_speedup(np.full(5, 0.2), np.full(5, 2.0), 0.5)
    assert s.value == pytest.approx(10.0)
    assert s.ci95 == pytest.approx((10.0, 10.0))
    assert s.against(1.0) == pytest.approx(5.0)
    assert s.break_even_ps(360.0) == pytest.approx(200.0)  # 1.8 s saved on each ps
    assert measured_speedup(np.full(3, 2.0), np.full(3, 1.0)).break_even_ps(1.0) is None


def test_interval_covers_the_truth_and_one_slow_block_does_not_matter() -> None:
    """Ratio 5 in 10 % scatter: covered in at least 85 of 100 trials (95 nominal; medians of 12 are granular)."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(100):
        h, b = 0.2 * rng.lognormal(0, 0.1, 12), 1.0 * rng.lognormal(0, 0.1, 12)
        h[0] *= 30
        low, high = measured_speedup(h, b).ci95 or (0.0, 0.0)
        covered += low <= 5.0 <= high
    assert covered >= 85


def test_pairs_share_the_mood_of_the_machine() -> None:
    """A machine that slows down for both leaves the ratio of each pair, and so the interval, alone."""
    mood = np.linspace(1.0, 2.0, 9)
    paired = measured_speedup(0.2 * mood, 1.0 * mood).ci95
    apart = measured_speedup(0.2 * mood, 1.0 * mood[:-1]).ci95
    assert paired == pytest.approx((5.0, 5.0))
    assert apart is not None
    assert apart[1] - apart[0] > 0.5


def test_too_few_or_impossible_blocks() -> None:
    """Two blocks have no interval; none, or a time of zero, no ratio."""
    assert measured_speedup(np.array([0.2, 0.3]), np.array([1.0, 1.0])).ci95 is None
    with pytest.raises(ValueError, match="at least one"):
        measured_speedup(np.array([]), np.array([1.0]))
    with pytest.raises(ValueError, match="positive"):
        measured_speedup(np.array([0.0]), np.array([1.0]))
