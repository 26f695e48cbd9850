"""Training of a predictor: draws of macro-steps in a row, scored, with a running average of the weights."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mlff_sim.errors import InputError
from mlff_sim.predictors.file import load_network, save_predictor
from mlff_sim.predictors.lesson import SHAKEN_A, Lesson, check_lessons, identity, learnt_from
from mlff_sim.predictors.network import ARCHITECTURES, Architecture, Molecule, PredictorNet, advanced
from mlff_sim.predictors.scores import Score
from mlff_sim.predictors.settings import check_numbers
from mlff_sim.predictors.snapshot import SNAPSHOT_EVERY, Snapshot
from mlff_sim.progress import Progress, Silent
from mlff_sim.soap import SOAP, cosine
from mlff_sim.units import FS

PAIRS = 3600
"""Pairs of atoms in a batch: large molecules get fewer frames, so that every update costs about the same."""
AVERAGE = 0.999
"""Decay of the running average of the weights, which is what is kept."""
VALIDATION_EVERY = 250
VALIDATION_BATCHES = 4
"""Updates between validations, and batches of each molecule and macro-step in one."""
ROLLOUT_FROM, WARM_UP = 0.3, 100
"""Share of the updates after which macro-steps are trained in a row, and updates the learning rate rises over."""


@dataclass(frozen=True)
class TrainingConfig:
    """How a predictor is trained.

    Attributes:
        architecture: of the network.
        macro_steps: baseline steps of each macro-step it is to know.
        timestep_fs: of the baseline.
        updates: of the weights.
        learning_rate: peak of the cosine.
        rollout: macro-steps in a row.
        patience: validations without improvement after which training stops; 0 never does.
        seed: of everything random; two trainings on one thread are equal.
        start: file of a predictor of the same architecture, macro-steps and time step, to begin with.
    """

    architecture: Architecture = field(default_factory=Architecture)
    macro_steps: tuple[int, ...] = (50, 100, 200, 400)
    timestep_fs: float = 0.5
    updates: int = 10_000
    learning_rate: float = 2e-3
    rollout: int = 2
    patience: int = 0
    seed: int = 0
    start: str | None = None

    def __post_init__(self) -> None:
        """Refuse settings that make no sense."""
        if self.architecture.kind not in ARCHITECTURES:
            raise InputError(
                f"architecture '{self.architecture.kind}' is unknown; choose one of: {', '.join(ARCHITECTURES)}."
            )
        steps = self.macro_steps
        if not steps or any(not isinstance(s, int) or s < 1 for s in steps) or len(set(steps)) < len(steps):
            raise InputError(
                f"macro-steps {list(steps)} must be different whole numbers of at least 1 (baseline steps)."
            )
        check_numbers(self, ("timestep_fs", "learning_rate"), {"updates": 1, "rollout": 1, "patience": 0, "seed": 0})

    def time(self, stride: int) -> float:
        """Length of a macro-step in internal units."""
        return self.macro_steps[stride] * self.timestep_fs * FS


@dataclass
class Trained:
    """What came out.

    Attributes:
        network: with the averaged weights of the best validation.
        scores: validation score of every macro-step (baseline steps as text) at the best.
        history: updates, training and validation score of each validation.
        updates: done.
        early: whether patience ended it.
        seconds: of training, interruptions left out.
        start: hash of the file it began with; None where it began with nothing.
    """

    network: PredictorNet
    scores: dict[str, float]
    history: list[dict[str, float]]
    updates: int
    early: bool
    seconds: float
    start: str | None = None


class Trainer:
    """Trains one network on lessons; can be cut at any time and goes on where it was, exactly.

    Args:
        config: how.
        lessons: trajectories, of any molecules.
        snapshot: file that holds the state of unfinished training; None keeps none.
        progress: told updates.

    Raises:
        InputError: trajectories nothing can be learnt from, or a snapshot of other settings.
    """

    def __init__(
        self,
        config: TrainingConfig,
        lessons: Sequence[Lesson],
        snapshot: Path | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Build the network, or take up the snapshot."""
        check_lessons(lessons, [s * config.timestep_fs for s in config.macro_steps], config.rollout)
        self.config, self.lessons, self.progress = config, list(lessons), progress or Silent()
        self.molecules = [Molecule(x.numbers, x.masses, x.bonds) for x in lessons]
        self.scores = [Score(m) for m in self.molecules]
        torch.manual_seed(config.seed)
        self.network, self.start = _first(config)
        self.parameters = list(self.network.parameters())
        self.optimizer = SOAP(self.parameters, lr=config.learning_rate)
        self.average = [p.detach().clone() for p in self.parameters]
        self.best = [p.clone() for p in self.average]
        self.update, self.recent, self.history = 0, [0.0, 0.0], list[dict[str, float]]()
        self.found: dict[str, float] = {}
        self.seconds, self.mark = 0.0, time.perf_counter()
        self.snapshot = (
            None
            if snapshot is None
            else Snapshot(snapshot, {**asdict(config), "start": self.start, **identity(lessons)})
        )
        saved = self.snapshot and self.snapshot.load()
        if saved:
            self._restore(saved)

    def train(self) -> Trained:
        """Train to the end."""
        config, early = self.config, False
        while self.update < config.updates and not early:
            self._update()
            self.update += 1
            if self.update % VALIDATION_EVERY == 0 or self.update == config.updates:
                self._validate()
                early = bool(config.patience) and self._since_best() >= config.patience
            if self.update % SNAPSHOT_EVERY == 0 and not early and self.update < config.updates:
                self._save()
            if self.update % 10 == 0:
                last = f"score {self.history[-1]['validation']:.4f}" if self.history else "training"
                self.progress.update(self.update, config.updates, last)
        with torch.no_grad():
            for p, best in zip(self.parameters, self.best, strict=True):
                p.copy_(best)
        self._book()
        return Trained(self.network, self.found, self.history, self.update, early, self.seconds, self.start)

    def _book(self) -> None:
        """Add the time since the last booking."""
        now = time.perf_counter()
        self.seconds, self.mark = self.seconds + now - self.mark, now

    def _update(self) -> None:
        config, fraction = self.config, self.update / self.config.updates
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate * cosine(self.update, fraction, WARM_UP)
        # A stream of its own for every update, so that nothing about chance has to be kept.
        rng = np.random.default_rng([config.seed, self.update])
        k, stride = int(rng.integers(len(self.lessons))), int(rng.integers(len(config.macro_steps)))
        steps = config.rollout if fraction >= ROLLOUT_FROM else 1
        loss = self._loss(rng, k, stride, steps, validate=False)
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        decay = min(AVERAGE, (1 + self.update) / (10 + self.update))
        torch._foreach_lerp_(self.average, [p.detach() for p in self.parameters], 1 - decay)
        self.recent = [self.recent[0] + float(loss.detach()), self.recent[1] + 1]

    def _loss(self, rng: np.random.Generator, k: int, stride: int, steps: int, validate: bool) -> Tensor:
        """Mean score over the macro-steps of a rollout, of two draws each."""
        lesson, molecule, n = self.lessons[k], self.molecules[k], len(self.molecules[k])
        batch = max(1, PAIRS // (n * (n - 1)))
        lag = lesson.lag(self.config.macro_steps[stride] * self.config.timestep_fs)
        x, p = (torch.from_numpy(a) for a in lesson.draw(rng, lag, steps, batch, validate))
        start = x[0] if validate else x[0] + SHAKEN_A * torch.from_numpy(rng.standard_normal(x[0].shape))
        here = start.repeat(2, 1, 1), p[0].repeat(2, 1, 1)
        total = torch.zeros((), dtype=torch.float64)
        for step in range(1, steps + 1):
            shape = (2 * batch, n, self.config.architecture.noise, 3)
            noise = torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))
            here = advanced(self.network, molecule, stride, self.config.time(stride), *here, noise)
            first, second = zip(*(a.chunk(2) for a in here), strict=True)
            total = total + self.scores[k](first, second, (x[step], p[step]))
        return total / steps

    def _validate(self) -> None:
        """Score of the averaged weights on the ends of the trajectories; the same draws every time."""
        with torch.no_grad():
            now = [p.detach().clone() for p in self.parameters]
            for p, a in zip(self.parameters, self.average, strict=True):
                p.copy_(a)
            scores = {}
            for stride, steps in enumerate(self.config.macro_steps):
                rng = np.random.default_rng([self.config.seed, stride, 2**31])
                each = [
                    float(self._loss(rng, k, stride, 1, validate=True))
                    for k in range(len(self.lessons))
                    for _ in range(VALIDATION_BATCHES)
                ]
                scores[str(steps)] = float(np.mean(each))
            for p, b in zip(self.parameters, now, strict=True):
                p.copy_(b)
        mean = float(np.mean(list(scores.values())))
        if not math.isfinite(mean):
            raise InputError(
                f"training left the finite numbers at update {self.update}; give a smaller --learning-rate than "
                f"{self.config.learning_rate:g}."
            )
        self.history.append(
            {"updates": self.update, "training": self.recent[0] / max(1.0, self.recent[1]), "validation": mean}
        )
        self.recent = [0.0, 0.0]
        if mean <= min(h["validation"] for h in self.history):
            self.best, self.found = [a.clone() for a in self.average], scores

    def _since_best(self) -> int:
        """Validations since the best."""
        return len(self.history) - 1 - int(np.argmin([h["validation"] for h in self.history]))

    def _save(self) -> None:
        if self.snapshot is None:
            return
        self._book()
        state = {
            "seconds": self.seconds,
            "update": self.update,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average,
            "best": self.best,
            "found": self.found,
            "recent": self.recent,
            "history": self.history,
        }
        self.snapshot.save(state)

    def _restore(self, saved: dict[str, Any]) -> None:
        self.network.load_state_dict(saved["network"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.average, self.best, self.found = saved["average"], saved["best"], saved["found"]
        self.update, self.recent, self.history = saved["update"], saved["recent"], saved["history"]
        self.seconds = saved["seconds"]


def _first(config: TrainingConfig) -> tuple[PredictorNet, str | None]:
    """The network training begins with, and the hash of the file it is from.

    Raises:
        InputError: a file that is no predictor, or one of something else.
    """
    if config.start is None:
        return PredictorNet(config.architecture, len(config.macro_steps)), None
    network, record = load_network(config.start)
    for name, has, asked in (
        ("architecture", network.architecture.as_dict(), config.architecture.as_dict()),
        ("macro-steps", record["macro_steps"], list(config.macro_steps)),
        ("timestep-fs", record["timestep_fs"], config.timestep_fs),
    ):
        if has != asked:
            raise InputError(f"predictor '{config.start}' has {name} {has}, and {asked} is asked for; tuning keeps it.")
    return network, str(record["sha256"])


def save_trained(trained: Trained, config: TrainingConfig, lessons: Sequence[Lesson], path: str | Path) -> None:
    """Write the file of a trained predictor, with what it learnt from."""
    record = {
        "macro_steps": list(config.macro_steps),
        "timestep_fs": config.timestep_fs,
        "elements": sorted({int(z) for x in lessons for z in x.numbers}),
        "largest": max(len(x.numbers) for x in lessons),
        "molecules": learnt_from(lessons),
        "scores": trained.scores,
        "seconds": {"training": round(trained.seconds, 1)},
        "training": {
            "updates": trained.updates,
            "seed": config.seed,
            "learning_rate": config.learning_rate,
            "start": trained.start,
        },
    }
    save_predictor(trained.network, record, path)
