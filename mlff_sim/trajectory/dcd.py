"""DCD files as CHARMM, NAMD and OpenMM write them, read with NumPy: MDTraj's reader prints to the terminal."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlff_sim.errors import InputError
from mlff_sim.forces import Array
from mlff_sim.trajectory.frame import Frame, cell_from_lengths, cut_note, in_double

AKMA_PS = 0.04888821
"""CHARMM's unit of time in ps, as OpenMM and NAMD write it into the header: A (u mol / kcal)^1/2."""
HONEST = (b"Created by OpenMM", b"NAMD")
"""Programs whose header holds the time step. Others leave what they like there."""


@dataclass(frozen=True)
class Header:
    """What stands before the first frame.

    Attributes:
        atoms: in every frame.
        start: byte at which the frames start.
        cell: whether each frame begins with a unit cell.
        order: "<" or ">", of the bytes.
        announced: frames according to the header; 0 where it was never brought up to date.
        first_ps: time of the first frame; None where the header cannot be trusted to know.
        step_ps: time between frames; None likewise.
    """

    atoms: int
    start: int
    cell: bool
    order: str
    announced: int
    first_ps: float | None
    step_ps: float | None

    @property
    def frame_bytes(self) -> int:
        """Bytes of a frame: three records of floats between their lengths, after the cell."""
        return 3 * (8 + 4 * self.atoms) + (56 if self.cell else 0)


def read_header(path: Path) -> Header:
    """The header of a DCD file.

    Raises:
        InputError: it is none, ends there, or keeps some atoms only once (fixed atoms).
    """
    try:
        with path.open("rb") as file:
            return _header(path, file.read(1 << 16))
    except struct.error as error:
        raise InputError(
            f"trajectory '{path}' ends within its header: it is truncated; copy or record it again."
        ) from error


def _header(path: Path, data: bytes) -> Header:
    order = next((o for o in "<>" if data[:8] == struct.pack(o + "i", 84) + b"CORD"), None)
    if order is None:
        short = len(data) < 8
        what = "ends within its header: it is truncated" if short else "is no DCD file"
        raise InputError(f"trajectory '{path}' {what}; copy or record it again.")
    words = struct.unpack_from(order + "9if11i", data, 8)
    if words[8]:
        raise InputError(f"trajectory '{path}' leaves out fixed atoms, which is not supported; record all atoms.")
    title_bytes = struct.unpack_from(order + "i", data, 92)[0]
    at = 96 + title_bytes + 4
    length, atoms = struct.unpack_from(order + "2i", data, at)
    if length != 4 or atoms <= 0 or title_bytes < 0:
        raise InputError(f"trajectory '{path}' is no DCD file: its header is damaged.")
    struct.unpack_from(order + "i", data, at + 8)  # its end has to be there
    first = step = None
    if any(name in data[96:at] for name in HONEST) and words[9] > 0 and words[2] > 0:
        step = float(words[9]) * words[2] * AKMA_PS
        first = float(words[9]) * words[1] * AKMA_PS
    return Header(int(atoms), at + 12, bool(words[10]), order, int(words[0]), first, step)


def frames(path: Path, notes: list[str]) -> Iterator[Frame]:
    """Positions, cells, and times where the header knows them; a DCD holds no velocities and no energies.

    Raises:
        InputError: no complete frame, or records of another length than the header says.
    """
    header = read_header(path)
    whole, rest = divmod(path.stat().st_size - header.start, header.frame_bytes)
    if rest or whole < header.announced:
        note = cut_note(path, whole)
        notes.append(note if rest else f"'{path.name}' is truncated: {whole} of {header.announced} frames are there.")
    count, lead = header.atoms, 56 if header.cell else 0
    with path.open("rb") as file:
        file.seek(header.start)
        for index in range(whole):
            data = file.read(header.frame_bytes)
            body = np.frombuffer(data, header.order + "f4", offset=lead).reshape(3, count + 2)
            lengths = body[:, [0, -1]].copy().view(header.order + "i4")
            if np.any(lengths != 4 * count):
                raise InputError(f"trajectory '{path}' is damaged: frame {index} is not as long as the header says.")
            cell = _cell(np.frombuffer(data, header.order + "f8", 6, offset=4)) if header.cell else None
            scalars = {}
            if header.step_ps is not None and header.first_ps is not None:
                scalars["time_ps"] = header.first_ps + index * header.step_ps
            yield Frame(in_double(body[:, 1:-1].T), None, cell, scalars)


def _cell(record: Array) -> Array | None:
    """Vectors of the cell A, gamma, B, beta, alpha, C, its angles as such or as their cosines (Charmm >= 22, OpenMM)."""
    a, gamma, b, beta, alpha, c = (float(v) for v in record)
    angles = np.array([alpha, beta, gamma])
    if np.all(np.abs(angles) <= 1.0):
        angles = 90.0 - np.degrees(np.arcsin(angles))
    return cell_from_lengths(np.array([a, b, c]), angles)
