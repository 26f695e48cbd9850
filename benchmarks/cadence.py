"""Predicted against measured heating: the cadence certificate put to the test.

    python benchmarks/cadence.py ethanol STUDENT runs/cadence-ethanol --ensemble nve --k 4 8 12 16 20 24
    python benchmarks/cadence.py --plot docs/cadence.png runs/cadence-ethanol runs/cadence-aspirin

The first line predicts once, then runs five replicas for each scheme and step and appends a line to `measured.jsonl` in the
folder; steps that are there already are left out, so it can be cut off and repeated. The second line draws what was found and
prints the hit rate. Starts are the last frames of a run of 5 ps, whose momenta are kept, without that of the centre of mass.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import write

from mlff_sim import RunConfig, read_structure, run
from mlff_sim.errors import SimulationStopped
from mlff_sim.report.cadence import write_cadence
from mlff_sim.runfolder import read_run
from mlff_sim.simulation.cadence import CadenceConfig
from mlff_sim.simulation.forecast import predict
from mlff_sim.state import temperature_by_group
from mlff_sim.units import MEV

REPLICAS = 5
T_975 = 2.776
"""Student's t for five replicas."""


def starts(structure: str, teacher: str, student: str, folder: Path, seed: int) -> Path:
    """Five thermal states, from five replicas of a hybrid run at 300 K."""
    path = folder / "starts.xyz"
    if not path.exists():
        warm = RunConfig(
            structure, teacher, student, k_steps=4, duration_ps=5, replicas=REPLICAS, friction_per_ps=5, seed=seed
        )
        shutil.rmtree(folder / "warm", ignore_errors=True)
        found, atoms = read_run(run(warm, folder / "warm")), read_structure(structure)
        masses, images = atoms.get_masses(), []
        for x, p in zip(found.positions[-1], found.momenta[-1], strict=True):
            image = Atoms(atoms.numbers, x)
            image.set_momenta(p - masses[:, None] * p.sum(axis=0) / masses.sum())
            images.append(image)
        write(path, images)
    return path


def walked(time_ps: np.ndarray, energy: np.ndarray) -> float:
    """Root mean square change over 0.5 ps, per root ps: how far the conserved energy walks."""
    lag = max(1, round(0.5 / (time_ps[1] - time_ps[0])))
    change = energy[lag:] - energy[:-lag]
    return float(np.sqrt((change**2).mean() / (time_ps[lag] - time_ps[0])))


def measure(config: RunConfig, folder: Path) -> dict[str, Any]:
    """Slopes of the conserved energy and temperatures of elements of each replica."""
    shutil.rmtree(folder, ignore_errors=True)
    try:
        run(config, folder)
        status = "finished"
    except SimulationStopped as stop:
        status = stop.rule
    found = read_run(folder)
    structure, time_ps = found.settings["structure"], found.time_ps
    masses, numbers = np.array(structure["masses"]), np.array(structure["numbers"])
    energy = found.conserved / (MEV * len(numbers))
    groups = {str(z): np.flatnonzero(numbers == z) for z in sorted(set(numbers.tolist()))}
    late = found.momenta[time_ps >= 0.1 * time_ps[-1]]
    kelvin = {
        z: [
            float(np.mean(v))
            for v in np.array(
                [
                    temperature_by_group(p, masses, groups, com_removed=bool(found.settings["com_removed"]))[z]
                    for p in late
                ]
            ).T
        ]
        for z in groups
    }
    return {
        "mol": structure["formula"],
        "ens": config.ensemble,
        "g": config.friction_per_ps if config.ensemble == "nvt" else 0.0,
        "scheme": config.scheme,
        "k": config.k_steps,
        "ps": float(time_ps[-1]),
        "status": status,
        "slopes": [float(s) for s in np.polyfit(time_ps, energy, 1)[0]],
        "walk": walked(time_ps, energy),
        "T": kelvin,
    }


def campaign(arguments: argparse.Namespace) -> None:
    """Predict, then measure what is not measured yet."""
    folder = arguments.out
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "cadence.json").exists():
        config = CadenceConfig(arguments.structure, arguments.teacher, arguments.student, teacher_calls=arguments.calls)
        write_cadence(predict(config, timing=False), folder)
    log = folder / "measured.jsonl"
    done = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    seen = {(d["ens"], d["g"], d["scheme"], d["k"]) for d in done}
    at = starts(arguments.structure, arguments.teacher, arguments.student, folder, arguments.seed)
    friction = arguments.friction if arguments.ensemble == "nvt" else 0.0
    for scheme in arguments.scheme:
        for k in arguments.k:
            if (arguments.ensemble, friction, scheme, k) in seen:
                continue
            config = RunConfig(
                f"{at}@0:{REPLICAS}",
                arguments.teacher,
                arguments.student,
                ensemble=arguments.ensemble,
                k_steps=k,
                duration_ps=arguments.ps,
                friction_per_ps=friction,
                scheme=scheme,
                baseline=False,
                seed=arguments.seed + 2,
            )
            line = json.dumps(measure(config, folder / f"{arguments.ensemble}-{friction:g}-{scheme}-{k}"))
            with log.open("a") as file:
                file.write(line + "\n")
            print(line, flush=True)


