"""One layer of the predictors: messages between all pairs of atoms, of scalars and of vectors, on PyTorch Geometric.

Scalars h_i and vectors V_i (some channels of them) of the atoms are updated by messages m_ij that depend on scalars only,
distances and projections of the vectors on the line between two atoms among them. Vectors gain what points along lines
between atoms, r_ij, and what points along the vectors of others, so they turn with the molecule (E(n)-equivariance:
Satorras, Hoogeboom & Welling, ICML 2021, arXiv:2102.09844; vector channels: Schuett, Unke & Gastegger, ICML 2021,
arXiv:2102.03150). With heads, messages are weighted by attention over the neighbours (Thoelke & De Fabritiis, ICLR 2022,
arXiv:2202.02541).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing


class EquivariantLayer(MessagePassing):  # type: ignore[misc, unused-ignore]
    """Messages over a graph in which every atom has the same number of neighbours, listed target by target.

    Args:
        width: of the scalars.
        channels: vectors of each atom.
        edge: length of what is known of a pair beforehand.
        heads: of attention; 0 gives all neighbours one weight.
    """

    def __init__(self, width: int, channels: int, edge: int, heads: int = 0) -> None:
        """Build the layers with PyTorch's default initialisation."""
        super().__init__(aggr="add")
        self.width, self.channels, self.heads = width, channels, heads
        self.own, self.other = nn.Linear(width, width), nn.Linear(width, width, bias=False)
        self.pair = nn.Linear(edge + 2 * channels, width, bias=False)
        self.content = nn.Sequential(nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.along = nn.Linear(width, 2 * channels, bias=False)
        self.scalars = nn.Sequential(nn.Linear(2 * width + channels, width), nn.SiLU(), nn.Linear(width, width))
        self.gather, self.mix = (nn.Linear(channels, channels, bias=False) for _ in range(2))
        self.gate = nn.Linear(width, channels)
        if heads:
            self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
            self.bias = nn.Linear(edge, heads)

    def forward(
        self, h: Tensor, vectors: Tensor, edge_index: Tensor, edge: Tensor, r: Tensor, neighbours: int
    ) -> tuple[Tensor, Tensor]:
        """New scalars and vectors.

        Args:
            h: scalars, (atoms, width).
            vectors: (atoms, channels, 3).
            edge_index: sources and targets, (2, atoms * neighbours), sorted by target.
            edge: what is known of each pair, (atoms * neighbours, edge).
            r: unit vectors from target to source, (atoms * neighbours, 3).
            neighbours: of every atom.
        """
        attention = self.query(h) if self.heads else h, self.key(h) if self.heads else h
        received = self.propagate(
            edge_index,
            own=self.own(h),
            other=self.other(h),
            query=attention[0],
            key=attention[1],
            vectors=vectors.flatten(1),
            edge=edge,
            r=r,
            neighbours=neighbours,
            size=None,
        )
        content, pull = received[:, : self.width], received[:, self.width :].unflatten(1, (self.channels, 3))
        vectors = vectors + _mixed(pull, self.gather)
        lengths = torch.sqrt((vectors * vectors).sum(-1) + 1e-6)
        h = h + self.scalars(torch.cat([h, content, lengths], dim=-1))
        return h, vectors + _mixed(vectors, self.mix) * torch.tanh(self.gate(h))[..., None]

    def message(
        self,
        own_i: Tensor,
        other_j: Tensor,
        query_i: Tensor,
        key_j: Tensor,
        vectors_i: Tensor,
        vectors_j: Tensor,
        edge: Tensor,
        r: Tensor,
        neighbours: int,
    ) -> Tensor:
        """What atom i hears from j: (pairs, width + 3 channels)."""
        mine, theirs = (v.unflatten(1, (self.channels, 3)) for v in (vectors_i, vectors_j))
        line = r[:, None]
        projections = [(v * line).sum(-1) for v in (mine, theirs)]
        content = self.content(own_i + other_j + self.pair(torch.cat([edge, *projections], dim=-1)))
        content = content * self._weights(query_i, key_j, edge, neighbours)
        along_line, along_theirs = self.along(content)[..., None].chunk(2, dim=1)
        return torch.cat([content, (along_line * line + along_theirs * theirs).flatten(1)], dim=-1)

    def _weights(self, query: Tensor, key: Tensor, edge: Tensor, neighbours: int) -> Tensor | float:
        """Of the messages: equal ones, or by attention, which sum to the square root of their number."""
        if not self.heads:
            return float(neighbours**-0.5)
        size = self.width // self.heads
        product = (query * key).unflatten(1, (self.heads, size)).sum(-1) / size**0.5
        logits = (product + self.bias(edge)).unflatten(0, (-1, neighbours))
        weights = torch.softmax(logits, dim=1).flatten(0, 1) * neighbours**0.5
        wide: Tensor = weights.repeat_interleave(size, dim=1)
        return wide

    def aggregate(self, inputs: Tensor, neighbours: int) -> Tensor:
        """Sum over neighbours, which stand side by side: no scatter."""
        total: Tensor = inputs.unflatten(0, (-1, neighbours)).sum(1)
        return total


def _mixed(vectors: Tensor, layer: nn.Linear) -> Tensor:
    """Linear combinations of the vectors of an atom, (atoms, channels, 3)."""
    result: Tensor = torch.einsum("acx,dc->adx", vectors, layer.weight)
    return result
