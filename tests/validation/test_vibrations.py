"""Spectra: exact frequencies, the integrator's shift, what cannot be judged."""

from __future__ import annotations

import time
import tracemalloc
from typing import Any

import numpy as np
import pytest
from conftest import Trap

from mlff_sim.forces import Array
from mlff_sim.integrators.force_table import ForceTable
from mlff_sim.integrators.schemes import verlet
from mlff_sim.integrators.stepper import Stepper
from mlff_sim.models.analytic import Morse
from mlff_sim.state import State
from mlff_sim.units import CM1, FS
from mlff_sim.validation import (
    Verdict,
    corrected_cm,
    infrared,
    internal_momenta,
    observed_cm,
    peaks,
    vibrations,
)

WATER = 3657.0
"""1/cm, the symmetric stretch of water."""


def run(model: Any, masses: Array, state: State, timestep_fs: float, ps: float, every_fs: float) -> tuple[Array, ...]:
    """Velocity Verlet with the package's stepper: times in ps, positions, momenta, and mean energy of each replica."""
    stepper = Stepper(verlet("model"), timestep_fs * FS, masses, ForceTable({"model": model}), state)
    stride = round(every_fs / timestep_fs)
    x, p, energy = [], [], []
    for step in range(round(ps * 1000 / timestep_fs)):
        if step % stride == 0:
            x.append(stepper.state.positions.copy())
            p.append(stepper.state.momenta.copy())
        energy.append(stepper.potential() + stepper.kinetic())
        stepper.step()
    return 1e-3 * every_fs * np.arange(len(x)), np.array(x), np.array(p), np.mean(energy, axis=0)


def test_the_shift_of_velocity_verlet() -> None:
    """+18 and +76 1/cm at 3657; the inverse is the inverse; the eigenvalue of the map itself, cos(W h) = trace / 2."""
    assert observed_cm(WATER, 0.5) - WATER == pytest.approx(18.0, abs=0.5)
    assert observed_cm(WATER, 1.0) - WATER == pytest.approx(76.5, abs=0.5)
    w = np.linspace(0.0, 4000.0, 41)
    np.testing.assert_allclose(corrected_cm(observed_cm(w, 1.0), 1.0), w, atol=1e-9)
    np.testing.assert_array_equal(observed_cm(w, 0.0), w)
    h, omega = 1.0 * FS, WATER * CM1
    kick = np.array([[1.0, 0.0], [-0.5 * h * omega**2, 1.0]])
    trace = np.trace(kick @ np.array([[1.0, h], [0.0, 1.0]]) @ kick)
    assert np.arccos(trace / 2) / h / CM1 == pytest.approx(float(observed_cm(WATER, 1.0)), abs=1e-8)
    assert np.isinf(observed_cm(4000.0, 3.0))


@pytest.mark.parametrize(("timestep_fs", "off"), [(0.5, 18.0), (1.0, 76.0)])
def test_harmonic_frequencies(timestep_fs: float, off: float) -> None:
    """Within 0.1 1/cm after correction, and off by what is known without.

    Tolerance: lines of 10 1/cm behind Hann's window are met to a hundredth of their width; the nearest neighbour is 40
    widths away, where the window's side lobes are below 1e-9.
    """
    exact = np.array([300.0, 750.0, 1200.0, 1700.0, 2900.0, WATER])
    masses = np.array([1.0, 12.0, 16.0, 1.0, 12.0, 1.0])
    trap = Trap(6, (masses * (exact * CM1) ** 2)[:, None])
    start = State(np.zeros((1, 6, 3)), np.sqrt(masses)[:, None] * np.full((1, 6, 3), 0.1))
    t, _, p, _ = run(trap, masses, start, timestep_fs, 10.0, 4.0)
    numbers = np.array([1, 6, 8, 1, 6, 1])
    right = [q.wavenumber_cm for q in peaks(vibrations(p, masses, numbers, t, timestep_fs))]
    np.testing.assert_allclose(right, exact, atol=0.1)
    wrong = [q.wavenumber_cm for q in peaks(vibrations(p, masses, numbers, t, 0.0, highest_cm=4100.0))]
    np.testing.assert_allclose(wrong, observed_cm(exact, timestep_fs), atol=0.1)
    assert wrong[-1] - WATER > off


