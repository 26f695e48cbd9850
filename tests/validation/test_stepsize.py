"""Step-size law: velocity Verlet passes; what is no gradient, what jumps and what is too fast does not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from mlff_sim.validation import Verdict, step_size_law

Force = Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]
"""From positions (replicas, n, d) and the number of the step to energies (replicas,) and forces."""


def verlet(force: Force, x: np.ndarray, p: np.ndarray, step: float, duration: float, every: float) -> np.ndarray:
    """Total energy of velocity Verlet with unit masses, shape (replicas, frames)."""
    skip = round(every / step)
    energies = []
    u, f = force(x, 0)
    for k in range(round(duration / step) + 1):
        if k % skip == 0:
            energies.append(u + 0.5 * (p**2).sum(axis=(1, 2)))
        p = p + 0.5 * step * f
        x = x + step * p
        u, f = force(x, k + 1)
        p = p + 0.5 * step * f
    return np.array(energies).T


def chain(x: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Fermi-Pasta-Ulam chain with fixed ends, V = r^2 / 2 + r^4 / 4; its fastest mode has w = 2 at low energy."""
    r = np.diff(np.pad(x, ((0, 0), (1, 1), (0, 0))), axis=1)
    pull = r + r**3
    return (0.5 * r**2 + 0.25 * r**4).sum(axis=(1, 2)), np.diff(pull, axis=1)


