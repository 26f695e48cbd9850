"""A stopped run, dissected: what every atom, bond and pair was doing when a guard stepped in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mlff_sim.errors import SimulationStopped
from mlff_sim.forces import Array
from mlff_sim.simulation.guards import Guard
from mlff_sim.simulation.rules import Budget
from mlff_sim.units import KB, MEV

if TYPE_CHECKING:
    from ase import Atoms

MOST = 5
"""Atoms, bonds and pairs that are named, the worst first."""


def facts(stop: SimulationStopped, atoms: Atoms, outer_step_fs: float) -> dict[str, Any]:
    """What was broken, where and when, under the names of `run.json`."""
    value, limit, unit = stop.measure or (None, None, None)
    return {
        "rule": stop.rule,
        "step": stop.step,
        "time_ps": stop.step * outer_step_fs / 1000,
        "replica": stop.replica,
        "atom": stop.atom,
        "element": atoms.symbols[stop.atom],
        "value": value,
        "limit": limit,
        "unit": unit,
        "detail": stop.detail,
    }


def dissect(
    stop: SimulationStopped,
    guard: Guard,
    atoms: Atoms,
    bonds: Sequence[tuple[int, int]],
    start: Array,
    outer_step_fs: float,
) -> dict[str, Any]:
    """The offending replica at the last step whose numbers are numbers.

    Args:
        stop: what happened.
        guard: that stopped the run.
        atoms: elements.
        bonds: pairs of bonded atoms.
        start: A, shape (replicas, n, 3).
        outer_step_fs: outer time step.

    Returns:
        For `run.json`: atoms by temperature and by residual force, bonds by stretch, pairs by distance, temperatures by
        element, and the energies of the last steps; the conserved one against the start where it has a budget, and
        against the first of these steps where it has none.
    """
    r, masses = stop.replica, guard.stepper.masses
    last = guard.tail[-1] if guard.tail else None
    state = last.state if last is not None else guard.stepper.state
    x, p = state.positions[r], guard.stepper.thermal(state).momenta[r]
    heat = (p * p).sum(axis=1) / (3 * KB * masses)
    origin = [rule.state["start"] for rule in guard.rules if isinstance(rule, Budget) and rule.state]
    base = origin[0] if origin else guard.tail[0].conserved if guard.tail else np.zeros(r + 1)
    elements = {e: float(heat[atoms.symbols == e].mean()) for e in sorted(set(atoms.symbols))}
    out: dict[str, Any] = {
        "step": last.step if last is not None else stop.step,
        "hottest_atoms": [{**_atom(atoms, i), "temperature_K": float(heat[i])} for i in _worst(heat)],
        "temperature_K": elements,
        "longest_bonds": _bonds(atoms, bonds, x, start[r]),
        "closest_pairs": _pairs(atoms, x),
        "residual": _residual(guard, atoms, r) if last is not None and last.state is guard.stepper.state else None,
        "last_steps": [
            {
                "step": m.step,
                "time_ps": m.step * outer_step_fs / 1000,
                "kinetic_eV": float(m.kinetic[r]),
                "potential_eV": float(m.potential[r]),
                "conserved_meV_per_atom": float((m.conserved[r] - base[r]) / (MEV * len(masses))),
            }
            for m in guard.tail
        ],
    }
    return out


def _worst(values: Array) -> list[int]:
    return [int(i) for i in np.argsort(-values)[:MOST]]


def _atom(atoms: Atoms, i: int) -> dict[str, Any]:
    return {"atom": int(i), "element": atoms.symbols[int(i)]}


def _pair(atoms: Atoms, i: int, j: int) -> dict[str, Any]:
    return {"atoms": [int(i), int(j)], "elements": f"{atoms.symbols[int(i)]}-{atoms.symbols[int(j)]}"}


def _bonds(atoms: Atoms, bonds: Sequence[tuple[int, int]], x: Array, start: Array) -> list[dict[str, Any]]:
    i, j = np.array(bonds, dtype=np.int64).reshape(-1, 2).T
    now, then = (np.linalg.norm(y[i] - y[j], axis=1) for y in (x, start))
    return [
        {**_pair(atoms, i[k], j[k]), "length_A": float(now[k]), "start_A": float(then[k])} for k in _worst(now / then)
    ]


def _pairs(atoms: Atoms, x: Array) -> list[dict[str, Any]]:
    from ase.data import covalent_radii

    i, j = np.triu_indices(len(x), 1)
    radii = covalent_radii[atoms.numbers]
    apart = np.linalg.norm(x[i] - x[j], axis=1)
    share = apart / (radii[i] + radii[j])
    return [
        {**_pair(atoms, i[k], j[k]), "distance_A": float(apart[k]), "of_covalent_radii": float(share[k])}
        for k in _worst(-share)
    ]


def _residual(guard: Guard, atoms: Atoms, r: int) -> list[dict[str, Any]] | None:
    """Atoms by teacher - student, where both are known; no model is asked."""
    table = guard.stepper.forces
    names = table.differences.get("residual")
    if names is None or not all(n in table.known for n in names):
        return None
    a, b = (table.known[n].forces[r] for n in names)
    size = np.linalg.norm(a - b, axis=1) / MEV
    return [{**_atom(atoms, i), "meV_per_A": float(size[i])} for i in _worst(size)]


def told(stop: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """Facts and dissection as text for people: `stop.txt`, and a part of the report."""
    value = ""
    if stop["value"] is not None:
        value = f"\nvalue    {stop['value']:.4g} {stop['unit']}, limit {stop['limit']:.4g} {stop['unit']}"
    lines = [
        f"rule     {stop['rule']}",
        f"when     outer step {stop['step']}, {stop['time_ps']:.4f} ps",
        f"where    replica {stop['replica']}, atom {stop['atom']} ({stop['element']}){value}",
        f"         {stop['detail']}",
        "",
        f"At outer step {found['step']}, atoms counted from 0",
        "",
        "temperature by element, K",
        *(f"  {e:2s} {t:8.0f}" for e, t in found["temperature_K"].items()),
        "",
        "hottest atoms, K",
        *(f"  {a['atom']:4d} {a['element']:2s} {a['temperature_K']:8.0f}" for a in found["hottest_atoms"]),
    ]
    if found["longest_bonds"]:
        lines += ["", "most stretched bonds: A now, A at the start"]
        lines += [f"  {_names(b)} {b['length_A']:8.3f} {b['start_A']:8.3f}" for b in found["longest_bonds"]]
    if found["closest_pairs"]:
        lines += ["", "closest pairs: A, and share of the sum of covalent radii"]
        lines += [f"  {_names(p)} {p['distance_A']:8.3f} {p['of_covalent_radii']:8.2f}" for p in found["closest_pairs"]]
    if found["residual"] is not None:
        lines += ["", "teacher against student, meV/A"]
        lines += [f"  {a['atom']:4d} {a['element']:2s} {a['meV_per_A']:8.1f}" for a in found["residual"]]
    if found["last_steps"]:
        lines += ["", "last steps: ps, kinetic and potential energy in eV, change of the conserved in meV/atom"]
        lines += [
            f"  {m['step']:8d} {m['time_ps']:10.4f} {m['kinetic_eV']:10.4f} {m['potential_eV']:14.4f}"
            f" {m['conserved_meV_per_atom']:+10.3f}"
            for m in found["last_steps"]
        ]
    return "\n".join(lines) + "\n"


def _names(pair: Mapping[str, Any]) -> str:
    i, j = pair["atoms"]
    return f"{i:4d} {j:4d} {pair['elements']:5s}"
