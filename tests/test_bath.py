"""The heat bath and the momenta it starts from: exact ensembles, independent streams, an honest energy account."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from ase import Atoms

from mlff_sim.forces import Array, Evaluation
from mlff_sim.integrators.force_table import ForceTable
from mlff_sim.integrators.schemes import Scheme, baoab, obabo, respa, verlet
from mlff_sim.integrators.stepper import Langevin, Stepper
from mlff_sim.models.registry import load_model
from mlff_sim.state import State, kinetic_energy, maxwell_boltzmann, temperature_by_group
from mlff_sim.units import FS, KB, PS

T = 300.0


def mean_and_error(per_oscillator: Array) -> tuple[float, float]:
    """Mean of independent numbers and its standard error."""
    return float(per_oscillator.mean()), float(per_oscillator.std(ddof=1) / np.sqrt(per_oscillator.size))


@pytest.mark.parametrize("wh", [0.5, 1.0, 1.8])
@pytest.mark.parametrize("splitting", [baoab, obabo])
def test_harmonic_distributions_are_those_of_theory(splitting: Callable[[str], Scheme], wh: float, toys: Any) -> None:
    """BAOAB: <x^2> = kT/k at any stable step, <p^2> = m kT (1 - (wh)^2 / 4). OBABO: <p^2> = m kT, and x pays.

    BAOAB: Leimkuhler & Matthews, J. Chem. Phys. 138, 174102 (2013), doi:10.1063/1.4802990. OBABO: Verlet conserves
    p^2 / 2m + k x^2 (1 - (wh)^2 / 4) / 2 and the bath the distribution of p, hence <x^2> = kT / (k (1 - (wh)^2 / 4)),
    five times too much at wh = 1.8 (the same authors, Appl. Math. Res. Express 2013, 34, doi:10.1093/amrx/abs010).
    """
    shadow = 1 - wh**2 / 4
    x_bias, p_bias = (1.0, shadow) if splitting is baoab else (1 / shadow, 1.0)
    atoms, kappa, masses = 2000, 1.3, np.full(2000, 12.0)
    h = wh / np.sqrt(kappa / 12.0)
    state = State(np.zeros((1, atoms, 3)), np.zeros((1, atoms, 3)))
    bath = Langevin(T, 1.0 / h * PS, seed=1, replicas=1)
    stepper = Stepper(splitting("f"), h, masses, ForceTable({"f": toys.trap(atoms, kappa)}), state, bath)
    x2, p2 = np.zeros((atoms, 3)), np.zeros((atoms, 3))
    for step in range(350):
        stepper.step()
        if step >= 50:  # the slowest mode forgets its start by a factor of at least e every four steps
            x2 += stepper.state.positions[0] ** 2 / 300
            p2 += stepper.state.momenta[0] ** 2 / 300
    # The 6000 oscillators are independent: the scatter of their averages gives the error.
    mean, error = mean_and_error(x2)
    assert error < 0.01 * x_bias * KB * T / kappa
    assert abs(mean - x_bias * KB * T / kappa) < 4 * error
    mean, error = mean_and_error(p2)
    assert abs(mean - p_bias * 12.0 * KB * T) < 4 * error


class Springs:
    """Atoms coupled by U = sum x_i K_ij x_j / 2, the same along each axis."""

    name, cutoff, dtype, conservative, batched = "springs", None, "float64", True, True
    provenance: Mapping[str, str] = {}

    def __init__(self, matrix: Array) -> None:
        self.numbers, self.matrix = np.ones(len(matrix), dtype=np.int64), matrix

    def reset(self) -> None:
        pass

    def __call__(self, positions: Array, cell: Array | None = None, /) -> Evaluation:
        forces = -self.matrix @ positions
        return Evaluation(-0.5 * (positions * forces).sum((-1, -2)), forces)


# Friction of each atom.


def test_each_atom_forgets_at_its_own_rate() -> None:
    """Without forces <p(t)> = p(0) exp(-gamma t) and var p = m kT (1 - exp(-2 gamma t)), for each atom with its own gamma.

    Ornstein & Uhlenbeck, Phys. Rev. 36, 823 (1930), doi:10.1103/PhysRev.36.823. The step is exact, whatever its length;
    variances of 3 R normal numbers have the relative standard error sqrt(2 / 3R).
    """
    replicas, masses, rates = 4000, np.array([1.008, 12.011, 15.999]), np.array([20.0, 5.0, 0.0])
    p0, t_ps = 0.5 * np.sqrt(masses * KB * T), 0.07
    state = State(np.zeros((replicas, 3, 3)), np.tile(p0[:, None], (replicas, 1, 3)))
    table = ForceTable({"f": Springs(np.zeros((3, 3)))})
    stepper = Stepper(baoab("f"), t_ps * PS / 7, masses, table, state, Langevin(T, rates, 5, replicas))
    for _ in range(7):
        stepper.step()
    p = stepper.state.momenta
    variance = masses * KB * T * (1 - np.exp(-2 * rates * t_ps))
    mean_error = np.sqrt(variance / (3 * replicas))
    assert (np.abs(p.mean(axis=(0, 2)) - p0 * np.exp(-rates * t_ps)) <= 4 * mean_error + 1e-12).all()
    assert (np.abs(p.var(axis=(0, 2)) - variance) <= 4 * variance * np.sqrt(2 / (3 * replicas)) + 1e-24).all()


@pytest.mark.parametrize("splitting", [baoab, obabo])
def test_coupled_atoms_with_frictions_of_their_own_are_in_equilibrium(splitting: Callable[[str], Scheme]) -> None:
    """The canonical distribution does not know the friction: BAOAB has <x x^T> = kT / K, OBABO <p p^T> = kT M, exactly.

    Between two baths lies position Verlet, which keeps a Gaussian with <p p^T> = kT M and <y y^T> = kT (1/K - h^2 / 4M)
    at the middle of a BAOAB step, as does a bath of any friction; x = y + h p / 2M then has <x x^T> = kT / K. For OBABO
    see the test above, mode by mode. Whatever warms one atom against the other shows.
    """
    replicas, masses, rates = 500, np.array([1.008, 12.011]), np.array([400.0, 2.0])
    matrix = np.array([[5.0, -4.0], [-4.0, 6.0]])
    root = np.sqrt(masses)
    h = 1.2 / np.sqrt(np.linalg.eigvalsh(matrix / root[:, None] / root).max())
    rng = np.random.default_rng(6)
    x = np.linalg.cholesky(KB * T * np.linalg.inv(matrix)) @ rng.standard_normal((replicas, 2, 3))
    p = np.sqrt(KB * T) * root[:, None] * rng.standard_normal((replicas, 2, 3))
    state, bath = State(x, p), Langevin(T, rates, 2, replicas)
    stepper = Stepper(splitting("f"), h, masses, ForceTable({"f": Springs(matrix)}), state, bath)
    found = np.zeros((replicas, 3, 2, 2))
    burn_in, steps = 200, 600  # of 5 fs; friction alone exchanges the heat of the heavy atom in half a ps
    for step in range(burn_in + steps):
        stepper.step()
        if step >= burn_in:
            a = stepper.state.positions if splitting is baoab else stepper.state.momenta
            found += np.einsum("rid,rjd->rdij", a, a) / steps
    expected = KB * T * (np.linalg.inv(matrix) if splitting is baoab else np.diag(masses))
    size = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    for i, j in ((0, 0), (0, 1), (1, 1)):
        mean, error = mean_and_error(found[:, :, i, j])
        assert error < 0.03 * size[i, j]
        assert abs(mean - expected[i, j]) < 4 * error, (i, j)


# The centre of mass at rest.


def test_with_the_centre_of_mass_at_rest_the_kinetic_energy_has_3n_minus_3_degrees_of_freedom() -> None:
    """2K/kT of independent replicas is distributed as chi^2 with 3n - 3 degrees of freedom, and P = 0 to rounding.

    OBABO, because its momenta are exact for springs. Pearson's test over 25 equally likely bins at 1 in 10^4; with 3n
    degrees of freedom expected in its place it fails. An atom of mass m has <p^2> = 3 m kT (1 - m/M).
    """
    from scipy.stats import chi2

    replicas, steps = 2000, 60
    masses = np.array([1.008, 12.011, 15.999, 1.008])
    links = np.array([[0.0, 3.0, 0.0, 0.0], [3.0, 0.0, 5.0, 0.0], [0.0, 5.0, 0.0, 2.0], [0.0, 0.0, 2.0, 0.0]])
    matrix = np.diag(links.sum(axis=1)) - links  # of springs between atoms only: the total force is zero
    rng = np.random.default_rng(4)
    p = np.array([maxwell_boltzmann(masses, 600.0, rng, remove_com=True) for _ in range(replicas)])
    start = State(rng.standard_normal((replicas, 4, 3)), p)
    h = 1.0 / np.sqrt(matrix[0, 0] / masses[0])
    bath = Langevin(T, 0.5 / h * PS, 3, replicas, remove_com=True)
    stepper = Stepper(obabo("f"), h, masses, ForceTable({"f": Springs(matrix)}), start, bath)
    centre = masses @ start.positions
    for _ in range(steps):
        stepper.step()
        total = np.abs(stepper.state.momenta.sum(axis=1)).max()
        assert total < 100 * np.finfo(np.float64).eps * np.abs(stepper.state.momenta).max()
    # Positions, of size 5 A, are rounded once a drift, and momenta as above.
    assert np.abs(masses @ stepper.state.positions - centre).max() < 1e-11

    kinetic = 2 * kinetic_energy(stepper.state.momenta, masses) / (KB * T)

    def pearson(dof: int) -> float:
        counts = np.histogram(chi2.cdf(kinetic, dof), bins=25, range=(0, 1))[0]
        return float(((counts - replicas / 25) ** 2 / (replicas / 25)).sum())

    assert pearson(9) < chi2.ppf(1 - 1e-4, 24) < pearson(12)
    groups = {"H": np.array([0, 3]), "C": np.array([1]), "O": np.array([2]), "all": np.arange(4)}
    for name, values in temperature_by_group(stepper.state.momenta, masses, groups, com_removed=True).items():
        mean, error = mean_and_error(values)
        assert abs(mean - T) < 4 * error, name


def test_the_bath_takes_up_what_forces_that_do_not_sum_to_zero_leave(
    ethanol: Atoms, thermal: Callable[..., State], make_student: Callable[..., Any]
) -> None:
    """A float32 student pushes the molecule as a whole by its rounding; every bath flow puts the total back to zero.

    What is left at the end of a step is the last half kick's.
    """
    student, masses = make_student(ethanol), ethanol.get_masses()
    bath = Langevin(T, 5.0, 0, 1, remove_com=True)
    stepper = Stepper(baoab("f"), 1.0 * FS, masses, ForceTable({"f": student}), thermal(), bath)
    for _ in range(100):
        stepper.step()
    half_kick = 0.5 * FS * np.abs(stepper.forces["f"].forces.sum(axis=1)).max()
    assert np.abs(stepper.state.momenta.sum(axis=1)).max() < half_kick + 1e-14


def test_frictions_of_atoms_and_a_centre_at_rest_do_not_go_together() -> None:
    with pytest.raises(ValueError, match="one friction for all atoms"):
        Langevin(T, np.ones(3), 0, 1, remove_com=True)


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
