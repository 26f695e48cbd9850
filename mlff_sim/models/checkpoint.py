"""Student files: safetensors with a JSON record in the header. Loading one runs no code."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlff_sim.errors import InputError

if TYPE_CHECKING:
    from mlff_sim.acceleration import Execution
    from mlff_sim.models.student import Student

FORMAT = "mlff-sim-student"
VERSION = 1


def sha256(path: str | Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def save_student(student: Student, path: str | Path) -> None:
    """Write a student to one safetensors file, atomically; any suffix will do.

    The header's `mlff_sim` entry is the student's record as JSON with format, architecture, species, energy
    shift and units added. Units: A, eV.
    """
    from safetensors.torch import save

    record = {
        **student.record,
        "format": FORMAT,
        "version": VERSION,
        "architecture": {"kind": "inverse-distance-mlp", "widths": list(student.network.widths)},
        "numbers": student.numbers.tolist(),
        "energy_shift_eV": student.energy_shift,
        "units": {"length": "A", "energy": "eV"},
    }
    tensors = {k: v.detach().contiguous().clone() for k, v in student.network.state_dict().items()}
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    temporary.write_bytes(save(tensors, metadata={"mlff_sim": json.dumps(record)}))
    os.replace(temporary, target)


def read_record(path: str | Path) -> dict[str, Any]:
    """The JSON record of a student file, without loading tensors or torch.

    Raises:
        InputError: missing file, truncated or foreign content.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"student file '{path}' does not exist; train one with: mlff-sim distill --out {path}")
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy") as f:
            meta = f.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"student file '{path}' is truncated or no safetensors file ({error}).") from error
    try:
        record: dict[str, Any] = json.loads(meta["mlff_sim"])
        known = (
            record["format"] == FORMAT
            and record["version"] <= VERSION
            and record["architecture"]["kind"] == "inverse-distance-mlp"
        )
        if known:
            record["numbers"] = [int(z) for z in record["numbers"]]
            record["architecture"]["widths"] = [int(w) for w in record["architecture"]["widths"]]
            record["energy_shift_eV"] = float(record["energy_shift_eV"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"student file '{path}' is a safetensors file without a student record; write one with mlff-sim distill."
        ) from error
    if not known:
        raise InputError(
            f"student file '{path}' has format {record['format']} {record['version']} "
            f"({record['architecture']['kind']}); this version reads {FORMAT} up to {VERSION}."
        )
    return record


def load_student(path: str | Path, execution: Execution | None = None) -> Student:
    """Load a student written by `save_student`. No code from the file is run.

    Raises:
        InputError: missing, truncated, corrupted or foreign file.
    """
    record = read_record(path)
    import torch
    from safetensors.torch import load_file

    from mlff_sim.models.student import InverseDistanceNet, Student

    network = InverseDistanceNet(len(record["numbers"]), record["architecture"]["widths"])
    try:
        tensors = load_file(path)
        network.load_state_dict(tensors)
    except Exception as error:
        raise InputError(f"student file '{path}' is corrupted ({str(error).splitlines()[0]}).") from error
    if not all(bool(torch.isfinite(t).all()) for t in tensors.values()):
        raise InputError(f"student file '{path}' is corrupted (weights that are not finite).")
    record["sha256"] = sha256(path)
    return Student(
        network, np.array(record["numbers"]), record["energy_shift_eV"], record, f"student:{path}", execution
    )