@pytest.mark.parametrize(
    ("timestep_fs", "levels"), [(0.5, (0.0056, 0.05, 0.1, 0.2, 0.35)), (1.0, (0.0056, 0.02, 0.04))]
)
def test_morse_oscillator(timestep_fs: float, levels: tuple[float, ...]) -> None:
    """w(E) = w0 sqrt(1 - E / D), E the mean energy along the run, within 1 1/cm after correction.

    0.0056 is kT / D at 300 K. The correction is that of a harmonic mode; what it misses is of order w (w h)^2 E / D,
    measured 0.012 of that at small E: 0.9 1/cm at 1 fs and E / D = 0.04, and sixteen times less at half the step.
    """
    depth, mass = 4.6, np.array([1.008, 15.999])
    reduced = mass.prod() / mass.sum()
    model = Morse(
        np.array([1, 8]), np.array([[0, 1]]), np.array([0.96]), depth, WATER * CM1 * np.sqrt(reduced / (2 * depth))
    )
    x = np.zeros((len(levels), 2, 3))
    x[:, 1, 0] = 0.96
    p = np.zeros_like(x)
    p[:, 0, 0] = np.sqrt(2 * reduced * depth * np.array(levels))
    p[:, 1, 0] = -p[:, 0, 0]
    t, _, momenta, energy = run(model, mass, State(x, p), timestep_fs, 6.0, timestep_fs)
    for r, e in enumerate(energy):
        exact = WATER * np.sqrt(1.0 - e / depth)
        # Overtones have their place too: at E / D = 0.35 the third harmonic has 3 % of the power.
        args: Any = (momenta[:, r : r + 1], mass, np.array([1, 8]), t)
        right, wrong = (
            max(peaks(vibrations(*args, h, highest_cm=9500.0)), key=lambda q: q.height) for h in (timestep_fs, 0.0)
        )
        assert abs(right.wavenumber_cm - exact) < 1.0
        assert wrong.wavenumber_cm - exact > 0.9 * (observed_cm(exact, timestep_fs) - exact) > 8.0


def oscillators(frames: int, step_fs: float, cm: Array, replicas: int = 1) -> Array:
    """Momenta of unit masses that move along x with these wave numbers, shape (frames, replicas, modes, 3)."""
    p = np.zeros((frames, replicas, len(cm), 3))
    p[..., 0] = np.cos(cm * CM1 * FS * step_fs * np.arange(frames)[:, None])[:, None]
    return p


@pytest.mark.parametrize("timestep_fs", [0.0, 1.0])
def test_elements_have_their_share_and_their_lines(timestep_fs: float) -> None:
    """Heavy atoms slow with 3 / 4 of the kinetic energy, hydrogens fast with the rest: areas to 1e-3, means to 1 1/cm.

    With the integrator's shift as well: what was in dW is in dw = cos(W h / 2) dW, at 3000 1/cm and 1 fs 4 % less.
    """
    p = oscillators(2000, 4.0, observed_cm(np.array([500.0, 3000.0]), timestep_fs))
    masses = np.array([12.0, 1.0])
    p *= np.sqrt(masses * np.array([3.0, 1.0]))[:, None]
    s = vibrations(p, masses, np.array([6, 1]), 0.004 * np.arange(2000), timestep_fs)
    w, step = s.wavenumbers_cm, np.gradient(s.wavenumbers_cm)
    assert s.mean("all") @ step == pytest.approx(1.0, abs=1e-9)
    for name, share, centre in (("C", 0.75, 500.0), ("H", 0.25, 3000.0)):
        assert s.mean(name) @ step == pytest.approx(share, abs=1e-3)
        assert (s.mean(name) * w) @ step / (s.mean(name) @ step) == pytest.approx(centre, abs=1.0)
    np.testing.assert_allclose(s.mean("C") + s.mean("H"), s.mean("all"), atol=1e-15)


