"""Radial distribution functions: ideal gas, perfect crystal, skewed cells, mdtraj; a different density is caught."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import bulk

from mlff_sim.errors import InputError
from mlff_sim.validation import Distribution, Verdict, compare, coordination, rdf
from mlff_sim.validation.images import PairDistances

SKEWED = np.array([[9.0, 0.0, 0.0], [4.5, 8.0, 0.0], [-3.0, 6.5, 10.0]])
"""As given, its rows are far from the shortest vectors of its lattice."""


def gas(atoms: int, frames: int, cell: np.ndarray, seed: int) -> np.ndarray:
    """Independent uniform positions, not wrapped: whole lattice vectors are added at random."""
    rng = np.random.default_rng(seed)
    return (rng.random((frames, 1, atoms, 3)) + rng.integers(-2, 3, (frames, 1, atoms, 3))) @ cell


def crystal(scale: float, seed: int, frames: int = 300, sigma: float = 0.15) -> Distribution:
    """Argon's lattice, its atoms scattered about their places."""
    atoms = bulk("Ar", "fcc", a=5.26 * scale, cubic=True) * (3, 3, 3)
    x = atoms.positions + np.random.default_rng(seed).normal(0.0, sigma, (frames, 1, len(atoms), 3))
    return rdf(x, 0.1 * np.arange(frames), atoms.numbers, atoms.cell.array, bin_A=0.1)


@pytest.mark.parametrize("cell", [np.diag([9.0, 10.0, 12.0]), SKEWED], ids=["box", "skewed"])
def test_an_ideal_gas_has_no_structure(cell: np.ndarray) -> None:
    """g = 1 in every bin. Counts of independent pairs are Poisson: chi^2 of the bins has their number as its mean.

    Each atom of a pair is uniform, so distances of different pairs are uncorrelated, and the bins of 500 frames of 21
    pairs hold 10 and more from the fifth on. Six standard deviations of chi^2. N^2 for N (N - 1) would be off by 1 / 7.
    """
    frames = 500
    result = rdf(gas(7, frames, cell, 1), np.arange(float(frames)), np.full(7, 18), cell, bin_A=0.25)
    expected = 21 * frames * (4 / 3 * np.pi * np.diff(result.edges**3)) / abs(np.linalg.det(cell))
    chi2 = ((result.counts["Ar-Ar"] - expected) ** 2 / expected)[4:]
    assert abs(chi2.sum() - len(chi2)) < 6 * np.sqrt(2 * len(chi2))
    total = expected.sum()
    assert abs(result.counts["Ar-Ar"].sum() / total - 1) < 4 / np.sqrt(total) < 1 / 7
    np.testing.assert_allclose(result.g["Ar-Ar"], result.counts["Ar-Ar"] / expected, rtol=1e-12)
    assert result.samples == pytest.approx(frames, rel=0.3)


def test_unlike_pairs_of_an_ideal_gas() -> None:
    """Three elements give five pairs: g = 1 for each, to four standard deviations of the Poisson count."""
    numbers, frames = np.array([8, 1, 1, 1, 8, 6]), 2000
    result = rdf(gas(6, frames, SKEWED, 2), np.arange(float(frames)), numbers, SKEWED, bin_A=0.5)
    assert sorted(result.blocks) == ["C-H", "C-O", "H-H", "H-O", "O-O"]
    sphere = 4 / 3 * np.pi * result.edges[-1] ** 3 / abs(np.linalg.det(SKEWED))
    for pair, count in {"C-H": 3, "C-O": 2, "H-H": 3, "H-O": 6, "O-O": 1}.items():
        expected = count * frames * sphere
        assert abs(result.counts[pair].sum() - expected) < 4 * np.sqrt(expected)


