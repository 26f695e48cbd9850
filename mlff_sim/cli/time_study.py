"""`mlff-sim time-study`: several molecules, each run in several ways, and what accuracy a second buys."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from mlff_sim.cli import options as o
from mlff_sim.cli.console import FAIL, PASS, progress_bar, writable_folder
from mlff_sim.cli.console import out as console
from mlff_sim.cli.trial import Replicas, WarmPs
from mlff_sim.simulation import RunConfig

if TYPE_CHECKING:
    from mlff_sim.validation.timestudy import TimeTable


def time_study(
    teacher: Annotated[
        str, typer.Option("--teacher", metavar="NAME", help="The model whose physics you want; see mlff-sim models.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the study.")],
    structure: Annotated[
        list[str] | None,
        typer.Option("--structure", metavar="FILE[@INDEX]", help="A molecule, as for hybrid; as often as you like."),
    ] = None,
    molecules: Annotated[
        Path | None,
        typer.Option(
            "--molecules", metavar="FILE", help="A SMILES or structure file on each line, perhaps with a name."
        ),
    ] = None,
    schemes: Annotated[
        str,
        typer.Option(
            "--schemes",
            metavar="NAME[:K],...",
            help="Of teacher, respa, mollified, ghmc, kstep; K inner steps per teacher call (8, 12 and 200 by default). "
            "The teacher alone is run in any case.",
        ),
    ] = "teacher,respa,ghmc",
    students: Annotated[
        str | None,
        typer.Option(
            "--students",
            metavar="DIR|NAME",
            help="A folder with MOLECULE.* for each, or one model for all. [default: distil]",
        ),
    ] = None,
    student_minutes: Annotated[
        float, typer.Option("--student-minutes", help="To distil a student of each molecule in.")
    ] = 2.0,
    predictor: Annotated[
        list[str] | None,
        typer.Option("--predictor", metavar="FILE", help="Of kstep, see mlff-sim train-predictor; repeat it for more."),
    ] = None,
    corrector_fraction: Annotated[
        str,
        typer.Option(
            "--corrector-fraction", metavar="F[,F...]", help="Of kstep: share of a jump that the teacher repeats."
        ),
    ] = "0.05",
    macro_steps: Annotated[
        str, typer.Option("--macro-steps", metavar="S[,S...]", help="Of kstep: steps in a jump.")
    ] = "200",
    save_interval: Annotated[
        int, typer.Option("--save-interval", help="Of kstep: steps between frames it was trained on.")
    ] = 50,
    call_times_only: Annotated[
        bool,
        typer.Option(
            "--call-times-only",
            help="Run a few outer steps of each, and extrapolate the time of the whole; for teachers of which more is unaffordable.",
        ),
    ] = False,
    ensemble: o.Ensemble = "nvt",
    duration_ps: o.DurationPs = 20.0,
    replicas: Replicas = 5,
    timestep_fs: o.TimestepFs = 0.5,
    temperature_K: o.TemperatureK = 300.0,
    friction_per_ps: o.FrictionPerPs = None,
    equilibrate_ps: WarmPs = 2.0,
    seed: o.Seed = 0,
    drift_limit: o.DriftLimit = 0.1,
    compile: o.Compile = True,
    compile_teacher: o.CompileTeacher = False,
    teacher_workers: o.TeacherWorkers = 1,
    on_residual: o.OnResidual = "stop",
) -> int:
    r"""Which way to simulate is worth its time? Several molecules, each run with the teacher alone and in every scheme.

    Wall time, measured and predicted speed-up, and break-even, beside the structure of each run, held to how far the
    teacher's own replicas are from each other. Jumps of kstep have the bath that they need, of 300/ps, and all else that of
    --friction-per-ps. Tables here, results.json and report.html in the folder, written anew after each molecule.
    Interrupted, the same command continues; what is finished is not repeated.

    Exit code 0 when there is a row for every run, whatever it says; 1 when the teacher itself was stopped.

    Example:

      mlff-sim time-study --structure ethanol --structure aspirin --teacher gfn2-xtb \
        --schemes respa:8,mollified:12,ghmc:200 --duration-ps 20 --out runs/time

    Example: a teacher of which a call takes seconds:

      mlff-sim time-study --structure ethanol --teacher dft:pbe/def2-svp --call-times-only --schemes kstep \
        --predictor egnn.predictor --corrector-fraction 0.025,0.05 --duration-ps 1000 --out runs/time-dft
    """
    from mlff_sim.report.timestudy import write_time_study
    from mlff_sim.timestudy import TEACHER, MacroSteps, TimeStudy, carry_out, ways
    from mlff_sim.timestudy import molecules as named
    from mlff_sim.validation.timestudy import TimeTable, judge_folder

    writable_folder(out)
    o.check_drift_limit(drift_limit)
    friction, by_element = o.friction(friction_per_ps)
    macro = MacroSteps(
        tuple(predictor or ()),
        o.numbers(macro_steps, "--macro-steps", int, "200,400"),
        o.numbers(corrector_fraction, "--corrector-fraction", float, "0.025,0.05"),
        save_interval,
    )
    base = RunConfig(
        "",
        teacher,
        ensemble=ensemble,
        duration_ps=duration_ps,
        replicas=replicas,
        timestep_fs=timestep_fs,
        temperature_K=temperature_K,
        friction_per_ps=friction,
        friction_by_element=by_element,
        seed=seed,
        compile=compile,
        compile_teacher=compile_teacher,
        teacher_workers=teacher_workers,
    )
    study = TimeStudy(
        named(structure or [], molecules),
        base,
        ways(schemes.split(","), macro),
        students,
        60.0 * student_minutes,
        equilibrate_ps,
        call_times_only,
        on_residual,
    )
    length = (duration_ps, replicas) if call_times_only else None
    table = TimeTable((), (), duration_ps if call_times_only else None)
    with progress_bar("steps") as bar:
        for name, folder in carry_out(study, out, bar):
            bar.update(0, 1, f"judging {name}")
            cells, notes = judge_folder(name, folder, drift_limit=drift_limit, length=length)
            table = TimeTable((*table.cells, *cells), (*table.notes, *notes), table.extrapolated)
            if table.cells:
                write_time_study(table, out, study.decisive)
    if table.cells:
        _show(table)
        console.print(f"report:  {out / 'report.html'}\nresults: {out / 'results.json'}")
    for note in table.notes:
        console.print(note)
    sound = [c for c in table.of(TEACHER) if c.judged.ended is None]
    return PASS if len(sound) == len(study.molecules) else FAIL


def _show(table: TimeTable) -> None:
    """The tables of the page, and what to take from them."""
    from mlff_sim.report import timestudy as report

    for title, (header, rows) in (
        ("time", report.time_part(table)),
        ("accuracy: figures of the run, in brackets the seed-to-seed floor", report.accuracy_part(table)),
        ("over all molecules", report.mean_part(table)),
    ):
        if not rows:
            continue
        shown = Table(box=None, pad_edge=False, title=title, title_justify="left", title_style="bold")
        for k, name in enumerate(header):
            shown.add_column(name, justify="left" if k < 2 else "right")
        for row in rows:
            shown.add_row(*row)
        console.print(shown)
    title, sentence = report.conclusion(table)
    console.print(f"{title}. {sentence}")