def test_the_stated_resolution_is_the_width_of_a_line() -> None:
    """Full width at half maximum of a pure tone, to a point of the padded axis (3 %)."""
    p = oscillators(6000, 4.0, np.array([1500.0]))
    for asked in (5.0, 10.0, 40.0):
        s = vibrations(p, np.ones(1), np.ones(1, int), 0.004 * np.arange(6000), 0.0, resolution_cm=asked)
        g = s.mean("all")
        above = s.wavenumbers_cm[g > 0.5 * g.max()]
        point = float(np.diff(s.wavenumbers_cm)[0])
        assert s.resolution_cm == pytest.approx(asked, rel=0.05)
        assert abs(np.ptp(above) + point - s.resolution_cm) < 1.5 * point


def test_infrared_intensities() -> None:
    """Equal amplitudes of the dipole at w and 2 w: 1 to 4, and a permanent dipole is dark. Areas of far lines: 1 %."""
    t = np.arange(4000)
    mu = np.full((4000, 1, 3), 5.0)
    for cm in (900.0, 1800.0):
        mu[:, 0, 0] += 0.1 * np.cos(cm * CM1 * FS * 4.0 * t)
    s = infrared(mu, 0.004 * t, 0.0)
    w, g = s.wavenumbers_cm, s.mean("infrared")
    low = np.where(abs(w - 900) < 100, g, 0.0) @ np.gradient(w)
    assert low == pytest.approx(0.2, rel=0.01)
    assert np.where(abs(w - 1800) < 100, g, 0.0) @ np.gradient(w) == pytest.approx(0.8, rel=0.01)
    assert g[w < 500].max() < 1e-4 * g.max()


def test_rigid_motion_leaves_nothing_and_a_turning_bond_one_line() -> None:
    """What translates and turns has no internal momenta; a turning, vibrating bond has one line in its own axes, two in ours.

    The rotor 1e12 rad/s = 5.3 1/cm splits the lab line by twice that, wider than the 5 1/cm of resolution.
    """
    rng = np.random.default_rng(0)
    m = np.array([12.0, 1.0, 16.0, 1.0])
    x0 = rng.normal(size=(4, 3))
    x0 -= np.average(x0, axis=0, weights=m)
    spin, drift = np.array([0.3, -0.2, 0.5]), np.array([0.1, 0.2, -0.3])
    p = m[:, None] * (np.cross(spin, x0) + drift)
    assert np.abs(internal_momenta((x0 + 7.0)[None, None], p[None, None], m)).max() < 1e-12
    frames, step = 6000, 4.0 * FS
    t = step * np.arange(frames)
    turn, w, m2 = 10.0 * CM1, 1500.0 * CM1, np.array([1.0, 1.0])
    axis = np.stack([np.cos(turn * t), np.sin(turn * t), 0 * t], axis=-1)
    across = np.stack([-np.sin(turn * t), np.cos(turn * t), 0 * t], axis=-1)
    r, speed = 1.0 + 0.01 * np.cos(w * t), -0.01 * w * np.sin(w * t)
    half = 0.5 * r[:, None] * axis
    v = 0.5 * (speed[:, None] * axis + turn * r[:, None] * across)
    x, q = (np.stack([a, -a], axis=1)[:, None] for a in (half, v))
    args: Any = (m2, np.array([1, 1]), t / FS * 1e-3, 0.0)
    lab = [k.wavenumber_cm for k in peaks(vibrations(q, *args, resolution_cm=5.0), least=0.1)]
    own = [k.wavenumber_cm for k in peaks(vibrations(internal_momenta(x, q, m2), *args, resolution_cm=5.0), least=0.1)]
    np.testing.assert_allclose(lab[-2:], [1490.0, 1510.0], atol=0.1)
    np.testing.assert_allclose(own, [1500.0], atol=0.05)


