"""`mlff-sim hybrid`: the student advances, the teacher corrects."""

from __future__ import annotations

from typing import Annotated

import typer

from mlff_sim.cli import options as o
from mlff_sim.errors import InputError
from mlff_sim.simulation import RunConfig, k_from_fraction, k_from_steps


def hybrid(
    structure: o.Structure,
    teacher: Annotated[
        str, typer.Option("--teacher", metavar="NAME", help="The model whose physics you want; see mlff-sim models.")
    ],
    student: Annotated[
        str,
        typer.Option("--student", metavar="FILE", help="Student file, 'aspirin-gfn2' (shipped), or any model name."),
    ],
    out: o.Out,
    ensemble: o.Ensemble = "nvt",
    timestep_fs: o.TimestepFs = 0.5,
    k_steps: Annotated[
        int | None, typer.Option("--k-steps", metavar="K", help="Inner student steps per teacher call.")
    ] = None,
    corrector_fraction: Annotated[
        float | None, typer.Option("--corrector-fraction", metavar="F", help="Teacher calls per inner step, 1/K.")
    ] = None,
    corrector_steps: Annotated[
        int | None, typer.Option("--corrector-steps", metavar="N", help="Teacher calls in the whole run.")
    ] = None,
    duration_ps: o.DurationPs = 10.0,
    temperature_K: o.TemperatureK = 300.0,
    friction_per_ps: o.FrictionPerPs = 1.0,
    equilibrate_ps: o.EquilibratePs = 0.0,
    every: o.Every = None,
    replicas: o.Replicas = None,
    seed: o.Seed = 0,
    baseline: Annotated[
        bool, typer.Option("--baseline/--no-baseline", help="Time the all-teacher baseline in alternating blocks.")
    ] = True,
    scheme: Annotated[
        str,
        typer.Option(
            "--scheme",
            metavar="respa|mollified|ghmc",
            help="How the teacher corrects: at every atom; with X-H stretches left to the student (longer steps); or by "
            "accepting trajectories of K student steps, which samples its ensemble exactly and has no time.",
        ),
    ] = "respa",
    resume: o.Resume = False,
    compile: o.Compile = True,
    compile_teacher: o.CompileTeacher = False,
    amp: o.Amp = False,
    no_guard: o.NoGuard = None,
    energy_budget_meV: o.EnergyBudget = None,
    on_residual: Annotated[
        str,
        typer.Option(
            "--on-residual",
            metavar="stop|relabel|ignore",
            help="Where teacher and student differ by more than in training: stop; go on, and keep such frames with the "
            "teacher's answers in relabel.npz; or just go on.",
        ),
    ] = "stop",
) -> int:
    r"""Run two-model dynamics: K student steps per teacher call, K + U_teacher conserved.

    Example: aspirin at 300 K, a GFN2-xTB call every 6 fs instead of every 0.5 fs:

      mlff-sim hybrid --structure aspirin --teacher gfn2-xtb --student aspirin-gfn2 \
        --ensemble nvt --k-steps 12 --duration-ps 20 --friction-per-ps 5 --out runs/aspirin
    """
    given = [
        n
        for n, v in (
            ("--k-steps", k_steps),
            ("--corrector-fraction", corrector_fraction),
            ("--corrector-steps", corrector_steps),
        )
        if v is not None
    ]
    if len(given) != 1:
        raise InputError(
            f"give exactly one of --k-steps, --corrector-fraction, --corrector-steps; got {' and '.join(given) or 'none'}."
        )
    if corrector_fraction is not None:
        k = k_from_fraction(corrector_fraction)
    elif corrector_steps is not None:
        k = k_from_steps(corrector_steps, duration_ps, timestep_fs)
    else:
        assert k_steps is not None
        k = k_steps
    config = RunConfig(
        structure=structure,
        teacher=teacher,
        student=student,
        ensemble=ensemble,
        timestep_fs=timestep_fs,
        k_steps=k,
        duration_ps=duration_ps,
        temperature_K=temperature_K,
        friction_per_ps=friction_per_ps,
        equilibrate_ps=equilibrate_ps,
        every=every,
        replicas=replicas,
        seed=seed,
        baseline=baseline,
        scheme=scheme,
        compile=compile,
        compile_teacher=compile_teacher,
        amp=amp,
        unguarded=tuple(no_guard or ()),
        energy_budget_meV=energy_budget_meV,
        on_residual=on_residual,
    )
    return o.carry_out(config, out, resume)
