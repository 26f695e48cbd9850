"""The analytic Lennard-Jones model against numbers that anybody can look up."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.cluster import Icosahedron
from scipy.optimize import minimize

from mlff_sim.forces import Array
from mlff_sim.models.analytic import LennardJones
from mlff_sim.models.registry import load_model

A12, A6 = 12.13188, 14.45392
"""Lattice sums of fcc over distances in units of the nearest one (Jones & Ingham, Proc. R. Soc. A 107, 636 (1925),
doi:10.1098/rspa.1925.0047; Kittel, Introduction to Solid State Physics, chapter 3)."""
RADIUS = 5.9
"""Of the sphere cut out of the crystal, in nearest distances, between two shells."""


def sphere() -> Array:
    """Atoms of an fcc crystal within RADIUS nearest distances of one of them, which comes first, shape (n, 3)."""
    grid = np.arange(-10, 11)
    x = np.stack(np.meshgrid(grid, grid, grid), axis=-1).reshape(-1, 3)
    x = x[x.sum(axis=1) % 2 == 0] / np.sqrt(2)
    r = np.linalg.norm(x, axis=1)
    order = np.argsort(r, kind="stable")
    return x[order][r[order] < RADIUS]


@pytest.fixture(scope="module")
def crystal() -> tuple[LennardJones, LennardJones, Array]:
    """Models of the sphere and of the sphere without its central atom, in units of epsilon and sigma, and the sphere."""
    x = sphere()
    z = np.full(len(x), 18)
    return LennardJones(z, 1.0, 1.0), LennardJones(z[1:], 1.0, 1.0), x


def per_atom(crystal: tuple[LennardJones, LennardJones, Array], distance: float) -> float:
    """Half of what the central atom is bound by: the energy per atom of the crystal, cut off at RADIUS * distance."""
    whole, without, x = crystal
    return 0.5 * float(whole(distance * x).energy - without(distance * x[1:]).energy)


def lattice_sums(crystal: tuple[LennardJones, LennardJones, Array]) -> Array:
    """A12 and A6 from energies 2 (A12 / r^12 - A6 / r^6) at two distances, with what lies beyond the sphere.

    Beyond it sqrt(2) atoms in a cubic distance add up to the integral of 4 pi r^2 sqrt(2) r^-p.
    """
    distances = np.array([1.0, 1.2])
    energies = [per_atom(crystal, d) for d in distances]
    sums = np.linalg.solve(2 * np.stack([distances**-12, -(distances**-6)], axis=1), energies)
    out: Array = sums + 4 * np.pi * np.sqrt(2) * np.array([RADIUS**-9 / 9, RADIUS**-3 / 3])
    return out


def test_fcc_lattice_sums(crystal: tuple[LennardJones, LennardJones, Array]) -> None:
    """A12 to 1e-5, the digits of the public value, and A6 to the grain of shells.

    The integral takes the crystal beyond the sphere for smooth. At most it misplaces about one shell, and none
    inside has more than 84 atoms: 84 / 5.9^6 = 2e-3. Without it A6 is 0.029 too small.
    """
    a12, a6 = lattice_sums(crystal)
    assert a12 == pytest.approx(A12, abs=1.1e-5)
    assert a6 == pytest.approx(A6, abs=84 / RADIUS**6)


def test_fcc_minimum(crystal: tuple[LennardJones, LennardJones, Array]) -> None:
    """E = -A6^2 / (2 A12) = -8.610 epsilon at r = (2 A12 / A6)^(1/6) = 1.0902 sigma, where the central atom feels no force.

    A6 known to 2e-3 leaves 8.61 * 2 * 2e-3 / 14.45 = 2.4e-3.
    """
    best = (2 * A12 / A6) ** (1 / 6)
    assert best == pytest.approx(1.0902, abs=1e-4)
    tail = -2 * 4 * np.pi * np.sqrt(2) / (3 * RADIUS**3 * best**6)
    near = [per_atom(crystal, best * f) + tail * f**-6 for f in (0.995, 1.0, 1.005)]
    assert near[1] == pytest.approx(-8.6102, abs=2.4e-3)
    assert near[1] < min(near[0], near[2])
    whole, _, x = crystal
    assert np.abs(whole(best * x).forces[0]).max() < 1e-10


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_thirteen_atoms(seed: int) -> None:
    """The icosahedron, shaken and relaxed, has -44.326801 epsilon (Wales & Doye, J. Phys. Chem. A 101, 5111 (1997),
    doi:10.1021/jp970984n, with the coordinates in the Cambridge Cluster Database).

    A gradient below 1e-6 leaves an energy error below 1e-12 / (2 * softest curvature, some 10), so that all digits count.
    """
    atoms = Atoms("Ar13", positions=Icosahedron("Ar", 2, latticeconstant=5.4).get_positions())
    model = load_model("lj", atoms)
    epsilon, sigma = model.parameters["epsilon"], model.parameters["sigma"]

    def reduced(x: Array) -> tuple[float, Array]:
        e = model(sigma * x.reshape(13, 3))
        return float(e.energy) / epsilon, e.forces.ravel() * -sigma / epsilon

    start = atoms.get_positions() / sigma + 0.05 * np.random.default_rng(seed).normal(size=(13, 3))
    found = minimize(reduced, start.ravel(), jac=True, method="BFGS", options={"gtol": 1e-6})
    assert found.fun == pytest.approx(-44.326801, abs=1e-6)
    x = found.x.reshape(13, 3)
    r = np.sort(np.linalg.norm(x - x.mean(axis=0), axis=1))
    assert r[0] < 1e-5
    np.testing.assert_allclose(r[1:], r[1], rtol=1e-5)  # one atom within a shell of twelve
