"""`mlff-sim md`: plain dynamics with one model."""

from __future__ import annotations

from typing import Annotated

import typer

from mlff_sim.cli import options as o
from mlff_sim.simulation import RunConfig


def md(
    structure: o.Structure,
    model: Annotated[str, typer.Option("--model", metavar="NAME", help="Any model; see mlff-sim models.")],
    out: o.Out,
    ensemble: o.Ensemble = "nvt",
    timestep_fs: o.TimestepFs = 0.5,
    duration_ps: o.DurationPs = 10.0,
    temperature_K: o.TemperatureK = 300.0,
    friction_per_ps: o.FrictionPerPs = None,
    equilibrate_ps: o.EquilibratePs = 0.0,
    every: o.Every = None,
    replicas: o.Replicas = None,
    seed: o.Seed = 0,
    resume: o.Resume = False,
    compile: o.Compile = True,
    compile_teacher: o.CompileTeacher = False,
    integrator: o.Integrator = "baoab",
    remove_com: o.RemoveCom = False,
    hydrogen_mass: o.HydrogenMass = None,
    teacher_workers: o.TeacherWorkers = 1,
    no_guard: o.NoGuard = None,
    energy_budget_meV: o.EnergyBudget = None,
) -> int:
    """Run velocity Verlet (nve) or BAOAB (nvt) with one model: the baseline, and useful alone.

    Example: ten picoseconds of ethanol, constant energy:

      mlff-sim md --model gfn2-xtb --structure ethanol --ensemble nve --duration-ps 10 --out runs/ethanol-nve
    """
    friction, by_element = o.friction(friction_per_ps)
    config = RunConfig(
        structure=structure,
        teacher=model,
        ensemble=ensemble,
        timestep_fs=timestep_fs,
        duration_ps=duration_ps,
        temperature_K=temperature_K,
        friction_per_ps=friction,
        friction_by_element=by_element,
        equilibrate_ps=equilibrate_ps,
        every=every,
        replicas=replicas,
        seed=seed,
        compile=compile,
        compile_teacher=compile_teacher,
        integrator=integrator,
        remove_com=remove_com,
        hydrogen_mass=hydrogen_mass,
        teacher_workers=teacher_workers,
        unguarded=tuple(no_guard or ()),
        energy_budget_meV=energy_budget_meV,
    )
    return o.carry_out(config, out, resume)
