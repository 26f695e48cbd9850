"""Where do the lines lie, how sure is that, and is each where it should be?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from mlff_sim.forces import Array
from mlff_sim.validation.sampling import ENOUGH_SAMPLES, student_t
from mlff_sim.validation.verdict import Verdict
from mlff_sim.validation.vibrations import Spectrum

SIGNIFICANT = 4.0
"""Standard deviations of ln(density) by which a line must stand above its valleys."""
REACH = 0.02
"""A line belongs to an expected one if, with the common factor taken out, it is no further off than this share."""
WIDEST = 0.06
"""Largest deviation of the common factor from 1 that is looked for."""
AMBIGUOUS = 0.06
"""Share of the expected lines by which the best factor has to place more than one that is 1 % or more away from it. It
is 0.1 or more with the 15 modes of ethanol above 500 1/cm, and 0.04 or less with the 42 of aspirin, where any fits."""
HARMONIC, SAME = (-1.5, 0.5), (-1.0, 1.0)
"""Percent that the common factor may be from 1, against harmonic modes and against lines of a reference. Bonds get softer
as they stretch: at 300 K classical anharmonicity takes 0.6 to 0.9 % on average of ethanol (GFN2-xTB), 1.2 % of its O-H."""


@dataclass(frozen=True)
class Peak:
    """A line of a spectrum.

    Attributes:
        wavenumber_cm: 1/cm, centre of gravity of what stands above half its height.
        error_cm: 1/cm, standard error, jackknife over the blocks; the resolution where there is one block only.
        height: density at its top, 1/(1/cm).
    """

    wavenumber_cm: float
    error_cm: float
    height: float


def peaks(spectrum: Spectrum, name: str | None = None, *, least: float = 0.01) -> tuple[Peak, ...]:
    """The lines of a spectrum (scipy.signal.find_peaks), in rising order.

    A power of few segments is speckled: averaged over S of them, a Gaussian process has ln(density) with standard
    deviation 1 / sqrt(S). A line counts if it stands e^(4 sqrt(2 / S)) times above the valleys at its sides.

    Args:
        spectrum: of `vibrations` or `infrared`.
        name: "all" or an element; by default the first.
        least: share of the highest line below which none counts, above the side lobes of the window (0.0007).
    """
    from scipy.signal import find_peaks

    if not spectrum.blocks:
        return ()
    name = name or next(iter(spectrum.blocks))
    if name not in spectrum.blocks:
        raise ValueError(f"'{name}' has no spectrum; there are {', '.join(spectrum.blocks)}.")
    w, blocks = spectrum.wavenumbers_cm, spectrum.blocks[name]
    g, count = blocks.mean(axis=0), len(blocks)
    log = np.log(np.maximum(g, 1e-12 * g.max()))
    tops, _ = find_peaks(log, height=log.max() + np.log(least), prominence=SIGNIFICANT * np.sqrt(2 / spectrum.segments))
    if not len(tops):
        return ()
    valleys = [0, *(a + int(log[a:b].argmin()) for a, b in pairwise(tops)), len(w) - 1]
    out = []
    for top, (left, right) in zip(tops, pairwise(valleys), strict=True):
        part = slice(left, right + 1)
        error = spectrum.resolution_cm
        if count > 1:
            others = (blocks[:, part].sum(axis=0) - blocks[:, part]) / (count - 1)
            centres = np.array([_centre(w[part], other) for other in others])
            error = float(np.sqrt((count - 1) * centres.var()))
        out.append(Peak(_centre(w[part], g[part]), error, float(g[top])))
    return tuple(out)


def _centre(w: Array, g: Array) -> float:
    """Centre of gravity of what stands above half the height of the highest line, around it."""
    top = int(g.argmax())
    excess = np.maximum(g - 0.5 * g[top], 0.0)
    low = np.flatnonzero(excess[:top] == 0)
    high = np.flatnonzero(excess[top:] == 0)
    part = slice(low[-1] if len(low) else 0, top + high[0] if len(high) else len(g))
    return float(np.average(w[part], weights=excess[part]))


@dataclass(frozen=True)
class Line:
    """An expected line and the one that was found.

    Attributes:
        expected_cm: 1/cm; the mean of several that share one line.
        peak: what was found.
        error_cm: 1/cm, standard error of the difference.
        limit_percent: what it is held to; None where only the common factor is judged.
    """

    expected_cm: float
    peak: Peak
    error_cm: float
    limit_percent: float | None

    @property
    def shift_cm(self) -> float:
        """Found less expected, 1/cm."""
        return self.peak.wavenumber_cm - self.expected_cm

    @property
    def verdict(self) -> Verdict | None:
        """PASS or FAIL where two standard errors about the shift are on one side of the limit; None without one."""
        if self.limit_percent is None:
            return None
        return _sided(
            100 * self.shift_cm / self.expected_cm,
            200 * self.error_cm / self.expected_cm,
            (-self.limit_percent, self.limit_percent),
        )


@dataclass(frozen=True)
class PeakMatch:
    """Lines found against lines expected.

    Attributes:
        factor: common factor, the mean of found / expected over the lines; NaN without any.
        ci95: its interval, Student's t over the lines.
        limits_percent: how far it may be from 1, downwards (negative) and upwards.
        lines: expected lines that were found, rising.
        missing_cm: 1/cm, expected lines without a found one.
        verdict: see `match_peaks`.
        note: which rule decided.
    """

    factor: float
    ci95: tuple[float, float]
    limits_percent: tuple[float, float]
    lines: tuple[Line, ...]
    missing_cm: tuple[float, ...]
    verdict: Verdict
    note: str


def match_peaks(
    run: Spectrum,
    expected: Array | Spectrum,
    *,
    name: str | None = None,
    lowest_cm: float = 500.0,
    limits_percent: tuple[float, float] | None = None,
    line_limit_percent: float | None = None,
) -> PeakMatch:
    """Hold the lines of a spectrum to normal modes, or to the lines of a reference.

    What is wrong with time (frame spacing, time step, masses, units) multiplies all frequencies by one factor, such as
    spectroscopists fit to harmonic ones (Scott & Radom, J. Phys. Chem. 100, 16502 (1996), doi:10.1021/jp960976r). It is
    looked for first, between 0.94 and 1.06, so that lines are not taken for their neighbours; then each expected line
    takes the nearest found one, if that is within 2 %, and such as share one are averaged. Lines count whose standard
    error is below a quarter of what `limits_percent` leaves.

    Verdict:
        INCONCLUSIVE: no such line above `lowest_cm` is found where one is expected, or lines lie so close that another
            factor fits as well.
        FAIL: the whole interval of the factor is beyond one of `limits_percent`, or with `line_limit_percent` a line
            is off by more than that and two standard errors.
        INCONCLUSIVE: with `line_limit_percent` fewer than 50 effective samples in either spectrum; lines of a molecule
            that has not seen all its conformers are sharp and elsewhere. The factor is a mean over lines and needs none.
        PASS: the whole interval is within, and with `line_limit_percent` every line, and none is missing.
        INCONCLUSIVE: anything else.

    Single lines of a floppy molecule are those of several conformers: against its normal modes judge the factor.

    Args:
        run: of `vibrations` or `infrared`.
        expected: 1/cm, shape (modes,), or the spectrum of a reference.
        name: "all" or an element; by default the first.
        lowest_cm: 1/cm; lines below it are left out: torsions and translations, which are not harmonic.
        limits_percent: how far the common factor may be from 1, downwards (negative) and upwards. By default -1 and 1
            against a reference, -1.5 and 0.5 against normal modes, which anharmonicity softens at 300 K.
        line_limit_percent: how far each line may be from where it is expected; by default single lines are not judged.

    Raises:
        ValueError: nothing expected, or not finite.
    """
    low, high = limits_percent or (SAME if isinstance(expected, Spectrum) else HARMONIC)
    if not (np.isfinite([low, high]).all() and low < 0 < high):
        raise ValueError(f"limits_percent = {(low, high)} must be a negative and a positive number.")
    found = _sure(peaks(run, name), 0.5 * (high - low))
    samples = run.samples
    if isinstance(expected, Spectrum):
        wanted = _sure(peaks(expected, name), 0.5 * (high - low))
        samples = min(samples, expected.samples)
    else:
        wanted = [Peak(float(e), 0.0, 1.0) for e in np.asarray(expected, np.float64).ravel()]
        if not np.isfinite([e.wavenumber_cm for e in wanted]).all():
            raise ValueError("expected wave numbers must be finite numbers, in 1/cm.")
        if not any(e.wavenumber_cm > lowest_cm for e in wanted):
            raise ValueError(f"no line is expected above {lowest_cm:g} 1/cm; give a smaller lowest_cm.")
    wanted = sorted((e for e in wanted if e.wavenumber_cm > lowest_cm), key=lambda e: e.wavenumber_cm)
    lines, missing, rival = _assign(found, wanted, line_limit_percent)
    if not lines:
        nothing = float("nan")
        why = (
            run.note
            if run.verdict
            else f"No line above {lowest_cm:g} 1/cm is known to {0.5 * (high - low):g} %: run longer."
        )
        return PeakMatch(nothing, (nothing, nothing), (low, high), (), missing, Verdict.INCONCLUSIVE, why)
    ratios = np.array([line.peak.wavenumber_cm / line.expected_cm for line in lines])
    own = float(np.sqrt(np.sum([(line.error_cm / line.expected_cm) ** 2 for line in lines]))) / len(lines)
    half = 2.0 * own
    if len(lines) > 1:
        half = max(half, student_t(0.975, len(lines) - 1) * float(ratios.std(ddof=1)) / np.sqrt(len(lines)))
    factor = float(ratios.mean())
    if rival is None:
        verdict, note = _judge(factor, half, (low, high), lines, missing, samples)
    else:
        verdict, note = (
            Verdict.INCONCLUSIVE,
            (
                f"The lines lie so close that factors of {factor:.3f} and {rival:.3f} fit alike: run longer, or give fewer expected lines."
            ),
        )
    return PeakMatch(factor, (factor - half, factor + half), (low, high), lines, missing, verdict, note)


def _sure(found: Sequence[Peak], percent: float) -> list[Peak]:
    """Lines whose place is known to so much; others would only move the mean."""
    return [p for p in found if p.wavenumber_cm > 0 and 200 * p.error_cm <= percent * p.wavenumber_cm]


def _assign(
    found: Sequence[Peak], wanted: Sequence[Peak], limit_percent: float | None
) -> tuple[tuple[Line, ...], tuple[float, ...], float | None]:
    """Lines that belong together, expected ones without another, and a factor that fits as well if there is one."""
    if not found or not wanted:
        return (), tuple(e.wavenumber_cm for e in wanted), None
    seen, asked = (np.log([p.wavenumber_cm for p in group]) for group in (found, wanted))
    offsets = np.log1p(np.linspace(-WIDEST, WIDEST, 481))
    distance = np.abs(seen[None, None] - asked[None, :, None] - offsets[:, None, None]).min(axis=2)
    # Capped, so that a line that is not there pulls nowhere; the nearer to 1 where two are alike.
    cost = np.minimum((distance / (0.5 * REACH)) ** 2, 1.0).mean(axis=1) + 0.1 * np.abs(offsets)
    off = offsets[cost.argmin()]
    other = np.where(np.abs(offsets - off) > 0.01, cost, np.inf)
    rival = float(np.exp(offsets[other.argmin()])) if other.min() < cost.min() + AMBIGUOUS else None
    apart = np.abs(seen - asked[:, None] - off)
    nearest = apart.argmin(axis=1)
    near = apart.min(axis=1) <= REACH
    lines = []
    for index in sorted({int(i) for i in nearest[near]}):
        shared = [e for e, i, close in zip(wanted, nearest, near, strict=True) if close and i == index]
        middle = float(np.mean([e.wavenumber_cm for e in shared]))
        error = float(np.hypot(found[index].error_cm, np.mean([e.error_cm for e in shared])))
        lines.append(Line(middle, found[index], error, limit_percent))
    return tuple(lines), tuple(e.wavenumber_cm for e, close in zip(wanted, near, strict=True) if not close), rival


def _sided(value: float, half: float, limits: tuple[float, float]) -> Verdict:
    """Whether value +- half is within the limits, beyond one of them, or both."""
    if limits[0] <= value - half and value + half <= limits[1]:
        return Verdict.PASS
    return Verdict.FAIL if value + half < limits[0] or value - half > limits[1] else Verdict.INCONCLUSIVE


def _judge(
    factor: float,
    half: float,
    limits: tuple[float, float],
    lines: Sequence[Line],
    missing: Sequence[float],
    samples: float,
) -> tuple[Verdict, str]:
    """The rules of `match_peaks`."""
    common = _sided(100 * (factor - 1), 100 * half, limits)
    size = f"{100 * (factor - 1):+.2f} +- {100 * half:.2f} % over {len(lines)} lines"
    if common is Verdict.FAIL:
        return common, f"All frequencies are off by {size}: check frame spacing, time step and masses."
    judged = [line.verdict for line in lines if line.verdict is not None]
    if judged and samples < ENOUGH_SAMPLES:
        return Verdict.INCONCLUSIVE, (
            f"{samples:.0f} effective samples, and {ENOUGH_SAMPLES:.0f} are needed to judge single lines: run longer."
        )
    if Verdict.FAIL in judged:
        off = max(lines, key=lambda line: (abs(line.shift_cm) - 2 * line.error_cm) / line.expected_cm)
        where = f"{off.expected_cm:.0f} 1/cm is off by {off.shift_cm:+.0f} +- {2 * off.error_cm:.0f}"
        return Verdict.FAIL, f"The line expected at {where} 1/cm."
    if judged and missing:
        return Verdict.INCONCLUSIVE, f"No sharp line near {missing[-1]:.0f} 1/cm: run longer."
    if common is Verdict.PASS and all(v is Verdict.PASS for v in judged):
        return Verdict.PASS, f"All frequencies are off by {size}."
    return (
        Verdict.INCONCLUSIVE,
        f"All frequencies are off by {size}, or single ones, which crosses a limit: run longer.",
    )
