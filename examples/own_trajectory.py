"""Trajectories made elsewhere, judged from Python: five replicas of an argon cluster by ASE's own velocity Verlet.

    python examples/own_trajectory.py

Writes runs/example-trajectory, prints the verdict and the drift with its interval, from the files and from plain arrays.
"""

from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.calculators.lj import LennardJones
from ase.io import Trajectory
from ase.md.verlet import VelocityVerlet

from mlff_sim.report import write_report
from mlff_sim.state import maxwell_boltzmann
from mlff_sim.trajectory import ReadOptions, read_files
from mlff_sim.validation import assess, nve_drift

FOLDER, STEPS, EVERY, STEP_FS = Path("runs/example-trajectory"), 1000, 5, 10.0


def replica(seed: int) -> Path:
    """A cube of eight argon atoms, drawn at 20 K and simulated by ASE alone."""
    corners = np.array(np.meshgrid([0, 1], [0, 1], [0, 1])).reshape(3, 8).T
    atoms = Atoms("Ar8", positions=3.8 * corners, calculator=LennardJones(epsilon=0.0104, sigma=3.4, rc=30.0))
    atoms.set_momenta(maxwell_boltzmann(atoms.get_masses(), 20.0, np.random.default_rng(seed), remove_com=True))
    dynamics = VelocityVerlet(atoms, STEP_FS * units.fs)
    file = FOLDER / f"replica-{seed}.traj"
    dynamics.attach(Trajectory(str(file), "w", atoms).write, interval=EVERY)
    dynamics.run(STEPS)
    return file


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    files = [replica(seed) for seed in range(5)]

    run = read_files(files, ReadOptions(ensemble="nve", frame_ps=EVERY * STEP_FS / 1000))
    assessment = assess([run])
    write_report(assessment, FOLDER)
    print("verdict:", assessment.verdict.value, *assessment.notes, sep="\n  ")

    # The same from arrays: times in ps, energies in eV of (replicas, frames), and the number of atoms.
    energies = np.array([[frame.get_total_energy() for frame in Trajectory(str(file))] for file in files])
    drift = nve_drift(EVERY * STEP_FS / 1000 * np.arange(energies.shape[1]), energies, n_atoms=8)
    print(f"drift {drift.slope:+.1g} ({drift.ci95[0]:+.1g} to {drift.ci95[1]:+.1g}) meV/atom/ps: {drift.verdict.value}")
