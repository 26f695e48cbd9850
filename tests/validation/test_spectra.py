"""Two spectra, and lines against lines: planted faults are caught, clean twins pass, noise is what it is said to be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.signal import lfilter

from mlff_sim.forces import Array
from mlff_sim.units import CM1, PS
from mlff_sim.validation import Spectrum, Verdict, compare_spectra, match_peaks, peaks, vibrations

MODES = np.array([610.0, 840.0, 930.0, 1080.0, 1230.0, 1400.0, 1480.0, 2860.0, 3020.0, 3530.0])
"""1/cm, about those of ethanol."""
MEMORY_PS = 0.5
"""A mode forgets its phase and amplitude so fast: lines 1 / (pi c tau) = 21 1/cm wide."""


def thermal(seed: int, ps: float = 20.0, replicas: int = 5, modes: Array = MODES, frame_ps: float = 0.004) -> Array:
    """Momenta (frames, replicas, modes, 3) of unit masses, each axis a mode in a bath: Gaussian, with Lorentz' lines.

    A rotating complex amplitude whose modulus follows an Ornstein-Uhlenbeck process is its exact discrete solution.
    """
    frames = round(ps / frame_ps)
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(2, frames, replicas, len(modes), 3))
    decay = np.exp(-frame_ps / MEMORY_PS)
    steps = np.sqrt(1 - decay**2) * (noise[0] + 1j * noise[1])
    steps[0] /= np.sqrt(1 - decay**2)
    amplitude = lfilter([1.0], [1.0, -decay], steps, axis=0)
    phase = modes * CM1 * PS * frame_ps * np.arange(frames)[:, None]
    out: Array = (amplitude * np.exp(1j * phase)[:, None, :, None]).real
    return out


def spectrum(momenta: Array, frame_ps: float = 0.004, resolution_cm: float = 20.0) -> Spectrum:
    n = momenta.shape[2]
    return vibrations(
        momenta, np.ones(n), np.ones(n, int), frame_ps * np.arange(len(momenta)), 0.0, resolution_cm=resolution_cm
    )


@pytest.fixture(scope="module")
def reference() -> Spectrum:
    """500 ps."""
    return spectrum(thermal(0, ps=100.0))


def test_the_distance_of_a_moved_line_is_how_far_it_moved() -> None:
    """W1 of two lines 40 1/cm apart is 40 1/cm, overlapping or not; and nothing from itself. Tolerance: a point of the axis."""
    t = np.arange(4000)

    def line(cm: float) -> Spectrum:
        p = np.zeros((4000, 1, 1, 3))
        p[:, 0, 0, 0] = np.cos(cm * CM1 * PS * 0.004 * t)
        return spectrum(p, resolution_cm=10.0)

    for shift in (4.0, 40.0, 400.0):
        assert compare_spectra(line(1500.0 + shift), line(1500.0)).error_cm == pytest.approx(shift, rel=0.01)
    assert compare_spectra(line(1500.0), line(1500.0)).error_cm == 0.0


def test_effective_samples_are_those_of_the_process(reference: Spectrum) -> None:
    """Segments of 2.4 ps against a memory of 0.5 ps: those that do not overlap are independent, 2 / 3 to all of the number."""
    assert reference.segments == pytest.approx(5 * (100 / 1.2 - 1), rel=0.02)
    assert 0.6 * reference.segments < reference.samples <= reference.segments


def test_predicted_noise_is_the_noise() -> None:
    """150 runs of the same physics: mean distance as predicted, 95 % quantile passed by 0 to 17 of them, and 0 to 6 fail.

    17 is the 99.9 % quantile of the binomial with 150 and 0.05, 6 that with 150 and 0.01, the rate of false alarms measured
    on 200 pairs: beyond the 95 % quantile by the limit. The variance comes from some 60 blocks: its root is known to
    1 / sqrt(2 * 60) = 9 %; the mean of the distances to three standard errors.
    """
    some = MODES[::2]
    reference = spectrum(thermal(0, ps=100.0, modes=some))
    results = [compare_spectra(spectrum(thermal(100 + i, ps=10.0, modes=some)), reference) for i in range(150)]
    errors = np.array([r.error_cm for r in results])
    stderr = errors.std() / np.sqrt(150)
    assert abs(errors.mean() - results[0].noise_cm) < 0.09 * results[0].noise_cm + 3 * stderr
    assert sum(r.error_cm > r.noise95_cm for r in results) <= 17
    assert sum(r.verdict is Verdict.FAIL for r in results) <= 6


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_wrong_frame_spacing_fails_and_its_twin_passes(reference: Spectrum, seed: int) -> None:
    """2 % on all frequencies, up or down: against the reference as a whole, and line by line."""
    p = thermal(seed, ps=100.0)
    for factor, expected in ((1.0, Verdict.PASS), (1.02, Verdict.FAIL), (0.98, Verdict.FAIL)):
        s = spectrum(p, 0.004 * factor)
        # 1.8 % of the mean, 1900 1/cm, is 35 1/cm.
        assert compare_spectra(s, reference).verdict is expected
        for against in (reference, MODES):
            match = match_peaks(s, against, line_limit_percent=1.0)
            assert match.verdict is expected, match.note
            # 4 standard errors: the interval has 2.26 of them (Student's t over ten lines).
            assert abs(match.factor - 1 / factor) < 4 / 2.26 * (match.ci95[1] - match.factor)


def test_false_alarms_and_power_of_the_lines() -> None:
    """40 short runs (5 x 10 ps): with the right spacing none fails; 2 % off, none passes and nine of ten fail."""
    verdicts: dict[float, list[Verdict]] = {1.0: [], 1.02: [], 0.98: []}
    for i in range(40):
        p = thermal(500 + i, ps=10.0)
        for factor, found in verdicts.items():
            found.append(match_peaks(spectrum(p, 0.004 * factor), MODES).verdict)
    assert verdicts[1.0].count(Verdict.FAIL) == 0
    assert verdicts[1.0].count(Verdict.PASS) >= 36
    for factor in (1.02, 0.98):
        assert verdicts[factor].count(Verdict.PASS) == 0
        assert verdicts[factor].count(Verdict.FAIL) >= 36


def test_errors_of_lines_hold() -> None:
    """Found less true over standard error, of 40 runs: within 2 in 85 to 99 of 100, as Student's t over 5 or more blocks has it."""
    scores = []
    for i in range(40):
        found = peaks(spectrum(thermal(900 + i, ps=20.0)))
        near = [min(found, key=lambda q: abs(q.wavenumber_cm - m)) for m in (610.0, 1230.0, 3530.0)]
        scores += [(q.wavenumber_cm - m) / q.error_cm for q, m in zip(near, (610.0, 1230.0, 3530.0), strict=True)]
    inside = np.mean(np.abs(scores) < 2.0)
    assert 0.85 < inside < 0.99
    assert abs(np.mean(scores)) < 4 * np.std(scores) / np.sqrt(len(scores))