@pytest.mark.parametrize("seed", range(3))
def test_nearest_images_are_those_of_brute_force(seed: int) -> None:
    """All 9^3 images of random, badly skewed cells, one for each frame: the same counts."""
    rng = np.random.default_rng(seed)
    frames, n = 6, 8
    shear = np.eye(3) + np.triu(rng.integers(-2, 3, (3, 3)), 1)
    cells = shear @ (np.diag([5.0, 6.0, 7.0]) + rng.normal(0.0, 1.2, (frames, 3, 3)))
    x = rng.random((frames, 1, n, 3)) @ cells[:, None]
    result = rdf(x, np.arange(float(frames)), np.full(n, 18), cells, bin_A=0.1)
    shifts = np.array(list(product(range(-9, 10), repeat=3)))
    counts = np.zeros(len(result.edges) - 1)
    for frame, cell in zip(x[:, 0], cells, strict=True):
        i, j = np.triu_indices(n, 1)
        images = (frame[j] - frame[i])[:, None] + shifts @ cell
        counts += np.histogram(np.linalg.norm(images, axis=-1).min(axis=1), result.edges)[0]
    assert counts.sum() > 10
    np.testing.assert_array_equal(result.counts["Ar-Ar"], counts)
    lattice = np.linalg.norm(shifts[np.any(shifts, axis=1)] @ cells[:, None].reshape(frames, 3, 3), axis=-1)
    assert result.edges[-1] == pytest.approx(0.5 * lattice.min(), abs=0.1)


def test_distances_within_reach_are_exact_in_any_cell() -> None:
    """60 random cells, 400 pairs each, against 13^3 images: the nearest one wherever it is within reach, and nothing else is."""
    rng = np.random.default_rng(5)
    shifts = np.array(list(product(range(-6, 7), repeat=3)), dtype=float)
    tried = set()
    for _ in range(60):
        cell = np.diag(rng.uniform(4.0, 8.0, 3)) + rng.normal(0.0, 2.5, (3, 3))
        if abs(np.linalg.det(cell)) < 30.0:
            continue
        distances = PairDistances(np.array([18, 18]), cell[None])
        x = np.zeros((400, 2, 3))
        x[:, 1] = rng.random((400, 3)) @ cell
        found = np.concatenate([d[0] for _, _, d in distances.of(x, np.arange(400))])
        exact = np.linalg.norm(x[:, 1, None] + shifts @ cell, axis=-1).min(axis=1)
        near = exact < distances.reach_A
        np.testing.assert_allclose(found[near], exact[near], atol=1e-9)
        assert (found[~near] >= distances.reach_A).all()
        tried.add(len(distances.shifts))
    assert len(tried) > 2, "cells of several kinds"


@pytest.mark.parametrize("cubic", [True, False], ids=["cubic", "rhombohedral"])
def test_coordination_of_a_perfect_crystal(cubic: bool) -> None:
    """12, 6 and 24 neighbours at a / sqrt(2), a and a sqrt(3/2) (Ashcroft & Mermin, Solid State Physics, chapter 4)."""
    a = 4.05
    atoms = bulk("Al", "fcc", a=a, cubic=cubic) * ((3, 3, 3) if cubic else (5, 5, 5))
    result = rdf(np.repeat(atoms.positions[None, None], 2, 0), np.arange(2.0), atoms.numbers, atoms.cell.array)
    filled = np.flatnonzero(result.counts["Al-Al"])
    np.testing.assert_allclose(result.r[filled][:3], [a / np.sqrt(2), a, a * np.sqrt(1.5)], atol=0.011)
    np.testing.assert_array_equal(coordination(result, "Al-Al")[filled][:3], [12, 18, 42])


def test_coordination_of_unlike_atoms() -> None:
    """Rock salt with an anion in three missing: six anions about a cation, but for those; not the other way round."""
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True) * (2, 2, 2)
    del atoms[[np.flatnonzero(atoms.numbers == 17)[0]]]
    result = rdf(np.repeat(atoms.positions[None, None], 2, 0), np.arange(2.0), atoms.numbers, atoms.cell.array)
    within = int(np.searchsorted(result.edges[1:], 3.0))
    assert coordination(result, "Na-Cl")[within] == pytest.approx(6 * 31 / 32)
    assert coordination(result, "Cl-Na")[within] == pytest.approx(6.0)


