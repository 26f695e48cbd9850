"""The run folder: what a run leaves behind, written so that kill -9 at any moment loses no finished segment.

| file | holds |
|---|---|
| `run.json` | every setting, versions, hashes, hardware, timing, status |
| `log.h5` | float64 arrays, a row per recorded frame; wall-clock figures only under `/wall` |
| `trajectory.xyz` (`trajectory-r1.xyz`, ...) | extended XYZ with momenta, one file per replica |
| `topology.pdb` | names for tools that want them |
| `stop.txt`, `last_frames.xyz` | if a guard stopped the run: its dissection, and the frames before |
| `relabel.npz` | with `on_residual="relabel"`: frames beyond the student's training range with the teacher's answers |
| `segments/` | while the run lasts: `NNNNNN.h5` and `checkpoint.npz`, each renamed into place when complete |

A segment is written first and the checkpoint that counts it after; whatever a killed run wrote in between is
overwritten by the resumed one. `finish` merges the segments into `log.h5`.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlff_sim.errors import InputError
from mlff_sim.forces import Array

if TYPE_CHECKING:
    from ase import Atoms

FORMAT, VERSION = "mlff-sim-run", 1
STUDY_FORMAT = "mlff-sim-study"
ROWS = (
    "time_ps",
    "potential_energy",
    "kinetic_energy",
    "heat",
    "conserved",
    "residual_mae",
    "positions",
    "momenta",
)


@dataclass(frozen=True)
class RunData:
    """A run as arrays. Rows are recorded frames, R replicas, n atoms.

    Attributes:
        folder: where it was read from.
        settings: the content of `run.json`.
        time_ps: shape (rows,).
        potential_energy: eV, teacher's (the model's in a plain run), shape (rows, R).
        kinetic_energy: eV, shape (rows, R).
        heat: eV, put in by the bath since the start, shape (rows, R).
        conserved: eV, K + U - heat, shape (rows, R); K is that of the scheme, with bounded velocities L kT sum ln cosh.
        residual_mae: eV/A, mean |teacher - student| over components since the previous row, shape (rows, R), of the
            middle model where there is one in between; None in plain runs.
        counts: what the scheme has counted since the previous row (`Stepper.counted`), by name, shape (rows, R) each:
            "accepted" proposals; "fallbacks", macro-steps that no draw held for, and "redraws", draws beyond the first of
            one; "leaps" of a generating function, of these "unsolved", where no midpoint was found, and "one_way", where
            one was and the way back did not lead to the start.
        positions: A, shape (rows, R, n, 3).
        momenta: (eV u)^1/2, shape (rows, R, n, 3); those of the scheme, which with bounded velocities are not m v.
        wall: wall-clock figures by name.
    """

    folder: Path
    settings: dict[str, Any]
    time_ps: Array
    potential_energy: Array
    kinetic_energy: Array
    heat: Array
    conserved: Array
    residual_mae: Array | None
    counts: dict[str, Array]
    positions: Array
    momenta: Array
    wall: dict[str, Array]


def read_settings(folder: str | Path) -> dict[str, Any]:
    """The content of a run folder's `run.json`.

    Raises:
        InputError: no such folder, or no run in it.
    """
    path = Path(folder) / "run.json"
    if not path.is_file():
        raise InputError(f"'{folder}' holds no run (no run.json); give the --out folder of mlff-sim hybrid or md.")
    try:
        settings: dict[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"'{path}' is no JSON ({error}).") from error
    if not isinstance(settings, dict) or settings.get("format") != FORMAT or "config" not in settings:
        raise InputError(f"'{path}' was not written by mlff-sim.")
    return settings


def read_run(folder: str | Path) -> RunData:
    """Read a finished (or stopped) run.

    Raises:
        InputError: no run there, or one that is still under way or was killed.
    """
    import h5py

    settings = read_settings(folder)
    path = Path(folder) / "log.h5"
    if not path.is_file():
        raise InputError(f"'{folder}' holds an unfinished run; finish it with the same command and --resume.")
    try:
        with h5py.File(path) as f:
            rows: dict[str, Any] = {name: f[name][()] if name in f else None for name in ROWS}
            counts = {name: f[name][()] for name in f if name not in (*ROWS, "wall")}
            wall = {name: data[()] for name, data in f.get("wall", {}).items()}
    except OSError as error:
        raise InputError(f"'{path}' is truncated or no HDF5 file.") from error
    return RunData(folder=Path(folder), settings=settings, counts=counts, wall=wall, **rows)


def find_runs(folder: str | Path) -> list[Path]:
    """The run folder itself, or the run folders directly inside a study's folder.

    Raises:
        InputError: there is neither.
    """
    root = Path(folder)
    if (root / "run.json").is_file():
        return [root]
    inside = sorted(p.parent for p in root.glob("*/run.json"))
    if not inside:
        read_settings(root)
    return inside


def read_study(folder: str | Path) -> dict[str, Any]:
    """The content of a study's `study.json`, which says what its runs are to be judged by; empty where there is none.

    Raises:
        InputError: it was not written by this package.
    """
    path = Path(folder) / "study.json"
    if not path.is_file():
        return {}
    try:
        study: dict[str, Any] = json.loads(path.read_text())
        if study["format"] == STUDY_FORMAT:
            return study
    except (ValueError, KeyError, TypeError):
        pass
    raise InputError(f"'{path}' was not written by mlff-sim.")


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(content, indent=1))
    os.replace(temporary, path)


class RunWriter:
    """Writes one run folder.

    Args:
        folder: created by `open`.
        settings: what goes into `run.json`; the part under "config" decides whether a checkpoint may be taken up.
        atoms: the structure, for the topology and the trajectory.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], atoms: Atoms) -> None:
        """Bind; nothing is touched yet."""
        self.folder, self.settings, self.atoms = folder, settings, atoms
        self.segments = folder / "segments"
        self.count = 0

    def check(self, resume: bool) -> str:
        """Say how this folder can be used: "new", "resume" or "finished".

        Raises:
            InputError: it holds something else, or another run.
        """
        if not self.folder.exists():
            return "new"
        if not self.folder.is_dir():
            raise InputError(f"output '{self.folder}' is a file; give a folder.")
        if not (self.folder / "run.json").exists():
            if any(p for p in self.folder.rglob("*") if not p.name.startswith(".run.json.") and p != self.segments):
                raise InputError(f"output folder '{self.folder}' is not empty and holds no run; give a new folder.")
            return "new"
        old = read_settings(self.folder)
        mine, theirs = json.loads(json.dumps(self.settings["config"])), old["config"]
        changed = sorted(k for k in mine.keys() | theirs.keys() if mine.get(k) != theirs.get(k))
        if changed:
            here, there = (
                {**config, "start": f"{whole['structure']['file']} ({str(config.get('start'))[:8]})"}
                for config, whole in ((mine, self.settings), (theirs, old))
            )
            details = ", ".join(f"{k} {there.get(k)} there, {here.get(k)} here" for k in changed)
            raise InputError(f"output folder '{self.folder}' holds a different run ({details}); give a new folder.")
        if not resume:
            raise InputError(
                f"output folder '{self.folder}' already holds this run; continue it with --resume, or give a new folder."
            )
        return "resume" if old["status"] == "running" else "finished"

    def open(self) -> None:
        """Create the folder and mark the run as under way."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / "run.json", {**self.settings, "status": "running", "stop": None})
        self.segments.mkdir(exist_ok=True)

    def checkpoint(self) -> dict[str, Array] | None:
        """The last complete checkpoint, or None; takes up its count of segments."""
        path = self.segments / "checkpoint.npz"
        if not path.exists():
            return None
        with np.load(path, allow_pickle=False) as f:
            saved = {k: f[k] for k in f.files}
        self.count = int(saved["segments"])
        return saved

    def segment(self, rows: dict[str, Array], wall: dict[str, Array], checkpoint: dict[str, Any] | None) -> None:
        """Write rows since the last call and the state to continue from."""
        import h5py

        temporary = self.segments / "segment.tmp"
        with h5py.File(temporary, "w") as f:
            for name, data in rows.items():
                f[name] = data
            for name, data in wall.items():
                f["wall/" + name] = data
        os.replace(temporary, self.segments / f"{self.count:06d}.h5")
        self.count += 1
        if checkpoint is not None:
            temporary = self.segments / "checkpoint.tmp.npz"
            np.savez(temporary, segments=self.count, **checkpoint)
            os.replace(temporary, self.segments / "checkpoint.npz")

    def archive(self, name: str, arrays: dict[str, Array]) -> None:
        """Write a NumPy archive into the folder, atomically."""
        temporary = self.segments / f"{name}.tmp.npz"
        np.savez(temporary, **arrays)  # type: ignore[arg-type]
        os.replace(temporary, self.folder / name)

    def _parts(self) -> Iterator[Any]:
        import h5py

        for index in range(self.count):
            with h5py.File(self.segments / f"{index:06d}.h5") as f:
                yield f

    def finish(self, status: str, stop: dict[str, Any] | None = None, more: dict[str, Any] | None = None) -> None:
        """Merge the segments into log.h5 and the trajectory, then mark the run."""
        import h5py

        temporary = self.folder / ".log.h5.tmp"
        with h5py.File(temporary, "w") as out:
            for part in self._parts():
                for name in [*(n for n in part if n != "wall"), *("wall/" + n for n in part.get("wall", {}))]:
                    data = part[name][()]
                    if name not in out:
                        out.create_dataset(
                            name,
                            data=data,
                            maxshape=(None, *data.shape[1:]),
                            chunks=True if data.size else (1, *[max(1, n) for n in data.shape[1:]]),
                        )
                    else:
                        out[name].resize(len(out[name]) + len(data), axis=0)
                        out[name][len(out[name]) - len(data) :] = data
        os.replace(temporary, self.folder / "log.h5")
        self._write_trajectory()
        write_json(self.folder / "run.json", {**self.settings, **(more or {}), "status": status, "stop": stop})
        shutil.rmtree(self.segments)

    def _write_trajectory(self) -> None:
        from ase.io import write

        frame = self.atoms.copy()
        frame.info.clear()
        replicas = None
        for part in self._parts():
            x, p, t = part["positions"][()], part["momenta"][()], part["time_ps"][()]
            replicas = replicas or [open(self.folder / f".{trajectory_name(r)}.tmp", "w") for r in range(x.shape[1])]  # noqa: SIM115
            for r, file in enumerate(replicas):
                for xi, pi, ti in zip(x[:, r], p[:, r], t, strict=True):
                    frame.set_positions(xi)
                    frame.set_momenta(pi)
                    frame.info["time_ps"] = float(ti)
                    write(file, frame, format="extxyz")
        for r, file in enumerate(replicas or []):
            file.close()
            os.replace(file.name, self.folder / trajectory_name(r))
        temporary = self.folder / ".topology.tmp.pdb"
        start = self.atoms.copy()
        start.info.clear()
        write(temporary, start)
        os.replace(temporary, self.folder / "topology.pdb")

    def stopped(self, text: str, frames: list[tuple[float, Array]]) -> None:
        """Keep the dissection of a stop, stop.txt, and the frames before it; see `last_frames`."""
        temporary = self.folder / ".stop.tmp"
        temporary.write_text(text)
        os.replace(temporary, self.folder / "stop.txt")
        self.last_frames(frames)

    def last_frames(self, frames: list[tuple[float, Array]]) -> None:
        """Keep the states before a stop: (time in ps, positions (n, 3)) of the offending replica, in last_frames.xyz."""
        from ase.io import write

        images = []
        for t, x in frames:
            image = self.atoms.copy()
            image.info.clear()
            image.info["time_ps"] = t
            image.set_positions(x)
            images.append(image)
        temporary = self.folder / ".last_frames.tmp"
        write(temporary, images, format="extxyz")
        os.replace(temporary, self.folder / "last_frames.xyz")


def trajectory_name(replica: int) -> str:
    """File name of a replica's trajectory."""
    return "trajectory.xyz" if replica == 0 else f"trajectory-r{replica}.xyz"


def versions() -> dict[str, str]:
    """Versions of what results depend on."""
    out = {"python": platform.python_version()}
    for name in ("mlff-sim", "numpy", "torch", "ase", "tblite"):
        try:
            out[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return out


def hardware() -> dict[str, Any]:
    """The processor this runs on and how much of it one may use."""
    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as f:
            model = next((line.split(":", 1)[1].strip() for line in f if line.startswith("model name")), model)
    except OSError:
        pass
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS", "1"),
        "system": platform.platform(),
    }
