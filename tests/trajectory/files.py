"""A short run at constant energy with known positions, momenta and energies, and files of it in each format."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from ase.io.trajectory import Trajectory
from numpy.typing import NDArray

from mlff_sim.structure import read_structure

Array = NDArray[np.float64]
PS = 1000.0 * units.fs
KJ = units.kJ / units.mol


@dataclass(frozen=True)
class Truth:
    """What the files are written from: ps, A, (eV u)^1/2, eV."""

    atoms: Atoms
    time_ps: Array
    positions: Array
    momenta: Array
    potential: Array
    kinetic: Array
    cell: Array | None = None

    @property
    def velocities(self) -> Array:
        """In A/ps."""
        return self.momenta / self.atoms.get_masses()[:, None] * PS


def springs(frames: int = 40, every: int = 2, dt_fs: float = 0.5, seed: int = 0, cell: Array | None = None) -> Truth:
    """Ethanol as a net of springs between all atoms, by velocity Verlet; the stiffest mode has a period of 10 fs or so."""
    atoms = read_structure("ethanol")
    rest, m, dt = atoms.get_all_distances(), atoms.get_masses()[:, None], dt_fs * units.fs
    rng = np.random.default_rng(seed)
    x = atoms.positions.copy()
    p = rng.normal(size=x.shape) * np.sqrt(units.kB * 300.0 * m)
    p -= m * p.sum(0) / m.sum()
    k = np.where(rest < 1.6, 20.0, 1.0)

    def forces(x: Array) -> tuple[float, Array]:
        d = x[:, None] - x[None]
        r = np.linalg.norm(d, axis=-1) + np.eye(len(x))
        stretch = np.where(np.eye(len(x)) > 0, 0.0, r - rest)
        return float(0.25 * (k * stretch**2).sum()), -(k * stretch / r)[..., None].__mul__(d).sum(1)

    rows = []
    energy, f = forces(x)
    for step in range(frames * every):
        if step % every == 0:
            rows.append((step * dt_fs * 1e-3, x.copy(), p.copy(), energy, float((p**2 / m).sum() / 2)))
        p = p + 0.5 * dt * f
        x = x + dt * p / m
        energy, f = forces(x)
        p = p + 0.5 * dt * f
    t, xs, ps, u, kin = (np.array(c) for c in zip(*rows, strict=True))
    return Truth(atoms, t, xs, ps, u - 4000.0, kin, cell)


def frames_of(truth: Truth) -> list[Atoms]:
    out = []
    for t, x, p, u in zip(truth.time_ps, truth.positions, truth.momenta, truth.potential, strict=True):
        a = Atoms(truth.atoms.numbers, x, momenta=p, info={"time_ps": float(t)})
        if truth.cell is not None:
            a.set_cell(truth.cell)
            a.pbc = True
        a.calc = SinglePointCalculator(a, energy=float(u))
        out.append(a)
    return out


def write_traj(truth: Truth, path: Path) -> None:
    with Trajectory(path, "w") as file:
        for a in frames_of(truth):
            file.write(a)


def write_extxyz(truth: Truth, path: Path) -> None:
    write(path, frames_of(truth), format="extxyz")


def write_lammps(truth: Truth, path: Path, units_style: str = "metal", header: bool = True) -> None:
    """Atoms in another order in each frame, as LAMMPS writes them."""
    velocity = truth.velocities * (1.0 if units_style == "metal" else 1e-3)
    time = truth.time_ps * (1.0 if units_style == "metal" else 1e3)
    symbols = truth.atoms.get_chemical_symbols()
    with path.open("w") as file:
        for k in range(len(time)):
            if header:
                file.write(f"ITEM: UNITS\n{units_style}\n" * (k == 0) + f"ITEM: TIME\n{time[k]:.16g}\n")
            file.write(f"ITEM: TIMESTEP\n{k}\nITEM: NUMBER OF ATOMS\n{len(symbols)}\n")
            if truth.cell is None:
                file.write("ITEM: BOX BOUNDS ff ff ff\n" + "-50 50\n" * 3)
            else:
                file.write("ITEM: BOX BOUNDS pp pp pp\n" + "".join(f"0 {x:.16g}\n" for x in np.diag(truth.cell)))
            file.write("ITEM: ATOMS id element xu yu zu vx vy vz\n")
            for i in np.random.default_rng(k).permutation(len(symbols)):
                numbers = [*truth.positions[k, i], *velocity[k, i]]
                file.write(f"{i + 1} {symbols[i]} " + " ".join(f"{v:.10g}" for v in numbers) + "\n")


def write_hdf5(truth: Truth, path: Path) -> None:
    """As MDTraj does: float32, nm and ps, the unit of each array in its attributes."""
    import h5py

    atoms = [{"index": i, "name": s, "element": s} for i, s in enumerate(truth.atoms.get_chemical_symbols())]
    topology = {"chains": [{"index": 0, "residues": [{"index": 0, "name": "ETH", "atoms": atoms}]}], "bonds": []}
    arrays = {
        "coordinates": (0.1 * truth.positions, "nanometers"),
        "time": (truth.time_ps, "picoseconds"),
        "velocities": (0.1 * truth.velocities, "nanometers/picosecond"),
        "potentialEnergy": (truth.potential / KJ, "kilojoules_per_mole"),
        "kineticEnergy": (truth.kinetic / KJ, "kilojoules_per_mole"),
    }
    if truth.cell is not None:
        arrays["cell_lengths"] = (np.tile(0.1 * np.diag(truth.cell), (len(truth.time_ps), 1)), "nanometers")
        arrays["cell_angles"] = (np.full((len(truth.time_ps), 3), 90.0), "degrees")
    with h5py.File(path, "w") as file:
        for name, (data, unit) in arrays.items():
            file.create_dataset(name, data=data.astype(np.float32), chunks=True, compression="gzip", shuffle=True)
            file[name].attrs["units"] = np.bytes_(unit)
        file.create_dataset("topology", data=np.array([json.dumps(topology).encode()]))


def write_dcd(truth: Truth, path: Path, title: bytes = b"Created by OpenMM", order: str = "<") -> None:
    """By OpenMM's own writer (openmm.app.dcdfile), spelled out so that it needs no OpenMM."""
    n, step = len(truth.atoms), truth.time_ps[1] - truth.time_ps[0]
    first = round(truth.time_ps[0] / step)
    with path.open("wb") as file:
        words = struct.pack(order + "9if", len(truth.time_ps), first, 1, 0, 0, 0, 0, 0, 0, step / 0.04888821)
        file.write(struct.pack(order + "i", 84) + b"CORD" + words)
        file.write(struct.pack(order + "13i", int(truth.cell is not None), 0, 0, 0, 0, 0, 0, 0, 0, 24, 84, 164, 2))
        file.write(struct.pack(order + "80s80s", title, b"Created today") + struct.pack(order + "4i", 164, 4, n, 4))
        for x in truth.positions:
            if truth.cell is not None:
                a, b, c = np.diag(truth.cell)
                file.write(struct.pack(order + "i6di", 48, a, 0.0, b, 0.0, 0.0, c, 48))
            for axis in x.T:
                file.write(struct.pack(order + f"i{n}fi", 4 * n, *axis, 4 * n))


