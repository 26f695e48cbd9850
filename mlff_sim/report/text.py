"""The rows of the verdict table, one source for the terminal and the HTML page."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mlff_sim.report.findings import lines
from mlff_sim.report.parts import HEADINGS, part_of
from mlff_sim.report.reported import reported, step_words
from mlff_sim.report.row import Row, compared, number
from mlff_sim.validation import Assessment, Drift, GroupTemperature, RdfResult, RunAssessment, Verdict

PARTS = {"nve": "energy conservation", "temperature": "temperature", "rdf": "structure"}
"""Parts of an assessment that a claim of the same physics rests on."""
ORDER = [Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.PASS, None]
"""Of the rows under a heading."""
STYLES = {Verdict.PASS: "green", Verdict.FAIL: "bold red", Verdict.INCONCLUSIVE: "yellow", None: "dim"}


def headline(assessment: Assessment) -> tuple[str, str]:
    """The verdict in words anybody understands: a title and a sentence."""
    hybrid = assessment.main.settings.get("kind") == "hybrid"
    verdict = assessment.verdict
    if verdict is Verdict.PASS:
        within = "Everything that was judged is within its limits, and the runs were long enough to tell."
        # In a certificate at constant energy temperatures are held to those of plain Verlet, for want of a bath.
        judged = {"temperature"} if assessment.worst_of("differences") else set()
        missing = [name for part, name in PARTS.items() if part not in judged and assessment.worst_of(part) is None]
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


def rows(assessment: Assessment) -> list[Row]:
    """The table, all parts of it."""
    return [row for _, part in grouped(assessment) for row in part]


def grouped(assessment: Assessment) -> list[tuple[str, list[Row]]]:
    """The table: headings with their rows, what failed first and what is only reported last."""
    found: dict[str, list[Row]] = {part: [] for part in HEADINGS}
    own = {
        run.name: [*_judged(run), *((part_of(f), row) for name, f in run.findings.items() for row in lines(f, name))]
        for run in assessment.runs
    }
    # Where several runs answer one question together, the answer is no single run's.
    several = sum(bool(made) for made in own.values()) > 1
    for run_name, made in own.items():
        tag = f" [{run_name}]" if several else ""
        for part, row in made:
            found[part].append(replace(row, quantity=row.quantity + tag))
    for part, extra in reported(assessment.main).items():
        found[part] += extra
    return [
        (HEADINGS[part], sorted(made, key=lambda r: ORDER.index(r.verdict))) for part, made in found.items() if made
    ]


def remarks(assessment: Assessment) -> list[str]:
    """What was not judged and why, and what was done in reading; without what a row says already."""
    several = len(assessment.runs) > 1
    own = [f"{run.name}: {n}" if several else n for run in assessment.runs if run.ended is None for n in run.notes]
    return list(dict.fromkeys([*own, *assessment.notes]))


def tally(assessment: Assessment) -> str:
    """How many of the judged came out how, in words: "12 judged: 1 fail, 11 pass"."""
    judged = [row.verdict for row in rows(assessment) if row.verdict]
    counts = {v.value: judged.count(v) for v in ORDER if v and v in judged}
    return (
        f"{len(judged)} judged: {', '.join(f'{n} {word}' for word, n in counts.items())}" if judged else "None judged"
    )


def _judged(run: RunAssessment) -> Iterator[tuple[str, Row]]:
    if run.ended is not None:
        value = "stopped" if run.ended is Verdict.FAIL else "no"
        yield "run", Row("Run completed", value, "finished", run.ended, " ".join(run.notes))
    if run.drift:
        yield "energy", _drift(run.drift, step_words(run))
    if run.temperatures:
        nvt = run.temperatures.total.target_K is not None
        yield "temperature", _temperature(run.temperatures.total, run.settings.get("temperature_K"))
        if nvt:
            for part in (run.temperatures.by_element, run.temperatures.by_motion):
                yield from (("temperature", _temperature(g)) for g in part.values())
            if run.temperatures.distribution:
                d = run.temperatures.distribution
                yield (
                    "temperature",
                    Row(
                        "Distribution of the kinetic energy",
                        f"p = {d.p_value:.3g}",
                        "0.001",
                        d.verdict,
                        f"{number(d.samples)} independent samples against Maxwell and Boltzmann's.",
                    ),
                )
    if run.rdf:
        yield "structure", _structure(run.rdf)


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
    error = f" \N{PLUS-MINUS SIGN} {g.stderr_K:.1f}" if math.isfinite(g.stderr_K) else ""
    value = f"{g.mean_K:.1f}{error} K" if math.isfinite(g.mean_K) else "-"
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
    value = compared(r.error_percent, r.noise_percent, r.noise95_percent, r.limit_percent, " %")
    return Row("Pair distances", value, f"{r.limit_percent:g} %", r.verdict, r.note)


def print_table(assessment: Assessment, console: Console) -> None:
    """Print verdict, table, notes, and what to do about each judged quantity that did not pass."""
    title, sentence = headline(assessment)
    console.print(Text(f"{assessment.verdict.value.upper()}: {title}", style=STYLES[assessment.verdict]))
    console.print(sentence, markup=False, highlight=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("quantity", "value", "limit", "verdict"):
        table.add_column(column, overflow="fold")
    for heading, part in grouped(assessment):
        table.add_row(Text(heading, style="bold"))
        for row in part:
            word = Text(row.word, style=STYLES[row.verdict])
            table.add_row(Text(f"  {row.quantity}"), Text(row.value), Text(row.limit), word)
    if table.row_count:
        console.print(table)
    for row in rows(assessment):
        if row.verdict not in (None, Verdict.PASS):
            console.print(f"{row.quantity}: {row.advice}", markup=False, highlight=False)
    for note in remarks(assessment):
        console.print(note, markup=False, highlight=False)
