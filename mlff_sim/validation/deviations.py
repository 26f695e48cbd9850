"""What one bond, angle or dihedral is off by, and what it would be in other samples of the reference's physics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlff_sim.forces import Array
from mlff_sim.validation.distances import blocks_of
from mlff_sim.validation.internal import Coordinate
from mlff_sim.validation.sampling import ENOUGH_SAMPLES, statistical_inefficiency

ONE_WELL = 0.75
"""Mean resultant length above which a dihedral has a mean: an angular deviation of 41 degrees, more than one well has."""
BINS = 120
"""Of the distribution of a coordinate."""


class Sampling:
    """How run and reference were sampled: blocks of the reference, lengths, and the signs of the pseudo-runs."""

    def __init__(
        self,
        run: tuple[int, ...],
        reference: tuple[int, ...],
        step: float,
        reference_step: float,
        draws: int,
        seed: int,
    ) -> None:
        """Cut the reference into blocks and draw the signs."""
        self.run, self.reference = (run[0], run[1]), (reference[0], reference[1])
        blocks = blocks_of(reference[0], reference[1], 1.0)
        self.count = len(blocks)
        self.block: NDArray[np.int64] = np.empty(reference[0] * reference[1], dtype=np.int64)
        for b, rows in enumerate(blocks):
            self.block[rows] = b
        self.sizes = np.array([len(rows) for rows in blocks], dtype=np.float64)
        self.block_frames = reference[0] / max(1, self.count // min(reference[1], self.count))
        self.ratio = reference[0] * reference[1] * reference_step / (run[0] * run[1] * step)
        self.signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(draws, self.count))

    def means(self, series: Array) -> Array:
        """Means of the blocks of a series of the reference, shape (blocks,), less the mean of all."""
        out: Array = np.bincount(self.block, series, self.count) / self.sizes - series.mean()
        return out

    def inefficiency(self, series: Sequence[Array], shape: tuple[int, int]) -> float:
        """Frames per independent sample of the slowest of some series; 1 of what is held rigid and known for certain."""
        moving = [s for s in series if np.ptp(s) > 1e-9 * np.abs(s).max()]
        return max([1.0, *(statistical_inefficiency(s.reshape(shape).T, fast=True) for s in moving)])

    def variance(self, means: Array, slow: float) -> float:
        """Of the reference's mean, summed over what `means` of blocks, (blocks, ...), has of each, at `slow` frames a sample."""
        if self.count < 2:
            return float("inf")
        memory = 0.5 * slow / self.block_frames  # correlation time in blocks
        mended = 1.0 / (1.0 - memory * -np.expm1(-1.0 / memory))
        return float((means**2).sum() * mended / (self.count * (self.count - 1.0)))

    def pseudo(self, means: Array, slow: float, least: float, leverage: float) -> Array:
        """What pseudo-runs would be off by, shape (draws, ...): signed sums of `means` that scatter like the difference.

        Args:
            means: of blocks of the reference, shape (blocks, ...).
            slow: frames of the reference per independent sample.
            least: variance of the run's mean if its effective samples were all that it knows, summed over what `means` has. Frames
                that follow a vibration know its mean better than as many apart do: the reference's may, the run's may not.
            leverage: what coefficients of controls, which are estimates, add to the variance of the reference, relative to it.
        """
        square, reference = float((means**2).sum()), self.variance(means, slow)
        if not np.isfinite(reference):
            return np.full((len(self.signs), *means.shape[1:]), np.inf)
        total = (1.0 + leverage) * reference + max(self.ratio * reference, least)
        out: Array = (np.sqrt(total / square) if square else 0.0) * (self.signs @ means)
        return out


@dataclass(frozen=True, eq=False)
class Row:
    """One coordinate: by statistic its error, those of pseudo-runs (draws,) and effective samples; distances from the mean."""

    name: str
    errors: dict[str, float]
    pseudo: dict[str, Array]
    samples: dict[str, float]
    spread: tuple[float, float]


class Controls:
    """Torsions that hop too rarely, and what they shift other coordinates by: regression on cos and sin of m phi, m <= 3.

    Control variates (Lavenberg & Welch, Manage. Sci. 27, 322 (1981), doi:10.1287/mnsc.27.3.322): a quantity v whose
    covariances with features f are known from the reference is compared as v - b . f, free of how often the run happened
    to visit each well. What the wells themselves look like stays in.

    Args:
        run: features, shape (features, sets).
        reference: the same of the reference.
    """

    def __init__(self, run: Array, reference: Array) -> None:
        """Centre the features on the reference and invert their covariance."""
        centre = reference.mean(axis=1, keepdims=True)
        self.run, self.reference = run - centre, reference - centre
        self.inverse = np.linalg.pinv(self.reference @ self.reference.T / reference.shape[1], 1e-6, hermitian=True)
        self.shift: Array = self.run.mean(axis=1)
        self.leverage = float(self.shift @ self.inverse @ self.shift)

    def coefficients(self, covariance: Array) -> Array:
        """b, shape (features, ...), of covariances with the features, shape (features, ...)."""
        out: Array = self.inverse @ covariance
        return out

    def freed(self, run: Array, reference: Array) -> tuple[Array, Array]:
        """Series of one quantity, v - b . f."""
        b = self.coefficients(self.reference @ (reference - reference.mean()) / len(reference))
        return run - b @ self.run, reference - b @ self.reference


