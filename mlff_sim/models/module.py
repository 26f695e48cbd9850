"""Any `torch.nn.Module` with the signature of `GraphModel` as a force provider, given as an object or by name."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from mlff_sim.acceleration import Execution
from mlff_sim.errors import InputError
from mlff_sim.models.factory import find
from mlff_sim.models.graph import GraphProvider
from mlff_sim.structure import check_elements

if TYPE_CHECKING:
    from ase import Atoms

SIGNATURE = "forward(positions, numbers, cell, edge_index, edge_shift)"


def bind_module(
    module: torch.nn.Module,
    atoms: Atoms,
    execution: Execution | None = None,
    *,
    name: str = "module",
    provenance: Mapping[str, Any] | None = None,
) -> GraphProvider:
    """Bind a module to the composition and the periodic directions of a structure.

    Args:
        module: see `GraphModel`. If it has an attribute `elements`, atomic numbers, others are refused.
        atoms: the structure.
        execution: device, precision and acceleration.
        name: what messages call it.
        provenance: for the record of a run.

    Raises:
        InputError: no module of this signature, no cutoff, an element it does not know, or a GPU that is not there.
    """
    if not isinstance(module, torch.nn.Module):
        gives = "the model is" if name == "module" else f"'{name}' gives"
        hint = " is needed, or a name such as mace:FILE (see mlff-sim models)" if name == "module" else " is needed"
        raise InputError(
            f"{gives} an object of the class {type(module).__name__}; a torch.nn.Module with {SIGNATURE}{hint}."
        )
    if not hasattr(module, "cutoff"):
        raise InputError(
            f"a {type(module).__name__} needs an attribute `cutoff` in A, and {SIGNATURE}, to be used as a model; "
            "a trained MACE is used by name, mace:FILE."
        )
    try:
        cutoff = float(module.cutoff)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        cutoff = float("nan")
    if not 0 < cutoff < float("inf"):
        raise InputError(f"the cutoff of a {type(module).__name__} is {module.cutoff!r}; it must be positive, in A.")
    _check_signature(module)
    known = getattr(module, "elements", None)
    if known is not None:
        check_elements(atoms.numbers, [int(z) for z in known], f"'{name}'")
    pbc = tuple(bool(p) for p in atoms.pbc)
    return GraphProvider(module, atoms.numbers, pbc=pbc, execution=execution, name=name, provenance=provenance)


def _check_signature(module: torch.nn.Module) -> None:
    try:
        signature = inspect.signature(module.forward)
    except (TypeError, ValueError):  # what is not written in Python does not always tell
        return
    try:
        signature.bind(*range(5))
    except TypeError:
        raise InputError(f"forward{signature} of a {type(module).__name__} should be {SIGNATURE} -> energy.") from None


def load_module(argument: str, atoms: Atoms, execution: Execution | None = None) -> GraphProvider:
    """Build `module:package.module:factory` or `module:path/to/file.py:factory`, which runs the user's code.

    The factory takes no argument and returns a module as described by `GraphModel`, with its weights.

    Raises:
        InputError: the factory cannot be loaded, fails, or returns something else; see `bind_module`.
    """
    name = f"module:{argument}"
    factory = find("module", argument, f"a torch.nn.Module with {SIGNATURE}")
    try:
        module = factory()
    except Exception as error:
        raise InputError(
            f"'{name}' failed to build its module ({type(error).__name__}: {error}).".replace("\n", " ")
        ) from error
    provenance = {"factory": argument}
    if isinstance(module, torch.nn.Module):
        provenance["sha256"] = fingerprint(module)
    return bind_module(module, atoms, execution, name=name, provenance=provenance)


def fingerprint(module: torch.nn.Module) -> str:
    """SHA-256 of the names, shapes, types and values of all parameters and buffers that a module saves."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        if not isinstance(tensor, torch.Tensor):  # the extra state a module may keep
            digest.update(f"{name} {tensor!r}\n".encode())
            continue
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {tuple(values.shape)} {values.dtype}\n".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
