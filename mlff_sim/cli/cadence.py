"""`mlff-sim cadence`: which outer step two models allow, before anything is run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from mlff_sim.cli import options as o
from mlff_sim.cli.console import FAIL, PASS, progress_bar, writable_folder
from mlff_sim.cli.console import out as console


def cadence(
    structure: Annotated[
        str,
        typer.Option(
            "--structure", metavar="FILE[@INDEX]", help="A file ASE reads, 'smiles:CC(C)CO', or 'aspirin', 'ethanol'."
        ),
    ],
    teacher: Annotated[
        str, typer.Option("--teacher", metavar="NAME", help="The model whose physics you want; see mlff-sim models.")
    ],
    student: Annotated[
        str, typer.Option("--student", metavar="FILE", help="Student file, shipped student, or any model name.")
    ],
    ensemble: o.Ensemble = "nvt",
    friction_per_ps: o.FrictionPerPs = None,
    scheme: Annotated[
        str, typer.Option("--scheme", metavar="respa|mollified|both", help="How the teacher would correct.")
    ] = "both",
    temperature_K: o.TemperatureK = 300.0,
    timestep_fs: o.TimestepFs = 0.5,
    hydrogen_mass: o.HydrogenMass = None,
    max_outer_fs: Annotated[float, typer.Option("--max-outer-fs", help="Longest outer step to look at.")] = 12.0,
    drift_limit: Annotated[
        float, typer.Option("--drift-limit", help="meV/atom/ps, the most heating at constant energy.")
    ] = 0.1,
    temperature_limit_K: Annotated[
        float, typer.Option("--temperature-limit-K", help="The most by which an element may be off under the bath.")
    ] = 3.0,
    teacher_calls: Annotated[
        int, typer.Option("--teacher-calls", help="For each scheme, about; more make the error bars smaller.")
    ] = 10_000,
    timing: Annotated[
        bool, typer.Option("--timing/--no-timing", help="Time both models, which compiles the student's loop.")
    ] = True,
    seed: o.Seed = 0,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for cadence.json and cadence.html.")] = Path(
        "runs/cadence"
    ),
) -> int:
    r"""Predict the heating, the walk of the energy and the hot elements of every outer step, and recommend one.

    The exit code is 1 where no step is within the limits.

    Example: how often must GFN2-xTB correct the shipped student of aspirin at constant energy?

      mlff-sim cadence --structure aspirin --teacher gfn2-xtb --student aspirin-gfn2 --ensemble nve
    """
    from mlff_sim.simulation.cadence import SCHEMES, CadenceConfig

    friction, by_element = o.friction(friction_per_ps)
    config = CadenceConfig(
        structure=structure,
        teacher=teacher,
        student=student,
        schemes=SCHEMES if scheme == "both" else (scheme,),
        ensemble=ensemble,
        temperature_K=temperature_K,
        friction_per_ps=1.0 if friction is None else friction,
        friction_by_element=by_element,
        hydrogen_mass=hydrogen_mass,
        timestep_fs=timestep_fs,
        max_outer_fs=max_outer_fs,
        drift_limit=drift_limit,
        temperature_limit_K=temperature_limit_K,
        teacher_calls=teacher_calls,
        seed=seed,
    )
    writable_folder(out)
    from mlff_sim.report.cadence import HEADER, sentence, table, write_cadence
    from mlff_sim.simulation.forecast import predict

    with progress_bar("calls") as bar:
        found = predict(config, bar, timing=timing)
    write_cadence(found, out)
    for outlook in found.outlooks:
        shown = Table(box=None, pad_edge=False, title=outlook.scheme, title_justify="left")
        for name in HEADER:
            shown.add_column(name, justify="right")
        for row in table(outlook):
            shown.add_row(*row)
        console.print(shown)
    console.print(sentence(found))
    console.print(f"report: {out / 'cadence.html'}")
    return FAIL if found.recommended is None else PASS
