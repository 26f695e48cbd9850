"""How many independent samples a correlated time series is worth, and the intervals that follow."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from mlff_sim.forces import Array
from mlff_sim.validation.verdict import Verdict

ENOUGH_SAMPLES = 50.0
"""Effective samples below which nothing is judged: g itself is then known to no better than a third."""
STARTS = 20
"""Starts that are tried for the end of equilibration."""


@dataclass(frozen=True)
class Convergence:
    """How much of a series is equilibrated, and what that is worth.

    Attributes:
        start: first frame after equilibration.
        frames: of each replica.
        inefficiency: frames per independent sample after `start`, g = 1 + 2 tau / dt.
        samples: effective independent samples after `start`, of all replicas.
        note: what the verdict rests on, and what would settle it.
    """

    start: int
    frames: int
    inefficiency: float
    samples: float
    note: str

    @property
    def verdict(self) -> Verdict:
        """PASS with 50 effective samples, else INCONCLUSIVE."""
        return Verdict.PASS if self.samples >= ENOUGH_SAMPLES else Verdict.INCONCLUSIVE


def convergence(series: Array) -> Convergence:
    """End of equilibration and effective samples of replicas of one quantity.

    Equilibration ends where the rest is worth most, N_eff(t0) = R (N - t0) / g(t0) is largest (Chodera, J. Chem. Theory
    Comput. 12, 1799 (2016), doi:10.1021/acs.jctc.5b00784), over 20 starts in the first half; g is pymbar's, about the
    common mean of the replicas. A start that only some replicas have left is slow correlation and costs samples.

    Args:
        series: any unit, shape (frames,) or (replicas, frames).

    Raises:
        ValueError: no frames, more than two axes, or values that are not finite.
    """
    x = series_of(series)
    frames = x.shape[1]
    starts = sorted({int(s) for s in np.linspace(0, frames // 2, STARTS, endpoint=False)})
    start = max(starts, key=lambda s: ((frames - s) / statistical_inefficiency(x[:, s:], fast=True), -s))
    g = statistical_inefficiency(x[:, start:])
    samples = len(x) * (frames - start) / g
    note = f"{samples:.0f} effective samples after frame {start} of {frames}."
    if samples < ENOUGH_SAMPLES:
        note += f" {ENOUGH_SAMPLES:.0f} are needed: run {ENOUGH_SAMPLES / samples:.1f} times as long, or with more replicas."
    return Convergence(start, frames, g, samples, note)


def series_of(series: Array) -> Array:
    """The same as finite float64 of shape (replicas, frames).

    Raises:
        ValueError: no frames, more than two axes, or values that are not finite.
    """
    x = np.atleast_2d(np.asarray(series, dtype=np.float64))
    if x.ndim != 2 or not x.size:
        raise ValueError(
            f"a series of shape {np.shape(series)}; give (frames,) or (replicas, frames), one frame at least."
        )
    if not np.isfinite(x).all():
        raise ValueError("a series must be finite numbers; cut it before the first that is not.")
    return x


def decorrelated(series: Array) -> Array:
    """One frame in g of every replica, to the nearest frame, shape (samples,); g is of all replicas together."""
    x = series_of(series)
    frames = x.shape[1]
    pick = np.round(np.arange(0.0, frames - 0.5, statistical_inefficiency(x))).astype(np.int64)
    return x[:, pick].ravel()


@contextmanager
def silent_pymbar() -> Iterator[None]:
    """Within it pymbar can be imported; it writes advertisements for JAX into the log of whoever does so."""
    loggers = [logging.getLogger(name) for name in ("pymbar", "pymbar.timeseries", "pymbar.mbar_solvers")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def statistical_inefficiency(series: Array, *, fast: bool = False) -> float:
    """Frames per independent sample, g = 1 + 2 tau / dt, of replicas of one quantity.

    The correlation function is averaged over the replicas about their common mean, so differences between
    replicas count as slow correlation (Chodera et al., J. Chem. Theory Comput. 3, 26 (2007); pymbar).

    Args:
        series: any unit, shape (replicas, frames).
        fast: look at lags 1, 2, 4, 7, 11, ... instead of all, for thousands of series.

    Returns:
        At least 1; the number of frames where the series never changes, which is worth one sample.
    """
    x = np.atleast_2d(np.asarray(series, dtype=np.float64))
    frames = x.shape[1]
    # Rounding alone makes a constant series scatter by a few units in the last place.
    if np.ptp(x) <= 1e-12 * np.abs(x).max(initial=0.0):
        return float(x.size)
    if frames < 4:
        return 1.0 if len(x) > 1 else float(frames)
    with silent_pymbar():
        from pymbar.timeseries import statistical_inefficiency_multiple

        g = float(statistical_inefficiency_multiple(list(x), fast=fast))
    return max(1.0, g)


def effective_samples(series: Array) -> float:
    """Independent samples in replicas of one quantity, shape (replicas, frames)."""
    x = np.atleast_2d(np.asarray(series))
    return x.size / statistical_inefficiency(x)


def student_t(probability: float, dof: float) -> float:
    """Quantile of Student's t distribution; infinite without degrees of freedom."""
    if dof <= 0:
        return float("inf")
    from scipy.special import stdtrit

    return float(stdtrit(dof, probability))
