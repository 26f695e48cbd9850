"""Methods side by side: what a picosecond costs, and what accuracy a second buys. Arrays for two plots, drawn elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mlff_sim.forces import Array
from mlff_sim.validation.breakeven import DRAWS, FEWEST, Rate

DAY_S = 86400.0
PS_PER_NS = 1000.0


@dataclass(frozen=True, eq=False)
class Method:
    """One way to simulate.

    Attributes:
        name: as it stands on the axis.
        block_s_per_ps: s/ps, shape (blocks,).
        error: how far its results are from the reference, in any unit that all methods share; None if unknown.
        error_stderr: its standard error, or the seed-to-seed floor.
        rate: effective samples a second; None if unknown.
    """

    name: str
    block_s_per_ps: Array
    error: float | None = None
    error_stderr: float = 0.0
    rate: Rate | None = None


@dataclass(frozen=True, eq=False)
class MethodBars:
    """Bars of wall time, slowest method first.

    Attributes:
        names: of the methods.
        s_per_ps: s/ps, medians, shape (methods,).
        low, high: s/ps, ends of the 95 % bootstrap intervals, NaN with fewer than three blocks, shape (methods,).
    """

    names: tuple[str, ...]
    s_per_ps: Array
    low: Array
    high: Array


@dataclass(frozen=True, eq=False)
class AccuracyPerSecond:
    """Points of error against speed, of the methods whose error is known; up is worse, right is faster.

    Attributes:
        names: of the methods.
        ns_per_day: shape (methods,), with ends `low` and `high` of the 95 % intervals.
        low, high: ns per day, shape (methods,).
        samples_per_s: 1/s, effective samples, NaN where unknown, shape (methods,).
        samples_stderr: 1/s, shape (methods,).
        error: shape (methods,).
        error_stderr: shape (methods,).
        best: True where no other method is both faster and more accurate, shape (methods,).
    """

    names: tuple[str, ...]
    ns_per_day: Array
    low: Array
    high: Array
    samples_per_s: Array
    samples_stderr: Array
    error: Array
    error_stderr: Array
    best: Array


def method_bars(methods: Sequence[Method], *, seed: int = 0) -> MethodBars:
    """What a picosecond costs with each method.

    Raises:
        ValueError: no method, two of one name, or times that are not positive and finite.
    """
    _check(methods)
    middle = np.array([float(np.median(m.block_s_per_ps)) for m in methods])
    ends = np.array([_ends(m, seed) for m in methods])
    order = np.argsort(-middle, kind="stable")
    return MethodBars(tuple(methods[i].name for i in order), middle[order], ends[order, 0], ends[order, 1])


def accuracy_per_second(methods: Sequence[Method], *, seed: int = 0) -> AccuracyPerSecond:
    """What accuracy a second buys with each method whose error is known.

    Raises:
        ValueError: as `method_bars`, or no method with an error.
    """
    known = [m for m in methods if m.error is not None]
    _check(known)
    bars = {m.name: (float(np.median(m.block_s_per_ps)), *_ends(m, seed)) for m in known}
    speed = DAY_S / PS_PER_NS / np.array([bars[m.name] for m in known])
    error = np.array([float(m.error or 0.0) for m in known])
    fast = speed[:, 0]
    beaten = [((fast >= f) & (error <= e) & ((fast > f) | (error < e))).any() for f, e in zip(fast, error, strict=True)]
    return AccuracyPerSecond(
        names=tuple(m.name for m in known),
        ns_per_day=fast,
        low=speed[:, 2],
        high=speed[:, 1],
        samples_per_s=np.array([m.rate.value if m.rate else np.nan for m in known]),
        samples_stderr=np.array([m.rate.stderr if m.rate else np.nan for m in known]),
        error=error,
        error_stderr=np.array([m.error_stderr for m in known]),
        best=~np.array(beaten),
    )


def _ends(method: Method, seed: int) -> tuple[float, float]:
    """Ends of the 95 % bootstrap interval of the median."""
    blocks = np.asarray(method.block_s_per_ps, dtype=np.float64)
    if len(blocks) < FEWEST:
        return np.nan, np.nan
    draws = np.random.default_rng(seed).integers(len(blocks), size=(DRAWS, len(blocks)))
    low, high = np.quantile(np.median(blocks[draws], axis=1), [0.025, 0.975])
    return float(low), float(high)


def _check(methods: Sequence[Method]) -> None:
    """Refuse what has no place in a plot."""
    names = [m.name for m in methods]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"methods {names}: give at least one (with an error), each of a name of its own.")
    for m in methods:
        blocks = np.asarray(m.block_s_per_ps, dtype=np.float64)
        if blocks.ndim != 1 or not len(blocks) or not ((blocks > 0) & np.isfinite(blocks)).all():
            raise ValueError(f"seconds per ps of '{m.name}' must be a list of positive, finite numbers.")
        if m.error is not None and not (np.isfinite(m.error) and m.error >= 0):
            raise ValueError(f"error {m.error} of '{m.name}' must be finite and not negative.")
