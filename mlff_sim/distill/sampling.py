"""Where frames come from: short Langevin runs of the teacher to begin with, long ones of the student after.

Both use BAOAB (Leimkuhler & Matthews, Appl. Math. Res. eXpress 2013, 34, doi:10.1093/amrx/abs010).
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlff_sim.distill.dataset import Labels
from mlff_sim.forces import Array, ForceProvider
from mlff_sim.models.student import InverseDistanceNet
from mlff_sim.state import maxwell_boltzmann
from mlff_sim.units import FS, KB, PS

BOND_A = 2.0
"""A; pairs that have never been farther apart than this are bonded, or share a neighbour and an angle."""
RESET_FORCE = 25.0
"""eV/A. A replica whose student force exceeds this has left the training range and is set back to a labelled frame."""


def teacher_trajectory(
    teacher: ForceProvider,
    positions: Array,
    masses: Array,
    *,
    temperature_K: float,
    steps: int,
    every: int,
    discard: int = 0,
    timestep_fs: float = 1.0,
    friction_per_ps: float = 10.0,
    rng: np.random.Generator,
) -> Iterator[tuple[Array, float, Array]]:
    """Run the teacher and yield (positions, energy, forces) of every `every`-th step after `discard` steps.

    Args:
        teacher: the expensive model.
        positions: A, start, shape (n, 3).
        masses: u, shape (n,).
        temperature_K: target of the Langevin bath.
        steps: steps in all.
        every: steps between two yielded frames.
        discard: steps of equilibration.
        timestep_fs: step of BAOAB.
        friction_per_ps: strong, so that frames decorrelate fast.
        rng: source of the noise.
    """
    h, m = timestep_fs * FS, masses[:, None]
    c = np.exp(-friction_per_ps / PS * h)
    x, p = positions.copy(), maxwell_boltzmann(masses, temperature_K, rng, remove_com=True)
    result = teacher(x)
    for step in range(1, steps + 1):
        p = p + 0.5 * h * result.forces
        x = x + 0.5 * h * p / m
        p = c * p + np.sqrt((1 - c * c) * KB * temperature_K * m) * rng.standard_normal(p.shape)
        x = x + 0.5 * h * p / m
        result = teacher(x)
        p = p + 0.5 * h * result.forces
        if step > discard and (step - discard) % every == 0:
            yield x.copy(), float(result.energy), result.forces.copy()


def student_frames(
    network: InverseDistanceNet,
    known: Labels,
    masses: Array,
    species: NDArray[np.int64],
    *,
    temperatures_K: tuple[float, float],
    count: int,
    replicas: int = 64,
    stride: int = 50,
    discard: int = 0,
    timestep_fs: float = 0.5,
    friction_per_ps: float = 20.0,
    limit_s: float = np.inf,
    rng: np.random.Generator,
) -> Array:
    """Sample `count` frames (count, n, 3) with Langevin dynamics of the student, or as many as the time allows.

    Replicas start from labelled frames, each at its own temperature drawn from the range, and give a frame every
    `stride` steps after the first `discard` times that many; a replica that leaves the training range is set back.
    After `limit_s` seconds there are no more; one frame of each replica there is in any case.
    """
    begun = time.perf_counter()
    numbers = torch.as_tensor(np.asarray(species))
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    m = torch.tensor(masses, dtype=torch.float32)[None, :, None]
    kt = KB * torch.tensor(rng.uniform(*temperatures_K, replicas), dtype=torch.float32)[:, None, None]
    h = timestep_fs * FS
    c = float(np.exp(-friction_per_ps / PS * h))
    thermal = (kt * m).sqrt()
    kick = thermal * float(np.sqrt(1 - c * c))

    def restart(n: int) -> Tensor:
        return torch.tensor(known.positions[rng.integers(0, len(known), n)], dtype=torch.float32)

    def noise() -> Tensor:
        return torch.randn(x.shape, generator=generator)

    def distances(y: Tensor) -> Tensor:
        d = y[:, network.pair_i] - y[:, network.pair_j]
        return (d * d).sum(-1).sqrt()

    seen = distances(torch.tensor(known.positions, dtype=torch.float32))
    # No pair closer than any pair of these two elements has been, and no bond longer: an early student has no
    # repulsion. Other distances are free, so that new conformations can be found.
    low, longest = seen.amin(0), seen.amax(0)
    zi, zj = numbers[network.pair_i], numbers[network.pair_j]
    kind = 1000 * torch.minimum(zi, zj) + torch.maximum(zi, zj)
    for k in kind.unique():
        low[kind == k] = low[kind == k].min()
    low, high = 0.9 * low, torch.where(longest < BOND_A, 1.1 * longest, torch.inf)

    x = restart(replicas)
    p = thermal * noise()
    frames: list[Array] = []
    with torch.no_grad():
        _, f = network(x)
        step = 0
        while len(frames) * replicas < count and not (frames and time.perf_counter() - begun > limit_s):
            p = p + 0.5 * h * f
            x = x + 0.5 * h * p / m
            p = c * p + kick * noise()
            x = x + 0.5 * h * p / m
            _, f = network(x)
            p = p + 0.5 * h * f
            step += 1
            d = distances(x)
            lost = ~((f.abs().amax((1, 2)) < RESET_FORCE) & (d > low).all(1) & (d < high).all(1))  # NaN counts as lost
            if bool(lost.any()):
                x[lost] = restart(int(lost.sum()))
                p[lost] = (thermal * noise())[lost]
                _, f = network(x)
            if step % stride == 0 and step > discard * stride:
                frames.append(x.double().numpy())
    return np.concatenate(frames)[:count]