def test_one_line_moved_is_caught_where_lines_are_judged(reference: Spectrum) -> None:
    """A student whose O-H stretch is 1.8 % too fast: the common factor cannot see it, the lines do."""
    moved = np.where(MODES == 3530.0, 3594.0, MODES)
    s = spectrum(thermal(7, ps=100.0, modes=moved))
    assert match_peaks(s, reference, line_limit_percent=1.0).verdict is Verdict.FAIL
    assert match_peaks(s, reference).verdict is Verdict.PASS


def test_a_lost_line_does_not_pass(reference: Spectrum) -> None:
    """A line that lies nowhere near: no pass where lines are judged."""
    moved = np.where(MODES == 3530.0, 3800.0, MODES)
    match = match_peaks(spectrum(thermal(7, ps=100.0, modes=moved)), reference, line_limit_percent=1.0)
    assert match.verdict is Verdict.INCONCLUSIVE
    assert match.missing_cm == pytest.approx((3530.0,), abs=10)
    assert "3530" in match.note or "3529" in match.note or "3531" in match.note


def test_thin_data_decide_nothing(reference: Spectrum) -> None:
    """A reference of a few segments; one block; no spectrum at all, on either side."""
    thin = spectrum(thermal(3, ps=3.0))
    assert compare_spectra(reference, thin).verdict is Verdict.INCONCLUSIVE
    one = spectrum(thermal(3, ps=3.0, replicas=1))
    assert compare_spectra(one, one).noise_cm == np.inf
    assert compare_spectra(one, one).verdict is Verdict.INCONCLUSIVE
    # One block: lines known to the resolution, 20 1/cm, which is more than a quarter of what is left to any of them.
    assert not match_peaks(one, MODES).lines and "is known to 1 %" in match_peaks(one, MODES).note
    assert match_peaks(thin, reference, line_limit_percent=1.0).verdict is not Verdict.PASS
    nothing = spectrum(thermal(3, ps=0.5))
    for pair in ((nothing, reference), (reference, nothing)):
        assert compare_spectra(*pair).verdict is Verdict.INCONCLUSIVE
        assert "record" in compare_spectra(*pair).note
        assert match_peaks(*pair).verdict is Verdict.INCONCLUSIVE
    assert "record" in match_peaks(nothing, MODES).note


