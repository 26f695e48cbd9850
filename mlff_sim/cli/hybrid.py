"""`mlff-sim hybrid`: the student advances, the teacher corrects."""

from __future__ import annotations

from typing import Annotated

import typer

from mlff_sim.cli import options as o
from mlff_sim.errors import InputError
from mlff_sim.leaps.file import read_generating, stride_steps
from mlff_sim.simulation import RunConfig, k_from_fraction, k_from_steps, k_from_text
from mlff_sim.simulation.config import corrections_from_fraction


def hybrid(
    structure: o.Structure,
    teacher: Annotated[
        str, typer.Option("--teacher", metavar="NAME", help="The model whose physics you want; see mlff-sim models.")
    ],
    out: o.Out,
    student: Annotated[
        str | None,
        typer.Option("--student", metavar="FILE", help="Student file, 'aspirin-gfn2' (shipped), or any model name."),
    ] = None,
    ensemble: o.Ensemble = "nvt",
    timestep_fs: o.TimestepFs = 0.5,
    k_steps: Annotated[
        str | None,
        typer.Option(
            "--k-steps",
            metavar="K|auto",
            help="Inner student steps per teacher call; 'auto' predicts what holds (see mlff-sim cadence; up to "
            "10,000 teacher calls), or for ghmc tries out what is best in the warm-up. kstep: save intervals in a macro-step; ghmc with a "
            "predictor: leaps in a proposal.",
        ),
    ] = None,
    corrector_fraction: Annotated[
        float | None,
        typer.Option(
            "--corrector-fraction",
            metavar="F",
            help="Teacher calls per inner step, 1/K. kstep: corrector steps per step jumped.",
        ),
    ] = None,
    corrector_steps: Annotated[
        int | None,
        typer.Option(
            "--corrector-steps",
            metavar="N",
            help="Teacher calls in the whole run. kstep: teacher steps after each macro-step.",
        ),
    ] = None,
    predictor: Annotated[
        str | None,
        typer.Option(
            "--predictor",
            metavar="FILE",
            help="kstep: what jumps; ghmc: what leaps in proposals; see mlff-sim train-predictor.",
        ),
    ] = None,
    save_interval: Annotated[
        int | None,
        typer.Option(
            "--save-interval",
            metavar="M",
            help="Of a predictor: baseline steps that --k-steps counts; 50, in ghmc those of a leap.",
        ),
    ] = None,
    duration_ps: o.DurationPs = 10.0,
    temperature_K: o.TemperatureK = 300.0,
    friction_per_ps: o.FrictionPerPs = None,
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
            metavar="respa|mollified|ghmc|sinr|regulated|kstep",
            help="How the teacher corrects: at every atom; with X-H stretches left to the student (longer steps); or by "
            "accepting trajectories of K student steps, which samples its ensemble exactly and has no time; or with "
            "bounded velocities (sinr, regulated), which resonate with nothing and have no time either; or after jumps of "
            "a learned predictor (kstep), whose time is approximate.",
        ),
    ] = "respa",
    middle: Annotated[
        str | None,
        typer.Option("--middle", metavar="NAME", help="A third model between the two, for --scheme respa."),
    ] = None,
    middle_steps: Annotated[
        int | None,
        typer.Option(
            "--middle-steps", metavar="M", help="Inner student steps per call of the middle model; divides K."
        ),
    ] = None,
    proposal_steps: Annotated[
        int | None,
        typer.Option(
            "--proposal-steps",
            metavar="M",
            help="ghmc: propose M outer steps of respa, K student steps and a teacher call each, not K student steps alone.",
        ),
    ] = None,
    resume: o.Resume = False,
    compile: o.Compile = True,
    compile_teacher: o.CompileTeacher = False,
    integrator: o.Integrator = "baoab",
    remove_com: o.RemoveCom = False,
    hydrogen_mass: o.HydrogenMass = None,
    amp: o.Amp = False,
    teacher_workers: o.TeacherWorkers = 1,
    no_guard: o.NoGuard = None,
    energy_budget_meV: o.EnergyBudget = None,
    on_residual: o.OnResidual = "stop",
) -> int:
    r"""Run two-model dynamics: K student steps per teacher call, K + U_teacher conserved.

    Example: aspirin at 300 K, a GFN2-xTB call every 6 fs instead of every 0.5 fs:

      mlff-sim hybrid --structure aspirin --teacher gfn2-xtb --student aspirin-gfn2 \
        --ensemble nvt --k-steps 12 --duration-ps 20 --friction-per-ps 5 --out runs/aspirin

    With a predictor that jumps 100 fs, and the teacher for 5 fs after each jump:

      mlff-sim hybrid --scheme kstep --structure ethanol --teacher gfn2-xtb --predictor egnn.predictor \
        --k-steps 4 --save-interval 50 --corrector-fraction 0.05 --duration-ps 50 --out runs/kstep

    With a generating function of 4 fs, five leaps a proposal, the solver told by the student where to look:

      mlff-sim hybrid --scheme ghmc --structure ethanol --teacher gfn2-xtb --student ethanol-gfn2 \
        --predictor leap.predictor --k-steps 5 --duration-ps 5 --out runs/leaps
    """
    leaps = predictor if scheme == "ghmc" else None
    interval = _interval(save_interval, leaps, timestep_fs)
    k, corrections = _cadence(
        scheme, k_steps, corrector_fraction, corrector_steps, interval, duration_ps, timestep_fs, leaps
    )
    if student is None and scheme != "kstep" and leaps is None:
        raise InputError(f"scheme '{scheme}' needs a student: give --student, or mlff-sim md for the teacher alone.")
    friction, by_element = o.friction(friction_per_ps)
    config = RunConfig(
        structure=structure,
        teacher=teacher,
        student=student,
        ensemble=ensemble,
        timestep_fs=timestep_fs,
        k_steps=k,
        duration_ps=duration_ps,
        temperature_K=temperature_K,
        friction_per_ps=friction,
        friction_by_element=by_element,
        equilibrate_ps=equilibrate_ps,
        every=every,
        replicas=replicas,
        seed=seed,
        baseline=baseline,
        scheme=scheme,
        middle=middle,
        middle_steps=middle_steps,
        proposal_steps=proposal_steps,
        predictor=predictor,
        save_interval=interval,
        corrector_steps=corrections,
        compile=compile,
        compile_teacher=compile_teacher,
        integrator=integrator,
        remove_com=remove_com,
        hydrogen_mass=hydrogen_mass,
        amp=amp,
        teacher_workers=teacher_workers,
        unguarded=tuple(no_guard or ()),
        energy_budget_meV=energy_budget_meV,
        on_residual=on_residual,
    )
    return o.carry_out(config, out, resume)


