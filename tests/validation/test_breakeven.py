"""Speed: the formula, the ratio of medians, its interval, and when the student has paid for itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.signal import lfilter

from mlff_sim.cost import allowed_student_time, predicted_speedup
from mlff_sim.validation import (
    CallTimes,
    Cycle,
    Method,
    Verdict,
    accuracy_per_second,
    break_even,
    measured_speedup,
    method_bars,
    predict,
    sample_rates,
)
from mlff_sim.validation.sampling import effective_samples


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


def times(baseline: float, teacher: float, student: float, count: int = 5) -> CallTimes:
    return CallTimes(*(np.full(count, t) for t in (baseline, teacher, student)))


@pytest.mark.parametrize(
    ("cycle", "fraction", "steps"),
    [
        (Cycle(12, 1, 12), 1 / 12, 12),  # RESPA
        (Cycle(12, 1, 13), 1 / 12, 12),  # mollified
        (Cycle(200, 1, 200), 1 / 200, 200),  # a trajectory of hybrid Monte Carlo
        (Cycle(40, 10, 40), 0.25, 40),  # ten outer steps of RESPA as a proposal
        (Cycle(200, 10, 1), 0.05, 200),  # a predictor of 200 steps, 5 % of them repeated
    ],
)
def test_one_condition_for_all_schemes(cycle: Cycle, fraction: float, steps: int) -> None:
    """The speed-up passes 1 exactly where the model's time in a cycle passes (1 - f) S t_force."""
    t_force = 2.0
    allowed = (1 - fraction) * steps * t_force
    assert allowed_student_time(steps, t_force, t_force, cycle.teacher_calls) == pytest.approx(allowed)
    for share in (0.99, 1.01):
        p = predict(times(t_force, t_force, share * allowed / cycle.student_calls), cycle)
        assert p.allowed_s == pytest.approx(allowed)
        assert p.pays == (share < 1) == (p.value > 1)


def test_a_predictor_by_hand() -> None:
    """200 steps of 1 ms for 10 teacher steps and one prediction of 30 ms: 200 / 40 = 5; with corrected steps as time, 5.25."""
    assert predict(times(1.0, 1.0, 30.0), Cycle(200, 10, 1)).value == pytest.approx(5.0)
    assert predict(times(1.0, 1.0, 30.0), Cycle(210, 10, 1)).value == pytest.approx(5.25)
    assert predict(times(1.0, 1.0, 30.0, 2), Cycle(200, 10, 1)).ci95 is None


def test_prediction_interval_covers_the_truth() -> None:
    """Calls with 10 % scatter, 11 of each: covered in 85 to 100 of 100 trials (95 nominal; medians of 11 are granular)."""
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(100):
        calls = CallTimes(*(t * rng.lognormal(0, 0.1, 11) for t in (1.0, 1.2, 0.04)))
        low, high = predict(calls, Cycle(20, 1, 20)).ci95 or (0.0, 0.0)
        covered += low <= 10.0 <= high
    assert covered >= 85


def test_what_pays_passes_and_what_does_not_fails() -> None:
    """Verdicts by the whole interval, the run length that pays, and whether the prediction held, in the note."""
    rng = np.random.default_rng(2)
    noise = rng.lognormal(0, 0.05, (2, 9))
    fast = break_even(
        0.2 * noise[0], 2.0 * noise[1], calls=(times(1.0, 1.2, 0.04), Cycle(20, 1, 20)), investment_s=360.0
    )
    assert fast.verdict is Verdict.PASS
    assert fast.break_even_ps == pytest.approx(200.0, rel=0.1)  # 1.8 s saved on each ps
    assert fast.break_even_ci95 is not None
    assert fast.break_even_ci95[0] < 200.0 < fast.break_even_ci95[1]
    slow = break_even(2.0 * noise[0], 0.2 * noise[1], investment_s=360.0)
    assert slow.verdict is Verdict.FAIL
    assert slow.break_even_ps is None and slow.break_even_ci95 == (np.inf, np.inf)
    same = break_even(noise[0], noise[1], investment_s=360.0)
    assert same.verdict is Verdict.INCONCLUSIVE and same.break_even_ci95 is not None
    assert same.break_even_ci95[1] == np.inf
    few = break_even(0.2 * noise[0, :2], noise[1, :2])
    assert few.verdict is Verdict.INCONCLUSIVE and "3 or more" in few.note