@pytest.mark.parametrize(
    ("expected", "message"),
    [(np.zeros(0), "no line"), (np.array([100.0, 200.0]), "no line"), (np.array([np.nan, 900.0]), "finite")],
)
def test_bad_expectations(reference: Spectrum, expected: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        match_peaks(reference, expected)


def test_lines_too_close_to_tell_one_from_the_next() -> None:
    """Expected every 1.5 % up to 3600 1/cm, a factor of 1.015 looks like 1: neither right nor wrong spacing is judged."""
    ladder = 1000.0 * 1.015 ** np.arange(86)
    s = spectrum(thermal(12, ps=20.0, modes=ladder[[20, 50, 80]]))
    match = match_peaks(s, ladder)
    assert match.verdict is Verdict.INCONCLUSIVE and "fit alike" in match.note


def test_an_element_that_is_not_there(reference: Spectrum) -> None:
    with pytest.raises(ValueError, match="there are all, H"):
        peaks(reference, "C")


def test_anharmonicity_has_its_place_and_a_fault_does_not_hide_behind_it() -> None:
    """Modes 0.8 % softer than harmonic pass; a spacing that is 2 % off fails both ways, though +2 - 0.8 is little."""
    p = thermal(11, ps=40.0, modes=0.992 * MODES)
    for factor, expected in ((1.0, Verdict.PASS), (1.02, Verdict.FAIL), (0.98, Verdict.FAIL)):
        assert match_peaks(spectrum(p, 0.004 * factor), MODES).verdict is expected
    assert match_peaks(spectrum(p), MODES, limits_percent=(-0.5, 0.5)).verdict is Verdict.FAIL
    with pytest.raises(ValueError, match="negative and a positive"):
        match_peaks(spectrum(p), MODES, limits_percent=(0.5, 1.0))


def test_spectra_of_other_things_are_refused(reference: Spectrum) -> None:
    """Other elements, other resolutions."""
    p = thermal(0, ps=5.0)
    other = vibrations(p, np.ones(10), np.full(10, 6), 0.004 * np.arange(len(p)), 0.0, resolution_cm=20.0)
    with pytest.raises(ValueError, match="cannot be compared"):
        compare_spectra(other, reference)
    with pytest.raises(ValueError, match="resolution"):
        compare_spectra(spectrum(p, resolution_cm=40.0), reference)
