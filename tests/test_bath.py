"""The heat bath and the momenta it starts from: exact ensembles, independent streams, an honest energy account."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ase import Atoms

from mlff_sim.forces import Array
from mlff_sim.integrators.force_table import ForceTable
from mlff_sim.integrators.schemes import Scheme, baoab, respa, verlet
from mlff_sim.integrators.stepper import Langevin, Stepper
from mlff_sim.models.registry import load_model
from mlff_sim.state import State, kinetic_energy, maxwell_boltzmann, temperature_by_group
from mlff_sim.units import FS, KB, PS

T = 300.0


def mean_and_error(per_oscillator: Array) -> tuple[float, float]:
    """Mean of independent numbers and its standard error."""
    return float(per_oscillator.mean()), float(per_oscillator.std(ddof=1) / np.sqrt(per_oscillator.size))


@pytest.mark.parametrize("wh", [0.5, 1.0, 1.8])
def test_baoab_samples_harmonic_positions_exactly(wh: float, toys: Any) -> None:
    """<x^2> = kT/k at any stable step: no configurational bias (Leimkuhler & Matthews, J. Chem. Phys. 138, 174102 (2013)).

    The price is paid by the momenta, <p^2> = m kT (1 - (wh)^2 / 4), which the same paper gives. At wh = 1.8 other
    splittings (OBABO) would show <x^2> = kT / (k (1 - (wh)^2 / 4)), five times too much.
    """
    atoms, kappa, masses = 2000, 1.3, np.full(2000, 12.0)
    h = wh / np.sqrt(kappa / 12.0)
    state = State(np.zeros((1, atoms, 3)), np.zeros((1, atoms, 3)))
    bath = Langevin(T, 1.0 / h * PS, seed=1, replicas=1)
    stepper = Stepper(baoab("f"), h, masses, ForceTable({"f": toys.trap(atoms, kappa)}), state, bath)
    x2, p2 = np.zeros((atoms, 3)), np.zeros((atoms, 3))
    for step in range(350):
        stepper.step()
        if step >= 50:  # the slowest mode forgets its start by a factor of at least e every four steps
            x2 += stepper.state.positions[0] ** 2 / 300
            p2 += stepper.state.momenta[0] ** 2 / 300
    # The 6000 oscillators are independent: the scatter of their averages gives the error.
    mean, error = mean_and_error(x2)
    assert error < 0.01 * KB * T / kappa
    assert abs(mean - KB * T / kappa) < 4 * error
    mean, error = mean_and_error(p2)
    assert abs(mean - 12.0 * KB * T * (1 - wh**2 / 4)) < 4 * error


def single(bath: Langevin, replica: int) -> Langevin:
    """The same bath with one replica's stream only."""
    bath.streams = [bath.streams[replica]]
    return bath


@pytest.mark.parametrize("scheme", [baoab("teacher"), respa("residual", baoab("student"), 3)], ids=["baoab", "respa"])
def test_a_replica_of_a_batch_is_the_replica_alone(
    scheme: Scheme, ethanol: Atoms, thermal: Callable[..., State], two_models: Callable[..., ForceTable]
) -> None:
    """Bit for bit: streams belong to replicas, and nothing else couples them."""
    start, replicas = thermal(3), 3

    def run(state: State, bath: Langevin) -> Stepper:
        table = two_models(load_model("morse", ethanol), load_model("harmonic", ethanol))
        stepper = Stepper(scheme, 1.0 * FS, ethanol.get_masses(), table, state, bath)
        for _ in range(50):
            stepper.step()
        return stepper

    together = run(start, Langevin(T, 5.0, 11, replicas))
    for r in range(replicas):
        alone = run(
            State(start.positions[r : r + 1], start.momenta[r : r + 1]), single(Langevin(T, 5.0, 11, replicas), r)
        )
        np.testing.assert_array_equal(alone.state.positions[0], together.state.positions[r])
        np.testing.assert_array_equal(alone.state.momenta[0], together.state.momenta[r])
        assert alone.heat[0] == together.heat[r]
    assert not np.array_equal(together.state.positions[0], together.state.positions[1])


def test_streams_do_not_depend_on_how_many_draws_are_taken_at_once() -> None:
    """The compiled inner loop takes the noise of k baths in one call, the reference takes it one by one."""
    many, one = Langevin(T, 1.0, 4, 2).noise(6, 5), Langevin(T, 1.0, 4, 2)
    np.testing.assert_array_equal(many, np.concatenate([one.noise(1, 5) for _ in range(6)]))


def test_seeds_and_replicas_have_streams_of_their_own() -> None:
    draws = [n for seed in (0, 1) for n in Langevin(T, 1.0, seed, 3).noise(1, 4)[0]]
    assert len({d.tobytes() for d in draws}) == 6


def test_without_friction_baoab_is_velocity_verlet(ethanol: Atoms, thermal: Callable[..., State]) -> None:
    """The bath flow is then the identity, and two half drifts are one: the same up to rounding, and no heat."""
    table = ForceTable({"f": load_model("morse", ethanol)})
    arguments = (0.5 * FS, ethanol.get_masses(), table, thermal())
    a, b = Stepper(baoab("f"), *arguments, Langevin(T, 0.0, 0, 1)), Stepper(verlet("f"), *arguments)
    for _ in range(50):
        a.step()
    b.restart(thermal(), None)
    for _ in range(50):
        b.step()
    assert np.abs(a.state.positions - b.state.positions).max() < 1e-12
    assert a.heat == 0


