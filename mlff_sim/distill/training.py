"""Force matching against the wall clock: as many steps as the budget holds, with a cosine learning rate."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mlff_sim.distill.dataset import Labels
from mlff_sim.models.student import InverseDistanceNet
from mlff_sim.soap import SOAP, cosine


@dataclass(frozen=True)
class TrainingConfig:
    """How a network is trained.

    Attributes:
        batch: frames in a step.
        learning_rate: peak of the cosine.
        energy_weight: weight of the standardised squared energy error beside that of the forces.
        average: decay of the running average of the weights, which is what is kept.
    """

    batch: int = 256
    learning_rate: float = 3e-3
    energy_weight: float = 0.01
    average: float = 0.999


class Trainer:
    """Trains one network on labels that grow from round to round, and can be cut at any time.

    Args:
        network: trained in place.
        config: how.
        seed: of the order of frames.
        snapshot: file that holds the state of an unfinished `train`, written every half minute.
    """

    def __init__(self, network: InverseDistanceNet, config: TrainingConfig, seed: int, snapshot: Path) -> None:
        """Bind; nothing is computed yet."""
        self.network, self.config, self.seed, self.snapshot = network, config, seed, snapshot
        self._call: Callable[[Tensor], tuple[Tensor, Tensor]] = network

    def train(self, labels: Labels, seconds: float, stage: int, tick: Callable[[float], None]) -> int:
        """Train for `seconds` of wall time and leave the averaged weights in the network.

        Args:
            labels: frames of all rounds so far.
            seconds: budget of this round, across interruptions.
            stage: number of the round; a snapshot of another one is ignored.
            tick: told the seconds that passed since the last call.

        Returns:
            Optimiser steps done, across interruptions.
        """
        x, f = torch.from_numpy(labels.positions).float(), torch.from_numpy(labels.forces).float()
        e = torch.from_numpy(labels.energies - energy_offset(self.network, labels)).float()
        f_scale, e_scale = float(f.std()), float(self.network.energy_scale)
        parameters = list(self.network.parameters())
        optimizer = SOAP(parameters, lr=self.config.learning_rate)
        average = [p.detach().clone() for p in parameters]
        generator = torch.Generator().manual_seed(self.seed + stage)
        elapsed, step = 0.0, 0
        if self.snapshot.exists():
            saved: dict[str, Any] = torch.load(self.snapshot, weights_only=True)
            if saved["stage"] == stage:
                elapsed, step = saved["elapsed"], saved["step"]
                self.network.load_state_dict(saved["network"])
                optimizer.load_state_dict(saved["optimizer"])
                average = saved["average"]
                generator.set_state(saved["generator"])
        last_saved = last = time.perf_counter()
        while elapsed < seconds:
            lr = self.config.learning_rate * cosine(step, elapsed / seconds, 100)
            for group in optimizer.param_groups:
                group["lr"] = lr
            pick = torch.randint(0, len(e), (self.config.batch,), generator=generator)
            energy, forces = self._call(x[pick])
            loss = ((forces - f[pick]) / f_scale).square().mean()
            loss = loss + self.config.energy_weight * ((energy - e[pick]) / e_scale).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            decay = min(self.config.average, (1 + step) / (10 + step))
            torch._foreach_lerp_(average, [p.detach() for p in parameters], 1 - decay)
            now = time.perf_counter()
            elapsed, last = elapsed + now - last, now
            if step % 20 == 0:
                tick(elapsed)
            if now - last_saved > 30.0:
                last_saved = now
                self._save(stage, elapsed, step, optimizer, average, generator)
        with torch.no_grad():
            for p, a in zip(parameters, average, strict=True):
                p.copy_(a)
        self.snapshot.unlink(missing_ok=True)
        return step

    def _save(
        self, stage: int, elapsed: float, step: int, optimizer: SOAP, average: list[Tensor], generator: torch.Generator
    ) -> None:
        temporary = self.snapshot.with_suffix(".tmp")
        state = {
            "stage": stage,
            "elapsed": elapsed,
            "step": step,
            "network": self.network.state_dict(),
            "optimizer": optimizer.state_dict(),
            "average": average,
            "generator": generator.get_state(),
        }
        torch.save(state, temporary)
        os.replace(temporary, self.snapshot)


def energy_offset(network: InverseDistanceNet, labels: Labels) -> float:
    """The constant between the teacher's energies and the network's, eV; a median, so that strained frames do not pull."""
    with torch.no_grad():
        parts = np.array_split(labels.positions, max(1, len(labels) // 512))
        predicted = torch.cat([network(torch.from_numpy(x).float())[0] for x in parts])
    return float(np.median(labels.energies - predicted.double().numpy()))


def force_mae(network: InverseDistanceNet, labels: Labels) -> float:
    """Mean absolute error over Cartesian force components, meV/A."""
    error = 0.0
    with torch.no_grad():
        for part in np.array_split(np.arange(len(labels)), max(1, len(labels) // 512)):
            _, f = network(torch.from_numpy(labels.positions[part]).float())
            error += float((f.double() - torch.from_numpy(labels.forces[part])).abs().sum())
    return 1e3 * error / labels.forces.size


def largest_error(network: InverseDistanceNet, labels: Labels) -> float:
    """Largest error of the force on an atom, meV/A: how far teacher and student are apart where both are known."""
    largest = 0.0
    with torch.no_grad():
        for part in np.array_split(np.arange(len(labels)), max(1, len(labels) // 512)):
            _, f = network(torch.from_numpy(labels.positions[part]).float())
            error = np.linalg.norm(f.double().numpy() - labels.forces[part], axis=-1)
            largest = max(largest, float(error.max()))
    return 1e3 * largest
