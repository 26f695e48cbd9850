"""Radial distribution functions of all element pairs, in a cell or of a molecule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlff_sim.forces import Array
from mlff_sim.structure import check_cell
from mlff_sim.validation.distances import (
    BIN_A,
    Distribution,
    blocks_of,
    checked,
    histograms,
    pair_distributions,
)
from mlff_sim.validation.images import PairDistances
from mlff_sim.validation.sampling import statistical_inefficiency

COARSE_A = 0.2
"""Width of the bins in A of the histograms that are kept of every frame, to tell how many frames are independent."""


def rdf(
    positions: Array,
    time_ps: Array,
    numbers: NDArray[np.int64],
    cell: Array | None = None,
    *,
    r_max_A: float | None = None,
    bin_A: float = BIN_A,
    block_ps: float | None = None,
    recipe: Mapping[str, Any] | None = None,
) -> Distribution:
    """Radial distribution function of every element pair, in blocks; `compare` holds two of them to each other.

    With a cell, for a bin of volume dV = 4 pi (r2^3 - r1^3) / 3 and P pairs of atoms,

        g(r) = counts(r) / ( P sum over frames dV / V ),

    with every distance that of nearest images, up to half the shortest vector of the reduced lattice. An ideal gas has
    g = 1 at any number of atoms. (Normalised with N^2 in place of N (N - 1), as in books, g of like atoms is smaller by
    (N - 1) / N.) Mean numbers of neighbours within R are those of `coordination`. Without a cell, the normalised
    densities of `pair_distributions`.

    Samples are those of the slowest element pair. In a cell its quantity is sum over r of counts(r) (g(r) - 1) / dV: how
    much a frame looks like the mean structure.

    Args:
        positions: A, shape (frames, replicas, n, 3), wrapped or not; of a molecule, not wrapped.
        time_ps: ps, shape (frames,), evenly spaced.
        numbers: atomic numbers, shape (n,).
        cell: A, rows are vectors, shape (3, 3), (frames, 3, 3) or (frames, replicas, 3, 3); None for a molecule.
        r_max_A: A, where to stop; None for as far as nearest images go.
        bin_A: width of the bins in A.
        block_ps: as for `pair_distributions`.
        recipe: anything to remember with it; `numbers` is added.

    Raises:
        ValueError: wrong shapes, fewer than two frames or atoms, numbers that are not finite, a flat cell, `r_max_A`
            beyond half the shortest lattice vector.
        InputError: a cell that has no room for its atoms.
    """
    x, step_ps = checked(positions, time_ps, numbers)
    if len(numbers) < 2:
        raise ValueError(f"{len(numbers)} atom has no pairs; 2 is the least.")
    if not bin_A > 0:
        raise ValueError(f"bin_A = {bin_A:g} must be more than 0.")
    if cell is None:
        if r_max_A is not None:
            raise ValueError("r_max_A is for cells: the density of a molecule is normalised over all its distances.")
        return pair_distributions(x, time_ps, numbers, block_ps, recipe, bin_A=bin_A)
    frames, replicas = x.shape[:2]
    flat = x.reshape(frames * replicas, -1, 3)
    distances = PairDistances(numbers, _cells(cell, frames, replicas, len(numbers)))
    reach = distances.reach_A if r_max_A is None else r_max_A
    if reach > distances.reach_A * (1 + 1e-9):
        raise ValueError(f"r_max_A = {reach:g} is beyond half the shortest lattice vector, {distances.reach_A:.4g} A.")
    bins = int(np.floor(reach / bin_A * (1 + 1e-12)))
    if bins < 1:
        raise ValueError(f"no bin of {bin_A:g} A fits into the {reach:.3g} A that the cell leaves; take smaller bins.")
    slowest = _slowest(distances, flat, bins * bin_A, frames, replicas)
    blocks = blocks_of(frames, replicas, slowest, None if block_ps is None else block_ps / step_ps)
    counts = histograms(distances, flat, blocks, bins, bin_A)
    edges = np.arange(bins + 1, dtype=np.float64) * bin_A
    density = 1.0 / distances.volumes
    # Frames count by their density, so that the weighted mean over blocks is g of all frames.
    sums = np.array([density[rows].sum() if len(density) > 1 else density[0] * len(rows) for rows in blocks])
    ideal = sums[:, None] * _shells(edges)
    return Distribution(
        edges=edges,
        blocks={pair: c / (distances.pairs[pair] * ideal) for pair, c in counts.items()},
        weights=sums / sums.sum(),
        block_ps=step_ps * len(flat) / len(blocks),
        samples=len(flat) / slowest,
        recipe={
            **(recipe or {}),
            "numbers": [int(z) for z in numbers],
            "bin_A": bin_A,
            "sampled_ps": step_ps * len(flat),
            "frames": len(flat),
            "volume_A3": float(1.0 / density.mean()),
        },
        baseline=1.0,
        counts={pair: c.sum(axis=0) for pair, c in counts.items()},
    )


def coordination(distribution: Distribution, pair: str) -> Array:
    """Mean number of atoms of the second element within r of one of the first, shape (bins,), at the outer edges of bins.

    Args:
        distribution: of `rdf`, with a cell.
        pair: element pair, such as "H-O" for the oxygens around a hydrogen; for those around an oxygen, "O-H".
    """
    from ase.data import atomic_numbers

    first, second = pair.split("-")
    known = "-".join(sorted((first, second)))
    if known not in distribution.counts or "frames" not in distribution.recipe:
        raise ValueError(f"no counts of '{pair}' in a cell; there are {sorted(distribution.counts)}.")
    atoms = distribution.recipe["numbers"].count(atomic_numbers[first])
    ends = 2.0 if first == second else 1.0
    out: Array = ends * np.cumsum(distribution.counts[known]) / (atoms * distribution.recipe["frames"])
    return out


def _cells(cell: Array, frames: int, replicas: int, n: int) -> Array:
    """Cells as (1, 3, 3) or (frames * replicas, 3, 3), checked."""
    c = np.asarray(cell, dtype=np.float64)
    if c.ndim == 3 and c.shape == (frames, 3, 3):
        c = np.broadcast_to(c[:, None], (frames, replicas, 3, 3))
    if c.shape not in ((3, 3), (frames, replicas, 3, 3)):
        raise ValueError(f"cell {c.shape} must be (3, 3), ({frames}, 3, 3) or ({frames}, {replicas}, 3, 3).")
    c = c.reshape(-1, 3, 3)
    if not np.isfinite(c).all():
        raise ValueError("cells must be finite numbers.")
    if len(c) > 1 and (c == c[0]).all():
        c = c[:1]
    check_cell(c[int(np.argmin(np.abs(np.linalg.det(c))))], (True, True, True), n)
    return np.ascontiguousarray(c)


def _shells(edges: Array) -> Array:
    """Volumes in A^3 between spheres, shape (bins,)."""
    out: Array = 4.0 / 3.0 * np.pi * np.diff(edges**3)
    return out


def _slowest(distances: PairDistances, flat: Array, reach: float, frames: int, replicas: int) -> float:
    """Frames per independent sample of the slowest element pair; see `rdf`."""
    bins = max(1, int(np.ceil(reach / COARSE_A)))
    width = reach / bins
    rows = {pair: np.zeros((len(flat), bins), dtype=np.float32) for pair in distances.pairs}
    for piece, pair, d in distances.of(flat, np.arange(len(flat))):
        index = np.minimum(d * (1.0 / width), bins).astype(np.int64) + (bins + 1) * np.arange(len(piece))
        found = np.bincount(index.ravel(), minlength=(bins + 1) * len(piece)).reshape(len(piece), bins + 1)
        rows[pair][piece] += found[:, :bins]
    shells = _shells(np.arange(bins + 1, dtype=np.float64) * width)
    slowest = 1.0
    for pair, count in distances.pairs.items():
        mean = rows[pair].mean(axis=0, dtype=np.float64)
        g = mean / (count * (1.0 / distances.volumes).mean() * shells)
        series = (rows[pair] @ ((g - 1.0) / shells)).reshape(frames, replicas).T
        slowest = max(slowest, statistical_inefficiency(series))
    return slowest
