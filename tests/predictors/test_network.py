"""Laws of the predictors, whatever their weights are: symmetry, conservation, compiled = eager."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mlff_sim.forces import Array
from mlff_sim.predictors.network import ARCHITECTURES, Architecture, Molecule, PredictorNet, separations
from mlff_sim.predictors.predictor import Predictor
from mlff_sim.predictors.rigid import angular_velocity, free_rotation, rigid_motion, turned, turning
from mlff_sim.state import State, kinetic_energy, maxwell_boltzmann
from mlff_sim.structure import covalent_bonds, read_structure

KINDS = tuple(ARCHITECTURES)
RECORD = {"macro_steps": [20, 200], "timestep_fs": 0.5}
SMALL = {"width": 16, "channels": 4, "layers": 2, "noise": 2}
ATOMS = read_structure("ethanol")
BONDS = covalent_bonds(ATOMS)
MASSES = ATOMS.get_masses()


def predictor(kind: str = "egnn", numbers: Array = ATOMS.numbers, bonds=BONDS, masses=MASSES, **how) -> Predictor:
    torch.manual_seed(3)
    net = PredictorNet(Architecture(kind, **SMALL), 2)
    with torch.no_grad():  # so that its answers are as large as those of a trained one
        net.read.weight.mul_(5.0)
    return Predictor(net, RECORD, numbers, masses, bonds, 200, **how)


def given(replicas: int = 3, seed: int = 0) -> tuple[State, Array]:
    rng = np.random.default_rng(seed)
    x = ATOMS.positions + 0.05 * rng.standard_normal((replicas, len(ATOMS), 3))
    p = np.array([maxwell_boltzmann(MASSES, 300.0, rng, remove_com=False) for _ in range(replicas)])
    return State(x, p), rng.standard_normal((replicas, len(ATOMS), SMALL["noise"], 3))


def angular_momentum(state: State) -> Array:
    return np.cross(state.positions, state.momenta).sum(axis=1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_turned_molecule_goes_where_the_turned_prediction_is(kind: str) -> None:
    jump, (state, noise) = predictor(kind), given()
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((3, 3)))[0]  # reflections too: E(n)
    shift = np.array([3.0, -2.0, 7.0])
    out = jump(state, noise)
    moved = jump(State(state.positions @ turn.T + shift, state.momenta @ turn.T), noise @ turn.T)
    assert np.abs(out.positions - state.positions).max() > 0.1  # it does something
    np.testing.assert_allclose(moved.positions, out.positions @ turn.T + shift, atol=1e-5)
    np.testing.assert_allclose(moved.momenta, out.momenta @ turn.T, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_like_atoms_can_be_exchanged(kind: str) -> None:
    state, noise = given()
    order = np.array([1, 0, 2, 6, 5, 3, 4, 8, 7])  # any order: the molecule is relabelled with its bonds
    place = np.argsort(order)
    bonds = [(int(place[a]), int(place[b])) for a, b in BONDS]
    out = predictor(kind)(state, noise)
    other = predictor(kind, ATOMS.numbers[order], bonds, MASSES[order])(
        State(state.positions[:, order], state.momenta[:, order]), noise[:, order]
    )
    np.testing.assert_allclose(other.positions, out.positions[:, order], atol=1e-5)
    np.testing.assert_allclose(other.momenta, out.momenta[:, order], atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_momentum_and_angular_momentum_stay_to_rounding(kind: str) -> None:
    state, noise = given()
    out = predictor(kind)(state, noise)
    # Rounding of float64 in sums of a few dozen terms of order 10.
    np.testing.assert_allclose(out.momenta.sum(axis=1), state.momenta.sum(axis=1), atol=1e-12)
    np.testing.assert_allclose(angular_momentum(out), angular_momentum(state), atol=1e-11)
    assert np.abs(out.momenta - state.momenta).max() > 0.1
    # The centre of mass goes on as it must: x + P t / M.
    time = 200 * 0.5 * 0.09822694788464063  # fs in units of A (u/eV)^1/2
    centre = (MASSES[:, None] * state.positions).sum(axis=1) / MASSES.sum()
    after = (MASSES[:, None] * out.positions).sum(axis=1) / MASSES.sum()
    np.testing.assert_allclose(after, centre + time * state.momenta.sum(axis=1) / MASSES.sum(), atol=1e-9)


def test_a_rigid_rotor_turns_by_omega_t() -> None:
    x, m = torch.from_numpy(ATOMS.positions[None].copy()), torch.from_numpy(MASSES)
    rate = torch.tensor([[0.1, -0.2, 0.05]], dtype=torch.float64)
    centre = (m[:, None] * x).sum(1, keepdim=True) / m.sum()
    p = turning(x - centre, m, rate) + m[:, None] * torch.tensor([0.3, 0.0, 0.1], dtype=torch.float64)
    found = rigid_motion(x, p, m)
    torch.testing.assert_close(found.rate, rate, atol=1e-8, rtol=1e-8)
    # Rotation by a vector is a rotation: lengths and the axis stay.
    v = turned(x - centre, 2.0 * rate)
    torch.testing.assert_close(v.norm(dim=-1), (x - centre).norm(dim=-1))
    torch.testing.assert_close((v * rate[:, None]).sum(-1), ((x - centre) * rate[:, None]).sum(-1))


def test_an_asymmetric_top_keeps_its_energy_as_it_precesses() -> None:
    """A free rigid body has T = L I^-1 L / 2 for good; rotation at the first angular velocity would not."""
    m = torch.from_numpy(MASSES)
    x = torch.from_numpy(ATOMS.positions[None].copy())
    x = x - (m[:, None] * x).sum(1, keepdim=True) / m.sum()
    spin = torch.tensor([[0.8, 0.9, 1.2]], dtype=torch.float64)

    def energy(y: torch.Tensor) -> float:
        return float((spin * angular_velocity(y, m, spin)).sum() / 2)

    errors = []
    for time in (10.0, 5.0):  # 98 and 49 fs
        y, _ = free_rotation(x, x, m, spin, time)
        errors.append(abs(energy(y) / energy(x) - 1))
    once = abs(energy(turned(x, 10.0 * angular_velocity(x, m, spin))) / energy(x) - 1)
    assert errors[0] < 0.02 and errors[0] < 0.2 * once
    assert errors[1] < 0.35 * errors[0]  # the midpoint rule is of second order: a quarter or less
    torch.testing.assert_close(torch.cdist(y, y), torch.cdist(x, x), atol=1e-10, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_compiled_is_eager(kind: str) -> None:
    state, noise = given()
    eager, fast = predictor(kind), predictor(kind, compile=True)
    right, found = eager(state, noise), fast(state, noise)
    assert fast.report == "engaged"
    some = fast(
        State(state.positions[1:], state.momenta[1:]), noise[1:]
    )  # in the graph of all: nothing is compiled anew
    np.testing.assert_allclose(some.positions, right.positions[1:], atol=1e-5)
    assert list(fast._ready) == [3]
    np.testing.assert_allclose(found.positions, right.positions, atol=1e-5)
    np.testing.assert_allclose(found.momenta, right.momenta, atol=1e-5)
    assert fast.calls == 5


def test_replicas_do_not_know_of_each_other() -> None:
    jump, (state, noise) = predictor("transformer"), given()
    out = jump(state, noise)
    alone = jump(State(state.positions[1:2], state.momenta[1:2]), noise[1:2])
    np.testing.assert_allclose(alone.positions, out.positions[1:2], atol=1e-6)


def test_bfloat16_is_near() -> None:
    state, noise = given()
    right, found = predictor()(state, noise), predictor(amp=True)(state, noise)
    off = np.abs(right.positions - found.positions).max()
    assert 1e-6 < off < 0.05  # engaged, and within its gate
    # Conservation is not the network's.
    np.testing.assert_allclose(angular_momentum(found), angular_momentum(state), atol=1e-11)


def test_pairs_are_counted_in_bonds() -> None:
    apart = separations(4, [(0, 1), (1, 2)])
    assert apart[0].tolist() == [0, 1, 2, 4]  # atom 3 is bonded to nothing: as far as can be
    molecule = Molecule(ATOMS.numbers, MASSES, BONDS)
    assert molecule.kinds.sum() == len(ATOMS) * (len(ATOMS) - 1)


def test_a_compiler_that_fails_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no compiler here")

    monkeypatch.setattr("mlff_sim.predictors.predictor.compiled", broken)
    jump, (state, noise) = predictor(compile=True), given()
    with pytest.warns(UserWarning, match="no compiler here"):
        out = jump(state, noise)
    np.testing.assert_array_equal(out.positions, predictor()(state, noise).positions)
    assert kinetic_energy(out.momenta, MASSES).min() > 0
