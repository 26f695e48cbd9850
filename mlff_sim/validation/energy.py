"""Is the conserved energy conserved? A slope with an interval that holds on correlated noise."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mlff_sim.forces import Array
from mlff_sim.units import KB, MEV
from mlff_sim.validation.sampling import student_t
from mlff_sim.validation.verdict import Verdict

RECOMMENDED_REPLICAS = 5
"""Below this the t interval over replicas is so wide that it decides little."""
BLOCKS = 8
"""Blocks that a single trajectory is cut into."""
WALK_BLOCKS = 20
"""Blocks per replica from which the random walk is estimated."""


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
        walk: meV/atom/ps^1/2, strength of the random walk beneath the drift: after t ps it alone has taken the
            energy walk * t^1/2 away, up or down; None with fewer than 20 frames.
        walk_ci95: its interval, Student's t over the replicas; from zero where no walk is seen, None for one replica.
        kT_per_ns_dof: the slope in kT per ns and degree of freedom; None without degrees of freedom and a temperature.
        percent_per_ps: the slope in percent of the mean kinetic energy per ps; None without kinetic energies.
        mlipaudit_ratio: |slope| * duration over the standard deviation of the kinetic energy, mean over replicas of
            what MLIPAudit's benchmark nve_energy_conservation scores (1 is its threshold). It has no error bar there
            and grows with the length of the run, so it is for comparison only; None without kinetic energies.
    """

    slope: float
    ci95: tuple[float, float]
    limit: float
    slopes: tuple[float, ...]
    intercepts: tuple[float, ...]
    duration_ps: float
    note: str
    walk: float | None = None
    walk_ci95: tuple[float, float] | None = None
    kT_per_ns_dof: float | None = None
    percent_per_ps: float | None = None
    mlipaudit_ratio: float | None = None

    @property
    def verdict(self) -> Verdict:
        """PASS or FAIL when the whole interval is on one side of the limit, else INCONCLUSIVE."""
        low, high = self.ci95
        if -self.limit <= low and high <= self.limit:
            return Verdict.PASS
        if low > self.limit or high < -self.limit:
            return Verdict.FAIL
        return Verdict.INCONCLUSIVE


def nve_drift(
    times_ps: Array,
    energies_eV: Array,
    n_atoms: int,
    limit: float = 0.1,
    *,
    kinetic_eV: Array | None = None,
    dof: float | None = None,
    temperature_K: float | None = None,
) -> Drift:
    """Drift of the conserved energy with a 95 % interval.

    With two or more replicas each gives one least-squares slope, and the interval is Student's t over them:
    whatever correlation the energy noise has, it has in every replica, and replicas are independent. The
    error bar of a single least-squares fit is not used anywhere, it is far too small on correlated noise.

    One replica is cut into 8 blocks. The slope is the mean increment between neighbouring block means, the
    interval Student's t over the increments. It is made for an energy that walks at random (increments of
    block means are then correlated by 1/4 with the next, which is put into the standard error), where it misses in 6.6 %
    of 2000 walks of 2000 frames, and too wide for bounded noise: one replica can pass, but it takes longer.

    What can be seen: a random walk of strength s gives the slope of R replicas of T ps a standard error of s / (R T)^1/2
    at best, whatever the estimator. A drift below three of these takes longer runs or more of them.

    Args:
        times_ps: ps, shape (frames,), increasing.
        energies_eV: conserved energy of the whole system, shape (frames,) or (replicas, frames).
        n_atoms: atoms in the system.
        limit: meV/atom/ps.
        kinetic_eV: kinetic energy of the same frames, the shape of the energies, for the slope relative to it.
        dof: degrees of freedom that move, 3n - 3 where the total momentum is fixed, for the slope in kT/ns/dof.
        temperature_K: K, for the same; by default the kinetic temperature 2 <K> / (dof k).

    Returns:
        The slope, its interval and the verdict, and the slope in the units other packages use.

    Raises:
        ValueError: fewer than 3 frames (8 for one replica), shapes that do not fit, values that are not finite.
    """
    t, e, k = _checked(times_ps, energies_eV, kinetic_eV)
    if n_atoms < 1:
        raise ValueError(f"n_atoms = {n_atoms}; it must be 1 or more.")
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
    walk, walk_ci95 = _random_walk(t, e)
    if temperature_K is None and k is not None and dof:
        temperature_K = 2.0 * float(k.mean()) / (dof * KB)
    per_ps = slope * MEV * n_atoms  # eV/ps
    drift = Drift(
        slope=slope,
        ci95=(float(slope - half), float(slope + half)),
        limit=limit,
        slopes=tuple(float(s) for s in fitted),
        intercepts=tuple(float(a) for a in intercepts),
        duration_ps=float(t[-1] - t[0]),
        note=note,
        walk=walk,
        walk_ci95=walk_ci95,
        kT_per_ns_dof=1e3 * per_ps / (KB * temperature_K * dof) if temperature_K and dof else None,
        percent_per_ps=100.0 * per_ps / float(k.mean()) if k is not None and k.any() else None,
        mlipaudit_ratio=None if k is None else _mlipaudit_ratio(fitted * MEV * n_atoms * float(t[-1] - t[0]), k),
    )
    if drift.verdict is Verdict.INCONCLUSIVE:
        more = "run longer" if len(e) >= RECOMMENDED_REPLICAS else "run longer or with more replicas"
        drift = replace(drift, note=f"{note} The interval crosses the limit: {more}.")
    return drift