def _interval(given: int | None, leaps: str | None, timestep_fs: float) -> int:
    """Baseline steps that --k-steps counts; where nothing is said and a generating function leaps, those of its stride."""
    if given is None and leaps is not None:
        return stride_steps(read_generating(leaps), leaps, timestep_fs)
    return RunConfig.save_interval if given is None else given


def _cadence(
    scheme: str,
    k_steps: str | None,
    fraction: float | None,
    steps: int | None,
    save_interval: int,
    duration_ps: float,
    timestep_fs: float,
    leaps: str | None,
) -> tuple[int | str, int | None]:
    """K, and of kstep the steps of the corrector, from the options that say it in one of several ways."""
    ways = {"--k-steps": k_steps, "--corrector-fraction": fraction, "--corrector-steps": steps}
    given = [name for name, value in ways.items() if value is not None]
    if scheme == "kstep":
        if k_steps is None or len(given) != 2:
            raise InputError(
                "scheme 'kstep' wants --k-steps (save intervals in a macro-step) and one of --corrector-fraction, --corrector-steps; "
                f"got {' and '.join(given) or 'none'}."
            )
        k = k_from_text(k_steps)
        if fraction is None or not isinstance(k, int) or k < 1 or save_interval < 1:
            return k, steps
        return k, corrections_from_fraction(fraction, k * save_interval)
    if leaps is not None and given != ["--k-steps"]:
        raise InputError(
            f"scheme 'ghmc' with a predictor wants --k-steps (leaps in a proposal) alone; got {' and '.join(given) or 'none'}."
        )
    if len(given) != 1:
        raise InputError(f"give exactly one of {', '.join(ways)}; got {' and '.join(given) or 'none'}.")
    if fraction is not None:
        return k_from_fraction(fraction), None
    if steps is not None:
        return k_from_steps(steps, duration_ps, timestep_fs), None
    assert k_steps is not None
    return k_from_text(k_steps), None