def compare(folder: Path, limit: float = 0.1) -> list[dict[str, Any]]:
    """Each measured run beside its prediction, in meV/atom/ps."""
    cadence = json.loads((folder / "cadence.json").read_text())
    steps = {(o["scheme"], s["k"]): s for o in cadence["outlooks"] for s in o["steps"]}
    out = []
    for line in (folder / "measured.jsonl").read_text().splitlines():
        d = json.loads(line)
        s = steps.get((d["scheme"], d["k"]))
        if s is None or not d["slopes"]:
            continue
        slopes = np.array(d["slopes"])
        stderr = slopes.std(ddof=1) / np.sqrt(len(slopes))
        predicted, error = s["heating"]["value"], s["heating"]["stderr"]
        # How far the mean of so many runs of this length is expected to scatter: that of a fit to the predicted walk.
        scatter = s["walk"] * np.sqrt(1.2 / (d["ps"] * len(slopes)))
        # The runs may scatter by more: a bath and the inner step have noise of their own.
        spread = float(np.hypot(error, max(scatter, stderr)))
        out.append(
            d
            | {
                "folder": folder,
                "outer_fs": s["outer_fs"],
                "mean": float(slopes.mean()),
                "stderr": float(stderr),
                "predicted": predicted,
                "error": error,
                "scatter": scatter,
                "within": bool(abs(slopes.mean() - predicted) <= 2 * spread),
                "safe": bool(predicted + 1.645 * error <= limit),
                "held": None if abs(abs(slopes.mean()) - limit) < T_975 * stderr else bool(abs(slopes.mean()) < limit),
            }
        )
    return out


def draw(folders: list[Path], path: Path) -> None:
    """The plot of the docs, and the hit rate."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, len(folders), figsize=(4.6 * len(folders), 6.4), sharex=True, squeeze=False)
    colours = {"respa": "#4c84d6", "mollified": "#dd7f3b"}
    marks = {"nve": "o", "nvt 1": "^", "nvt 5": "s"}
    rows = []
    for column, folder in enumerate(folders):
        cadence, found = json.loads((folder / "cadence.json").read_text()), compare(folder)
        rows += found
        walk, heat = axes[:, column]
        for outlook in cadence["outlooks"]:
            steps, scheme = outlook["steps"], outlook["scheme"]
            x, colour = [s["outer_fs"] for s in steps], colours[scheme]
            y, e = (np.array([s["heating"][key] for s in steps]) for key in ("value", "stderr"))
            heat.fill_between(x, y - 2 * e, y + 2 * e, color=colour, alpha=0.25, lw=0)
            heat.plot(x, y, color=colour, lw=1)
            walk.plot(x, [s["walk"] for s in steps], color=colour, lw=1, label=f"{scheme}, predicted")
            for name, mark in marks.items():
                here = [r for r in found if r["scheme"] == scheme and _label(r) == name]
                style = {"marker": mark, "ms": 4, "lw": 1, "ls": "", "color": colour}
                at = [r["outer_fs"] + 0.08 * list(marks).index(name) for r in here]
                heat.errorbar(at, [r["mean"] for r in here], [2 * r["stderr"] for r in here], **style)
                label = f"measured, {name}" + ("/ps" if " " in name else "")
                walk.plot(at, [r["walk"] for r in here], **style, label=label if scheme == "respa" else None)
        heat.axhline(0.1, color="#999999", lw=0.8, ls="--")
        heat.set_yscale("symlog", linthresh=0.1)
        heat.set_ylabel("heating, meV/atom/ps")
        heat.set_xlabel("outer step, fs")
        walk.set_yscale("log")
        walk.set_ylim(0.02, 4)
        walk.set_ylabel("walk of the energy, meV/atom/ps$^{1/2}$")
        walk.set_title(cadence["formula"], fontsize=10, loc="left")
    axes[0, 0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    for name in marks:
        some = [r for r in rows if _label(r) == name]
        judged = [r for r in some if r["held"] is not None]
        print(
            f"{name}: {len(some)} runs of five; mean slope within two standard errors: "
            f"{sum(r['within'] for r in some)}; of {len(judged)} that are clearly on one side of 0.1, rightly foretold "
            f"{sum(r['safe'] == r['held'] for r in judged)}, "
            f"called safe and heated {sum(r['safe'] and not r['held'] for r in judged)}"
        )


def _label(row: dict[str, Any]) -> str:
    return row["ens"] if row["ens"] == "nve" else f"nvt {row['g']:g}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plot", type=Path, help="draw instead; then all other arguments are folders")
    parser.add_argument("given", nargs="+", help="STRUCTURE STUDENT FOLDER, or folders")
    parser.add_argument("--teacher", default="gfn2-xtb")
    parser.add_argument("--ensemble", default="nve")
    parser.add_argument("--friction", type=float, default=1.0)
    parser.add_argument("--scheme", nargs="+", default=["respa", "mollified"])
    parser.add_argument("--k", type=int, nargs="+", default=[4, 8, 12, 16, 20, 24])
    parser.add_argument("--ps", type=float, default=20.0)
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=2, help="of the starts; the runs take this and two")
    given = parser.parse_args()
    if given.plot:
        draw([Path(f) for f in given.given], given.plot)
    else:
        given.structure, given.student, out = given.given
        given.out = Path(out)
        campaign(given)
