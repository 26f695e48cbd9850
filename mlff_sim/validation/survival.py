"""How long does a run last, and what breaks first? The rules of the run's own guards, applied to frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlff_sim.forces import Array
from mlff_sim.limits import SIX_SIGMA, closest_pairs, highest_mean, longest_bonds
from mlff_sim.units import KB
from mlff_sim.validation.verdict import Verdict

AWAY = 3.0
"""Times the longest distance to a nearest neighbour at the start, beyond which an atom has flown away."""
CHUNK = 2_000_000
"""Distances worked on at once."""


@dataclass(frozen=True)
class Break:
    """The first rule that a replica broke.

    Attributes:
        rule: "a bond is broken", "atoms too close", "an atom has flown away", "temperature runs away" or
            "numbers must be finite".
        replica: from 0.
        frame: from 0.
        time_ps: since the first frame.
        atoms: which; two of a bond or a close pair, one else.
        value: in `unit`; NaN for numbers that are not finite.
        limit: in `unit`.
        unit: "A", "K", or "" for numbers that are not finite.
        detail: all that in a sentence.
    """

    rule: str
    replica: int
    frame: int
    time_ps: float
    atoms: tuple[int, ...]
    value: float
    limit: float
    unit: str
    detail: str


@dataclass(frozen=True)
class Stability:
    """How long replicas lasted; see `stability`.

    Attributes:
        breaks: of each replica, None where it lasted to the end.
        survived_ps: of each replica, to its break or to the end.
        mean_ps: maximum-likelihood mean survival time, observed time over breaks; infinite without breaks.
        ci95_ps: its interval; the lower end is a one-sided 95 % bound where nothing broke.
        required_ps: mean survival time that was asked for; None where every break is a failure.
        verdict: see `stability`.
        note: what broke first, or how long everything lasted.
    """

    breaks: tuple[Break | None, ...]
    survived_ps: tuple[float, ...]
    mean_ps: float
    ci95_ps: tuple[float, float]
    required_ps: float | None
    verdict: Verdict
    note: str

    @property
    def first(self) -> Break | None:
        """The earliest break of all replicas."""
        return min((b for b in self.breaks if b is not None), key=lambda b: b.time_ps, default=None)


def survival_time(observed_ps: float, breaks: int, confidence: float = 0.95) -> tuple[float, tuple[float, float]]:
    """Mean survival time of replicas that break at a constant rate, some of which were still whole at the end.

    Maximum likelihood with censoring: tau = T / k with the time T observed in all replicas and k breaks. Had the k-th
    break ended the observation, 2 T / tau would be chi^2 with 2 k degrees of freedom; as a fixed time ended it,

        2 T / chi^2(1 - a/2; 2 k + 2)  <  tau  <  2 T / chi^2(a/2; 2 k)

    with a = 1 - `confidence` covers at least as often as it says. Without a break there is only the lower bound,
    T / -log(a). Epstein & Sobel, J. Am. Stat. Assoc. 48, 486 (1953), doi:10.1080/01621459.1953.10483488; Garwood,
    Biometrika 28, 437 (1936), doi:10.1093/biomet/28.3-4.437 (the interval of a Poisson count).

    Args:
        observed_ps: T in ps, summed over replicas.
        breaks: k.
        confidence: of the interval.

    Returns:
        tau and its interval in ps.
    """
    from scipy.stats import chi2

    a = 1.0 - confidence
    if breaks == 0:
        return float("inf"), (observed_ps / -float(np.log(a)), float("inf"))
    low, high = 2 * observed_ps / chi2.ppf(1 - a / 2, 2 * breaks + 2), 2 * observed_ps / chi2.ppf(a / 2, 2 * breaks)
    return observed_ps / breaks, (float(low), float(high))


def stability(
    positions: Array,
    time_ps: Array,
    numbers: NDArray[np.int64],
    bonds: Sequence[tuple[int, int]] = (),
    *,
    momenta: Array | None = None,
    masses: Array | None = None,
    temperature_K: float | None = None,
    required_ps: float | None = None,
) -> Stability:
    """Look for the first frame of each replica that has left physics behind.

    Rules, in the order in which they are asked of a frame; limits are taken from the first frames:
        numbers must be finite: positions and momenta;
        a bond is broken: longer than 1.5 times its start, or than 1.5 times the sum of covalent radii if that is more
            (`mlff_sim.limits.LONGEST`);
        atoms too close: nearer than 0.6 times the sum of their covalent radii, or 0.8 times their start if that is less
            (`CLOSEST`);
        an atom has flown away: its nearest neighbour is 3 times as far as any atom's was at the start;
        temperature runs away: an element is hotter than a canonical sample of `temperature_K` ever is, with a
            probability of 1e-9 for all frames, elements and replicas together (`mlff_sim.limits.highest_mean`).

    Verdict:
        without `required_ps`: PASS where no replica broke, FAIL where one did.
        with it: PASS or FAIL where the whole interval of the mean survival time lies beyond or short of it, else
            INCONCLUSIVE.

    Args:
        positions: A, shape (frames, replicas, n, 3), not wrapped; of a molecule or a cluster, without images.
        time_ps: ps, shape (frames,).
        numbers: atomic numbers, shape (n,).
        bonds: pairs of bonded atoms at the start.
        momenta: (eV u)^1/2, the shape of positions; None to leave temperatures out.
        masses: u, shape (n,); needed with momenta.
        temperature_K: K, of the bath, or at constant energy of the start; needed with momenta.
        required_ps: mean survival time to be shown.

    Raises:
        ValueError: wrong shapes, fewer than two frames, a first frame that is not finite, times that do not increase,
            momenta without masses and temperature.
    """
    x, t = np.asarray(positions, dtype=np.float64), np.asarray(time_ps, dtype=np.float64)
    n = len(numbers)
    if x.ndim != 4 or t.shape != x.shape[:1] or x.shape[2:] != (n, 3) or not x.shape[1] or not n:
        raise ValueError(f"positions {x.shape} must be (frames, replicas, {n}, 3) with {t.size} frames.")
    if len(t) < 2:
        raise ValueError(f"{len(t)} frame shows no survival; 2 is the least.")
    if not (np.isfinite(t).all() and (np.diff(t) > 0).all()):
        raise ValueError("times must be finite numbers that increase.")
    if not np.isfinite(x[0]).all():
        raise ValueError("the first frame must be of finite numbers: limits are taken from it.")
    for i, j in bonds:
        if i == j or not (0 <= i < n and 0 <= j < n):
            raise ValueError(f"bond ({i}, {j}) must be of two different atoms from 0 to {n - 1}.")
    p = None if momenta is None else np.asarray(momenta, dtype=np.float64)
    if p is not None and (p.shape != x.shape or masses is None or temperature_K is None or not temperature_K > 0):
        raise ValueError(f"momenta must be {x.shape}, with masses and a temperature above 0 K.")
    rules = _Rules(x[0], numbers, bonds, masses, temperature_K, x.shape[0] * x.shape[1])
    breaks = tuple(rules.first(x[:, r], None if p is None else p[:, r], t - t[0], r) for r in range(x.shape[1]))
    survived = tuple(float(t[-1] - t[0]) if b is None else b.time_ps for b in breaks)
    count = sum(b is not None for b in breaks)
    mean, interval = survival_time(sum(survived), count)
    if required_ps is None:
        verdict = Verdict.FAIL if count else Verdict.PASS
    else:
        low, high = interval
        verdict = Verdict.PASS if low >= required_ps else Verdict.FAIL if high < required_ps else Verdict.INCONCLUSIVE
    if count:
        earliest = min((b for b in breaks if b is not None), key=lambda b: b.time_ps)
        note = f"{count} of {len(breaks)} replicas broke, first replica {earliest.replica}: {earliest.detail}."
    else:
        note = f"Nothing broke in {sum(survived):.4g} ps; the mean survival time is beyond {interval[0]:.4g} ps (95 %)."
    if verdict is Verdict.INCONCLUSIVE:
        note += f" To tell whether it is {required_ps:g} ps takes more or longer replicas."
    return Stability(breaks, survived, mean, interval, required_ps, verdict, note)


class _Rules:
    """The limits, from the first frames (replicas, n, 3)."""

    def __init__(
        self,
        start: Array,
        numbers: NDArray[np.int64],
        bonds: Sequence[tuple[int, int]],
        masses: Array | None,
        temperature_K: float | None,
        frames: int,
    ) -> None:
        from ase.data import chemical_symbols

        z = np.asarray(numbers)
        self.symbols = [chemical_symbols[k] for k in z.tolist()]
        n = len(z)
        self.bond = np.array(bonds, dtype=np.int64).reshape(-1, 2).T
        self.both = np.stack(np.triu_indices(n, 1))
        self.longest = longest_bonds(z.tolist(), self.bond[0], self.bond[1], _lengths(start, *self.bond))
        self.closest = closest_pairs(z.tolist(), self.both[0], self.both[1], _lengths(start, *self.both))
        self.pair = np.full((n, n), -1)
        self.pair[tuple(self.both)] = self.pair.T[tuple(self.both)] = np.arange(self.both.shape[1])
        self.reach = AWAY * max((float(_nearest(s[None]).max()) for s in start), default=0.0)
        if masses is not None and temperature_K is not None:
            self.member = z[:, None] == np.unique(z)
            self.masses, self.elements = np.asarray(masses, dtype=np.float64), np.unique(z)
            dof = 3.0 * self.member.sum(axis=0)
            probability = SIX_SIGMA / (frames * len(self.elements))
            self.hottest: Array = temperature_K * highest_mean(dof, np.ones(1), probability)

    def name(self, *atoms: int) -> str:
        """Atoms in words, C0 and H3."""
        return " and ".join(f"{self.symbols[a]}{a}" for a in atoms)

    def first(self, x: Array, p: Array | None, t: Array, replica: int) -> Break | None:
        """The first break of a replica, positions and momenta (frames, n, 3)."""
        finite = np.isfinite(x).all(axis=(1, 2))
        if p is not None:
            finite &= np.isfinite(p).all(axis=(1, 2))
        end = len(x) if finite.all() else int(np.argmin(finite))
        size = max(1, CHUNK // x.shape[1] ** 2)
        for begin in range(0, end, size):
            part = slice(begin, min(begin + size, end))
            found = [f for f in self._look(x[part], None if p is None else p[part]) if f is not None]
            if found:
                k, rule, atoms, value, limit, unit, words = min(found, key=lambda f: f[0])
                frame = begin + k
                detail = f"{words} at {t[frame]:.4g} ps (frame {frame})"
                return Break(rule, replica, frame, float(t[frame]), atoms, value, limit, unit, detail)
        if end == len(x):
            return None
        here = ~np.isfinite(x[end]).all(axis=1)
        if p is not None:
            here |= ~np.isfinite(p[end]).all(axis=1)
        atom = int(np.argmax(here))
        detail = f"{self.name(atom)} has a position or momentum that is no number at {t[end]:.4g} ps (frame {end})"
        nan = float("nan")
        return Break("numbers must be finite", replica, end, float(t[end]), (atom,), nan, nan, "", detail)

    def _look(self, x: Array, p: Array | None) -> list[tuple[int, str, tuple[int, ...], float, float, str, str] | None]:
        """For each rule the first frame that breaks it, with all that is to be told."""
        found: list[tuple[int, str, tuple[int, ...], float, float, str, str] | None] = []
        if self.bond.size:
            lengths = _lengths(x, *self.bond)
            if (hit := _first(lengths / self.longest)) is not None:
                k, b = hit
                i, j = (int(a) for a in self.bond[:, b])
                value, limit = float(lengths[k, b]), float(self.longest[b])
                words = f"the bond of {self.name(i, j)} is {value:.2f} A long, more than {limit:.2f} A,"
                found.append((k, "a bond is broken", (i, j), value, limit, "A", words))
        if self.both.size:
            lengths = _lengths(x, *self.both)
            if (hit := _first(self.closest / np.maximum(lengths, 1e-12))) is not None:
                k, b = hit
                i, j = (int(a) for a in self.both[:, b])
                value, limit = float(lengths[k, b]), float(self.closest[b])
                words = f"{self.name(i, j)} are {value:.2f} A apart, closer than {limit:.2f} A,"
                found.append((k, "atoms too close", (i, j), value, limit, "A", words))
            nearest = _nearest_of(lengths, self.pair)
            if (hit := _first(nearest / self.reach)) is not None:
                k, a = hit
                value = float(nearest[k, a])
                words = f"{self.name(a)} is {value:.1f} A from all others, more than {self.reach:.1f} A,"
                found.append((k, "an atom has flown away", (a,), value, self.reach, "A", words))
        if p is not None:
            kinetic = (p * p).sum(axis=2) / (2 * self.masses)
            warmth = (kinetic @ self.member) / (1.5 * KB * self.member.sum(axis=0))
            if (hit := _first(warmth / self.hottest)) is not None:
                k, e = hit
                a = int(np.argmax(np.where(self.member[:, e], kinetic[k], -1.0)))
                value, limit = float(warmth[k, e]), float(self.hottest[e])
                words = f"{self.symbols[a]} at {value:.0f} K, more than {limit:.0f} K, {self.name(a)} the hottest,"
                found.append((k, "temperature runs away", (a,), value, limit, "K", words))
        return found


def _lengths(x: Array, i: NDArray[np.int64], j: NDArray[np.int64]) -> Array:
    """Distances of pairs in A, shape (frames, pairs)."""
    d = np.take(x, i, axis=1)
    d -= np.take(x, j, axis=1)
    out: Array = np.sqrt(np.einsum("fpi,fpi->fp", d, d))
    return out


def _first(ratio: Array) -> tuple[int, int] | None:
    """The first row in which something exceeds 1, and what exceeds it by most there."""
    rows = np.flatnonzero((ratio > 1.0).any(axis=1))
    return (int(rows[0]), int(np.argmax(ratio[rows[0]]))) if len(rows) else None


def _nearest_of(lengths: Array, pair: NDArray[np.int64]) -> Array:
    """Distance of each atom to its nearest neighbour, shape (frames, n), from those of pairs (frames, pairs)."""
    padded = np.concatenate([lengths, np.full((len(lengths), 1), np.inf)], axis=1)
    return np.stack([padded[:, row].min(axis=1) for row in pair], axis=1)


def _nearest(x: Array) -> Array:
    """The same from positions (frames, n, 3); zero for a single atom."""
    d = np.linalg.norm(x[:, :, None] - x[:, None], axis=-1)
    d[:, np.arange(d.shape[1]), np.arange(d.shape[1])] = np.inf
    out: Array = np.where(np.isfinite(d.min(axis=2)), d.min(axis=2), 0.0)
    return out
