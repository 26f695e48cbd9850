"""From trajectories to the file of a generating function."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from mlff_sim.errors import InputError
from mlff_sim.leaps.file import save_generating
from mlff_sim.leaps.generating import GeneratingNet
from mlff_sim.leaps.training import Midpoints, errors, joined, midpoints, train
from mlff_sim.predictors.lesson import Lesson, check_lessons, identity, learnt_from
from mlff_sim.predictors.settings import check_numbers
from mlff_sim.predictors.snapshot import Snapshot
from mlff_sim.progress import Progress

JUDGED = 2048
"""Held-out pairs that the errors are taken of, at most."""


@dataclass(frozen=True)
class LeapConfig:
    """How a generating function is trained.

    Attributes:
        macro_step: baseline steps of the one leap it is to know.
        timestep_fs: of the baseline.
        updates: of the weights.
        learning_rate: peak of the cosine.
        width: channels of an atom.
        layers: interactions.
        seed: of everything random; two trainings on one thread are equal.
    """

    macro_step: int
    timestep_fs: float = 0.5
    updates: int = 10_000
    learning_rate: float = 2e-3
    width: int = 32
    layers: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse settings that make no sense."""
        whole = {"macro_step": 1, "updates": 1, "width": 1, "layers": 1, "seed": 0}
        check_numbers(self, ("timestep_fs", "learning_rate"), whole)

    @property
    def stride_fs(self) -> float:
        """Length of a leap."""
        return self.macro_step * self.timestep_fs


@dataclass(frozen=True)
class Learnt:
    """What came out.

    Attributes:
        network: trained.
        mae: meV/A, of dN/dq at held-out pairs, mean absolute.
        power: error of the power done there, over what is usual; root mean square.
        updates: done.
        seconds: of training, interruptions left out.
    """

    network: GeneratingNet
    mae: float
    power: float
    updates: int
    seconds: float


def learn(
    config: LeapConfig, lessons: Sequence[Lesson], snapshot: Path | None = None, progress: Progress | None = None
) -> Learnt:
    """Train on all but the ends of the trajectories, which judge; can be cut at any time and goes on where it was, exactly.

    Args:
        config: how.
        lessons: trajectories of one molecule.
        snapshot: file that holds the state of unfinished training; None keeps none.
        progress: told updates.

    Raises:
        InputError: several molecules, trajectories nothing can be learnt from, or a snapshot of other settings.
    """
    check_lessons(lessons, [config.stride_fs], 1)
    first = lessons[0]
    for other in lessons[1:]:
        if not np.array_equal(first.numbers, other.numbers) or not np.allclose(first.masses, other.masses):
            raise InputError(
                f"a generating function learns one molecule at a time, and '{first.name}' and '{other.name}' differ in their "
                "atoms; train one for each."
            )
    pairs, held = (joined([_pairs(x, config.stride_fs, v) for x in lessons]) for v in (False, True))
    torch.manual_seed(config.seed)
    elements = sorted({int(z) for z in first.numbers})
    network = GeneratingNet(elements, channels=config.width, layers=config.layers)
    settings = {"arch": "generating", **asdict(config), **identity(lessons)}
    kept = None if snapshot is None else Snapshot(snapshot, settings)
    updates, seconds = train(
        network,
        pairs,
        math.inf,
        config.updates,
        config.seed,
        learning_rate=config.learning_rate,
        progress=progress,
        snapshot=kept,
    )
    mae, power = errors(network, held.some(JUDGED))
    if not math.isfinite(mae + power):
        raise InputError(
            f"training left the finite numbers; give a smaller --learning-rate than {config.learning_rate:g}."
        )
    return Learnt(network, mae, power, updates, seconds)


def _pairs(lesson: Lesson, stride_fs: float, held: bool) -> Midpoints:
    """Of the frames to learn from, or of those at the end."""
    cut = lesson.split(lesson.lag(stride_fs), 1, True)[0]
    part = slice(cut, None) if held else slice(None, cut)
    x, p = lesson.positions[part], lesson.momenta[part]
    return midpoints(x, p, lesson.spacing_fs, stride_fs, lesson.numbers, lesson.masses)


def save_learnt(learnt: Learnt, config: LeapConfig, lessons: Sequence[Lesson], path: str | Path) -> None:
    """Write the file, with what it learnt from."""
    record = {
        "macro_steps": [config.macro_step],
        "timestep_fs": config.timestep_fs,
        "molecules": learnt_from(lessons),
        "errors": {"force_mae_meV_per_A": learnt.mae, "power": learnt.power},
        "seconds": {"training": round(learnt.seconds, 1)},
        "training": {"updates": learnt.updates, "seed": config.seed, "learning_rate": config.learning_rate},
    }
    save_generating(learnt.network, config.stride_fs, path, record)
