"""`mlff-sim train-predictor`: make a predictor of macro-steps, or of leaps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlff_sim.cli.console import out as console
from mlff_sim.cli.console import progress_bar, writable_file
from mlff_sim.cli.options import Seed, TimestepFs, numbers
from mlff_sim.errors import InputError
from mlff_sim.runfolder import write_json

if TYPE_CHECKING:
    from mlff_sim.leaps.lessons import LeapConfig
    from mlff_sim.predictors.lesson import Lesson

GENERATING = "generating"
ARCHS = ("egnn", "transformer", GENERATING)
STEPS, ROLLOUT, PATIENCE, SIZE, SMALL = "50,100,200,400", 2, 0, (64, 4), (32, 2)
"""What is taken where nothing is said; sizes are width and layers, those of a generating function smaller."""
RATE, TUNING_RATE = 2e-3, 5e-4
"""Learning rates of what begins with nothing, and with a predictor."""


def train_predictor(
    trajectories: Annotated[
        list[str],
        typer.Option(
            "--trajectories",
            metavar="PATH",
            help="Folder of an NVE run (mlff-sim md), or a file with velocities; repeat it for more of them, and more molecules.",
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="Predictor file to write (safetensors, any suffix).")
    ],
    arch: Annotated[
        str | None,
        typer.Option(
            "--arch",
            metavar="|".join(ARCHS),
            help=f"Messages of equal weight, or attention; or a generating function, whose leaps keep structure. {ARCHS[0]} if not given.",
        ),
    ] = None,
    macro_steps: Annotated[
        str | None,
        typer.Option(
            "--macro-steps",
            metavar="S[,S...]",
            help=f"Baseline steps it is to jump; one file knows them all; {STEPS} if not given. A generating function has one.",
        ),
    ] = None,
    timestep_fs: TimestepFs = 0.5,
    updates: Annotated[int, typer.Option("--updates", metavar="N", help="Steps of the optimiser.")] = 10_000,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            "--learning-rate", metavar="<float>", help=f"Peak of its schedule, {RATE:g}; {TUNING_RATE:g} with --from."
        ),
    ] = None,
    rollout: Annotated[
        int | None,
        typer.Option("--rollout", metavar="N", help=f"Macro-steps trained in a row, {ROLLOUT}; not of generating."),
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(
            "--patience",
            metavar="N",
            help="Stop after so many validations (one each 250 updates) that are no better; 0 never, as if not given; not of generating.",
        ),
    ] = None,
    width: Annotated[
        int | None, typer.Option("--width", metavar="N", help=f"Scalars of an atom, {SIZE[0]}; generating {SMALL[0]}.")
    ] = None,
    layers: Annotated[
        int | None,
        typer.Option("--layers", metavar="N", help=f"Rounds of messages, {SIZE[1]}; generating {SMALL[1]}."),
    ] = None,
    frame_ps: Annotated[
        float | None,
        typer.Option("--frame-ps", metavar="<float>", help="Time between frames, for files that do not say it."),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="FILE",
            help="Begin with a predictor, and tune it to these trajectories; it says the architecture and the macro-steps.",
        ),
    ] = None,
    seed: Seed = 0,
) -> int:
    r"""Train a predictor that jumps many steps at once, for hybrid --scheme kstep (or ghmc).

    It learns from constant-energy trajectories of one or many molecules; a distilled student makes them in minutes. One
    file serves all molecules of the elements it has seen. Interrupted, the same command continues, exactly.

    Example: 64 replicas of 40 ps, a frame every 25 fs, then the predictor:

      mlff-sim md --structure ethanol --model student:ethanol-gfn2 --ensemble nve --equilibrate-ps 2 --replicas 64 \
        --duration-ps 40 --every 50 --out runs/ethanol
      mlff-sim train-predictor --trajectories runs/ethanol --arch egnn --macro-steps 200,400 --out egnn.predictor

    Example: the same tuned to a molecule that it is not good at, or has not seen:

      mlff-sim train-predictor --trajectories runs/aspirin --from egnn.predictor --updates 3000 --out aspirin.predictor

    A generating function of one molecule and one stride, from frames no farther apart, proposes leaps that hybrid --scheme ghmc
    accepts or refuses. 4 fs, from 16 replicas of 5 ps:

      mlff-sim md --structure ethanol --model student:ethanol-gfn2 --ensemble nve --equilibrate-ps 2 --replicas 16 \
        --duration-ps 5 --every 2 --out runs/close
      mlff-sim train-predictor --trajectories runs/close --arch generating --macro-steps 8 --out leap.predictor
    """
    if arch is not None and arch not in ARCHS:
        raise InputError(f"architecture '{arch}' is unknown; choose one of: {', '.join(ARCHS)}.")
    if arch == GENERATING:
        for name, value in (("--rollout", rollout), ("--patience", patience), ("--from", start)):
            if value is not None:
                raise InputError(
                    f"{name} is for predictors that draw; --arch generating is trained on single leaps, from nothing to the "
                    "end of --updates."
                )
    first = _first(start)
    steps = tuple(first["macro_steps"]) if start and macro_steps is None else _steps(macro_steps, arch)
    writable_file(out)
    if out.exists():
        raise InputError(f"--out {out} exists; give another name, or delete it.")
    from mlff_sim.lessons import read_lessons

    snapshot = out.with_name(out.name + ".training")
    rate = learning_rate if learning_rate is not None else RATE if start is None else TUNING_RATE
    if arch == GENERATING:
        from mlff_sim.leaps.lessons import LeapConfig

        scalars, rounds = SMALL[0] if width is None else width, SMALL[1] if layers is None else layers
        leap = LeapConfig(steps[0], timestep_fs, updates, rate, scalars, rounds, seed)
        return _leaping(leap, read_lessons(trajectories, frame_ps), snapshot, out)
    from mlff_sim.predictors.file import needs_geometric

    needs_geometric()
    from mlff_sim.predictors.network import Architecture
    from mlff_sim.predictors.training import Trainer, TrainingConfig, save_trained

    given = {"kind": arch, "width": width, "layers": layers}
    config = TrainingConfig(
        Architecture(**{**first["architecture"], **{k: v for k, v in given.items() if v is not None}}),
        steps,
        timestep_fs,
        updates,
        rate,
        ROLLOUT if rollout is None else rollout,
        PATIENCE if patience is None else patience,
        seed,
        start,
    )
    lessons = read_lessons(trajectories, frame_ps)
    with progress_bar("updates") as bar:
        trainer = Trainer(config, lessons, snapshot, bar)
        trained = trainer.train()
    save_trained(trained, config, lessons, out)
    snapshot.unlink(missing_ok=True)
    curve = out.with_name(out.name + ".curve.json")
    write_json(curve, {"scores": trained.scores, "history": trained.history})
    each = ", ".join(f"{score:.4f} at {s}" for s, score in trained.scores.items())
    why = " (no better for a while)" if trained.early else ""
    console.print(f"{trained.updates} updates{why}; energy score on held-out frames: {each} baseline steps")
    console.print(f"predictor: {out}")
    console.print(f"curve:     {curve}")
    return 0


def _first(start: str | None) -> dict[str, Any]:
    """Architecture and macro-steps of the file that is tuned; without one, the architecture that is taken where none is said."""
    if start is None:
        return {"architecture": {"kind": ARCHS[0], "width": SIZE[0], "layers": SIZE[1]}}
    from mlff_sim.predictors.file import read_predictor

    return read_predictor(start)


def _leaping(config: LeapConfig, lessons: list[Lesson], snapshot: Path, out: Path) -> int:
    """Train a generating function."""
    from mlff_sim.leaps.lessons import learn, save_learnt

    with progress_bar("updates") as bar:
        learnt = learn(config, lessons, snapshot, bar)
    save_learnt(learnt, config, lessons, out)
    snapshot.unlink(missing_ok=True)
    console.print(
        f"{learnt.updates} updates; leaps of {config.stride_fs:g} fs; on held-out frames the force is off by {learnt.mae:.1f} "
        f"meV/\u00c5, the power by {100 * learnt.power:.1f} %"
    )
    console.print(f"predictor: {out}")
    return 0


def _steps(text: str | None, arch: str | None) -> tuple[int, ...]:
    """The macro-steps, of which a generating function has one."""
    if text is None and arch != GENERATING:
        text = STEPS
    steps = numbers(text, "--macro-steps", int, "200,400") if text is not None else ()
    if arch == GENERATING and len(steps) != 1:
        raise InputError(
            f"--arch generating learns one stride, and --macro-steps {'is missing' if text is None else f'names {text}'}; "
            "give one number of baseline steps, e.g. 8."
        )
    return steps
