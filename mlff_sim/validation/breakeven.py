"""What the speed is, what it was predicted to be, and when the distillation has paid for itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mlff_sim.cost import allowed_student_time, predicted_speedup
from mlff_sim.forces import Array
from mlff_sim.validation.verdict import Verdict

FEWEST = 3
"""Measurements below which there is no interval."""
DRAWS = 2000
"""Of the bootstrap."""

Interval = tuple[float, float]


@dataclass(frozen=True)
class Speedup:
    """Measured ratio of baseline to hybrid wall time per simulated time.

    Attributes:
        value: ratio of the medians.
        ci95: bootstrap interval; None with fewer than three blocks of either.
        hybrid_s_per_ps: s/ps, median.
        baseline_s_per_ps: s/ps, median, at `baseline_timestep_fs`.
        baseline_timestep_fs: fs, step of the all-teacher baseline that was timed.
        blocks: blocks timed, of whichever has fewer.
    """

    value: float
    ci95: Interval | None
    hybrid_s_per_ps: float
    baseline_s_per_ps: float
    baseline_timestep_fs: float
    blocks: int

    def against(self, timestep_fs: float) -> float:
        """The ratio to a baseline of another time step: a step costs the same, only their number changes."""
        return self.value * self.baseline_timestep_fs / timestep_fs

    def break_even_ps(self, investment_s: float) -> float | None:
        """Simulated time in ps from which the hybrid, with what was spent up front, is the shorter way; None if never."""
        saved = self.baseline_s_per_ps - self.hybrid_s_per_ps
        return investment_s / saved if saved > 0 else None


def measured_speedup(
    block_hybrid: Array, block_baseline: Array, baseline_timestep_fs: float = 0.5, *, seed: int = 0
) -> Speedup:
    """Ratio of median wall times of alternating blocks, with a bootstrap interval.

    Neighbouring blocks share the mood of the machine, so they are drawn in pairs where both lists are equally
    long; otherwise (the baseline timed after every few blocks only) each list is drawn by itself.

    Args:
        block_hybrid: s/ps, shape (blocks,).
        block_baseline: s/ps, shape (baseline blocks,), measured in turns with the other.
        baseline_timestep_fs: fs, step of the baseline.
        seed: of the bootstrap.
    """
    h, b = _times("seconds per ps", block_hybrid), _times("seconds per ps", block_baseline)
    ci95 = None
    if min(len(h), len(b)) >= FEWEST:
        hybrid, baseline = _medians([h, b], seed)
        ci95 = _interval(baseline / hybrid)
    hm, bm = float(np.median(h)), float(np.median(b))
    return Speedup(bm / hm, ci95, hm, bm, baseline_timestep_fs, min(len(h), len(b)))


@dataclass(frozen=True)
class CallTimes:
    """Times of single calls, measured in turns before a run; all in one unit.

    Attributes:
        baseline: of the teacher along the short steps of the baseline, shape (measurements,).
        teacher: of the teacher at the strides of the scheme, shape (measurements,).
        student: of the model that replaces it, shape (measurements,).
    """

    baseline: Array
    teacher: Array
    student: Array


@dataclass(frozen=True)
class Cycle:
    """What a scheme does between two corrections; the table of `mlff_sim.cost` has it for each.

    Attributes:
        steps: S, steps of the baseline that it advances.
        teacher_calls: e.
        student_calls: c.
    """

    steps: float
    teacher_calls: float
    student_calls: float


@dataclass(frozen=True)
class Prediction:
    """The speed-up that times of single calls promise.

    Attributes:
        value: S t_b / (e t_e + c t_c) of the medians.
        ci95: bootstrap interval; None with fewer than three measurements of one of them.
        student_s: c t_c, what the student costs in a cycle, in the unit that was given.
        allowed_s: S t_b - e t_e, what it may cost for the cycle to pay; (1 - f) S t_force where t_e = t_b.
    """

    value: float
    ci95: Interval | None
    student_s: float
    allowed_s: float

    @property
    def pays(self) -> bool:
        """Whether the student costs less than it may: t_model < (1 - f) S t_force."""
        return self.student_s < self.allowed_s


@dataclass(frozen=True)
class Rate:
    """Effective samples of one observable for each second of wall time.

    Attributes:
        value: 1/s.
        stderr: 1/s.
        samples: effective samples it rests on.
    """

    value: float
    stderr: float
    samples: float


@dataclass(frozen=True)
class BreakEven:
    """Whether two models are worth it.

    Attributes:
        measured: against the teacher alone.
        predicted: from single calls; None where they were not timed.
        rates: effective samples a second by observable.
        investment_s: s spent on sampling, labels and training; None if unknown.
        break_even_ps: ps of simulated time after which that has paid; None if never or unknown.
        break_even_ci95: its bootstrap interval; infinite where it may be never; None without an interval.
        note: which rule decided, and whether the prediction held.
    """

    measured: Speedup
    predicted: Prediction | None
    rates: Mapping[str, Rate]
    investment_s: float | None
    break_even_ps: float | None
    break_even_ci95: Interval | None
    note: str

    @property
    def verdict(self) -> Verdict:
        """PASS or FAIL when the whole interval of the measured speed-up is on one side of 1, else INCONCLUSIVE."""
        low, high = self.measured.ci95 or (0.0, np.inf)
        if low > 1:
            return Verdict.PASS
        return Verdict.FAIL if high < 1 else Verdict.INCONCLUSIVE

    @property
    def slowest(self) -> Rate | None:
        """The observable of which the run yields least; None without any."""
        return min(self.rates.values(), key=lambda r: r.value, default=None)


def break_even(
    block_hybrid: Array,
    block_baseline: Array,
    baseline_timestep_fs: float = 0.5,
    *,
    calls: tuple[CallTimes, Cycle] | None = None,
    samples: tuple[Mapping[str, float], float] | None = None,
    investment_s: float | None = None,
    seed: int = 0,
) -> BreakEven:
    """Say whether a hybrid run is faster than the teacher, whether that was to be expected, and when it has paid.

    A student pays where what it costs in a cycle is less than what it saves, t_model < (1 - f) S t_force, with f the
    teacher's share of the steps: `mlff_sim.cost`.

    Args:
        block_hybrid: s/ps, shape (blocks,).
        block_baseline: s/ps, shape (baseline blocks,), measured in turns with the other.
        baseline_timestep_fs: fs, step of the baseline.
        calls: times of single calls, and what a cycle makes of them.
        samples: effective samples by observable (`MonteCarlo.effective`), and the seconds of wall time they took.
        investment_s: s spent before the run.
        seed: of the bootstrap.

    Raises:
        ValueError: no measurement, or times that are not positive and finite.
    """
    measured = measured_speedup(block_hybrid, block_baseline, baseline_timestep_fs, seed=seed)
    predicted = predict(*calls, seed=seed) if calls else None
    rates = sample_rates(*samples) if samples else {}
    length = interval = None
    if investment_s is not None:
        if not (np.isfinite(investment_s) and investment_s >= 0):
            raise ValueError(f"investment_s = {investment_s} must be finite and not negative.")
        length = measured.break_even_ps(investment_s)
        if measured.ci95 is not None:
            hybrid, baseline = _medians([np.asarray(a, np.float64) for a in (block_hybrid, block_baseline)], seed)
            saved = baseline - hybrid
            with np.errstate(divide="ignore"):
                interval = _interval(np.where(saved > 0, investment_s / np.maximum(saved, 0.0), np.inf))
    return BreakEven(measured, predicted, rates, investment_s, length, interval, _note(measured, predicted))


def predict(calls: CallTimes, cycle: Cycle, *, seed: int = 0) -> Prediction:
    """The speed-up that times of single calls promise, with a bootstrap interval of their medians."""
    times = [_times(f"times of the {n}", getattr(calls, n)) for n in ("baseline", "teacher", "student")]
    s, e, c = cycle.steps, cycle.teacher_calls, cycle.student_calls
    if not (np.isfinite([s, e, c]).all() and s > 0 and e >= 0 and c >= 0 and e + c > 0):
        raise ValueError(
            f"a cycle of {s:g} steps, {e:g} teacher and {c:g} student calls does nothing; give positive numbers."
        )
    t_b, t_e, t_c = (float(np.median(t)) for t in times)
    ci95 = None
    if min(len(t) for t in times) >= FEWEST:
        b, t, m = _medians(times, seed)
        ci95 = _interval(predicted_speedup(s, b, t, m, c, e))
    return Prediction(predicted_speedup(s, t_b, t_e, t_c, c, e), ci95, c * t_c, allowed_student_time(s, t_b, t_e, e))


def sample_rates(effective: Mapping[str, float], wall_s: float) -> dict[str, Rate]:
    """Effective samples a second, with the error of counting them.

    The integrated correlation time of N = 2 tau n frames, summed up to five times itself, is known to
    sqrt(2 (2 * 5 + 1) tau / N) = sqrt(11 / n) of its value (Sokal, in Functional Integration (1997),
    doi:10.1007/978-1-4899-0319-8_6, eq. 3.19), and so are n effective samples.
    """
    if not (np.isfinite(wall_s) and wall_s > 0):
        raise ValueError(f"wall_s = {wall_s} must be positive and finite.")
    if not all(np.isfinite(n) and n > 0 for n in effective.values()):
        raise ValueError("effective samples must be positive and finite.")
    return {k: Rate(n / wall_s, n / wall_s * float(np.sqrt(11.0 / n)), n) for k, n in effective.items()}


def _times(name: str, values: Array) -> Array:
    """Checked measurements."""
    out = np.asarray(values, dtype=np.float64)
    if out.ndim != 1 or not len(out):
        raise ValueError(f"{name} of shape {out.shape}: give a list of at least one block.")
    if not ((out > 0) & np.isfinite(out)).all():
        raise ValueError(f"{name} must be positive and finite.")
    return out


def _medians(lists: list[Array], seed: int) -> list[Array]:
    """Medians of bootstrap draws of each list, shape (draws,); lists of one length are drawn together."""
    rng = np.random.default_rng(seed)
    draws = {n: rng.integers(n, size=(DRAWS, n)) for n in dict.fromkeys(len(a) for a in lists)}
    return [np.median(a[draws[len(a)]], axis=1) for a in lists]


def _interval(values: Array) -> Interval:
    """95 % of the draws; order statistics, so that some may be infinite."""
    low, high = np.quantile(values, [0.025, 0.975], method="inverted_cdf")
    return float(low), float(high)


def _note(measured: Speedup, predicted: Prediction | None) -> str:
    """What decided, and whether it was to be expected."""
    if measured.ci95 is None:
        note = f"{measured.blocks} blocks have no interval; time {FEWEST} or more of each."
    elif measured.ci95[0] <= 1 <= measured.ci95[1]:
        note = "The interval of the speed-up holds 1: time more blocks."
    else:
        note = f"The whole interval of the speed-up is {'above' if measured.value > 1 else 'below'} 1."
    if predicted is None:
        return note
    condition = f"{predicted.student_s:.3g} {'<' if predicted.pays else '>='} {predicted.allowed_s:.3g}"
    note += f" Single calls promise {predicted.value:.3g} (the student's time in a cycle {condition})"
    if measured.ci95 and predicted.ci95:
        apart = measured.ci95[1] < predicted.ci95[0] or predicted.ci95[1] < measured.ci95[0]
        note += ", which was not met: look for time spent outside of calls." if apart else ", which was met."
    return note.rstrip(".") + "."