def controls_of(
    torsions: Sequence[Coordinate], x: Array, y: Array, sample: Sampling
) -> dict[tuple[int, int], tuple[Array, Array]]:
    """Of torsions with fewer than 50 effective samples in run or reference: the bond they turn about, and their features.

    Args:
        torsions: dihedrals; one about each bond is looked at.
        x: A, shape (3, n, sets), of the run.
        y: the same of the reference.
        sample: how they were sampled.
    """
    found: dict[tuple[int, int], tuple[Array, Array]] = {}
    seen = set()
    for torsion in torsions:
        axis = (torsion.atoms[0][1], torsion.atoms[0][2])
        if axis in seen:
            continue
        seen.add(axis)
        features, fewest = [], float("inf")
        for positions, shape in ((x, sample.run), (y, sample.reference)):
            phi = np.radians(Coordinate("dihedral", torsion.atoms[:1], "").values(positions)[0])
            wave = np.stack([f(m * phi) for m in (1, 2, 3) for f in (np.cos, np.sin)])
            fewest = min(fewest, len(phi) / sample.inefficiency(list(wave[:2]), shape))
            features.append(wave)
        if fewest < ENOUGH_SAMPLES:
            found[axis] = (features[0], features[1])
    return found


def compared(
    coordinate: Coordinate, p: Array, q: Array, sample: Sampling, slow: Mapping[tuple[int, int], tuple[Array, Array]]
) -> Row:
    """Compare one coordinate.

    Args:
        coordinate: which.
        p: its values in the run, shape (equivalents, sets).
        q: its values in the reference.
        sample: how they were sampled.
        slow: of `controls_of`; a dihedral is compared as it is, others without those torsions that turn one of their atoms.
    """
    atoms = set(coordinate.atoms[0])
    near = [f for axis, f in slow.items() if coordinate.kind != "dihedral" and atoms & set(axis)]
    none = (np.empty((0, p.shape[1])), np.empty((0, q.shape[1])))
    controls = Controls(*(np.concatenate([f[k] for f in (none, *near)]) for k in (0, 1)))
    shapes = (sample.run, sample.reference)
    if coordinate.kind == "dihedral":
        series, errors, influences = _circular(p, q)
    else:
        series, errors, influences = _linear(p[0], q[0], controls)
    # Energy is forgotten slowly at low friction, and with it widths; means of what oscillates are known much sooner.
    slowness = {k: [sample.inefficiency(v, f) for v, f in zip(pair, shapes, strict=True)] for k, pair in series.items()}
    slowness["wasserstein"] = [max(v[k] for v in slowness.values()) for k in (0, 1)]
    pseudo, samples = {}, {}
    for statistic, each in slowness.items():
        own = (p.shape[1] / each[0], q.shape[1] / each[1])
        samples[statistic] = min(own)
        drawn = partial(sample.pseudo, slow=each[1], leverage=controls.leverage)
        if statistic in influences:
            influence = influences[statistic]
            pseudo[statistic] = drawn(sample.means(influence), least=float(influence.var()) / own[0])
    # A distribution forgets as its fastest moment does, at least; of several wells only the slowest is known.
    frames = p.shape[1] / min(each[0] for each in slowness.values()) if "width" in slowness else None

    def pseudo_runs(scatter: Array, single: float) -> Array:
        known = single / frames if frames else own[1] / own[0] * sample.variance(scatter, each[1])
        return drawn(scatter, least=known)

    errors["wasserstein"], pseudo["wasserstein"] = _wasserstein(coordinate, p, q, sample, pseudo_runs, controls)
    return Row(coordinate.name, errors, pseudo, samples, (spread(coordinate, p, q), spread(coordinate, q, q)))


def spread(coordinate: Coordinate, p: Array, q: Array) -> float:
    """Root mean square distance of a coordinate from the mean it has in the reference, the shorter way round of dihedrals.

    Args:
        coordinate: which.
        p: its values in the run, A or degrees, any shape of two axes or more, the first of which are equivalents.
        q: its values in the reference.

    Returns:
        A or degrees; NaN of a dihedral that has no mean (`ONE_WELL`).
    """
    if coordinate.kind != "dihedral":
        return float(np.sqrt(((p - q.mean()) ** 2).mean()))
    centre = np.exp(1j * np.radians(q)).mean()
    if abs(centre) <= ONE_WELL:
        return float("nan")
    return float(np.sqrt((((p - np.degrees(np.angle(centre)) + 180) % 360 - 180) ** 2).mean()))