@pytest.mark.parametrize("cell", [np.diag([14.0, 15.0, 16.0]), 1.6 * SKEWED], ids=["box", "skewed"])
def test_mdtraj_says_the_same(cell: np.ndarray) -> None:
    """The same frames, bins and pairs, in a cell that changes.

    mdtraj keeps nm in float32: coordinates below 30 A are rounded by 2^-24 of that, distances by three times as much,
    and so counts move between neighbouring bins, at most those within 6e-6 A of an edge, 1 in 4,000 for bins of 0.05 A;
    and volumes are off by a few 2^-24. Sums over bins are compared, which only see what crosses one edge.
    """
    import mdtraj

    rng = np.random.default_rng(3)
    frames, numbers = 40, np.repeat([8, 1], [10, 20])
    cells = cell * rng.normal(1.0, 0.01, (frames, 1, 1))
    x = rng.random((frames, 1, 30, 3)) @ cells[:, None]
    mine = rdf(x, np.arange(float(frames)), numbers, cells, r_max_A=5.0, bin_A=0.05)
    topology = mdtraj.Topology()
    residue = topology.add_residue("GAS", topology.add_chain())
    for z in numbers:
        topology.add_atom("X", mdtraj.element.Element.getByAtomicNumber(int(z)), residue)
    trajectory = mdtraj.Trajectory(0.1 * x[:, 0], topology)
    trajectory.unitcell_vectors = 0.1 * cells
    for pair, of in {"H-O": (1, 8), "H-H": (1, 1), "O-O": (8, 8)}.items():
        pairs = [(i, j) for i in range(30) for j in range(i) if {numbers[i], numbers[j]} == set(of)]
        r, g = mdtraj.compute_rdf(trajectory, pairs, r_range=(0.0, 0.5), n_bins=100)
        np.testing.assert_allclose(10 * r, mine.r, atol=1e-12)
        shells = np.diff(mine.edges**3)
        crossing = 3.0 * shells.max() * (mine.counts[pair] / shells).max() * 6e-6 / 0.05 + 1.0
        per_count = (mine.g[pair] * shells)[mine.counts[pair] > 0][0] / mine.counts[pair][mine.counts[pair] > 0][0]
        off = np.abs(np.cumsum((g - mine.g[pair]) * shells))
        assert off.max() < crossing * per_count + 1e-6 * (mine.g[pair] * shells).sum()
        assert (np.abs(g - mine.g[pair]) <= 1e-6 * g).mean() > 0.95


def test_a_molecule_is_a_histogram() -> None:
    """NumPy's, normalised, bin by bin."""
    rng = np.random.default_rng(4)
    numbers = np.array([6, 1, 8, 1])
    x = 3.0 * rng.random((50, 2, 4, 3))
    result = rdf(x, 0.1 * np.arange(50), numbers)
    d = np.linalg.norm(x[:, :, 1] - x[:, :, 3], axis=-1).ravel()
    expected = np.histogram(d, result.edges)[0]
    np.testing.assert_array_equal(result.counts["H-H"], expected)
    np.testing.assert_allclose(result.g["H-H"], expected / (100 * 0.02), atol=1e-12)
    assert result.baseline == 0.0


def test_another_density_is_caught_and_the_twin_passes() -> None:
    """A lattice constant 1 % too long, beside four other samples of the same crystal."""
    reference = crystal(1.0, 0)
    assert reference.samples > 50
    for seed in range(1, 5):
        twin = compare(crystal(1.0, seed), reference)
        assert twin.verdict is Verdict.PASS
        assert twin.error_percent < 2 * twin.noise_percent
    dense = compare(crystal(1.01, 5), reference)
    assert dense.verdict is Verdict.FAIL
    assert dense.error_percent > 3 * dense.noise95_percent


def test_the_error_is_matbench_discoverys() -> None:
    """100 * integral |g - g_ref| dr / integral |g_ref - 1| dr, over the range that both have."""
    run, reference = crystal(1.02, 6, frames=20), crystal(1.0, 7, frames=20)
    g, h = run.mean("Ar-Ar"), reference.mean("Ar-Ar")
    assert len(g) > len(h)
    expected = 100 * np.abs(g[: len(h)] - h).sum() / np.abs(h - 1).sum()
    assert compare(run, reference).error_percent == pytest.approx(expected)


