"""Quick criteria: each fails for its own reason alone; and a start that is given the energy for 300 K runs at 300 K."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import lfilter

from mlff_sim import limits
from mlff_sim.models.analytic import Harmonic
from mlff_sim.motion import aimed_momenta
from mlff_sim.state import State, kinetic_energy, maxwell_boltzmann
from mlff_sim.units import FS, KB
from mlff_sim.validation import Verdict, preset, quick_nve

DOF = 33
"""Benzene at rest: 3 n - 3."""
TIMES = np.linspace(0.0, 100.0, 5001)
MEAN = 0.5 * DOF * KB * 300.0
BONDS = [(0, 1), (1, 2)]


def energies(
    drift: float = 0.0, deviation: float = 0.2, temperature_K: float = 300.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Total and kinetic energy; drift over the run and deviation in percent of the mean kinetic energy."""
    rng = np.random.default_rng(seed)
    slow = lfilter([np.sqrt(1 - 0.9**2)], [1.0, -0.9], rng.standard_normal((2, len(TIMES))), axis=-1)
    kinetic = MEAN * temperature_K / 300.0 * (1.0 + 0.15 * slow[0])
    total = -4000.0 + 0.01 * kinetic.mean() * (drift * TIMES / 100.0 + deviation * rng.standard_normal(len(TIMES)))
    return total, kinetic


def atoms(stretch: float = 1.0) -> np.ndarray:
    """Three atoms in a row, the last of which leaves in the end."""
    x = np.zeros((len(TIMES), 3, 3))
    x[:, 1, 0], x[:, 2, 0] = 1.0, 2.1
    x[-1, 2, 0] = 1.0 + 1.1 * stretch
    return x


@pytest.mark.parametrize("seed", range(3))
def test_a_sound_run_passes(seed: int) -> None:
    """Each figure below its limit, in the unit it is said to have."""
    total, kinetic = energies(drift=0.5, seed=seed)
    found = quick_nve(TIMES, total, kinetic, DOF, positions=atoms(), bonds=BONDS)
    assert found.verdict is Verdict.PASS
    # Slope of white noise: sqrt(12 / N) of the deviation over the run, 0.01 %. A line adds drift^2 / 12 to the variance.
    assert found["drift"].value == pytest.approx(0.5, abs=4 * 0.2 * np.sqrt(12 / len(TIMES)))
    assert found["standard deviation"].value == pytest.approx(np.sqrt(0.2**2 + 0.5**2 / 12), rel=0.05)
    assert found["bonds"].value == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        ({"drift": 1.2}, "drift"),
        ({"drift": -1.2}, "drift"),
        ({"deviation": 0.6}, "standard deviation"),
        ({"temperature_K": 325.0}, "temperature"),
        ({"temperature_K": 275.0}, "temperature"),
        ({"stretch": 1.6}, "bonds"),
    ],
)
def test_each_fault_fails_its_own_criterion(fault: dict[str, float], name: str) -> None:
    """And no other."""
    x = atoms(fault.pop("stretch", 1.0))
    found = quick_nve(TIMES, *energies(**fault), DOF, positions=x, bonds=BONDS)
    assert [c.name for c in found.criteria if c.verdict is Verdict.FAIL] == [name]
    assert found.verdict is Verdict.FAIL


def test_the_worst_replica_counts() -> None:
    """One of three drifts."""
    runs = [energies(d, seed=s) for s, d in enumerate((0.0, 1.5, 0.0))]
    found = quick_nve(TIMES, np.array([r[0] for r in runs]), np.array([r[1] for r in runs]), DOF)
    assert found["drift"].verdict is Verdict.FAIL
    assert found["bonds"].verdict is None, "no positions were given"


def test_replicas_of_different_energies_are_judged_each() -> None:
    """270 and 330 K, 300 K on average: neither is within 20 K, and each has samples enough to know."""
    runs = [energies(temperature_K=t, seed=s) for s, t in enumerate((270.0, 330.0))]
    found = quick_nve(TIMES, np.array([r[0] for r in runs]), np.array([r[1] for r in runs]), DOF)
    assert found["temperature"].verdict is Verdict.FAIL
    assert found["temperature"].value == pytest.approx(30.0, abs=5.0)


def test_a_short_run_has_no_mean_temperature() -> None:
    """Thirty frames are fewer than fifty samples."""
    total, kinetic = energies()
    assert quick_nve(TIMES[:30], total[:30], kinetic[:30], DOF)["temperature"].verdict is Verdict.INCONCLUSIVE


