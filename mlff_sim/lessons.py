"""Trajectories for a predictor to learn from: folders of runs, or files made elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms

from mlff_sim.errors import InputError
from mlff_sim.predictors.lesson import Lesson
from mlff_sim.runfolder import RunData, read_run
from mlff_sim.structure import covalent_bonds
from mlff_sim.trajectory.read import read_files
from mlff_sim.trajectory.run import ReadOptions, TrajectoryRun

if TYPE_CHECKING:
    from mlff_sim.forces import Array


def read_lessons(paths: Sequence[str | Path], frame_ps: float | None = None) -> list[Lesson]:
    """A lesson of each run folder or trajectory file.

    Args:
        paths: run folders (`mlff-sim md --ensemble nve`), or files that hold velocities.
        frame_ps: time between frames of files that do not say it.

    Raises:
        InputError: what cannot be read, has no momenta, no even spacing in time, or is not at constant energy.
    """
    return [_of_run(Path(p)) if Path(p).is_dir() else _of_file(Path(p), frame_ps) for p in paths]


def _of_run(folder: Path) -> Lesson:
    run = read_run(folder)
    settings = run.settings
    if settings["ensemble"] != "nve" or not settings.get("physical_time", True):
        raise InputError(
            f"'{folder}' is a run at constant temperature or without physical time, and a predictor learns constant-energy "
            "dynamics; make the run with --ensemble nve."
        )
    return _lesson(folder, run, run.positions, run.momenta, run.time_ps)


def _of_file(path: Path, frame_ps: float | None) -> Lesson:
    run = read_files([path], ReadOptions(frame_ps=frame_ps, memory_MB=4000.0))
    if run.momenta is None:
        raise InputError(
            f"'{path}' holds no velocities, and a predictor needs them; record them, or give a run folder."
        )
    return _lesson(path, run, run.positions, run.momenta, run.time_ps)


def _lesson(
    path: Path, run: RunData | TrajectoryRun, positions: Array, momenta: Array, time_ps: Array | None
) -> Lesson:
    structure = run.settings["structure"]
    numbers, masses = np.array(structure["numbers"]), np.array(structure["masses"], dtype=np.float64)
    if time_ps is None or len(time_ps) < 2:
        raise InputError(f"'{path}' does not say how far apart its frames are, or has one only; give --frame-ps.")
    spacing = np.diff(time_ps)
    if np.ptp(spacing) > 1e-6 * spacing.mean():
        raise InputError(f"the frames of '{path}' are not evenly spaced in time; record every so many steps.")
    bonds = structure.get("bonds") or covalent_bonds(Atoms(numbers, positions[0, 0]))
    name = str(structure.get("formula") or path.name)
    return Lesson(
        name, numbers, masses, [(int(a), int(b)) for a, b in bonds], positions, momenta, 1000 * float(spacing.mean())
    )
