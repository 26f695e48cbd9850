"""Tensor functions with an accelerated form, and the gate it passes first.

What `flatgraph.py` makes of a module is compared with the module itself, on the user's own frame and a shaken copy,
before it is used; where it deviates too far or fails, the module is used.
"""

from __future__ import annotations

import contextlib
import logging
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mlff_sim.acceleration import COMPILE_S, Acceleration
from mlff_sim.models.flatgraph import Call, Ragged, Tensors, compiled, flattened, fold_constants, lower_products

HEADROOM = 1.1
"""Padded length over the length present, where lengths are fixed; more than that and the graph is compiled anew."""
SPARE = 8
"""Added to it, for small systems."""
JITTER_A = 0.02
"""Random displacement of the second frame the gate looks at."""

DEVIATIONS = ("energy_deviation_meV_per_atom", "force_deviation_meV_per_A")


@dataclass
class _Ready:
    """A graph that passed the gate, or None, for inputs of one shape."""

    graph: Call | None
    capacity: int = 0


@dataclass
class Accelerated:
    """A module of tensors to (energies, forces, ...) with its accelerated forms, one for each shape of the first input.

    Attributes:
        module: called as it is where nothing faster is at hand. Energies are (n,) or () in eV; forces (..., 3) in eV/A;
            a third result, the virial in eV, is held to the limit of the energy.
        acceleration: what may be done.
        name: of the model, for the warning.
        n_atoms: whom an energy for all is shared by.
        ragged: for inputs of varying length.
        replicas: True where energies (replicas,) are those of whole structures.
        off: why nothing is accelerated, or empty.
        seconds, calls: spent in "eager" and "accelerated" calls, and on "compiling".
        deviation: the largest the gate has seen.
        compilations: how often a graph was built.
    """

    module: torch.nn.Module
    acceleration: Acceleration
    name: str
    n_atoms: int
    ragged: Ragged | None = None
    replicas: bool = False
    off: str = ""
    compilations: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("eager", "accelerated", "compiling"), 0.0))
    calls: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("eager", "accelerated"), 0))
    deviation: dict[str, float] = field(default_factory=dict)
    _ready: dict[torch.Size, _Ready] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Say at once if nothing is asked for."""
        a = self.acceleration
        if not (a.compile or a.autocast or a.tf32):
            self.off = "compile = False"

    def __call__(self, inputs: Tensors, frames: Callable[[], list[Tensors]]) -> Tensors:
        """Evaluate; `frames` gives the inputs that the gate compares on, when something new is about to be used."""
        key = inputs[0].shape
        if not self.off and self._wanted(key, inputs):
            self._prepare(key, inputs, frames)
        ready = self._ready.get(key)
        start = time.perf_counter()
        if ready is None or ready.graph is None:
            way, answer = "eager", tuple(self.module(*inputs))
        else:
            way, answer = "accelerated", self._fast(ready, inputs)
        if answer[0].is_cuda:  # only then has the GPU done its work; results are fetched next in any case
            torch.cuda.synchronize(answer[0].device)
        self.seconds[way] += time.perf_counter() - start
        self.calls[way] += 1
        return answer

    def report(self) -> dict[str, Any]:
        """What engaged, why or why not, and what it cost and deviates by."""
        a, engaged = self.acceleration, any(r.graph is not None for r in self._ready.values())
        spent = self.seconds["eager"] + self.seconds["accelerated"]
        return {
            "compiled": engaged and bool(a.compile),
            "autocast": a.autocast if engaged else None,
            "cuda_graphs": engaged and a.cuda_graphs,
            "because": self.off or ("engaged" if engaged else "waiting: it would not have paid yet"),
            "compilations": self.compilations,
            "recompilations": max(0, self.compilations - len(self._ready)),
            "compile_s": self.seconds["compiling"],
            **self.deviation,
            **{f"{way}_ms": 1e3 * self.seconds[way] / n for way, n in self.calls.items() if n},
            "model_ms": 1e3 * spent / max(1, sum(self.calls.values())),
            "padded_edges": max((r.capacity for r in self._ready.values()), default=0),
        }

    def _wanted(self, key: torch.Size, inputs: Tensors) -> bool:
        """True when a graph for such inputs should be built now."""
        ready = self._ready.get(key)
        if ready is not None:
            return bool(ready.capacity and self.ragged and self.ragged.length(inputs) > ready.capacity)
        if self.acceleration.compile == "auto":
            return self.seconds["eager"] > COMPILE_S * (1 + len(self._ready))
        return True

    def _prepare(self, key: torch.Size, inputs: Tensors, frames: Callable[[], list[Tensors]]) -> None:
        """Build a graph and pass the gate, or stay with the module for good."""
        start = time.perf_counter()
        ready = _Ready(None)
        if self.ragged and self.acceleration.padded:
            ready.capacity = int(HEADROOM * self.ragged.length(inputs)) + SPARE
        try:
            ready.graph = self.built(self._shaped(ready, inputs))
            self.off = self._gate(ready, frames())
        except Exception as error:  # whatever a compiler fails with, the module still works
            self.off = f"compilation failed ({type(error).__name__}: {error})".split("\n")[0]
        self.compilations += 1
        if self.off:
            self._ready.clear()
            warnings.warn(f"{self.name} runs without acceleration: {self.off}.", stacklevel=5)
        else:
            self._ready[key] = ready
        self.seconds["compiling"] += time.perf_counter() - start

    def _shaped(self, ready: _Ready, inputs: Tensors) -> Tensors:
        if self.ragged is None:
            return inputs
        # A graph for any length is one for two or more: compilers take none and one for special.
        length = ready.capacity or max(2, self.ragged.length(inputs))
        return inputs if length == self.ragged.length(inputs) else self.ragged.pad(inputs, length)

    def _fast(self, ready: _Ready, inputs: Tensors) -> Tensors:
        assert ready.graph is not None
        inputs = self._shaped(ready, inputs)
        if self.acceleration.tf32:
            with torch.no_grad(), _tf32(True):
                return tuple(ready.graph(*inputs))
        with torch.no_grad():
            return tuple(ready.graph(*inputs))

    def built(self, inputs: Tensors) -> Call:
        """The accelerated form for inputs like these."""
        a = self.acceleration
        with quiet(), _tf32(a.tf32):
            if not (a.compile or a.autocast):
                return self.module
            ragged = None if a.padded else self.ragged
            flat = flattened(self.module, inputs, ragged)
            if a.autocast:
                lower_products(flat, getattr(torch, a.autocast))
            fold_constants(flat)
            if not a.compile:
                return flat
            options: dict[str, Any] = dict(torch._inductor.list_mode_options(a.compile_mode) or {})
            # Inputs are made by the provider, always alike; checking their strides takes a fifth of a small student.
            options |= {"triton.cudagraphs": a.cuda_graphs, "size_asserts": False}
            with torch.inference_mode():
                return compiled(flat, inputs, options)

    def _gate(self, ready: _Ready, frames: list[Tensors]) -> str:
        """Compare with the module on frames; returns what is wrong, or nothing.

        Held to the limit per atom: the energy of every atom (or of all, shared) and the virial.
        """
        energies, forces = ([self.deviation.get(name, 0.0)] for name in DEVIATIONS)
        for frame in frames:
            if ready.capacity and self.ragged and self.ragged.length(frame) > ready.capacity:
                continue
            right, fast = self.module(*frame), self._fast(ready, frame)
            share = self.n_atoms if self.replicas or right[0].numel() == 1 else 1
            energies.append(1e3 * _distance(right[0], fast[0]) / share)
            forces.append(1e3 * _distance(right[1], fast[1]))
            energies += [1e3 * _distance(r, f) / self.n_atoms for r, f in zip(right[2:], fast[2:], strict=True)]
        # Maxima of torch keep a NaN, which fails below.
        energy, force = float(torch.tensor(energies).max()), float(torch.tensor(forces).max())
        self.deviation = dict(zip(DEVIATIONS, (energy, force), strict=True))
        a = self.acceleration
        if not (energy <= a.gate_energy_meV_per_atom and force <= a.gate_force_meV_per_A):
            return (
                f"it differs from the eager model by {energy:.3g} meV/atom and {force:.3g} meV/A, "
                f"and {a.gate_energy_meV_per_atom:g} and {a.gate_force_meV_per_A:g} are allowed"
            )
        return ""


def _distance(a: Tensor, b: Tensor) -> float:
    """Largest deviation, NaN if there is one."""
    return float((a - b).abs().max()) if a.numel() else 0.0


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Torch's compiler warns about its own internals on first use, and about a CUDA it finds without a GPU."""
    log = logging.getLogger("torch.utils.cpp_extension")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


@contextlib.contextmanager
def _tf32(allowed: bool) -> Iterator[None]:
    """Let GPUs round the factors of float32 products, and only here."""
    if not (allowed and torch.cuda.is_available()):
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
