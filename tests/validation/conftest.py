"""Synthetic molecules: positions of ethanol that scatter and hop as told, with exact statistics."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from ase import Atoms
from scipy.signal import lfilter

from mlff_sim.forces import Array


def memory(rng: np.random.Generator, shape: tuple[int, ...], tau: float) -> Array:
    """Stationary AR(1) series along the first axis, unit variance, correlation exp(-t / tau)."""
    a = np.exp(-1.0 / tau)
    noise = np.sqrt(1 - a * a) * rng.standard_normal(shape)
    noise[0] /= np.sqrt(1 - a * a)
    out: Array = lfilter([1.0], [1.0, -a], noise, axis=0)
    return out


def states(rng: np.random.Generator, shape: tuple[int, int], populations: list[float], tau: float) -> Array:
    """A Markov chain along the first axis that draws a new state with probability 1 / tau."""
    drawn = rng.choice(len(populations), size=shape, p=populations)
    fresh = rng.random(shape) < 1.0 / tau
    fresh[0] = True
    latest = np.maximum.accumulate(np.where(fresh, np.arange(shape[0])[:, None], 0), axis=0)
    out: Array = np.take_along_axis(drawn, latest, axis=0)
    return out


def turned(x: Array, start: Array, end: Array, angle: Array) -> Array:
    """Points (..., 3) turned about the axis from start to end by an angle in radians (...), Rodrigues' formula."""
    k = (end - start) / np.linalg.norm(end - start)
    v, c, s = x - start, np.cos(angle)[..., None], np.sin(angle)[..., None]
    out: Array = start + v * c + np.cross(k, v) * s + k * (v @ k)[..., None] * (1 - c)
    return out


@pytest.fixture(scope="session")
def make_run(ethanol: Atoms) -> Callable[..., Array]:
    """Runs of an ethanol whose atoms scatter by 0.03 A with a memory, whose methyl turns and whose hydroxyl has two wells.

    In the second well the oxygen sits 0.08 A elsewhere, which opens the angle C-C-O, as gauche and trans do.
    """

    def make(
        frames: int = 1000,
        replicas: int = 4,
        *,
        seed: int,
        tau: float = 3.0,
        hop: float = 1e9,
        methyl: float = 1e9,
        populations: tuple[float, float] = (0.6, 0.4),
    ) -> Array:
        rng = np.random.default_rng(seed)
        start = ethanol.get_positions()
        x = np.broadcast_to(start, (frames, replicas, *start.shape)).copy()
        shape = (frames, replicas)
        if hop < 1e8:
            well = states(rng, shape, list(populations), hop)
            x[:, :, 8] = turned(start[8], start[1], start[2], well * np.radians(120.0))
            away = start[2] - start[0]
            x[:, :, [2, 8]] += (well[..., None] * 0.08 * away / np.linalg.norm(away))[:, :, None]
        if methyl < 1e8:
            turn = np.radians(120.0) * states(rng, shape, [1 / 3] * 3, methyl)
            for h in (3, 4, 5):
                x[:, :, h] = turned(start[h], start[1], start[0], turn)
        return x + 0.03 * memory(rng, x.shape, tau)

    return make
