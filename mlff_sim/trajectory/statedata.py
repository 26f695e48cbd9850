"""The table that OpenMM's StateDataReporter writes beside a trajectory."""

from __future__ import annotations

import csv
import re
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mlff_sim.errors import InputError
from mlff_sim.forces import Array
from mlff_sim.trajectory.frame import Frame, Source
from mlff_sim.units import HARTREE, KCAL_PER_MOL, KJ_PER_MOL, MEV

COLUMNS = {
    "time": "time_ps",
    "potential energy": "potential_energy",
    "kinetic energy": "kinetic_energy",
    "total energy": "total_energy",
}
TIMES = {"fs": 1e-3, "ps": 1.0, "ns": 1e3}
ENERGIES = {
    "kj/mole": KJ_PER_MOL,
    "kj/mol": KJ_PER_MOL,
    "kcal/mole": KCAL_PER_MOL,
    "kcal/mol": KCAL_PER_MOL,
    "ev": 1.0,
    "mev": MEV,
    "hartree": HARTREE,
}
SAME_TIME = 0.01
"""Share of the time between rows by which a frame may miss its row: rounding only."""


@dataclass(frozen=True)
class Table:
    """Columns by the names that a `Frame` gives its scalars, each of shape (rows,)."""

    path: Path
    columns: Mapping[str, Array]
    notes: tuple[str, ...]


def read_table(path: Path) -> Table:
    """Read times and energies, by the units in the header; other columns are left out.

    Raises:
        InputError: no header, a column without unit or with an unknown one, nothing of use, no row, a row that is broken.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return _read(path, file)
    except UnicodeDecodeError as error:
        raise InputError(f"table '{path}' is no text; give the CSV of OpenMM's StateDataReporter.") from error


def _read(path: Path, file: Iterator[str]) -> Table:
    head = next(file, "")
    separator = next((s for s in (",", "\t", ";") if s in head), ",")
    names = [n.strip() for n in next(csv.reader([head.strip().lstrip("#")], delimiter=separator), [])]
    where = _columns(path, names)
    values = {name: array("d") for name, _, _ in where}
    notes: list[str] = []
    for number, line in enumerate(file, 2):
        words = line.strip().split(separator)
        if not line.strip():
            continue
        if not line.endswith("\n"):
            notes.append(f"'{path.name}' ends within a row, which was left out.")
            break
        try:
            if len(words) != len(names):
                raise ValueError
            row = [(name, float(words[at]) * unit) for name, at, unit in where]
        except ValueError as error:
            raise InputError(
                f"table '{path}': line {number} has not the {len(names)} numbers of the header; mend or remove it."
            ) from error
        for name, value in row:
            values[name].append(value)
    if not len(next(iter(values.values()))):
        raise InputError(f"table '{path}' holds no complete row.")
    if np.any(np.diff(values.get("time_ps", ())) <= 0):
        raise InputError(f"table '{path}': its times do not increase; give one table for each run.")
    return Table(path, {name: np.array(v) for name, v in values.items()}, tuple(notes))


def _columns(path: Path, names: list[str]) -> list[tuple[str, int, float]]:
    """(name, column, factor) of each column that is of use."""
    found, bare = [], []
    for at, name in enumerate(names):
        match = re.fullmatch(r"(.*?)\s*(?:[(\[](.*)[)\]])?", name)
        title, unit = (match[1].lower(), match[2]) if match else (name, None)
        if title not in COLUMNS:
            continue
        if unit is None:
            bare.append(name)
            continue
        known = TIMES if title == "time" else ENERGIES
        if unit.lower() not in known:
            raise InputError(f"table '{path}': the unit of '{name}' is not known; {', '.join(known)} are.")
        found.append((COLUMNS[title], at, known[unit.lower()]))
    if bare:
        raise InputError(
            f"table '{path}': no unit in the column{'s' * (len(bare) > 1)} {', '.join(bare)}; name it as "
            "StateDataReporter does: Time (ps), Potential Energy (kJ/mole)."
        )
    if not found:
        raise InputError(
            f"table '{path}' has no column of time or energy (it has {', '.join(names)[:80] or 'none'}); "
            "StateDataReporter names them Time (ps), Potential Energy (kJ/mole)."
        )
    return found


def with_table(source: Source, table: Table) -> Source:
    """The trajectory with times and energies of a table that was recorded beside it.

    Rows are found by time where both know it, else one by one.

    Raises:
        InputError: while reading, when a frame has no row, or when rows and frames cannot be matched.
    """
    notes = source.notes
    notes.extend(table.notes)
    return replace(source, frames=_joined(source, table))


def _joined(source: Source, table: Table) -> Iterator[Frame]:
    times = table.columns.get("time_ps")
    rows = len(next(iter(table.columns.values())))
    index, by_time = -1, True
    for index, frame in enumerate(source.frames):
        t = frame.scalars.get("time_ps")
        by_time = times is not None and t is not None
        row = _nearest(source, table, times, t) if times is not None and t is not None else index
        if row >= rows:
            raise _mismatch(source, table, rows)
        yield replace(frame, scalars={**frame.scalars, **{k: float(c[row]) for k, c in table.columns.items()}})
    cut = bool(source.notes)
    if not by_time and index + 1 != rows and not cut:
        raise _mismatch(source, table, rows)


def _mismatch(source: Source, table: Table, rows: int) -> InputError:
    return InputError(
        f"table '{table.path}' has {rows} rows, which is not the number of frames in '{source.path}', and without times "
        "in both they cannot be matched; record both at the same steps, with time=True."
    )


def _nearest(source: Source, table: Table, times: Array, t: float) -> int:
    """Row of a time, to rounding: XTC keeps seven digits."""
    at = int(np.searchsorted(times, t))
    row = min((k for k in (at - 1, at) if 0 <= k < len(times)), key=lambda k: abs(float(times[k]) - t))
    step = float(np.diff(times[max(row - 1, 0) : row + 2]).min(initial=np.inf))
    slack = max(SAME_TIME * step if np.isfinite(step) else 0.0, 1e-6 * abs(t))
    if abs(float(times[row]) - t) > slack:
        raise InputError(
            f"table '{table.path}' has no row for the frame at {t:g} ps of '{source.path}'; are they of one run?"
        )
    return row
