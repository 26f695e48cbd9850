"""Is the structure the same? Distributions of pair distances, their difference, and how much of it is noise.

For a molecule this is the distribution p(r) of the distances of each pair of elements, normalised to 1.
The error of a run is its distance in L1 from the reference, mean over the element pairs:

    error_percent = 100 * mean over pairs of ( integral |p - p_ref| dr / integral p_ref dr )

between 0 (identical) and 200 (disjoint). For bulk matter matbench-discovery normalises the L1 distance of
g(r) by integral |g_ref - 1| dr instead; a molecule has no g(r) that tends to 1.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlff_sim.errors import InputError
from mlff_sim.forces import Array
from mlff_sim.validation.sampling import statistical_inefficiency
from mlff_sim.validation.verdict import Verdict

FORMAT = "mlff-sim distribution 1"
BIN_A = 0.02
"""Width of the bins in A; all distributions share the grid 0, 0.02, 0.04, ..."""
MIN_REFERENCE_SAMPLES = 50.0
"""Effective samples below which a reference decides nothing."""
MAX_BLOCKS = 64
"""More blocks would only make files larger."""
DISTANCES_AT_ONCE = 1_000_000
"""Distances held in memory at a time, 8 MB."""


@dataclass(frozen=True, eq=False)
class Distribution:
    """Pair-distance distributions of a trajectory, kept in blocks so that their noise is known.

    Attributes:
        edges: A, shape (bins + 1,).
        blocks: element pair ("C-H") to probability density per block in 1/A, shape (blocks, bins).
        weights: share of the frames in each block, shape (blocks,), sum 1.
        block_ps: simulated time of a mean block in ps.
        samples: effective independent samples, of the worst element pair, all replicas together.
        recipe: how it was made (numbers, temperature, model, ...), JSON-serialisable.
    """

    edges: Array
    blocks: Mapping[str, Array]
    weights: Array
    block_ps: float
    samples: float
    recipe: Mapping[str, Any] = field(default_factory=dict)

    @property
    def sampled_ps(self) -> float:
        """Simulated time of all blocks together in ps."""
        return self.block_ps * len(self.weights)

    def mean(self, pair: str) -> Array:
        """Probability density of an element pair in 1/A, shape (bins,)."""
        return self.weights @ self.blocks[pair]

    def on_bins(self, bins: int) -> Distribution:
        """The same on a longer grid."""
        extra = bins - (len(self.edges) - 1)
        if extra < 0:
            raise ValueError(f"{len(self.edges) - 1} bins cannot be cut to {bins}.")
        blocks = {pair: np.pad(b, ((0, 0), (0, extra))) for pair, b in self.blocks.items()}
        return Distribution(_edges(bins), blocks, self.weights, self.block_ps, self.samples, self.recipe)

    def save(self, file: Path) -> None:
        """Write one compressed .npz without pickles."""
        arrays = {f"block:{pair}": b.astype(np.float32) for pair, b in self.blocks.items()}
        facts = {"format": FORMAT, "block_ps": self.block_ps, "samples": self.samples, "recipe": dict(self.recipe)}
        with Path(file).open("wb") as stream:
            np.savez_compressed(
                stream,
                allow_pickle=False,
                head=np.array(json.dumps(facts, allow_nan=False)),
                edges=self.edges,
                weights=self.weights,
                **arrays,
            )

    @staticmethod
    def load(file: Path) -> Distribution:
        """Read what `save` wrote.

        Raises:
            InputError: missing file, or one that is not a distribution of this package.
        """
        try:
            with np.load(file, allow_pickle=False) as data:
                head = json.loads(str(data["head"]))
                if head["format"] != FORMAT:
                    raise KeyError(head["format"])
                blocks = {
                    k.removeprefix("block:"): np.asarray(data[k], dtype=np.float64)
                    for k in data.files
                    if k.startswith("block:")
                }
                return Distribution(
                    data["edges"],
                    blocks,
                    data["weights"],
                    float(head["block_ps"]),
                    float(head["samples"]),
                    head["recipe"],
                )
        except FileNotFoundError as error:
            raise InputError(f"reference '{file}' does not exist.") from error
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise InputError(
                f"reference '{file}' is not a distribution written by this package ({type(error).__name__}: {error})."
            ) from error


@dataclass(frozen=True, eq=False)
class RdfResult:
    """Difference of a run from a reference, and the difference two runs of the same physics would show.

    Attributes:
        error_percent: the formula of this module.
        by_pair: the same for each element pair alone.
        noise_percent: its expectation if both were samples of one distribution.
        noise95_percent: its 95 % quantile under the same assumption.
        limit_percent: what counts as the same structure.
        run_samples: effective samples in the run.
        reference_samples: effective samples in the reference.
        verdict: see `compare`.
        note: which rule decided, and what to do next.
        centres: A, shape (bins,).
        run: element pair to density of the run, 1/A.
        reference: element pair to density of the reference, 1/A.
        band: element pair to the standard deviation of their difference that sampling alone explains, 1/A.
    """

    error_percent: float
    by_pair: Mapping[str, float]
    noise_percent: float
    noise95_percent: float
    limit_percent: float
    run_samples: float
    reference_samples: float
    verdict: Verdict
    note: str
    centres: Array
    run: Mapping[str, Array]
    reference: Mapping[str, Array]
    band: Mapping[str, Array]


def element_pairs(numbers: NDArray[np.int64]) -> dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Element pair ("C-H", symbols in alphabetical order) to the indices i < j of its atom pairs."""
    names, kinds = _kinds(numbers)
    i, j = np.triu_indices(len(numbers), 1)
    return {name: (i[kinds == k], j[kinds == k]) for k, name in enumerate(names)}


