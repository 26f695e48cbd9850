"""Student files. Loading one runs no code."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlff_sim.errors import InputError
from mlff_sim.models.safefile import load_weights, no_record, read_header, sha256, write_network

if TYPE_CHECKING:
    from mlff_sim.acceleration import Execution
    from mlff_sim.models.student import Student

FORMAT = "mlff-sim-student"
VERSION = 1


def save_student(student: Student, path: str | Path) -> None:
    """Write a student to one safetensors file, atomically; any suffix will do.

    The header's `mlff_sim` entry is the student's record as JSON with format, architecture, species, energy
    shift and units added. Units: A, eV.
    """
    record = {
        **student.record,
        "format": FORMAT,
        "version": VERSION,
        "architecture": {"kind": "inverse-distance-mlp", "widths": list(student.network.widths)},
        "numbers": student.numbers.tolist(),
        "energy_shift_eV": student.energy_shift,
        "units": {"length": "A", "energy": "eV"},
    }
    write_network(student.network, record, path)


def read_record(path: str | Path) -> dict[str, Any]:
    """The JSON record of a student file, without loading tensors or torch.

    Raises:
        InputError: missing file, truncated or foreign content.
    """
    record: dict[str, Any] = read_header(path, "student", f"mlff-sim distill --out {path}")
    try:
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
        raise no_record(path, "student", "mlff-sim distill") from error
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
    from mlff_sim.models.student import InverseDistanceNet, Student

    network = InverseDistanceNet(len(record["numbers"]), record["architecture"]["widths"])
    load_weights(network, path, "student")
    record["sha256"] = sha256(path)
    return Student(
        network, np.array(record["numbers"]), record["energy_shift_eV"], record, f"student:{path}", execution
    )
