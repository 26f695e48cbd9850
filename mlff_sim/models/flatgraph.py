"""A module as one flat graph of tensor operations, and what may be done to it before it runs.

A function that takes an energy and its gradient cannot be compiled as it stands: `torch.compile` breaks at the call of
autograd. Traced (`make_fx`), it is one graph, gradient included; what depends on constants only is computed once; large
products of matrices may be lowered to 16 bits; and Inductor compiles it for any number of edges.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.utils._pytree import tree_leaves, tree_map

FOLD_BYTES = 2**26
"""Constants larger than this are not formed ahead."""
LARGE = 8
"""Products of matrices are lowered to 16 bits if no dimension is smaller: geometry has 3, a read-out 1."""

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


def flattened(module: torch.nn.Module, inputs: Tensors, ragged: Ragged | None = None) -> GraphModule:
    """Trace a module, gradients within it included, into one graph; for ragged inputs of any length.

    Tracing with symbolic sizes stops at TorchScript, which many published models contain. So the graph is traced with a
    prime for the length, larger than any other: sizes in it that are multiples of this prime are multiples of the length.

    Raises:
        RuntimeError: a size depends on values, for instance on how many pairs a mask keeps; the graph would hold it fixed.
    """
    from torch.fx.experimental.proxy_tensor import make_fx

    if ragged is not None:
        # The compiler looks at the size in its choice of kernels: rounded up, it is the same for a run that is resumed.
        largest = max(size for t in inputs for size in t.shape)
        inputs = ragged.pad(inputs, _prime(max(1000, 2 ** largest.bit_length())))
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
