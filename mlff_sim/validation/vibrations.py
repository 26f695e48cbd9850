"""At which frequencies does it vibrate? Spectra of velocities and dipoles, freed of the integrator's own shift.

Velocity Verlet with step h moves a harmonic mode of angular frequency w exactly, but at W instead of w:

    cos(W h) = 1 - (w h)^2 / 2,   so   (2 / h) sin(W h / 2) = w

(insert x = cos(W t) into x(t + h) - 2 x(t) + x(t - h) = -h^2 w^2 x; Hairer, Lubich & Wanner, Acta Numerica 12, 399
(2003), doi:10.1017/S0962492902000144). 3657 1/cm is seen at 3675 with 0.5 fs and at 3733 with 1 fs. The same holds for
BAOAB and OBABO without friction, and for RESPA with h of the innermost level as far as the student carries the mode.
Anharmonic modes keep a relative error of order (w h)^2 E / D: 0.1 1/cm for a thermal O-H bond at 300 K with 1 fs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlff_sim.forces import Array
from mlff_sim.units import CM1, FS, PS
from mlff_sim.validation.sampling import statistical_inefficiency
from mlff_sim.validation.verdict import Verdict

HANN_WIDTH = 1.44
"""Full width at half maximum, in 1 / length, of the power of a line behind Hann's window (Harris, Proc. IEEE 66, 51
(1978), doi:10.1109/PROC.1978.10837)."""
PADDING = 4
"""Segments are padded with zeros to this many times their length: points between which a parabola is exact enough."""
MAX_BLOCKS = 64
"""More blocks would only take memory."""
BEYOND = 0.01
"""Share of the power above `highest_cm` from which something vibrates faster than was said, and may be folded back."""


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Spectral densities in blocks, so that their noise is known.

    Attributes:
        wavenumbers_cm: 1/cm, shape (points,), rising, those of the exact flow; empty where nothing can be said.
        blocks: "all" and chemical symbols, or "infrared", to density in 1/(1/cm), shape (blocks, points). The mean over the
            blocks of the first integrates to 1, of an element to its share of the kinetic energy.
        resolution_cm: 1/cm, full width at half maximum that a sharp line has.
        nyquist_cm: 1/cm, the fastest motion that frames so far apart can tell.
        sampled_ps: ps, simulated time of all blocks together.
        segments: how many were averaged, half of each shared with the next.
        samples: effective independent samples of the mean wave number, all replicas together.
        timestep_fs: fs, of the integrator whose shift was taken out.
        verdict: INCONCLUSIVE where the frames do not allow a spectrum; None otherwise, a spectrum alone is not judged.
        note: how it was made, or what it would need.
    """

    wavenumbers_cm: Array
    blocks: Mapping[str, Array]
    resolution_cm: float
    nyquist_cm: float
    sampled_ps: float
    segments: int
    samples: float
    timestep_fs: float
    verdict: Verdict | None
    note: str

    def mean(self, name: str) -> Array:
        """Density of "all", an element or "infrared", 1/(1/cm), shape (points,)."""
        out: Array = self.blocks[name].mean(axis=0)
        return out


def corrected_cm(observed_cm: Array | float, timestep_fs: float) -> Array:
    """Wave numbers of the exact flow, 1/cm, from those seen with velocity Verlet: w = (2 / h) sin(W h / 2)."""
    half = 0.5 * CM1 * timestep_fs * FS
    seen = np.asarray(observed_cm, dtype=np.float64)
    return np.sin(seen * half) / half if half else seen


def observed_cm(wavenumbers_cm: Array | float, timestep_fs: float) -> Array:
    """Wave numbers that velocity Verlet shows, 1/cm: W = (2 / h) arcsin(w h / 2); infinite where it is unstable, w h >= 2."""
    half = 0.5 * CM1 * timestep_fs * FS
    exact = np.asarray(wavenumbers_cm, dtype=np.float64)
    if not half:
        return exact
    return np.where(exact * half < 1.0, np.arcsin(np.minimum(exact * half, 1.0)) / half, np.inf)


