"""A learnt generating function of one stride: a scalar of midpoints whose gradient is the step.

G(qbar, pbar) = h (sum pbar^2 / 2m + N(qbar, pbar)), solved in `midpoint.py`. As h goes to 0, N becomes the potential; at finite h
it also corrects the motion of fast bonds, which in the harmonic limit is a factor tan(w h / 2) / (w h / 2) on their energy.
Learning the action of a stride is what Bigi & Ceriotti propose (arXiv:2508.01068), against direct predictors without this
structure: TrajCast (Thiemann et al., Nat. Mach. Intell. 8, 764 (2026), doi:10.1038/s42256-026-01227-7) and FlashMD (Bigi et
al., arXiv:2505.19350).

N is the sum of a message-passing network over atoms. It depends on the elements, distances r, and differences of velocities
v_ij, and so neither on the place nor the motion of the whole: total momentum is conserved, and the centre of mass moves
as it should. Of each atom there are numbers that are even under reversal of the momenta, vectors that are even (made of
directions) and vectors that are odd (of velocities); only even products of them enter the numbers, after PaiNN (Schuett,
Unke & Gastegger, ICML 2021, arXiv:2102.03150). So N is invariant under rotation, reflection, permutation of like atoms and
reversal of the momenta.

| symbol | variable | shape |
|---|---|---|
| numbers of atom i | `h` | (R, n, C) |
| even vectors | `even` | (R, n, 3, C) |
| odd vectors | `odd` | (R, n, 3, C) |
| (x_i - x_j) / r | `direction` | (R, n, n, 3) |
| v_ij (mu_ij / kT)^1/2, mu the reduced mass | `relative` | (R, n, n, 3) |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mlff_sim.forces import Array
from mlff_sim.structure import check_elements
from mlff_sim.units import FS, KB

RADIAL = 16


class Interaction(nn.Module):
    """Messages among all atoms, then mixing within each.

    Args:
        channels: C.
        first: nothing has been said yet, and all vectors are zero.
    """

    def __init__(self, channels: int, first: bool) -> None:
        """PyTorch's default initialisation."""
        super().__init__()
        self.first, self.terms = first, 4 if first else 6
        self.sender = nn.Sequential(
            nn.Linear(channels, channels), nn.SiLU(), nn.Linear(channels, self.terms * channels)
        )
        self.receiver = nn.Linear(channels, self.terms * channels)
        self.radial = nn.Linear(RADIAL, self.terms * channels, bias=False)
        self.mix_even = nn.Linear(channels, 2 * channels, bias=False)
        self.mix_odd = nn.Linear(channels, 2 * channels, bias=False)
        self.blend = nn.Sequential(nn.Linear(4 * channels, channels), nn.SiLU(), nn.Linear(channels, 3 * channels))

    def forward(
        self, h: Tensor, even: Tensor, odd: Tensor, radial: Tensor, direction: Tensor, relative: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """New numbers and vectors of each atom."""
        stretching = (direction * relative).sum(-1, keepdim=True) * direction
        w = (self.radial(radial) * self.sender(h)[:, None]).chunk(self.terms, dim=-1)  # each (R, n, n, C)
        g = self.receiver(h).chunk(self.terms, dim=-1)
        h = h + g[0] * w[0].sum(2)
        even = even + g[1][..., None, :] * _pairwise(w[1], direction)
        odd = odd + g[2][..., None, :] * _pairwise(w[2], stretching) + g[3][..., None, :] * _pairwise(w[3], relative)
        if not self.first:
            even = even + g[4][..., None, :] * _passed(w[4], even)
            odd = odd + g[5][..., None, :] * _passed(w[5], odd)
        a, b = self.mix_even(even).chunk(2, dim=-1)
        s, t = self.mix_odd(odd).chunk(2, dim=-1)
        crossed = (a * s).sum(-2)  # odd, so only its square is a number
        mixed = self.blend(torch.cat([h, (a * b).sum(-2), (s * t).sum(-2), crossed * crossed], dim=-1))
        dh, scale_even, scale_odd = mixed.chunk(3, dim=-1)
        return h + dh, even + scale_even[..., None, :] * a, odd + scale_odd[..., None, :] * s


def _pairwise(weights: Tensor, vectors: Tensor) -> Tensor:
    """Sum over j of weights (R, n, n, C) times vectors of pairs (R, n, n, 3): (R, n, 3, C)."""
    return torch.matmul(vectors.transpose(2, 3), weights)


def _passed(weights: Tensor, vectors: Tensor) -> Tensor:
    """Sum over j of weights (R, n, n, C) times vectors of atoms (R, n, 3, C): (R, n, 3, C)."""
    return torch.einsum("rijc,rjxc->rixc", weights, vectors)


class GeneratingNet(nn.Module):
    """N of one stride, for any molecule of known elements.

    Args:
        elements: atomic numbers it can be asked about.
        channels: C.
        layers: interactions.
        cutoff: A, beyond which atoms do not see each other; messages go smoothly to zero there.
        temperature_K: whose thermal momenta are the unit of momentum.
    """

    centres: Tensor

    def __init__(
        self,
        elements: Sequence[int],
        channels: int = 32,
        layers: int = 2,
        cutoff: float = 6.0,
        temperature_K: float = 300.0,
    ) -> None:
        """PyTorch's default initialisation."""
        super().__init__()
        self.settings: dict[str, Any] = {
            "elements": [int(z) for z in elements],
            "channels": int(channels),
            "layers": int(layers),
            "cutoff": float(cutoff),
            "temperature_K": float(temperature_K),
        }
        self.kT, self.cutoff = KB * temperature_K, float(cutoff)
        self.embedding = nn.Embedding(len(self.settings["elements"]), channels)
        self.register_buffer("centres", torch.linspace(0.5, cutoff, RADIAL), persistent=False)
        self.interactions = nn.ModuleList(Interaction(channels, first=layer == 0) for layer in range(layers))
        self.mix = nn.Linear(channels, 2 * channels, bias=False)
        self.readout = nn.Sequential(nn.Linear(2 * channels, channels), nn.SiLU(), nn.Linear(channels, 1))
        self.weight = nn.Linear(channels, channels)

    def kinds(self, numbers: NDArray[np.int64]) -> Tensor:
        """Indices of atomic numbers (n,) among the elements.

        Raises:
            InputError: an element that the network does not know.
        """
        known = self.settings["elements"]
        check_elements([int(z) for z in numbers], known, "the generating function")
        return torch.tensor([known.index(int(z)) for z in numbers])

    def forward(self, q: Tensor, p: Tensor, kinds: Tensor, masses: Tensor) -> Tensor:
        """N in eV, shape (R,), of replicas of one molecule: q in A and p in (eV u)^1/2, (R, n, 3), masses in u, (n,)."""
        n, dtype = q.shape[1], self.weight.weight.dtype
        v = p / masses[:, None]
        d, u = q[:, :, None] - q[:, None], v[:, :, None] - v[:, None]
        reduced = masses[:, None] * masses / (masses[:, None] + masses)
        relative = (u * (reduced / self.kT).sqrt()[..., None]).to(dtype)  # differences first, in the input's precision
        d = d.to(dtype)
        r = (d.square().sum(-1) + torch.eye(n, dtype=dtype)).sqrt()
        direction = d / r[..., None]
        near = 0.5 * (1 + torch.cos(torch.pi * (r / self.cutoff).clamp(max=1.0))) * (1 - torch.eye(n, dtype=dtype))
        width = (self.cutoff - 0.5) / (RADIAL - 1)
        radial = torch.exp(-0.5 * ((r[..., None] - self.centres) / width).square()) * near[..., None]
        h = self.embedding(kinds).expand(len(q), -1, -1)
        even = odd = torch.zeros(len(q), n, 3, h.shape[-1], dtype=dtype)
        for interaction in self.interactions:
            h, even, odd = interaction(h, even, odd, radial, direction, relative)
        a, b = self.mix(odd).chunk(2, dim=-1)
        squares = (a * b).sum(-2)
        atomic = self.readout(torch.cat([h, squares], dim=-1))[..., 0] + (self.weight(h) * squares).sum(-1)
        total: Tensor = atomic.to(q.dtype).sum(1)
        return total

    def slopes(self, q: Tensor, p: Tensor, kinds: Tensor, masses: Tensor, train: bool = False) -> tuple[Tensor, Tensor]:
        """dN/dq in eV/A and dN/dp in A per internal time, (R, n, 3); differentiable once more for training."""
        with torch.enable_grad():
            q, p = q.detach().requires_grad_(True), p.detach().requires_grad_(True)
            total = self(q, p, kinds, masses).sum()
            dq, dp = torch.autograd.grad(total, (q, p), create_graph=train)
        return dq, dp


class Generator:
    """A network bound to a molecule and its stride: the gradient of G, in float64.

    Args:
        network: N; a copy of it is taken.
        numbers: atomic numbers, shape (n,), of its elements.
        masses: u, shape (n,).
        stride_fs: what it was trained for.
        record: of its file.
    """

    def __init__(
        self,
        network: GeneratingNet,
        numbers: NDArray[np.int64],
        masses: Array,
        stride_fs: float,
        record: Mapping[str, Any] | None = None,
    ) -> None:
        """Bind."""
        copy = GeneratingNet(**network.settings)
        copy.load_state_dict(network.state_dict())
        self.network = copy.double().eval().requires_grad_(False)
        self.numbers = np.asarray(numbers, dtype=np.int64)
        self.masses, self.stride_fs, self.stride = np.asarray(masses, dtype=np.float64), stride_fs, stride_fs * FS
        self.kinds, self._masses = network.kinds(self.numbers), torch.from_numpy(self.masses)
        self.record, self.calls = dict(record or {}), 0

    def __call__(self, q: Array, p: Array) -> tuple[Array, Array]:
        """dG/dq in (eV u)^1/2 and dG/dp in A, shape (R, n, 3), counted in `calls` for each replica."""
        self.calls += len(q)
        dq, dp = self.network.slopes(torch.from_numpy(q), torch.from_numpy(p), self.kinds, self._masses)
        drift: Array = self.stride * (p / self.masses[:, None] + dp.numpy())
        return self.stride * dq.numpy(), drift
