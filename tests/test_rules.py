"""The limits of the guards: derived from what a sound run shows, held by sound runs of all sizes, broken by planted faults."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from scipy.stats import chi2, norm

from mlff_sim.errors import SimulationStopped
from mlff_sim.integrators.force_table import ForceTable
from mlff_sim.integrators.schemes import baoab, substeps, verlet
from mlff_sim.integrators.stepper import Langevin, Stepper
from mlff_sim.models.registry import load_model
from mlff_sim.simulation.config import RunConfig
from mlff_sim.simulation.guards import Guard
from mlff_sim.simulation.rules import Budget, Closest, Residual, Stretch, training_range
from mlff_sim.simulation.temperature import LOOKS, SIX_SIGMA, Temperature, highest_mean
from mlff_sim.simulation.watch import budget, common_rules, residual
from mlff_sim.state import State, kinetic_energy, maxwell_boltzmann
from mlff_sim.structure import covalent_bonds
from mlff_sim.units import FS, KB, MEV

T = 300.0


def at(atoms: Atoms, x: np.ndarray | None = None, p: np.ndarray | None = None) -> Stepper:
    """A stepper that stands at one state, cold unless momenta are given."""
    x = atoms.get_positions() if x is None else x
    p = np.zeros_like(x) if p is None else p
    table = ForceTable({"teacher": load_model("harmonic", atoms)})
    return Stepper(verlet("teacher"), 0.5 * FS, atoms.get_masses(), table, State(x[None], p[None]))


# The law of the temperatures.


@pytest.mark.parametrize("dof", [3, 6, 24, 63, 600])
def test_the_limit_is_the_quantile_of_chi_square_or_little_above(dof: int) -> None:
    """2K/kT of independent momenta is chi-square: the limit at 1e-9 lies 0 to 20 % above its exact quantile."""
    assert pytest.approx(norm.sf(6), rel=1e-12) == SIX_SIGMA
    exact = chi2.isf(SIX_SIGMA, dof) / dof
    assert exact < highest_mean(np.array(dof), np.array(1.0), SIX_SIGMA) < 1.2 * exact
    # A mean over n independent looks is chi-square of n dof over n.
    averaged = chi2.isf(SIX_SIGMA, 8 * dof) / (8 * dof)
    assert averaged < highest_mean(np.array(dof), np.array(8.0), SIX_SIGMA) < 1.1 * averaged
    # Eight Gaussian standard deviations, which took no account of the tail, stopped sound runs of up to 21 atoms more often.
    assert (1 + 8 * np.sqrt(2 / dof) < exact) == (dof < 600)


@pytest.mark.parametrize("friction_per_ps", [40.0, 100.0])
@pytest.mark.parametrize("phase", [0.0, 0.7, np.pi])
def test_running_means_of_correlated_frames_keep_their_promise(friction_per_ps: float, phase: float, toys: Any) -> None:
    """Free atoms, oscillators, and oscillators that are sampled twice a period and always show the same phase.

    A Gaussian of correlation r_j = exp(-g H |j| / 2) or, free, exp(-g H |j|) has squares that correlate as r_j^2, so
    that a mean with the weights w (1 - w)^j has the relative variance (2/3) w / (2 - w) (1 + a) / (1 - a) with
    a = (1 - w) r_1^2. Between the two cases lies every other phase. All are below the 2 / (3 n) of n independent looks.
    """
    elements, replicas, outer = 90, 20, 20 * FS
    masses = np.ones(elements)
    trap = toys.trap(elements, (phase / outer) ** 2)
    bath = Langevin(T, friction_per_ps, seed=3, replicas=replicas)
    rng = np.random.default_rng(5)
    width = np.sqrt(KB * T / trap.kappa) if phase else 0.0
    x, p = rng.standard_normal((2, replicas, elements, 3))
    start = State(width * x, np.sqrt(KB * T) * p)
    scheme = substeps(baoab("teacher"), 20 if phase else 1)  # fine steps: exact at the outer points
    stepper = Stepper(scheme, outer, masses, ForceTable({"teacher": trap}), start, bath)
    rule = Temperature(stepper, list(range(1, elements + 1)), T)
    weight = float(rule.weight[1, 0, 0])
    assert LOOKS[1] == 8 and weight == pytest.approx(np.tanh(friction_per_ps * 0.02 / 4) / 8)
    for _ in range(round(4 / weight)):
        stepper.step()
        assert rule.broken(stepper) is None
    means = rule.state["mean_K"][1].ravel() / T
    r1 = np.exp(-friction_per_ps * 0.02 / (2 if phase else 1))
    a = (1 - weight) * r1**2
    variance = 2 / 3 * weight / (2 - weight) * (1 + a) / (1 - a)
    assert variance < 2 / (3 * LOOKS[1])
    if phase in (0.0, np.pi):
        assert abs(means.var() / variance - 1) < 4 * np.sqrt(2.5 / len(means))  # and 12 / (3 n) of excess kurtosis
    assert abs(means.mean() - 1) < 4 * np.sqrt(variance / len(means)) + np.exp(-4)
    assert means.var() < 2 / (3 * LOOKS[1])


def healthy(name: str) -> tuple[Atoms, str]:
    """Molecules of two to nine atoms with bonds."""
    if name == "ethanol":
        from mlff_sim.structure import read_structure

        return read_structure("ethanol"), "morse"
    apart = {"H2": 0.74, "N2": 1.10, "HCl": 1.27}[name]
    return Atoms(name if name != "HCl" else "ClH", positions=[[0, 0, 0], [0, 0, apart]]), "harmonic"


@pytest.mark.parametrize("friction_per_ps", [0.0, 5.0])
@pytest.mark.parametrize("name", ["H2", "HCl", "N2", "ethanol"])
def test_sound_runs_of_64_replicas_are_not_stopped(name: str, friction_per_ps: float) -> None:
    """At most 1e-9 a step for all temperatures together, 1e-6 in 1000 steps; distances and energy have no such law."""
    atoms, model = healthy(name)
    masses, replicas = atoms.get_masses(), 64
    rng = np.random.default_rng(2)
    p = np.array([maxwell_boltzmann(masses, T, rng, remove_com=not friction_per_ps) for _ in range(replicas)])
    start = State(np.repeat(atoms.get_positions()[None], replicas, axis=0), p)
    bath = Langevin(T, friction_per_ps, seed=1, replicas=replicas) if friction_per_ps else None
    table = ForceTable({"teacher": load_model(model, atoms)})
    scheme = baoab("teacher") if bath else verlet("teacher")
    stepper = Stepper(scheme, 0.5 * FS, masses, table, start, bath)
    config = RunConfig("x", "y", ensemble="nvt" if bath else "nve")
    rules = common_rules(config, stepper, atoms, covalent_bonds(atoms), start) + budget(config, stepper, start)
    guard = Guard(stepper, rules)
    assert [r.name for r in rules][:3] == ["a bond is broken", "atoms too close", "temperature runs away"]
    assert (rules[-1].name == "energy budget spent") == (bath is None)
    guard.begin()
    for step in range(1, 1001):
        guard.advance(step)


def test_hydrogens_that_are_warm_for_long_are_found_in_the_mean(ethanol: Atoms, thermal: Callable[..., State]) -> None:
    """At 550 K in a bath of 300 K: no instant is beyond six standard deviations, the mean over 51 ps is after 24."""
    masses, hydrogen = ethanol.get_masses(), ethanol.numbers == 1
    state = thermal(temperature_K=100)
    table = ForceTable({"teacher": load_model("harmonic", ethanol)})
    stepper = Stepper(baoab("teacher"), 4 * FS, masses, table, state, Langevin(T, 5.0, 0, 1))
    rule = Temperature(stepper, ethanol.numbers.tolist(), T)
    p = state.momenta.copy()
    share = kinetic_energy(p[:, hydrogen], masses[hydrogen]) / (9 * KB * 550)
    p[:, hydrogen] /= np.sqrt(share)
    stepper.state = State(state.positions, p)
    found, step = None, 0
    while found is None and step < 9000:
        step += 1
        found = rule.broken(stepper)
    assert found is not None and found.detail.startswith("H at") and "in the mean" in found.detail
    # 300 + 250 (1 - exp(-t / 51 ps)) K meets 1.31 times 300 K.
    assert 5500 < step < 6500 and hydrogen[found.atom] and found.value > found.limit


def test_the_reference_is_the_higher_of_target_and_start(ethanol: Atoms, thermal: Callable[..., State]) -> None:
    """A start at 2000 K in a bath of 300 K is what the user wants; the other replica keeps its own limit."""
    state = thermal(2)
    hot = State(state.positions, state.momenta * np.array([1.0, np.sqrt(2000 / T)])[:, None, None])
    table = ForceTable({"teacher": load_model("harmonic", ethanol)})
    stepper = Stepper(verlet("teacher"), 0.5 * FS, ethanol.get_masses(), table, hot)
    rule = Temperature(stepper, ethanol.numbers.tolist(), T)
    here = 2 * kinetic_energy(hot.momenta, ethanol.get_masses()) / (27 * KB)
    assert rule.reference_K == pytest.approx(np.maximum(T, here))
    assert rule.broken(stepper) is None


# Distances and bonds.


def test_pairs_and_bonds_have_limits_of_their_own(ethanol: Atoms) -> None:
    """The edge itself: 1 % within is fine, 1 % beyond is not, and the atoms are named."""
    numbers, x = ethanol.numbers.tolist(), ethanol.get_positions()
    bonds = covalent_bonds(ethanol)
    i, j = next((a, b) for a, b in bonds if numbers[b] == 1)
    pairs, stretch = Closest(numbers, x[None]), Stretch(numbers, bonds, x[None])
    assert pairs.broken(at(ethanol)) is None and stretch.broken(at(ethanol)) is None
    length = np.linalg.norm(x[j] - x[i])
    limits = {(int(a), int(b)): v for a, b, v in zip(pairs.i, pairs.j, pairs.limit_A, strict=True)}
    for rule, limit, side in ((pairs, limits[i, j], -1), (stretch, stretch.limit_A[bonds.index((i, j))], 1)):
        for beyond in (False, True):
            moved = x.copy()
            moved[j] = x[i] + (x[j] - x[i]) / length * limit * (1 + side * (0.01 if beyond else -0.01))
            found = rule.broken(at(ethanol, moved))
            assert (found is not None) == beyond
            if found is not None:
                assert found.atom == i and f"{i} and {j}" in found.detail and found.unit == "A"
                assert found.value == pytest.approx(limit, rel=0.011)
    assert 0.6 * 1.0 < limits[i, j] < 0.7 and 1.55 < stretch.limit_A[bonds.index((i, j))] < 1.7


def test_atoms_that_do_not_see_each_other_may_meet(ethanol: Atoms) -> None:
    """Harmonic bonds are the only pairs their model knows; Lennard-Jones atoms all see each other."""
    config = RunConfig("x", "y", unguarded=("temperature", "bonds"))
    for model, pairs in (("harmonic", 8), ("lj", 36)):
        stepper = at(ethanol)
        stepper.forces.providers["teacher"] = load_model(model, ethanol)
        (rule,) = common_rules(config, stepper, ethanol, covalent_bonds(ethanol), stepper.state)
        assert isinstance(rule, Closest) and len(rule.i) == pairs


def test_a_start_with_close_atoms_is_allowed() -> None:
    """Closer than 0.6 of the covalent radii from the beginning: then 0.8 of that is the limit."""
    atoms = Atoms("Ar2", positions=[[0, 0, 0], [0, 0, 1.2]])  # 0.57 of 2.12 A
    rule = Closest(atoms.numbers.tolist(), atoms.get_positions()[None])
    assert rule.limit_A == pytest.approx([0.96]) and rule.broken(at_lj(atoms)) is None


def at_lj(atoms: Atoms) -> Stepper:
    x = atoms.get_positions()[None]
    return Stepper(
        verlet("teacher"), FS, atoms.get_masses(), ForceTable({"teacher": load_model("lj", atoms)}), State(x, 0 * x)
    )


# Energy.


def test_the_budget_counts_from_the_start(ethanol: Atoms, thermal: Callable[..., State]) -> None:
    """K + U - heat against its start; 1 % more or less than the budget decides."""
    n = len(ethanol)
    table = ForceTable({"teacher": load_model("harmonic", ethanol)})
    stepper = Stepper(verlet("teacher"), 0.5 * FS, ethanol.get_masses(), table, thermal(3))
    rule = Budget(2.0)
    rule.begin(stepper)
    for share in (0.99, 1.01, -0.99, -1.01):
        stepper.heat = np.array([0.0, 0.0, -share * 2.0 * n * MEV])
        found = rule.broken(stepper)
        assert (found is not None) == (abs(share) > 1)
        if found is not None:
            assert found.replica == 2 and found.value == pytest.approx(2 * share) and "meV/atom" in found.detail


@pytest.mark.parametrize(
    ("settings", "limit"),
    [
        ({"ensemble": "nve"}, 0.5 * KB * T / MEV),
        ({"ensemble": "nve", "temperature_K": 600.0}, 0.5 * KB * 600 / MEV),
        ({"ensemble": "nve", "energy_budget_meV": 1.5}, 1.5),
        ({"ensemble": "nve", "unguarded": ("energy",)}, None),
        ({"ensemble": "nvt"}, None),
        ({"ensemble": "nvt", "energy_budget_meV": 30.0}, 30.0),
    ],
)
def test_which_runs_have_a_budget(settings: dict[str, Any], limit: float | None, ethanol: Atoms) -> None:
    stepper = at(ethanol)
    found = budget(RunConfig("x", "y", **settings), stepper, stepper.state)
    assert [r.budget_meV for r in found] == ([] if limit is None else pytest.approx([limit]))


def test_guards_go_by_what_a_stepper_declares(ethanol: Atoms) -> None:
    """Momenta that are not Maxwell's have no temperature, and where no energy is conserved none is budgeted."""
    stepper, config = at(ethanol), RunConfig("x", "y", ensemble="nve", energy_budget_meV=1.0)
    for conserving in (True, False):
        stepper.conserving = conserving
        rules = common_rules(config, stepper, ethanol, covalent_bonds(ethanol), stepper.state)
        assert any(isinstance(r, Temperature) for r in rules)
        assert bool(budget(config, stepper, stepper.state)) == conserving
    everything = RunConfig("x", "y", unguarded=("pairs", "bonds", "temperature", "energy"))
    assert common_rules(everything, at(ethanol), ethanol, covalent_bonds(ethanol), stepper.state) == []


