"""One step of ASE with a MACE model: MACE's own calculator against ours, compiled, in alternating blocks.

    OMP_NUM_THREADS=1 python benchmarks/ase_step.py FILE [--structure aspirin | water] [--steps 10] [--drift-ps 2]

Same weights, same frames, float32, one thread, velocity Verlet at 0.5 fs from 300 K. `water` is a box of 64 molecules on
a grid, turned at random. Then: compilations over 1,000 steps of NVE and, in a box, of NPT that lets the box breathe; and
with --drift-ps the drift of five NVE runs of each from identical starts. Needs the extra `mace`.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import time
import warnings
from typing import Any

import numpy as np
import torch
from ase import Atoms, units
from ase.build import molecule
from ase.md.nptberendsen import NPTBerendsen
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution, Stationary
from ase.md.verlet import VelocityVerlet

from mlff_sim import Acceleration, MLFFCalculator, read_structure


def water() -> Atoms:
    """64 molecules at the density of the liquid."""
    rng, spacing, box = np.random.default_rng(0), 12.42 / 4, Atoms(cell=[12.42] * 3, pbc=True)
    for where in np.ndindex(4, 4, 4):
        one = molecule("H2O")
        one.rotate(rng.random() * 360, rng.standard_normal(3))
        one.translate(spacing * np.array(where) - one.get_center_of_mass())
        box += one
    return box


def theirs(file: str) -> Any:
    """MACE's calculator; it prints and warns."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        from mace.calculators import MACECalculator

        return MACECalculator(model_paths=file, device="cpu", default_dtype="float32")


def started(atoms: Atoms, calculator: Any, seed: int, kelvin: float) -> Atoms:
    """A copy with its calculator and momenta, the same for the same seed."""
    atoms = atoms.copy()
    atoms.calc = calculator
    MaxwellBoltzmannDistribution(atoms, temperature_K=kelvin, rng=np.random.default_rng(seed))
    Stationary(atoms)
    return atoms


def drift(atoms: Atoms, ps: float) -> float:
    """Slope of the total energy in meV/atom/ps, after a tenth for the start."""
    energies: list[float] = []
    dynamics = VelocityVerlet(atoms, 0.5 * units.fs)
    dynamics.attach(lambda: energies.append(atoms.get_total_energy()), interval=5)
    dynamics.run(int(2000 * ps))
    kept = np.array(energies[len(energies) // 10 :])
    return float(np.polyfit(0.0025 * np.arange(len(kept)), 1e3 * kept / len(atoms), 1)[0])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", help="of a MACE model")
    parser.add_argument("--structure", default="aspirin", help="a file, aspirin, ethanol or water")
    parser.add_argument("--blocks", type=int, default=15, help="of each kind")
    parser.add_argument("--steps", type=int, default=10, help="in a block")
    parser.add_argument("--drift-ps", type=float, default=0.0, help="length of the NVE runs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    atoms = water() if options.structure == "water" else read_structure(options.structure)
    stock = theirs(options.file)
    calc = MLFFCalculator(f"mace:{options.file}", acceleration=Acceleration(compile=True))
    began = time.perf_counter()
    calc.calculate(atoms)
    print(f"{options.structure}, {len(atoms)} atoms; compiled in {time.perf_counter() - began:.1f} s")
    pair = {"MACECalculator": started(atoms, stock, 1, 300), "mlff-sim": started(atoms, calc, 1, 300)}
    dynamics = {name: VelocityVerlet(a, 0.5 * units.fs) for name, a in pair.items()}
    ms: dict[str, list[float]] = {name: [] for name in pair}
    energy, force = [], 0.0
    for _ in range(options.blocks):
        for name, run in dynamics.items():
            run.run(1)
            began = time.perf_counter()
            run.run(options.steps)
            ms[name].append(1e3 * (time.perf_counter() - began) / options.steps)
        ours, other = pair["mlff-sim"], pair["MACECalculator"]
        other.positions, other.arrays["momenta"] = ours.positions.copy(), ours.get_momenta()
        energy.append(ours.get_potential_energy() - other.get_potential_energy())
        force = max(force, float(np.abs(ours.get_forces() - other.get_forces()).max()))
    middle = {name: float(np.median(values)) for name, values in ms.items()}
    for name, values in ms.items():
        low, high = np.percentile(values, [25, 75])
        print(f"{name:>15}: {middle[name]:7.2f} ms a step (quartiles {low:.2f} to {high:.2f})")
    print(f"{'ratio':>15}: {middle['MACECalculator'] / middle['mlff-sim']:7.2f}")
    print(f"largest deviation: {1e3 * np.abs(energy).max() / len(atoms):.4f} meV/atom, {1e3 * force:.4f} meV/A")
    report = calc.acceleration_report()
    print("a call, ms: " + ", ".join(f"{k} {report[f'{k}_ms']:.3f}" for k in ("list", "transfer", "model", "glue")))

    dynamics["mlff-sim"].run(1000)
    print(f"1,000 steps of NVE: {calc.acceleration_report()['compilations']} compilation(s) in all")
    if atoms.pbc.all():
        breathing = started(atoms, calc, 2, 300)
        pressure = {"pressure_au": 0.0, "compressibility_au": 4.6e-5 / units.bar}
        volumes: list[float] = []
        npt = NPTBerendsen(breathing, 0.5 * units.fs, temperature_K=300, taup=1000 * units.fs, **pressure)
        npt.attach(lambda: volumes.append(breathing.get_volume()))
        npt.run(1000)
        spread = 100 * np.ptp(volumes) / np.mean(volumes)
        print(
            f"1,000 steps of NPT, volume over a range of {spread:.1f} %: "
            f"{calc.acceleration_report()['compilations']} compilation(s) in all"
        )
    if options.drift_ps:
        for name, calculator in (("MACECalculator", stock), ("mlff-sim", calc)):
            slopes = [drift(started(atoms, calculator, seed, 600), options.drift_ps) for seed in range(5)]
            print(f"{name:>15}: drift of five runs, meV/atom/ps: " + " ".join(f"{s:+.4f}" for s in slopes))


if __name__ == "__main__":
    main()