def test_energy_minus_heat_is_conserved_to_second_order(toys: Any) -> None:
    """K + U - heat changes by the splitting only, which is O(h^2): four times less at half the step.

    Its rms over 1000 independent replicas has a relative standard error from the scatter of their squares; to that
    comes the next order, at most (wh)^2 = 0.04 relative (the step of the Verlet test).
    """
    replicas, atoms, kappa, mass = 1000, 4, 1.0, 1.0
    masses, w = np.full(atoms, mass), np.sqrt(kappa / mass)

    def squares(wh: float) -> tuple[Array, Array]:
        rng = np.random.default_rng(3)
        state = State(
            np.sqrt(KB * T / kappa) * rng.standard_normal((replicas, atoms, 3)),
            np.sqrt(mass * KB * T) * rng.standard_normal((replicas, atoms, 3)),
        )
        table = ForceTable({"f": toys.trap(atoms, kappa)})
        stepper = Stepper(baoab("f"), wh / w, masses, table, state, Langevin(T, 0.3 * w * PS, 8, replicas))

        def total() -> Array:
            return kinetic_energy(stepper.state.momenta, masses) + stepper.forces["f"].energy

        begin = total()
        change, heat = np.zeros(replicas), np.zeros(replicas)
        steps = round(4.0 / wh)
        for _ in range(steps):
            stepper.step()
            change += (total() - stepper.heat - begin) ** 2 / steps
            heat += stepper.heat**2 / steps
        return change, heat

    (coarse, heat), (fine, _) = squares(0.2), squares(0.1)
    ratio = np.sqrt(coarse.mean() / fine.mean())
    error = 0.5 * np.hypot(*(s.std() / s.mean() / np.sqrt(replicas) for s in (coarse, fine)))
    assert error < 0.05
    assert abs(ratio / 4 - 1) < 4 * error + 0.04
    assert coarse.mean() < 1e-3 * heat.mean(), "without the account of the heat the energy goes where the bath goes"


# Momenta that are drawn.


@pytest.mark.parametrize("remove_com", [True, False])
def test_drawn_momenta_have_the_canonical_kinetic_energy(remove_com: bool, ethanol: Atoms) -> None:
    """<K> = f kT / 2 and var K = f (kT)^2 / 2 with f = 3n - 3 degrees of freedom where the total momentum is zero."""
    masses, rng, draws = ethanol.get_masses(), np.random.default_rng(1), 4000
    p = np.array([maxwell_boltzmann(masses, T, rng, remove_com=remove_com) for _ in range(draws)])
    kinetic = kinetic_energy(p, masses)
    dof = 3 * len(masses) - 3 * remove_com
    assert abs(kinetic.mean() - dof * KB * T / 2) < 4 * KB * T * np.sqrt(dof / 2 / draws)
    # A gamma distribution of shape f/2 has the excess kurtosis 12/f, hence the error of its variance.
    variance = dof * (KB * T) ** 2 / 2
    assert abs(kinetic.var() - variance) < 4 * variance * np.sqrt((2 + 12 / dof) / draws)
    if remove_com:
        assert np.abs(p.sum(axis=1)).max() < 1e-13
        assert abs(kinetic.mean() - (dof + 3) * KB * T / 2) > 4 * KB * T * np.sqrt(dof / 2 / draws), "the test can tell"


@pytest.mark.parametrize("com_removed", [True, False])
def test_temperatures_of_groups_are_unbiased(com_removed: bool, ethanol: Atoms) -> None:
    """Every group shows the bath's temperature, heavy ones too: fixing the total momentum takes 3 m/M from an atom."""
    masses, rng, draws = ethanol.get_masses(), np.random.default_rng(2), 4000
    p = np.array([maxwell_boltzmann(masses, T, rng, remove_com=com_removed) for _ in range(draws)])
    groups = {s: np.flatnonzero(np.array(ethanol.get_chemical_symbols()) == s) for s in "CHO"}
    groups |= {"all": np.arange(len(masses)), "none": np.arange(0)}
    temperatures = temperature_by_group(p, masses, groups, com_removed=com_removed)
    assert np.isnan(temperatures.pop("none")).all()
    for name, values in temperatures.items():
        mean, error = mean_and_error(values)
        assert abs(mean - T) < 4 * error, name
    # Carbon, 52 % of the mass, would read 26 % low with three degrees of freedom for each atom.
    naive = temperature_by_group(p, masses, groups, com_removed=False)["C"]
    assert (abs(naive.mean() - T) > 20) == com_removed


def test_a_state_has_positions_and_momenta_of_all_replicas() -> None:
    with pytest.raises(ValueError, match="must both be"):
        State(np.zeros((2, 3)), np.zeros((2, 3)))
    with pytest.raises(ValueError, match="must both be"):
        State(np.zeros((1, 2, 3)), np.zeros((1, 3, 3)))
