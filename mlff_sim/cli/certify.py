"""`mlff-sim certify`: the fast run against plain Verlet of its teacher."""

from __future__ import annotations

from typing import Annotated

import typer

from mlff_sim.cli import options as o
from mlff_sim.cli.trial import Replicas, WarmPs, conduct
from mlff_sim.errors import InputError
from mlff_sim.simulation import RunConfig, k_from_text
from mlff_sim.studies import Study


def certify(
    structure: o.Structure,
    teacher: Annotated[
        str, typer.Option("--teacher", metavar="NAME", help="The model whose physics you want; see mlff-sim models.")
    ],
    student: Annotated[
        str, typer.Option("--student", metavar="FILE", help="Student file, shipped student, or any model name.")
    ],
    out: o.Out,
    k_steps: Annotated[
        str, typer.Option("--k-steps", metavar="K|auto", help="Inner student steps per teacher call.")
    ] = "auto",
    scheme: Annotated[
        str, typer.Option("--scheme", metavar="respa|mollified|ghmc|sinr|regulated", help="How the teacher corrects.")
    ] = "respa",
    ensemble: o.Ensemble = "nve",
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
    hydrogen_mass: o.HydrogenMass = None,
    teacher_workers: o.TeacherWorkers = 1,
    on_residual: o.OnResidual = "stop",
) -> int:
    r"""Certify a fast run: the same physics as plain Verlet of its teacher, from identical starts, or not.

    Both are run here, with as many replicas; the replicas of plain Verlet among themselves say how far two runs of the
    same physics differ. Drift, temperatures of elements, structure, vibrations and speed on one page, and one verdict.
    Interrupted, the same command continues.

    Example:

      mlff-sim certify --structure ethanol --teacher gfn2-xtb --student ethanol.student \
        --scheme mollified --k-steps 12 --replicas 5 --duration-ps 20 --out runs/certificate
    """
    friction, by_element = o.friction(friction_per_ps)
    if replicas < 2:
        raise InputError(f"replicas = {replicas} cannot be compared; give two or more, five to judge a drift.")
    k = k_from_text(k_steps)
    if k == "auto" and scheme == "ghmc":
        raise InputError(
            "a certificate starts where its warm-up ends, and k_steps = 'auto' of ghmc needs one of its own; give a number."
        )

    def config(**more: object) -> RunConfig:
        return RunConfig(
            structure,
            teacher,
            ensemble=ensemble,
            duration_ps=duration_ps,
            replicas=replicas,
            timestep_fs=timestep_fs,
            temperature_K=temperature_K,
            friction_per_ps=friction,
            friction_by_element=by_element,
            compile=compile,
            compile_teacher=compile_teacher,
            hydrogen_mass=hydrogen_mass,
            teacher_workers=teacher_workers,
            **more,  # type: ignore[arg-type]
        )

    every = 1 if scheme in ("respa", "mollified") else None
    fast = config(student=student, scheme=scheme, k_steps=k, every=every, seed=seed, on_residual=on_residual)
    slow = config(seed=seed + 1)
    return conduct(Study("certify", {"fast": fast, "verlet": slow}, equilibrate_ps), out, drift_limit=drift_limit)
