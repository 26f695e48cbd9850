"""The time between frames shows in positions and velocities; a wrong one is caught, a coarse one is not judged."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from mlff_sim.units import FS, KB
from mlff_sim.validation import Verdict, frame_spacing, kinetic_consistency

Array = NDArray[np.float64]
CM = 2.0 * np.pi * 2.99792458e-5
"""Angular frequency in rad/fs of a wave number in 1/cm."""
MASSES = np.array([12.011, 1.008, 1.008])
MODES = np.array([[300.0, 450.0, 700.0], [900.0, 1100.0, 1400.0], [1500.0, 1600.0, 3000.0]])


def oscillators(step_fs: float, frames: int = 60, seed: int = 0, modes: Array = MODES) -> tuple[Array, Array, Array]:
    """Times in ps, positions and momenta of oscillators with random phases and Maxwell's amplitudes, two replicas."""
    rng = np.random.default_rng(seed)
    w, m, t = CM * modes, MASSES[:, None], step_fs * np.arange(frames)
    a = rng.rayleigh(size=(2, 3, 3)) * np.sqrt(KB * 300.0 / m) * FS / w
    phase = w * t[:, None, None, None] + rng.uniform(0, 2 * np.pi, (2, 3, 3))
    return 1e-3 * t, 5.0 + a * np.sin(phase), m * a * w * np.cos(phase) / FS


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("step_fs", [0.25, 0.5, 1.0, 2.0])
def test_the_right_spacing_passes_and_a_wrong_one_fails(step_fs: float, seed: int) -> None:
    t, x, p = oscillators(step_fs, seed=seed)
    right = frame_spacing(x, p, MASSES, t)
    assert right.verdict is Verdict.PASS
    # Simpson's rule is off by (w h)^4 / 180 in the fastest mode, 0.9 % at 2 fs, and less in the mean over modes.
    fastest = (CM * MODES.max() * step_fs) ** 4 / 180.0
    assert abs(right.measured_ps / (1e-3 * step_fs) - 1.0) <= fastest
    assert abs(right.measured_ps / (1e-3 * step_fs) - 1.0) <= right.uncertainty
    for factor in (0.5, 0.8, 1.2, 2.0, 10.0, 1000.0):
        assert frame_spacing(x, p, MASSES, factor * t).verdict is Verdict.FAIL, factor


@pytest.mark.parametrize("step_fs", [4.0, 5.5, 7.0, 9.0, 11.1187, 13.0, 16.0, 22.2374, 40.0, 100.0, 1000.0])
def test_coarse_frames_are_not_judged(step_fs: float) -> None:
    """11.1187 fs is one period of the stretch, which then seems not to move at all though its velocity is there."""
    for seed in range(5):
        t, x, p = oscillators(step_fs, seed=seed)
        assert frame_spacing(x, p, MASSES, t).verdict is Verdict.INCONCLUSIVE


def test_the_uncertainty_holds_where_half_of_the_motion_is_resolved() -> None:
    """Mixtures of slow modes and fast ones at every phase of aliasing: the right spacing is never called wrong."""
    rng = np.random.default_rng(1)
    for seed in range(200):
        step_fs = 1.0
        fast = rng.uniform(0.0, 4.0 * np.pi, 4) / CM
        modes = np.concatenate([rng.uniform(200.0, 2000.0, 5), fast]).reshape(3, 3)
        t, x, p = oscillators(step_fs, seed=seed, modes=modes, frames=300)
        assert frame_spacing(x, p, MASSES, t).verdict is not Verdict.FAIL


def test_wrapped_atoms_move_on() -> None:
    t, x, p = oscillators(1.0)
    x = x + 0.05 * np.arange(60)[:, None, None, None]  # all drift through the box at 0.05 A/fs
    p = p + MASSES[:, None] * 0.05 / FS
    cells = np.broadcast_to(np.diag([4.0, 5.0, 6.0]), (60, 2, 3, 3))
    wrapped = x % np.array([4.0, 5.0, 6.0])
    assert frame_spacing(wrapped, p, MASSES, t, cells).verdict is Verdict.PASS
    assert frame_spacing(wrapped, p, MASSES, t).verdict is not Verdict.PASS
    assert frame_spacing(wrapped, p, MASSES, 2.0 * t, cells).verdict is Verdict.FAIL


def test_friction_does_not_look_like_a_wrong_spacing() -> None:
    """A free particle in a bath: Simpson's slope has 1 - g h / 9 to first order, 1 % at 100/ps and 1 fs."""
    rng = np.random.default_rng(3)
    for friction_per_ps in (1.0, 10.0, 100.0):
        fine, h = 20, 1.0 * FS
        dt, g = h / fine, friction_per_ps / (1000.0 * FS)
        v = np.empty((400 * fine, 2, 3, 3))
        width = np.sqrt(KB * 300.0 / MASSES)[:, None]
        v[0] = rng.normal(size=(2, 3, 3)) * width
        for k in range(1, len(v)):
            v[k] = np.exp(-g * dt) * v[k - 1] + np.sqrt(1 - np.exp(-2 * g * dt)) * width * rng.normal(size=(2, 3, 3))
        x = np.concatenate([np.zeros((1, 2, 3, 3)), np.cumsum(0.5 * dt * (v[1:] + v[:-1]), axis=0)])[::fine]
        result = frame_spacing(x, v[::fine] * MASSES[:, None], MASSES, 1e-3 * np.arange(400.0))
        assert result.verdict is not Verdict.FAIL
        if friction_per_ps <= 10.0:
            assert abs(result.measured_ps / 1e-3 - 1.0) <= result.uncertainty


def test_what_cannot_be_told() -> None:
    t, x, p = oscillators(1.0)
    assert frame_spacing(x[:2], p[:2], MASSES, t[:2]).verdict is Verdict.INCONCLUSIVE
    assert frame_spacing(x, np.zeros_like(p), MASSES, t).verdict is Verdict.INCONCLUSIVE
    assert frame_spacing(np.zeros_like(x), p, MASSES, t).verdict is Verdict.INCONCLUSIVE
    assert frame_spacing(x, np.random.default_rng(0).normal(size=p.shape), MASSES, t).verdict is Verdict.INCONCLUSIVE
    with pytest.raises(ValueError, match="finite"):
        frame_spacing(x * np.nan, p, MASSES, t)
    with pytest.raises(ValueError, match="must both be"):
        frame_spacing(x[1:], p, MASSES, t)
    with pytest.raises(ValueError, match="increase"):
        frame_spacing(x, p, MASSES, t[::-1])


def test_kinetic_energies_of_another_file_are_caught() -> None:
    _, _, p = oscillators(1.0)
    own = 0.5 * (p**2 / MASSES[:, None]).sum((2, 3))
    assert kinetic_consistency(own, p, MASSES).verdict is Verdict.PASS
    assert kinetic_consistency(own * 1.08, p, MASSES).verdict is Verdict.PASS  # half a step late
    for factor in (0.0, 0.5, 1.2, 96.485, 23.06):
        assert kinetic_consistency(factor * own, p, MASSES).verdict is Verdict.FAIL
    heavy = np.array([12.011 - 4.0, 3.024, 3.024])
    velocities = p / MASSES[:, None]
    assert kinetic_consistency(0.5 * (velocities**2 * heavy[:, None]).sum((2, 3)), p, MASSES).verdict is Verdict.FAIL
    with pytest.raises(ValueError, match="finite"):
        kinetic_consistency(own * np.nan, p, MASSES)
    with pytest.raises(ValueError, match="at least one frame"):
        kinetic_consistency(own[:0], p[:0], MASSES)
