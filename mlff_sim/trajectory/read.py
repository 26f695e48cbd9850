"""Trajectories made elsewhere, as a run that can be assessed like one of this package."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from mlff_sim.errors import InputError
from mlff_sim.forces import Array
from mlff_sim.trajectory.frame import Frame, Source
from mlff_sim.trajectory.open import TRAJECTORIES, kind_of, open_trajectory
from mlff_sim.trajectory.restraints import restraints, total_momentum_vanishes
from mlff_sim.trajectory.run import ReadOptions, TrajectoryRun, Window
from mlff_sim.trajectory.statedata import read_table, with_table
from mlff_sim.trajectory.store import Store
from mlff_sim.trajectory.times import frame_times, same_clock

LARGEST = 1e9
"""In A, or (eV u)^1/2: a tenth of a metre. What is larger has flown apart, or is damage of the file."""


def read_files(paths: Sequence[str | Path], options: ReadOptions | None = None) -> TrajectoryRun:
    """Read trajectory files as one run, each trajectory a replica of it.

    A table of StateDataReporter (CSV) and a topology (PDB) may be among them; with several trajectories each table
    goes to the trajectory of the same order. Files are read once, frame by frame, so that memory does not grow with
    them. What was left out or could not be understood stands in `settings["notes"]`.

    Args:
        paths: files.
        options: what they do not say.

    Raises:
        InputError: a file is missing, unreadable or of another system, or what it means would have to be guessed.
    """
    given = options or ReadOptions()
    files = _sort([Path(p) for p in paths], given)
    sources = _open(files, given)
    first = sources[0]
    for other in sources[1:]:
        if len(other.numbers) != len(first.numbers) or not np.array_equal(other.numbers, first.numbers):
            raise InputError(
                f"'{first.path}' has {_formula(first)} and '{other.path}' {_formula(other)}, or another order of atoms; "
                "judge one system at a time."
            )
    store, notes = Store(len(sources), int(given.memory_MB * 1e6)), []
    broken = [_fill(store, r, source) for r, source in enumerate(sources)]
    for source, note in zip(sources, broken, strict=True):
        notes += source.notes + ([note] if note else [])
    return _run(store, sources, given, list(dict.fromkeys(notes)), any(broken))


def _sort(paths: list[Path], given: ReadOptions) -> dict[str, list[tuple[Path, str]]]:
    """Trajectories, tables and the topology among the files."""
    files: dict[str, list[tuple[Path, str]]] = {"trajectory": [], "table": [], "topology": []}
    if given.topology is not None:
        files["topology"].append((Path(given.topology), "topology"))
        kind_of(Path(given.topology))
    seen: set[Path] = set()
    for path in paths:
        kind = kind_of(path)
        if path.resolve() in seen:
            raise InputError(f"'{path}' is given twice, which would count its frames twice; give it once.")
        seen.add(path.resolve())
        files["trajectory" if kind in TRAJECTORIES else kind].append((path, kind))
    if (given.lammps_units or given.lammps_types) and all(kind != "lammps" for _, kind in files["trajectory"]):
        raise InputError("units or atom types of LAMMPS were given, and none of the files is a LAMMPS dump.")
    trajectories, tables = len(files["trajectory"]), len(files["table"])
    if not trajectories:
        raise InputError(
            "no trajectory among the files; give an ASE .traj, extended XYZ, DCD, XTC, HDF5 or LAMMPS dump."
        )
    if len(files["topology"]) > 1:
        raise InputError(f"{len(files['topology'])} topologies were given; all replicas share one.")
    if tables not in (0, trajectories):
        raise InputError(
            f"{tables} tables were given for {trajectories} trajectories; give one for each, in their order."
        )
    return files


def _open(files: dict[str, list[tuple[Path, str]]], given: ReadOptions) -> list[Source]:
    topology = files["topology"][0][0] if files["topology"] else None
    sources = [
        open_trajectory(path, kind, topology, given.lammps_units, given.lammps_types)
        for path, kind in files["trajectory"]
    ]
    if files["table"]:
        tables = [read_table(path) for path, _ in files["table"]]
        sources = [with_table(s, t) for s, t in zip(sources, tables, strict=True)]
    return sources


def _fill(store: Store, replica: int, source: Source) -> str | None:
    """Read a file to its end, or to the first frame that is not finite, of which a note tells."""
    for index, frame in enumerate(source.frames):
        if (what := _not_sound(frame)) is not None:
            if index == 0:
                raise InputError(f"trajectory '{source.path}': {what} of its first frame is not a finite number.")
            return (
                f"'{source.path.name}' breaks at frame {index}: {what} is not a finite number. Frames before it were "
                "used; what made it break was not judged."
            )
        store.put(replica, _with_kinetic(frame, source.masses), str(source.path))
    if not store.frames[replica]:
        raise InputError(f"trajectory '{source.path}' holds no frame.")
    return None


def _with_kinetic(frame: Frame, masses: Array) -> Frame:
    """The frame with the kinetic energy of its momenta, which is kept for all frames as momenta may not be."""
    if frame.momenta is None:
        return frame
    kinetic = float(0.5 * np.einsum("ij,ij,i", frame.momenta, frame.momenta, 1.0 / masses))
    return replace(frame, scalars={**frame.scalars, "kinetic_from_momenta": kinetic})


def _not_sound(frame: Frame) -> str | None:
    """What is no finite number of any sense in a frame."""
    for name, part in (("position", frame.positions), ("velocity", frame.momenta)):
        # The comparison is false for what is no number, too.
        if part is not None and not (sound := np.abs(part) < LARGEST).all():
            return f"the {name} of atom {int(np.argmin(sound.all(axis=1)))}"
    if frame.cell is not None and not (np.abs(frame.cell) < LARGEST).all():
        return "the cell"
    return next((f"the {n.replace('_', ' ')}" for n, v in frame.scalars.items() if not abs(v) < LARGEST**2), None)


def _run(store: Store, sources: list[Source], given: ReadOptions, notes: list[str], broken: bool) -> TrajectoryRun:
    """Put together what was read."""
    if len(set(store.frames)) > 1:
        counts = ", ".join(map(str, store.frames))
        notes.append(f"The files hold {counts} frames; of each the first {min(store.frames)} were used.")
    if len(sources) > 1:
        notes.append(f"{len(sources)} files of the same atoms were taken for replicas of one run.")
    rows, stride, total = store.align(), max(store.stride), min(store.frames)
    if stride > 1:
        notes.append(
            f"Positions and velocities of every {stride}th frame were kept ({rows} of {total}), to stay within "
            f"{given.memory_MB:g} MB; time and energies of all were."
        )
    parts = {part: buffer[:rows] for part, buffer in store.buffers.items()}
    _refuse_copies(parts["positions"], sources)
    every = _series(store, total, notes)
    time = frame_times(every.pop("time_ps", None), total, given.frame_ps, notes)
    if time is not None:
        same_clock(time, [str(s.path) for s in sources])
        every["time_ps"] = time[:, 0]
    masses, numbers = sources[0].masses, sources[0].numbers
    momenta = parts.get("momenta")
    if "total_energy" not in every and "potential_energy" in every:
        kinetic = every.get("kinetic_energy", every.get("kinetic_from_momenta"))
        if kinetic is not None:
            every["total_energy"] = every["potential_energy"] + kinetic
    kept = {name: series[::stride] for name, series in every.items()}
    structure, constraints = restraints(parts["positions"], momenta, parts.get("cells"), masses, numbers)
    window = None
    if (found := store.window()) is not None:
        begin, arrays = found
        t = every.get("time_ps")
        window = Window(
            None if t is None else t[begin : begin + len(arrays["positions"])],
            arrays["positions"],
            arrays.get("momenta"),
            arrays.get("cells"),
        )
    settings = {
        "kind": "trajectory",
        "status": "broken" if broken else "finished",
        "stop": None,
        "ensemble": given.ensemble,
        "temperature_K": given.temperature_K,
        "replicas": len(sources),
        "duration_ps": None if time is None else float(time[-1, 0] - time[0, 0]),
        "com_removed": momenta is not None and total_momentum_vanishes(momenta, masses),
        "constraints": constraints,
        "structure": {"file": str(sources[0].path), **structure},
        "files": [str(s.path) for s in sources],
        "models": {},
        "notes": notes,
    }
    return TrajectoryRun(
        folder=sources[0].path,
        settings=settings,
        time_ps=kept.get("time_ps"),
        potential_energy=kept.get("potential_energy"),
        kinetic_energy=kept.get("kinetic_energy"),
        conserved=kept.get("total_energy"),
        positions=parts["positions"],
        momenta=momenta,
        cells=parts.get("cells"),
        window=window,
        every=every,
        stride=stride,
    )


def _series(store: Store, total: int, notes: list[str]) -> dict[str, Array]:
    """Numbers of each frame, shape (total, replicas), that all replicas have for all frames."""
    everywhere = set.intersection(*(set(s) for s in store.scalars))
    for name in sorted(set.union(*store.dropped, *(set(s) for s in store.scalars)) - everywhere):
        notes.append(f"Not every frame has a {name.replace('_', ' ')}, so it was not used.")
    return {n: np.stack([np.array(s[n])[:total] for s in store.scalars], axis=1) for n in sorted(everywhere)}


def _refuse_copies(positions: Array, sources: list[Source]) -> None:
    """Replicas that are copies of each other would narrow every error bar for nothing."""
    for r in range(1, len(sources)):
        for other in range(r):
            if np.array_equal(positions[-1, r], positions[-1, other]):
                raise InputError(
                    f"'{sources[other].path}' and '{sources[r].path}' hold the same positions, so they are no "
                    "independent replicas; give one of them."
                )


def _formula(source: Source) -> str:
    from ase.symbols import Symbols

    return str(Symbols(source.numbers).get_chemical_formula("hill"))
