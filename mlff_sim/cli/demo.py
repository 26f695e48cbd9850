"""`mlff-sim demo`: the main job on aspirin, in a few minutes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mlff_sim.cli.console import VERDICT_CODES, out, progress_bar
from mlff_sim.cli.options import judge
from mlff_sim.simulation import Run, RunConfig

NVT = RunConfig(
    "aspirin",
    "gfn2-xtb",
    "aspirin-gfn2",
    ensemble="nvt",
    k_steps=16,
    duration_ps=64.0,
    friction_per_ps=5.0,
    equilibrate_ps=2.0,
    replicas=1,
    seed=1,
)
NVE = RunConfig(
    "aspirin",
    "gfn2-xtb",
    "aspirin-gfn2",
    ensemble="nve",
    k_steps=4,
    duration_ps=2.5,
    friction_per_ps=5.0,
    equilibrate_ps=0.5,
    replicas=5,
    seed=2,
    baseline=False,
)


def demo(
    folder: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where to write.")] = Path("runs/demo"),
) -> int:
    """Aspirin with GFN2-xTB as the teacher and the shipped student: NVT for the speed, five NVE replicas for the drift.

    The pair distances are judged against the shipped reference, a long run of the teacher alone. Interrupted, the
    same command continues.

    Example:

      mlff-sim demo --out runs/demo
    """
    from mlff_sim.models.shipped import reference_path

    for name, config in (("nvt", NVT), ("nve", NVE)):
        out.print(
            f"{name}: {config.duration_ps:g} ps x {config.replicas}, a teacher call every {config.outer_step_fs:g} fs"
        )
        with progress_bar("steps", config.outer_step_fs / 1000) as bar:
            Run(config, folder / name, resume=True, progress=bar).run()
    return VERDICT_CODES[judge(folder, reference_path("aspirin-gfn2-300K"))]
