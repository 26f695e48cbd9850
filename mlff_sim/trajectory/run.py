"""What is asked of the user, and what comes of reading: a run like one of this package."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mlff_sim.errors import InputError
from mlff_sim.forces import Array

ENSEMBLES = ("nve", "nvt")


@dataclass(frozen=True)
class ReadOptions:
    """What files do not say of themselves.

    Attributes:
        topology: a PDB or other topology, for DCD and XTC; it may also be among the files.
        ensemble: "nve" or "nvt"; None leaves drift and temperature unjudged.
        temperature_K: of the bath, for "nvt".
        frame_ps: time between frames; wins over what the files say.
        lammps_units: "real" or "metal".
        lammps_types: chemical symbols of LAMMPS' atom types 1, 2, ...
        memory_MB: for positions and momenta; beyond it frames are thinned.
    """

    topology: str | Path | None = None
    ensemble: str | None = None
    temperature_K: float | None = None
    frame_ps: float | None = None
    lammps_units: str | None = None
    lammps_types: Sequence[str] | None = None
    memory_MB: float = 200.0

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            InputError: in the caller's words.
        """
        if self.ensemble not in (None, *ENSEMBLES):
            raise InputError(f"ensemble '{self.ensemble}' is not known; {' and '.join(ENSEMBLES)} are.")
        if self.ensemble == "nvt" and self.temperature_K is None:
            raise InputError("ensemble 'nvt' needs the temperature of the bath (temperature_K).")
        if self.ensemble != "nvt" and self.temperature_K is not None:
            raise InputError(f"temperature_K = {self.temperature_K:g} is of a bath; say that the ensemble is nvt, too.")
        for name in ("temperature_K", "frame_ps", "memory_MB"):
            value = getattr(self, name)
            if value is not None and not 0 < value < np.inf:
                raise InputError(f"{name} = {value:g} must be positive.")


@dataclass(frozen=True, eq=False)
class Window:
    """Consecutive frames, none left out.

    Attributes:
        time_ps: ps, shape (frames,); None where unknown.
        positions: A, shape (frames, replicas, n, 3).
        momenta: (eV u)^1/2, the same shape; None without velocities.
        cells: A, shape (frames, replicas, 3, 3); None where not periodic.
    """

    time_ps: Array | None
    positions: Array
    momenta: Array | None
    cells: Array | None


@dataclass(frozen=True, eq=False)
class TrajectoryRun:
    """Trajectory files as a run; each file is a replica. None stands for what the files do not hold.

    Attributes:
        folder: the first file.
        settings: what `mlff_sim.validation.assess` asks of a run; "notes" says what was done in reading.
        time_ps: ps, shape (frames,), evenly spaced unless a note says otherwise.
        potential_energy: eV, shape (frames, replicas).
        kinetic_energy: eV, as the files state it, not from momenta, shape (frames, replicas).
        conserved: total energy, eV, shape (frames, replicas).
        positions: A, shape (frames, replicas, n, 3), wrapped where the file has them wrapped.
        momenta: (eV u)^1/2, shape (frames, replicas, n, 3).
        cells: A, cell vectors in rows, shape (frames, replicas, 3, 3); None unless periodic in three directions.
        window: consecutive frames; None where thinning and short replicas left none.
        every: numbers of every frame by name: "time_ps" (frames read,); "potential_energy", "kinetic_energy",
            "kinetic_from_momenta" and "total_energy" (frames read, replicas).
        stride: frames read for each one kept.
        residual_mae, counts, wall: a trajectory has none.
    """

    folder: Path
    settings: dict[str, Any]
    time_ps: Array | None
    potential_energy: Array | None
    kinetic_energy: Array | None
    conserved: Array | None
    positions: Array
    momenta: Array | None
    cells: Array | None
    window: Window | None
    every: dict[str, Array]
    stride: int
    residual_mae: Array | None = None
    counts: dict[str, Array] = field(default_factory=dict)
    wall: dict[str, Array] = field(default_factory=dict)
