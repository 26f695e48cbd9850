"""Extended XYZ: text, a comment line with keys, a line for each atom."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlff_sim.errors import InputError
from mlff_sim.forces import Array
from mlff_sim.trajectory.frame import Frame, Source, cut_note, standard_masses
from mlff_sim.trajectory.text import Cut, Lines, columns

TIME_PS = {"time_ps": 1.0, "time_fs": 1e-3}
"""Keys of the comment line that say their unit. A plain `time` is fs with some programs and ps with others."""


def open_extxyz(path: Path) -> Source:
    """Positions in A, `momenta` in ASE's units, `energy` in eV (of a calculator), `Lattice` in A.

    Raises:
        InputError: not such a file, or no complete frame in it. While reading: other atoms in a later frame.
    """
    notes: list[str] = []
    stream = _frames(path, notes)
    first = next(stream, None)
    if first is None:
        raise InputError(f"trajectory '{path}' holds no frame.")
    numbers, masses, _ = first
    masses = standard_masses(numbers) if masses is None else masses

    def frames() -> Iterator[Frame]:
        for index, (z, _, frame) in enumerate(chain([first], stream)):
            check_same_atoms(path, index, z, numbers)
            yield frame

    return Source(path, numbers, masses, frames(), notes)


def check_same_atoms(path: Path, index: int, numbers: NDArray[np.int64], first: NDArray[np.int64]) -> None:
    """Refuse a frame of other atoms than the first has.

    Raises:
        InputError: naming the frame.
    """
    if len(numbers) != len(first):
        raise InputError(
            f"trajectory '{path}': frame {index} has {len(numbers)} atoms and the first has {len(first)}; "
            "give one file for each system."
        )
    if not np.array_equal(numbers, first):
        atom = int(np.argmax(numbers != first))
        raise InputError(
            f"trajectory '{path}': atom {atom} of frame {index} is another element than in the first frame; "
            "give one file for each system, its atoms in one order."
        )


def written_time(info: Mapping[str, Any], notes: list[str]) -> dict[str, float]:
    """The time in ps as "time_ps", of the keys of a frame that say their unit; a note where one does not."""
    for key, unit in TIME_PS.items():
        if key in info:
            return {"time_ps": float(info[key]) * unit}
    if "time" in info:
        _once(notes, "The frames carry a 'time' without a unit, which was not used; write time_ps or time_fs.")
    return {}


def _frames(path: Path, notes: list[str]) -> Iterator[tuple[NDArray[np.int64], Array | None, Frame]]:
    """Atomic numbers, masses (where given) and the frame."""
    known: dict[str, Any] = {}
    index = 0
    with Lines(path) as lines:
        try:
            while head := lines.head():
                if not head.isdigit() or int(head) == 0:
                    raise InputError(
                        f"trajectory '{path}': frame {index} begins with {head[:30]!r} where XYZ has the number of atoms."
                    )
                comment, *atoms = lines.take(1 + int(head))
                yield _parse(comment, atoms, known, notes)
                index += 1
        except Cut:
            notes.append(cut_note(path, index))
        except UnicodeDecodeError as error:
            raise InputError(f"trajectory '{path}' is no text, as an XYZ file must be.") from error
        except InputError:
            raise
        except (ValueError, KeyError, IndexError, TypeError) as error:
            reason = " ".join(str(error).split())
            raise InputError(f"trajectory '{path}': frame {index} is no extended XYZ ({reason}).") from error


def _parse(
    comment: str, atoms: list[str], known: dict[str, Any], notes: list[str]
) -> tuple[NDArray[np.int64], Array | None, Frame]:
    """One frame; `known` remembers the layout and the species of the one before."""
    from ase.io.extxyz import key_val_str_to_dict

    info = key_val_str_to_dict(comment) if "=" in comment else {}
    layout = info.get("Properties", "species:S:1:pos:R:3")
    if layout != known.get("layout"):
        known.update(layout=layout, columns=_layout(str(layout)))
    where: dict[str, list[int]] = known["columns"]
    rows = [line.split() for line in atoms]
    label = where.get("species") or where["Z"]
    species = [row[label[0]] for row in rows]
    if species != known.get("species"):
        known.update(species=species, numbers=_numbers(species))
    wanted = [name for name in ("pos", "momenta", "masses") if name in where]
    numbers = columns(rows, [c for name in wanted for c in where[name]])
    parts = dict(
        zip(wanted, np.split(numbers, np.cumsum([len(where[name]) for name in wanted[:-1]]), axis=1), strict=True)
    )
    momenta = parts.get("momenta")
    if momenta is None and (found := {"velocities", "vel", "velo"} & where.keys()):
        _once(notes, f"The column '{found.pop()}' has no unit and was not used; write momenta, as ASE does.")
    frame = Frame(parts["pos"], momenta, _cell(info), _scalars(info, notes))
    return known["numbers"], parts["masses"][:, 0] if "masses" in parts else None, frame


def _once(notes: list[str], note: str) -> None:
    if note not in notes:
        notes.append(note)


def _layout(text: str) -> dict[str, list[int]]:
    """Name to its columns, of "species:S:1:pos:R:3"."""
    words = text.split(":")
    out, at = {}, 0
    for name, count in zip(words[::3], words[2::3], strict=True):
        out[name] = list(range(at, at + int(count)))
        at += int(count)
    if len(out.get("pos", ())) != 3 or not {"species", "Z"} & out.keys():
        raise ValueError(f"Properties={text} names no species and pos of 3 columns")
    return out


def _numbers(species: list[str]) -> NDArray[np.int64]:
    from ase.data import atomic_numbers

    return np.array([int(s) if s.isdigit() else atomic_numbers[s.capitalize()] for s in species], dtype=np.int64)


def _cell(info: Mapping[str, Any]) -> Array | None:
    """None unless periodic in all three directions, which a `Lattice` without `pbc` means."""
    if "Lattice" not in info or not np.all(info.get("pbc", True)):
        return None
    return np.asarray(info["Lattice"], dtype=np.float64).T


def _scalars(info: Mapping[str, Any], notes: list[str]) -> dict[str, float]:
    out = written_time(info, notes)
    if "energy" in info:
        out["potential_energy"] = float(info["energy"])
    return out
