"""Rows of the verdict table that are only reported: proposals, speed, and how the main run was made."""

from __future__ import annotations

import math
from collections.abc import Iterator

from mlff_sim.report.row import Row, number
from mlff_sim.validation import RunAssessment, Speed
from mlff_sim.validation.assessment import Jumps
from mlff_sim.validation.montecarlo import MonteCarlo

ANGSTROM = "\u00c5"


def reported(run: RunAssessment) -> dict[str, list[Row]]:
    """By part of the table."""
    workers = run.settings.get("teacher_workers") or 1
    return {
        "run": [*(_proposals(run.ghmc, run) if run.ghmc else ()), *(_jumps(run.jumps, run) if run.jumps else ())],
        "speed": list(_speed(run.speed, step_words(run), workers)) if run.speed else [],
        "made": list(_made(run)),
    }


def step_words(run: RunAssessment) -> str:
    """The outer step a figure belongs to, in words; empty for plain runs, which have none."""
    outer = run.settings.get("outer_step_fs")
    return f"At an outer step of {outer:g} fs. " if run.settings.get("kind") == "hybrid" and outer else ""


def _proposals(g: MonteCarlo, run: RunAssessment) -> Iterator[Row]:
    interval = f"(95 %: {100 * g.ci95[0]:.1f} to {100 * g.ci95[1]:.1f})"
    rate = f", {number(g.effective_samples_per_s)} a second" if g.effective_samples_per_s else ""
    m = run.settings.get("proposal_steps")
    made_of = f"{m} outer steps of respa each" if m else "trajectories of the student"
    if g.leaps:
        stride = run.settings["save_interval"] * run.settings["timestep_fs"]
        made_of = f"leaps of {stride:g} fs, {run.settings['k_steps']} in each"
    advice = f"{g.proposals} proposals, {made_of}, accepted on K + U_teacher: the teacher's ensemble, exactly. Time is not physical."
    if g.verdict:
        advice = f"None of {g.proposals} proposals, so nothing was sampled; {g.remedy}."
    yield Row("Proposals accepted", f"{100 * g.acceptance:.1f} % {interval}", "", g.verdict, advice)
    if g.leaps:
        advice = (
            f"Of {g.leaps.tried}; in {g.leaps.unsolved} no midpoint was found, in {g.leaps.one_way} the way back did not lead to the "
            "start. Such a proposal is refused."
        )
        yield Row("Leaps solved both ways", f"{100 * g.leaps.share:.1f} %", "", None, advice)
    tuning = run.settings.get("tuning")
    if tuning:
        tried = ", ".join(f"{t['k_steps']} ({100 * t['acceptance']:.0f} %)" for t in tuning["trials"])
        advice = f"Tuned in the warm-up, then frozen. Tried, with their acceptance: {tried}."
        yield Row("Steps in a trajectory", f"{tuning['k_steps']}", "", None, advice)
    value = f"{number(g.effective_samples)}{rate}"
    yield Row("Effective samples", value, "", None, f"Of the slowest of {len(g.effective)}: {g.slowest}.")


def _jumps(j: Jumps, run: RunAssessment) -> Iterator[Row]:
    s = run.settings
    macro, n = int(s["k_steps"]) * int(s["save_interval"]), int(s["corrector_steps"])
    by = "RESPA" if (s.get("models") or {}).get("student") else "the teacher"
    advice = (
        f"{j.made} of {macro} baseline steps, {n} of the teacher after each. {j.redraws} draws could not be frames and were repeated; "
        f"where none held ({j.dropped}) {by} went on. Time is approximate."
    )
    yield Row("Jumps that held", f"{100 * (1 - j.share):.1f} %", "", None, advice)


def _made(run: RunAssessment) -> Iterator[Row]:
    cadence = run.settings.get("cadence")
    if cadence:
        heating = cadence["predicted"]["heating"]
        foretold = f"{heating['value']:.3f} \N{PLUS-MINUS SIGN} {heating['stderr']:.3f} meV/atom/ps of heating at constant energy"
        advice = f"Foretold before the run and then frozen: {foretold}." + (
            " No longer step was looked at." if cadence["longest"] else ""
        )
        yield Row("Steps per teacher call", f"{cadence['k_steps']}", "", None, advice)
    if not run.settings.get("physical_momenta", True):
        yield Row(
            "Sampled",
            f"positions only ({run.settings['scheme']})",
            "",
            None,
            "Velocities are bounded, so that no outer step resonates. Positions are canonical; momenta are not Maxwell's, "
            "and time is not physical: no rates, spectra or temperatures from this run.",
        )
    stretches = run.settings.get("students_stretches")
    if stretches:
        yield Row(
            "Left to the student",
            f"{len(stretches)} X-H stretches",
            "",
            None,
            "Mollified: the teacher is asked with these bonds at fixed lengths. Conserved is K + U_student(x) + (U_teacher - U_student)(A(x)).",
        )
    heavy = run.settings.get("hydrogen_mass")
    if heavy:
        yield Row(
            "Mass of hydrogens",
            f"{heavy:g} u",
            "",
            None,
            "Taken from the atoms they are bonded to. What is sampled stays the same; hydrogens move more slowly, so that "
            "times, spectra and rates are not the molecule's.",
        )
    student = (run.settings.get("models") or {}).get("student") or {}
    mae = (student.get("errors") or {}).get("force_mae_meV_per_A")
    if mae is not None:
        yield Row(
            "Force error of the student",
            f"{mae:.1f} meV/{ANGSTROM}",
            "",
            None,
            "Mean absolute, on a trajectory of the teacher it never saw.",
        )
    if run.residual is not None and run.residual.size:
        below = "middle model" if run.settings.get("middle") else "student"
        advice = f"Mean absolute difference between teacher and {below}; this is what each outer step corrects."
        yield Row("Force corrected during the run", f"{run.residual.mean():.1f} meV/{ANGSTROM}", "", None, advice)


def _speed(s: Speed, step: str, workers: int) -> Iterator[Row]:
    both = f" In both the teacher had {workers} processes." if workers > 1 else ""
    x = "\N{MULTIPLICATION SIGN}"
    if s.measured:
        m = s.measured
        interval = f" (95 %: {number(m.ci95[0])} to {number(m.ci95[1])})" if m.ci95 else ""
        yield Row(
            "Speed-up, measured",
            f"{number(m.value)}{x}{interval}",
            "",
            None,
            f"{step}Against the teacher alone at {m.baseline_timestep_fs:g} fs, in alternating blocks.{both}",
        )
        if m.baseline_timestep_fs != 1.0:
            yield Row(
                "Speed-up against 1 fs",
                f"{number(m.against(1.0))}{x}",
                "",
                None,
                "The same, had the teacher alone taken steps of 1 fs.",
            )
        if s.investment_s is not None:
            even = s.break_even_ps
            value = "never" if even is None else f"{number(even)} ps"
            if s.break_even_ci95:
                low, high = ("never" if not math.isfinite(end) else number(end) for end in s.break_even_ci95)
                value += f" (95 %: {low} to {high})" if low != high else ""
            yield Row("Pays for itself after", value, "", None, f"{number(s.investment_s)} s went into what is fast.")
    if s.predicted is not None:
        advice = "k t_b / (t_e + c t_c) with c student calls in an outer step, from the times of single calls."
        if s.ratio is not None:
            advice += f" Measured / predicted: {s.ratio:.2f}."
        yield Row("Speed-up, predicted", f"{number(s.predicted)}{x}", "", None, advice)
