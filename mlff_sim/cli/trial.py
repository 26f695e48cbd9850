"""`mlff-sim validate nve` and its sisters: run a model and judge it in one go."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from mlff_sim.cli import options as o
from mlff_sim.cli.console import VERDICT_CODES, progress_bar, writable_folder
from mlff_sim.errors import InputError
from mlff_sim.simulation import RunConfig
from mlff_sim.studies import Study, carry_out, trial

Model = Annotated[str, typer.Option("--model", metavar="NAME", help="Any model; see mlff-sim models.")]
Replicas = Annotated[int, typer.Option("--replicas", help="Independent copies; five are the least to judge a drift.")]
WarmPs = Annotated[
    float, typer.Option("--equilibrate-ps", help="Of constant temperature before, with the same model; 0 for none.")
]
Against = Annotated[
    Path | None, typer.Option("--against", metavar="DIR", help="Reference: a run folder, or a reference file (.npz).")
]


def conduct(study: Study, out: Path, against: Path | None = None, drift_limit: float = 0.1) -> int:
    """Make the runs of a study, judge them, tell; the exit code is the verdict's."""
    from mlff_sim.validation.study import reference_for

    writable_folder(out)
    o.check_drift_limit(drift_limit)
    reference_for(study.question, against)
    first = next(iter(study.runs.values()))
    with progress_bar("steps", 0.0 if first.k_steps == "auto" else first.outer_step_fs / 1000) as bar:
        carry_out(study, out, bar)
    return VERDICT_CODES[o.judge(out, against, drift_limit)]


Preset = Annotated[
    str | None,
    typer.Option(
        "--preset",
        metavar="quick",
        help="Of nve: start with the energy that aims at the temperature, and ask for a drift below 1 % and a deviation "
        "below 0.5 % of the kinetic energy, a mean within 20 K, and no broken bond.",
    ),
]


def _verb(question: str, length_ps: float, about: str, example: str) -> Callable[..., int]:
    """The verb of a question: all take the same options."""

    def verb(
        model: Model,
        structure: o.Structure,
        out: o.Out,
        duration_ps: Annotated[float, typer.Option("--duration-ps", help="Length of each replica.")] = length_ps,
        replicas: Replicas = 5,
        timestep_fs: o.TimestepFs = 0.5,
        temperature_K: o.TemperatureK = 300.0,
        friction_per_ps: o.FrictionPerPs = None,
        equilibrate_ps: WarmPs = 2.0,
        every: o.Every = None,
        seed: o.Seed = 0,
        against: Against = None,
        preset: Preset = None,
        drift_limit: o.DriftLimit = 0.1,
        compile: o.Compile = True,
        compile_teacher: o.CompileTeacher = False,
        teacher_workers: o.TeacherWorkers = 1,
    ) -> int:
        if preset not in (None, "quick"):
            raise InputError(f"preset '{preset}' is unknown; there is one, 'quick'.")
        friction, by_element = o.friction(friction_per_ps)
        config = RunConfig(
            structure,
            model,
            duration_ps=duration_ps,
            replicas=replicas,
            timestep_fs=timestep_fs,
            temperature_K=temperature_K,
            friction_per_ps=friction,
            friction_by_element=by_element,
            every=every,
            seed=seed,
            compile=compile,
            compile_teacher=compile_teacher,
            teacher_workers=teacher_workers,
        )
        return conduct(trial(question, config, equilibrate_ps, quick=preset == "quick"), out, against, drift_limit)

    verb.__name__ = question
    verb.__doc__ = f"""{about}

    Interrupted, the same command continues.

    Example:

      mlff-sim validate {question} {example} --out runs/{question}
    """
    return verb


ETHANOL = "--model gfn2-xtb --structure ethanol"
VERBS = (
    _verb(
        "nve",
        20.0,
        "Is the energy of this model conserved? Replicas at constant energy, each from its own thermal start.",
        f"{ETHANOL} --duration-ps 20",
    ),
    _verb(
        "nvt",
        50.0,
        "Does this model hold the temperature of its bath in every element and kind of motion? With --against: is its "
        "structure that of a reference?",
        f"{ETHANOL} --against runs/teacher",
    ),
    _verb(
        "step-size",
        2.0,
        "Does the energy error of this model fall with the square of the time step, as it does for smooth conservative "
        "forces? Runs at twice, once and half of --timestep-fs.",
        ETHANOL,
    ),
    _verb(
        "ensemble",
        50.0,
        "Are the energies of this model under a bath those of Boltzmann? Runs at two temperatures.",
        ETHANOL,
    ),
    _verb(
        "vibrations",
        20.0,
        "Does this model vibrate at its own normal modes? Spectra of velocities, without the integrator's shift.",
        ETHANOL,
    ),
    _verb(
        "stability",
        100.0,
        "How long does this model last, and what breaks first? Replicas under a bath, without guards.",
        f"{ETHANOL} --temperature-K 500 --timestep-fs 1",
    ),
)
"""A verb for each question of `mlff_sim.studies.trial`."""
