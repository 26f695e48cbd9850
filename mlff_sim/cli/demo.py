"""`mlff-sim demo`: the main job on aspirin, in a few minutes."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import typer

from mlff_sim.cli.console import VERDICT_CODES, out, progress_bar
from mlff_sim.cli.options import judge
from mlff_sim.errors import SimulationStopped
from mlff_sim.progress import Progress
from mlff_sim.simulation import Run, RunConfig

NVT = RunConfig(
    "aspirin",
    "gfn2-xtb",
    "aspirin-gfn2",
    ensemble="nvt",
    k_steps=16,
    duration_ps=100.0,
    friction_per_ps=5.0,
    equilibrate_ps=2.0,
    replicas=1,
    seed=1,
    scheme="mollified",
)
NVE = RunConfig(
    "aspirin",
    "gfn2-xtb",
    "aspirin-gfn2",
    ensemble="nve",
    k_steps=12,
    duration_ps=7.5,
    friction_per_ps=5.0,
    equilibrate_ps=0.5,
    replicas=10,
    seed=2,
    baseline=False,
    scheme="mollified",
)


def demo(
    folder: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where to write.")] = Path("runs/demo"),
) -> int:
    """Aspirin with GFN2-xTB as the teacher and the shipped student: NVT for the speed, ten NVE replicas for the drift.

    The two runs share a machine with two cores, one each. The pair distances are judged against the shipped
    reference, long runs of the teacher alone. Interrupted, the same command continues.

    Example:

      mlff-sim demo --out runs/demo
    """
    from mlff_sim.models.shipped import reference_path

    for name, config in (("nvt", NVT), ("nve", NVE)):
        length = f"{config.duration_ps:g} ps" + (f" x {config.replicas}" if config.replicas != 1 else "")
        out.print(f"{name}: {length}, a teacher call every {config.outer_step_fs:g} fs")
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        other = pool.submit(_finish, NVE, folder / "nve")
        with progress_bar("steps", NVT.outer_step_fs / 1000) as bar:
            _finish(NVT, folder / "nvt", bar)
            bar.update(0, 0, "waiting for the NVE replicas")
            other.result()
    return VERDICT_CODES[judge(folder, reference_path("aspirin-gfn2-300K"))]


def _finish(config: RunConfig, folder: Path, progress: Progress | None = None) -> None:
    """Start, continue or leave alone; a run that a guard stops is the judge's business."""
    with suppress(SimulationStopped):
        Run(config, folder, resume=True, progress=progress).run()