def vibrations(
    momenta: Array,
    masses: Array,
    numbers: NDArray[np.int64],
    time_ps: Array,
    timestep_fs: float,
    *,
    resolution_cm: float = 10.0,
    highest_cm: float = 4000.0,
    folded: bool = False,
) -> Spectrum:
    """Vibrational density of states: the power spectrum of mass-weighted velocities, of all atoms and of each element.

    g(w) ~ sum_i m_i |v_i(w)|^2, by Wiener and Khinchin the Fourier transform of the mass-weighted velocity
    autocorrelation (Dickey & Paskin, Phys. Rev. 188, 1407 (1969), doi:10.1103/PhysRev.188.1407). Welch's estimate
    (scipy.signal): Hann's window on segments of 1.44 / (c resolution_cm), 4.8 ps by default, that overlap by half,
    padded with zeros to four times their length. The axis is that of the exact flow, see this module.

    A molecule that turns and drifts shows that too; `internal_momenta` takes it out.

    Args:
        momenta: (eV u)^1/2, shape (frames, replicas, n, 3).
        masses: u, shape (n,).
        numbers: atomic numbers, shape (n,).
        time_ps: ps, shape (frames,), evenly spaced.
        timestep_fs: fs, of the innermost integrator; 0 for trajectories without its shift.
        resolution_cm: 1/cm, width of a sharp line. A coarser one makes more segments, so more and smaller error bars.
        highest_cm: 1/cm, above which nothing vibrates. Frames must tell that frequency, else all that is faster folds
            back to places where nothing is.
        folded: take what is there, and let what the frames cannot tell fold back: only to compare with a spectrum whose
            frames are as far apart. The axis is then as it was seen.

    Returns:
        The spectrum, up to `highest_cm`.

    Raises:
        ValueError: shapes that do not fit, values that are not finite, uneven times, no motion.
    """
    from ase.data import chemical_symbols

    p, m, z = np.asarray(momenta, np.float64), np.asarray(masses, np.float64), np.asarray(numbers)
    if p.ndim != 4 or p.shape[2:] != (len(m), 3) or z.shape != m.shape:
        raise ValueError(
            f"momenta {p.shape} must be (frames, replicas, n, 3), with n of masses {m.shape} and of numbers {z.shape}."
        )
    if not (np.isfinite(m).all() and (m > 0).all()):
        raise ValueError("masses must be positive and finite, in u.")
    groups = {"all": np.arange(len(z))}
    groups |= {chemical_symbols[k]: np.flatnonzero(z == k) for k in dict.fromkeys(z.tolist())}
    return _spectrum(p / np.sqrt(m)[:, None], groups, time_ps, timestep_fs, resolution_cm, highest_cm, 0, folded)


def infrared(
    dipoles: Array,
    time_ps: Array,
    timestep_fs: float,
    *,
    resolution_cm: float = 10.0,
    highest_cm: float = 4000.0,
) -> Spectrum:
    """Infrared spectrum, normalised: the power spectrum of the time derivative of the dipole moment.

    alpha(w) n(w) ~ w^2 |mu(w)|^2, classical, with the harmonic quantum correction beta hbar w / (1 - exp(-beta hbar w))
    (Ramirez et al., J. Chem. Phys. 121, 3973 (2004), doi:10.1063/1.1774986). The derivative is taken by the factor w^2
    and not by differences of frames, which would damp what is fast.

    Args:
        dipoles: any unit, shape (frames, replicas, 3).
        time_ps: ps, shape (frames,), evenly spaced.
        timestep_fs: fs, of the innermost integrator.
        resolution_cm: 1/cm, width of a sharp line.
        highest_cm: 1/cm, above which nothing vibrates.

    Raises:
        ValueError: as for `vibrations`.
    """
    mu = np.asarray(dipoles, np.float64)
    if mu.ndim != 3 or mu.shape[2] != 3:
        raise ValueError(f"dipoles {mu.shape} must be (frames, replicas, 3).")
    groups = {"infrared": np.arange(1)}
    return _spectrum(mu[:, :, None], groups, time_ps, timestep_fs, resolution_cm, highest_cm, 2)


