"""Trained graph networks as force providers: any module (positions, numbers, cell, edge_index, edge_shift) -> energy.

Energy, forces and stress come from one backward pass, which `compiled.py` makes faster. Graphs are compiled for any
number of edges, or for edges padded to a fixed number; padding edges are longer than the cutoff, where the model's
envelope is zero. Whether it is, the gate of `compiled.py` measures.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlff_sim.acceleration import Execution, usable
from mlff_sim.errors import InputError
from mlff_sim.forces import Array, Evaluation, stacked, stress_from_strain
from mlff_sim.models.compiled import JITTER_A, Accelerated
from mlff_sim.models.flatgraph import Ragged, Tensors
from mlff_sim.models.graph_batch import (
    BACKWARD,
    Graph,
    ManyEnergiesAndGradients,
    bytes_kept,
    differentiable,
    free_bytes,
    in_parts,
    padded,
    side_by_side,
)
from mlff_sim.neighbors import NeighborList

EXPANDED = 1.02
"""Scale of the second structure on which is seen whether a module can take several in one call."""
TRIALS = 5
"""Calls of either kind before it is decided which edges the model is given."""


class GraphModel(Protocol):
    """What a module must offer to be used as a force field.

    `forward(positions, numbers, cell, edge_index, edge_shift)` takes positions (n, 3) in A, atomic numbers (n,), the
    cell (3, 3) with vectors in rows, pairs (2, E) and image shifts (E, 3), so that the vector of a pair is
    `positions[j] - positions[i] + edge_shift @ cell`, and returns the energy in eV, in all or by atom (n,). A molecule
    gets a cell that plays no role. Edges beyond the cutoff must not contribute.
    """

    cutoff: float

    def __call__(
        self, positions: Tensor, numbers: Tensor, cell: Tensor, edge_index: Tensor, edge_shift: Tensor
    ) -> Tensor:
        """Energy in eV, shape () or (n,)."""


def _evaluation(
    atomic: Tensor, forces: Tensor, virial: Tensor | None, cell: Array | None, reference: Array
) -> Evaluation:
    energies = atomic.numpy() + reference if atomic.shape == reference.shape else None
    energy = np.array(atomic.numpy().sum() + reference.sum())
    stress = None if virial is None or cell is None else stress_from_strain(virial.double().numpy(), cell)
    return Evaluation(energy, forces.double().numpy(), stress, energies)


class EnergyAndGradient(torch.nn.Module):
    """Energies in float64, forces and, if `strained`, dE/dstrain of a graph model, by one backward pass."""

    numbers: Tensor

    def __init__(self, module: torch.nn.Module, numbers: Tensor, strained: bool) -> None:
        """Bind a module to atomic numbers (n,)."""
        super().__init__()
        self.module, self.strained = module, strained
        self.register_buffer("numbers", numbers, persistent=False)

    def forward(self, x: Tensor, box: Tensor, pairs: Tensor, images: Tensor) -> Tensors:
        """Energies (n,) or (), forces (n, 3) and, if strained, dE/dstrain (3, 3)."""
        with torch.enable_grad():
            x = x.detach().requires_grad_(True)
            if not self.strained:
                energy = differentiable(self.module(x, self.numbers, box, pairs, images), self.module)
                (gradient,) = torch.autograd.grad(energy.sum(), (x,))
                return energy.detach(), -gradient
            strain = x.new_zeros(3, 3).requires_grad_(True)
            deform = torch.eye(3, dtype=x.dtype, device=x.device) + strain
            energy = differentiable(self.module(x @ deform, self.numbers, box @ deform, pairs, images), self.module)
            gradient, virial = torch.autograd.grad(energy.sum(), (x, strain))
            return energy.detach(), -gradient, virial


class GraphProvider:
    """A graph network bound to one composition, the `ForceProvider` of trained MLFFs.

    Args:
        module: a `torch.nn.Module` as described by `GraphModel`.
        numbers: atomic numbers, shape (n,).
        pbc: periodic directions.
        execution: device, precision and acceleration; positions are centred, and energies summed, in float64.
        reference: eV, energies of the isolated atoms, shape (n,), added in float64; None if the module adds its own.
        name, provenance: for the record of a run.

    Attributes:
        memory_GB: what one call on a batch may take; None for half of what is free.
    """

    conservative = True
    batched = True

    def __init__(
        self,
        module: torch.nn.Module,
        numbers: Array | NDArray[np.int64],
        *,
        pbc: tuple[bool, ...] = (False, False, False),
        execution: Execution | None = None,
        reference: Array | None = None,
        name: str = "module",
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        """Bind; nothing is evaluated or compiled yet."""
        execution = execution or Execution()
        self.name, self.dtype, self.acceleration = name, execution.dtype, execution.acceleration
        self._dtype: torch.dtype = getattr(torch, self.dtype)
        self.device = usable(execution.device)
        # A copy: the caller's module stays as it is.
        self.module = copy.deepcopy(module).eval().requires_grad_(False).to(self.device, self._dtype)
        self.cutoff: float | None = float(module.cutoff)  # type: ignore[arg-type]
        self.numbers = np.asarray(numbers, dtype=np.int64)
        self.pbc = tuple(bool(p) for p in pbc)
        self.reference = np.zeros(len(self.numbers)) if reference is None else np.asarray(reference, dtype=np.float64)
        self.lists = [NeighborList(self.cutoff, self.acceleration.skin_A)]
        self._edges: tuple[Any, ...] = (None,)
        self._unpruned: bool | None = None  # all pairs within cutoff + skin; None until tried
        self.memory_GB: float | None = None
        self._many: dict[int, Accelerated] = {}
        self._loops = False
        self._bytes = 0
        self._provenance = dict(provenance or {})
        z = torch.from_numpy(self.numbers).to(self.device)
        self._turn_to(z)
        self.function = Accelerated(
            EnergyAndGradient(self.module, z, all(self.pbc)),
            self.acceleration,
            name,
            len(self.numbers),
            Ragged(lambda inputs: inputs[2].shape[1], self._padded),
        )
        self.seconds = dict.fromkeys(("list", "transfer"), 0.0)

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Name, precision and whatever was given."""
        return {"name": self.name, "dtype": self.dtype, **self._provenance}

    def reset(self) -> None:
        """Forget neighbour lists: their pairs are right at any age, but their order, and so rounding, has a history."""
        for neighbors in self.lists:
            neighbors.forget()

    def report(self) -> dict[str, Any]:
        """What engaged, what it deviates by, and where time went: ms per call for list, transfer and model.

        Calls on several structures have graphs of their own, which are told in `batches` by the number of structures.
        """
        calls = max(1, sum(self.function.calls.values()))
        return {
            **self.function.report(),
            "list_ms": 1e3 * self.seconds["list"] / calls,
            "transfer_ms": 1e3 * self.seconds["transfer"] / calls,
            "list_rebuilds": sum(n.rebuilds for n in self.lists),
            "edges": "within cutoff + skin" if self._unpruned else "within cutoff",
            "device": str(self.device),
            "batches": {count: many.report() for count, many in self._many.items()},
        }

    def __call__(self, positions: Array, cell: Array | None = None, /) -> Evaluation:
        """Evaluate positions of shape (n, 3) or (replicas, n, 3); stress is there if all directions are periodic.

        The cell has shape (3, 3) or, for replicas, (replicas, 3, 3); molecules need none.
        """
        if positions.ndim == 3:
            return self._replicas(positions, cell)
        inputs = self._inputs(positions, cell)

        def frames() -> list[Tensors]:
            shaken = positions + JITTER_A * np.random.default_rng(0).standard_normal(positions.shape)
            return [inputs, self._inputs(shaken, cell)]

        answer = self.function(inputs, frames)
        if self._unpruned is None and self.function.calls["accelerated"]:
            self._unpruned = self._better_unpruned(positions, cell)
        start = time.perf_counter()
        evaluation = self._answer(*(t.cpu() for t in answer), cell=cell)
        self.seconds["transfer"] += time.perf_counter() - start
        return evaluation

    # From positions to tensors, and back.

    def _inputs(self, positions: Array, cell: Array | None) -> Tensors:
        start = time.perf_counter()
        if self._unpruned:
            pairs, images = self.lists[0].candidates(positions, cell, self.pbc)
        else:
            pairs, images = self.lists[0](positions, cell, self.pbc)
        found = time.perf_counter()
        # float32 has its finest steps near the origin; and compiled graphs take rows to follow each other in memory.
        x = np.ascontiguousarray(positions - positions.mean(axis=0))
        assert self.cutoff is not None
        box = np.array(cell, order="C") if cell is not None and any(self.pbc) else 2 * self.cutoff * np.eye(3)
        edges = self._edges[1:]
        if not self._unpruned or self._edges[0] is not pairs:
            edges = torch.from_numpy(pairs).to(self.device), torch.from_numpy(images).to(self.device, self._dtype)
            self._edges = (pairs, *edges)
        inputs = (
            torch.from_numpy(x).to(self.device, self._dtype),
            torch.from_numpy(box).to(self.device, self._dtype),
            *edges,
        )
        self.seconds["list"] += found - start
        self.seconds["transfer"] += time.perf_counter() - found
        return inputs

    def _better_unpruned(self, positions: Array, cell: Array | None) -> bool:
        """True if the accelerated model is faster on all pairs within cutoff + skin, which need no work at most steps.

        That is so where the list dominates, as on a GPU. It needs an envelope that is zero beyond the cutoff; whether it
        is, is seen on this frame: the same forces to the rounding of the model.
        """
        if self.acceleration.padded or self.acceleration.skin_A == 0 or self.acceleration.prune_edges is True:
            return False
        ms, forces = {}, {}
        f = self.function
        booked = dict(self.seconds), dict(f.seconds), dict(f.calls)
        begun = time.perf_counter()
        for self._unpruned in (False, True):
            spent = []
            for _ in range(TRIALS):
                start = time.perf_counter()
                answer = self.function(self._inputs(positions, cell), list)
                forces[self._unpruned] = answer[1].cpu()
                spent.append(time.perf_counter() - start)
            ms[self._unpruned] = float(np.median(spent))
        self.seconds, f.seconds, f.calls = booked
        f.seconds["compiling"] += time.perf_counter() - begun
        rounding = 100 * torch.finfo(self._dtype).eps * float(forces[False].abs().max())
        same = float((forces[True] - forces[False]).abs().max()) <= rounding
        return same and ms[True] < ms[False]

    def _padded(self, inputs: Tensors, length: int) -> Tensors:
        """Edges up to a number: from atom 0 to an image of itself that is farther away than the cutoff."""
        x, box, pairs, images = inputs
        missing = length - pairs.shape[1]
        assert self.cutoff is not None
        far = images.new_zeros(missing, 3)
        lengths = box.norm(dim=1)
        longest = int(lengths.argmax())
        far[:, longest] = float(np.ceil(2 * self.cutoff / float(lengths[longest])))
        return x, box, torch.cat([pairs, pairs.new_zeros(2, missing)], 1), torch.cat([images, far])

    def _answer(
        self, atomic: Tensor, forces: Tensor, virial: Tensor | None = None, *, cell: Array | None
    ) -> Evaluation:
        if atomic.shape not in ((), (1,), (len(self.numbers),)):
            raise InputError(f"{self.name} returned energies of shape {tuple(atomic.shape)}; () or (n,) is expected.")
        return _evaluation(atomic, forces, virial, cell, self.reference)

    # Replicas in one call.

    def _replicas(self, positions: Array, cell: Array | None) -> Evaluation:
        count = len(positions)
        cells: list[Array | None] = [None] * count
        if cell is not None and any(self.pbc):
            cells = list(np.broadcast_to(cell, (count, 3, 3)))
        if count == 1 or self._loops:
            return stacked([self(x, h) for x, h in zip(positions, cells, strict=True)])
        start = time.perf_counter()
        assert self.cutoff is not None
        while len(self.lists) < count:
            self.lists.append(NeighborList(self.cutoff, self.acceleration.skin_A))
        graphs = [self._graph(self.numbers, *frame) for frame in zip(positions, cells, self.lists, strict=False)]
        self.seconds["list"] += time.perf_counter() - start
        if not self._bytes:
            probed = self._probe(graphs[0], cells[0])
            self._loops = probed is None
            if probed is None:
                return self._replicas(positions, cell)
            self._bytes = probed
        limit = self._budget() / self._bytes
        if self.memory_GB is None and 1 < limit < count:
            # What is free varies from call to call, and graphs are compiled for a number of structures.
            limit = 2.0 ** int(np.log2(limit))
        jobs = list(zip(graphs, cells, strict=True))
        return stacked(in_parts(jobs, [1.0] * count, max(1.0, limit), self._side_by_side))

    def each(self, structures: Sequence[tuple[NDArray[np.int64], Array, Array | None]]) -> list[Evaluation] | None:
        """Structures (numbers, positions, cell) of several compositions, of elements this one is bound to.

        None where the module needs a call for each of them.
        """
        assert self.cutoff is not None
        by_element = dict(zip(self.numbers.tolist(), self.reference.tolist(), strict=True))
        graphs = []
        for z, x, h in structures:
            graphs.append(self._graph(z.astype(np.int64), x, h, NeighborList(self.cutoff, 0.0)))

        def together(jobs: Sequence[tuple[Graph, Array | None]]) -> list[Evaluation]:
            inputs, numbers, owner = side_by_side([g for g, _ in jobs], self.device, self._dtype)
            self._turn_to(numbers)
            atomic, forces, virial = (t.cpu() for t in ManyEnergiesAndGradients(self.module, numbers, owner)(*inputs))
            answers, start = [], 0
            for (g, h), w in zip(jobs, virial, strict=True):
                here = slice(start, start + len(g.numbers))
                reference = np.array([by_element[z] for z in g.numbers.tolist()])
                answers.append(_evaluation(atomic[here], forces[here], w if all(self.pbc) else None, h, reference))
                start = here.stop
            return answers

        sizes = [float(len(g.numbers) + g.pairs.shape[1]) for g in graphs]
        jobs = list(zip(graphs, (h for _, _, h in structures), strict=True))
        largest = int(np.argmax(sizes))
        try:
            kept = self._probe(*jobs[largest])
            return None if kept is None else in_parts(jobs, sizes, self._budget() / kept * sizes[largest], together)
        finally:
            self._turn_to(torch.from_numpy(self.numbers).to(self.device))

    def _turn_to(self, numbers: Tensor) -> None:
        """Tell a module that prepares for the atoms of a call which ones they are."""
        if hasattr(self.module, "bind"):
            self.module.bind(numbers)  # type: ignore[operator]

    def _budget(self) -> float:
        """Bytes that one call may take."""
        return 0.5 * free_bytes(self.device) if self.memory_GB is None else 1e9 * self.memory_GB

    def _graph(self, z: NDArray[np.int64], x: Array, cell: Array | None, neighbors: NeighborList) -> Graph:
        pairs, images = neighbors(x, cell, self.pbc)
        return Graph(z, x, pairs, np.zeros((pairs.shape[1], 3)) if cell is None else images @ cell)

    def _probe(self, graph: Graph, cell: Array | None) -> int | None:
        """Bytes that a structure takes in a call on several, or None if the module needs a call for each.

        A structure and an expanded copy of it are evaluated side by side and alone. They are the same where energies
        are by atom and depend neither on how cells are handed over nor on what else there is (as means do).
        """
        assert self.cutoff is not None
        z = torch.from_numpy(graph.numbers).to(self.device)
        self._turn_to(z)
        alone = EnergyAndGradient(self.module, z, all(self.pbc))
        frames = [(s * graph.positions, None if cell is None else s * cell) for s in (1.0, EXPANDED)]
        right = [alone(*self._inputs(x, h)) for x, h in frames]
        if right[0][0].shape != z.shape:
            return None
        graphs = [self._graph(graph.numbers, x, h, NeighborList(self.cutoff, 0.0)) for x, h in frames]
        inputs, numbers, owner = side_by_side(graphs, self.device, self._dtype)
        try:
            kept, answer = bytes_kept(ManyEnergiesAndGradients(self.module, numbers, owner), inputs)
        except (RuntimeError, IndexError):  # for instance one weight for each atom
            return None
        limit = 1e-4 if self.dtype == "float32" else 1e-8
        for k, together in enumerate(answer[:2]):  # energies and forces
            expected = torch.cat([r[k] for r in right])
            if together.shape != expected.shape or not torch.allclose(together, expected, rtol=limit / 10, atol=limit):
                return None
        return BACKWARD * kept // 2

    def _side_by_side(self, jobs: Sequence[tuple[Graph, Array | None]]) -> list[Evaluation]:
        """Evaluate structures of this composition in one call."""
        start = time.perf_counter()
        graphs = [g for g, _ in jobs]
        inputs, numbers, owner = side_by_side(graphs, self.device, self._dtype)
        self.seconds["transfer"] += time.perf_counter() - start
        assert self.cutoff is not None
        cutoff = self.cutoff
        if len(jobs) not in self._many:
            self._many[len(jobs)] = Accelerated(
                ManyEnergiesAndGradients(self.module, numbers, owner),
                self.acceleration,
                f"{self.name} ({len(jobs)} structures in a call)",
                len(self.numbers),
                Ragged(lambda inputs: inputs[1].shape[1], lambda inputs, length: padded(inputs, length, cutoff)),
            )

        def frames() -> list[Tensors]:
            rng = np.random.default_rng(0)
            shaken = []
            for g, h in jobs:
                x = g.positions + JITTER_A * rng.standard_normal(g.positions.shape)
                shaken.append(self._graph(g.numbers, x, h, NeighborList(cutoff, 0.0)))
            return [inputs, side_by_side(shaken, self.device, self._dtype)[0]]

        atomic, forces, virial = (t.cpu() for t in self._many[len(jobs)](inputs, frames))
        start, n = time.perf_counter(), len(self.numbers)
        answers = [
            self._answer(atomic[k * n : (k + 1) * n], forces[k * n : (k + 1) * n], w if all(self.pbc) else None, cell=h)
            for k, (w, (_, h)) in enumerate(zip(virial, jobs, strict=True))
        ]
        self.seconds["transfer"] += time.perf_counter() - start
        return answers
