"""Trained graph networks as force providers: any module (positions, numbers, cell, edge_index, edge_shift) -> energy.

Energy, forces and stress come from one backward pass. To compile it, energy and gradient are traced together into one
flat graph (`make_fx`), for edges padded to a fixed number so that shapes never change; padding edges are longer than
the cutoff, where the model's envelope is zero. Whether it is, and whether the compiled graph computes the same, is not
assumed but measured on the user's own frame: the gate.
"""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlff_sim.acceleration import COMPILE_S, Execution
from mlff_sim.errors import InputError
from mlff_sim.forces import Array, Evaluation
from mlff_sim.neighbors import NeighborList

HEADROOM = 1.15
"""Padded edges over edges present when a graph is compiled; more edges than that and it is compiled anew."""
JITTER_A = 0.02
"""Random displacement of the second frame the gate looks at."""

Graph = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]


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


class GraphProvider:
    """A graph network bound to one composition, the `ForceProvider` of trained MLFFs.

    Args:
        module: a `torch.nn.Module` as described by `GraphModel`.
        numbers: atomic numbers, shape (n,).
        pbc: periodic directions.
        execution: device, precision and acceleration; positions are centred, and energies summed, in float64.
        reference: eV, energies of the isolated atoms, shape (n,), added in float64; None if the module adds its own.
        name, provenance: for the record of a run.
    """

    conservative = True
    batched = False

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
        self.module = copy.deepcopy(module).eval().requires_grad_(False).to(self._dtype)  # the caller's stays as it is
        self.cutoff: float | None = float(module.cutoff)  # type: ignore[arg-type]
        self.numbers = np.asarray(numbers, dtype=np.int64)
        self.pbc = tuple(bool(p) for p in pbc)
        self.reference = np.zeros(len(self.numbers)) if reference is None else np.asarray(reference, dtype=np.float64)
        self.neighbors = NeighborList(self.cutoff, self.acceleration.skin_A)
        self._numbers = torch.from_numpy(self.numbers)
        if hasattr(self.module, "bind"):
            self.module.bind(self._numbers)
        self._provenance = dict(provenance or {})
        self._compiled: Graph | None = None
        self._capacity = 0
        self._off = "" if self.acceleration.compile else "compile = False"
        self.compilations = 0
        self.deviation: dict[str, float] = {}
        self.seconds = dict.fromkeys(("list", "eager", "compiled", "compiling"), 0.0)
        self.calls = dict.fromkeys(("eager", "compiled"), 0)

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Name, precision and whatever was given."""
        return {"name": self.name, "dtype": self.dtype, **self._provenance}

    def reset(self) -> None:
        """Forget the neighbour list: its pairs are right at any age, but their order, and so rounding, has a history."""
        self.neighbors.forget()

    def report(self) -> dict[str, Any]:
        """What engaged, what it deviates by, and where time went."""
        ms = {f"{k}_ms": 1e3 * self.seconds[k] / n for k, n in self.calls.items() if n}
        calls = sum(self.calls.values())
        return {
            "compiled": self._compiled is not None,
            "because": self._off
            or ("engaged" if self._compiled is not None else "waiting: it would not have paid yet"),
            "compilations": self.compilations,
            "compile_s": self.seconds["compiling"],
            **self.deviation,
            **ms,
            "list_ms": 1e3 * self.seconds["list"] / calls if calls else 0.0,
            "list_rebuilds": self.neighbors.rebuilds,
            "padded_edges": self._capacity,
        }

    def __call__(self, positions: Array, cell: Array | None = None, /) -> Evaluation:
        """Evaluate positions of shape (n, 3) and, if periodic, a cell (3, 3); stress is there if all is periodic."""
        start = time.perf_counter()
        inputs = self._inputs(positions, cell)
        self.seconds["list"] += time.perf_counter() - start
        if self._wanted(inputs[2].shape[1]):
            self._compile(inputs, positions, cell)
        # "is not None" throughout: a compiled module of torch 2.13 has no truth value.
        graph = self._graph if self._compiled is None else self._compiled
        way = "eager" if self._compiled is None else "compiled"
        start = time.perf_counter()
        answer = self._evaluate(graph, inputs)
        self.seconds[way] += time.perf_counter() - start
        self.calls[way] += 1
        return self._answer(*answer, cell)

    # From positions to tensors, and back.

    def _inputs(self, positions: Array, cell: Array | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        pairs, images = self.neighbors(positions, cell, self.pbc)
        x = positions - positions.mean(axis=0)  # float32 has its finest steps near the origin
        assert self.cutoff is not None
        box = cell if cell is not None and any(self.pbc) else 2 * self.cutoff * np.eye(3)
        return (
            torch.from_numpy(x).to(self._dtype),
            torch.from_numpy(np.array(box, dtype=np.float64)).to(self._dtype),
            torch.from_numpy(pairs),
            torch.from_numpy(images).to(self._dtype),
        )

    def _padded(self, inputs: tuple[Tensor, Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Edges up to the capacity: from atom 0 to an image of itself that is farther away than the cutoff."""
        x, box, pairs, images = inputs
        missing = self._capacity - pairs.shape[1]
        assert self.cutoff is not None
        far = torch.zeros(missing, 3, dtype=images.dtype)
        lengths = box.norm(dim=1)
        longest = int(lengths.argmax())
        far[:, longest] = float(np.ceil(2 * self.cutoff / float(lengths[longest])))
        return x, box, torch.cat([pairs, pairs.new_zeros(2, missing)], 1), torch.cat([images, far])

    def _answer(self, atomic: Tensor, forces: Tensor, virial: Tensor, cell: Array | None) -> Evaluation:
        if atomic.shape not in ((), (1,), (len(self.numbers),)):
            raise InputError(f"{self.name} returned energies of shape {tuple(atomic.shape)}; () or (n,) is expected.")
        by_atom = atomic.shape == (len(self.numbers),)
        energy = atomic.numpy().sum() + self.reference.sum()
        stress = None
        if all(self.pbc) and cell is not None:
            w = virial.double().numpy() / abs(np.linalg.det(cell))
            w = 0.5 * (w + w.T)
            stress = w[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
        energies = atomic.numpy() + self.reference if by_atom else None
        return Evaluation(np.array(energy), forces.double().numpy(), stress, energies)

    # The function, eager and compiled.

    def _graph(self, x: Tensor, box: Tensor, pairs: Tensor, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Energies (n,) or () in float64, forces (n, 3) and dE/dstrain (3, 3)."""
        x = x.detach().requires_grad_(True)
        strain = torch.zeros(3, 3, dtype=x.dtype).requires_grad_(True)
        deform = torch.eye(3, dtype=x.dtype) + strain
        energy = self.module(x @ deform, self._numbers, box @ deform, pairs, images).double()
        gradient, virial = torch.autograd.grad(energy.sum(), (x, strain))
        return energy.detach(), -gradient, virial

    def _evaluate(self, graph: Graph, inputs: tuple[Tensor, Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        if graph == self._graph:
            return graph(*inputs)
        with torch.inference_mode():
            return graph(*self._padded(inputs))

    def _wanted(self, edges: int) -> bool:
        """True when a graph for so many edges should be compiled now."""
        if self._off:
            return False
        if self._compiled is not None:
            return edges > self._capacity
        return self.acceleration.compile is True or self.seconds["eager"] > COMPILE_S

    def _compile(self, inputs: tuple[Tensor, Tensor, Tensor, Tensor], positions: Array, cell: Array | None) -> None:
        """Compile for a new capacity and pass the gate, or stay eager for good."""
        start = time.perf_counter()
        self._capacity = int(HEADROOM * inputs[2].shape[1]) + 8
        try:
            graph = self._built(self._padded(inputs))
            self._off = self._gate(graph, inputs, positions, cell)
        except Exception as error:  # whatever a compiler fails with, the eager model still works
            graph, self._off = self._graph, f"compilation failed ({type(error).__name__}: {error})".split("\n")[0]
        self.compilations += 1
        self._compiled = None if self._off else graph
        self.seconds["compiling"] += time.perf_counter() - start
        if self._off:
            warnings.warn(f"{self.name} runs without compilation: {self._off}.", stacklevel=4)

    def _built(self, inputs: tuple[Tensor, Tensor, Tensor, Tensor]) -> Graph:
        from torch.fx.experimental.proxy_tensor import make_fx

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's compiler warns about its own internals on first use
            flat = make_fx(lambda *tensors: self._graph(*tensors))(*inputs)  # of a method it would count self
            graph: Graph = torch.compile(flat, dynamic=False, fullgraph=True)
            with torch.inference_mode():
                graph(*inputs)
        return graph

    def _gate(
        self, graph: Graph, inputs: tuple[Tensor, Tensor, Tensor, Tensor], positions: Array, cell: Array | None
    ) -> str:
        """Compare with the eager model on this frame and a jittered one; returns what is wrong, or nothing.

        Held to the limit per atom: the energy of every atom (of all, for a model that gives no more) and the virial.
        """
        shaken = positions + JITTER_A * np.random.default_rng(0).standard_normal(positions.shape)
        energies, forces = [0.0], [0.0]
        for frame in (inputs, self._inputs(shaken, cell)):
            if frame[2].shape[1] > self._capacity:
                continue
            (e0, f0, v0), (e1, f1, v1) = self._evaluate(self._graph, frame), self._evaluate(graph, frame)
            energies += [1e3 * float((e1 - e0).abs().max()), 1e3 * float((v1 - v0).abs().max()) / len(self.numbers)]
            forces.append(1e3 * float((f1 - f0).abs().max()))
        energy, force = float(np.max(energies)), float(np.max(forces))  # a NaN stays one, and fails below
        self.deviation = {"energy_deviation_meV_per_atom": energy, "force_deviation_meV_per_A": force}
        a = self.acceleration
        if not (energy <= a.gate_energy_meV_per_atom and force <= a.gate_force_meV_per_A):
            return (
                f"it differs from the eager model by {energy:.3g} meV/atom and {force:.3g} meV/A, "
                f"and {a.gate_energy_meV_per_atom:g} and {a.gate_force_meV_per_A:g} are allowed"
            )
        return ""
