"""Any model of the registry in ASE: aspirin at constant energy with ASE's own velocity Verlet.

    python examples/ase_calculator.py                                        # the shipped student
    python examples/ase_calculator.py gfn2-xtb --steps 200
    python examples/ase_calculator.py module:examples/own_module.py:build

Prints how far the total energy moved, what a step costs, and what the acceleration did.
"""

import argparse
import time

import numpy as np
from ase import units
from ase.md.verlet import VelocityVerlet

from mlff_sim import MLFFCalculator, read_structure
from mlff_sim.state import maxwell_boltzmann


def main(model: str, steps: int, timestep_fs: float) -> None:
    atoms = read_structure("aspirin")
    atoms.calc = MLFFCalculator(model, acceleration="auto")
    atoms.set_momenta(maxwell_boltzmann(atoms.get_masses(), 300.0, np.random.default_rng(1), remove_com=True))
    atoms.get_forces()  # the model is built here, outside the timing

    dynamics = VelocityVerlet(atoms, timestep_fs * units.fs)
    energies: list[float] = []
    dynamics.attach(lambda: energies.append(atoms.get_total_energy()))
    start = time.perf_counter()
    dynamics.run(steps)
    per_step = (time.perf_counter() - start) / steps

    # Verlet's energy fluctuates by order (w h)^2; what counts is whether its mean moves.
    tenth = max(1, len(energies) // 10)
    drift = 1e3 * (np.mean(energies[-tenth:]) - np.mean(energies[:tenth])) / len(atoms)
    print(f"{model}: {steps} steps of {timestep_fs:g} fs, {1e3 * per_step:.2f} ms/step")
    print(f"total energy moved by {drift:+.4f} meV/atom, fluctuates by {1e3 * np.std(energies) / len(atoms):.4f}")
    print("acceleration:", atoms.calc.acceleration_report() or "none for this model")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="student:aspirin-gfn2")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--timestep-fs", type=float, default=0.5)
    given = parser.parse_args()
    main(given.model, given.steps, given.timestep_fs)
