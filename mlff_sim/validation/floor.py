"""How far a run is from the teacher, beside how far the teacher's own replicas are from each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlff_sim.forces import Array
from mlff_sim.validation.deviations import spread
from mlff_sim.validation.distances import BIN_A, histograms
from mlff_sim.validation.images import PairDistances
from mlff_sim.validation.internal import Coordinate, internal_coordinates
from mlff_sim.validation.sampling import student_t
from mlff_sim.validation.structure import LIMITS, UNITS
from mlff_sim.validation.verdict import Verdict

FIGURES = {
    "mean_bond_rmse": (UNITS["bond"], LIMITS["bond"]),
    "mean_angle_rmse": (UNITS["angle"], LIMITS["angle"]),
    "mean_dihedral_rmse": (UNITS["dihedral"], LIMITS["dihedral"]),
    "mean_rdf_l1": ("", 0.05),
}
"""The four figures of `structure_errors`: unit, and by how much one may exceed its floor; 0.05 of L1 are the 5 % of `compare`."""
ALARMS = 0.05
"""Share of sound runs in which any of the four intervals leaves out zero."""


@dataclass(frozen=True, eq=False)
class BesideFloor:
    """One figure of a run beside its floor; `beside_floor` has the formulas.

    Attributes:
        name: of `FIGURES`.
        unit: of everything below; empty for numbers without one.
        value: mean over the replicas of the run.
        floor: mean over the replicas of the teacher.
        floor_spread: standard deviation of these, what two seeds differ by; NaN with fewer than two.
        excess: mean of the differences, value less floor.
        interval: of the excess; those of all four figures hold together in 95 of 100 sound runs.
        limit: what an excess may be.
        values: by replica, shape (replicas,).
        floors: by replica, shape (replicas,).
    """

    name: str
    unit: str
    value: float
    floor: float
    floor_spread: float
    excess: float
    interval: tuple[float, float]
    limit: float
    values: Array
    floors: Array

    @property
    def seen(self) -> bool:
        """Whether the run differs from the teacher by more than seeds do."""
        return not self.interval[0] <= 0.0 <= self.interval[1]

    @property
    def verdict(self) -> Verdict:
        """PASS where the whole interval is within the limit, FAIL where all of it is outside, else INCONCLUSIVE."""
        low, high = self.interval
        if -self.limit <= low and high <= self.limit:
            return Verdict.PASS
        return Verdict.FAIL if low > self.limit or high < -self.limit else Verdict.INCONCLUSIVE


def beside_floor(
    run: Array, teacher: Array, numbers: NDArray[np.int64], bonds: Sequence[tuple[int, int]]
) -> dict[str, BesideFloor]:
    """The four figures of each replica of a run, beside those of the teacher's replica that began where it did.

    Replica r of both is held to all replicas of the teacher but r, by the formulas of `structure_errors`:

        value_r = figure(run_r | teacher without r)     floor_r = figure(teacher_r | teacher without r)

    So both have the same reference, and neither is part of it. If the run samples what the teacher does, the two could be
    exchanged, and their difference is zero on average whatever the figure and however long the runs; Student's t over the
    replicas says how well that is known, at a level that the intervals of all figures hold together (Bonferroni). Where the
    teacher's replicas have more frames than the run's are worth they are thinned to as many, evenly: a distribution from fewer
    frames is a rougher one. Frames that stand several times in a row, as where Monte Carlo refuses, are worth (sum w)^2 /
    sum w^2 with w these times (Kish, Survey Sampling (1965), section 11.7).

    Args:
        run: A, shape (frames, replicas, n, 3), not wrapped.
        teacher: the same with any number of frames; as many replicas, two at least.
        numbers: atomic numbers, shape (n,).
        bonds: pairs of bonded atoms; without any, pair distances are all there is.

    Returns:
        By name of figure; without those that the molecule has no coordinates for.

    Raises:
        ValueError: shapes that do not fit, fewer than two frames or replicas, positions that are not finite.
    """
    x, y = (np.asarray(a, dtype=np.float64) for a in (run, teacher))
    if x.ndim != 4 or x.shape[1:] != y.shape[1:] or x.shape[2:] != (len(numbers), 3):
        raise ValueError(f"positions {x.shape} and {y.shape} must be (frames, replicas, {len(numbers)}, 3) of both.")
    if min(len(x), len(y), x.shape[1]) < 2:
        raise ValueError(f"{len(x)} and {len(y)} frames of {x.shape[1]} replicas: two of each are the least.")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("positions must be finite numbers.")
    thin = np.linspace(0, len(y) - 1, min(_worth(x), len(y))).round().astype(np.int64)
    found = _spreads(x, y, thin, numbers, bonds) if len(bonds) else {}
    found["mean_rdf_l1"] = _differences(x, y, thin, numbers)
    share = ALARMS / (2 * len(FIGURES))
    return {k: _beside(k, values, floors, 1 - share) for k, (values, floors) in found.items()}


def _worth(x: Array) -> int:
    """Frames of a replica that are as many as theirs, repetitions counted for what they are worth; two at least."""
    worth = []
    for frames in x.swapaxes(0, 1):
        new = np.flatnonzero((frames[1:] != frames[:-1]).any(axis=(1, 2))) + 1
        times = np.diff([0, *new, len(frames)])
        worth.append(len(frames) ** 2 / (times.astype(np.float64) ** 2).sum())
    return max(2, round(float(np.mean(worth))))


Pair = tuple[Array, Array]
"""Values and floors, shape (replicas,)."""


def _beside(name: str, values: Array, floors: Array, quantile: float) -> BesideFloor:
    unit, limit = FIGURES[name]
    off, count = values - floors, len(values)
    width = float(student_t(quantile, count - 1.0) * off.std(ddof=1) / np.sqrt(count))
    mean = float(off.mean())
    return BesideFloor(
        name=name,
        unit=unit,
        value=float(values.mean()),
        floor=float(floors.mean()),
        floor_spread=float(floors.std(ddof=1)),
        excess=mean,
        interval=(mean - width, mean + width),
        limit=limit,
        values=values,
        floors=floors,
    )


def _spreads(
    x: Array, y: Array, thin: NDArray[np.int64], numbers: NDArray[np.int64], bonds: Sequence[tuple[int, int]]
) -> dict[str, Pair]:
    """Mean over coordinates of the distance from the mean of the reference, for each kind there is."""
    replicas = y.shape[1]
    flat = [np.ascontiguousarray(a.reshape(-1, len(numbers), 3).transpose(2, 1, 0)) for a in (x, y)]
    by_kind: dict[str, list[NDArray[np.float64]]] = {}
    for c in internal_coordinates(numbers, bonds, flat[1]):
        p, q = (c.values(f).reshape(-1, len(a), replicas) for f, a in zip(flat, (x, y), strict=True))
        by_kind.setdefault(c.kind, []).append(_of(c, p, q, thin))
    found: dict[str, Pair] = {}
    for kind, rows in by_kind.items():
        table = np.array(rows)
        known = np.isfinite(table).all(axis=(1, 2))
        if known.any():  # dihedrals that visit several wells have no mean
            values, floors = table[known].mean(axis=0)
            found[f"mean_{kind}_rmse"] = (values, floors)
    return found


def _of(c: Coordinate, p: Array, q: Array, thin: NDArray[np.int64]) -> Array:
    """Of each replica of run and teacher, shape (2, replicas), from values of shape (equivalents, frames, replicas)."""
    out = np.empty((2, q.shape[2]))
    for r in range(q.shape[2]):
        others = np.delete(q, r, axis=2)
        out[:, r] = spread(c, p[:, :, r], others), spread(c, q[:, thin, r], others)
    return out


def _differences(x: Array, y: Array, thin: NDArray[np.int64], numbers: NDArray[np.int64]) -> Pair:
    """Mean over element pairs of integral |p - p_ref| dr."""
    distances = PairDistances(numbers)
    longest = max(float(np.linalg.norm(np.ptp(a, axis=2), axis=-1).max()) for a in (x, y))
    bins = int(longest / BIN_A) + 2
    mine, own, all_frames = (_densities(a, distances, bins) for a in (x, y[thin], y))
    out = np.zeros((2, x.shape[1]))
    for pair, p in mine.items():
        others = (all_frames[pair].sum(axis=0) - all_frames[pair]) / (x.shape[1] - 1)
        out[0] += np.abs(p - others).sum(axis=1) / len(mine)
        out[1] += np.abs(own[pair] - others).sum(axis=1) / len(mine)
    return out[0], out[1]


def _densities(x: Array, distances: PairDistances, bins: int) -> Mapping[str, Array]:
    """Element pair to the share of distances in each bin, of each replica, shape (replicas, bins)."""
    frames, replicas, n = x.shape[:3]
    rows = np.arange(frames * replicas).reshape(frames, replicas).T
    counts = histograms(distances, x.reshape(-1, n, 3), list(rows), bins, BIN_A)
    return {pair: c / (frames * distances.pairs[pair]) for pair, c in counts.items()}
