"""What hybrid Monte Carlo has yielded: how much was accepted, and how many samples it is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mlff_sim.forces import Array
from mlff_sim.validation.sampling import effective_samples, student_t
from mlff_sim.validation.verdict import Verdict


@dataclass(frozen=True)
class Leaps:
    """What proposals of a generating function were made of.

    Attributes:
        tried: leaps; the first that is not solved ends its proposal, which is refused.
        unsolved: of these, where no midpoint was found.
        one_way: of these, where one was, and the way back did not lead to the start.
    """

    tried: int
    unsolved: int
    one_way: int

    @property
    def share(self) -> float:
        """Of the leaps that were solved both ways."""
        return 1 - (self.unsolved + self.one_way) / self.tried if self.tried else 0.0


@dataclass(frozen=True)
class MonteCarlo:
    """Acceptance and effective samples of a run.

    Attributes:
        acceptance: share of proposals accepted.
        ci95: its interval, from the scatter over blocks and replicas.
        proposals: in all.
        effective: independent samples by observable, after equilibration.
        wall_s: s, of the whole run.
        leaps: None where proposals are trajectories.
    """

    acceptance: float
    ci95: tuple[float, float]
    proposals: int
    effective: Mapping[str, float]
    wall_s: float | None
    leaps: Leaps | None = None

    @property
    def verdict(self) -> Verdict | None:
        """INCONCLUSIVE where nothing was accepted, and so nothing sampled but momenta; a rate as such is not judged."""
        return None if self.acceptance else Verdict.INCONCLUSIVE

    @property
    def remedy(self) -> str:
        """What to do where nothing is accepted."""
        if self.leaps is None:
            return "take fewer or shorter steps, or a better student"
        return "take fewer leaps, or train for a shorter stride, or give a student, with which more of them are solved"

    @property
    def slowest(self) -> str:
        """The observable with the fewest independent samples."""
        return min(self.effective, key=lambda name: self.effective[name])

    @property
    def effective_samples(self) -> float:
        """Independent samples of the slowest observable."""
        return self.effective[self.slowest]

    @property
    def effective_samples_per_s(self) -> float | None:
        """The same for each second of wall time."""
        return self.effective_samples / self.wall_s if self.wall_s else None


def monte_carlo(
    accepted: Array,
    proposals_per_row: int,
    observables: Mapping[str, Array],
    wall_s: float | None,
    leaps: Leaps | None = None,
) -> MonteCarlo:
    """Judge a run of hybrid Monte Carlo.

    Args:
        accepted: proposals accepted since the row before, shape (rows, replicas), without the first row.
        proposals_per_row: proposals between rows, of each replica.
        observables: by name, shape (rows, replicas), after equilibration.
        wall_s: s, or None.
        leaps: that the proposals were made of.
    """
    share = accepted / proposals_per_row
    blocks = np.concatenate([b.mean(axis=0) for b in np.array_split(share, min(10, len(share)))])
    half = (
        student_t(0.975, len(blocks) - 1) * float(blocks.std(ddof=1)) / np.sqrt(len(blocks)) if len(blocks) > 1 else 1
    )
    mean = float(share.mean())
    effective = {name: effective_samples(series.T) for name, series in observables.items()}
    interval = (max(0.0, mean - half), min(1.0, mean + half))
    return MonteCarlo(mean, interval, proposals_per_row * accepted.size, effective, wall_s, leaps)


def observables(
    positions: Array, potential_energy: Array, masses: Array, bonds: Sequence[Sequence[int]], numbers: Array
) -> dict[str, Array]:
    """Three quantities of different kinds, each of shape (rows, replicas): energy, size, and the slowest torsion.

    Args:
        positions: A, shape (rows, replicas, n, 3).
        potential_energy: eV, shape (rows, replicas).
        masses: u, shape (n,).
        bonds: pairs of atoms.
        numbers: atomic numbers, shape (n,).
    """
    centre = np.average(positions, axis=2, weights=masses)[:, :, None]
    size = np.sqrt(np.average(((positions - centre) ** 2).sum(-1), axis=2, weights=masses))
    found = {"potential energy": potential_energy, "radius of gyration": size}
    cosines = [np.cos(torsion(positions, *quadruple)) for quadruple in torsions(bonds, numbers)]
    if cosines:
        found["slowest torsion"] = min(cosines, key=lambda c: effective_samples(c.T))
    return found


def torsions(bonds: Sequence[Sequence[int]], numbers: Array) -> list[tuple[int, int, int, int]]:
    """One torsion i-j-k-l for each bond j-k that has neighbours on both sides, heavy ones where there are."""
    near: dict[int, list[int]] = {}
    for i, j in bonds:
        near.setdefault(int(i), []).append(int(j))
        near.setdefault(int(j), []).append(int(i))
    out = []
    for j, k in bonds:
        ends = [
            sorted((a for a in near[int(b)] if a != int(c)), key=lambda a: (-numbers[a], a))
            for b, c in ((j, k), (k, j))
        ]
        if all(ends) and ends[0][0] != ends[1][0]:
            out.append((ends[0][0], int(j), int(k), ends[1][0]))
    return out


def torsion(positions: Array, i: int, j: int, k: int, l: int) -> Array:  # noqa: E741
    """Dihedral angle in radians of positions (..., n, 3); 0 is cis."""
    a, b, c = (positions[..., q, :] - positions[..., p, :] for p, q in ((i, j), (j, k), (k, l)))
    n, m = np.cross(a, b), np.cross(b, c)
    length = np.linalg.norm(b, axis=-1)
    angle: Array = np.arctan2(length * (a * m).sum(-1), (n * m).sum(-1))
    return angle