def test_a_promise_that_was_not_kept_is_said() -> None:
    """Calls that promise 10 where 10 was measured, and where 5 was."""
    calls = (times(1.0, 1.2, 0.04), Cycle(20, 1, 20))
    for seconds, said in ((0.2, "which was met"), (0.4, "which was not met")):
        result = break_even(np.full(5, seconds), np.full(5, 2.0), calls=calls)
        assert result.predicted is not None and result.predicted.value == pytest.approx(10.0)
        assert said in result.note


def test_the_error_of_counting_samples() -> None:
    """Effective samples of 200 AR(1) series, tau = 10: they scatter by the predicted error, to a factor of 1.5.

    The formula sums the correlation up to five times tau; pymbar stops where it first is zero, which is earlier or later.
    """
    rng = np.random.default_rng(3)
    for frames in (2000, 8000):
        decay = np.exp(-1 / 10)
        x = lfilter([1.0], [1.0, -decay], rng.normal(size=(200, frames + 200)), axis=1)[:, 200:]
        n = np.array([effective_samples(row[None]) for row in x])
        predicted = sample_rates({"x": float(n.mean())}, 1.0)["x"].stderr
        assert predicted / 1.5 < n.std() < 1.5 * predicted


def test_rates() -> None:
    """By the second, and the slowest."""
    result = break_even(np.ones(3), np.ones(3), samples=({"energy": 110.0, "torsion": 11.0}, 10.0))
    assert result.rates["energy"].value == 11.0 and result.rates["energy"].stderr == pytest.approx(11.0 * 0.1**0.5)
    assert result.slowest is result.rates["torsion"]
    assert break_even(np.ones(3), np.ones(3)).slowest is None


def test_arrays_of_the_plots() -> None:
    """By hand: 1 s/ps is 86.4 ns a day; slowest bar first; what is both slower and worse is not best."""
    methods = [
        Method("teacher", np.full(4, 1.0), 1.0, 0.1),
        Method("hybrid", np.full(4, 0.1), 1.5, 0.1, sample_rates({"x": 44.0}, 2.0)["x"]),
        Method("bad", np.full(2, 0.5), 9.0),
        Method("student", np.full(4, 0.01)),
    ]
    bars = method_bars(methods)
    assert bars.names == ("teacher", "bad", "hybrid", "student")
    np.testing.assert_allclose(bars.s_per_ps, [1.0, 0.5, 0.1, 0.01])
    np.testing.assert_allclose(bars.low, [1.0, np.nan, 0.1, 0.01])
    points = accuracy_per_second(methods)
    assert points.names == ("teacher", "hybrid", "bad")
    np.testing.assert_allclose(points.ns_per_day, [86.4, 864.0, 172.8])
    np.testing.assert_allclose(points.samples_per_s, [np.nan, 22.0, np.nan])
    np.testing.assert_allclose(points.high, [86.4, 864.0, np.nan])
    assert points.best.tolist() == [True, True, False]
    scattered = accuracy_per_second([Method("a", np.array([0.8, 0.9, 1.0, 1.1, 1.2]), 1.0)])
    assert scattered.low[0] < scattered.ns_per_day[0] < scattered.high[0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: predict(times(1.0, 0.0, 1.0), Cycle(2, 1, 2)), "positive"),
        (lambda: predict(times(1.0, 1.0, 1.0, 0), Cycle(2, 1, 2)), "at least one"),
        (lambda: predict(times(1.0, 1.0, 1.0), Cycle(0, 1, 2)), "cycle of 0 steps"),
        (lambda: sample_rates({"x": 1.0}, 0.0), "wall_s"),
        (lambda: sample_rates({"x": float("nan")}, 1.0), "effective"),
        (lambda: break_even(np.ones(3), np.ones(3), investment_s=float("nan")), "investment_s"),
        (lambda: break_even(np.array([1.0, np.nan, 1.0]), np.ones(3)), "finite"),
        (lambda: method_bars([]), "at least one"),
        (lambda: method_bars([Method("a", np.ones(1)), Method("a", np.ones(1))]), "own"),
        (lambda: method_bars([Method("a", np.array([0.0]))]), "positive"),
        (lambda: accuracy_per_second([Method("a", np.ones(1))]), "with an error"),
        (lambda: accuracy_per_second([Method("a", np.ones(1), -1.0)]), "not negative"),
    ],
)
def test_bad_input(call: Any, message: str) -> None:
    """One line that says what was given and what is allowed."""
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
