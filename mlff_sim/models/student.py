"""The distilled student of one molecule: inverse pair distances into a small network.

The energy is E = E0 + s N((q - mu) / sigma) with q_ij = 1 / r_ij over all pairs and N a multilayer perceptron
with SiLU activations; the descriptor is the upper triangle of the Coulomb matrix without charges (Rupp et al.,
Phys. Rev. Lett. 108, 058301 (2012), doi:10.1103/PhysRevLett.108.058301). The backward pass is written out by
hand: it makes energy and forces one plain forward graph, which trains with a single backward and compiles whole.

| symbol | variable | shape |
|---|---|---|
| r_ij | `d` (vector) | (replicas, pairs, 3) |
| q | `q` | (replicas, pairs) |
| mu, sigma | `mean`, `scale` | (pairs,) |
| s, E0 | `energy_scale`, `energy_shift` | scalars, eV |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from mlff_sim.acceleration import Execution, usable
from mlff_sim.forces import Array, Evaluation
from mlff_sim.models.compiled import JITTER_A, Accelerated
from mlff_sim.models.flatgraph import Tensors


class InverseDistanceNet(nn.Module):
    """Energies and forces of replicas of one molecule, differentiable for training.

    Args:
        n_atoms: atoms of the molecule.
        widths: hidden widths, for instance (256, 256).
    """

    pair_i: Tensor
    pair_j: Tensor
    incidence: Tensor
    mean: Tensor
    scale: Tensor
    energy_scale: Tensor

    def __init__(self, n_atoms: int, widths: Sequence[int]) -> None:
        """Build the layers with PyTorch's default initialisation; set statistics with `set_statistics`."""
        super().__init__()
        self.autocast = False
        self.n_atoms, self.widths = n_atoms, tuple(int(w) for w in widths)
        i, j = torch.triu_indices(n_atoms, n_atoms, 1)
        pairs = len(i)
        incidence = torch.zeros(n_atoms, pairs)
        incidence[i, torch.arange(pairs)] = 1.0
        incidence[j, torch.arange(pairs)] = -1.0
        self.register_buffer("pair_i", i, persistent=False)
        self.register_buffer("pair_j", j, persistent=False)
        self.register_buffer("incidence", incidence, persistent=False)
        self.register_buffer("mean", torch.zeros(pairs))
        self.register_buffer("scale", torch.ones(pairs))
        self.register_buffer("energy_scale", torch.tensor(1.0))
        sizes = [pairs, *self.widths, 1]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))

    def _linear(self) -> tuple[list[nn.Linear], nn.Linear]:
        """The hidden layers and the read-out."""
        layers = [layer for layer in self.layers if isinstance(layer, nn.Linear)]
        return layers[:-1], layers[-1]

    @torch.no_grad()
    def set_statistics(self, positions: Tensor, energies: Tensor) -> None:
        """Standardise inputs and output on training data: positions (frames, n, 3) in A, energies (frames,) in eV."""
        d = positions[:, self.pair_i] - positions[:, self.pair_j]
        q = torch.rsqrt((d * d).sum(-1))
        self.mean.copy_(q.mean(0))
        self.scale.copy_(q.std(0).clamp_min(1e-3))
        self.energy_scale.copy_(energies.std().clamp_min(1e-3))

    def forward(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Energy without E0 in eV, shape (replicas,), and forces in eV/A, shape (replicas, n, 3).

        Pair vectors are formed in the precision of `positions` and rounded to that of the weights after,
        so that a molecule far from the origin loses nothing.
        """
        d = (positions[:, self.pair_i] - positions[:, self.pair_j]).to(self.mean.dtype)
        q = torch.rsqrt((d * d).sum(-1))
        h = (q - self.mean) / self.scale
        times, times_transposed = _times, _times_transposed
        if self.autocast:
            times, times_transposed = _times_bf16, _times_transposed_bf16
        elif len(d) == 1 and _compiling():
            times, times_transposed = _times_one, _times_one_transposed
        hidden, head = self._linear()
        slopes = []
        for layer in hidden:
            z = times(h, layer.weight) + layer.bias
            s = torch.sigmoid(z)
            h = z * s
            slopes.append(s * (1.0 + z * (1.0 - s)))
        energy = head(h)[:, 0] * self.energy_scale
        g = head.weight * slopes[-1]  # dN/dz of the last hidden layer
        for layer, slope in zip(reversed(hidden[1:]), reversed(slopes[:-1]), strict=True):
            g = times_transposed(g, layer.weight) * slope
        g = times_transposed(g, hidden[0].weight) * (self.energy_scale / self.scale)  # dE/dq
        # dE/dx_i = sum_j dE/dq_ij * (-q_ij^3) (x_i - x_j), hence the force:
        return energy, torch.matmul(self.incidence, (g * q**3)[..., None] * d)


def _compiling() -> bool:
    """True while the network is traced for a compiler."""
    return torch.compiler.is_compiling() or get_proxy_mode() is not None


def _times(h: Tensor, weight: Tensor) -> Tensor:
    """W h for every row of h."""
    return h @ weight.T


def _times_transposed(g: Tensor, weight: Tensor) -> Tensor:
    """W^T g for every row of g."""
    return g @ weight


def _times_bf16(h: Tensor, weight: Tensor) -> Tensor:
    """W h in bfloat16, returned in float32."""
    return (h.bfloat16() @ weight.bfloat16().T).float()


def _times_transposed_bf16(g: Tensor, weight: Tensor) -> Tensor:
    """W^T g in bfloat16, returned in float32."""
    return (g.bfloat16() @ weight.bfloat16()).float()


def _times_one(h: Tensor, weight: Tensor) -> Tensor:
    """W h for a single row, as a sum the compiler fuses with its neighbours: no call into a matrix library."""
    return (h[:, None, :] * weight).sum(-1)


def _times_one_transposed(g: Tensor, weight: Tensor) -> Tensor:
    """W^T g for a single row, reading the same weights as the forward pass, so that they stay in the cache."""
    return (g[:, :, None] * weight).sum(1)


class Student:
    """A trained network bound to its species: the cheap `ForceProvider`.

    Attributes:
        network: the torch module, in float32, in evaluation mode.
        energy_shift: E0 in eV, added in float64.
        record: what its file says about it (species, training range, errors, versions).
    """

    cutoff: float | None = None
    conservative = True
    batched = True

    def __init__(
        self,
        network: InverseDistanceNet,
        numbers: Array,
        energy_shift: float,
        record: Mapping[str, Any],
        name: str = "student",
        execution: Execution | None = None,
    ) -> None:
        """Bind a network to atomic numbers (n,) and the energy shift E0 in eV; its precision is its file's."""
        execution = execution or Execution(device="cpu")
        self.name, self.record, self.device = name, dict(record), usable(execution.device)
        self.network = network.eval().requires_grad_(False).to(self.device)
        self.numbers = np.asarray(numbers, dtype=np.int64)
        self.energy_shift = float(energy_shift)
        self.dtype = str(network.mean.dtype).removeprefix("torch.")
        self.function = Accelerated(self.network, execution.acceleration, name, len(self.numbers), replicas=True)

    @property
    def provenance(self) -> Mapping[str, Any]:
        """The record of the student's file."""
        return {"name": self.name, **self.record}

    def reset(self) -> None:
        """Nothing to forget: a student is a pure function."""

    def __call__(self, positions: Array, cell: Array | None = None, /) -> Evaluation:
        """Evaluate positions of shape (n, 3) or (replicas, n, 3)."""
        x = torch.from_numpy(np.ascontiguousarray(positions, dtype=np.float64)).to(self.device)
        inputs = (x if x.ndim == 3 else x[None],)

        def frames() -> list[Tensors]:
            shaken = JITTER_A * torch.from_numpy(np.random.default_rng(0).standard_normal(inputs[0].shape))
            return [inputs, (inputs[0] + shaken.to(self.device),)]

        energy, forces = self.function(inputs, frames)
        e = energy.cpu().numpy().astype(np.float64) + self.energy_shift
        f = forces.cpu().numpy().astype(np.float64)
        return Evaluation(e, f) if x.ndim == 3 else Evaluation(e[0], f[0])

    def report(self) -> dict[str, Any]:
        """What engaged, by how much it deviates, and what a call costs."""
        return {**self.function.report(), "device": str(self.device)}
