"""`mlff-sim validate nve` and its sisters: run a model and judge it in one go."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mlff_sim.cli import options as o
from mlff_sim.cli.console import VERDICT_CODES, progress_bar, writable_folder
from mlff_sim.simulation import RunConfig
from mlff_sim.studies import Study, carry_out

Model = Annotated[str, typer.Option("--model", metavar="NAME", help="Any model; see mlff-sim models.")]
Replicas = Annotated[int, typer.Option("--replicas", help="Independent copies; five are the least to judge a drift.")]
WarmPs = Annotated[
    float, typer.Option("--equilibrate-ps", help="Of constant temperature before, with the same model; 0 for none.")
]


def conduct(study: Study, out: Path, against: Path | None = None, drift_limit: float = 0.1) -> int:
    """Make the runs of a study, judge them, tell; the exit code is the verdict's."""
    writable_folder(out)
    first = next(iter(study.runs.values()))
    with progress_bar("steps", 0.0 if first.k_steps == "auto" else first.outer_step_fs / 1000) as bar:
        carry_out(study, out, bar)
    return VERDICT_CODES[o.judge(out, against, drift_limit)]


def nve(
    model: Model,
    structure: o.Structure,
    out: o.Out,
    duration_ps: o.DurationPs = 20.0,
    replicas: Replicas = 5,
    timestep_fs: o.TimestepFs = 0.5,
    temperature_K: o.TemperatureK = 300.0,
    equilibrate_ps: WarmPs = 2.0,
    every: o.Every = None,
    seed: o.Seed = 0,
    drift_limit: Annotated[float, typer.Option("--drift-limit", help="Drift allowed, meV/atom/ps.")] = 0.1,
    compile: o.Compile = True,
    compile_teacher: o.CompileTeacher = False,
    teacher_workers: o.TeacherWorkers = 1,
) -> int:
    """Is the energy of this model conserved? Replicas at constant energy, each from its own thermal start.

    Interrupted, the same command continues.

    Example:

      mlff-sim validate nve --model gfn2-xtb --structure ethanol --duration-ps 20 --out runs/nve
    """
    config = RunConfig(
        structure,
        model,
        ensemble="nve",
        duration_ps=duration_ps,
        replicas=replicas,
        timestep_fs=timestep_fs,
        temperature_K=temperature_K,
        every=every,
        seed=seed,
        compile=compile,
        compile_teacher=compile_teacher,
        teacher_workers=teacher_workers,
    )
    return conduct(Study("nve", {"nve": config}, equilibrate_ps), out, drift_limit=drift_limit)
