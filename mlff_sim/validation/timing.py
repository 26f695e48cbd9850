"""Wall times of runs: how fast one is, and several side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from mlff_sim.forces import Array
from mlff_sim.validation.assessment import Run, RunAssessment, Speed
from mlff_sim.validation.breakeven import break_even, sample_rates
from mlff_sim.validation.methods import Method

BASELINE = "teacher alone"
"""What the blocks that alternate with a hybrid run's are called among methods."""
QUANTILE95 = 1.645
"""Standard deviations from the mean of a normal distribution below which 95 % lie."""


def blocks(run: Run, name: str) -> Array:
    """Wall times of a run's own blocks ("hybrid"; of any run) or of the teacher alone ("baseline"), s/ps, shape (blocks,)."""
    return np.asarray(run.wall.get(f"block_{name}_s_per_ps", ()), dtype=np.float64)


def methods(runs: Sequence[Run], judged: Sequence[RunAssessment]) -> tuple[Method, ...]:
    """The runs that were timed, and the teacher alone where the first timed it in blocks that alternate with its own."""
    timed = [method(r, run) for r, run in zip(judged, runs, strict=True) if len(blocks(run, "hybrid"))]
    alone = [b for b in (blocks(run, "baseline") for run in runs) if len(b)]
    found = [*timed, *(Method(BASELINE, b) for b in alone[:1])]
    names = [m.name for m in found]
    return tuple(m if names.count(m.name) == 1 else replace(m, name=f"{m.name} ({k + 1})") for k, m in enumerate(found))


def method(judged: RunAssessment, run: Run) -> Method:
    """A timed run: what a ps costs, how far its structure is from the reference, and effective samples a second."""
    rdf, wall_s = judged.rdf, (run.settings.get("wall_s") or {}).get("total")
    if rdf is None or not np.isfinite([rdf.error_percent, rdf.noise_percent, rdf.noise95_percent]).all():
        return Method(judged.name, blocks(run, "hybrid"))
    rate = None
    if wall_s and np.isfinite(rdf.run_samples) and rdf.run_samples > 0:
        rate = sample_rates({"pair distances": rdf.run_samples}, float(wall_s))["pair distances"]
    stderr = (rdf.noise95_percent - rdf.noise_percent) / QUANTILE95
    return Method(judged.name, blocks(run, "hybrid"), rdf.error_percent, stderr, rate)


def speed(run: Run) -> Speed:
    """Measured and predicted speed of a hybrid run, and when its student has paid."""
    settings = run.settings
    hybrid, baseline = blocks(run, "hybrid"), blocks(run, "baseline")
    predicted = (settings.get("timing") or {}).get("predicted_speedup")
    models = settings.get("models", {})
    fast = "predictor" if "predictor" in models else "student"
    spent = (models.get(fast) or {}).get("seconds")
    if isinstance(spent, Mapping):
        spent = sum(float(s) for s in spent.values()) if spent else None
    investment_s = None if spent is None else float(spent)
    even = None
    if len(hybrid) and len(baseline):
        even = break_even(hybrid, baseline, float(settings["timestep_fs"]), investment_s=investment_s)
    wall = settings.get("wall_s") or {}
    per_ps = {}
    if wall.get("total") and len(hybrid):
        # Shares of the whole run on the median block: compilation and start-up stay out of the speed.
        per_ps = {k: float(np.median(hybrid)) * (wall.get(k) or 0.0) / wall["total"] for k in ("teacher", fast, "rest")}
    return Speed(
        measured=even.measured if even else None,
        predicted=None if predicted is None else float(predicted),
        investment_s=investment_s,
        split_s_per_ps=per_ps,
        break_even_ci95=even.break_even_ci95 if even else None,
    )
