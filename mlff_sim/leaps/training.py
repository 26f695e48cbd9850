"""Training a generating function without solving for anything.

Of a pair of states one stride apart the midpoint is known, and so is what the gradient there must be:

    dN/dpbar = (q' - q) / h - pbar / m,    dN/dqbar = -(p' - p) / h.

Both errors are counted by the power they do: that of dN/dq beside thermal velocities (kT / m)^1/2, that of dN/dp beside the
forces usual on the atom's element, because what decides about a proposal is the energy it gains.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlff_sim.errors import InputError
from mlff_sim.forces import Array
from mlff_sim.leaps.generating import GeneratingNet
from mlff_sim.predictors.snapshot import SNAPSHOT_EVERY, Snapshot
from mlff_sim.progress import Progress
from mlff_sim.soap import cosine
from mlff_sim.units import FS


@dataclass(frozen=True)
class Midpoints:
    """What G must do where, of one molecule and stride.

    Attributes:
        q: A, midpoints, shape (pairs, n, 3).
        p: (eV u)^1/2, midpoints.
        force: eV/A, (p' - p) / h.
        excess: A per internal time, (q' - q) / h - pbar / m.
        numbers: atomic numbers, shape (n,).
        masses: u, shape (n,).
        stride_fs: h.
    """

    q: Array
    p: Array
    force: Array
    excess: Array
    numbers: NDArray[np.int64]
    masses: Array
    stride_fs: float

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.q)

    def some(self, most: int) -> Midpoints:
        """At most so many of the pairs, evenly spread."""
        which = np.linspace(0, len(self) - 1, min(most, len(self))).astype(int)
        return self._with({name: getattr(self, name)[which] for name in PAIRWISE})

    def _with(self, parts: dict[str, Array]) -> Midpoints:
        return Midpoints(**parts, numbers=self.numbers, masses=self.masses, stride_fs=self.stride_fs)

    def units(self, kT: float) -> tuple[Array, Array]:
        """What errors of dN/dq and dN/dp are measured in, shape (n, 1): power over these is of order one."""
        speed = np.sqrt(kT / self.masses)[:, None]
        push = np.ones_like(speed)
        for z in np.unique(self.numbers):
            push[self.numbers == z] = np.sqrt((self.force[:, self.numbers == z] ** 2).mean())
        power = np.sqrt(((push * speed) ** 2).mean())
        return power / speed, power / push


PAIRWISE = ("q", "p", "force", "excess")


def joined(parts: Sequence[Midpoints]) -> Midpoints:
    """Pairs of several trajectories of one molecule."""
    return parts[0]._with({name: np.concatenate([getattr(x, name) for x in parts]) for name in PAIRWISE})


def midpoints(
    positions: Array,
    momenta: Array,
    frame_fs: float,
    stride_fs: float,
    numbers: NDArray[np.int64],
    masses: Array,
) -> Midpoints:
    """All pairs of frames one stride apart.

    Args:
        positions: A, shape (frames, replicas, n, 3), of plain dynamics at constant energy.
        momenta: (eV u)^1/2, of the same shape.
        frame_fs: time between frames.
        stride_fs: h, a whole number of frames.
        numbers: shape (n,).
        masses: u, shape (n,).

    Raises:
        InputError: h is no whole number of frames, or longer than the trajectory.
    """
    apart = round(stride_fs / frame_fs)
    if apart < 1 or not math.isclose(apart * frame_fs, stride_fs, rel_tol=1e-9):
        nearest = max(1, apart) * frame_fs
        raise InputError(
            f"stride {stride_fs:g} fs is no whole number of frames of {frame_fs:g} fs; the nearest is {nearest:g} fs."
        )
    if len(positions) <= apart:
        raise InputError(
            f"stride {stride_fs:g} fs is longer than the trajectory of {(len(positions) - 1) * frame_fs:g} fs; give a longer one."
        )
    h = stride_fs * FS
    q0, q1, p0, p1 = positions[:-apart], positions[apart:], momenta[:-apart], momenta[apart:]
    p = 0.5 * (p0 + p1)
    excess = (q1 - q0) / h - p / masses[:, None]
    flat = (-1, *positions.shape[2:])
    parts = (x.reshape(flat) for x in (0.5 * (q0 + q1), p, (p1 - p0) / h, excess))
    q, p, force, excess = parts
    return Midpoints(q, p, force, excess, np.asarray(numbers), np.asarray(masses, dtype=np.float64), stride_fs)


def train(
    network: GeneratingNet,
    data: Midpoints,
    seconds: float,
    steps: int | None = None,
    seed: int = 0,
    batch: int = 32,
    learning_rate: float = 2e-3,
    progress: Progress | None = None,
    snapshot: Snapshot | None = None,
) -> tuple[int, float]:
    """Train in place, against the clock, with a cosine learning rate; leaves the running average of the weights.

    Args:
        network: of float32.
        data: pairs.
        seconds: wall time.
        steps: instead, for a result that does not depend on how fast the machine is.
        seed: of the order of pairs.
        batch: pairs in a step.
        learning_rate: at its peak.
        progress: told the steps, or the seconds.
        snapshot: where the state of unfinished training is kept, and taken up from; for a number of `steps`.

    Returns:
        Steps done, and the seconds they took, interruptions left out.
    """
    kinds, masses = network.kinds(data.numbers), torch.from_numpy(data.masses)
    unit_q, unit_p = (torch.from_numpy(u).float() for u in data.units(network.kT))
    parameters = list(network.parameters())
    average = [p.detach().clone() for p in parameters]
    optimizer = torch.optim.Adam(parameters, lr=learning_rate, betas=(0.9, 0.98))
    step, before = 0, 0.0
    saved = snapshot.load() if snapshot else None
    if saved:
        network.load_state_dict(saved["network"])
        optimizer.load_state_dict(saved["optimizer"])
        average, step, before = saved["average"], saved["step"], saved["seconds"]
    begin, elapsed, done = time.perf_counter(), before, step / steps if steps else 0.0
    while done < 1:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * cosine(step, done, 50)
        # A stream of its own for every step, so that nothing about chance has to be kept.
        which = np.random.default_rng([seed, step]).integers(0, len(data), batch)
        eq, ep = _errors(network, data, which, kinds, masses, train=True)
        loss = (eq / unit_q).square().mean() + (ep / unit_p).square().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 10.0)
        optimizer.step()
        step += 1
        torch._foreach_lerp_(average, [p.detach() for p in parameters], 1 - min(0.99, (1 + step) / (10 + step)))
        elapsed = before + time.perf_counter() - begin
        done = step / steps if steps else elapsed / seconds
        if progress is not None and step % 10 == 0:
            progress.update(step if steps else elapsed, steps or seconds, "training")
        if snapshot is not None and step % SNAPSHOT_EVERY == 0 and done < 1:
            state = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "average": average}
            snapshot.save({**state, "step": step, "seconds": elapsed})
    with torch.no_grad():
        for p, a in zip(parameters, average, strict=True):
            p.copy_(a)
    return step, elapsed


def errors(network: GeneratingNet, data: Midpoints) -> tuple[float, float]:
    """Mean absolute error of dN/dq over components, meV/A, and the error of `train`'s measure, root mean square over both."""
    kinds, masses = network.kinds(data.numbers), torch.from_numpy(data.masses)
    unit_q, unit_p = (torch.from_numpy(u) for u in data.units(network.kT))
    absolute, square = 0.0, 0.0
    for part in np.array_split(np.arange(len(data)), max(1, len(data) // 256)):
        eq, ep = (e.double() for e in _errors(network, data, part, kinds, masses, train=False))
        absolute += float(eq.abs().sum())
        square += float((eq / unit_q).square().sum() + (ep / unit_p).square().sum())
    return 1e3 * absolute / data.q.size, math.sqrt(square / data.q.size)


def _errors(
    network: GeneratingNet, data: Midpoints, which: NDArray[np.int64], kinds: Tensor, masses: Tensor, train: bool
) -> tuple[Tensor, Tensor]:
    """Of dN/dq, eV/A, and dN/dp, A per internal time, at the pairs `which`."""
    q, p, force, excess = (torch.from_numpy(a[which]).float() for a in (data.q, data.p, data.force, data.excess))
    dq, dp = network.slopes(q, p, kinds, masses.float(), train=train)
    return dq + force, dp - excess
