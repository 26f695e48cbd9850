"""Do the numbers of a trajectory belong together? Times with velocities, velocities with kinetic energies.

A file that was thinned without its times, or whose times are in another unit, has wrong drifts and frequencies and looks
sound. Where it holds velocities they tell: atoms go as far as their velocities and the time between frames say.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlff_sim.forces import Array
from mlff_sim.units import PS
from mlff_sim.validation.verdict import Verdict

SPACING_LIMIT = 0.05
"""Relative error of the time between frames that counts as wrong: frames are left out by twos and tens."""
KINETIC_LIMIT = 0.1
"""The same of kinetic energies. Half-step velocities of a leapfrog have (w h)^2 / 4 more than those on the step, 8 % of an
X-H stretch at 1 fs and 2 % of a molecule; hydrogens of 3 u, or a wrong unit, much more."""


@dataclass(frozen=True)
class FrameSpacing:
    """The time between frames that positions and velocities show, against the one that is claimed.

    Attributes:
        claimed_ps: ps.
        measured_ps: ps; not a number where nothing moves.
        uncertainty: relative, of the measured one: how far it may be off where frames resolve little of the motion.
        limit: relative deviation that counts as wrong.
        verdict: FAIL where the deviation exceeds limit and uncertainty together; PASS where both together are within the
            limit; else INCONCLUSIVE.
        note: what the verdict rests on, and what to do.
    """

    claimed_ps: float
    measured_ps: float
    uncertainty: float
    limit: float
    verdict: Verdict
    note: str


def frame_spacing(
    positions: Array,
    momenta: Array,
    masses: Array,
    time_ps: Array,
    cells: Array | None = None,
    limit: float = SPACING_LIMIT,
) -> FrameSpacing:
    """Regress displacements on velocities: the slope is the time between frames.

    Over two intervals h Simpson's rule gives x(t + h) - x(t - h) = 2 h V + O(h^5) with
    V = (v(t - h) + 4 v(t) + v(t + h)) / 6, so the slope of displacement on V, weighted by mass and through the origin,
    is 2 h. In a mode of angular frequency w it is 2 h (1 - (w h)^4 / 180); the trapezoidal rule over one interval has
    h (1 + (w h)^2 / 12) instead. How far the slope may be off is the sum of two numbers that h does not enter:

    - how far the two rules disagree, which shows one frequency that is too fast;
    - the scatter of the slope between modes, sqrt((1 - R^2) / R^2) with R^2 of the regression. A mean is within one
      standard deviation of the median (Hotelling & Solomons, Ann. Math. Stat. 3, 141 (1932),
      doi:10.1214/aoms/1177732911), and the median mode has the right slope where half of the motion is resolved.

    Motion of one frequency only, sampled less than twice a period, looks like slower motion sampled more often and is
    taken for it; the many frequencies of a molecule scatter.

    Args:
        positions: A, consecutive frames, shape (frames, replicas, n, 3).
        momenta: (eV u)^1/2, the same shape.
        masses: u, shape (n,).
        time_ps: ps, shape (frames,), evenly spaced.
        cells: A, shape (frames, replicas, 3, 3), where positions are wrapped into them.
        limit: relative.

    Returns:
        The verdict; INCONCLUSIVE where the frames are too few or too far apart to tell.

    Raises:
        ValueError: shapes that do not fit, values that are not finite, times that do not increase.
    """
    x, p, t = (np.asarray(a, dtype=np.float64) for a in (positions, momenta, time_ps))
    if x.ndim != 4 or x.shape != p.shape or len(x) != len(t) or x.shape[2:] != (len(masses), 3):
        raise ValueError(
            f"positions {x.shape} and momenta {p.shape} must both be ({len(t)}, replicas, {len(masses)}, 3), as the times say."
        )
    if not (np.isfinite(x).all() and np.isfinite(p).all() and np.isfinite(t).all()):
        raise ValueError("positions, momenta and times must be finite numbers.")
    if len(t) < 3:
        return _unsure(
            float("nan"), float("inf"), limit, f"{len(t)} frames are too few to tell their spacing; 3 are needed."
        )
    if np.any(np.diff(t) <= 0):
        raise ValueError("times must increase.")
    claimed = float(np.median(np.diff(t)))
    root = np.sqrt(np.asarray(masses, dtype=np.float64))[:, None]
    step = _displacements(x, cells) * root
    v = p / root  # weighted by the root of the mass as well
    slope, scatter = _slope(step[:-1] + step[1:], (v[:-2] + 4.0 * v[1:-1] + v[2:]) / 3.0)
    coarse, _ = _slope(step, (v[:-1] + v[1:]) / 2.0)
    if not (np.isfinite(scatter) and slope > 0.0):
        return _unsure(
            claimed,
            float("inf"),
            limit,
            "Positions do not follow velocities, or nothing moves: record frames more often.",
        )
    uncertainty = abs(coarse / slope - 1.0) + scatter
    measured, off = slope / PS, abs(slope / PS / claimed - 1.0)
    text = f"Atoms move as if {1e3 * measured:.4g} fs lay between frames, and the times say {1e3 * claimed:.4g}"
    if off > limit + uncertainty:
        note = f"{text}: the times, or the velocities' unit, are wrong."
        return FrameSpacing(claimed, measured, uncertainty, limit, Verdict.FAIL, note)
    if off + uncertainty <= limit:
        return FrameSpacing(claimed, measured, uncertainty, limit, Verdict.PASS, f"{text}.")
    note = f"{text}, but frames are too far apart to resolve the motion (uncertain by {100 * uncertainty:.2g} %); record more often."
    return FrameSpacing(claimed, measured, uncertainty, limit, Verdict.INCONCLUSIVE, note)


def _unsure(claimed: float, uncertainty: float, limit: float, note: str) -> FrameSpacing:
    return FrameSpacing(claimed, float("nan"), uncertainty, limit, Verdict.INCONCLUSIVE, note)


def _displacements(x: Array, cells: Array | None) -> Array:
    """From frame to frame in A, shape (frames - 1, replicas, n, 3); the shortest where atoms are wrapped."""
    step: Array = np.diff(x, axis=0)
    if cells is None:
        return step
    box = np.asarray(cells, dtype=np.float64)[1:]
    return step - np.round(step @ np.linalg.inv(box)) @ box


def _slope(y: Array, x: Array) -> tuple[float, float]:
    """Slope of y on x through the origin, and its relative scatter sqrt((1 - R^2) / R^2)."""
    xy, xx, yy = (float(np.vdot(a, b)) for a, b in ((x, y), (x, x), (y, y)))
    if xx == 0.0 or xy == 0.0:
        return float("nan"), float("inf")
    return xy / xx, float(np.sqrt(max(0.0, yy * xx / xy**2 - 1.0)))


@dataclass(frozen=True)
class KineticConsistency:
    """Kinetic energies as stated, against those of the velocities.

    Attributes:
        ratio: mean stated over mean computed.
        limit: relative deviation that counts as wrong.
        verdict: FAIL beyond the limit, else PASS.
        note: what to look for.
    """

    ratio: float
    limit: float
    verdict: Verdict
    note: str


def kinetic_consistency(
    kinetic_energy: Array, momenta: Array, masses: Array, limit: float = KINETIC_LIMIT
) -> KineticConsistency:
    """Hold kinetic energies that were written beside a trajectory to sum p^2 / 2m of its velocities.

    Both are of the same frames, so that their means differ by no sampling, only by when in a step each was taken.

    Args:
        kinetic_energy: eV, shape (frames, replicas).
        momenta: (eV u)^1/2, shape (frames, replicas, n, 3).
        masses: u, shape (n,).
        limit: relative.

    Raises:
        ValueError: shapes that do not fit, no frames, values that are not finite.
    """
    k, p = np.asarray(kinetic_energy, dtype=np.float64), np.asarray(momenta, dtype=np.float64)
    if p.ndim != 4 or k.shape != p.shape[:2] or p.shape[2:] != (len(masses), 3) or not k.size:
        raise ValueError(
            f"kinetic energies {k.shape} must be (frames, replicas) of momenta {p.shape}, of at least one frame."
        )
    own = 0.5 * np.einsum("frni,frni,n->fr", p, p, 1.0 / np.asarray(masses, dtype=np.float64))
    if not (np.isfinite(k).all() and np.isfinite(own).all()):
        raise ValueError("kinetic energies and momenta must be finite numbers.")
    ratio = float(k.mean() / own.mean()) if own.mean() > 0 else float("inf") if k.mean() > 0 else 1.0
    text = f"The stated kinetic energies are {ratio:.4g} times those of the velocities"
    if abs(ratio - 1.0) > limit:
        note = f"{text}: another unit, other masses (heavy hydrogens?), or a file of another run."
        return KineticConsistency(ratio, limit, Verdict.FAIL, note)
    return KineticConsistency(ratio, limit, Verdict.PASS, f"{text}.")
