"""Drift: the planted slope comes back, and the 95 % interval misses it in 5 of 100 runs, whatever the noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.signal import lfilter
from scipy.stats import binom

from mlff_sim.units import KB
from mlff_sim.validation import Verdict, nve_drift, worst

TIMES = 0.01 * np.arange(2000)
ATOMS = 9
STUDIES = 400
NOISES = ["white", "ar20", "ar100", "walk"]
RECORD = Path(__file__).parent / "data" / "aspirin_nve_noise.npz"
"""Conserved energy in meV/atom of aspirin (21 atoms, GFN2-xTB), each replica without its least-squares line.

`verlet`: the teacher alone, 0.5 fs, every 20th step. `outer6fs`: mollified RESPA with the shipped student, a teacher
call every 6 fs, every second one. Five replicas of 20 ps from 300 K each, float32; `*_ps` is the time between frames.
"""


def noise(kind: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """White noise, AR(1) noise with a correlation time of 20 or 100 frames from its start on, or a random walk; eV."""
    white = 1e-3 * rng.standard_normal(shape)
    if kind == "white":
        return white
    a = 1.0 if kind == "walk" else np.exp(-1.0 / float(kind[2:]))
    white[..., 0] /= np.sqrt(1.0 - a * a) if a < 1.0 else 1.0
    return lfilter([1.0], [1.0, -a], white, axis=-1)


def resampled(record: np.ndarray, replicas: int, rng: np.random.Generator) -> np.ndarray:
    """Noise with the spectrum of a record (replicas, frames): windows of Gaussian series four times as long.

    Surrogates of the record's own length would end where they begin (Theiler et al., Physica D 58, 77 (1992),
    doi:10.1016/0167-2789(92)90102-S), and a slope is measured at the ends.
    """
    frames = record.shape[1]
    power = (np.abs(np.fft.rfft(record)) ** 2).mean(axis=0) / frames
    power[0] = power[1]
    fine = np.interp(np.arange(2 * frames + 1) / 4, np.arange(len(power)), power)
    fine[0] = 0.0
    z = rng.standard_normal((2, replicas, len(fine)))
    return np.fft.irfft((z[0] + 1j * z[1]) * np.sqrt(2 * frames * fine), n=4 * frames)[:, :frames]


def test_a_planted_slope_is_found_exactly() -> None:
    """A straight line has one slope, whatever the offset of the total energy."""
    drift = nve_drift(TIMES, -4000.0 + 1e-3 * ATOMS * 0.25 * TIMES * np.ones((5, 1)), ATOMS)
    # Rounding of 4000 eV in float64 (9e-13) over 4 ps and 9 atoms: 3e-11 meV/atom/ps.
    assert drift.slope == pytest.approx(0.25, abs=1e-9)
    assert drift.slopes == pytest.approx([0.25] * 5, abs=1e-9)
    assert drift.verdict is Verdict.FAIL


def test_replicas_that_drift_apart_are_not_averaged_away() -> None:
    """Slopes of +1 and -1 have a mean of 0 and an interval that says so."""
    slopes = np.array([1.0, -1.0, 1.0, -1.0, 0.0])
    drift = nve_drift(TIMES, 1e-3 * ATOMS * slopes[:, None] * TIMES, ATOMS)
    assert drift.slope == pytest.approx(0.0, abs=1e-9)
    assert drift.ci95[1] == pytest.approx(
        2.7764 * 1.0 / np.sqrt(5), rel=1e-4
    )  # t(0.975, 4) and a sample deviation of 1
    assert drift.verdict is Verdict.INCONCLUSIVE
    assert "run longer" in drift.note


@pytest.mark.parametrize("kind", NOISES)
@pytest.mark.parametrize("replicas", [5, 2])
def test_false_alarms_of_replicas_are_nominal(kind: str, replicas: int) -> None:
    """Zero lies outside the interval in 5 % of studies without drift; of 400 that is 1 to 8 % in 996 of 1000 trials."""
    rng = np.random.default_rng(1)
    alarms = 0
    for _ in range(STUDIES):
        low, high = nve_drift(TIMES, noise(kind, (replicas, len(TIMES)), rng), ATOMS).ci95
        alarms += not low <= 0.0 <= high
    assert 0.01 * STUDIES <= alarms <= 0.08 * STUDIES


@pytest.mark.parametrize("kind", NOISES)
def test_false_alarms_of_one_replica_are_at_most_nominal(kind: str) -> None:
    """The interval of block increments is built for the worst case, a random walk: never above 10 %."""
    rng = np.random.default_rng(2)
    alarms = sum(
        not d.ci95[0] <= 0.0 <= d.ci95[1]
        for d in (nve_drift(TIMES, noise(kind, (len(TIMES),), rng), ATOMS) for _ in range(STUDIES))
    )
    assert alarms <= 0.1 * STUDIES


@pytest.mark.parametrize(
    ("run", "replicas", "studies", "least"),
    [("verlet", 5, 50, 0.999), ("outer6fs", 5, 400, 0.65), ("outer6fs", 7, 400, 0.9)],
)
def test_a_small_drift_in_the_noise_of_aspirin_is_found(run: str, replicas: int, studies: int, least: float) -> None:
    """0.05 meV/atom/ps over 20 ps: always in plain dynamics of the teacher; beneath the random walk of 6 fs, 3 in 4.

    There seven replicas find it in nine of ten.
    """
    rng = np.random.default_rng(3)
    with np.load(RECORD) as data:
        record, times = data[run].astype(float), float(data[f"{run}_ps"]) * np.arange(data[run].shape[1])
    found = sum(
        nve_drift(times, 1e-3 * 21 * (resampled(record, replicas, rng) + 0.05 * times), 21).ci95[0] > 0.0
        for _ in range(studies)
    )
    assert found >= least * studies


def test_least_squares_error_bars_would_have_failed_here() -> None:
    """The same AR(1) noise with the textbook error bar of one fit: the test above can fail, and this is how."""
    rng = np.random.default_rng(2)
    alarms = 0
    t = TIMES - TIMES.mean()
    for e in noise("ar20", (400, len(TIMES)), rng):
        slope = e @ t / (t @ t)
        residual = e - e.mean() - slope * t
        alarms += abs(slope) > 1.96 * np.sqrt(residual @ residual / (len(t) - 2) / (t @ t))
    assert alarms > binom.ppf(0.9995, 400, 0.05)


def test_one_replica_sees_a_large_drift() -> None:
    """1 meV/atom/ps over 4 ps in noise of 0.1 meV/atom is found, and the interval covers it."""
    rng = np.random.default_rng(3)
    drift = nve_drift(TIMES, 1e-3 * ATOMS * (TIMES + 0.1 * rng.standard_normal(len(TIMES))), ATOMS)
    assert drift.verdict is Verdict.FAIL
    assert drift.ci95[0] < 1.0 < drift.ci95[1]


@pytest.mark.parametrize("replicas", [5, 2])
@pytest.mark.parametrize("floor", [0.0, 1.0])
def test_the_walk_beneath_the_drift_is_measured(replicas: int, floor: float) -> None:
    """Steps of 0.3 meV/atom/ps^1/2 with a drift of 1 meV/atom/ps and bounded noise on top: in the interval in 95 %."""
    rng = np.random.default_rng(4)
    dt, true, inside, values = TIMES[1], 0.3, 0, []
    for _ in range(200):
        e = true * np.sqrt(dt) * rng.standard_normal((replicas, len(TIMES))).cumsum(axis=1)
        e += TIMES + floor * rng.standard_normal(e.shape)
        drift = nve_drift(TIMES, 1e-3 * ATOMS * e, ATOMS)
        values.append(drift.walk**2)
        inside += drift.walk_ci95[0] <= true <= drift.walk_ci95[1]
    assert inside >= binom.ppf(0.0005, 200, 0.95)
    # The mean square over the studies, not biased, within 4 standard errors.
    assert abs(np.mean(values) - true**2) < 4 * np.std(values) / np.sqrt(200)


def test_bounded_noise_does_not_walk() -> None:
    """White noise: the interval of the walk begins at zero in 97.5 of 100 studies."""
    rng = np.random.default_rng(5)
    seen = sum(nve_drift(TIMES, noise("white", (5, len(TIMES)), rng), ATOMS).walk_ci95[0] > 0.0 for _ in range(200))
    assert seen <= binom.ppf(0.9995, 200, 0.025)


def test_a_slope_in_the_units_of_others() -> None:
    """1 meV/ps in ten atoms at 300 K: in kT per ns and degree of freedom, in percent, and MLIPAudit's ratio."""
    dof = 27
    mean = 0.5 * dof * KB * 300.0
    times = np.linspace(0.0, 20.0, 1001)
    kinetic = mean * (1.0 + 0.2 * np.where(np.arange(1001) % 2, 1.0, -1.0) * np.ones((5, 1)))
    kinetic[:, -1] = mean
    energies = 1e5 + 1e-3 * times * np.ones((5, 1))
    drift = nve_drift(times, energies, 10, kinetic_eV=kinetic, dof=dof)
    assert drift.slope == pytest.approx(0.1)
    assert drift.kT_per_ns_dof == pytest.approx(1.0 / (KB * 300.0 * dof), rel=1e-6)
    assert drift.percent_per_ps == pytest.approx(0.1 / mean, rel=1e-6)
    assert drift.mlipaudit_ratio == pytest.approx(20e-3 / (0.2 * mean), rel=1e-3)
    assert nve_drift(times, energies, 10).kT_per_ns_dof is None


