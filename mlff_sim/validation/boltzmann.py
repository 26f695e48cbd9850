"""Are energies at two temperatures a Boltzmann factor apart? The one test of an ensemble that needs no density of states."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlff_sim.forces import Array
from mlff_sim.units import KB
from mlff_sim.validation.ensemble import THREE_SIGMA
from mlff_sim.validation.sampling import ENOUGH_SAMPLES, decorrelated, student_t
from mlff_sim.validation.verdict import Verdict

FAIL_PERCENT, RESOLVE_PERCENT = 1.0, 3.0
"""Of the mean temperature, as for the kinetic temperature of all atoms."""


@dataclass(frozen=True)
class EnsembleCheck:
    """Difference of two temperatures as the distributions of the energy have it.

    INCONCLUSIVE with fewer than 50 effective samples in one of the runs. With s = "three sigma" (`three_sigma_K`): FAIL
    when the deviation from the nominal difference exceeds both s and 1 % of the mean temperature; else PASS when s is
    at most 3 % of it; else INCONCLUSIVE.

    Attributes:
        difference_K: K, upper minus lower temperature, from the ratio of the distributions.
        stderr_K: K, its standard error; infinite where the distributions do not overlap.
        nominal_K: K, lower and upper temperature that the runs are said to have.
        samples: decorrelated samples at each.
        note: what the verdict rests on, and what would settle it.
    """

    difference_K: float
    stderr_K: float
    nominal_K: tuple[float, float]
    samples: tuple[int, int]
    note: str

    @property
    def sigmas(self) -> float:
        """Deviation in standard errors, as physical_validation.ensemble.check reports it."""
        return abs(self.difference_K - (self.nominal_K[1] - self.nominal_K[0])) / self.stderr_K

    @property
    def three_sigma_K(self) -> float:
        """K, half the interval that holds the true difference with the confidence of three standard deviations."""
        return student_t(THREE_SIGMA, min(self.samples) - 1.0) * self.stderr_K

    @property
    def verdict(self) -> Verdict:
        """See the class."""
        if min(self.samples) < ENOUGH_SAMPLES or not np.isfinite(self.stderr_K):
            return Verdict.INCONCLUSIVE
        mean = 0.5 * sum(self.nominal_K)
        off = abs(self.difference_K - (self.nominal_K[1] - self.nominal_K[0]))
        if off > self.three_sigma_K and off > 0.01 * FAIL_PERCENT * mean:
            return Verdict.FAIL
        return Verdict.PASS if self.three_sigma_K <= 0.01 * RESOLVE_PERCENT * mean else Verdict.INCONCLUSIVE


def ensemble_check(lower_eV: Array, upper_eV: Array, lower_K: float, upper_K: float) -> EnsembleCheck:
    """Energies at two temperatures against P2(U) / P1(U) ~ exp((b1 - b2) U), b = 1 / kT.

    The density of states cancels, so the slope of the logarithm is known whatever the model is (Shirts, J. Chem. Theory
    Comput. 9, 909 (2013), doi:10.1021/ct300688p); it is fitted to decorrelated samples by maximum likelihood, as
    physical_validation.ensemble.check does. A slope that is r times the law's is reported as r times the nominal difference of the
    temperatures. An error common to both, a factor of both temperatures, hardly shows: look at `equipartition` too.

    Args:
        lower_eV: potential (or total) energy after equilibration at the lower temperature, shape (frames,) or
            (replicas, frames).
        upper_eV: the same at the higher one. Good differences are about 2 kT / s(U) times the temperature.
        lower_K: K.
        upper_K: K.

    Raises:
        ValueError: temperatures not in order, no frames, or energies that are not finite.
    """
    if not 0.0 < lower_K < upper_K:
        raise ValueError(f"temperatures of {lower_K} and {upper_K} K; give two, the lower one first.")
    low, high = decorrelated(lower_eV), decorrelated(upper_eV)
    nominal, samples = (float(lower_K), float(upper_K)), (len(low), len(high))
    if low.max() <= high.min() or high.max() <= low.min():
        note = "The energies at the two temperatures do not overlap; bring the temperatures closer."
        return EnsembleCheck(float("nan"), float("inf"), nominal, samples, note)
    slope = (1.0 / lower_K - 1.0 / upper_K) / KB
    fitted, error = _slope(low, high)
    kelvin = (upper_K - lower_K) / slope
    found = EnsembleCheck(fitted * kelvin, error * kelvin, nominal, samples, "")
    best = KB * sum(nominal) ** 2 / 2.0 / (0.5 * (low.std() + high.std()))
    note = f"Maximum likelihood over {samples[0]} and {samples[1]} decorrelated samples."
    if found.verdict is Verdict.INCONCLUSIVE:
        note += f" Run longer; a difference of about {best:.0f} K is best."
    return EnsembleCheck(found.difference_K, found.stderr_K, nominal, samples, note)


def _slope(low: Array, high: Array) -> tuple[float, float]:
    """Slope of ln(P_high / P_low) in the energy and its standard error, 1/eV.

    Equation 8 of Shirts (2013): the logistic regression of which run a sample is from, a convex problem. The Newton
    steps of physical_validation leave its range with few samples or little overlap, hence SciPy's minimiser.
    """
    from scipy.optimize import minimize
    from scipy.special import expit

    # In units of the spread about the middle, total energies of 1e5 eV and their slope of 4 / eV are both of order 1.
    middle, spread = 0.5 * (low.mean() + high.mean()), 0.5 * (low.std() + high.std())
    x = np.concatenate([low - middle, high - middle]) / spread
    sign = np.concatenate([np.ones(len(low)), -np.ones(len(high))])
    terms = np.stack([np.ones_like(x), x])

    def loss(a: Array) -> tuple[float, Array]:
        z = sign * (a @ terms)
        gradient: Array = terms @ (sign * expit(z))
        return float(np.logaddexp(0.0, z).sum()), gradient

    a = minimize(loss, np.array([np.log(len(high) / len(low)), 0.0]), jac=True, method="BFGS", options={"gtol": 1e-6}).x
    chance = expit(a @ terms)
    curvature = (terms * (chance * (1.0 - chance))) @ terms.T
    return float(a[1] / spread), float(np.sqrt(np.linalg.inv(curvature)[1, 1]) / spread)
