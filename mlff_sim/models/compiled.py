"""Functions of tensors made faster, and the gate they pass first.

A function that takes an energy and its gradient cannot be compiled as it stands: `torch.compile` breaks at the call of
autograd. So it is traced first (`make_fx`), which leaves one flat graph of tensor operations; what depends on constants
only is computed once; large products of matrices may be lowered to 16 bits; and the graph is compiled by Inductor for
any number of edges. Whatever comes out is compared with the function itself on the user's own frame.
"""

from __future__ import annotations

import contextlib
import logging
import operator
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.utils._pytree import tree_leaves, tree_map

from mlff_sim.acceleration import COMPILE_S, Acceleration

HEADROOM = 1.1
"""Padded length over the length present, where lengths are fixed; more than that and the graph is compiled anew."""
FOLD_BYTES = 2**26
"""Constants larger than this are not formed ahead."""
JITTER_A = 0.02
"""Random displacement of the second frame the gate looks at."""
LARGE = 8
"""Products of matrices are lowered to 16 bits if no dimension is smaller: geometry has 3, a read-out 1."""

DEVIATIONS = ("energy_deviation_meV_per_atom", "force_deviation_meV_per_A")

Tensors = tuple[Tensor, ...]
Call = Callable[..., Tensors]


@dataclass
class Ragged:
    """How to treat inputs of which some vary in length (the edges of a graph).

    Attributes:
        length: of given inputs.
        pad: inputs prolonged to a length by entries that contribute nothing.
    """

    length: Callable[[Tensors], int]
    pad: Callable[[Tensors, int], Tensors]


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
            ready.capacity = int(HEADROOM * self.ragged.length(inputs)) + LARGE
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
        with _quiet(), _tf32(a.tf32):
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


def flattened(module: torch.nn.Module, inputs: Tensors, ragged: Ragged | None = None) -> GraphModule:
    """Trace a module, gradients within it included, into one graph; for ragged inputs of any length.

    Tracing with symbolic sizes stops at TorchScript, which many published models contain. So the graph is traced with a
    prime for the length, larger than any other: sizes in it that are multiples of this prime are multiples of the length.

    Raises:
        RuntimeError: a size depends on values, for instance on how many pairs a mask keeps; the graph would hold it fixed.
    """
    from torch.fx.experimental.proxy_tensor import make_fx

    if ragged is not None:
        inputs = ragged.pad(inputs, _prime(max(1000, *(size for t in inputs for size in t.shape))))
    flat: GraphModule = make_fx(lambda *tensors: tuple(module(*tensors)))(*inputs)
    _check_sizes(flat)
    if ragged is None:
        return flat
    _free(flat, inputs, ragged.length(inputs))
    symbolic: GraphModule = make_fx(flat, tracing_mode="symbolic", _allow_non_fake_inputs=True)(*inputs)
    return symbolic


def _check_sizes(flat: GraphModule) -> None:
    """Refuse operations whose result is as long as the values of inputs say."""
    varying: set[Node] = set()
    for node in flat.graph.nodes:
        if node.op != "placeholder" and not varying.intersection(node.all_input_nodes):
            continue
        varying.add(node)
        if torch.Tag.dynamic_output_shape not in getattr(node.target, "tags", ()):
            continue
        if node.target is torch.ops.aten.index.Tensor:
            masks = (n for n in node.args[1] if n in varying and n.meta["val"].dtype in (torch.bool, torch.uint8))
            if not any(masks):
                continue
        raise RuntimeError(f"the size of a result of {node.target} depends on values")


def _prime(above: int) -> int:
    """The first prime above a number."""
    n = above + 1
    while any(n % k == 0 for k in range(2, int(n**0.5) + 1)):
        n += 1
    return n


