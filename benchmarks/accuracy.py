"""Is it the same ensemble? Energies, bonds, torsions and temperatures of runs, beside those of the teacher alone.

    python benchmarks/accuracy.py runs/teacher runs/fast [runs/exact ...]

The first run is the reference. Every value has a standard error from its effective samples (pymbar), and a deviation in
standard errors of the difference. Torsions are those that the reference has seen on both sides.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from ase.data import chemical_symbols

from mlff_sim.runfolder import RunData, read_run
from mlff_sim.state import temperature_by_group
from mlff_sim.validation.montecarlo import observables, torsion, torsions
from mlff_sim.validation.sampling import effective_samples

CUT = 0.1
"""Share of each run left out at its start."""


def series(run: RunData) -> dict[str, np.ndarray]:
    """Named quantities over time, each of shape (rows, replicas)."""
    keep = run.time_ps >= CUT * run.time_ps[-1]
    x, p, structure = run.positions[keep], run.momenta[keep], run.settings["structure"]
    numbers, masses, bonds = np.array(structure["numbers"]), np.array(structure["masses"]), structure["bonds"]
    out = {"U, meV/atom": 1e3 * run.potential_energy[keep] / len(numbers)}
    kinds: dict[str, list[tuple[int, int]]] = {}
    for i, j in bonds:
        kinds.setdefault("-".join(sorted(chemical_symbols[numbers[a]] for a in (i, j))), []).append((i, j))
    for name, pairs in sorted(kinds.items()):
        r = np.stack([np.linalg.norm(x[:, :, i] - x[:, :, j], axis=-1) for i, j in pairs])
        centre = r.mean(axis=(1, 2), keepdims=True)
        out[f"{name} variance, 1e-4 A^2"] = 1e4 * ((r - centre) ** 2).mean(axis=0)
    for quadruple in torsions(bonds, numbers):
        trans = 100.0 * (np.abs(torsion(x, *quadruple)) > np.pi / 2)
        out[f"trans {_torsion(quadruple, numbers)}, %"] = trans
    groups = {chemical_symbols[z]: np.flatnonzero(numbers == z) for z in sorted(set(numbers.tolist()))}
    kelvin = [temperature_by_group(q, masses, groups, com_removed=run.settings["com_removed"]) for q in p]
    for name in groups:
        out[f"T of {name}, K"] = np.array([k[name] for k in kelvin])
    return out


def mean(values: np.ndarray) -> tuple[float, float]:
    """Mean and standard error; one that never changes has no error that could be known."""
    if not values.std():
        return float(values.mean()), float("nan")
    return float(values.mean()), float(values.std() / np.sqrt(effective_samples(values.T)))


def main(folders: list[str]) -> None:
    """Print the table."""
    runs = [read_run(f) for f in folders]
    tables = [series(r) for r in runs]
    for name in [n for n, v in tables[0].items() if not v.std()]:
        del tables[0][name]  # a torsion that the reference has not seen move
    print("| " + " | ".join(["", *(Path(f).name for f in folders)]) + " |")
    print("|" + "---|" * (1 + len(folders)))
    for name in tables[0]:
        reference, error = mean(tables[0][name])
        shift = reference if name.startswith("U") else 0.0
        cells = [f"{reference - shift:.2f} ± {error:.2f}"]
        for table in tables[1:]:
            value, own = mean(table[name])
            cells.append(f"{value - shift:.2f} ± {own:.2f} ({(value - reference) / np.hypot(error, own):+.1f})")
        print("| " + " | ".join([name, *cells]) + " |")
    print("\nEffective samples per ps, and per second of wall time where the run has measured it:\n")
    print("| " + " | ".join(["", *(Path(f).name for f in folders)]) + " |")
    print("|" + "---|" * (1 + len(folders)))
    named = [slow(r, tables[0]) for r in runs]
    for name in named[0]:
        cells = []
        for run, found in zip(runs, named, strict=True):
            ps = (1 - CUT) * run.time_ps[-1] * run.positions.shape[1]
            wall = (run.settings.get("wall_s") or {}).get("total")
            n = effective_samples(found[name].T)
            cells.append(f"{n / ps:.2f}/ps" + (f", {n / ((1 - CUT) * wall):.2f}/s" if wall else ""))
        print("| " + " | ".join([name, *cells]) + " |")


def slow(run: RunData, table: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Energy, size, and the torsions that the reference has seen on both sides."""
    keep, s = run.time_ps >= CUT * run.time_ps[-1], run.settings["structure"]
    masses, numbers, x = np.array(s["masses"]), np.array(s["numbers"]), run.positions[keep]
    found = observables(x, run.potential_energy[keep], masses, s["bonds"], numbers)
    found.pop("slowest torsion", None)
    for quadruple in torsions(s["bonds"], numbers):
        name = _torsion(quadruple, numbers)
        if f"trans {name}, %" in table:
            found[f"torsion {name}"] = np.cos(torsion(x, *quadruple))
    return found


def _torsion(quadruple: tuple[int, int, int, int], numbers: np.ndarray) -> str:
    return "-".join(f"{chemical_symbols[numbers[a]]}{a}" for a in quadruple)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(sys.argv[1:])