# The residual.


def test_the_residual_is_judged_on_its_worst_atom(
    ethanol: Atoms, thermal: Callable[..., State], two_models: Callable[..., ForceTable]
) -> None:
    teacher, student = load_model("morse", ethanol), load_model("harmonic", ethanol)
    state = thermal(2)
    x = state.positions + 0.05 * np.random.default_rng(3).standard_normal(state.positions.shape)
    stepper = Stepper(
        verlet("student"), FS, ethanol.get_masses(), two_models(teacher, student), State(x, state.momenta)
    )
    size = np.linalg.norm(teacher(x).forces - student(x).forces, axis=-1)
    replica, atom = np.unravel_index(int(size.argmax()), size.shape)
    assert Residual(1.01 * size.max()).broken(stepper) is None
    found = Residual(0.99 * size.max()).broken(stepper)
    assert found is not None and (found.replica, found.atom) == (replica, atom)
    assert found.value == pytest.approx(size.max())
    assert Residual(0.99 * size.max()).beyond(stepper).tolist() == [replica == 0, replica == 1]


def test_the_training_range_comes_from_the_students_file(ethanol: Atoms, two_models: Callable[..., ForceTable]) -> None:
    """Twice its largest error on an atom; 300 mean errors where an older file does not say; none without either."""
    assert training_range({"errors": {"largest_on_an_atom_meV_per_A": 80.0, "force_mae_meV_per_A": 1.0}}) == 0.16
    assert training_range({"errors": {"force_mae_meV_per_A": 2.0}}) == pytest.approx(0.6)
    assert training_range({"errors": {}}) is None and training_range({}) is None
    models = load_model("morse", ethanol), load_model("harmonic", ethanol)
    stepper = Stepper(verlet("student"), FS, ethanol.get_masses(), two_models(*models), at(ethanol).state)
    record = {"errors": {"force_mae_meV_per_A": 2.0}}
    assert residual(stepper, record) is not None and residual(stepper, {}) is None
    stepper.forces.differences["residual"] = ("teacher", "middle")  # of three models, the last two
    assert residual(stepper, record) is None


