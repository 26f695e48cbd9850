"""Trained networks on disk: safetensors with a JSON record in the header. Loading one runs no code from it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlff_sim.errors import InputError

if TYPE_CHECKING:
    from torch import nn


def sha256(path: str | Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def write_network(network: nn.Module, record: Mapping[str, Any], path: str | Path) -> None:
    """Write weights, and the record as JSON in the header's `mlff_sim` entry, atomically; any suffix will do."""
    from safetensors.torch import save

    tensors = {k: v.detach().contiguous().clone() for k, v in network.state_dict().items()}
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    temporary.write_bytes(save(tensors, metadata={"mlff_sim": json.dumps(record)}))
    os.replace(temporary, target)


def read_header(path: str | Path, kind: str, made_by: str) -> Any:
    """The JSON in a file's header, without loading tensors or torch.

    Args:
        path: the file.
        kind: what it should be, for messages, e.g. "student".
        made_by: what makes one, e.g. "mlff-sim distill".

    Raises:
        InputError: missing file, truncated or foreign content, no record.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"{kind} file '{path}' does not exist; train one with: {made_by}")
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy") as f:
            meta = f.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{kind} file '{path}' is truncated or no safetensors file ({error}).") from error
    try:
        return json.loads(meta["mlff_sim"])
    except (KeyError, ValueError) as error:
        raise no_record(path, kind, made_by.partition(" --out ")[0]) from error


def no_record(path: str | Path, kind: str, made_by: str) -> InputError:
    """What is said of a file whose record is not that of its kind."""
    return InputError(f"{kind} file '{path}' is a safetensors file without a {kind} record; write one with {made_by}.")


def load_weights(network: nn.Module, path: str | Path, kind: str) -> None:
    """Fill a network from a file.

    Raises:
        InputError: weights that do not fit or are not finite.
    """
    import torch
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
        network.load_state_dict(tensors)
    except Exception as error:
        raise InputError(f"{kind} file '{path}' is corrupted ({str(error).splitlines()[0]}).") from error
    if not all(bool(torch.isfinite(t).all()) for t in tensors.values()):
        raise InputError(f"{kind} file '{path}' is corrupted (weights that are not finite).")
