"""Mollified RESPA: the map A, its derivative, and the potential whose dynamics it makes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms

from mlff_sim.forces import Array
from mlff_sim.integrators.force_table import ForceTable
from mlff_sim.integrators.fused import FusedStepper
from mlff_sim.integrators.mollifier import Mollifier, at_fixed_length
from mlff_sim.integrators.schemes import baoab, respa, verlet
from mlff_sim.integrators.stepper import Langevin, Stepper
from mlff_sim.models.analytic import Harmonic
from mlff_sim.models.registry import load_model
from mlff_sim.state import State, kinetic_energy
from mlff_sim.structure import covalent_bonds
from mlff_sim.units import FS

EPS = np.finfo(np.float64).eps
RESIDUAL = {"residual": ("teacher@A", "student@A")}


@pytest.fixture
def mollifier(ethanol: Atoms) -> Mollifier:
    return Mollifier(ethanol.numbers.tolist(), covalent_bonds(ethanol), ethanol.get_positions())


@pytest.fixture
def frames(ethanol: Atoms) -> Array:
    """Two distorted ethanols."""
    noise = np.random.default_rng(3).standard_normal((2, len(ethanol), 3))
    return np.asarray(ethanol.get_positions() + 0.08 * noise)


# The map.


def test_hydrogens_move_along_their_bond_to_the_fixed_length(mollifier: Mollifier, frames: Array) -> None:
    y, h = mollifier(frames), mollifier.hydrogens
    heavy = mollifier.parent[h]
    assert len(h) == 6
    rest = np.setdiff1d(np.arange(frames.shape[1]), h)
    np.testing.assert_array_equal(y[:, rest], frames[:, rest])
    before, after = frames[:, h] - frames[:, heavy], y[:, h] - y[:, heavy]
    length = np.linalg.norm(after, axis=-1)
    np.testing.assert_allclose(length, np.broadcast_to(mollifier.length[h], length.shape), atol=1e-14)
    assert np.abs(length - np.linalg.norm(before, axis=-1)).max() > 0.05
    assert np.abs(np.cross(before, after)).max() < 1e-14
    assert (before * after).sum(-1).min() > 0
    np.testing.assert_allclose(mollifier(y), y, atol=1e-14)  # what is there already stays


def test_lengths_are_those_at_rest(mollifier: Mollifier, ethanol: Atoms) -> None:
    """The structure at rest is its own image, to the digits that lengths are kept with."""
    x = ethanol.get_positions()[None]
    assert np.abs(mollifier(x) - x).max() <= 0.5e-3


@pytest.mark.parametrize(
    ("numbers", "bonds", "moved"),
    [
        ([8, 1, 1], [(0, 1), (0, 2)], [1, 2]),
        ([1, 1], [(0, 1)], []),  # both ends are light: neither is the heavy one
        ([5, 1, 5, 1], [(0, 1), (1, 2), (2, 3)], [3]),  # atom 1 is a bridge
        ([18, 1], [], []),
        ([6, 8], [(0, 1)], []),
    ],
)
def test_only_hydrogens_on_one_heavy_atom_are_moved(
    numbers: list[int], bonds: list[tuple[int, int]], moved: list[int]
) -> None:
    assert Mollifier(numbers, bonds, np.eye(len(numbers), 3)).hydrogens.tolist() == moved


def test_torch_and_numpy_agree(mollifier: Mollifier, frames: Array) -> None:
    constants = (torch.from_numpy(mollifier.parent), torch.from_numpy(mollifier.length))
    y = at_fixed_length(torch.from_numpy(frames), *constants)
    np.testing.assert_allclose(y.numpy(), mollifier(frames), atol=1e-15)


# Its derivative.


def test_pulling_back_is_the_transpose_of_the_derivative(mollifier: Mollifier, frames: Array) -> None:
    """f . A'(x) d = (A'(x)^T f) . d for any f and d; central differences of A are exact to h^2 |A'''| |d|^3 / 6."""
    rng, h = np.random.default_rng(5), 1e-4
    f, d = rng.standard_normal(frames.shape), rng.standard_normal(frames.shape)
    slope = (mollifier(frames + h * d) - mollifier(frames - h * d)) / (2 * h)
    left, right = (f * slope).sum((1, 2)), (mollifier.pull_back(frames, f) * d).sum((1, 2))
    # Third derivatives of r0 u are below 6 r0 / r^3, about 6 per A^2, for each of the six bonds.
    assert np.abs(left - right).max() < h**2 * 6 * (np.abs(d).max() ** 3) * np.abs(f).sum() / 6
    assert np.abs(left).min() > 0.1


def test_force_and_torque_in_all_stay(mollifier: Mollifier, frames: Array) -> None:
    f = np.random.default_rng(6).standard_normal(frames.shape)
    pulled = mollifier.pull_back(frames, f)
    np.testing.assert_allclose(pulled.sum(1), f.sum(1), atol=1e-13)
    torque = np.cross(frames, pulled).sum(1) - np.cross(mollifier(frames), f).sum(1)
    np.testing.assert_allclose(torque, 0.0, atol=1e-13)


def test_nothing_pulls_along_the_stretches(mollifier: Mollifier, frames: Array) -> None:
    """Moving a hydrogen along its bond does no work against the mollified force: no kick can resonate with it."""
    f, h = np.random.default_rng(7).standard_normal(frames.shape), mollifier.hydrogens
    u = frames[:, h] - frames[:, mollifier.parent[h]]
    assert np.abs((mollifier.pull_back(frames, f)[:, h] * u).sum(-1)).max() < 1e-14


# The dynamics.


def table(ethanol: Atoms, student: Any, mollifier: Mollifier | None, teacher: Any = None) -> ForceTable:
    models = {"teacher": teacher or load_model("morse", ethanol), "student": student}
    return ForceTable(models, RESIDUAL if mollifier else {"residual": ("teacher", "student")}, mollifier)


def test_forces_are_the_gradient_of_the_mollified_potential(
    ethanol: Atoms, mollifier: Mollifier, frames: Array, make_student: Callable[..., Any]
) -> None:
    """U_student(x) + (U_teacher - U_student)(A(x)), by fourth-order differences of that sum."""
    forces = table(ethanol, make_student(ethanol, dtype="float64"), mollifier)
    stepper = Stepper(
        respa("residual", verlet("student"), 2), FS, ethanol.get_masses(), forces, State(frames, 0 * frames)
    )

    def potential(x: Array) -> Array:
        stepper.restart(State(x, 0 * x), None)
        return stepper.potential()

    d, h = np.random.default_rng(8).standard_normal(frames.shape), 1e-3
    slope = (
        8 * (potential(frames + h * d) - potential(frames - h * d))
        - (potential(frames + 2 * h * d) - potential(frames - 2 * h * d))
    ) / (12 * h)
    forces.move(frames)
    work = ((forces["residual"].forces + forces["student"].forces) * d).sum((1, 2))
    assert np.abs(slope + work).max() < 1e-6 * np.abs(work).max()
    difference = forces["teacher@A"].forces - forces["student@A"].forces
    np.testing.assert_array_equal(forces.mismatch("residual"), np.abs(difference).mean(axis=(1, 2)))
    assert np.abs(forces["residual"].forces - difference).max() > 0.1, "and not simply what the models differ by"


@pytest.mark.parametrize("mollified", [True, False])
def test_a_stretch_alone_is_the_students_at_any_outer_step(mollified: bool) -> None:
    """HCl whose student is 10 % too stiff, kicked at w H = pi - 0.1: plain RESPA heats, mollified is Verlet of the student.

    Without a residual along the bond nothing but Verlet's own fluctuation is left, at most (w h)^2 / 4 of the energy.
    """
    masses, r0, k, steps = np.array([1.008, 35.45]), 1.33, 20.0, 8
    h = (np.pi - 0.1) / np.sqrt(k / (masses.prod() / masses.sum()))
    teacher, student = (Harmonic(np.array([1, 17]), np.array([[0, 1]]), np.array([r0]), c) for c in (k, 1.1 * k))
    mollifier = Mollifier([1, 17], [(0, 1)], np.array([[0.0, 0, 0], [r0, 0, 0]])) if mollified else None
    names = RESIDUAL if mollified else {"residual": ("teacher", "student")}
    forces = ForceTable({"teacher": teacher, "student": student}, names, mollifier)
    p = 0.05
    start = State(np.array([[[0.0, 0, 0], [r0, 0, 0]]]), np.array([[[-p, 0, 0], [p, 0, 0]]]))
    stepper = Stepper(respa("residual", verlet("student"), steps), h, masses, forces, start)
    energies = []
    for _ in range(300):
        energies.append(kinetic_energy(stepper.state.momenta, masses)[0] + stepper.potential()[0])
        stepper.step()
    e = np.array(energies)
    fluctuation = (np.ptp(e)) / kinetic_energy(start.momenta, masses)[0]
    assert (fluctuation < 1.1 * ((np.pi - 0.1) / steps) ** 2 / 4 * 1.1) == mollified


def test_the_fused_engine_follows_the_reference(
    ethanol: Atoms,
    mollifier: Mollifier,
    make_student: Callable[..., Any],
    thermal: Callable[..., State],
    toys: Any,
) -> None:
    """Same positions, same calls: k + 1 of the student and one of the teacher, at A(x), in an outer step."""
    k, steps = 3, 10
    student, teacher = make_student(ethanol), toys.counted(load_model("morse", ethanol))
    arguments = (respa("residual", baoab("student"), k), 1.5 * FS, ethanol.get_masses())
    fused = FusedStepper(
        *arguments,
        table(ethanol, student, mollifier, teacher),
        thermal(2),
        Langevin(300, 5, 0, 2),
        compile=False,
    )
    plain = Stepper(*arguments, table(ethanol, student, mollifier), thermal(2), Langevin(300, 5, 0, 2))
    for _ in range(steps):
        fused.step()
        plain.step()
    assert np.abs(plain.state.positions - thermal(2).positions).max() > 0.05
    assert np.abs(fused.state.positions - plain.state.positions).max() < 1e-5
    assert fused.forces.calls == plain.forces.calls
    assert fused.forces.calls == {"teacher": 2 * (steps + 1), "student": 2 * ((k + 1) * steps + 2)}
    np.testing.assert_allclose(teacher.asked[-2:], mollifier(fused.state.positions), atol=1e-14)
    fused.forces.known.pop("residual")
    again = student(mollifier(fused.state.positions))
    assert np.abs(again.forces - fused.forces["student@A"].forces).max() < 1e-4