@pytest.mark.parametrize(
    ("step_fs", "options", "advice"),
    [
        (10.0, {}, "record every 4.14 fs"),  # observed_cm(4000, 0.5) = 4024
        (5.0, {}, "folds back"),
        (4.0, {"resolution_cm": 1.0}, "record 48 ps"),
        (4.0, {"highest_cm": 2500.0}, "give a higher highest_cm"),
    ],
)
def test_what_cannot_be_judged_says_what_would_settle_it(step_fs: float, options: Any, advice: str) -> None:
    """Frames too far apart, runs too short, and motion faster than was said: no spectrum rather than a wrong one."""
    p = oscillators(2000, step_fs, np.array([500.0, 3000.0]))
    s = vibrations(p, np.ones(2), np.array([6, 1]), 1e-3 * step_fs * np.arange(2000), 0.5, **options)
    assert s.verdict is Verdict.INCONCLUSIVE
    assert advice in s.note
    assert not s.blocks and not peaks(s)


def test_a_step_too_long_for_the_highest_frequency() -> None:
    s = vibrations(oscillators(2000, 4.0, np.array([100.0])), np.ones(1), np.ones(1, int), 4e-3 * np.arange(2000), 4.0)
    assert s.verdict is Verdict.INCONCLUSIVE
    assert "not stable above 2654 1/cm" in s.note  # w h = 2


GOOD = oscillators(2000, 4.0, np.array([500.0, 3000.0]))
TIMES = 0.004 * np.arange(2000)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"momenta": GOOD[:, 0]}, "frames, replicas, n, 3"),
        ({"momenta": GOOD[:, :, :1]}, "frames, replicas, n, 3"),
        ({"momenta": np.where(np.arange(2000)[:, None, None, None] == 7, np.nan, GOOD)}, "finite"),
        ({"momenta": 0 * GOOD}, "nothing moves"),
        ({"momenta": GOOD[:1], "time_ps": TIMES[:1]}, "too few"),
        ({"momenta": GOOD[:0], "time_ps": TIMES[:0]}, "too few"),
        ({"momenta": GOOD[:, :0]}, "too few"),
        ({"time_ps": TIMES[:-1]}, "do not fit"),
        ({"time_ps": np.delete(np.arange(2001), 5) * 0.004}, "evenly spaced"),
        ({"time_ps": TIMES[::-1]}, "evenly spaced"),
        ({"masses": np.array([1.0, 0.0])}, "positive"),
        ({"timestep_fs": -1.0}, "timestep_fs"),
        ({"timestep_fs": 8.0}, "longer than the 4 fs between frames"),
        ({"resolution_cm": 0.0}, "resolution_cm"),
        ({"highest_cm": float("nan")}, "highest_cm"),
    ],
)
def test_bad_input(change: dict[str, Any], message: str) -> None:
    """One line that says what was given and what is allowed."""
    good = {"momenta": GOOD, "masses": np.ones(2), "numbers": np.array([6, 1]), "time_ps": TIMES, "timestep_fs": 0.5}
    with pytest.raises(ValueError, match=message) as caught:
        vibrations(**{**good, **change})
    assert "\n" not in str(caught.value)


def test_bad_dipoles_and_positions() -> None:
    with pytest.raises(ValueError, match="frames, replicas, 3"):
        infrared(np.zeros((10, 3)), TIMES[:10], 0.5)
    with pytest.raises(ValueError, match="nothing moves"):
        infrared(np.ones((2000, 1, 3)), TIMES, 0.5)
    with pytest.raises(ValueError, match="must be"):
        internal_momenta(GOOD[:-1], GOOD, np.ones(2))


@pytest.mark.slow
def test_a_large_trajectory_takes_seconds_and_little_memory() -> None:
    """10,000 frames of 200 atoms: under 15 s and 1 GB."""
    p = np.random.default_rng(0).normal(size=(10_000, 1, 200, 3))
    p = p + np.roll(p, 1, axis=0)  # little power at the Nyquist frequency
    numbers = np.tile([6, 1, 1, 8], 50)
    tracemalloc.start()
    begun = time.process_time()
    s = vibrations(p, np.full(200, 12.0), numbers, 0.002 * np.arange(10_000), 0.5, highest_cm=8000.0)
    spent, (_, peak) = time.process_time() - begun, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert s.verdict is None
    assert spent < 15.0 and peak < 1e9