def _kinds(numbers: NDArray[np.int64]) -> tuple[list[str], NDArray[np.intp]]:
    """Names of the element pairs in alphabetical order, and which of them each atom pair is.

    Atom pairs run as in SciPy's `pdist`: (0, 1), (0, 2), ..., (1, 2), ...
    """
    from ase.data import chemical_symbols

    symbols, which = np.unique([chemical_symbols[z] for z in np.asarray(numbers).tolist()], return_inverse=True)
    i, j = np.triu_indices(len(which), 1)
    low, high = np.minimum(which[i], which[j]), np.maximum(which[i], which[j])
    found, kinds = np.unique(low * len(symbols) + high, return_inverse=True)
    names = [f"{symbols[k // len(symbols)]}-{symbols[k % len(symbols)]}" for k in found]
    return names, kinds


def _edges(bins: int) -> Array:
    """Edges in A of the grid that all distributions share."""
    return np.arange(bins + 1, dtype=np.float64) * BIN_A


def _distances(positions: Array) -> Iterator[Array]:
    """Distances in A of all atom pairs of a molecule, without images, in the order of `pdist`.

    Args:
        positions: A, shape (frames, replicas, n, 3).

    Yields:
        Arrays of shape (some, pairs), of all replicas of one frame after the other; each is overwritten by the next.
    """
    from scipy.spatial.distance import pdist

    replicas, n = positions.shape[1:3]
    pairs, total = n * (n - 1) // 2, len(positions) * replicas
    space = np.empty((max(1, min(total, DISTANCES_AT_ONCE // max(pairs, 1))), pairs))
    for start in range(0, total, len(space)):
        count = min(len(space), total - start)
        for k in range(count):
            pdist(positions[(start + k) // replicas, (start + k) % replicas], out=space[k])
        yield space[:count]


def _chunks(length: int, pieces: int) -> Iterator[slice]:
    """Cut `length` into `pieces` slices whose lengths differ by at most one."""
    bounds = np.linspace(0, length, pieces + 1).round().astype(int)
    return (slice(a, b) for a, b in pairwise(bounds))


def pair_distributions(
    positions: Array,
    time_ps: Array,
    numbers: NDArray[np.int64],
    block_ps: float | None = None,
    recipe: Mapping[str, Any] | None = None,
) -> Distribution:
    """Distributions of the pair distances of a molecule, in blocks of replicas and time.

    Args:
        positions: A, shape (frames, replicas, n, 3), not wrapped.
        time_ps: ps, shape (frames,), evenly spaced.
        numbers: atomic numbers, shape (n,).
        block_ps: length of a block in time. Default: as short as 64 blocks in all and two correlation times
            each allow, so that blocks are independent; at least one block per replica (or group of replicas).
        recipe: anything to remember with it; `numbers` is added.

    Returns:
        The blocked distributions.
    """
    x, t = np.asarray(positions, dtype=np.float64), np.asarray(time_ps, dtype=np.float64)
    if x.ndim != 4 or x.shape[0] != len(t) or x.shape[2:] != (len(numbers), 3):
        raise ValueError(f"positions {x.shape} must be (frames, replicas, {len(numbers)}, 3) with {len(t)} frames.")
    if len(t) < 2:
        raise ValueError(f"{len(t)} frame is too few for a distribution; 2 is the least.")
    if not np.isfinite(x).all():
        raise ValueError("positions must be finite numbers.")
    frames, replicas = x.shape[:2]
    step_ps = float((t[-1] - t[0]) / (frames - 1))
    names, kinds = _kinds(numbers)
    number = np.bincount(kinds, minlength=len(names))
    means, longest = [], 0.0
    for d in _distances(x):
        index = kinds + len(names) * np.arange(len(d))[:, None]
        sums = np.bincount(index.ravel(), d.ravel(), len(d) * len(names))
        means.append(sums.reshape(len(d), len(names)) / number)
        longest = max(longest, float(d.max(initial=0.0)))
    series = np.concatenate(means).reshape(frames, replicas, len(names))
    slowest = max([1.0, *(statistical_inefficiency(series[:, :, k].T) for k in range(len(names)))])
    groups = min(replicas, MAX_BLOCKS)
    rows = 2.0 * slowest if block_ps is None else block_ps / step_ps
    pieces = int(np.clip(frames // max(rows, 1.0), 1, max(1, MAX_BLOCKS // groups) if block_ps is None else frames))
    bins = int(np.floor(longest / BIN_A)) + 1
    parts = [(g, c) for g in _chunks(replicas, groups) for c in _chunks(frames, pieces)]
    weights = np.array([(g.stop - g.start) * (c.stop - c.start) for g, c in parts], dtype=np.float64)
    counts = np.zeros((len(parts), len(names) * bins))
    for block, (g, c) in zip(counts, parts, strict=True):
        for d in _distances(x[c, g]):
            index = np.minimum((d / BIN_A).astype(np.intp), bins - 1) + kinds * bins
            block += np.bincount(index.ravel(), minlength=len(block))
    density = counts.reshape(len(parts), len(names), bins) / (weights[:, None] * number * BIN_A)[:, :, None]
    blocks = {name: density[:, k] for k, name in enumerate(names)}
    return Distribution(
        edges=_edges(bins),
        blocks=blocks,
        weights=weights / weights.sum(),
        block_ps=step_ps * frames * replicas / len(weights),
        samples=frames * replicas / slowest,
        recipe={
            **(recipe or {}),
            "numbers": [int(z) for z in numbers],
            "bin_A": BIN_A,
            "sampled_ps": step_ps * frames * replicas,
        },
    )


def compare(
    run: Distribution, reference: Distribution, limit_percent: float = 5.0, *, draws: int = 400, seed: int = 0
) -> RdfResult:
    """Hold the structure of a run to that of a reference.

    Noise: the variance of a bin between the blocks of the reference, scaled to the simulated times of the
    run and of the reference, gives var_run + var_ref, and a Gaussian has E|x| = sqrt(2 / pi) sigma. The 95 %
    quantile comes from a bootstrap over the blocks of the reference with that variance.

    Verdict:
        INCONCLUSIVE: fewer than 50 effective samples in the reference.
        PASS: error <= limit; or error <= noise95 and noise <= limit.
        FAIL: error - noise95 > limit. By the triangle inequality the true distance is at least the error
            less what sampling adds, so this is a lower bound. (Taking off the expected noise in squares
            fails one short run of the right physics in 40.)
        INCONCLUSIVE: anything else.

    Raises:
        InputError: the two are of different molecules, or of different temperatures where both say theirs.
    """
    _check_same_system(run, reference)
    bins = max(len(run.edges), len(reference.edges)) - 1
    run, reference = run.on_bins(bins), reference.on_bins(bins)
    pairs = list(reference.blocks)
    p = np.stack([run.mean(k) for k in pairs])
    q = np.stack([reference.mean(k) for k in pairs])
    by_pair = _l1_percent(p - q, q)
    error = float(by_pair.mean())
    blocks = np.stack([reference.blocks[k] for k in pairs])
    times = reference.weights * reference.sampled_ps
    if len(times) > 1:
        # Unbiased for blocks of unequal weight; with equal ones this is the usual B / (B - 1).
        centred = blocks - q[:, None]
        square = np.einsum("b,pbx->px", reference.weights, centred**2)
        mean_block = float((reference.weights * times).sum())
        scale2 = mean_block * (1.0 / run.sampled_ps + 1.0 / reference.sampled_ps) / (1.0 - (reference.weights**2).sum())
        band = np.sqrt(scale2 * square)
        noise = float(_l1_percent(np.sqrt(2.0 / np.pi) * band, q).mean())
        noise95 = _noise95(centred, q, float(np.sqrt(scale2)), draws, seed)
    else:
        band, noise, noise95 = np.full_like(q, np.inf), float("inf"), float("inf")
    verdict, note = _judge(error, noise, noise95, limit_percent, reference.samples)
    return RdfResult(
        error_percent=error,
        by_pair=dict(zip(pairs, by_pair.tolist(), strict=True)),
        noise_percent=noise,
        noise95_percent=noise95,
        limit_percent=limit_percent,
        run_samples=run.samples,
        reference_samples=reference.samples,
        verdict=verdict,
        note=note,
        centres=0.5 * (run.edges[1:] + run.edges[:-1]),
        run=dict(zip(pairs, p, strict=True)),
        reference=dict(zip(pairs, q, strict=True)),
        band=dict(zip(pairs, band, strict=True)),
    )


def _l1_percent(difference: Array, reference: Array) -> Array:
    """100 * integral |difference| / integral reference over the last axis."""
    out: Array = 100.0 * np.abs(difference).sum(axis=-1) / reference.sum(axis=-1)
    return out


def _noise95(centred: Array, q: Array, scale: float, draws: int, seed: int) -> float:
    """95 % quantile of the error of pseudo-runs: the blocks of the reference about their mean, with random signs.

    Signs (the wild bootstrap) rather than drawing with replacement: every draw then has exactly the variance
    of the blocks, at any length of the run, and bins stay correlated the way the blocks correlate them.

    Args:
        centred: blocks less their mean, shape (pairs, blocks, bins).
        q: their mean, shape (pairs, bins).
        scale: standard deviation of the difference in units of the root mean square of `centred`.
        draws: pseudo-runs.
        seed: of the signs.
    """
    b = centred.shape[1]
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(draws, b))
    errors = np.zeros(draws)
    for c, reference in zip(centred, q, strict=True):
        errors += _l1_percent(scale / np.sqrt(b) * (signs @ c), reference)
    return float(np.quantile(errors / len(q), 0.95))


def _judge(error: float, noise: float, noise95: float, limit: float, samples: float) -> tuple[Verdict, str]:
    """The rules of `compare`."""
    if samples < MIN_REFERENCE_SAMPLES:
        return (
            Verdict.INCONCLUSIVE,
            f"The reference holds {samples:.0f} effective samples and {MIN_REFERENCE_SAMPLES:.0f} are needed: sample it longer.",
        )
    if error <= limit:
        return Verdict.PASS, f"The error is within {limit:g} %."
    if error <= noise95 and noise <= limit:
        return (
            Verdict.PASS,
            f"The error exceeds {limit:g} % but sampling alone explains it, and would show {noise:.1f} % on average.",
        )
    if error - noise95 > limit:
        return (
            Verdict.FAIL,
            f"The error is more than sampling explains ({noise95:.1f} %, 19 times in 20): the structure differs.",
        )
    return Verdict.INCONCLUSIVE, f"Sampling alone would show {noise:.1f} %: run longer."


def _check_same_system(run: Distribution, reference: Distribution) -> None:
    """Refuse to compare different molecules or temperatures."""
    a, b = run.recipe.get("numbers"), reference.recipe.get("numbers")
    if (a is not None and b is not None and sorted(a) != sorted(b)) or set(run.blocks) != set(reference.blocks):
        raise InputError(
            f"the run has element pairs {sorted(run.blocks)} and the reference {sorted(reference.blocks)}: not the same molecule."
        )
    ta, tb = run.recipe.get("temperature_K"), reference.recipe.get("temperature_K")
    if ta is not None and tb is not None and abs(ta - tb) > 0.5:
        raise InputError(f"the run is at {ta:g} K and the reference at {tb:g} K; compare runs of one temperature.")
