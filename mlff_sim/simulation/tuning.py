"""How long the trajectories of hybrid Monte Carlo should be: tried out in the warm-up, then frozen.

The warm-up makes proposals of lengths k, 2k, 4k, ... in turn. Which length comes next does not depend on the state, so
every one of them leaves the ensemble as it is, and the warm-up equilibrates as any other. Of the lengths, the one is taken
with the largest J(k) / sqrt(k), where J is the mean square by which a proposal changes the distances between atoms, a
refused one by zero (Pasarica & Gelman, Stat. Sinica 20, 343 (2010); the root, Wang, Mohamed & de Freitas, ICML 28 (3),
1462 (2013), arXiv:1302.6182).

That is: a trajectory twice as long has to move things 1.41 times as much. If a teacher call were all that costs, any
more would do; if the student's steps were, it would have to be twice as much. The times of both are left out on purpose:
they change from start to start, and the same settings would not give the same run.

Nothing is adapted in production: a length that depends on the trajectory's own past does not keep the ensemble.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mlff_sim.errors import InputError
from mlff_sim.forces import Array
from mlff_sim.simulation.config import RunConfig

SHORTEST_FS = 10.0
"""The first length, about a period of an X-H stretch."""
SWEEPS, PROPOSALS = 10, 40
"""Through all lengths, at least; and proposals of each length over all replicas, of which the second half counts."""
FEWEST = 3
"""Lengths to choose from, at least."""
SHARE = 10
"""Proposals that a run should have at least."""


@dataclass(frozen=True)
class Trial:
    """What one length has yielded, over the second half of the warm-up.

    Attributes:
        k_steps: inner steps in a trajectory.
        acceptance: share of its proposals accepted.
        jump_A2: J, mean square change of the distances between atoms by a proposal.
    """

    k_steps: int
    acceptance: float
    jump_A2: float

    @property
    def score(self) -> float:
        """J / sqrt(k), A^2."""
        return float(self.jump_A2 / np.sqrt(self.k_steps))


@dataclass(frozen=True)
class Ladder:
    """The lengths to try and how often.

    Attributes:
        unit: inner steps of the shortest trajectory; the others are multiples.
        multiples: 1, 2, 4, ...
        sweeps: through all of them.
    """

    unit: int
    multiples: tuple[int, ...]
    sweeps: int


def unit_steps(timestep_fs: float) -> int:
    """Inner steps of the shortest trajectory that is tried."""
    return max(1, round(SHORTEST_FS / timestep_fs))


def ladder(config: RunConfig, replicas: int) -> Ladder:
    """As many lengths as the warm-up has time for, the longest at most a tenth of the run.

    Raises:
        InputError: there is time for less than three.
    """
    unit, h = unit_steps(config.timestep_fs), config.timestep_fs / 1000
    needed = max(SWEEPS, -(-PROPOSALS // replicas))

    def sweeps(count: int) -> int:
        return int(config.equilibrate_ps / (unit * h * (2**count - 1)) * (1 + 1e-9))

    def fits(count: int) -> bool:
        return sweeps(count) >= needed and 2 ** (count - 1) * unit * h * SHARE <= config.duration_ps * (1 + 1e-9)

    count = 0
    while fits(count + 1):
        count += 1
    if count < FEWEST:
        warm, run = (unit * h * f for f in (needed * (2**FEWEST - 1), SHARE * 2 ** (FEWEST - 1)))
        raise InputError(
            f"k_steps = 'auto' has too little time to try {FEWEST} lengths: equilibrate_ps = {config.equilibrate_ps:g} and "
            f"duration_ps = {config.duration_ps:g}; give at least {warm:.3g} and {run:.3g}, better ten times as much, or a number."
        )
    return Ladder(unit, tuple(2**i for i in range(count)), sweeps(count))


def jumps(before: Array, after: Array) -> Array:
    """Mean square change of the distances between atoms, A^2, shape (replicas,), of positions (replicas, n, 3)."""
    i, j = np.triu_indices(before.shape[1], 1)
    if not len(i):
        return np.zeros(len(before))
    change = [np.linalg.norm(x[:, i] - x[:, j], axis=-1) for x in (before, after)]
    mean: Array = ((change[1] - change[0]) ** 2).mean(axis=1)
    return mean


def choose(rungs: Ladder, accepted: Array, jumped: Array) -> dict[str, Any]:
    """The best length, and what it was chosen from.

    Args:
        rungs: what was tried.
        accepted: share of the replicas, shape (sweeps, lengths).
        jumped: A^2, mean over the replicas, shape (sweeps, lengths).

    Returns:
        "k_steps"; "longest", True where a longer one might have been better; "trials".
    """
    half = slice(len(accepted) // 2, None)
    trials = [
        Trial(rungs.unit * m, float(a), float(j))
        for m, a, j in zip(rungs.multiples, accepted[half].mean(axis=0), jumped[half].mean(axis=0), strict=True)
    ]
    best = max(trials, key=lambda t: t.score)
    return {
        "k_steps": best.k_steps,
        "longest": best is trials[-1],
        "trials": [{**asdict(t), "score": t.score} for t in trials],
    }
