"""What the speed is, what it was predicted to be, and when the distillation has paid for itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlff_sim.forces import Array


@dataclass(frozen=True)
class Speedup:
    """Measured ratio of baseline to hybrid wall time per simulated time.

    Attributes:
        value: ratio of the medians.
        ci95: bootstrap interval; None with fewer than three blocks of either.
        hybrid_s_per_ps: s/ps, median.
        baseline_s_per_ps: s/ps, median, at `baseline_timestep_fs`.
        baseline_timestep_fs: fs, step of the all-teacher baseline that was timed.
        blocks: blocks timed, of whichever has fewer.
    """

    value: float
    ci95: tuple[float, float] | None
    hybrid_s_per_ps: float
    baseline_s_per_ps: float
    baseline_timestep_fs: float
    blocks: int

    def against(self, timestep_fs: float) -> float:
        """The ratio to a baseline of another time step: a step costs the same, only their number changes."""
        return self.value * self.baseline_timestep_fs / timestep_fs

    def break_even_ps(self, investment_s: float) -> float | None:
        """Simulated time in ps from which the hybrid, with what was spent up front, is the shorter way; None if never."""
        saved = self.baseline_s_per_ps - self.hybrid_s_per_ps
        return investment_s / saved if saved > 0 else None


def measured_speedup(
    block_hybrid: Array, block_baseline: Array, baseline_timestep_fs: float = 0.5, *, seed: int = 0
) -> Speedup:
    """Ratio of median wall times of alternating blocks, with a bootstrap interval.

    Neighbouring blocks share the mood of the machine, so they are drawn in pairs where both lists are equally
    long; otherwise (the baseline timed after every few blocks only) each list is drawn by itself.

    Args:
        block_hybrid: s/ps, shape (blocks,).
        block_baseline: s/ps, shape (baseline blocks,), measured in turns with the other.
        baseline_timestep_fs: fs, step of the baseline.
        seed: of the bootstrap.
    """
    h, b = np.asarray(block_hybrid, dtype=np.float64), np.asarray(block_baseline, dtype=np.float64)
    if h.ndim != 1 or b.ndim != 1 or not len(h) or not len(b):
        raise ValueError(f"blocks of shapes {h.shape} and {b.shape}: give two lists of at least one block each.")
    if not ((h > 0) & np.isfinite(h)).all() or not ((b > 0) & np.isfinite(b)).all():
        raise ValueError("seconds per ps must be positive and finite.")
    ci95 = None
    if min(len(h), len(b)) >= 3:
        rng = np.random.default_rng(seed)
        draw_b = rng.integers(len(b), size=(2000, len(b)))
        draw_h = draw_b if len(h) == len(b) else rng.integers(len(h), size=(2000, len(h)))
        ratios = np.median(b[draw_b], axis=1) / np.median(h[draw_h], axis=1)
        low, high = np.quantile(ratios, [0.025, 0.975])
        ci95 = (float(low), float(high))
    hm, bm = float(np.median(h)), float(np.median(b))
    return Speedup(bm / hm, ci95, hm, bm, baseline_timestep_fs, min(len(h), len(b)))
