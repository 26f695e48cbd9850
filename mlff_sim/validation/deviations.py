"""What one bond, angle or dihedral is off by, and what it would be in other samples of the reference's physics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlff_sim.forces import Array
from mlff_sim.validation.distances import blocks_of
from mlff_sim.validation.internal import Coordinate
from mlff_sim.validation.sampling import statistical_inefficiency

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
        """Frames per independent sample of the slowest of some series."""
        return max(statistical_inefficiency(s.reshape(shape).T, fast=True) for s in series)

    def scale(self, slow: float, samples: tuple[float, float]) -> float:
        """What signed sums of `means` are multiplied by to scatter like the difference of run and reference.

        Args:
            slow: frames of the reference per independent sample.
            samples: effective ones of run and reference.
        """
        if self.count < 2:
            return float("inf")
        memory = 0.5 * slow / self.block_frames  # correlation time in blocks
        mended = 1.0 / (1.0 - memory * -np.expm1(-1.0 / memory))
        ratio = max(self.ratio, samples[1] / samples[0])
        return float(np.sqrt((1.0 + ratio) * mended / (self.count * (self.count - 1.0))))


@dataclass(frozen=True, eq=False)
class Row:
    """One coordinate: by statistic its error and those of pseudo-runs, (draws,); effective samples; distances from the mean."""

    name: str
    errors: dict[str, float]
    pseudo: dict[str, Array]
    samples: float
    spread: tuple[float, float]


def compared(coordinate: Coordinate, p: Array, q: Array, sample: Sampling) -> Row:
    """Compare one coordinate: values of the run and of the reference, shape (equivalents, sets)."""
    measured = _circular if coordinate.kind == "dihedral" else _linear
    series, errors, influences, spread = measured(p, q)
    slow = [sample.inefficiency(s, shape) for s, shape in zip(series, (sample.run, sample.reference), strict=True)]
    samples = (p.shape[1] / slow[0], q.shape[1] / slow[1])
    scale = sample.scale(slow[1], samples)
    with np.errstate(invalid="ignore"):
        pseudo = {k: np.nan_to_num(scale * (sample.signs @ sample.means(v)), nan=np.inf) for k, v in influences.items()}
    return _with_wasserstein(coordinate, p, q, sample, scale, errors, pseudo, min(samples), spread)


def _linear(p: Array, q: Array) -> tuple[Any, dict[str, float], dict[str, Array], tuple[float, float]]:
    """Series to take effective samples of, errors, influence of each frame of the reference on them, distances from the mean."""
    a, b = p[0], q[0]
    mean, width = b.mean(), b.std()
    errors = {"mean": float(a.mean() - mean), "width": float(a.std() - width)}
    off = b - mean
    influences = {"mean": off, "width": (off * off - width**2) / (2 * width) if width > 1e-9 * abs(mean) else 0 * off}
    return ((a,), (b,)), errors, influences, (float(np.sqrt(((a - mean) ** 2).mean())), float(width))


def _circular(p: Array, q: Array) -> tuple[Any, dict[str, float], dict[str, Array], tuple[float, float]]:
    """The same of angles in degrees that close at 360."""
    z, w = np.exp(1j * np.radians(p)).mean(axis=0), np.exp(1j * np.radians(q)).mean(axis=0)
    series = ((z.real, z.imag), (w.real, w.imag))
    long, length = abs(z.mean()), abs(w.mean())
    if length <= ONE_WELL:
        return series, {}, {}, (float("nan"), float("nan"))
    turned = w / (w.mean() / length)
    deviation = np.sqrt(2 * max(1 - length, 0.0))
    errors = {
        "mean": float(np.degrees(np.angle(z.mean() / w.mean()))),
        "width": float(np.degrees(np.sqrt(2 * max(1 - long, 0.0)) - deviation)),
    }
    influences = {
        "mean": np.degrees(turned.imag / length),
        "width": np.degrees((length - turned.real) / deviation) if deviation > 1e-7 else 0 * turned.real,
    }
    centre = np.degrees(np.angle(w.mean()))
    around = [float(np.sqrt((((v - centre + 180) % 360 - 180) ** 2).mean())) for v in (p, q)]
    return series, errors, influences, (around[0], around[1])


def _with_wasserstein(
    coordinate: Coordinate,
    p: Array,
    q: Array,
    sample: Sampling,
    scale: float,
    errors: dict[str, float],
    pseudo: dict[str, Array],
    samples: float,
    spread: tuple[float, float],
) -> Row:
    """Add the Wasserstein distance, from histograms: between edges the difference of two distributions is nearly straight."""
    closed = coordinate.kind == "dihedral"
    low, high = (-180.0, 180.0) if closed else (min(p.min(), q.min()), max(p.max(), q.max()))
    width = max(high - low, 1e-9) / BINS
    theirs, index = (np.minimum((v - low) / width, BINS - 1).astype(np.int64) for v in (p, q))
    cell = (index + BINS * sample.block).ravel()
    blocks = np.bincount(cell, minlength=BINS * sample.count).reshape(sample.count, BINS)
    shares = np.cumsum(blocks / (sample.sizes[:, None] * len(q)), axis=1)
    own = sample.sizes @ shares / sample.sizes.sum()
    difference = np.cumsum(np.bincount(theirs.ravel(), minlength=BINS) / theirs.size) - own

    def distance(off: Array) -> Array:
        if closed:
            off = off - np.median(off, axis=-1, keepdims=True)
        out: Array = width * np.abs(off).sum(axis=-1)
        return out

    errors["wasserstein"] = float(distance(difference))
    if np.isfinite(scale):
        pseudo["wasserstein"] = distance(scale * (sample.signs @ (shares - own)))
    else:
        pseudo["wasserstein"] = np.full(len(sample.signs), np.inf)
    return Row(coordinate.name, errors, pseudo, samples, spread)