def write_xtc(truth: Truth, path: Path) -> None:
    from mdtraj.formats import XTCTrajectoryFile

    frames = len(truth.time_ps)
    box = np.tile(0.1 * truth.cell if truth.cell is not None else np.zeros((3, 3)), (frames, 1, 1)).astype(np.float32)
    with XTCTrajectoryFile(str(path), "w") as file:
        file.write(
            (0.1 * truth.positions).astype(np.float32),
            truth.time_ps.astype(np.float32),
            np.arange(frames, dtype=np.int32),
            box,
        )


def write_pdb(truth: Truth, path: Path) -> None:
    lines = [
        f"HETATM{i + 1:5d} {s + str(i):<4s} ETH A   1    {x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00          {s:>2s}\n"
        for i, (s, (x, y, z)) in enumerate(zip(truth.atoms.get_chemical_symbols(), truth.positions[0], strict=True))
    ]
    path.write_text("".join(lines) + "END\n")


def write_csv(truth: Truth, path: Path, columns: dict[str, Array] | None = None) -> None:
    """As StateDataReporter does, with repr of each float."""
    names = columns or {
        "Step": np.arange(len(truth.time_ps)),
        "Time (ps)": truth.time_ps,
        "Potential Energy (kJ/mole)": truth.potential / KJ,
        "Kinetic Energy (kJ/mole)": truth.kinetic / KJ,
    }
    with path.open("w") as file:
        file.write("#" + ",".join(f'"{n}"' for n in names) + "\n")
        for row in zip(*names.values(), strict=True):
            file.write(",".join(str(v) for v in row) + "\n")


WRITERS: dict[str, Callable[[Truth, Path], None]] = {
    "run.traj": write_traj,
    "run.extxyz": write_extxyz,
    "run.dump": write_lammps,
    "run.h5": write_hdf5,
    "run.dcd": write_dcd,
    "run.xtc": write_xtc,
}
"""File name to who writes it."""


def write_all(truth: Truth, folder: Path, name: str) -> list[Path]:
    """The trajectory, and what belongs to it: PDB and table with DCD and XTC."""
    WRITERS[name](truth, folder / name)
    files = [folder / name]
    if name.endswith((".dcd", ".xtc")):
        write_pdb(truth, folder / "top.pdb")
        write_csv(truth, folder / "state.csv")
        files += [folder / "top.pdb", folder / "state.csv"]
    return files