def _linear(a: Array, b: Array, controls: Controls) -> tuple[Any, dict[str, float], dict[str, Array]]:
    """Series to take effective samples of, errors, influence of each frame of the reference on them."""
    mean, width = float(b.mean()), float(b.std())
    run, reference = controls.freed(a, b)
    squares, own = controls.freed((a - mean) ** 2, (b - mean) ** 2)
    shift = float(run.mean()) - mean
    fixed = width <= 1e-9 * abs(mean)
    errors = {"mean": shift, "width": float(np.sqrt(max(squares.mean() - shift**2, 0.0))) - width}
    influences = {"mean": reference - mean, "width": 0 * own if fixed else (own - width**2) / (2 * width)}
    return {"mean": ((run,), (reference,)), "width": ((squares,), (own,))}, errors, influences


def _harmonics(values: Array) -> list[Array]:
    """Series to take effective samples of: of exchanging hydrogens the third harmonic, since their first cancels."""
    orders = (1,) if len(values) == 1 else (1, 3)
    waves = [np.exp(1j * m * np.radians(values)).mean(axis=0) for m in orders]
    return [part for wave in waves for part in (wave.real, wave.imag)]


def _circular(p: Array, q: Array) -> tuple[Any, dict[str, float], dict[str, Array]]:
    """The same of angles in degrees that close at 360."""
    z, w = np.exp(1j * np.radians(p)).mean(axis=0), np.exp(1j * np.radians(q)).mean(axis=0)
    series: Any = {"mean": (_harmonics(p), _harmonics(q))}
    long, length = abs(z.mean()), abs(w.mean())
    if length <= ONE_WELL:
        return series, {}, {}
    turned = w / (w.mean() / length)
    series["width"] = ((z / (w.mean() / length)).real,), (turned.real,)
    deviation = np.sqrt(2 * max(1 - length, 0.0))
    errors = {
        "mean": float(np.degrees(np.angle(z.mean() / w.mean()))),
        "width": float(np.degrees(np.sqrt(2 * max(1 - long, 0.0)) - deviation)),
    }
    influences = {
        "mean": np.degrees(turned.imag / length),
        "width": np.degrees((length - turned.real) / deviation) if deviation > 1e-7 else 0 * turned.real,
    }
    return series, errors, influences


def _wasserstein(
    coordinate: Coordinate,
    p: Array,
    q: Array,
    sample: Sampling,
    drawn: Callable[[Array, float], Array],
    controls: Controls,
) -> tuple[float, Array]:
    """Distance of run and reference, and of pseudo-runs, (draws,), by `drawn` from means of blocks and the variance of one frame.

    From histograms: between their edges the difference of two cumulated distributions is nearly straight.
    """
    closed = coordinate.kind == "dihedral"
    low, high = (-180.0, 180.0) if closed else (min(p.min(), q.min()), max(p.max(), q.max()))
    width = max(high - low, 1e-9) / BINS
    theirs, index = (np.minimum((v - low) / width, BINS - 1).astype(np.int64) for v in (p, q))
    cell = (index + BINS * sample.block).ravel()
    blocks = np.bincount(cell, minlength=BINS * sample.count).reshape(sample.count, BINS)
    shares = np.cumsum(blocks / (sample.sizes[:, None] * len(q)), axis=1)
    own = sample.sizes @ shares / sample.sizes.sum()
    off, scatter = np.cumsum(np.bincount(theirs.ravel(), minlength=BINS) / theirs.size) - own, shares - own
    if len(controls.shift):
        with_features = [np.bincount(index[0], f, BINS) / q.shape[1] for f in controls.reference]
        b = controls.coefficients(np.cumsum(with_features, axis=1))
        off = off - controls.shift @ b
        scatter = scatter - np.stack([sample.means(f) for f in controls.reference], axis=1) @ b

    def distance(off: Array) -> Array:
        if closed:
            off = off - np.median(off, axis=-1, keepdims=True)
        out: Array = width * np.abs(off).sum(axis=-1)
        return out

    # Cumulated shares of a single frame, whose equivalents depend on each other.
    both = np.concatenate([np.maximum(i, j) for i in index for j in index])
    single = float((np.cumsum(np.bincount(both, minlength=BINS) / both.size) - own**2).sum())
    if closed:  # where the circle is cut does not count
        scatter = scatter - scatter.mean(axis=1, keepdims=True)
        single -= float(index.mean(axis=0).var()) / BINS
    pseudo = drawn(scatter, single)
    return float(distance(off)), distance(pseudo) if np.isfinite(pseudo).all() else pseudo[:, 0]
