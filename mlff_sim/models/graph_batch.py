"""Several structures in one call of a graph network: side by side, with edges within each."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlff_sim.errors import InputError
from mlff_sim.forces import Array
from mlff_sim.models.flatgraph import Tensors

Item = TypeVar("Item")
BACKWARD = 4
"""Memory of a call over what its forward pass is seen to keep. The backward pass forms gradients of about as much, and
TorchScript keeps some unseen; a MACE on water took 1.6 times twice what was seen."""


@dataclass(frozen=True)
class Graph:
    """One structure with its pairs.

    Attributes:
        numbers: atomic numbers, shape (n,).
        positions: A, shape (n, 3).
        pairs: indices (2, E).
        vectors: A, what is added to x_j - x_i, shape (E, 3).
    """

    numbers: NDArray[np.int64]
    positions: Array
    pairs: NDArray[np.int64]
    vectors: Array


def differentiable(energy: Any, module: torch.nn.Module) -> Tensor:
    """What a module returned, in float64.

    Raises:
        InputError: no tensor, or one that autograd cannot follow back to the positions.
    """
    kind = type(module).__name__
    if not isinstance(energy, Tensor):
        raise InputError(f"forward() of a {kind} returned a {type(energy).__name__}; a tensor of energies is expected.")
    if not energy.requires_grad:
        raise InputError(
            f"forward() of a {kind} returned an energy that cannot be differentiated by the positions; leave out "
            "detach(), torch.no_grad() and numpy in it."
        )
    return energy.double()


class ManyEnergiesAndGradients(torch.nn.Module):
    """Energies in float64, forces and dE/dstrain of each of several structures, by one backward pass.

    The module sees one large molecule in a cell of 1 A and edge shifts in A, which is right for modules that use the
    cell for the vectors of pairs only.
    """

    numbers: Tensor
    owner: Tensor

    def __init__(self, module: torch.nn.Module, numbers: Tensor, owner: Tensor) -> None:
        """Bind a module to atomic numbers (N,) of atoms that belong to structures `owner` (N,), 0 ... R - 1."""
        super().__init__()
        self.module, self.count = module, int(owner[-1]) + 1
        self.register_buffer("numbers", numbers, persistent=False)
        self.register_buffer("owner", owner, persistent=False)

    def forward(self, x: Tensor, pairs: Tensor, vectors: Tensor) -> Tensors:
        """Energies (N,), forces (N, 3) and dE/dstrain (R, 3, 3)."""
        with torch.enable_grad():
            x = x.detach().requires_grad_(True)
            strain = x.new_zeros(self.count, 3, 3).requires_grad_(True)
            deformed = x + (x[:, :, None] * strain[self.owner]).sum(1)
            shifts = vectors + (vectors[:, :, None] * strain[self.owner[pairs[0]]]).sum(1)
            box = torch.eye(3, dtype=x.dtype, device=x.device)
            energy = differentiable(self.module(deformed, self.numbers, box, pairs, shifts), self.module)
            gradient, virial = torch.autograd.grad(energy.sum(), (x, strain))
            return energy.detach(), -gradient, virial


def side_by_side(graphs: Sequence[Graph], device: torch.device, dtype: torch.dtype) -> tuple[Tensors, Tensor, Tensor]:
    """Inputs (x, pairs, vectors), numbers and owners of structures as one."""
    starts = np.cumsum([0, *(len(g.numbers) for g in graphs)])
    x = np.ascontiguousarray(np.concatenate([g.positions - g.positions.mean(axis=0) for g in graphs]))
    pairs = np.concatenate([g.pairs + s for g, s in zip(graphs, starts[:-1], strict=True)], axis=1)
    vectors = np.ascontiguousarray(np.concatenate([g.vectors for g in graphs]))
    numbers = torch.from_numpy(np.concatenate([g.numbers for g in graphs])).to(device)
    owner = torch.repeat_interleave(torch.tensor([len(g.numbers) for g in graphs])).to(device)
    inputs = (
        torch.from_numpy(x).to(device, dtype),
        torch.from_numpy(pairs).to(device),
        torch.from_numpy(vectors).to(device, dtype),
    )
    return inputs, numbers, owner


def padded(inputs: Tensors, length: int, cutoff: float) -> Tensors:
    """Edges up to a number, from atom 0 to itself and longer than the cutoff."""
    x, pairs, vectors = inputs
    missing = length - pairs.shape[1]
    far = vectors.new_zeros(missing, 3)
    far[:, 0] = 2 * cutoff
    return x, torch.cat([pairs, pairs.new_zeros(2, missing)], 1), torch.cat([vectors, far])


def bytes_kept(module: torch.nn.Module, inputs: Tensors) -> tuple[int, Tensors]:
    """Memory that the forward pass keeps for the backward one, which limits how much fits into one call; and results."""
    kept: dict[int, int] = {}

    def pack(t: Tensor) -> Tensor:
        storage = t.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        answer = tuple(module(*inputs))
    return sum(kept.values()), answer


def free_bytes(device: torch.device) -> int:
    """Memory that is free on a device."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # by PyTorch, for later calls
        return int(torch.cuda.mem_get_info(device)[0]) + kept
    try:
        with open("/proc/meminfo") as f:  # counts what the kernel would give back; sysconf does not
            return next(1024 * int(line.split()[1]) for line in f if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")


def in_parts(
    items: Sequence[Item], sizes: Sequence[float], limit: float, call: Callable[[Sequence[Item]], Sequence[Any]]
) -> list[Any]:
    """Results of calls on consecutive items whose sizes add up to a limit at most (one item at least).

    A call that runs out of memory is repeated in halves.
    """
    results: list[Any] = []
    for part in _parts(sizes, limit):
        results += _halving(items[part], call)
    return results


def _parts(sizes: Sequence[float], limit: float) -> Iterator[slice]:
    start, ends = 0, np.cumsum(sizes)
    while start < len(sizes):
        before = ends[start - 1] if start else 0.0
        stop = max(start + 1, int(np.searchsorted(ends, before + limit, side="right")))
        yield slice(start, stop)
        start = stop


def _halving(items: Sequence[Item], call: Callable[[Sequence[Item]], Sequence[Any]]) -> Sequence[Any]:
    try:
        return call(items)
    except (RuntimeError, MemoryError) as error:
        # On a CPU, PyTorch's is a plain RuntimeError.
        full = isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
        if not full or len(items) == 1:
            raise
    torch.cuda.empty_cache()
    half = len(items) // 2
    return [*_halving(items[:half], call), *_halving(items[half:], call)]
