"""Is the structure the same? Distributions of pair distances, their difference, and how much of it is noise.

For a molecule this is the distribution p(r) of the distances of each pair of elements, normalised to 1.
The error of a run is its distance in L1 from the reference, mean over the element pairs:

    error_percent = 100 * mean over pairs of ( integral |p - p_ref| dr / integral p_ref dr )

between 0 (identical) and 200 (disjoint). For bulk matter matbench-discovery normalises the L1 distance of
g(r) by integral |g_ref - 1| dr instead, and so does `compare` for what `rdf` makes of frames with a cell; a molecule
has no g(r) that tends to 1.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlff_sim.errors import InputError
from mlff_sim.forces import Array
from mlff_sim.validation.images import PairDistances
from mlff_sim.validation.sampling import ENOUGH_SAMPLES, statistical_inefficiency
from mlff_sim.validation.verdict import Verdict

FORMAT = "mlff-sim distribution 1"
BIN_A = 0.02
"""Width of the bins in A; all distributions share the grid 0, 0.02, 0.04, ..."""
MAX_BLOCKS = 64
"""More blocks would only make files larger."""


@dataclass(frozen=True, eq=False)
class Distribution:
    """Pair-distance distributions of a trajectory, or its g(r), kept in blocks so that their noise is known.

    Attributes:
        edges: A, shape (bins + 1,).
        blocks: element pair ("C-H") to probability density per block in 1/A, or to g(r), shape (blocks, bins).
        weights: share of the frames in each block, shape (blocks,), sum 1.
        block_ps: simulated time of a mean block in ps.
        samples: effective independent samples, of the worst element pair, all replicas together.
        recipe: how it was made (numbers, temperature, model, ...), JSON-serialisable.
        baseline: what matter without structure shows: 0 for a density, 1 for g(r).
        counts: element pair to the distances counted in each bin, shape (bins,); empty in files of before they were kept.
    """

    edges: Array
    blocks: Mapping[str, Array]
    weights: Array
    block_ps: float
    samples: float
    recipe: Mapping[str, Any] = field(default_factory=dict)
    baseline: float = 0.0
    counts: Mapping[str, Array] = field(default_factory=dict)

    @property
    def r(self) -> Array:
        """Centres of the bins in A, shape (bins,)."""
        return 0.5 * (self.edges[1:] + self.edges[:-1])

    @property
    def g(self) -> dict[str, Array]:
        """Element pair to `mean`."""
        return {pair: self.mean(pair) for pair in self.blocks}

    @property
    def sampled_ps(self) -> float:
        """Simulated time of all blocks together in ps."""
        return self.block_ps * len(self.weights)

    def mean(self, pair: str) -> Array:
        """Probability density of an element pair in 1/A, or its g(r), shape (bins,)."""
        return self.weights @ self.blocks[pair]

    def stderr(self, pair: str) -> Array:
        """Standard error of `mean` from the scatter of the blocks, shape (bins,); infinite with one block."""
        free = 1.0 - float((self.weights**2).sum())
        if free <= 0.0:
            return np.full(len(self.edges) - 1, np.inf)
        off = self.blocks[pair] - self.mean(pair)
        out: Array = np.sqrt((self.weights**2) @ off**2 / free)
        return out

    def on_bins(self, bins: int) -> Distribution:
        """The same on a longer grid, or g(r) on a shorter one; a density is normalised and cannot be cut."""
        extra = bins - (len(self.edges) - 1)
        if extra < 0 and not self.baseline:
            raise ValueError(f"{len(self.edges) - 1} bins cannot be cut to {bins}.")
        if extra > 0 and self.baseline:
            raise ValueError(f"g(r) of {len(self.edges) - 1} bins says nothing of {bins}.")

        def fit(a: Array) -> Array:
            return np.pad(a, [(0, 0)] * (a.ndim - 1) + [(0, max(extra, 0))])[..., :bins]

        return replace(
            self,
            edges=_edges(bins, float(self.edges[1])),
            blocks={pair: fit(b) for pair, b in self.blocks.items()},
            counts={pair: fit(c) for pair, c in self.counts.items()},
        )

    def save(self, file: Path) -> None:
        """Write one compressed .npz without pickles."""
        arrays: dict[str, Any] = {f"block:{pair}": b.astype(np.float32) for pair, b in self.blocks.items()}
        arrays |= {f"counts:{pair}": c for pair, c in self.counts.items()}
        facts = {"format": FORMAT, "block_ps": self.block_ps, "samples": self.samples, "recipe": dict(self.recipe)}
        facts["baseline"] = self.baseline
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
                blocks, counts = (
                    {
                        k.removeprefix(kind): np.asarray(data[k], dtype=np.float64)
                        for k in data.files
                        if k.startswith(kind)
                    }
                    for kind in ("block:", "counts:")
                )
                return Distribution(
                    data["edges"],
                    blocks,
                    data["weights"],
                    float(head["block_ps"]),
                    float(head["samples"]),
                    head["recipe"],
                    float(head.get("baseline", 0.0)),
                    counts,
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


def _edges(bins: int, bin_A: float = BIN_A) -> Array:
    """Edges in A of a grid that starts at 0."""
    return np.arange(bins + 1, dtype=np.float64) * bin_A


def chunks(length: int, pieces: int) -> Iterator[slice]:
    """Cut `length` into `pieces` slices whose lengths differ by at most one."""
    bounds = np.linspace(0, length, pieces + 1).round().astype(int)
    return (slice(a, b) for a, b in pairwise(bounds))


def blocks_of(frames: int, replicas: int, slowest: float, block_frames: float | None = None) -> list[NDArray[np.int64]]:
    """Rows of the blocks, of positions whose first two axes (frames, replicas) are made one.

    Args:
        frames: how many there are.
        replicas: the same.
        slowest: frames per independent sample.
        block_frames: length of a block in frames. Default: as short as 64 blocks in all and two correlation times each
            allow, so that blocks are independent; at least one block per replica (or group of replicas).
    """
    groups = min(replicas, MAX_BLOCKS)
    rows = 2.0 * slowest if block_frames is None else block_frames
    most = max(1, MAX_BLOCKS // groups) if block_frames is None else frames
    pieces = int(np.clip(frames // max(rows, 1.0), 1, most))
    grid = np.arange(frames * replicas).reshape(frames, replicas)
    return [grid[c, g].ravel() for g in chunks(replicas, groups) for c in chunks(frames, pieces)]


def checked(positions: Array, time_ps: Array, numbers: NDArray[np.int64]) -> tuple[Array, float]:
    """Positions as float64 (frames, replicas, n, 3), and the time between frames in ps.

    Raises:
        ValueError: wrong shapes, fewer than two frames, numbers that are not finite, times that do not increase.
    """
    x, t = np.asarray(positions, dtype=np.float64), np.asarray(time_ps, dtype=np.float64)
    if x.ndim != 4 or t.ndim != 1 or x.shape[0] != len(t) or x.shape[2:] != (len(numbers), 3) or not x.shape[1]:
        raise ValueError(f"positions {x.shape} must be (frames, replicas, {len(numbers)}, 3) with {t.size} frames.")
    if len(t) < 2:
        raise ValueError(f"{len(t)} frame is too few for a distribution; 2 is the least.")
    if not np.isfinite(x).all():
        raise ValueError("positions must be finite numbers.")
    step = float((t[-1] - t[0]) / (len(t) - 1))
    if not (np.isfinite(t).all() and step > 0):
        raise ValueError("times must be finite numbers that increase.")
    return x, step


def histograms(
    distances: PairDistances, x: Array, blocks: Sequence[NDArray[np.int64]], bins: int, bin_A: float
) -> dict[str, Array]:
    """Element pair to the number of distances in each bin of each block, shape (blocks, bins); those beyond drop out."""
    counts = {pair: np.zeros((len(blocks), bins + 1)) for pair in distances.pairs}
    for b, rows in enumerate(blocks):
        for _, pair, d in distances.of(x, rows):
            index = np.minimum(d * (1.0 / bin_A), bins).astype(np.int64)
            counts[pair][b] += np.bincount(index.ravel(), minlength=bins + 1)
    return {pair: c[:, :bins] for pair, c in counts.items()}


def pair_distributions(
    positions: Array,
    time_ps: Array,
    numbers: NDArray[np.int64],
    block_ps: float | None = None,
    recipe: Mapping[str, Any] | None = None,
    *,
    bin_A: float = BIN_A,
) -> Distribution:
    """Distributions of the pair distances of a molecule, in blocks of replicas and time.

    Args:
        positions: A, shape (frames, replicas, n, 3), not wrapped.
        time_ps: ps, shape (frames,), evenly spaced.
        numbers: atomic numbers, shape (n,).
        block_ps: length of a block in time. Default: as short as 64 blocks in all and two correlation times
            each allow, so that blocks are independent; at least one block per replica (or group of replicas).
        recipe: anything to remember with it; `numbers` is added.
        bin_A: width of the bins in A.

    Returns:
        The blocked distributions.
    """
    x, step_ps = checked(positions, time_ps, numbers)
    frames, replicas = x.shape[:2]
    flat = x.reshape(frames * replicas, -1, 3)
    distances = PairDistances(numbers)
    sums, longest = {pair: np.zeros(len(flat)) for pair in distances.pairs}, 0.0
    for rows, pair, d in distances.of(flat, np.arange(len(flat))):
        sums[pair][rows] += d.sum(axis=0)
        longest = max(longest, float(d.max()))
    series = [sums[pair] / count for pair, count in distances.pairs.items()]
    slowest = max([1.0, *(statistical_inefficiency(s.reshape(frames, replicas).T) for s in series)])
    blocks = blocks_of(frames, replicas, slowest, None if block_ps is None else block_ps / step_ps)
    bins = int(np.floor(longest / bin_A)) + 1
    counts = histograms(distances, flat, blocks, bins, bin_A)
    sizes = np.array([len(rows) for rows in blocks], dtype=np.float64)
    return Distribution(
        edges=_edges(bins, bin_A),
        blocks={pair: c / (sizes[:, None] * distances.pairs[pair] * bin_A) for pair, c in counts.items()},
        weights=sizes / sizes.sum(),
        block_ps=step_ps * len(flat) / len(blocks),
        samples=len(flat) / slowest,
        recipe={
            **(recipe or {}),
            "numbers": [int(z) for z in numbers],
            "bin_A": bin_A,
            "sampled_ps": step_ps * len(flat),
        },
        counts={pair: c.sum(axis=0) for pair, c in counts.items()},
    )


def compare(
    run: Distribution, reference: Distribution, limit_percent: float = 5.0, *, draws: int = 400, seed: int = 0
) -> RdfResult:
    """Hold the structure of a run to that of a reference.

    Of two g(r), the range that both have is compared, and the error is 100 * integral |g - g_ref| dr /
    integral |g_ref - 1| dr.

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
    bins = (min if reference.baseline else max)(len(run.edges), len(reference.edges)) - 1
    run, reference = run.on_bins(bins), reference.on_bins(bins)
    pairs = list(reference.blocks)
    p = np.stack([run.mean(k) for k in pairs])
    q = np.stack([reference.mean(k) for k in pairs])
    norm = np.abs(q - reference.baseline)
    by_pair = _l1_percent(p - q, norm)
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
        noise = float(_l1_percent(np.sqrt(2.0 / np.pi) * band, norm).mean())
        noise95 = _noise95(centred, norm, float(np.sqrt(scale2)), draws, seed)
    else:
        band, noise, noise95 = np.full_like(q, np.inf), float("inf"), float("inf")
    verdict, note = judge(error, noise, noise95, limit_percent, reference.samples)
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
        centres=run.r,
        run=dict(zip(pairs, p, strict=True)),
        reference=dict(zip(pairs, q, strict=True)),
        band=dict(zip(pairs, band, strict=True)),
    )


