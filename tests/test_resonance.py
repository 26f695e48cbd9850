"""Laws behind the cadence certificate: what kicks do to modes, and to the energy of anything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mlff_sim.forces import Array, Evaluation
from mlff_sim.integrators.force_table import ForceTable
from mlff_sim.integrators.resonance import (
    excess_work,
    half_trace,
    kick_work,
    map_growth,
    mode_growth,
    outer_map,
    position_bias,
)
from mlff_sim.integrators.schemes import respa, verlet
from mlff_sim.integrators.stepper import Stepper
from mlff_sim.models.analytic import Morse
from mlff_sim.state import State, kinetic_energy
from mlff_sim.units import FS, KB

ALL = {"all": np.array([0, 1])}
KT = KB * 300
OH, EPSILON = (15.999, 1.008), 2e-3


class Bond(Morse):
    """One bond, of thousands of replicas at once."""

    def __call__(self, positions: Array, cell: Array | None = None, /) -> Evaluation:
        d = positions[:, 0] - positions[:, 1]
        r = np.sqrt((d * d).sum(axis=-1))
        energy, slope = self.pair(r)
        pull = (-slope / r)[:, None] * d
        return Evaluation(energy, np.stack([pull, -pull], axis=1))


def morse(stiffer: float = 0.0) -> Morse:
    """An O-H bond; the teacher's is stiffer by a share."""
    return Bond(np.array([8, 1]), np.array([[0, 1]]), np.array([0.96]), 4.6 * (1 + stiffer), 2.28)


def canonical(model: Morse, replicas: int, seed: int, temperature_K: float) -> State:
    """O-H bonds drawn exactly from exp(-U/kT) r^2 by inversion on a fine grid, without rotation or translation."""
    rng, kT = np.random.default_rng(seed), KB * temperature_K
    r = np.linspace(0.6, 1.8, 20001)
    weight = np.exp(-(model.pair(r)[0]) / kT)
    cumulative = np.cumsum(weight)
    drawn = np.interp(rng.random(replicas) * cumulative[-1], cumulative, r)
    mass = np.array(OH)
    reduced = mass.prod() / mass.sum()
    p = rng.standard_normal(replicas) * np.sqrt(reduced * kT)
    x = np.zeros((replicas, 2, 3))
    x[:, 1, 0] = drawn
    momenta = np.zeros_like(x)
    momenta[:, 1, 0], momenta[:, 0, 0] = p, -p
    return State(x, momenta)


