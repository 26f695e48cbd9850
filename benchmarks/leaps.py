"""Does a learnt structure-preserving step pay? Acceptance and cost of its proposals, beside velocity Verlet of the student.

    python benchmarks/leaps.py OUT [--strides 1 2 3 4 5 6 8] [--lengths 20 100] [--seconds 150] [--proposals 32]

Ethanol, the shipped student. Trajectories of the student at constant energy (16 x 5 ps, frames of 1 fs; another run tests)
train a generating function of each stride, beginning with that of the stride before. Proposals start from frames of the
test run with new momenta; student and GFN2-xTB judge the same ends. Leaps are solved and checked both ways, from an explicit
half step ("leap") or from where velocity Verlet of the student at 0.5 fs leads ("leap+"). Times are of the processor, for
one proposal among all made at once.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mlff_sim import RunConfig, run
from mlff_sim.forces import evaluate
from mlff_sim.integrators.force_table import ForceTable
from mlff_sim.integrators.leap import LeapStepper
from mlff_sim.integrators.schemes import verlet
from mlff_sim.integrators.stepper import Stepper
from mlff_sim.leaps.file import save_generating
from mlff_sim.leaps.generating import GeneratingNet, Generator
from mlff_sim.leaps.training import errors, midpoints, train
from mlff_sim.models.registry import load_model
from mlff_sim.runfolder import RunData, read_run
from mlff_sim.state import State, kinetic_energy, maxwell_boltzmann
from mlff_sim.structure import read_structure
from mlff_sim.units import FS, KB

STUDENT, KT = "student:ethanol-gfn2", KB * 300.0
ATOMS = read_structure("ethanol")
MASSES = ATOMS.get_masses()


def trajectories(out: Path, seed: int, duration_ps: float) -> RunData:
    """The student at constant energy after 2 ps at 300 K."""
    if not (out / "log.h5").exists():
        more = {"timestep_fs": 0.5, "every": 2, "replicas": 16, "equilibrate_ps": 2.0}
        run(RunConfig("ethanol", STUDENT, ensemble="nve", duration_ps=duration_ps, seed=seed, **more), out)
    return read_run(out)


def starts(data: RunData, count: int, seed: int = 1) -> State:
    """Frames of a run with momenta drawn anew."""
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, len(data.positions), count)
    momenta = [maxwell_boltzmann(MASSES, 300.0, rng, remove_com=False) for _ in range(count)]
    return State(data.positions[frames, np.arange(count) % data.positions.shape[1]], np.array(momenta))


def integrated(student: Any, start: State, step_fs: float, steps: int) -> State:
    """Velocity Verlet of the student; what flies apart becomes NaN."""
    stepper = Stepper(verlet("student"), step_fs * FS, MASSES, ForceTable({"student": student}), start)
    try:
        with np.errstate(all="ignore"):
            for _ in range(steps):
                stepper.step()
    except ArithmeticError:
        return State(start.positions * np.nan, start.momenta)
    return stepper.state


def acceptance(model: Any, start: State, end: State) -> tuple[float, float]:
    """Mean of min(1, exp(-dH / kT)) and its standard error; what is no number, or fails, is refused."""
    chance = np.zeros(len(start.positions))
    for r in np.flatnonzero(np.isfinite(end.positions + end.momenta).all(axis=(1, 2))):
        both = State(*(np.stack([getattr(s, name)[r] for s in (start, end)]) for name in ("positions", "momenta")))
        try:
            energy = kinetic_energy(both.momenta, MASSES) + evaluate(model, both.positions).energy
        except RuntimeError:
            continue
        chance[r] = np.exp(min(0.0, -(energy[1] - energy[0]) / KT))
    return float(chance.mean()), float(chance.std(ddof=1) / np.sqrt(len(chance)))


def main() -> None:
    """Train, propose, judge; one JSON line for each row, into OUT/rows.jsonl too."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--strides", type=int, nargs="+", default=[1, 2, 3, 4, 5, 6, 8], help="fs")
    parser.add_argument("--lengths", type=float, nargs="+", default=[20.0, 100.0], help="of proposals, fs")
    parser.add_argument("--seconds", type=float, default=150.0, help="of training, twice that for the first stride")
    parser.add_argument("--proposals", type=int, default=32)
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    training, test = trajectories(given.out / "train", 2, 5.0), trajectories(given.out / "test", 1, 1.0)
    models = {"student": load_model(STUDENT, ATOMS), "gfn2": load_model("gfn2-xtb", ATOMS)}
    student, start = models["student"], starts(test, given.proposals)

    def tell(row: dict[str, Any]) -> None:
        line = json.dumps(row)
        print(line, flush=True)
        with (given.out / "rows.jsonl").open("a") as file:
            file.write(line + "\n")

    def judge(kind: str, step_fs: float, length: float, end: State, seconds: float, more: dict[str, Any]) -> None:
        judged = {"student": acceptance(student, start, end)}
        # GFN2-xTB may end the process where atoms lie upon each other; what the student refuses altogether is not shown.
        judged["gfn2"] = acceptance(models["gfn2"], start, end) if judged["student"][0] > 1e-3 else (0.0, 0.0)
        cost = 1e3 * seconds / given.proposals
        tell({"kind": kind, "step_fs": step_fs, "length_fs": length, "ms": cost, "accepted": judged, **more})

    for length in given.lengths:
        for step_fs in (0.5, *given.strides):
            begin = time.process_time()
            end = integrated(student, start, step_fs, round(length / step_fs))
            judge("verlet", step_fs, length, end, time.process_time() - begin, {})
    torch.manual_seed(0)
    network = GeneratingNet(sorted(set(ATOMS.numbers.tolist())))
    for count, stride in enumerate(given.strides):
        pairs, others = (
            midpoints(d.positions, d.momenta, 1.0, stride, ATOMS.numbers, MASSES) for d in (training, test)
        )
        steps, _ = train(network, pairs, given.seconds * (1 if count else 2))
        mae, power = errors(network, others)
        tell({"kind": "training", "step_fs": stride, "steps": steps, "mae_meV_A": mae, "relative": power})
        save_generating(network, stride, given.out / f"leap-{stride}fs.safetensors", {"structure": "ethanol"})
        for length in given.lengths:
            for kind in ("leap", "leap+"):
                direct = None if kind == "leap" else lambda s, n=2 * stride: integrated(student, s, 0.5, n)
                table = ForceTable({"student": student})
                stepper = LeapStepper(Generator(network, ATOMS.numbers, MASSES, stride), table, start, direct=direct)
                begin = time.process_time()
                for _ in range(round(length / stride)):
                    stepper.step()
                counts = {name: int(np.sum(getattr(stepper, name))) for name in (*stepper.counted, "gradients")}
                judge(kind, stride, length, stepper.state, time.process_time() - begin, counts)


if __name__ == "__main__":
    main()