@pytest.mark.parametrize("replicas", [5, 1])
def test_equal_energies_are_conserved(replicas: int) -> None:
    """Nothing moves, in whatever large number: a slope of zero, and no division by it."""
    drift = nve_drift(TIMES, np.full((replicas, len(TIMES)), -1e5 - 0.1), ATOMS, kinetic_eV=np.zeros((replicas, 2000)))
    assert drift.ci95 == (0.0, 0.0)
    assert drift.verdict is Verdict.PASS
    assert drift.walk == 0.0 and drift.walk_ci95 == (None if replicas == 1 else (0.0, 0.0))
    assert drift.percent_per_ps is None and drift.mlipaudit_ratio is None


def test_a_large_offset_changes_nothing() -> None:
    """1e5 eV beneath energies of milli-electronvolts costs their rounding, 1.5e-11 eV, and no more."""
    e = noise("ar20", (5, len(TIMES)), np.random.default_rng(6))
    here, there = nve_drift(TIMES, e, ATOMS), nve_drift(TIMES, e + 1e5, ATOMS)
    assert there.ci95 == pytest.approx(here.ci95, abs=1e-8)


@pytest.mark.parametrize(
    ("energies", "message"),
    [(np.zeros((2, 3)), "do not fit"), (np.full((2, 2000), np.nan), "finite"), (np.zeros((3, 2, 2000)), "do not fit")],
)
def test_what_cannot_be_fitted_is_refused(energies: np.ndarray, message: str) -> None:
    """Shapes that do not fit and energies that are not numbers."""
    with pytest.raises(ValueError, match=message):
        nve_drift(TIMES, energies, ATOMS)


