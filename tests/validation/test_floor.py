"""Four figures beside the teacher's own replicas: zero excess where there is nothing, and seen where there is something."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from ase import Atoms

from mlff_sim.forces import Array
from mlff_sim.structure import covalent_bonds
from mlff_sim.validation import Verdict
from mlff_sim.validation.floor import FIGURES, beside_floor

Make = Callable[..., Array]


@pytest.fixture(scope="module")
def held(ethanol: Atoms) -> Callable[..., dict[str, object]]:
    bonds = covalent_bonds(ethanol)
    return lambda run, teacher: beside_floor(run, teacher, ethanol.numbers, bonds)


def test_the_figures_are_their_formulas(ethanol: Atoms, make_run: Make, held: Callable[..., dict[str, object]]) -> None:
    """Bonds and pair distances of one replica, written out: RMS about the others' mean, and integral |p - p_ref| dr.

    The run has half as many frames, and so has the teacher's replica that it stands beside.
    """
    run, teacher = make_run(30, 3, seed=1), make_run(59, 3, seed=2)
    found, bonds, symbols = held(run, teacher), covalent_bonds(ethanol), ethanol.get_chemical_symbols()

    def lengths(x: Array, i: int, j: int) -> Array:
        return np.linalg.norm(x[..., i, :] - x[..., j, :], axis=-1)

    def l1(x: Array, y: Array) -> float:
        by_pair: dict[str, list[tuple[int, int]]] = {}
        for i in range(len(symbols)):
            for j in range(i):
                by_pair.setdefault("-".join(sorted((symbols[i], symbols[j]))), []).append((i, j))
        edges, total = np.arange(0, 12, 0.02), 0.0
        for pairs in by_pair.values():
            p, q = (
                np.histogram(np.concatenate([lengths(a, i, j).ravel() for i, j in pairs]), edges)[0] for a in (x, y)
            )
            total += np.abs(p / p.sum() - q / q.sum()).sum() / len(by_pair)
        return total

    for r in range(3):
        others = np.delete(teacher, r, axis=1)
        for which, mine in (("values", run[:, r]), ("floors", teacher[::2, r])):
            rmse = [np.sqrt(((lengths(mine, i, j) - lengths(others, i, j).mean()) ** 2).mean()) for i, j in bonds]
            assert getattr(found["mean_bond_rmse"], which)[r] == pytest.approx(np.mean(rmse), rel=1e-12)
            assert getattr(found["mean_rdf_l1"], which)[r] == pytest.approx(l1(mine, others), rel=1e-9)


def test_runs_of_one_physics_are_seldom_told_apart(make_run: Make, held: Callable[..., dict[str, object]]) -> None:
    """Joint intervals leave zero out in at most 5 % of sound runs: of 60, more than 8 with probability 0.3 %."""
    seen = 0
    for seed in range(60):
        run, teacher = make_run(120, 5, seed=2 * seed, hop=20.0), make_run(120, 5, seed=2 * seed + 1, hop=20.0)
        seen += any(f.seen for f in held(run, teacher).values())
    assert seen <= 8


def test_what_is_wider_or_narrower_is_seen(make_run: Make, held: Callable[..., dict[str, object]]) -> None:
    """Scatter of all atoms 40 % up or down: bonds by 0.4 x 0.042 A either way, far beyond 0.005 A, and fails."""
    teacher = make_run(400, 5, seed=0)
    mean = teacher.mean(axis=(0, 1))
    for factor in (1.4, 0.6):
        found = held(mean + factor * (make_run(400, 5, seed=1) - mean), teacher)
        assert found["mean_bond_rmse"].seen and found["mean_bond_rmse"].verdict is Verdict.FAIL
        assert np.sign(found["mean_bond_rmse"].excess) == np.sign(factor - 1)
        assert found["mean_bond_rmse"].excess == pytest.approx((factor - 1) * found["mean_bond_rmse"].floor, rel=0.1)


def test_the_teacher_itself_has_no_excess(make_run: Make, held: Callable[..., dict[str, object]]) -> None:
    teacher = make_run(100, 4, seed=0)
    for name, f in held(teacher, teacher).items():
        assert name in FIGURES
        assert f.excess == 0 and f.verdict is Verdict.PASS and f.value == f.floor > 0


def test_fewer_frames_are_held_to_as_few(make_run: Make, held: Callable[..., dict[str, object]]) -> None:
    """A histogram of a tenth of the frames is rougher by sqrt(10) in L1, and that is no error of the run."""
    teacher, run = make_run(2000, 5, seed=0, tau=0.1), make_run(2000, 5, seed=1, tau=0.1)
    full, few = held(run, teacher)["mean_rdf_l1"], held(run[::10], teacher)["mean_rdf_l1"]
    assert few.value > 2 * full.value
    assert not full.seen and not few.seen
    assert few.floor == pytest.approx(few.value, rel=0.1)


def test_repeated_frames_are_held_to_what_they_are_worth(
    make_run: Make, held: Callable[..., dict[str, object]]
) -> None:
    """Each frame k times with probability 0.3^(k-1) 0.7: worth <k>^2 / <k^2> = 0.77 of its distinct frames, 0.54 of all."""
    teacher, rng = make_run(2000, 5, seed=0, tau=0.1), np.random.default_rng(3)
    times = rng.geometric(0.7, 300)
    run = np.repeat(make_run(300, 5, seed=1, tau=0.1), times, axis=0)
    worth = len(run) ** 2 / (times.astype(float) ** 2).sum()
    assert worth == pytest.approx(0.77 * 300, rel=0.1)  # 300 draws of k know <k^2> to a tenth
    found = held(run, teacher)["mean_rdf_l1"]
    as_many = held(make_run(round(worth), 5, seed=2, tau=0.1), teacher)["mean_rdf_l1"]
    assert not found.seen
    assert found.floor == as_many.floor
    assert found.floor == pytest.approx(found.value, rel=0.1)


@pytest.mark.parametrize("shape", [(1, 3), (20, 1), (20, 2)])
def test_what_cannot_be_compared_is_refused(
    make_run: Make, held: Callable[..., object], shape: tuple[int, int]
) -> None:
    with pytest.raises(ValueError, match=r"must be|are the least"):
        held(make_run(*shape, seed=0), make_run(20, 3 if shape[1] != 1 else 1, seed=1))
    bad = make_run(20, 3, seed=0)
    bad[3, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="finite"):
        held(bad, make_run(20, 3, seed=1))
