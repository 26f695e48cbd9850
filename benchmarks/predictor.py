"""What a draw of a predictor costs: eager, compiled, with 16-bit products, alone and for many replicas.

    python benchmarks/predictor.py ethanol aspirin

Networks are untrained, which changes no time. Ways alternate in rounds; medians, one thread. A call of GFN2-xTB stands beside.
"""

from __future__ import annotations

import sys
import time

import numpy as np
import torch

from mlff_sim.models.registry import load_model
from mlff_sim.predictors.network import ARCHITECTURES, Architecture, PredictorNet
from mlff_sim.predictors.predictor import Predictor
from mlff_sim.state import State, maxwell_boltzmann
from mlff_sim.structure import covalent_bonds, read_structure

ROUNDS, CALLS = 15, 10
WAYS = {
    "eager": {},
    "amp": {"amp": True},
    "compiled": {"compile": True},
    "compiled, amp": {"compile": True, "amp": True},
}
RECORD = {"macro_steps": [200], "timestep_fs": 0.5}


def main(structures: list[str], replicas: tuple[int, ...] = (1, 16)) -> None:
    """Print a line for each molecule, network, way and number of replicas."""
    torch.set_num_threads(1)
    for name in structures:
        atoms = read_structure(name)
        rng, masses = np.random.default_rng(0), atoms.get_masses()
        teacher = load_model("gfn2-xtb", atoms)
        x, times = atoms.get_positions(), []
        for _ in range(30):
            x = x + 0.002 * rng.standard_normal(x.shape)
            start = time.perf_counter()
            teacher(x)
            times.append(time.perf_counter() - start)
        call = float(np.median(times[5:]))
        print(f"{name}, {len(atoms)} atoms: a call of GFN2-xTB {1e3 * call:.2f} ms", flush=True)
        for kind in ARCHITECTURES:
            network = PredictorNet(Architecture(kind), 1)
            for r in replicas:
                p = np.array([maxwell_boltzmann(masses, 300.0, rng, remove_com=True) for _ in range(r)])
                state = State(np.repeat(atoms.get_positions()[None], r, axis=0), p)
                noise = rng.standard_normal((r, len(atoms), network.architecture.noise, 3))
                draws = {
                    way: Predictor(network, RECORD, atoms.numbers, masses, covalent_bonds(atoms), 200, **how)
                    for way, how in WAYS.items()
                }
                seconds: dict[str, list[float]] = {way: [] for way in draws}
                for _ in range(ROUNDS):
                    for way, draw in draws.items():
                        draw(state, noise)  # compiles the first time, warms up after
                        start = time.perf_counter()
                        for _ in range(CALLS):
                            draw(state, noise)
                        seconds[way].append((time.perf_counter() - start) / CALLS)
                median = {way: float(np.median(s)) for way, s in seconds.items()}
                shown = ", ".join(f"{way} {1e6 * s / r:.0f}" for way, s in median.items())
                gain = float(np.median(np.array(seconds["eager"]) / np.array(seconds["compiled"])))
                print(
                    f"  {kind}, {r} replicas: us per draw {shown}; compiled {gain:.1f}x, a draw is "
                    f"{median['compiled'] / r / call:.2f} calls of GFN2-xTB",
                    flush=True,
                )


if __name__ == "__main__":
    main(sys.argv[1:] or ["ethanol", "aspirin"])
