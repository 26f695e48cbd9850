"""Files of learnt generating functions. Loading one runs no code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlff_sim.errors import InputError
from mlff_sim.models.safefile import load_weights, no_record, read_header, write_network
from mlff_sim.predictors.generating import GeneratingNet

FORMAT = "mlff-sim-generating-function"
VERSION = 1
KIND, MADE_BY = "generating-function", "mlff_sim.predictors.generating_training"


def save_generating(network: GeneratingNet, stride_fs: float, path: str | Path, record: Mapping[str, Any]) -> None:
    """Write a network and its stride to one safetensors file, atomically.

    Args:
        network: N of this stride.
        stride_fs: h.
        path: any suffix will do.
        record: what else is worth knowing (data, errors, seconds), JSON-serialisable.
    """
    full = {
        **record,
        "format": FORMAT,
        "version": VERSION,
        "architecture": network.settings,
        "stride_fs": float(stride_fs),
        "units": {"length": "A", "energy": "eV", "mass": "u"},
    }
    write_network(network, full, path)


def load_generating(path: str | Path) -> tuple[GeneratingNet, dict[str, Any]]:
    """The network of a file, and its record, of which `stride_fs` is the stride. No code from the file is run.

    Raises:
        InputError: missing, truncated, corrupted or foreign file.
    """
    record: dict[str, Any] = read_header(path, KIND, MADE_BY)
    try:
        kind = f"{record['format']} {record['version']}"
        known = record["format"] == FORMAT and record["version"] <= VERSION
        settings, stride = dict(record["architecture"]), float(record.get("stride_fs", 0.0))
    except (KeyError, TypeError, ValueError) as error:
        raise no_record(path, KIND, MADE_BY) from error
    if not known:
        raise InputError(f"'{path}' has format {kind}; this version reads {FORMAT} up to {VERSION}.")
    try:
        network = GeneratingNet(**settings)
        if not stride > 0:
            raise ValueError("no stride")
    except Exception as error:
        raise InputError(f"{KIND} file '{path}' is corrupted ({str(error).splitlines()[0]}).") from error
    load_weights(network, path, KIND)
    return network, record
