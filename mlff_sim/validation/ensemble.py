"""Is every element at the temperature of the bath? Resonance heats one element long before it shows in the total."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlff_sim.forces import Array
from mlff_sim.state import temperature_by_group
from mlff_sim.validation.sampling import effective_samples, student_t
from mlff_sim.validation.verdict import Verdict, worst

THREE_SIGMA = 0.99865010196837
"""One-sided probability of three standard deviations of a Gaussian."""


@dataclass(frozen=True)
class GroupTemperature:
    """Kinetic temperature of a group of atoms, held to that of the bath.

    With s = "three sigma" (the quantile of Student's t for the effective samples that a Gaussian has at 3):
    FAIL when the deviation exceeds both s and `fail_percent` of the target; else PASS when s is at most
    `resolve_percent`, the run would have seen what matters; else INCONCLUSIVE.

    Attributes:
        name: "all" or a chemical symbol.
        mean_K: K, mean over frames and replicas.
        stderr_K: K, standard error of the mean.
        samples: effective independent samples.
        target_K: K, of the bath; None without one (NVE), where nothing is judged.
        fail_percent: deviation that matters.
        resolve_percent: resolution a PASS needs.
    """

    name: str
    mean_K: float
    stderr_K: float
    samples: float
    target_K: float | None
    fail_percent: float
    resolve_percent: float

    @property
    def three_sigma_K(self) -> float:
        """K, half the interval that holds the true mean with the confidence of three standard deviations."""
        return student_t(THREE_SIGMA, self.samples - 1.0) * self.stderr_K

    @property
    def verdict(self) -> Verdict | None:
        """See the class; None without a target."""
        if self.target_K is None:
            return None
        off, sigma3 = abs(self.mean_K - self.target_K), self.three_sigma_K
        if off > sigma3 and off > 0.01 * self.fail_percent * self.target_K:
            return Verdict.FAIL
        return Verdict.PASS if sigma3 <= 0.01 * self.resolve_percent * self.target_K else Verdict.INCONCLUSIVE


@dataclass(frozen=True)
class Temperatures:
    """Kinetic temperatures of a run.

    Attributes:
        total: of all atoms.
        by_element: chemical symbol to temperature.
    """

    total: GroupTemperature
    by_element: Mapping[str, GroupTemperature]

    @property
    def verdict(self) -> Verdict | None:
        """The worst of the total and the elements; None in NVE."""
        parts = [g.verdict for g in (self.total, *self.by_element.values())]
        return None if all(v is None for v in parts) else worst(parts)


def kinetic_temperatures(
    momenta: Array, masses: Array, numbers: NDArray[np.int64], target_K: float | None, com_removed: bool
) -> Temperatures:
    """Kinetic temperature of all atoms and of each element, with standard errors for correlated frames.

    An atom of mass m carries 3 degrees of freedom, or 3 (1 - m/M) where the total momentum is fixed at zero
    (`mlff_sim.state.temperature_by_group`). Limits: 1 % for all atoms and 3 % for an element are a failure
    once they exceed three sigma; a pass needs a three sigma of at most 3 % and 10 %. The momenta of a
    splitting scheme with step h are themselves cold by about (w h)^2 / 4 in a mode of angular frequency w,
    2 % of an X-H stretch at 0.5 fs, which these limits leave room for and 1 fs does not.

    Args:
        momenta: (eV u)^1/2, shape (frames, replicas, n, 3).
        masses: u, shape (n,).
        numbers: atomic numbers, shape (n,).
        target_K: K, of the bath; None to report without judging.
        com_removed: whether the total momentum is fixed at zero.

    Returns:
        Total and elements, in the order of their first appearance.
    """
    from ase.data import chemical_symbols

    p = np.asarray(momenta, dtype=np.float64)
    z, m = np.asarray(numbers), np.asarray(masses, dtype=np.float64)
    frames, replicas, n = p.shape[:3]
    groups: dict[str, Any] = {"all": np.arange(n)}
    groups |= {chemical_symbols[k]: np.flatnonzero(z == k) for k in dict.fromkeys(z.tolist())}
    flat = temperature_by_group(p.reshape(frames * replicas, n, 3), m, groups, com_removed=com_removed)
    out = {}
    for name, values in flat.items():
        series = values.reshape(frames, replicas).T
        if not np.isfinite(series).all():
            continue
        samples = effective_samples(series)
        stderr = float(series.std(ddof=1) / np.sqrt(samples)) if series.size > 1 else float("inf")
        fail, resolve = (1.0, 3.0) if name == "all" else (3.0, 10.0)
        out[name] = GroupTemperature(name, float(series.mean()), stderr, samples, target_K, fail, resolve)
    if "all" not in out:
        raise ValueError(
            "no finite kinetic temperature: give finite momenta of at least two atoms, or of one with its centre of mass free."
        )
    return Temperatures(out.pop("all"), out)
