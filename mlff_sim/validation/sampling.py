"""How many independent samples a correlated time series is worth, and the intervals that follow."""

from __future__ import annotations

import logging

import numpy as np

from mlff_sim.forces import Array


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
    # pymbar writes an advertisement for JAX into the log of whoever imports it.
    logger = logging.getLogger("pymbar")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        from pymbar.timeseries import statistical_inefficiency_multiple

        g = float(statistical_inefficiency_multiple(list(x), fast=fast))
    finally:
        logger.setLevel(level)
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
