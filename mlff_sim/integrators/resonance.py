"""What an outer step does to a two-model run, before it is made: the heat its kicks will put in, and resonance.

The slow force kicks once per outer step H. Between kicks the molecule follows the student, and the work of the kicks,
the trapezoid sum of the residual's power with step H, is not quite the work the residual would have done:

    W = H sum' g(t_j) - integral g dt,    g = f_residual . v,

which to first order in the residual is what `K + U` gains. In frequencies: W is what g has at the multiples of 2 pi / H.
It is a random walk. A run is volume-preserving and reversible, so from a canonical start <exp(-W / kT)> = 1, and the walk
has a drift (Jarzynski, Phys. Rev. Lett. 78, 2690 (1997), doi:10.1103/PhysRevLett.78.2690; Crooks, Phys. Rev. E 60, 2721
(1999), doi:10.1103/PhysRevE.60.2721):

    <W> = <W^2> / 2 kT,   and for the part w of it done on some of the atoms   <w> = <w W> / 2 kT.

The variance of a short piece is easy to measure where its mean is not. All it takes are the residual forces along
trajectories of the student. Anharmonic and coupled motion is in g; it needs no normal modes.

For one harmonic mode of angular frequency w whose stiffness the student misses by the share epsilon, the propagator of an
outer step has the half trace cos(wH) - (epsilon w H / 2) sin(wH) (Biesiadecki & Skeel, J. Comput. Phys. 109, 318 (1993),
doi:10.1006/jcph.1993.1220). Where it exceeds 1 the mode grows exponentially: windows that end at H = n pi / w.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlff_sim.forces import Array


@dataclass(frozen=True)
class KickWork:
    """Work of the kicks in excess of the residual's own, at one outer step.

    Attributes:
        walk: growth of the variance of W per time, eV^2 / time, a value for each replica, shape (replicas,). One that is
            nothing in truth comes out on either side of zero.
        heating: mean of W per time, eV / time, shape (replicas,); their mean over replicas is the estimate.
        by_group: the part of `heating` that is done on each group of atoms, same shape and unit.
    """

    walk: Array
    heating: Array
    by_group: Mapping[str, Array]


def kick_work(
    power: Array, stride: int, timestep: float, window: float, kT: float, groups: Mapping[str, NDArray[np.int64]]
) -> KickWork:
    """Measure how fast W walks, at every phase of the kicks that the sampling allows.

    <W^2> of a piece grows with its length, but for what the energy fluctuates by at its two ends. It is taken from pieces
    of a window and of half a window: the growth from one to the other is the walk, and the ends drop out.

    Args:
        power: f_residual . v of each atom along trajectories of the student, eV / time, shape (frames, replicas, n).
        stride: frames between kicks.
        timestep: between frames.
        window: length of the longer pieces; half of it should be longer than W remembers, some periods of the modes.
        kT: eV.
        groups: indices of atoms by name.

    Raises:
        ValueError: the trajectories are shorter than a window.
    """
    half = max(1, round(window / (2 * stride * timestep)))
    if len(power) <= 2 * half * stride:
        raise ValueError(f"{len(power)} frames are fewer than the {2 * half * stride + 1} of a window.")
    span = half * stride * timestep
    members = {"": np.arange(power.shape[-1]), **groups}
    short, long = (_squares(power, stride, kicks, timestep, members) for kicks in (half, 2 * half))
    rates = {name: (long[name] - short[name]) / span for name in members}
    walk = rates.pop("")
    return KickWork(walk, walk / (2 * kT), {name: rate / (2 * kT) for name, rate in rates.items()})


def excess_work(power: Array, stride: int, kicks: int, timestep: float) -> Array:
    """W of the kicks on each atom, in pieces of so many kicks from every frame on: shape (pieces, replicas, n), eV.

    Args:
        power: as for `kick_work`, shape (frames, replicas, n).
        stride: frames between kicks.
        kicks: outer steps in a piece.
        timestep: between frames.
    """
    starts = np.arange(0, len(power) - kicks * stride)
    coarse = _trapezoid(power, starts, kicks, stride)
    work: Array = timestep * (stride * coarse - _trapezoid(power, starts, kicks * stride, 1))
    return work


def _squares(
    power: Array, stride: int, kicks: int, timestep: float, members: Mapping[str, NDArray[np.int64]]
) -> dict[str, Array]:
    """<w W> of pieces of so many kicks, for the part w of W that is done on each group, shape (replicas,)."""
    work = excess_work(power, stride, kicks, timestep)
    total = work.sum(axis=-1)
    return {name: (work[..., index].sum(axis=-1) * total).mean(axis=0) for name, index in members.items()}


def _trapezoid(values: Array, starts: NDArray[np.int64], count: int, stride: int) -> Array:
    """Sum of values at a, a + stride, ..., a + count * stride with half weights at both ends, for each start a."""
    running = values.copy()
    for first in range(stride):
        running[first::stride] = np.cumsum(values[first::stride], axis=0)
    ends = starts + count * stride
    total: Array = running[ends] - running[starts] + 0.5 * (values[starts] - values[ends])
    return total


def half_trace(frequency: Array, error: Array, step: float) -> Array:
    """Half the trace of the outer step's propagator for harmonic modes, with an exact inner flow.

    Args:
        frequency: w of the student, angular, 1 / time.
        error: epsilon, the share of w^2 by which the teacher's stiffness is higher.
        step: outer step H, time.
    """
    wh = np.asarray(frequency) * step
    value: Array = np.cos(wh) - 0.5 * np.asarray(error) * wh * np.sin(wh)
    return value


def mode_growth(frequency: Array, error: Array, step: float) -> Array:
    """Rate of exponential growth of the amplitude of single modes, 1 / time; 0 outside the windows of instability."""
    rate: Array = np.arccosh(np.maximum(np.abs(half_trace(frequency, error, step)), 1.0)) / step
    return rate


def outer_map(frequency: Array, residual: Array, step: float) -> Array:
    """The linear map of one outer step in mass-weighted modes of the student, shape (2m, 2m), acting on (q, p).

    Args:
        frequency: w of the student's modes, shape (m,).
        residual: Hessian of teacher minus student in these modes, shape (m, m); its diagonal is epsilon w^2.
        step: outer step H.
    """
    m = len(frequency)
    c, s = np.cos(frequency * step), np.sin(frequency * step)
    flow = np.block([[np.diag(c), np.diag(s / frequency)], [np.diag(-s * frequency), np.diag(c)]])
    kick = np.eye(2 * m)
    kick[m:, :m] = -0.5 * step * residual
    out: Array = kick @ flow @ kick
    return out


def map_growth(frequency: Array, residual: Array, step: float) -> float:
    """Rate of growth of the fastest growing combination of coupled modes, 1 / time: also where two of them resonate."""
    if not len(frequency):
        return 0.0
    radius = float(np.abs(np.linalg.eigvals(outer_map(frequency, residual, step))).max())
    return float(np.log(radius) / step) if radius > 1 + 1e-9 else 0.0


def position_bias(frequency: Array, error: Array, step: float) -> Array:
    """Share by which <q^2> of each mode is off, away from resonance: epsilon (1 - wH cot wH) / 2, to first order."""
    wh = np.asarray(frequency) * step
    value: Array = 0.5 * np.asarray(error) * (1 - wh / np.tan(wh))
    return value
