"""What a predictor learns from: trajectories at constant energy, cut into frames a macro-step apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlff_sim.errors import InputError
from mlff_sim.forces import Array
from mlff_sim.predictors.file import LEAST_ATOMS

VALIDATION = 0.1
"""Share of every trajectory, its end, that is kept for validation."""
SHAKEN_A = 0.004
"""A, noise on the positions a prediction starts from: what a prediction leaves behind is to be a start for the next."""


@dataclass(frozen=True)
class Lesson:
    """Trajectories of one molecule.

    Attributes:
        name: for messages and the record, e.g. its formula.
        numbers: atomic numbers, (n,).
        masses: u, (n,).
        bonds: pairs of bonded atoms.
        positions: A, (frames, replicas, n, 3).
        momenta: (eV u)^1/2, (frames, replicas, n, 3).
        spacing_fs: fs between frames.
    """

    name: str
    numbers: NDArray[np.int64]
    masses: Array
    bonds: Sequence[tuple[int, int]] = field(repr=False)
    positions: Array = field(repr=False)
    momenta: Array = field(repr=False)
    spacing_fs: float

    def lag(self, time_fs: float) -> int:
        """Frames in a time.

        Raises:
            InputError: it is no whole number of frames.
        """
        frames = round(time_fs / self.spacing_fs)
        if frames < 1 or abs(frames * self.spacing_fs - time_fs) > 1e-6 * time_fs:
            raise InputError(
                f"the frames of '{self.name}' are {self.spacing_fs:g} fs apart, and a macro-step of {time_fs:g} fs is no "
                "whole number of them; record frames more often, or choose another macro-step."
            )
        return frames

    def split(self, lag: int, steps: int, validate: bool) -> tuple[int, int]:
        """First and last-but-one frame that a series of `steps` macro-steps may start at."""
        frames = len(self.positions)
        cut = frames - max(1 + lag, int(VALIDATION * frames))
        return (cut, frames - lag) if validate else (0, cut - lag * steps)

    def draw(self, rng: np.random.Generator, lag: int, steps: int, batch: int, validate: bool = False) -> Drawn:
        """Series of frames, `steps` macro-steps long, forwards or backwards in time.

        Returns:
            Positions and momenta, (steps + 1, batch, n, 3) each.
        """
        first, end = self.split(lag, steps, validate)
        t = rng.integers(first, end, batch) + lag * np.arange(steps + 1)[:, None]
        r = rng.integers(self.positions.shape[1], size=batch)
        x, p = self.positions[t, r], self.momenta[t, r]
        back = rng.random(batch) < 0.5
        x, p = (np.where(back[:, None, None], a[::-1], a) for a in (x, p))
        return x, np.where(back[:, None, None], -p, p)


Drawn = tuple[Array, Array]


def check_lessons(lessons: Sequence[Lesson], times_fs: Sequence[float], rollout: int) -> None:
    """Refuse trajectories that nothing can be learnt from.

    Raises:
        InputError: names the trajectory.
    """
    if not lessons:
        raise InputError("no trajectories to learn from; give folders of runs, or files with momenta.")
    for lesson in lessons:
        if len(lesson.numbers) < LEAST_ATOMS:
            raise InputError(
                f"'{lesson.name}' has {len(lesson.numbers)} atoms; a predictor is for {LEAST_ATOMS} or more."
            )
        if not (np.isfinite(lesson.positions).all() and np.isfinite(lesson.momenta).all()):
            raise InputError(f"'{lesson.name}' holds numbers that are not finite.")
        lag = max(lesson.lag(t) for t in times_fs)
        first, end = lesson.split(lag, rollout, False)
        if end <= first:
            needs = (1 + rollout) * lag / (1 - VALIDATION) * lesson.spacing_fs / 1000
            raise InputError(
                f"'{lesson.name}' is {len(lesson.positions) * lesson.spacing_fs / 1000:.3g} ps long, and {rollout} macro-steps "
                f"of {max(times_fs):g} fs with validation need more than {needs:.3g} ps; record a longer run."
            )


def identity(lessons: Sequence[Lesson]) -> dict[str, Any]:
    """What unfinished training is told apart by: atoms and number of frames of each trajectory."""
    return {
        "molecules": [[int(z) for z in x.numbers] for x in lessons],
        "frames": [len(x.positions) for x in lessons],
    }


def learnt_from(lessons: Sequence[Lesson]) -> list[dict[str, Any]]:
    """For the record of a file: name and length of each trajectory, all replicas together."""
    return [{"name": x.name, "ps": len(x.positions) * x.positions.shape[1] * x.spacing_fs / 1000} for x in lessons]