def test_predicted_noise_is_the_noise() -> None:
    """40 twins: the mean error is the predicted one within a tenth, and 95 % of it is passed by 0 to 7 of them.

    7 is the 99.9 % quantile of the binomial with 40 and 0.05.
    """
    reference = crystal(1.0, 0)
    twins = [compare(crystal(1.0, 100 + i, frames=60), reference) for i in range(40)]
    errors = np.array([t.error_percent for t in twins])
    predicted = float(np.mean([t.noise_percent for t in twins]))
    assert abs(errors.mean() - predicted) < 0.05 * predicted + 4 * errors.std() / np.sqrt(40)
    assert sum(t.error_percent > t.noise95_percent for t in twins) <= 7


def test_the_error_bars_are_those_of_counting() -> None:
    """An ideal gas counts Poisson numbers: the blocks' standard error is sqrt(counts) / ideal, within its own 4 errors."""
    cell, frames = np.diag([10.0, 11.0, 12.0]), 3000
    result = rdf(gas(6, frames, cell, 8), np.arange(float(frames)), np.full(6, 18), cell, bin_A=0.5)
    stderr = result.stderr("Ar-Ar")[2:]
    poisson = (result.g["Ar-Ar"] / np.sqrt(result.counts["Ar-Ar"]))[2:]
    relative = 1 / np.sqrt(2 * (len(result.weights) - 1))
    assert np.all(np.abs(stderr / poisson - 1) < 4 * relative)
    assert len(result.weights) > 20


def test_g_can_be_kept(tmp_path: Path) -> None:
    """What is written comes back, baseline and counts with it."""
    result = crystal(1.0, 9, frames=10)
    result.save(tmp_path / "g.npz")
    back = Distribution.load(tmp_path / "g.npz")
    assert back.baseline == 1.0
    np.testing.assert_array_equal(back.counts["Ar-Ar"], result.counts["Ar-Ar"])
    assert compare(back, result).error_percent < 1e-4


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"positions": np.full((4, 1, 3, 3), np.nan)}, "finite"),
        ({"positions": np.zeros((1, 1, 3, 3)), "time_ps": np.zeros(1)}, "1 frame"),
        ({"positions": np.zeros((0, 1, 3, 3)), "time_ps": np.zeros(0)}, "0 frame"),
        ({"positions": np.zeros((4, 3, 3))}, "must be"),
        ({"time_ps": np.zeros(4)}, "increase"),
        ({"cell": np.eye(2)}, "cell"),
        ({"cell": np.diag([9.0, 9.0, 0.0])}, "not independent"),
        ({"cell": np.full((3, 3), np.nan)}, "finite"),
        ({"r_max_A": 4.6}, "half the shortest"),
        ({"bin_A": 0.0}, "bin_A"),
        ({"bin_A": 5.0}, "no bin"),
        ({"cell": None, "r_max_A": 3.0}, "molecule"),
        ({"positions": np.zeros((4, 1, 1, 3)), "numbers": np.array([1])}, "no pairs"),
    ],
)
def test_mistakes_are_told(change: dict[str, Any], words: str) -> None:
    """In one line."""
    x = np.random.default_rng(0).random((4, 1, 3, 3))
    given: dict[str, Any] = {"positions": x, "time_ps": np.arange(4.0), "numbers": np.array([1, 1, 8])}
    given |= {"cell": 9.0 * np.eye(3)} | change
    with pytest.raises((ValueError, InputError), match=words) as told:
        rdf(**given)
    assert "\n" not in str(told.value)


def test_like_is_compared_with_like() -> None:
    """Not a cell with a molecule, nor bins of two widths."""
    x, t, z = np.random.default_rng(0).random((9, 1, 2, 3)), np.arange(9.0), np.array([1, 8])
    in_cell, alone = rdf(x, t, z, 5.0 * np.eye(3)), rdf(x, t, z)
    with pytest.raises(InputError, match="cell"):
        compare(in_cell, alone)
    with pytest.raises(InputError, match="wide"):
        compare(in_cell, rdf(x, t, z, 5.0 * np.eye(3), bin_A=0.05))
