"""Does the energy error fall with the square of the time step? If not, forces and energy do not belong together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from mlff_sim.forces import Array
from mlff_sim.units import MEV
from mlff_sim.validation.sampling import ENOUGH_SAMPLES, effective_samples, series_of, student_t
from mlff_sim.validation.verdict import Verdict, worst


@dataclass(frozen=True)
class StepSizeLaw:
    """Fluctuation of the conserved energy over runs of different time steps.

    Attributes:
        timesteps_fs: fs, from the shortest to the longest.
        fluctuations: meV of the whole system, root mean square about the mean of each run, for each time step.
        ratios: for neighbouring time steps, (longer over shorter fluctuation) / (longer over shorter step)^2; 1 is the
            law. Below 1 something does not fall with the step, above 1 the longer one is near instability.
        ci95: interval of each ratio; together they hold in 95 of 100 cases.
        limit: largest deviation of a ratio from 1, up or down as a factor, that counts as the law.
        samples: effective samples of the squared fluctuation in the run that has the fewest.
        note: how the intervals were made, and what to do when they do not decide.
    """

    timesteps_fs: tuple[float, ...]
    fluctuations: tuple[float, ...]
    ratios: tuple[float, ...]
    ci95: tuple[tuple[float, float], ...]
    limit: float
    samples: float
    note: str

    @property
    def max_deviation(self) -> float:
        """Largest |1 - ratio|, the figure of physical_validation.integrator.convergence."""
        return max(abs(1.0 - r) for r in self.ratios)

    @property
    def verdict(self) -> Verdict:
        """FAIL when an interval is wholly outside the limits, PASS when all are wholly within, else INCONCLUSIVE."""
        high = 1.0 + self.limit
        low = 1.0 / high
        return worst(
            Verdict.FAIL if a > high or b < low else Verdict.PASS if low <= a and b <= high else Verdict.INCONCLUSIVE
            for a, b in self.ci95
        )


def step_size_law(timesteps_fs: Sequence[float], energies_eV: Sequence[Array], limit: float = 0.2) -> StepSizeLaw:
    """Fluctuation of the conserved energy against the square of the time step.

    A symmetric splitting conserves a shadow energy that differs from the true one by a term in h^2, so the fluctuation
    of the latter falls with h^2 (Merz & Shirts, PLoS ONE 13, e0202764 (2018), doi:10.1371/journal.pone.0202764). A
    discontinuous force (a cutoff, a stale neighbour list) or one that is no gradient adds what does not depend on h.
    For velocity Verlet in a harmonic mode the fluctuation is h^2 / (1 - (w h)^2 / 4) to all orders: halving a step
    of w h = 0.92, seven steps a period, gives a ratio 1.2 too large, the default limit; ten steps a period give 1.08.

    Errors are those of a mean square: the effective samples of the squared fluctuation, of all replicas, decide. Where
    these are fewer than 50, because the energy drifts or walks, each replica gives one ratio, with the same start at
    each time step, and the interval is Student's t over them; one replica then leaves no verdict.

    Args:
        timesteps_fs: fs, two or more.
        energies_eV: for each of them the conserved energy, shape (frames,) or (replicas, frames): the same starts over
            the same time, frames at any spacing. Not detrended: a drift is a fluctuation here.
        limit: deviation of a ratio from 1 that is allowed.

    Raises:
        ValueError: fewer than two different time steps, other numbers of replicas or of runs, fewer than 3 frames,
            energies that are not finite or never change.
    """
    runs = [series_of(e) for e in energies_eV]
    h = np.asarray(timesteps_fs, dtype=np.float64)
    if h.shape != (len(runs),) or len(runs) < 2 or not (h > 0).all() or len(set(h.tolist())) < len(h):
        raise ValueError(f"{len(runs)} runs at time steps {h.tolist()}; give two or more, each of its own time step.")
    order = np.argsort(h)
    h, runs = h[order], [runs[k] for k in order]
    replicas = len(runs[0])
    if any(len(e) != replicas or e.shape[1] < 3 for e in runs):
        raise ValueError(
            f"runs of shapes {[e.shape for e in runs]}; give the same replicas and 3 frames or more to each."
        )
    squares = [((e - e[:, :1]) - (e - e[:, :1]).mean(axis=1, keepdims=True)) ** 2 for e in runs]
    means = np.array([s.mean(axis=1) for s in squares])  # (runs, replicas)
    if not means.all():
        raise ValueError(
            "an energy that never changes has no fluctuation; give the conserved energy with all its digits."
        )
    logs = 0.5 * np.diff(np.log(means), axis=0) - 2.0 * np.diff(np.log(h))[:, None]  # (pairs, replicas)
    # Relative to the replica's own mean: one with more energy fluctuates more, at every step.
    relative = [s / mean[:, None] for s, mean in zip(squares, means, strict=True)]
    counts = np.array([effective_samples(s) for s in relative])
    centre, samples, sure = logs.mean(axis=1), float(counts.min()), 1.0 - 0.025 / len(logs)
    if samples >= ENOUGH_SAMPLES:
        errors = np.array([s.var() for s in relative]) / (4.0 * counts)
        half = np.sqrt(errors[:-1] + errors[1:]) * [student_t(sure, min(c) - 1.0) for c in pairwise(counts)]
        note = f"Errors from {samples:.0f} effective samples of the squared fluctuation, or more, in each run."
    elif replicas > 1:
        half = student_t(sure, replicas - 1) * logs.std(axis=1, ddof=1) / np.sqrt(replicas)
        note = f"Slow fluctuations, {samples:.0f} effective samples: Student's t over {replicas} replicas."
    else:
        half = np.full(len(logs), np.inf)
        note = f"{samples:.0f} effective samples in one replica; run longer, or five replicas or more."
    with np.errstate(over="ignore"):
        low, high = np.exp(centre - half), np.exp(centre + half)
    found = StepSizeLaw(
        timesteps_fs=tuple(float(x) for x in h),
        fluctuations=tuple(float(x) for x in np.sqrt(means.mean(axis=1)) / MEV),
        ratios=tuple(float(x) for x in np.exp(centre)),
        ci95=tuple((float(a), float(b)) for a, b in zip(low, high, strict=True)),
        limit=limit,
        samples=samples,
        note=note,
    )
    if found.verdict is Verdict.INCONCLUSIVE and np.isfinite(half).all():
        found = replace(found, note=f"{note} An interval crosses a limit: run longer or with more replicas.")
    return found