def test_the_limit_of_a_bond_is_that_of_the_guard() -> None:
    """One number in two places."""
    assert preset.LONGEST == limits.LONGEST


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"total_eV": np.zeros(7)}, "do not fit"),
        ({"total_eV": np.full(len(TIMES), np.nan)}, "finite"),
        ({"kinetic_eV": np.zeros(len(TIMES))}, "no kinetic energy"),
        ({"times_ps": np.zeros(len(TIMES))}, "increasing"),
        ({"positions": np.zeros((4, 3, 3)), "bonds": BONDS}, "positions"),
        ({"positions": np.full((len(TIMES), 3, 3), np.nan), "bonds": BONDS}, "finite"),
        ({"times_ps": np.zeros(0), "total_eV": np.zeros(0), "kinetic_eV": np.zeros(0)}, "one frame"),
        ({"times_ps": np.zeros(1), "total_eV": np.zeros(1), "kinetic_eV": np.ones(1)}, "three or more"),
    ],
)
def test_what_cannot_be_judged_is_refused(change: dict[str, np.ndarray], message: str) -> None:
    """Shapes, NaN, no motion, time that stands still, other frames, no frame, one frame."""
    total, kinetic = energies()
    with pytest.raises(ValueError, match=message):
        quick_nve(**{"times_ps": TIMES, "total_eV": total, "kinetic_eV": kinetic, "dof": DOF} | change)


def network() -> tuple[Harmonic, np.ndarray, np.ndarray]:
    """Six carbons and six hydrogens, each bound to all others by soft springs: 30 vibrations and no torsion."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((12, 3)) * 1.5
    pairs = np.stack(np.triu_indices(12, 1), axis=1)
    model = Harmonic(np.array([6] * 6 + [1] * 6), pairs, np.linalg.norm(x[pairs[:, 0]] - x[pairs[:, 1]], axis=1), k=5.0)
    return model, x, np.array([12.011] * 6 + [1.008] * 6)


def mean_temperature(model: Harmonic, state: State, masses: np.ndarray, steps: int = 6000) -> np.ndarray:
    """Of velocity Verlet at 0.5 fs, after the first tenth, for each replica."""
    x, p, m = state.positions, state.momenta, masses[:, None]
    h, kinetic = 0.5 * FS, []
    f = model(x).forces
    for _ in range(steps):
        p = p + 0.5 * h * f
        x = x + h * p / m
        f = model(x).forces
        p = p + 0.5 * h * f
        kinetic.append(kinetic_energy(p, masses))
    return 2.0 * np.array(kinetic)[steps // 10 :].mean(axis=0) / (DOF * KB)


@pytest.mark.parametrize("warm", [False, True])
def test_an_aimed_start_runs_at_its_temperature(warm: bool) -> None:
    """From the minimum with momenta of 100 K, and from a displaced start: 300 K within 1 %, for each of ten replicas.

    That is what the harmonic limit leaves out, and (wh)^2 / 4, by which Verlet's momenta are cold: 1 % of the hydrogens'
    w^2 = 20 eV/A^2/u at 0.5 fs.
    """
    model, minimum, masses = network()
    rng = np.random.default_rng(1)
    p = np.array([maxwell_boltzmann(masses, 100.0, rng, remove_com=True) for _ in range(10)])
    x = np.repeat(minimum[None], 10, axis=0) + warm * 0.02 * rng.standard_normal((10, 12, 3))
    above = model(x).energy
    aimed = aimed_momenta(State(x, p), masses, 300.0, above, com_removed=True)
    reached = mean_temperature(model, State(x, aimed), masses)
    assert np.abs(reached - 300.0).max() < 3.0
    assert np.allclose(np.cross(aimed, p), 0.0), "scaled, not turned"


def test_what_cannot_be_aimed_is_refused() -> None:
    """Atoms at rest; more potential energy than 300 K have."""
    _, minimum, masses = network()
    still = State(minimum[None], np.zeros((1, 12, 3)))
    with pytest.raises(ValueError, match="draw them first"):
        aimed_momenta(still, masses, 300.0, 0.0, com_removed=True)
    moving = State(minimum[None], maxwell_boltzmann(masses, 300.0, np.random.default_rng(0), remove_com=True)[None])
    with pytest.raises(ValueError, match="above the minimum"):
        aimed_momenta(moving, masses, 300.0, 5.0, com_removed=True)
