"""LAMMPS dump files (text): `dump custom` with ids, elements or types, and positions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlff_sim.errors import InputError
from mlff_sim.forces import Array
from mlff_sim.trajectory.extxyz import check_same_atoms
from mlff_sim.trajectory.frame import Frame, Source, cut_note, standard_masses
from mlff_sim.trajectory.text import Cut, Lines, columns
from mlff_sim.units import FS, PS

VELOCITY = {"real": 1.0 / FS, "metal": 1.0 / PS}
"""A/fs and A/ps in the units of this package. Both styles give distances in A."""
TIME_PS = {"real": 1e-3, "metal": 1.0}
"""What `ITEM: TIME` counts in."""
POSITIONS = (("xu", False), ("xsu", True), ("x", False), ("xs", True))
"""Columns that positions are taken from, best first, and whether they are fractions of the box."""


def open_dump(path: Path, units: str | None = None, types: Sequence[str] | None = None) -> Source:
    """Positions unwrapped where the dump has them so, velocities vx vy vz; no energies.

    Args:
        path: the dump.
        units: "real" or "metal"; needed unless the dump says them (`dump_modify units yes`).
        types: chemical symbol of each atom type, from type 1; needed unless there is a column `element`.

    Raises:
        InputError: units or elements unknown, no such file, or no complete frame in it.
    """
    notes: list[str] = []
    stream = _frames(path, units, types, notes)
    first = next(stream, None)
    if first is None:
        raise InputError(f"trajectory '{path}' holds no frame.")
    numbers = first[0]

    def frames() -> Iterator[Frame]:
        for index, (z, frame) in enumerate(chain([first], stream)):
            check_same_atoms(path, index, z, numbers)
            yield frame

    return Source(path, numbers, standard_masses(numbers), frames(), notes)


def _frames(
    path: Path, units: str | None, types: Sequence[str] | None, notes: list[str]
) -> Iterator[tuple[NDArray[np.int64], Frame]]:
    index = 0
    with Lines(path) as lines:
        try:
            while (items := _items(lines)) is not None:
                units = _units(path, items.get("UNITS"), units)
                yield _parse(path, items, units, types)
                index += 1
        except Cut:
            notes.append(cut_note(path, index))
        except UnicodeDecodeError as error:
            raise InputError(
                f"trajectory '{path}' is no text; binary dumps cannot be read, write a text dump."
            ) from error
        except InputError:
            raise
        except (ValueError, KeyError, IndexError) as error:
            reason = " ".join(str(error).split())
            raise InputError(f"trajectory '{path}': frame {index} is no LAMMPS dump of atoms ({reason}).") from error


def _items(lines: Lines) -> dict[str, Any] | None:
    """The items of one frame by name, up to and with ATOMS; None at the end of the file."""
    items: dict[str, Any] = {}
    while head := lines.head():
        if not head.startswith("ITEM: "):
            raise ValueError(f"{head[:30]!r} stands where an ITEM: should")
        item = head.removeprefix("ITEM: ")
        if item.startswith("BOX BOUNDS"):
            items["BOX"] = (item.split()[2:], [line.split() for line in lines.take(3)])
        elif item.startswith("ATOMS"):
            rows = [line.split() for line in lines.take(int(items["NUMBER OF ATOMS"]))]
            items["ATOMS"] = (item.split()[1:], rows)
            return items
        else:
            items[item] = lines.take(1)[0].strip()
    if items:
        raise Cut
    return None


def _units(path: Path, written: str | None, given: str | None) -> str:
    """The style of units, which is not guessed: distances and velocities differ between styles."""
    if written and given and written != given:
        raise InputError(f"trajectory '{path}' is in {written} units and {given} was given; leave it out.")
    units = written or given
    if units is None:
        raise InputError(f"trajectory '{path}' does not say its units: give the LAMMPS units, {' or '.join(VELOCITY)}.")
    if units not in VELOCITY:
        raise InputError(f"LAMMPS units '{units}' cannot be read; {' and '.join(VELOCITY)} can.")
    return units


def _parse(
    path: Path, items: dict[str, Any], units: str, types: Sequence[str] | None
) -> tuple[NDArray[np.int64], Frame]:
    """Atomic numbers and one frame, by ascending id."""
    names, rows = items["ATOMS"]
    if not rows:
        raise ValueError("no atoms")
    where = {name: i for i, name in enumerate(names)}
    if "id" not in where:
        raise InputError(f"trajectory '{path}' has no column id, and LAMMPS changes the order of atoms; dump it.")
    rows = sorted(rows, key=lambda row: int(row[where["id"]]))
    numbers = _numbers(path, where, rows, types)
    origin, box, periodic = _box(*items["BOX"])
    kind = next((k for k in POSITIONS if {k[0].replace("x", axis) for axis in "xyz"} <= where.keys()), None)
    if kind is None:
        raise InputError(f"trajectory '{path}' has no positions; dump x y z, or xu yu zu for unwrapped ones.")
    name, fractions = kind
    x = columns(rows, [where[name.replace("x", axis)] for axis in "xyz"])
    if fractions:
        x = origin + x @ box
    elif name == "x" and {"ix", "iy", "iz"} <= where.keys():
        x = x + columns(rows, [where[i] for i in ("ix", "iy", "iz")]) @ box
    momenta = None
    if {"vx", "vy", "vz"} <= where.keys():
        v = columns(rows, [where[c] for c in ("vx", "vy", "vz")]) * VELOCITY[units]
        momenta = v * standard_masses(numbers)[:, None]
    scalars = {"time_ps": float(items["TIME"]) * TIME_PS[units]} if "TIME" in items else {}
    return numbers, Frame(x, momenta, box if periodic else None, scalars)


def _numbers(
    path: Path, where: dict[str, int], rows: list[list[str]], types: Sequence[str] | None
) -> NDArray[np.int64]:
    from ase.data import atomic_numbers

    if "element" in where:
        symbols = [row[where["element"]] for row in rows]
    elif types and "type" in where:
        kinds = [int(row[where["type"]]) for row in rows]
        if min(kinds) < 1 or max(kinds) > len(types):
            raise InputError(
                f"trajectory '{path}' has atom types {min(kinds)} to {max(kinds)}; {len(types)} were named."
            )
        symbols = [types[k - 1] for k in kinds]
    else:
        raise InputError(
            f"trajectory '{path}' does not say its elements: dump the column element, or give the element of each "
            "type, such as C,H,O."
        )
    unknown = next((s for s in symbols if s.capitalize() not in atomic_numbers), None)
    if unknown is not None:
        raise InputError(f"trajectory '{path}': '{unknown}' is no element.")
    return np.array([atomic_numbers[s.capitalize()] for s in symbols], dtype=np.int64)


def _box(words: list[str], rows: list[list[str]]) -> tuple[Array, Array, bool]:
    """Origin, cell vectors in rows, and whether all sides are periodic.

    A tilted box is written by its bounding box: xlo_bound = xlo + min(0, xy, xz, xy + xz) and so on (LAMMPS manual,
    "Triclinic (non-orthogonal) simulation boxes"). General triclinic boxes ("abc origin") are refused.
    """
    if "abc" in words:
        raise ValueError("a general triclinic box; dump without triclinic/general")
    tilted = words[:3] == ["xy", "xz", "yz"]
    bounds = columns(rows, [0, 1, 2] if tilted else [0, 1])
    xy, xz, yz = bounds[:, 2] if tilted else (0.0, 0.0, 0.0)
    low, high = bounds[:, 0].copy(), bounds[:, 1].copy()
    low[0] -= min(0.0, xy, xz, xy + xz)
    high[0] -= max(0.0, xy, xz, xy + xz)
    low[1] -= min(0.0, yz)
    high[1] -= max(0.0, yz)
    a, b, c = high - low
    box = np.array([[a, 0.0, 0.0], [xy, b, 0.0], [xz, yz, c]])
    return low, box, words[3 if tilted else 0 :][:3] == ["pp"] * 3
