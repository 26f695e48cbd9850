"""`mlff-sim train-predictor`: make a predictor of macro-steps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from mlff_sim.cli.console import out as console
from mlff_sim.cli.console import progress_bar
from mlff_sim.cli.options import Seed, TimestepFs
from mlff_sim.errors import InputError


def train_predictor(
    trajectories: Annotated[
        list[str],
        typer.Option(
            "--trajectories",
            metavar="PATH",
            help="Folder of an NVE run (mlff-sim md), or a file with velocities; repeat it for more molecules.",
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="Predictor file to write (safetensors, any suffix).")
    ],
    arch: Annotated[
        str, typer.Option("--arch", metavar="egnn|transformer", help="Messages of equal weight, or attention.")
    ] = "egnn",
    macro_steps: Annotated[
        str,
        typer.Option(
            "--macro-steps", metavar="S[,S...]", help="Baseline steps it is to jump; one file knows them all."
        ),
    ] = "50,100,200,400",
    timestep_fs: TimestepFs = 0.5,
    updates: Annotated[int, typer.Option("--updates", metavar="N", help="Steps of the optimiser.")] = 10_000,
    learning_rate: Annotated[
        float, typer.Option("--learning-rate", metavar="<float>", help="Peak of its schedule.")
    ] = 2e-3,
    rollout: Annotated[int, typer.Option("--rollout", metavar="N", help="Macro-steps trained in a row.")] = 2,
    patience: Annotated[
        int,
        typer.Option(
            "--patience",
            metavar="N",
            help="Stop after so many validations (one each 250 updates) that are no better; 0 never.",
        ),
    ] = 0,
    width: Annotated[int, typer.Option("--width", metavar="N", help="Scalars of an atom.")] = 64,
    layers: Annotated[int, typer.Option("--layers", metavar="N", help="Rounds of messages.")] = 4,
    frame_ps: Annotated[
        float | None,
        typer.Option("--frame-ps", metavar="<float>", help="Time between frames, for files that do not say it."),
    ] = None,
    seed: Seed = 0,
) -> int:
    r"""Train a predictor that jumps many steps at once, for hybrid --scheme kstep.

    It learns from constant-energy trajectories of one or many molecules; a distilled student makes them in minutes. One
    file serves all molecules of the elements it has seen. Interrupted, the same command continues, exactly.

    Example: 64 replicas of 40 ps, a frame every 25 fs, then the predictor:

      mlff-sim md --structure ethanol --model ethanol-gfn2 --ensemble nve --equilibrate-ps 2 --replicas 64 \
        --duration-ps 40 --every 50 --out runs/ethanol
      mlff-sim train-predictor --trajectories runs/ethanol --arch egnn --macro-steps 200,400 --out egnn.predictor
    """
    try:
        steps = tuple(int(word) for word in macro_steps.split(","))
    except ValueError as error:
        raise InputError(f"--macro-steps '{macro_steps}' must be whole numbers, e.g. 200,400.") from error
    if not out.parent.is_dir():
        raise InputError(f"the folder of --out {out} does not exist.")
    if out.is_dir():
        raise InputError(f"--out {out} is a folder; give a file.")
    if out.exists():
        raise InputError(f"--out {out} exists; give another name, or delete it.")
    from mlff_sim.lessons import read_lessons
    from mlff_sim.predictors.file import needs_geometric

    needs_geometric()
    from mlff_sim.predictors.network import Architecture
    from mlff_sim.predictors.training import Trainer, TrainingConfig, save_trained

    config = TrainingConfig(
        Architecture(arch, width=width, layers=layers),
        steps,
        timestep_fs,
        updates,
        learning_rate,
        rollout,
        patience,
        seed,
    )
    lessons = read_lessons(trajectories, frame_ps)
    snapshot = out.with_name(out.name + ".training")
    with progress_bar("updates") as bar:
        trainer = Trainer(config, lessons, snapshot, bar)
        trained = trainer.train()
    save_trained(trained, config, lessons, out)
    snapshot.unlink(missing_ok=True)
    curve = out.with_name(out.name + ".curve.json")
    curve.write_text(json.dumps({"scores": trained.scores, "history": trained.history}, indent=1))
    each = ", ".join(f"{score:.4f} at {s}" for s, score in trained.scores.items())
    why = " (no better for a while)" if trained.early else ""
    console.print(f"{trained.updates} updates{why}; energy score on held-out frames: {each} baseline steps")
    console.print(f"predictor: {out}")
    console.print(f"curve:     {curve}")
    return 0
