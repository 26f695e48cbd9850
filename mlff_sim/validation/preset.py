"""The quick criteria for one NVE run: four thresholds, no error bars. `nve_drift` over replicas is the careful answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mlff_sim.forces import Array
from mlff_sim.units import KB
from mlff_sim.validation.sampling import ENOUGH_SAMPLES, effective_samples, series_of
from mlff_sim.validation.verdict import Verdict, worst

DRIFT_PERCENT, DEVIATION_PERCENT = 1.0, 0.5
"""Of the mean kinetic energy."""
TEMPERATURE_K = 20.0
LONGEST = 1.5
"""Times its length at the start that no bond exceeds, as the run's own guard has it."""


@dataclass(frozen=True)
class Criterion:
    """One threshold.

    Attributes:
        name: "drift", "standard deviation", "temperature" or "bonds".
        value: of the worst replica.
        limit: that the value must stay below.
        unit: of both.
        verdict: PASS below the limit, else FAIL; INCONCLUSIVE for a mean over fewer than 50 effective samples; None
            where the data are missing.
        note: what the value is, or what is missing.
    """

    name: str
    value: float
    limit: float
    unit: str
    verdict: Verdict | None
    note: str


@dataclass(frozen=True)
class QuickNve:
    """The quick criteria together.

    Attributes:
        criteria: drift, standard deviation, temperature, bonds.
        mean_kinetic_eV: eV, what percentages are of, mean over frames and replicas.
        duration_ps: of each replica.
        note: what these criteria cannot tell.
    """

    criteria: tuple[Criterion, ...]
    mean_kinetic_eV: float
    duration_ps: float
    note: str

    @property
    def verdict(self) -> Verdict:
        """The worst of those judged."""
        return worst(c.verdict for c in self.criteria)

    def __getitem__(self, name: str) -> Criterion:
        """A criterion by its name."""
        return next(c for c in self.criteria if c.name == name)


def quick_nve(
    times_ps: Array,
    total_eV: Array,
    kinetic_eV: Array,
    dof: float,
    *,
    target_K: float = 300.0,
    positions: Array | None = None,
    bonds: Sequence[Sequence[int]] | None = None,
) -> QuickNve:
    """Judge NVE runs by the quick criteria: drift < 1 %, deviation < 0.5 %, within 20 K of the target, no bond broken.

    Percentages are of the mean kinetic energy of the replica. The drift is |least-squares slope| times the length of
    the run, the deviation the standard deviation of the total energy, drift and all. The temperature is 2 <K> / dof k;
    `mlff_sim.motion.aimed_momenta` gives a start the energy that aims at the target. There are no error bars in this:
    a random walk can pass by chance, and a longer run is held to a smaller slope.

    Args:
        times_ps: ps, shape (frames,), increasing.
        total_eV: potential plus kinetic energy, shape (frames,) or (replicas, frames).
        kinetic_eV: kinetic energy of the same frames.
        dof: degrees of freedom that move: 3n - 3 where the total momentum is fixed.
        target_K: K.
        positions: A, shape (frames, n, 3) or (frames, replicas, n, 3), never wrapped; for the bonds.
        bonds: pairs of atoms of the first frame.

    Raises:
        ValueError: fewer than 3 frames, shapes that do not fit, values that are not finite, no kinetic energy.
    """
    t, e, k = np.asarray(times_ps, dtype=np.float64), series_of(total_eV), series_of(kinetic_eV)
    if t.ndim != 1 or e.shape != k.shape or e.shape[1] != len(t):
        raise ValueError(
            f"energies {np.shape(total_eV)}, kinetic energies {np.shape(kinetic_eV)} and {t.size} times do not fit; "
            "give (frames,) or (replicas, frames)."
        )
    if len(t) < 3 or not np.isfinite(t).all() or not (np.diff(t) > 0).all():
        raise ValueError(f"{len(t)} times; give three or more, finite and increasing.")
    mean = k.mean(axis=1)
    if not (mean > 0).all() or not dof > 0:
        raise ValueError("no kinetic energy or no degrees of freedom; percentages are of the mean kinetic energy.")
    e = e - e[:, :1]
    centred, duration = t - t.mean(), float(t[-1] - t[0])
    drift = 100.0 * np.abs(e @ centred / (centred @ centred)) * duration / mean
    deviation = 100.0 * e.std(axis=1) / mean
    off = np.abs(2.0 * mean / (dof * KB) - target_K)
    # About their own means: replicas of different total energies do not have one temperature.
    samples = effective_samples(k - mean[:, None]) / len(k)
    warm = (
        f"from {target_K:g} K; {2.0 * k.mean() / (dof * KB):.1f} K on average, of {samples:.0f} effective samples each"
    )
    few = samples < ENOUGH_SAMPLES
    criteria = (
        _below("drift", drift, DRIFT_PERCENT, "%", f"of the mean kinetic energy over {duration:g} ps"),
        _below("standard deviation", deviation, DEVIATION_PERCENT, "%", "of the mean kinetic energy"),
        _below("temperature", off, TEMPERATURE_K, "K", warm, Verdict.INCONCLUSIVE if few else None),
        _bonds(positions, bonds, e.shape),
    )
    note = "Thresholds without error bars; replicas and nve_drift tell a drift from a random walk."
    return QuickNve(criteria, float(k.mean()), duration, note)


def _below(name: str, values: Array, limit: float, unit: str, note: str, instead: Verdict | None = None) -> Criterion:
    """The worst of the values against its limit."""
    value = float(np.max(values))
    return Criterion(name, value, limit, unit, instead or (Verdict.PASS if value < limit else Verdict.FAIL), note)


def _bonds(positions: Array | None, bonds: Sequence[Sequence[int]] | None, shape: tuple[int, ...]) -> Criterion:
    """The most stretched bond of all frames, relative to the first."""
    if positions is None or bonds is None or not len(bonds):
        note = "not judged: give positions and the bonds of the start."
        return Criterion("bonds", float("nan"), LONGEST, "times the start", None, note)
    x = np.asarray(positions, dtype=np.float64)
    x = x[:, None] if x.ndim == 3 else x
    if x.ndim != 4 or x.shape[:2] != shape[::-1] or not np.isfinite(x).all():
        raise ValueError(f"positions of shape {np.shape(positions)} must be finite and (frames, replicas, n, 3).")
    i, j = np.asarray(bonds, dtype=np.int64).reshape(-1, 2).T
    length = np.linalg.norm(x[:, :, i] - x[:, :, j], axis=-1)
    ratio = length / length[0]
    worst_bond = int(ratio.max(axis=(0, 1)).argmax())
    note = f"atoms {i[worst_bond]} and {j[worst_bond]}"
    return _below("bonds", ratio, LONGEST, "times the start", note)
