"""Trajectories made elsewhere: files in, a run that can be assessed out.

| file | holds |
|---|---|
| ASE `.traj`, extended XYZ | positions, momenta, energies, cells; times where somebody wrote `time_ps` or `time_fs` |
| DCD, XTC (with a PDB) | positions, cells, times; energies from StateDataReporter's CSV |
| HDF5 of MDTraj | positions, velocities, times, energies, cells |
| LAMMPS dump | positions, velocities, cells; units and elements where it says them |
"""

from mlff_sim.trajectory.read import read_files
from mlff_sim.trajectory.run import ReadOptions, TrajectoryRun, Window

__all__ = ["ReadOptions", "TrajectoryRun", "Window", "read_files"]