def fewest_frames(replicas: int) -> int:
    """Below which there is no drift: a line for each of several replicas, the blocks of one."""
    return 3 if replicas > 1 else BLOCKS


def _checked(times_ps: Array, energies_eV: Array, kinetic_eV: Array | None) -> tuple[Array, Array, Array | None]:
    """Times (frames,), energies and kinetic energies (replicas, frames), if they are fit for a drift."""
    t = np.asarray(times_ps, dtype=np.float64)
    e = np.atleast_2d(np.asarray(energies_eV, dtype=np.float64))
    k = None if kinetic_eV is None else np.atleast_2d(np.asarray(kinetic_eV, dtype=np.float64))
    if t.ndim != 1 or e.ndim != 2 or e.shape[1] != len(t):
        raise ValueError(
            f"energies of shape {np.shape(energies_eV)} do not fit {t.size} times; give (frames,) or (replicas, frames)."
        )
    if k is not None and k.shape != e.shape:
        raise ValueError(
            f"kinetic energies of shape {k.shape} do not fit energies of shape {e.shape}; give the same frames."
        )
    needed = fewest_frames(len(e))
    if len(t) < needed:
        raise ValueError(f"{len(t)} frames are too few for a drift; {needed} is the least.")
    if not all(x is None or np.isfinite(x).all() for x in (t, e, k)):
        raise ValueError("times and energies must be finite numbers.")
    if not (np.diff(t) > 0).all():
        raise ValueError("times must increase.")
    return t, e, k


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


def _random_walk(t: Array, e: Array) -> tuple[float | None, tuple[float, float] | None]:
    """Strength of the random walk in energies (replicas, frames), and its 95 % interval where there are several.

    The mean square change of block means over two blocks exceeds that over one by s^2 times the block's length,
    whatever bounded noise lies on top: noise that forgets within a block adds the same to both.
    """
    size = len(t) // WALK_BLOCKS
    if not size:
        return None, None
    first = len(t) - size * WALK_BLOCKS
    means = e[:, first:].reshape(len(e), WALK_BLOCKS, size).mean(axis=2)
    length = (t[-1] - t[first]) / (size * WALK_BLOCKS - 1) * size
    steps = np.diff(means, axis=1)
    # Without their mean, the drift; (x - mean)(y - mean) of unit steps x, y is less by 1/K, and there are three.
    steps = steps - steps.mean(axis=1, keepdims=True)
    a, b = steps[:, :-1], steps[:, 1:]
    excess = ((a + b) ** 2 - 0.5 * (a**2 + b**2)) / length / (1.0 - 3.0 / steps.shape[1])
    parts = excess.mean(axis=1)
    mean = float(parts.mean())
    walk = float(np.sqrt(max(0.0, mean)))
    if len(e) == 1:
        return walk, None
    half = student_t(0.975, len(e) - 1) * float(parts.std(ddof=1)) / np.sqrt(len(e))
    return walk, (float(np.sqrt(max(0.0, mean - half))), float(np.sqrt(max(0.0, mean + half))))


def _mlipaudit_ratio(drifts_eV: Array, kinetic_eV: Array) -> float | None:
    """Mean over the replicas of |drift over the run| / standard deviation of the kinetic energy; None if that is zero."""
    spread = kinetic_eV.std(axis=1)
    return float(np.mean(np.abs(drifts_eV) / spread)) if spread.all() else None