def test_the_half_trace_is_that_of_the_map() -> None:
    """Biesiadecki & Skeel 1993, eq. 8 in our symbols: the product of the three matrices has this trace exactly."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        w, error, step = rng.uniform(0.1, 3), rng.uniform(-0.1, 0.1), rng.uniform(0.1, 5)
        matrix = outer_map(np.array([w]), np.array([[error * w * w]]), step)
        assert abs(0.5 * np.trace(matrix) - half_trace(w, error, step)) < 1e-13
        assert abs(np.linalg.det(matrix) - 1) < 1e-12  # symplectic


def test_growth_in_a_window() -> None:
    """Windows lie next to n pi / w, are epsilon n pi / w wide, and grow by at most epsilon w / 2, to order epsilon^2."""
    w, error = 0.7, 0.01
    for n in (1, 2, 3):
        steps = n * np.pi / w * (1 + np.linspace(-2, 2, 4001) * error)
        growth = np.array([mode_growth(np.array(w), np.array(error), h) for h in steps])
        inside = steps[growth > 1e-7]
        assert abs(growth.max() - error * w / 2) < 2 * error * (error * w / 2)
        assert abs((inside[-1] - inside[0]) / (error * n * np.pi / w) - 1) < 0.05
    linear = map_growth(np.array([w]), np.array([[error * w * w]]), steps[growth.argmax()])
    assert abs(linear - growth.max()) < 1e-8


def test_two_modes_resonate_together() -> None:
    """At (w1 + w2) H = 2 pi a coupling in the residual makes both grow, where neither does alone (parametric resonance)."""
    w, coupling = np.array([0.5, 0.62]), 2e-3
    step = 2 * np.pi / w.sum()
    residual = np.array([[0.0, coupling], [coupling, 0.0]])
    assert map_growth(w, np.diag(np.full(2, coupling)), step) == 0
    # First order in the coupling c: rate c / (2 sqrt(w1 w2)), as epsilon w / 2 for one mode with c = epsilon w^2.
    expected = coupling / (2 * np.sqrt(w.prod()))
    assert abs(map_growth(w, residual, step) / expected - 1) < 0.01


def test_bias_of_positions_is_that_of_the_map() -> None:
    """Away from resonance the map conserves a quadratic form; its <q^2> at fixed energy is off by the formula, to first order.

    The form's matrix for a symmetric map [[a, b], [c, a]] is diag(-c, b): <q^2> is proportional to sqrt(b / -c).
    The exact answer has the teacher's stiffness, w^2 (1 + epsilon).
    """
    error = 1e-4
    for w, step in ((0.7, 1.0), (0.7, 3.0), (0.7, 6.0), (0.3, 2.0)):
        m = outer_map(np.array([w]), np.array([[error * w * w]]), step)
        found = (m[0, 1] / -m[1, 0]) / (1 / (w * w * (1 + error))) - 1
        expected = 2 * position_bias(np.array(w), np.array(error), step)
        assert abs(found - expected) < 20 * error**2 + 1e-12 or abs(found / expected - 1) < 0.01


def along(student: Morse, teacher: Morse, start: State, timestep_fs: float, frames: int) -> Array:
    """Power of the residual force on each atom along trajectories of the student, (frames, replicas, 2)."""
    table = ForceTable({"student": student, "teacher": teacher}, {"residual": ("teacher", "student")})
    stepper = Stepper(verlet("student"), timestep_fs * FS, np.array(OH), table, start)
    power = []
    for _ in range(frames):
        velocities = stepper.state.momenta / np.array(OH)[:, None]
        power.append((table["residual"].forces * velocities).sum(axis=-1))
        stepper.step()
    return np.array(power)


@pytest.mark.parametrize("outer_fs", [4.0, 4.4, 6.0])
def test_the_work_of_the_kicks_is_the_energy_gained(outer_fs: float) -> None:
    """W along the student's trajectory is what K + U gains in RESPA from the same start, replica by replica.

    They differ in second order of the residual (a share epsilon w t of W, since the trajectories part: 2e-3 x 0.7 x 80) and
    by the inner Verlet's own fluctuation, of order (w h)^2 / 8 of the energy at the two ends, taken out by a run of the
    student alone.
    """
    inner, count = 0.1, round(80 / outer_fs)
    student, teacher = morse(), morse(EPSILON)
    start = canonical(teacher, 64, 1, 300)
    k = round(outer_fs / inner)
    power = along(student, teacher, start, inner, count * k + 2)
    table = ForceTable({"student": student, "teacher": teacher}, {"residual": ("teacher", "student")})
    run = Stepper(respa("residual", verlet("student"), k), outer_fs * FS, np.array(OH), table, start)
    before = kinetic_energy(start.momenta, run.masses) + run.potential()
    for _ in range(count):
        run.step()
    gained = kinetic_energy(run.state.momenta, run.masses) + run.potential() - before
    alone = Stepper(verlet("student"), inner * FS, np.array(OH), ForceTable({"student": student}), start)
    first = kinetic_energy(start.momenta, run.masses) + alone.potential()
    for _ in range(count * k):
        alone.step()
    gained = gained - (kinetic_energy(alone.state.momenta, run.masses) + alone.potential() - first)
    predicted = excess_work(power, k, count, inner * FS)[0].sum(axis=-1)
    assert np.corrcoef(gained, predicted)[0, 1] > 0.98
    assert np.abs(gained - predicted).max() < 2 * EPSILON * 0.7 * 80 * np.abs(predicted).max()


def test_the_walk_has_the_drift_that_reversibility_asks_for() -> None:
    """<exp(-W/kT)> = 1 for any symplectic map from a canonical start (Jarzynski 1997), so <W> = <W^2>/2kT to leading order.

    RESPA in the middle of the window of an O-H bond at 3000 K, whose anharmonicity spreads its phases.
    """
    temperature_K, epsilon = 3000, 0.02
    student, teacher = morse(), morse(epsilon)
    start = canonical(teacher, 4000, 2, temperature_K)
    table = ForceTable({"student": student, "teacher": teacher}, {"residual": ("teacher", "student")})
    run = Stepper(respa("residual", verlet("student"), 18), 4.5 * FS, np.array(OH), table, start)
    before = kinetic_energy(start.momenta, run.masses) + run.potential()
    for _ in range(12):
        run.step()
    x = (kinetic_energy(run.state.momenta, run.masses) + run.potential() - before) / (KB * temperature_K)
    stderr = 1 / np.sqrt(len(x))
    boltzmann = np.exp(-x)
    assert x.std() > 0.1  # the kicks did something
    assert abs(boltzmann.mean() - 1) < 4 * boltzmann.std() * stderr
    second = x - 0.5 * x**2
    # What is left is the third cumulant / 6, of the order of the cube of the spread.
    assert abs(second.mean()) < 4 * second.std() * stderr + x.std() ** 3
    assert x.mean() > 4 * x.std() * stderr - 0.5 * x.var()


def test_work_of_known_signals() -> None:
    """A signal at 2 pi / H is taken for its value at the kicks; one at another frequency hardly at all; parts add up."""
    timestep, stride, frames = 0.5, 8, 400
    t = timestep * np.arange(frames)
    phase = np.random.default_rng(3).uniform(0, 2 * np.pi, (50, 1))
    window = 160.0

    def power(frequency: float) -> Array:
        return np.cos(frequency * t[:, None, None] + phase) * np.array([0.25, 0.75])

    resonant = kick_work(
        power(2 * np.pi / (stride * timestep)), stride, timestep, window, KT, {"a": np.array([1]), **ALL}
    )
    # W = t cos(phase at the kicks); over all phases <W^2> = t^2 / 2, each replica sees 8 of them alike: exactly. From half
    # a window to a whole one that grows by 3/8 window^2, in half a window.
    assert np.allclose(resonant.walk, 0.75 * window)
    assert np.allclose(resonant.by_group["all"], resonant.heating)
    assert np.allclose(resonant.by_group["a"], 0.75 * resonant.heating)
    assert np.allclose(resonant.heating, resonant.walk / (2 * KT))
    slow = kick_work(power(0.05), stride, timestep, window, KT, ALL)
    # The trapezoid rule misses (w H)^2 / 12 of a slow signal's integral, which is bounded by 2 / w.
    assert (np.abs(slow.walk) * window / 2 < ((0.05 * 4) ** 2 / 12 * 2 / 0.05) ** 2 * 1.1).all()
    # What the energy fluctuates by at the ends of a piece does not depend on its length, and is no walk: a signal of half
    # the frequency of the kicks gives W = +-1 / w at most, whatever the piece, and nothing on average over its phases.
    ends = kick_work(power(np.pi / (stride * timestep)), stride, timestep, window, KT, ALL)
    assert np.abs(ends.walk).max() * window / 2 < 1e-9 * (stride * timestep) ** 2
    none = kick_work(power(1.1), 1, timestep, window, KT, ALL)
    assert not none.walk.any()  # K = 1 is the teacher's own Verlet
    with pytest.raises(ValueError, match="fewer than"):
        kick_work(power(1.0), stride, timestep, 1000.0, KT, ALL)


def test_predicted_and_measured_heating(toys: Any, two_models: Callable[..., ForceTable]) -> None:
    """The heating of many independent oscillators whose frequencies fill the window: predicted as measured.

    Frequencies spread evenly over much more than 1/t make <W^2> grow in proportion to time; the measured mean gain of 3000
    oscillators over 30 outer steps has a standard error, and the prediction is of first order (epsilon w t / 2 = 0.1).
    """
    rng = np.random.default_rng(5)
    n, epsilon, outer, inner = 3000, 0.01, 4.5, 0.25
    w = rng.uniform(0.60, 0.80, n) / FS

    student, teacher = toys.trap(n, w[:, None] ** 2), toys.trap(n, w[:, None] ** 2 * (1 + epsilon))
    masses = np.ones(n)
    gains, predicted, kicks = [], [], 24
    for _ in range(4):
        x = rng.standard_normal((1, n, 3)) * np.sqrt(KT / (w**2 * (1 + epsilon)))[:, None]
        start = State(x, rng.standard_normal((1, n, 3)) * np.sqrt(KT))
        table = two_models(teacher, student)
        run = Stepper(respa("residual", verlet("student"), round(outer / inner)), outer * FS, masses, table, start)
        before = kinetic_energy(start.momenta, masses) + run.potential()
        for _ in range(kicks):
            run.step()
        gains.append(float((kinetic_energy(run.state.momenta, masses) + run.potential() - before)[0]))
        table = two_models(teacher, student)
        stepper = Stepper(verlet("student"), inner * FS, masses, table, start)
        power = []
        for _ in range(kicks * round(outer / inner) + 40):
            power.append((table["residual"].forces * stepper.state.momenta)[0].sum(axis=-1))  # each atom a replica
            stepper.step()
        work = kick_work(np.array(power)[:, :, None], round(outer / inner), inner * FS, kicks * outer * FS, KT, {})
        predicted.append(float(work.heating.sum()) * kicks * outer * FS)
    measured, error = np.mean(gains), np.std(gains, ddof=1) / 2
    assert measured > 0
    assert abs(measured - np.mean(predicted)) < 4 * error + 0.15 * measured
