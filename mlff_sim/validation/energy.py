"""Is the conserved energy conserved? A slope with an interval that holds on correlated noise."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mlff_sim.forces import Array
from mlff_sim.units import MEV
from mlff_sim.validation.sampling import student_t
from mlff_sim.validation.verdict import Verdict

RECOMMENDED_REPLICAS = 5
"""Below this the t interval over replicas is so wide that it decides little."""
BLOCKS = 8
"""Blocks that a single trajectory is cut into."""


@dataclass(frozen=True)
class Drift:
    """Slope of the conserved energy per atom.

    Attributes:
        slope: meV/atom/ps, mean over the replicas.
        ci95: meV/atom/ps, the interval that covers the true slope in 95 of 100 such runs.
        limit: meV/atom/ps, the largest slope, up or down, that counts as conserved.
        slopes: meV/atom/ps, one per replica.
        intercepts: meV/atom at time zero of the fitted line, one per replica, relative to the first frame.
        duration_ps: length of each replica.
        note: how the interval was made, and what to do when it does not decide.
    """

    slope: float
    ci95: tuple[float, float]
    limit: float
    slopes: tuple[float, ...]
    intercepts: tuple[float, ...]
    duration_ps: float
    note: str

    @property
    def verdict(self) -> Verdict:
        """PASS or FAIL when the whole interval is on one side of the limit, else INCONCLUSIVE."""
        low, high = self.ci95
        if -self.limit <= low and high <= self.limit:
            return Verdict.PASS
        if low > self.limit or high < -self.limit:
            return Verdict.FAIL
        return Verdict.INCONCLUSIVE


def nve_drift(times_ps: Array, energies_eV: Array, n_atoms: int, limit: float = 0.1) -> Drift:
    """Drift of the conserved energy with a 95 % interval.

    With two or more replicas each gives one least-squares slope, and the interval is Student's t over them:
    whatever correlation the energy noise has, it has in every replica, and replicas are independent. The
    error bar of a single least-squares fit is not used anywhere, it is far too small on correlated noise.

    One replica is cut into 8 blocks. The slope is the mean increment between neighbouring block means, the
    interval Student's t over the increments. It is exact for an energy that walks at random (increments of
    block means are then correlated by 1/4 with the next, which is put into the standard error) and too wide
    for bounded noise: one replica can pass, but it takes longer.

    Args:
        times_ps: ps, shape (frames,), increasing.
        energies_eV: conserved energy of the whole system, shape (frames,) or (replicas, frames).
        n_atoms: atoms in the system.
        limit: meV/atom/ps.

    Returns:
        The slope, its interval and the verdict.

    Raises:
        ValueError: fewer than 3 frames (8 for one replica), shapes that do not fit, values that are not finite.
    """
    t = np.asarray(times_ps, dtype=np.float64)
    e = np.atleast_2d(np.asarray(energies_eV, dtype=np.float64))
    if t.ndim != 1 or e.ndim != 2 or e.shape[1] != len(t):
        raise ValueError(
            f"energies of shape {np.shape(energies_eV)} do not fit {len(t)} times; give (frames,) or (replicas, frames)."
        )
    needed = BLOCKS if len(e) == 1 else 3
    if len(t) < needed:
        raise ValueError(f"{len(t)} frames are too few for a drift; {needed} is the least.")
    if not (np.isfinite(t).all() and np.isfinite(e).all()):
        raise ValueError("times and energies must be finite numbers.")
    if not (np.diff(t) > 0).all():
        raise ValueError("times must increase.")
    # Relative to the first frame before anything is squared: total energies are 1e3-1e5 eV.
    e = (e - e[:, :1]) / (MEV * n_atoms)
    centred = t - t.mean()
    fitted = (e - e.mean(axis=1, keepdims=True)) @ centred / (centred @ centred)
    intercepts = e.mean(axis=1) - fitted * t.mean()
    if len(e) > 1:
        slope = float(fitted.mean())
        half = student_t(0.975, len(e) - 1) * float(fitted.std(ddof=1)) / np.sqrt(len(e))
        note = f"Student's t over the slopes of {len(e)} replicas."
        if len(e) < RECOMMENDED_REPLICAS:
            note += f" {RECOMMENDED_REPLICAS} or more are recommended."
    else:
        slope, half = _block_increments(t, e[0])
        note = f"One replica: Student's t over the increments of {BLOCKS} blocks, wide by design; {RECOMMENDED_REPLICAS} or more replicas are recommended."
    drift = Drift(
        slope=slope,
        ci95=(slope - half, slope + half),
        limit=limit,
        slopes=tuple(float(s) for s in fitted),
        intercepts=tuple(float(a) for a in intercepts),
        duration_ps=float(t[-1] - t[0]),
        note=note,
    )
    if drift.verdict is Verdict.INCONCLUSIVE:
        more = "run longer" if len(e) >= RECOMMENDED_REPLICAS else "run longer or with more replicas"
        drift = replace(drift, note=f"{note} The interval crosses the limit: {more}.")
    return drift


def _block_increments(t: Array, e: Array) -> tuple[float, float]:
    """Mean increment of block means per time and the half width of its 95 % interval."""
    size = len(t) // BLOCKS
    # The remainder is dropped at the start, where a run may still settle.
    first = len(t) - size * BLOCKS
    centres = t[first:].reshape(BLOCKS, size).mean(axis=1)
    means = e[first:].reshape(BLOCKS, size).mean(axis=1)
    rates = np.diff(means) / np.diff(centres)
    k = len(rates)
    # A random walk: neighbouring increments of block means correlate by 1/4. The first factor is what that
    # adds to the variance of their mean, the second what it takes from the sample variance.
    spread = 1.0 + (k - 1) / (2.0 * k)
    scale = np.sqrt(spread / (1.0 - (spread - 1.0) / (k - 1)))
    return float(rates.mean()), float(student_t(0.975, k - 1) * scale * rates.std(ddof=1) / np.sqrt(k))
