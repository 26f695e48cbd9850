"""Is every element and every kind of motion at the temperature of the bath, and is the spread of energies thermal?

Resonance heats one element long before it shows in the total.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlff_sim.forces import Array
from mlff_sim.motion import kinetic_by_motion
from mlff_sim.state import kinetic_energy, temperature_by_group
from mlff_sim.units import KB
from mlff_sim.validation.sampling import ENOUGH_SAMPLES, decorrelated, effective_samples, silent_pymbar, student_t
from mlff_sim.validation.verdict import Verdict, worst

THREE_SIGMA = 0.99865010196837
"""One-sided probability of three standard deviations of a Gaussian."""
LIMITS = {"all": (1.0, 3.0), "translation": (3.0, 20.0), "rotation": (3.0, 20.0)}
"""Percent of the target that is a failure, and that a pass must have resolved; of a few degrees of freedom less can be
seen. Elements and the internal motion: 3 and 10."""
UNLIKELY = 0.05
"""p-value below which a distribution is held to be another; that is 1 in 1000, see `KineticDistribution`."""


@dataclass(frozen=True)
class GroupTemperature:
    """Kinetic temperature of a group of atoms or of a kind of motion, held to that of the bath.

    INCONCLUSIVE with fewer than 50 effective samples. With s = "three sigma" (the quantile of Student's t for the effective samples that a Gaussian has at 3):
    FAIL when the deviation exceeds both s and `fail_percent` of the target; else PASS when s is at most
    `resolve_percent`, the run would have seen what matters; else INCONCLUSIVE.

    Without a fault that is a FAIL in at most 0.3 % of the cases, or 1 % with barely 50 samples of strongly correlated
    frames, whose statistical inefficiency is itself uncertain (6 of 600 measured).

    Attributes:
        name: "all", a chemical symbol, "translation", "rotation" or "internal".
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
        if self.samples < ENOUGH_SAMPLES:
            return Verdict.INCONCLUSIVE
        off, sigma3 = abs(self.mean_K - self.target_K), self.three_sigma_K
        if off > sigma3 and off > 0.01 * self.fail_percent * self.target_K:
            return Verdict.FAIL
        return Verdict.PASS if sigma3 <= 0.01 * self.resolve_percent * self.target_K else Verdict.INCONCLUSIVE


@dataclass(frozen=True)
class KineticDistribution:
    """Shape of the distribution of the kinetic energy, whatever its mean.

    A thermostat that pins the temperature, or replicas at different ones, have the right mean and the wrong shape.

    Attributes:
        p_value: of the Kolmogorov-Smirnov test against the Gamma distribution of this many degrees of freedom and the
            measured mean; the mean itself is judged as a temperature. As it is from the same data, p is too large:
            where nothing is wrong it is below 0.05 in 1 of 1000 cases (6 of 6000 measured, 6 to 60 degrees of freedom).
        width_K: K, temperature that the standard deviation of the kinetic energy has, sigma = (dof / 2)^1/2 k T.
        samples: decorrelated frames tested.
    """

    p_value: float
    width_K: float
    samples: int

    @property
    def verdict(self) -> Verdict:
        """FAIL with p < 0.05, else PASS; INCONCLUSIVE with fewer than 50 samples."""
        if self.samples < ENOUGH_SAMPLES:
            return Verdict.INCONCLUSIVE
        return Verdict.FAIL if self.p_value < UNLIKELY else Verdict.PASS


@dataclass(frozen=True)
class Temperatures:
    """Kinetic temperatures of a run.

    Attributes:
        total: of all atoms.
        by_element: chemical symbol to temperature.
        by_motion: "translation", "rotation" and "internal" to temperature; empty without positions.
        distribution: of the total kinetic energy; None in NVE, where it is not thermal.
    """

    total: GroupTemperature
    by_element: Mapping[str, GroupTemperature]
    by_motion: Mapping[str, GroupTemperature] = field(default_factory=dict)
    distribution: KineticDistribution | None = None

    @property
    def verdict(self) -> Verdict | None:
        """The worst of the total, the elements, the motions and the distribution; None in NVE."""
        groups = (self.total, *self.by_element.values(), *self.by_motion.values())
        parts = [g.verdict for g in groups] + [self.distribution.verdict if self.distribution else None]
        return None if all(v is None for v in parts) else worst(parts)


def equipartition(
    momenta: Array,
    masses: Array,
    numbers: NDArray[np.int64],
    target_K: float | None,
    com_removed: bool,
    *,
    positions: Array | None = None,
    molecules: Sequence[NDArray[np.int64]] | None = None,
) -> Temperatures:
    """Kinetic temperature of all atoms, each element and each kind of motion, and the shape of the distribution.

    An atom of mass m carries 3 degrees of freedom, or 3 (1 - m/M) where the total momentum is fixed at zero
    (`mlff_sim.state.temperature_by_group`); a molecule travels in 3, turns in 3 (2 where linear) and has the rest
    within it. Standard errors are for correlated frames. Limits: 1 % for all atoms and 3 % for a part are a failure
    once they exceed three sigma; a pass needs a three sigma of at most 3 % and 10 % (translation and rotation: 20 %, a
    few degrees of freedom are known no better after 100 ps). The momenta of a
    splitting scheme with step h are themselves cold by about (w h)^2 / 4 in a mode of angular frequency w,
    2 % of an X-H stretch at 0.5 fs, which these limits leave room for and 1 fs does not. The distribution is tested by
    physical_validation (Merz & Shirts, PLoS ONE 13, e0202764 (2018), doi:10.1371/journal.pone.0202764).

    Args:
        momenta: (eV u)^1/2, shape (frames, replicas, n, 3).
        masses: u, shape (n,).
        numbers: atomic numbers, shape (n,).
        target_K: K, of the bath; None to report without judging.
        com_removed: whether the total momentum is fixed at zero.
        positions: A, of the same shape, for the kinds of motion; molecules whole.
        molecules: indices of the atoms of each molecule; by default all atoms are one.

    Returns:
        Total and elements, in the order of their first appearance.

    Raises:
        ValueError: shapes that do not fit, values that are not finite, or nothing that moves.
    """
    from ase.data import chemical_symbols

    p = np.asarray(momenta, dtype=np.float64)
    z, m = np.asarray(numbers), np.asarray(masses, dtype=np.float64)
    if p.ndim != 4 or p.shape[2:] != (len(m), 3) or z.shape != m.shape or not p.size:
        raise ValueError(
            f"momenta {p.shape}, masses {m.shape} and numbers {z.shape} do not fit; give (frames, replicas, n, 3) and (n,)."
        )
    if not np.isfinite(p).all():
        raise ValueError("momenta must be finite numbers; cut the run before the first frame that is not.")
    frames, replicas, n = p.shape[:3]
    flat = p.reshape(frames * replicas, n, 3)
    groups: dict[str, Any] = {"all": np.arange(n)}
    groups |= {chemical_symbols[k]: np.flatnonzero(z == k) for k in dict.fromkeys(z.tolist())}
    found = {
        name: _group(name, values.reshape(frames, replicas).T, target_K)
        for name, values in temperature_by_group(flat, m, groups, com_removed=com_removed).items()
        if np.isfinite(values).all()
    }
    if "all" not in found:
        raise ValueError("nothing moves: one atom whose centre of mass is fixed has no temperature.")
    motion = {}
    if positions is not None:
        x = np.asarray(positions, dtype=np.float64)
        if x.shape != p.shape or not np.isfinite(x).all():
            raise ValueError(f"positions of shape {x.shape} must be finite and fit momenta of shape {p.shape}.")
        whole = [np.arange(n)] if molecules is None else [np.asarray(index) for index in molecules]
        parts = kinetic_by_motion(x.reshape(flat.shape), flat, m, whole, com_removed=com_removed)
        motion = {
            name: _group(name, (2.0 * energy / (KB * dof)).reshape(frames, replicas).T, target_K)
            for name, (energy, dof) in parts.items()
        }
    kinetic = kinetic_energy(flat, m).reshape(frames, replicas).T
    shape = None if target_K is None else _distribution(kinetic, 3 * n - 3 * com_removed, n)
    return Temperatures(found.pop("all"), found, motion, shape)


def _group(name: str, series: Array, target_K: float | None) -> GroupTemperature:
    """A temperature from its series (replicas, frames) in K."""
    samples = effective_samples(series)
    stderr = float(series.std(ddof=1) / np.sqrt(samples)) if series.size > 1 else float("inf")
    fail, resolve = LIMITS.get(name, (3.0, 10.0))
    return GroupTemperature(name, float(series.mean()), stderr, samples, target_K, fail, resolve)


def _distribution(kinetic: Array, dof: int, n_atoms: int) -> KineticDistribution:
    """Kolmogorov-Smirnov test by physical_validation of kinetic energies (replicas, frames) in eV."""
    with silent_pymbar():
        import physical_validation as pv

    sample = decorrelated(kinetic)
    mean_K = 2.0 * float(sample.mean()) / (KB * dof)
    # Names and sizes of units matter for printing alone; only k does here.
    units = pv.data.UnitData(KB, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
    data = pv.data.SimulationData(
        units=units,
        ensemble=pv.data.EnsembleData("NVT", natoms=n_atoms, volume=1.0, temperature=mean_K),
        system=pv.data.SystemData(
            natoms=n_atoms, nconstraints=0, ndof_reduction_tra=3 * n_atoms - dof, ndof_reduction_rot=0
        ),
        observables=pv.data.ObservableData(kinetic_energy=sample),
    )
    p = pv.kinetic_energy.distribution(data, strict=True, verbosity=0, data_is_uncorrelated=True)
    width = float(sample.std(ddof=1)) * np.sqrt(2.0 / dof) / KB if len(sample) > 1 else float("nan")
    return KineticDistribution(float(p), float(width), len(sample))
