"""Alanine dipeptide in water: a model describes the peptide, Amber and TIP3P everything else, by OpenMM and openmm-ml.

    python examples/alanine_dipeptide.py [MODEL] [--steps 200]

MODEL is any name of `mlff-sim models`, such as `mace:FILE`. Ten seconds on one core with the default, GFN2-xTB.
Needs the extras `openmm-ml` and, for the default, `xtb`.
"""

import argparse
import sys
import time
from pathlib import Path

from openmm import LangevinMiddleIntegrator, Vec3, app, unit
from openmmml import MLPotential


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default="gfn2-xtb", help="of the peptide (default: gfn2-xtb)")
    parser.add_argument("--steps", type=int, default=200, help="of 1 fs each (default: 200)")
    options = parser.parse_args()

    pdb = app.PDBFile(str(Path(__file__).with_suffix(".pdb")))
    forcefield = app.ForceField("amber14-all.xml", "amber14/tip3p.xml")
    solution = app.Modeller(pdb.topology, pdb.positions)
    solution.addSolvent(forcefield, model="tip3p", boxSize=Vec3(2.4, 2.4, 2.4) * unit.nanometer)
    peptide = [atom.index for atom in solution.topology.atoms() if atom.residue.name != "HOH"]

    conventional = forcefield.createSystem(
        solution.topology, nonbondedMethod=app.PME, nonbondedCutoff=0.9 * unit.nanometer
    )  # water is rigid; the peptide has no constraints, its model moves every bond
    potential = MLPotential("mlff-sim", model=options.model)
    system = potential.createMixedSystem(solution.topology, conventional, peptide)

    integrator = LangevinMiddleIntegrator(300 * unit.kelvin, 1 / unit.picosecond, 1 * unit.femtosecond)
    simulation = app.Simulation(solution.topology, system, integrator)
    simulation.context.setPositions(solution.positions)
    print(f"{len(peptide)} atoms by {options.model}, {system.getNumParticles() - len(peptide)} of water by TIP3P")
    simulation.minimizeEnergy(maxIterations=50)
    simulation.context.setVelocitiesToTemperature(300 * unit.kelvin)

    every = max(1, options.steps // 5)
    simulation.reporters.append(
        app.StateDataReporter(sys.stdout, every, step=True, potentialEnergy=True, temperature=True)
    )
    start = time.perf_counter()
    simulation.step(options.steps)
    print(f"{options.steps / (time.perf_counter() - start):.1f} steps/s")


if __name__ == "__main__":
    main()