# The guard.


def test_a_guard_names_what_its_rules_find(ethanol: Atoms, thermal: Callable[..., State]) -> None:
    table = ForceTable({"teacher": load_model("harmonic", ethanol)})
    stepper = Stepper(verlet("teacher"), 0.5 * FS, ethanol.get_masses(), table, thermal())
    guard = Guard(stepper, [Budget(1e-4)])
    guard.begin()
    with pytest.raises(SimulationStopped) as stop:
        for step in range(1, 100):
            guard.advance(step)
    assert stop.value.rule == "energy budget spent" and stop.value.measure is not None
    value, limit, unit = stop.value.measure
    assert abs(value) > limit == 1e-4 and unit == "meV/atom"
    assert guard.tail[-1].step == stop.value.step and np.array_equal(
        guard.tail[-1].state.positions, stepper.state.positions
    )


def test_what_rules_remember_is_in_the_checkpoint(ethanol: Atoms, thermal: Callable[..., State]) -> None:
    """Taken up in the middle, the means and the energy at the start are those of the unbroken run, bit for bit."""

    def make() -> Guard:
        table = ForceTable({"teacher": load_model("harmonic", ethanol)})
        stepper = Stepper(verlet("teacher"), 0.5 * FS, ethanol.get_masses(), table, thermal(2), None)
        stepper.bath = Langevin(T, 5.0, 0, 2)  # for the means; the scheme has none
        return Guard(stepper, [Temperature(stepper, ethanol.numbers.tolist(), T), Budget(13.0)])

    whole, other = make(), make()
    whole.begin()
    for step in range(1, 21):
        whole.advance(step)
    state = State(whole.stepper.state.positions.copy(), whole.stepper.state.momenta.copy())
    saved = {k: np.array(v) for k, v in whole.saved().items()}
    for step in range(21, 41):
        whole.advance(step)
    other.stepper.restart(state, other.stepper.bath)
    other.restore(saved, 20)
    for step in range(21, 41):
        other.advance(step)
    assert whole.saved().keys() == other.saved().keys() and len(whole.saved()) == 2
    for name, value in whole.saved().items():
        np.testing.assert_array_equal(value, other.saved()[name])
    assert not np.array_equal(saved["guard:temperature runs away:mean_K"], whole.rules[0].state["mean_K"])
