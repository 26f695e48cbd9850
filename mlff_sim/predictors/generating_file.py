"""Files of learnt generating functions: safetensors with a JSON record in the header. Loading one runs no code."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlff_sim.errors import InputError
from mlff_sim.predictors.generating import GeneratingNet

FORMAT = "mlff-sim-generating-function"
VERSION = 1


def save_generating(network: GeneratingNet, stride_fs: float, path: str | Path, record: Mapping[str, Any]) -> None:
    """Write a network and its stride to one safetensors file, atomically.

    Args:
        network: N of this stride.
        stride_fs: h.
        path: any suffix will do.
        record: what else is worth knowing (data, errors, seconds), JSON-serialisable.
    """
    from safetensors.torch import save

    full = {
        **record,
        "format": FORMAT,
        "version": VERSION,
        "architecture": network.settings,
        "stride_fs": float(stride_fs),
        "units": {"length": "A", "energy": "eV", "mass": "u"},
    }
    tensors = {name: t.detach().contiguous().clone() for name, t in network.state_dict().items()}
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    temporary.write_bytes(save(tensors, metadata={"mlff_sim": json.dumps(full)}))
    os.replace(temporary, target)


def load_generating(path: str | Path) -> tuple[GeneratingNet, dict[str, Any]]:
    """The network of a file, and its record, of which `stride_fs` is the stride. No code from the file is run.

    Raises:
        InputError: missing, truncated, corrupted or foreign file.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    file = Path(path)
    if not file.is_file():
        raise InputError(f"generating function '{path}' does not exist; train one and save it there.")
    try:
        with safe_open(file, framework="pt") as f:
            meta = f.metadata() or {}
            tensors = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118  (no mapping)
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"generating function '{path}' is truncated or no safetensors file ({error}).") from error
    try:
        record: dict[str, Any] = json.loads(meta["mlff_sim"])
        kind = f"{record['format']} {record['version']}"
        known = record["format"] == FORMAT and record["version"] <= VERSION
        settings, stride = dict(record["architecture"]), float(record.get("stride_fs", 0.0))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"'{path}' is a safetensors file without the record of a generating function.") from error
    if not known:
        raise InputError(f"'{path}' has format {kind}; this version reads {FORMAT} up to {VERSION}.")
    try:
        network = GeneratingNet(**settings)
        network.load_state_dict(tensors)
    except Exception as error:
        raise InputError(f"generating function '{path}' is corrupted ({str(error).splitlines()[0]}).") from error
    if not stride > 0 or not all(bool(torch.isfinite(t).all()) for t in tensors.values()):
        raise InputError(f"generating function '{path}' is corrupted (no stride, or weights that are not finite).")
    return network, record
