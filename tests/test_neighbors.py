"""The neighbour list against ASE's, fresh and reused."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.neighborlist import neighbor_list

from mlff_sim.errors import InputError
from mlff_sim.neighbors import NeighborList

CUTOFF = 3.7


def canonical(atoms: Atoms, pairs: np.ndarray, images: np.ndarray) -> set[tuple[int, ...]]:
    assert pairs.shape == (2, len(images))
    out = {(int(i), int(j), *s) for i, j, s in zip(*pairs, images.round().astype(int).tolist(), strict=True)}
    assert len(out) == len(images), "no pair twice"
    return out


def expected(atoms: Atoms) -> set[tuple[int, ...]]:
    i, j, images = neighbor_list("ijS", atoms, CUTOFF)
    return {(int(a), int(b), *s) for a, b, s in zip(i, j, images.tolist(), strict=True)}


def found(nl: NeighborList, atoms: Atoms) -> set[tuple[int, ...]]:
    return canonical(atoms, *nl(atoms.positions, atoms.cell.array, tuple(atoms.pbc.tolist())))


def systems() -> dict[str, Atoms]:
    copper = bulk("Cu") * (2, 2, 2)  # a triclinic cell narrower than twice the cutoff
    slab = bulk("Cu", cubic=True) * (2, 2, 1)
    slab.pbc = (True, True, False)
    slab.cell[2] = 0.0
    ethanol = molecule("CH3CH2OH")
    for k, atoms in enumerate((copper, slab, ethanol)):
        atoms.rattle(0.15, seed=k)
    return {"triclinic": copper, "slab": slab, "molecule": ethanol}


@pytest.mark.parametrize("name", systems())
@pytest.mark.parametrize("skin", [0.0, 0.6])
def test_it_finds_every_pair_once(name: str, skin: float) -> None:
    atoms = systems()[name]
    assert found(NeighborList(CUTOFF, skin), atoms) == expected(atoms)


@pytest.mark.parametrize("name", systems())
def test_reused_it_is_still_right(name: str) -> None:
    """A random walk in positions and cell: the list is reused most of the time and never misses a pair."""
    atoms, nl, rng, steps = systems()[name], NeighborList(CUTOFF, 1.0), np.random.default_rng(1), 100
    for _ in range(steps):
        atoms.positions += 0.03 * rng.standard_normal(atoms.positions.shape)
        if atoms.pbc.any():
            atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.002 * rng.standard_normal((3, 3))), scale_atoms=True)
        assert found(nl, atoms) == expected(atoms)
    assert 1 < nl.rebuilds < steps / 2


def test_folding_an_atom_back_is_seen() -> None:
    """The image numbers of a folded atom's pairs change, which a displacement up to lattice vectors would hide."""
    atoms, nl = systems()["triclinic"], NeighborList(CUTOFF, 1.0)
    found(nl, atoms)
    atoms.positions[3] += atoms.cell.array[0] - atoms.cell.array[2]
    assert found(nl, atoms) == expected(atoms)
    assert nl.rebuilds == 2


def test_permuted_and_stretched_it_is_built_anew() -> None:
    atoms, nl = systems()["triclinic"], NeighborList(CUTOFF, 0.5)
    found(nl, atoms)
    atoms.positions = atoms.positions[::-1].copy()
    assert found(nl, atoms) == expected(atoms) and nl.rebuilds == 2
    atoms.set_cell(0.9 * atoms.cell.array)  # atoms stay where they are: only images come closer
    assert found(nl, atoms) == expected(atoms) and nl.rebuilds == 3
    atoms.pbc = (True, False, True)
    assert found(nl, atoms) == expected(atoms) and nl.rebuilds == 4


@pytest.mark.parametrize("cell", [[6.0, 6.0, 6.0], [12.0, 12.0, 30.0]])
def test_images_that_were_out_of_reach_come_into_it(cell: list[float]) -> None:
    """A dilute cell that shrinks by a hundredth at a time: pairs of images appear that no candidate spoke of before."""
    atoms, nl = Atoms("ArAr", [[0, 0, 0], [1.0, 0.4, 0.2]], cell=cell, pbc=True), NeighborList(CUTOFF, 0.5)
    for _ in range(200):
        assert found(nl, atoms) == expected(atoms)
        atoms.set_cell(0.99 * atoms.cell.array)
    assert len(expected(atoms)) > 10 and nl.rebuilds > 10


def test_a_cell_without_volume_is_refused() -> None:
    with pytest.raises(InputError, match="not independent"):
        NeighborList(3.0, 0.0)(np.zeros((1, 3)), np.diag([4.0, 4.0, 0.0]), (True, True, True))