def _l1_percent(difference: Array, reference: Array) -> Array:
    """100 * integral |difference| / integral reference over the last axis."""
    out: Array = 100.0 * np.abs(difference).sum(axis=-1) / reference.sum(axis=-1)
    return out


def _noise95(centred: Array, norm: Array, scale: float, draws: int, seed: int) -> float:
    """95 % quantile of the error of pseudo-runs: the blocks of the reference about their mean, with random signs.

    Signs (the wild bootstrap) rather than drawing with replacement: every draw then has exactly the variance
    of the blocks, at any length of the run, and bins stay correlated the way the blocks correlate them.

    Args:
        centred: blocks less their mean, shape (pairs, blocks, bins).
        norm: what errors are shares of, shape (pairs, bins).
        scale: standard deviation of the difference in units of the root mean square of `centred`.
        draws: pseudo-runs.
        seed: of the signs.
    """
    b = centred.shape[1]
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(draws, b))
    errors = np.zeros(draws)
    for c, share in zip(centred, norm, strict=True):
        errors += _l1_percent(scale / np.sqrt(b) * (signs @ c), share)
    return float(np.quantile(errors / len(norm), 0.95))


def judge(
    error: float, noise: float, noise95: float, limit: float, samples: float, unit: str = "%"
) -> tuple[Verdict, str]:
    """The rules of `compare`, for any difference in any unit."""
    if samples < ENOUGH_SAMPLES:
        return (
            Verdict.INCONCLUSIVE,
            f"The reference holds {samples:.0f} effective samples and {ENOUGH_SAMPLES:.0f} are needed: sample it longer.",
        )
    if error <= limit:
        return Verdict.PASS, f"The error is within {limit:g} {unit}."
    if error <= noise95 and noise <= limit:
        return (
            Verdict.PASS,
            f"The error exceeds {limit:g} {unit} but sampling alone explains it, and would show {noise:.1f} {unit} on average.",
        )
    if error - noise95 > limit:
        return (
            Verdict.FAIL,
            f"The error is more than sampling explains ({noise95:.1f} {unit}, 19 times in 20): the two differ.",
        )
    return Verdict.INCONCLUSIVE, f"Sampling alone would show {noise:.1f} {unit}: run longer."


def _check_same_system(run: Distribution, reference: Distribution) -> None:
    """Refuse to compare different molecules or temperatures."""
    a, b = run.recipe.get("numbers"), reference.recipe.get("numbers")
    if (a is not None and b is not None and sorted(a) != sorted(b)) or set(run.blocks) != set(reference.blocks):
        raise InputError(
            f"the run has element pairs {sorted(run.blocks)} and the reference {sorted(reference.blocks)}: not the same molecule."
        )
    if run.baseline != reference.baseline:
        raise InputError("one of the two has a cell and the other has none; compare like with like.")
    if abs(run.edges[1] - reference.edges[1]) > 1e-9:
        raise InputError(
            f"the bins are {run.edges[1]:g} A and {reference.edges[1]:g} A wide; compare bins of one width."
        )
    ta, tb = run.recipe.get("temperature_K"), reference.recipe.get("temperature_K")
    if ta is not None and tb is not None and abs(ta - tb) > 0.5:
        raise InputError(f"the run is at {ta:g} K and the reference at {tb:g} K; compare runs of one temperature.")