def _spectrum(
    signal: Array,
    groups: Mapping[str, NDArray[np.int64]],
    time_ps: Array,
    timestep_fs: float,
    resolution_cm: float,
    highest_cm: float,
    power: int,
    folded: bool = False,
) -> Spectrum:
    """Welch's estimate of w^power |signal|^2 of a signal (frames, replicas, sources, 3), summed over groups of sources."""
    t = np.asarray(time_ps, np.float64)
    _check(signal, t, timestep_fs, resolution_cm, highest_cm)
    frames, replicas = signal.shape[:2]
    step_ps = float((t[-1] - t[0]) / (frames - 1))
    per_cm = CM1 * PS / (2 * np.pi)
    nyquist = 0.5 / (step_ps * per_cm)
    length = int(np.ceil(HANN_WIDTH / (resolution_cm * per_cm * step_ps) - 1e-9))
    resolution = HANN_WIDTH / (length * per_cm * step_ps)
    facts = (resolution, nyquist, frames * replicas * step_ps)
    fastest = float(observed_cm(highest_cm, timestep_fs))
    if not np.isfinite(fastest):
        limit = 2.0 / (CM1 * timestep_fs * FS)
        return _cannot(
            facts,
            timestep_fs,
            f"A step of {timestep_fs:g} fs is not stable above {limit:.0f} 1/cm: say what the highest frequency is.",
        )
    if folded and nyquist <= fastest:
        # A frequency that is folded back was shifted by what it was before; the axis stays as it was seen.
        fastest, timestep_fs = nyquist, 0.0
    elif nyquist <= fastest:
        return _cannot(
            facts,
            timestep_fs,
            f"Frames {1e3 * step_ps:g} fs apart tell at most {nyquist:.0f} 1/cm, faster folds back: record every {500 / (fastest * per_cm):.3g} fs.",
        )
    if frames < length:
        return _cannot(
            facts,
            timestep_fs,
            f"{frames * step_ps:.3g} ps resolve {HANN_WIDTH / (frames * step_ps * per_cm):.3g} 1/cm: record {length * step_ps:.3g} ps, or ask for so much.",
        )
    w, spectra, beyond = _periodograms(signal, groups, length, step_ps, timestep_fs, fastest, power)
    if beyond > BEYOND:
        return _cannot(
            facts,
            timestep_fs,
            f"{100 * beyond:.2g} % of the power lies above {highest_cm:g} 1/cm: give a higher highest_cm, and frames close enough for it.",
        )
    first = next(iter(spectra.values()))
    step: Array = np.gradient(w)
    g = statistical_inefficiency(first @ (w * step) / (first @ step))
    segments = first.shape[1]
    # Neighbours overlap: a block of a few, so that what two blocks share is little.
    pieces = int(np.clip(segments // max(2 * g, 4.0), 1, max(1, MAX_BLOCKS // replicas)))
    size = segments // pieces
    blocks = {
        # The remainder is dropped at the start, where a run may still settle.
        k: s[:, segments - pieces * size :].reshape(replicas * pieces, size, -1).sum(axis=1)
        for k, s in spectra.items()
    }
    scale = float(blocks[next(iter(blocks))].mean(axis=0) @ step)
    return Spectrum(
        wavenumbers_cm=w,
        blocks={k: b / scale for k, b in blocks.items()},
        resolution_cm=resolution,
        nyquist_cm=nyquist,
        sampled_ps=facts[2],
        segments=replicas * segments,
        samples=replicas * segments / g,
        timestep_fs=timestep_fs,
        verdict=None,
        note=f"{replicas * segments} segments of {length * step_ps:.3g} ps that overlap by half, Hann's window: {resolution:.3g} 1/cm.",
    )


def _periodograms(
    signal: Array,
    groups: Mapping[str, NDArray[np.int64]],
    length: int,
    step_ps: float,
    timestep_fs: float,
    fastest: float,
    power: int,
) -> tuple[Array, dict[str, Array], float]:
    """Wave numbers of the exact flow, group to density (replicas, segments, points), and the share beyond `fastest`."""
    from scipy.fft import next_fast_len
    from scipy.signal import periodogram

    frames, replicas = signal.shape[:2]
    hop = max(1, length // 2)
    # The remainder is dropped at the start, where a run may still settle.
    starts = range((frames - length) % hop, frames - length + 1, hop)
    padded = next_fast_len(PADDING * length, real=True)
    seen = np.asarray(np.fft.rfftfreq(padded, step_ps * CM1 * PS / (2 * np.pi)), dtype=np.float64)
    w, kept = corrected_cm(seen, timestep_fs), seen <= fastest
    # What was in dW is in dw = cos(W h / 2) dW.
    stretch = 1.0 / np.cos(0.5 * CM1 * timestep_fs * FS * seen[kept])
    out = {name: np.empty((replicas, len(starts), len(stretch))) for name in groups}
    total = beyond = 0.0
    for r in range(replicas):
        for s, start in enumerate(starts):
            piece = signal[start : start + length, r]
            # A permanent dipole would leak; a mean velocity is diffusion, and belongs to the spectrum.
            trend = "constant" if power else False
            _, squares = periodogram(piece, window="hann", nfft=padded, detrend=trend, axis=0)
            squares = squares.sum(axis=2) * (w**power)[:, None]
            total, beyond = total + squares.sum(), beyond + squares[~kept].sum()
            for name, index in groups.items():
                out[name][r, s] = squares[kept][:, index].sum(axis=1) * stretch
    if not total > 0:
        raise ValueError("nothing moves in these frames: give momenta (or dipoles) of a run.")
    return w[kept], out, float(beyond / total)


def _check(signal: Array, t: Array, timestep_fs: float, resolution_cm: float, highest_cm: float) -> None:
    """Refuse what is no time series."""
    if t.ndim != 1 or len(t) != len(signal):
        raise ValueError(f"{len(signal)} frames do not fit times of shape {t.shape}; give one time for each frame.")
    if len(t) < 2 or not signal.size:
        raise ValueError(
            f"{signal.shape[:3]} frames, replicas and atoms are too few for a spectrum; 2 frames is the least."
        )
    if not (np.isfinite(signal).all() and np.isfinite(t).all()):
        raise ValueError("momenta (or dipoles) and times must be finite numbers.")
    gaps = np.diff(t)
    if not (gaps.min() > 0 and np.ptp(gaps) < 0.1 * gaps.mean()):
        raise ValueError(
            f"frames are {gaps.min():.4g} to {gaps.max():.4g} ps apart; give evenly spaced ones (times of more digits, none left out)."
        )
    if timestep_fs > 1050 * gaps.mean():
        raise ValueError(
            f"timestep_fs = {timestep_fs:g} is longer than the {1e3 * gaps.mean():.4g} fs between frames; give that of the innermost integrator."
        )
    for name, value, least in (
        ("timestep_fs", timestep_fs, 0.0),
        ("resolution_cm", resolution_cm, 1e-6),
        ("highest_cm", highest_cm, 1e-6),
    ):
        if not (np.isfinite(value) and value >= least):
            raise ValueError(f"{name} = {value} must be finite and {'positive' if least else 'not negative'}.")


def _cannot(facts: tuple[float, float, float], timestep_fs: float, note: str) -> Spectrum:
    """A spectrum of nothing, and what would settle it."""
    resolution, nyquist, sampled = facts
    return Spectrum(np.zeros(0), {}, resolution, nyquist, sampled, 0, 0.0, timestep_fs, Verdict.INCONCLUSIVE, note)
