"""Frames beyond the student's training range, kept with the teacher's answer for another distillation.

The teacher is asked at every outer point anyway, so they cost nothing, and nothing about the run changes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mlff_sim.forces import Array
from mlff_sim.integrators.stepper import Stepper
from mlff_sim.simulation.rules import Residual

FILE = "relabel.npz"
MOST = 200
"""Frames of a run that are kept, the first ones."""
SPACING_FS = 20.0
"""Least time between two of the same replica: nearer ones teach the same."""


class Relabel:
    """Collects labelled frames; what is on disk is as old as the last checkpoint.

    Args:
        rule: says which frames.
        stepper: that visits them.
    """

    def __init__(self, rule: Residual, stepper: Stepper, outer_step_fs: float) -> None:
        """Nothing is kept yet."""
        self.rule, self.stepper = rule, stepper
        self.spacing = max(1, round(SPACING_FS / outer_step_fs))
        self.rows: dict[str, list[Any]] = {k: [] for k in ("positions", "energies", "forces", "step", "replica")}
        self.written = 0

    def __len__(self) -> int:
        """Frames kept so far."""
        return len(self.rows["step"])

    def look(self, step: int) -> None:
        """Keep the frames of this outer step that lie beyond the range, and are new."""
        beyond = self.rule.beyond(self.stepper)
        if not beyond.any():
            return
        x = self.stepper.forces.compared_at(self.rule.difference)
        teacher, _ = self.stepper.forces.compared(self.rule.difference)
        for r in np.flatnonzero(beyond):
            if len(self) < MOST and self._is_new(step, int(r), x[r]):
                row = (x[r].copy(), float(teacher.energy[r]), teacher.forces[r].copy(), step, int(r))
                for column, value in zip(self.rows.values(), row, strict=True):
                    column.append(value)

    def _is_new(self, step: int, replica: int, positions: Array) -> bool:
        for k in reversed(range(len(self))):
            if self.rows["replica"][k] == replica:
                apart: int = step - self.rows["step"][k]
                return apart >= self.spacing and not np.array_equal(self.rows["positions"][k], positions)
        return True

    def arrays(self) -> dict[str, Array]:
        """All frames, for the file: A, eV, eV/A."""
        return {name: np.array(column) for name, column in self.rows.items()}

    def restore(self, file: Path, count: int) -> None:
        """Take up the first `count` frames of a file; a killed run may have written more."""
        if count:
            with np.load(file, allow_pickle=False) as saved:
                self.rows = {name: list(saved[name][:count]) for name in self.rows}
        self.written = count