@pytest.mark.parametrize(("frames", "replicas"), [(0, 1), (1, 1), (7, 1), (2, 5), (0, 5)])
def test_too_few_frames_are_refused(frames: int, replicas: int) -> None:
    """One replica needs eight blocks, several a line each."""
    with pytest.raises(ValueError, match="too few"):
        nve_drift(TIMES[:frames], np.zeros((replicas, frames)), ATOMS)


def test_kinetic_energies_that_do_not_fit_are_refused() -> None:
    """Other frames than the energies', or not numbers."""
    with pytest.raises(ValueError, match="kinetic"):
        nve_drift(TIMES, np.zeros((2, 2000)), ATOMS, kinetic_eV=np.zeros((2, 1999)))
    with pytest.raises(ValueError, match="finite"):
        nve_drift(TIMES, np.zeros((2, 2000)), ATOMS, kinetic_eV=np.full((2, 2000), np.inf))


def test_a_system_without_atoms_is_refused() -> None:
    """No division by zero."""
    with pytest.raises(ValueError, match="n_atoms"):
        nve_drift(TIMES, np.zeros((2, 2000)), 0)


def test_worst_of_verdicts() -> None:
    """Fail over inconclusive over pass; nothing judged is inconclusive."""
    assert worst([Verdict.PASS, None, Verdict.FAIL, Verdict.INCONCLUSIVE]) is Verdict.FAIL
    assert worst([Verdict.PASS, Verdict.INCONCLUSIVE]) is Verdict.INCONCLUSIVE
    assert worst([None, Verdict.PASS]) is Verdict.PASS
    assert worst([None]) is Verdict.INCONCLUSIVE
