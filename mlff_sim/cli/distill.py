"""`mlff-sim distill`: make a student."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from mlff_sim.cli.console import out as console
from mlff_sim.cli.console import progress_bar, writable_file
from mlff_sim.cli.options import CompileTeacher, Seed, Structure, numbers
from mlff_sim.errors import InputError


def distill(
    structure: Structure,
    teacher: Annotated[
        str, typer.Option("--teacher", metavar="NAME", help="The model to imitate; see mlff-sim models.")
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="Student file to write (safetensors, any suffix).")
    ],
    temperature_K: Annotated[
        str,
        typer.Option(
            "--temperature-K",
            metavar="T[,T...]",
            help="Frames are sampled between the lowest and the highest; the error is reported at the lowest.",
        ),
    ] = "300,500",
    budget: Annotated[
        str, typer.Option("--budget", metavar="TIME", help="Wall time in all, e.g. 90s, 6min, 2h.")
    ] = "6min",
    target_mae: Annotated[
        float | None,
        typer.Option(
            "--target-mae", metavar="MEV_PER_A", help="Stop once the force error on the test trajectory is below."
        ),
    ] = None,
    width: Annotated[
        str | None,
        typer.Option(
            "--width", metavar="N[,N...]", help="Hidden widths. [default: 256,256; 384,384 above 100 pairs of atoms]"
        ),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="FILE",
            help="Begin with a student of the same molecule and a cheaper teacher, and tune it with a few hundred labels.",
        ),
    ] = None,
    seed: Seed = 0,
    labels: Annotated[
        str | None,
        typer.Option(
            "--labels", metavar="FILE", help="More labelled frames to learn from, e.g. the relabel.npz of a run."
        ),
    ] = None,
    compile_teacher: CompileTeacher = False,
) -> int:
    """Distil a teacher into a cheap student of one molecule.

    Rounds of sampling with the student at several temperatures, labels from the teacher, and training. Interrupted,
    the same command takes up where it stopped. Where a label takes seconds, begin with the student of a cheaper teacher
    (--from).

    Example:

      mlff-sim distill --structure ethanol --teacher gfn2-xtb --budget 6min --out ethanol.student
    """
    temperatures = numbers(temperature_K, "--temperature-K", float, "300,500")
    widths = numbers(width, "--width", int, "256,256") if width else None
    seconds = parse_duration(budget)
    writable_file(out)
    if seed < 0:
        raise InputError(f"seed {seed} must not be negative.")
    from mlff_sim.acceleration import Acceleration, Execution
    from mlff_sim.distill import DistillConfig
    from mlff_sim.distill import distill as run
    from mlff_sim.distill.plan import read_start
    from mlff_sim.models.registry import load_model, resolve
    from mlff_sim.structure import read_structure

    config = DistillConfig(
        teacher=teacher,
        temperatures_K=temperatures,
        budget_s=seconds,
        target_mae=target_mae,
        widths=widths,
        seed=seed,
        labels=labels,
        start=start,
    )
    resolve(teacher)
    atoms = read_structure(structure)
    read_start(start, widths, atoms)
    execution = Execution(acceleration=Acceleration(compile=compile_teacher, prune_edges=True))
    model = load_model(teacher, atoms, execution)
    with progress_bar("s") as bar:
        result = run(atoms, model, config, out, bar)
    own = (
        f", {result.own_states_mae:.2f} meV/A on its own states before the last round"
        if result.own_states_mae is not None
        else ""
    )
    console.print(f"force MAE {result.force_mae:.2f} meV/A on {result.tested}{own}")
    console.print(
        f"{result.labels} labels; {result.teacher_s:.0f} s teacher, {result.training_s:.0f} s training, "
        f"{result.sampling_s:.0f} s sampling, {result.test_s:.0f} s test trajectory"
    )
    console.print(f"student: {out}")
    return 0


def parse_duration(text: str) -> float:
    """Seconds of a duration such as 90s, 6min, 1.5h or a plain number of seconds.

    Raises:
        InputError: anything else.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|sec|m|min|h)?\s*", text)
    if not match or not float(match[1]) > 0:
        raise InputError(f"'{text}' is no duration; write for instance 90s, 6min or 2h.")
    return float(match[1]) * {"h": 3600.0, "m": 60.0, "min": 60.0}.get(match[2] or "s", 1.0)
