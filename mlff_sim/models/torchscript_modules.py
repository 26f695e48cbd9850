"""What an exported file holds: compiled from source by `torch.jit.script`, it finds the edges and keeps the units.

No `from __future__ import annotations` here: TorchScript reads the annotations and cannot read strings.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mlff_sim.units import KJ_PER_MOL, NM


def edges_in_vacuum(x: Tensor, cutoff: float) -> Tensor:
    """Ordered pairs (2, E) of positions (n, 3) that are closer than the cutoff."""
    near = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist") < cutoff
    return torch.nonzero(near.fill_diagonal_(False)).t().contiguous()


def edges_in_a_box(x: Tensor, box: Tensor, cutoff: float) -> tuple[Tensor, Tensor]:
    """Ordered pairs (2, E) and image shifts S (E, 3) with |x_j - x_i + S h| < cutoff, for a box h of any shape and size.

    Let w be the height of the box over a face, and f the difference of two fractional coordinates, rounded to within
    1/2. Then |f + S| w is no longer than the distance, so that only shifts |S| < cutoff / w + 1/2 are needed. In a box
    wider than two cutoffs that is none but the rounding itself, also where the box is triclinic.
    """
    inverse = torch.linalg.inv(box)
    fractional = x @ inverse
    # The columns of the inverse are normals of the faces, as long as one over the height.
    reach = torch.ceil(cutoff * torch.linalg.vector_norm(inverse, dim=0) + 0.5).to(torch.int64) - 1
    sides = 2 * reach + 1
    k = torch.arange(int(sides.prod().item()), device=x.device)
    b, c = sides[1], sides[2]
    extra = torch.stack([k // (b * c), k // c % b, k % c], 1) - reach
    shift = extra.to(x.dtype)
    first: list[Tensor] = []
    second: list[Tensor] = []
    images: list[Tensor] = []
    rows = max(1, 20000 // (x.size(0) * extra.size(0)))
    for start in range(0, x.size(0), rows):  # blocks that fit into the cache, against the atoms that follow
        f = fractional[None, start:] - fractional[start : start + rows, None]
        nearest = -torch.round(f)
        d = ((f + nearest) @ box)[None] + (shift @ box)[:, None, None]
        found = torch.nonzero((d * d).sum(-1) < cutoff * cutoff)
        m, i, j = found[:, 0], found[:, 1], found[:, 2]
        s = nearest[i, j] + shift[m]
        # Both directions of a pair; an atom and its own image are found in both already.
        after, image = j > i, (j == i) & (s != 0.0).any(-1)
        first += [i[after] + start, j[after] + start, i[image] + start]
        second += [j[after] + start, i[after] + start, i[image] + start]
        images += [s[after], -s[after], s[image]]
    return torch.stack([torch.cat(first), torch.cat(second)]), torch.cat(images)


def model_atoms(positions: Tensor, rows: Tensor, total: int, nm: float) -> Tensor:
    """Positions (n, 3) in A and float64 from those of all particles in nm.

    Args:
        positions: of all particles.
        rows: which of them are the model's.
        total: how many particles there should be; 0 for any number.
        nm: one nm in A.
    """
    if total > 0 and positions.size(0) != total:
        raise ValueError(f"this model is for {total} atoms and was given {positions.size(0)}")
    x = nm * positions.double()
    if total == 0:
        x = x.index_select(0, rows)
    if not bool(torch.isfinite(x.detach().sum())):
        raise ValueError("a position is not a finite number")
    return x


def centred(x: Tensor) -> Tensor:
    """Positions about their centre: float32 has its finest steps near the origin."""
    return x - x.mean(0).detach()


def kilojoules(energies: Tensor, reference: float, kj: float) -> Tensor:
    """kJ/mol, shape (), summed in float64 from energies in eV, by atom or in all, and those of the isolated atoms."""
    return (energies.double().sum() + reference) / kj


class Exported(torch.nn.Module):
    """What the exported modules have in common: units, precision, and which particles the model acts on.

    Its `forward` calls functions and never methods: openmm-torch freezes the module, which frees the methods, and torch
    then looks for them when it words an error, and crashes.

    Args:
        network: traced, its signature is that of the subclass.
        reference: eV, added in float64.
        particles: the model's atoms among those that are given; None for all.
        count: how many are the model's.
    """

    rows: Tensor

    def __init__(self, network: Any, reference: float, particles: Sequence[int] | None, count: int) -> None:
        """Keep the network and the constants."""
        super().__init__()
        self.network, self.reference, self.total = network, reference, 0 if particles is not None else count
        self.nm, self.kj = NM, KJ_PER_MOL
        self.register_buffer("rows", torch.tensor(list(range(count) if particles is None else particles)))


class AllPairs(Exported):
    """A student: positions (n, 3) in nm to the energy in kJ/mol."""

    def forward(self, positions: Tensor) -> Tensor:
        """Energy in kJ/mol, float64, shape ()."""
        energies: Tensor = self.network(model_atoms(positions, self.rows, self.total, self.nm))
        return kilojoules(energies, self.reference, self.kj)


class AllPairsWithForces(Exported):
    """A student with the forces that it works out itself: nm to kJ/mol and kJ/mol/nm, for all that are given."""

    def forward(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Energy in kJ/mol, float64, shape (), and forces in kJ/mol/nm, float64, like positions."""
        energies, forces = self.network(model_atoms(positions, self.rows, self.total, self.nm))
        spread = torch.zeros(positions.size(0), 3, dtype=torch.float64, device=positions.device)
        spread = spread.index_copy(0, self.rows, forces[0].double() * (self.nm / self.kj))
        return kilojoules(energies, self.reference, self.kj), spread


class InVacuum(Exported):
    """A graph network for a molecule: positions (n, 3) in nm to the energy in kJ/mol.

    Args:
        cutoff: A.
        dtype: of the network.
        common: as for `Exported`.
    """

    box: Tensor

    def __init__(self, cutoff: float, dtype: torch.dtype, *common: Any) -> None:
        """Keep the cutoff and a box, which plays no role."""
        super().__init__(*common)
        self.cutoff = cutoff
        self.register_buffer("box", 2 * cutoff * torch.eye(3, dtype=dtype))

    def forward(self, positions: Tensor) -> Tensor:
        """Energy in kJ/mol, float64, shape ()."""
        x = centred(model_atoms(positions, self.rows, self.total, self.nm))
        pairs = edges_in_vacuum(x.detach(), self.cutoff)
        images = torch.zeros(pairs.size(1), 3, dtype=self.box.dtype, device=x.device)
        energies: Tensor = self.network(x.to(self.box.dtype), self.box, pairs, images)
        return kilojoules(energies, self.reference, self.kj)


class InABox(InVacuum):
    """A graph network for a periodic box: positions (n, 3) and box vectors (3, 3) in nm to the energy in kJ/mol."""

    def forward(self, positions: Tensor, boxvectors: Tensor) -> Tensor:  # type: ignore[override]
        """Energy in kJ/mol, float64, shape ()."""
        x = centred(model_atoms(positions, self.rows, self.total, self.nm))
        box = self.nm * boxvectors.double()
        pairs, images = edges_in_a_box(x.detach(), box.detach(), self.cutoff)
        kind = self.box.dtype
        energies: Tensor = self.network(x.to(kind), box.to(kind), pairs, images.to(kind))
        return kilojoules(energies, self.reference, self.kj)
