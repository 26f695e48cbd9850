"""Are two spectra the same? Their distance along the axis, and how much of it is noise.

Spectra differ by lines that move. The L1 distance of two lines saturates as soon as they do not overlap; the
Wasserstein distance goes on to say how far apart they are, in 1/cm:

    W1 = integral |F(w) - F_ref(w)| dw,   F the integral of the density, normalised to 1,

which is the shift where one is the other moved (Villani, Optimal Transport (2009), doi:10.1007/978-3-540-71050-9, 6).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mlff_sim.forces import Array
from mlff_sim.validation.distances import judge
from mlff_sim.validation.verdict import Verdict
from mlff_sim.validation.vibrations import Spectrum


@dataclass(frozen=True)
class SpectrumResult:
    """Difference of a spectrum from a reference, and the difference two runs of the same physics would show.

    Attributes:
        error_cm: 1/cm, Wasserstein-1 distance of all atoms (or of the infrared spectra).
        by_name: 1/cm, the same by "all" and elements.
        noise_cm: 1/cm, its expectation if both were samples of one spectrum; infinite with one block of the reference.
        noise95_cm: 1/cm, its 95 % quantile under the same assumption.
        limit_cm: 1/cm, what counts as the same spectrum.
        run_samples: effective samples in the run.
        reference_samples: effective samples in the reference.
        verdict: see `compare_spectra`; None where it is only reported.
        note: which rule decided, and what to do next.
        run: the spectrum that was compared.
        reference: what it was compared with.
    """

    error_cm: float
    by_name: Mapping[str, float]
    noise_cm: float
    noise95_cm: float
    limit_cm: float
    run_samples: float
    reference_samples: float
    verdict: Verdict | None
    note: str
    run: Spectrum
    reference: Spectrum


def compare_spectra(
    run: Spectrum, reference: Spectrum, limit_cm: float = 10.0, *, draws: int = 400, seed: int = 0
) -> SpectrumResult:
    """Hold a spectrum to that of a reference.

    Noise as in `distances.compare`, with the integrals F of the blocks of the reference in place of densities: their
    variance, scaled to the segments in the run and in the reference, gives E|F - F_ref|; the 95 % quantile is
    that of the blocks about their mean with random signs. A block of more power than others counts by its power.

    The power of a mode is its energy, and energy wanders slowly between modes: what this distance sees first is
    whether each had its share. It takes long runs to judge; `match_peaks` judges places, and needs shorter ones.

    Verdict: the rules of `distances.compare`, in 1/cm; INCONCLUSIVE where either is no spectrum.

    Raises:
        ValueError: other elements, or resolutions that differ by more than a tenth, which would widen the lines of one.
    """
    if run.verdict or reference.verdict:
        note = run.note if run.verdict else f"The reference: {reference.note}"
        nan = float("nan")
        verdict = Verdict.INCONCLUSIVE
        return SpectrumResult(
            nan, {}, nan, nan, limit_cm, run.samples, reference.samples, verdict, note, run, reference
        )
    if set(run.blocks) != set(reference.blocks):
        raise ValueError(f"spectra of {', '.join(run.blocks)} and of {', '.join(reference.blocks)} cannot be compared.")
    if abs(run.resolution_cm / reference.resolution_cm - 1) > 0.1:
        raise ValueError(
            f"resolutions of {run.resolution_cm:.3g} and {reference.resolution_cm:.3g} 1/cm; make both spectra with one resolution_cm."
        )
    by_name = {name: _wasserstein(run, reference, name) for name in reference.blocks}
    first = next(iter(reference.blocks))
    noise, noise95 = _noise(run, reference, first, draws, seed)
    verdict, note = judge(by_name[first], noise, noise95, limit_cm, reference.samples, "1/cm")
    return SpectrumResult(
        by_name[first], by_name, noise, noise95, limit_cm, run.samples, reference.samples, verdict, note, run, reference
    )


def _wasserstein(run: Spectrum, reference: Spectrum, name: str) -> float:
    """Wasserstein-1 distance in 1/cm of two normalised densities."""
    from scipy.stats import wasserstein_distance

    axes = (run.wavenumbers_cm, reference.wavenumbers_cm)
    weights = (s.mean(name) * np.gradient(s.wavenumbers_cm) for s in (run, reference))
    return float(wasserstein_distance(*axes, *weights))


def _noise(run: Spectrum, reference: Spectrum, name: str, draws: int, seed: int) -> tuple[float, float]:
    """Expectation and 95 % quantile in 1/cm of the distance between two samples of the reference's spectrum."""
    w, blocks = reference.wavenumbers_cm, reference.blocks[name]
    count = len(blocks)
    if count < 2:
        return float("inf"), float("inf")
    step: Array = np.gradient(w)
    integral = np.cumsum(blocks * step, axis=1)
    mean = integral.mean(axis=0)
    # The normalised mean is a ratio: to first order a block moves it by this much.
    centred = (integral - integral[:, -1:] * mean / mean[-1]) / mean[-1]
    # Segments and not times: the window all but drops what lies at the ends of a short run.
    size = reference.segments / count
    scale = np.sqrt(size * (1 / run.segments + 1 / reference.segments) * count / (count - 1))
    noise = np.sqrt(2 / np.pi) * scale * np.sqrt((centred**2).mean(axis=0)) @ step
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(draws, count))
    pseudo = scale / np.sqrt(count) * np.abs(signs @ centred) @ step
    return float(noise), float(np.quantile(pseudo, 0.95))