def _free(flat: GraphModule, inputs: Tensors, length: int) -> None:
    """Write multiples of a prime length, in the arguments of all operations, as multiples of the size of an input."""
    holders = [n for n in flat.graph.nodes if n.op == "placeholder"]
    node, dim = next((n, t.shape.index(length)) for n, t in zip(holders, inputs, strict=True) if length in t.shape)
    with flat.graph.inserting_after(holders[-1]):
        size = flat.graph.call_function(torch.ops.aten.sym_size.int, (node, dim))
    for node in list(flat.graph.nodes):
        if node.op != "call_function" or node is size:
            continue

        def freed(value: Any, node: Node = node) -> Any:
            if type(value) is not int or value in (0, sys.maxsize) or value % length:
                return value
            if value == length:
                return size
            with flat.graph.inserting_before(node):
                return flat.graph.call_function(operator.mul, (size, value // length))

        node.args = tree_map(freed, node.args)
        node.kwargs = tree_map(freed, node.kwargs)
    flat.recompile()


def compiled(flat: GraphModule, inputs: Tensors, options: dict[str, Any]) -> Call:
    """Compile a flat graph with Inductor, without the checks that `torch.compile` makes at every call."""
    from torch._inductor import standalone_compile

    nodes = flat.graph.nodes
    stand_ins = [n.meta["val"] for n in nodes if n.op == "placeholder"]
    symbolic = any(not isinstance(size, int) for v in stand_ins for size in v.shape)
    for node in nodes:
        if symbolic and "val" in node.meta:
            node.meta["example_value"] = node.meta["val"]  # where the compiler looks for symbolic sizes
    graph: Call = standalone_compile(
        flat,
        stand_ins if symbolic else list(inputs),
        dynamic_shapes="from_graph" if symbolic else "from_example_inputs",
        options={"config_patches": options},
    )
    graph(*inputs)
    return graph


def fold_constants(flat: GraphModule) -> None:
    """Compute what depends on weights and other constants only, once."""
    written, changing = _written(flat), set[Node]()
    while True:
        known = _known(flat, changing)
        storages = {known[n].untyped_storage().data_ptr() for n in written if n in known}
        changed = {n for n, value in known.items() if value.untyped_storage().data_ptr() in storages}
        if not changed:
            break
        changing |= changed
    for k, (node, value) in enumerate(known.items()):
        if node.op == "get_attr" or all(user in known for user in node.users):
            continue
        name = f"_folded_{k}"
        flat.register_buffer(name, value.detach().contiguous(), persistent=False)
        with flat.graph.inserting_before(node):
            constant = flat.graph.get_attr(name)
        constant.meta = node.meta
        node.replace_all_uses_with(constant)
    flat.graph.eliminate_dead_code()
    flat.recompile()


def _written(flat: GraphModule) -> set[Node]:
    """Tensors that some operation changes in place: constant they are only at first."""
    written: set[Node] = set()
    for node in flat.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        for k, argument in enumerate(schema.arguments if schema is not None and schema.is_mutable else ()):
            if argument.alias_info is not None and argument.alias_info.is_write:
                given = node.args[k] if k < len(node.args) else node.kwargs.get(argument.name)
                written |= {leaf for leaf in tree_leaves(given) if isinstance(leaf, Node)}
    return written


def _known(flat: GraphModule, changing: set[Node]) -> dict[Node, Tensor]:
    """Values of what depends on constants only, apart from nodes that are changing."""
    known: dict[Node, Tensor] = {}
    for node in flat.graph.nodes:
        if node in changing:
            continue
        if node.op == "get_attr":
            value = _attribute(flat, str(node.target))
            if isinstance(value, Tensor):
                known[node] = value
            continue
        sources = node.all_input_nodes
        if node.op != "call_function" or not sources or not all(s in known for s in sources):
            continue
        schema = getattr(node.target, "_schema", None)
        if schema is None or schema.is_mutable or torch.Tag.nondeterministic_seeded in node.target.tags:
            continue
        args, kwargs = torch.fx.node.map_arg((node.args, dict(node.kwargs)), lambda n: known[n])
        with torch.no_grad():
            value = node.target(*args, **kwargs)
        if isinstance(value, Tensor) and value.numel() * value.element_size() <= FOLD_BYTES:
            known[node] = value
    return known


def lower_products(flat: GraphModule, dtype: torch.dtype) -> None:
    """Round the factors of large float32 matrix products to 16 bits; sums stay in float32 and results return to it.

    Gradients are in the graph like everything else, and are lowered alike.
    """
    aten = torch.ops.aten
    for node in list(flat.graph.nodes):
        if node.target not in (aten.mm.default, aten.bmm.default, aten.addmm.default, aten.baddbmm.default):
            continue
        *bias, a, b = node.args[:3] if node.target in (aten.addmm.default, aten.baddbmm.default) else node.args
        values = a.meta["val"], b.meta["val"]
        sizes = [*values[0].shape[-2:], values[1].shape[-1]]
        if any(v.dtype != torch.float32 for v in values) or any(isinstance(s, int) and s < LARGE for s in sizes):
            continue
        if bias and (node.kwargs or len(node.args) > 3):  # scaled sums
            continue
        product = aten.bmm.default if a.meta["val"].ndim == 3 else aten.mm.default
        with flat.graph.inserting_before(node):
            low = [flat.graph.call_function(aten._to_copy.default, (x,), {"dtype": dtype}) for x in (a, b)]
            result = flat.graph.call_function(product, tuple(low))
            result = flat.graph.call_function(aten._to_copy.default, (result,), {"dtype": torch.float32})
            if bias:
                result = flat.graph.call_function(aten.add.Tensor, (result, bias[0]))
        result.meta = node.meta
        for x, source in zip(low, (a, b), strict=True):
            x.meta = {"val": source.meta["val"].to(dtype)}
        node.replace_all_uses_with(result)
        flat.graph.erase_node(node)
    flat.recompile()


def _attribute(module: torch.nn.Module, target: str) -> Any:
    found: Any = module
    for name in target.split("."):
        found = getattr(found, name)
    return found


def _distance(a: Tensor, b: Tensor) -> float:
    """Largest deviation, NaN if there is one."""
    return float((a - b).abs().max()) if a.numel() else 0.0


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
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
