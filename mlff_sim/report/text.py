"""The rows of the verdict table, one source for the terminal and the HTML page."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mlff_sim.report.findings import lines
from mlff_sim.report.row import Row
from mlff_sim.validation import Assessment, Drift, GroupTemperature, RdfResult, RunAssessment, Speed, Verdict

ANGSTROM = "\u00c5"
WORDS = {Verdict.PASS: "pass", Verdict.FAIL: "fail", Verdict.INCONCLUSIVE: "inconclusive", None: "reported"}
"""What a verdict is called in tables."""
PARTS = {"nve": "energy conservation", "temperature": "temperature", "rdf": "structure"}
"""Parts of an assessment that a claim of the same physics rests on."""
STYLES = {Verdict.PASS: "green", Verdict.FAIL: "bold red", Verdict.INCONCLUSIVE: "yellow", None: "dim"}


def headline(assessment: Assessment) -> tuple[str, str]:
    """The verdict in words anybody understands: a title and a sentence."""
    hybrid = assessment.main.settings.get("kind") == "hybrid"
    verdict = assessment.verdict
    if verdict is Verdict.PASS:
        within = "Everything that was judged is within its limits, and the runs were long enough to tell."
        missing = [name for part, name in PARTS.items() if assessment.worst_of(part) is None]
        if missing:
            return "Sound, as far as judged", f"{within} Not judged: {', '.join(missing)}."
        return "Same physics" if hybrid else "Sound dynamics", within
    if verdict is Verdict.FAIL:
        title = "Not the same physics" if hybrid else "Not sound dynamics"
        return (
            title,
            "At least one thing that was judged is outside its limits by more than chance explains. Do not use these runs.",
        )
    return (
        "Not enough data to tell",
        "Nothing judged is known to be wrong, but something could not be decided. The table says what would settle it.",
    )


def number(x: float | None, digits: int = 3) -> str:
    """A number for reading, with about `digits` significant digits; "-" for none."""
    if x is None:
        return "-"
    return f"{x:.0f}" if abs(x) >= 10 ** (digits - 1) else f"{x:.{digits}g}"


def rows(assessment: Assessment) -> list[Row]:
    """The table: judged quantities first, then what is only reported."""
    found = {
        run.name: [*_judged(run), *(row for name, f in run.findings.items() for row in lines(f, name))]
        for run in assessment.runs
    }
    # Where several runs answer one question together, the answer is no single run's.
    several = sum(bool(own) for own in found.values()) > 1
    out: list[Row] = []
    for name, own in found.items():
        tag = f" [{name}]" if several else ""
        out += [Row(r.quantity + tag, r.value, r.limit, r.verdict, r.advice) for r in own]
    out += _reported(assessment.main)
    return out


def remarks(assessment: Assessment) -> list[str]:
    """What was not judged and why, and what was done in reading; without what a row says already."""
    several = len(assessment.runs) > 1
    own = [f"{run.name}: {n}" if several else n for run in assessment.runs if run.ended is None for n in run.notes]
    return list(dict.fromkeys([*own, *assessment.notes]))


def _judged(run: RunAssessment) -> Iterator[Row]:
    if run.ended is not None:
        yield Row(
            "Run completed",
            "stopped" if run.ended is Verdict.FAIL else "no",
            "finished",
            run.ended,
            " ".join(run.notes),
        )
    if run.drift:
        yield _drift(run.drift, _step(run))
    if run.temperatures:
        nvt = run.temperatures.total.target_K is not None
        yield _temperature(run.temperatures.total, run.settings.get("temperature_K"))
        if nvt:
            parts = (run.temperatures.by_element, run.temperatures.by_motion)
            yield from (_temperature(g) for part in parts for g in part.values())
            if run.temperatures.distribution:
                d = run.temperatures.distribution
                yield Row(
                    "Distribution of the kinetic energy",
                    f"p = {d.p_value:.3g}",
                    "0.001",
                    d.verdict,
                    f"{number(d.samples)} independent samples against Maxwell and Boltzmann's.",
                )
    if run.rdf:
        yield _structure(run.rdf)


def _drift(d: Drift, step: str) -> Row:
    advice = step + d.note
    if d.verdict is Verdict.FAIL:
        advice = "Take a shorter outer step or a better student; check that the teacher converges tightly. " + d.note
    value = f"{d.slope:+.3f} ({d.ci95[0]:+.3f} to {d.ci95[1]:+.3f}) meV/atom/ps"
    also = []
    if d.kT_per_ns_dof is not None:
        also.append(f"{d.kT_per_ns_dof:+.2g} kT/ns/dof")
    if d.percent_per_ps is not None:
        also.append(f"{d.percent_per_ps:+.2g} % of the mean kinetic energy a ps")
    if d.walk is not None:
        also.append(f"beneath it the energy walks by {d.walk:.2g} meV/atom a root ps")
    advice += f" That is {', '.join(also)}." if also else ""
    return Row("Energy drift, NVE", value, f"\N{PLUS-MINUS SIGN}{d.limit:g} meV/atom/ps", d.verdict, advice)


def _temperature(g: GroupTemperature, asked_K: float | None = None) -> Row:
    name = "Temperature" if g.name == "all" else f"Temperature of {g.name}"
    value = f"{g.mean_K:.1f} \N{PLUS-MINUS SIGN} {g.stderr_K:.1f} K"
    if g.target_K is None:
        asked = f" {asked_K:g} K was asked for; equilibrate longer if this is far off." if asked_K else ""
        return Row(name, value, "", None, "NVE has no bath and keeps what it starts with." + asked)
    limit = f"{g.target_K:g} K \N{PLUS-MINUS SIGN} {g.fail_percent:g} %"
    advice = f"{number(g.samples)} effective samples."
    if g.verdict is Verdict.FAIL:
        advice = (
            "Heated or cooled by more than chance: take a shorter outer step, more friction or a better student. "
            + advice
        )
    elif g.verdict is Verdict.INCONCLUSIVE:
        advice += f" Run longer: three standard errors are {number(100 * g.three_sigma_K / g.target_K, 2)} % and {g.resolve_percent:g} % are needed."
    return Row(name, value, limit, g.verdict, advice)


def _structure(r: RdfResult) -> Row:
    value = f"{r.error_percent:.1f} % (sampling alone: {r.noise_percent:.1f} %, 95 % below {r.noise95_percent:.1f} %)"
    return Row("Structure: pair distances", value, f"{r.limit_percent:g} %", r.verdict, r.note)


def _reported(run: RunAssessment) -> Iterator[Row]:
    if run.speed:
        yield from _speed(run.speed, _step(run), run.settings.get("teacher_workers") or 1)
    if run.ghmc:
        g = run.ghmc
        interval = f"(95 %: {100 * g.ci95[0]:.1f} to {100 * g.ci95[1]:.1f})"
        rate = f", {number(g.effective_samples_per_s)} a second" if g.effective_samples_per_s else ""
        m = run.settings.get("proposal_steps")
        made_of = f"{m} outer steps of respa each" if m else "trajectories of the student"
        advice = f"{g.proposals} proposals, {made_of}, accepted on K + U_teacher: the teacher's ensemble, exactly. Time is not physical."
        if g.verdict:
            advice = f"None of {g.proposals} proposals: nothing was sampled. Take fewer or shorter steps, or a better student."
        yield Row("Proposals accepted", f"{100 * g.acceptance:.1f} % {interval}", "", g.verdict, advice)
        tuning = run.settings.get("tuning")
        if tuning:
            tried = ", ".join(f"{t['k_steps']} ({100 * t['acceptance']:.0f} %)" for t in tuning["trials"])
            advice = f"Tuned in the warm-up, then frozen. Tried, with their acceptance: {tried}."
            yield Row("Steps in a trajectory", f"{tuning['k_steps']}", "", None, advice)
        value = f"{number(g.effective_samples)}{rate}"
        yield Row("Effective samples", value, "", None, f"Of the slowest of {len(g.effective)}: {g.slowest}.")
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


def _step(run: RunAssessment) -> str:
    """The outer step a figure belongs to, in words; empty for plain runs, which have none."""
    outer = run.settings.get("outer_step_fs")
    return f"At an outer step of {outer:g} fs. " if run.settings.get("kind") == "hybrid" and outer else ""


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
            yield Row("Pays for itself after", value, "", None, f"{number(s.investment_s)} s went into the student.")
    if s.predicted is not None:
        advice = "k t_b / (t_e + c t_c) with c student calls in an outer step, from the times of single calls."
        if s.ratio is not None:
            advice += f" Measured / predicted: {s.ratio:.2f}."
        yield Row("Speed-up, predicted", f"{number(s.predicted)}{x}", "", None, advice)


def print_table(assessment: Assessment, console: Console) -> None:
    """Print verdict, table, notes, and what to do about each judged quantity that did not pass."""
    title, sentence = headline(assessment)
    console.print(Text(f"{WORDS[assessment.verdict].upper()}: {title}", style=STYLES[assessment.verdict]))
    console.print(sentence, markup=False, highlight=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("quantity", "value", "limit", "verdict"):
        table.add_column(column, overflow="fold")
    lines = rows(assessment)
    for row in lines:
        word = Text(WORDS[row.verdict], style=STYLES[row.verdict])
        table.add_row(Text(row.quantity), Text(row.value), Text(row.limit), word)
    if lines:
        console.print(table)
    for row in lines:
        if row.verdict not in (None, Verdict.PASS):
            console.print(f"{row.quantity}: {row.advice}", markup=False, highlight=False)
    for note in remarks(assessment):
        console.print(note, markup=False, highlight=False)