def start(seed: int, replicas: int = 5, n: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Chains at rest length with thermal momenta, kT = 0.2."""
    rng = np.random.default_rng(seed)
    return np.zeros((replicas, n, 1)), np.sqrt(0.2) * rng.standard_normal((replicas, n, 1))


def runs(force: Force, steps: list[float], seed: int, replicas: int = 5) -> list[np.ndarray]:
    """The same starts at each time step."""
    x, p = start(seed, replicas)
    return [verlet(force, x, p, step, 200.0, 0.6) for step in steps]


STEPS = [0.05, 0.1, 0.2]


@pytest.mark.parametrize("seed", range(3))
def test_velocity_verlet_passes(seed: int) -> None:
    """16 steps a period of the fastest mode and more: (1 - (wh)^2 / 16) / (1 - (wh)^2 / 4) is 1.03 at wh = 0.4."""
    law = step_size_law(STEPS, runs(chain, STEPS, seed))
    assert law.verdict is Verdict.PASS
    assert law.max_deviation < 0.1


def test_one_replica_can_pass() -> None:
    """With the effective samples of one, a third of those of five: wider, and it covers the law."""
    law = step_size_law(STEPS, runs(chain, STEPS, 0, 1))
    assert law.verdict is not Verdict.FAIL
    assert all(a < 1.03 < b for a, b in law.ci95)


@pytest.mark.parametrize("seed", range(3))
def test_a_force_that_is_no_gradient_fails(seed: int) -> None:
    """A twist of 0.3 % that no energy knows: what it puts in does not depend on the step."""

    def twisted(x: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
        u, f = chain(x, step)
        return u, f + 0.003 * np.roll(x, 1, axis=1)

    law = step_size_law(STEPS, runs(twisted, STEPS, seed))
    assert law.verdict is Verdict.FAIL
    assert law.ratios[0] < 0.8


@pytest.mark.parametrize("seed", range(3))
def test_a_stale_neighbour_list_fails(seed: int) -> None:
    """Springs that act within a cutoff, looked up ten times less often than atoms cross it."""
    cutoff = 0.9

    class Stale:
        near: np.ndarray

        def __init__(self, step: float) -> None:
            self.every = round(2.0 / step)

        def __call__(self, x: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
            u, f = chain(x, step)
            r = x[:, 2:] - x[:, :-2]
            if step % self.every == 0:
                self.near = np.abs(r) < cutoff
            f[:, 2:] -= self.near * 0.05 * r
            f[:, :-2] += self.near * 0.05 * r
            return u + (self.near * 0.025 * (r**2 - cutoff**2)).sum(axis=(1, 2)), f

    x, p = start(seed, 10)
    law = step_size_law(STEPS, [verlet(Stale(s), x, p, s, 200.0, 0.6) for s in STEPS])
    assert law.verdict is Verdict.FAIL
    assert law.ratios[0] < 0.8


@pytest.mark.parametrize("seed", range(3))
def test_a_step_twice_too_long_fails(seed: int) -> None:
    """w = 2 and somewhat more: 0.3 is ten steps a period, 0.6 five, and (1 - 0.09) / (1 - 0.36) = 1.4 times the law."""
    steps = [0.15, 0.3, 0.6]
    x, p = start(seed, 10)
    law = step_size_law(steps, [verlet(chain, x, 0.5 * p, s, 200.0, 0.6) for s in steps])
    assert law.verdict is Verdict.FAIL
    assert law.ratios[1] > 1.2


def test_the_figure_is_that_of_physical_validation() -> None:
    """One replica, three steps: the same largest deviation."""
    import physical_validation as pv

    energies = runs(chain, STEPS, 0, 1)
    data = [
        pv.data.SimulationData(dt=s, observables=pv.data.ObservableData(constant_of_motion=e[0]))
        for s, e in zip(STEPS, energies, strict=True)
    ]
    theirs = pv.integrator.convergence(data, verbose=False)
    # Theirs is of shorter over longer, in descending order: the same ratios.
    assert step_size_law(STEPS, energies).max_deviation == pytest.approx(theirs, rel=1e-9)


@pytest.mark.parametrize(("power", "verdict"), [(2.0, Verdict.PASS), (1.0, Verdict.FAIL), (3.0, Verdict.FAIL)])
def test_orders_are_told_apart(power: float, verdict: Verdict) -> None:
    """White noise of the exact size, beneath an energy of -1e5 eV; order of the runs and their lengths do not matter."""
    rng = np.random.default_rng(0)
    steps = [2.0, 0.5, 1.0]
    law = step_size_law(
        steps,
        [-1e5 + 1e-3 * s**power * rng.standard_normal((5, n)) for s, n in zip(steps, (800, 3000, 1500), strict=True)],
    )
    assert law.timesteps_fs == (0.5, 1.0, 2.0)
    assert law.verdict is verdict


def test_the_interval_covers_the_law() -> None:
    """White noise in five replicas: both ratios inside together in 95 % of 300 studies (99.9 % of the binomial)."""
    rng = np.random.default_rng(1)
    missed = 0
    for _ in range(300):
        law = step_size_law([1.0, 2.0, 4.0], [s**2 * rng.standard_normal((5, 100)) for s in (1.0, 2.0, 4.0)])
        missed += not all(a <= 1.0 <= b for a, b in law.ci95)
    assert missed <= 29


def test_a_short_run_is_inconclusive() -> None:
    """Twenty frames of one replica."""
    rng = np.random.default_rng(2)
    assert (
        step_size_law([1.0, 2.0], [s**2 * rng.standard_normal(20) for s in (1.0, 2.0)]).verdict is Verdict.INCONCLUSIVE
    )


@pytest.mark.parametrize(
    ("steps", "energies", "message"),
    [
        ([1.0], [np.arange(9.0)], "two or more"),
        ([1.0, 1.0], [np.arange(9.0)] * 2, "two or more"),
        ([1.0, 2.0], [np.arange(9.0)], "two or more"),
        ([1.0, -2.0], [np.arange(9.0)] * 2, "two or more"),
        ([1.0, 2.0], [np.arange(9.0), np.ones((2, 9))], "same replicas"),
        ([1.0, 2.0], [np.arange(2.0)] * 2, "3 frames"),
        ([1.0, 2.0], [np.ones(9)] * 2, "never changes"),
        ([1.0, 2.0], [np.full(9, np.nan)] * 2, "finite"),
        ([1.0, 2.0], [np.ones(0)] * 2, "one frame"),
    ],
)
def test_what_cannot_be_compared_is_refused(steps: list[float], energies: list[np.ndarray], message: str) -> None:
    """One step, equal ones, other replicas, too few frames, a constant, NaN, nothing."""
    with pytest.raises(ValueError, match=message):
        step_size_law(steps, energies)
