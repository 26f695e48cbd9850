"""`results.json`: the assessment under names that other tools rely on. Names may be added, never changed."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlff_sim.report.findings import content
from mlff_sim.validation import Assessment, RunAssessment, method_bars

SHORT = (
    "kind",
    "status",
    "stop",
    "ensemble",
    "scheme",
    "temperature_K",
    "friction_per_ps",
    "friction_by_element",
    "integrator",
    "remove_com",
    "hydrogen_mass",
    "middle_steps",
    "timestep_fs",
    "k_steps",
    "outer_step_fs",
    "duration_ps",
    "equilibrate_ps",
    "replicas",
    "seed",
    "save_interval",
    "corrector_steps",
    "teacher_calls",
    "teacher_workers",
)
"""Settings of each run that `results.json` repeats."""


def results(assessment: Assessment) -> dict[str, Any]:
    """Everything `results.json` holds; a part that does not apply is None.

    Speed, timing, residual and outer step are those of the main run (hybrid before plain, NVT before NVE);
    `nve`, `rdf` and `temperature_K` are those of the run where they came out worst.
    """
    main = assessment.main
    timing = main.settings.get("timing") or {}
    student = (main.settings.get("models") or {}).get("student")
    errors = (student or {}).get("errors") or {}
    out = {
        "format": "mlff-sim-results",
        "version": 1,
        "verdict": assessment.verdict.value,
        "notes": list(assessment.notes),
        "speedup": _speedup(main),
        "timing": {key: timing.get(key) for key in ("teacher_ms", "student_inner_us", "baseline_teacher_ms")}
        if timing
        else None,
        "teacher_calls": main.settings.get("teacher_calls"),
        "outer_step_fs": main.settings.get("outer_step_fs"),
        "nve": _nve(assessment),
        "rdf": _rdf(assessment),
        "temperature_K": _temperature(assessment),
        "residual": None
        if main.residual is None or not main.residual.size
        else {"force_mae_meV_per_A": float(main.residual.mean())},
        "cadence": main.settings.get("cadence"),
        "ghmc": _ghmc(main),
        "kstep": None
        if main.jumps is None
        else {
            "jumps": main.jumps.made,
            "redraws": main.jumps.redraws,
            "fallbacks": main.jumps.dropped,
            "fallback_fraction": main.jumps.share,
        },
        "physical_time": main.settings.get("physical_time", True),
        "student": None if student is None else {"force_mae_meV_per_A": errors.get("force_mae_meV_per_A")},
        "methods": _methods(assessment),
        "runs": [_run(run) for run in assessment.runs],
    }
    clean: dict[str, Any] = strict(out)
    return clean


def _speedup(run: RunAssessment) -> dict[str, Any] | None:
    if run.speed is None:
        return None
    m = run.speed.measured
    return {
        "measured": m.value if m else None,
        "ci95": m.ci95 if m else None,
        "predicted": run.speed.predicted,
        "measured_over_predicted": run.speed.ratio,
        "baseline_timestep_fs": m.baseline_timestep_fs if m else run.settings.get("timestep_fs"),
        "measured_vs_1fs": m.against(1.0) if m else None,
        "break_even_ps": run.speed.break_even_ps,
        "break_even_ci95": run.speed.break_even_ci95,
        "investment_s": run.speed.investment_s,
        "hybrid_s_per_ps": m.hybrid_s_per_ps if m else None,
        "baseline_s_per_ps": m.baseline_s_per_ps if m else None,
    }


def _methods(assessment: Assessment) -> list[dict[str, Any]] | None:
    """Timed ways to simulate, slowest first."""
    if not assessment.methods:
        return None
    bars = method_bars(assessment.methods)
    by_name = {m.name: m for m in assessment.methods}
    return [
        {
            "name": name,
            "s_per_ps": float(middle),
            "ci95": (float(low), float(high)) if math.isfinite(low) else None,
            "rdf_error_percent": by_name[name].error,
        }
        for name, middle, low, high in zip(bars.names, bars.s_per_ps, bars.low, bars.high, strict=True)
    ]


def _ghmc(run: RunAssessment) -> dict[str, Any] | None:
    if run.ghmc is None:
        return None
    g = run.ghmc
    return {
        "acceptance": g.acceptance,
        "acceptance_ci95": g.ci95,
        "proposals": g.proposals,
        "effective_samples": g.effective_samples,
        "effective_samples_per_s": g.effective_samples_per_s,
        "slowest": g.slowest,
        "effective_samples_by_observable": dict(g.effective),
        "k_steps": run.settings.get("k_steps"),
        "proposal_steps": run.settings.get("proposal_steps"),
        "tuning": run.settings.get("tuning"),
        "leaps": None
        if g.leaps is None
        else {
            "tried": g.leaps.tried,
            "unsolved": g.leaps.unsolved,
            "unsolved_on_the_way_back": g.leaps.one_way,
            "stride_fs": run.settings["save_interval"] * run.settings["timestep_fs"],
        },
    }


def _nve(assessment: Assessment) -> dict[str, Any] | None:
    run = assessment.worst_of("nve")
    if run is None or run.drift is None:
        return None
    d = run.drift
    return {
        "slope_meV_per_atom_ps": d.slope,
        "ci95": d.ci95,
        "limit": d.limit,
        "verdict": d.verdict.value,
        "slopes": d.slopes,
        "duration_ps": d.duration_ps,
        "outer_step_fs": run.settings.get("outer_step_fs"),
        "note": d.note,
        "walk_meV_per_atom_root_ps": d.walk,
        "walk_ci95": d.walk_ci95,
        "kT_per_ns_dof": d.kT_per_ns_dof,
        "percent_of_kinetic_per_ps": d.percent_per_ps,
        "mlipaudit_ratio": d.mlipaudit_ratio,
    }


def _rdf(assessment: Assessment) -> dict[str, Any] | None:
    run = assessment.worst_of("rdf")
    if run is None or run.rdf is None:
        return None
    r = run.rdf
    return {
        "error_percent": r.error_percent,
        "noise_percent": r.noise_percent,
        "noise95_percent": r.noise95_percent,
        "limit": r.limit_percent,
        "verdict": r.verdict.value,
        "by_pair": dict(r.by_pair),
        "run_samples": r.run_samples,
        "reference_samples": r.reference_samples,
        "note": r.note,
    }


def _temperature(assessment: Assessment) -> dict[str, Any] | None:
    run = assessment.worst_of("temperature") or assessment.main
    if run.temperatures is None:
        return None
    total, elements = run.temperatures.total, run.temperatures.by_element
    verdict = run.temperatures.verdict
    return {
        "mean": total.mean_K,
        "stderr": total.stderr_K,
        "by_element": {name: g.mean_K for name, g in elements.items()},
        "stderr_by_element": {name: g.stderr_K for name, g in elements.items()},
        "target": total.target_K,
        "verdict": verdict.value if verdict else None,
        "by_motion": {name: g.mean_K for name, g in run.temperatures.by_motion.items()},
        "stderr_by_motion": {name: g.stderr_K for name, g in run.temperatures.by_motion.items()},
        "distribution_p": run.temperatures.distribution.p_value if run.temperatures.distribution else None,
    }


def _run(run: RunAssessment) -> dict[str, Any]:
    return {
        "name": run.name,
        "verdict": run.verdict.value,
        "parts": {name: v.value if v else None for name, v in run.parts.items()},
        "findings": {name: content(finding) for name, finding in run.findings.items()},
        "notes": list(run.notes),
        "formula": run.settings["structure"].get("formula"),
        "equilibration_left_out_ps": run.cut_ps,
        **{key: run.settings.get(key) for key in SHORT},
    }


def strict(value: Any) -> Any:
    """The same with tuples as lists and every number that JSON lacks (nan, inf) as None."""
    if isinstance(value, Mapping):
        return {str(k): strict(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [strict(v) for v in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value


def write_text(path: Path, text: str) -> None:
    """Write a file so that it is there whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_results(content: Mapping[str, Any], path: Path) -> None:
    """Write strict JSON atomically."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")
