"""One step of OpenMM with a MACE model: openmm-ml's own potential against ours, compiled, in alternating blocks.

    OMP_NUM_THREADS=1 python benchmarks/openmm_step.py FILE [--structure aspirin] [--blocks 15] [--steps 20]

Same weights, same frames, float32, one thread, the Reference platform, Verlet at 0.5 fs from 300 K. Theirs leaves the
isolated atoms out of the energy, ours has them in: what is compared is how the difference varies between frames.
Needs the extras `openmm-ml` and `mace`.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import time
import warnings
from typing import Any

import numpy as np
import openmm
import torch
from ase import Atoms
from openmm import app, unit
from openmmml import MLPotential

from mlff_sim import Acceleration, read_structure
from mlff_sim.units import KJ_PER_MOL, NM


def topology(atoms: Atoms) -> app.Topology:
    """All atoms in one residue, with the structure's box if it has one."""
    made = app.Topology()
    residue = made.addResidue("MOL", made.addChain())
    for symbol in atoms.symbols:
        made.addAtom(symbol, app.Element.getBySymbol(symbol), residue)
    if atoms.pbc.any():
        made.setPeriodicBoxVectors([openmm.Vec3(*row) for row in atoms.cell.array] * unit.angstrom)
    return made


def start(system: openmm.System, atoms: Atoms) -> openmm.Context:
    """A context at the structure with the momenta of 300 K, always the same."""
    integrator = openmm.VerletIntegrator(0.5 * unit.femtosecond)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(atoms.positions * unit.angstrom)
    context.setVelocitiesToTemperature(300 * unit.kelvin, 1)
    return context


def answer(context: openmm.Context) -> tuple[float, Any]:
    """Energy in eV and forces in eV/A, shape (n, 3)."""
    state = context.getState(energy=True, forces=True)
    energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole) * KJ_PER_MOL
    forces = state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer)
    return energy, forces * (KJ_PER_MOL / NM)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", help="of a MACE model")
    parser.add_argument("--structure", default="aspirin", help="a file, aspirin or ethanol")
    parser.add_argument("--blocks", type=int, default=15, help="of each kind")
    parser.add_argument("--steps", type=int, default=20, help="in a block")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    atoms = read_structure(options.structure)
    top = topology(atoms)

    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # MACE warns and prints when it is imported and converted
        theirs = MLPotential("mace", modelPath=options.file)
        contexts = {"openmm-ml": start(theirs.createSystem(top, precision="single"), atoms)}
        answer(contexts["openmm-ml"])
    ours = MLPotential("mlff-sim", model=f"mace:{options.file}", acceleration=Acceleration(compile=True))
    began = time.perf_counter()
    contexts["mlff-sim"] = start(ours.createSystem(top), atoms)
    answer(contexts["mlff-sim"])
    print(f"compiled in {time.perf_counter() - began:.1f} s")

    ms: dict[str, list[float]] = {name: [] for name in contexts}
    offsets, force = [], 0.0
    for _ in range(options.blocks):
        for name, context in contexts.items():
            context.getIntegrator().step(1)  # to positions that nobody remembers from the comparison
            began = time.perf_counter()
            context.getIntegrator().step(options.steps)
            ms[name].append(1e3 * (time.perf_counter() - began) / options.steps)
        # The two drift apart with rounding: each frame of ours is shown to theirs, which then goes on from there.
        state = contexts["mlff-sim"].getState(positions=True, velocities=True)
        contexts["openmm-ml"].setPositions(state.getPositions())
        contexts["openmm-ml"].setVelocities(state.getVelocities())
        (e0, f0), (e1, f1) = (answer(context) for context in contexts.values())
        offsets.append(e1 - e0)
        force = max(force, float(np.abs(f1 - f0).max()))

    middle = {name: float(np.median(values)) for name, values in ms.items()}
    print(f"{options.structure}, {len(atoms)} atoms, {options.blocks} blocks of {options.steps} steps of each kind")
    for name, values in ms.items():
        low, high = np.percentile(values, [25, 75])
        print(f"{name:>10}: {middle[name]:7.2f} ms a step (quartiles {low:.2f} to {high:.2f})")
    print(f"{'ratio':>10}: {middle['openmm-ml'] / middle['mlff-sim']:7.2f}")
    energy = float(np.abs(np.array(offsets) - np.median(offsets)).max())
    print(f"largest deviation: {1e3 * energy / len(atoms):.4f} meV/atom, {1e3 * force:.4f} meV/A")


if __name__ == "__main__":
    main()
