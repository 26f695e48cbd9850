"""From a folder to its assessment: a run, a loose set of runs, or a study that says what it is to be judged by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlff_sim.errors import InputError
from mlff_sim.forces import Array
from mlff_sim.state import kinetic_energy
from mlff_sim.validation.assess import assess, kept, load_reference
from mlff_sim.validation.assessment import Assessment, Finding, Run, sound
from mlff_sim.validation.boltzmann import ensemble_check
from mlff_sim.validation.certificate import certify
from mlff_sim.validation.distances import Distribution
from mlff_sim.validation.lines import match_peaks
from mlff_sim.validation.molecule import internal_momenta
from mlff_sim.validation.preset import quick_nve
from mlff_sim.validation.stepsize import step_size_law
from mlff_sim.validation.survival import stability
from mlff_sim.validation.vibrations import vibrations


@dataclass(frozen=True)
class Asked:
    """What a study is judged by.

    Attributes:
        runs: by name.
        against: reference for the structure.
        drift_limit: meV/atom/ps.
        found: what was computed beside the runs.
        facts: what else was asked.
    """

    runs: Mapping[str, Run]
    against: Run | Distribution | None
    drift_limit: float
    found: Mapping[str, Any]
    facts: Mapping[str, Any]


def _plain(asked: Asked) -> Assessment:
    return assess(list(asked.runs.values()), asked.against, asked.drift_limit)


def _certificate(asked: Asked) -> Assessment:
    if asked.against is not None:
        raise InputError("a certificate compares two runs of its own; leave --against out.")
    return certify(asked.runs["fast"], asked.runs["verlet"], asked.drift_limit)


def _only(asked: Asked, name: str, finding: Finding) -> Assessment:
    """An assessment of the one question that was asked; whatever else the runs would show they were not made for."""
    plain = assess(list(asked.runs.values()), None, asked.drift_limit)
    bare = [replace(r, drift=None, temperatures=None, rdf=None) for r in plain.runs]
    first = replace(bare[0], findings={**bare[0].findings, name: finding})
    return Assessment((first, *bare[1:]), ())


def _nve(asked: Asked) -> Assessment:
    if not asked.facts.get("quick"):
        return _plain(asked)
    run = asked.runs["nve"]
    assert run.momenta is not None and run.time_ps is not None and run.conserved is not None
    rows, structure = sound(run), run.settings["structure"]
    masses = np.asarray(structure["masses"], dtype=np.float64)
    found = quick_nve(
        run.time_ps[rows],
        run.conserved[rows].T,
        kinetic_energy(run.momenta[rows], masses).T,
        3.0 * len(masses) - 3.0 * bool(run.settings["com_removed"]),
        target_K=float(run.settings["temperature_K"]),
        positions=run.positions[rows],
        bonds=structure["bonds"],
    )
    return _only(asked, "quick", found)


def _step_size(asked: Asked) -> Assessment:
    runs = [asked.runs[name] for name in ("half", "single", "double")]
    steps = [float(r.settings["timestep_fs"]) for r in runs]
    return _only(asked, "step-size", step_size_law(steps, [_series(r.conserved) for r in runs]))


def _ensemble(asked: Asked) -> Assessment:
    low, high = asked.runs["low"], asked.runs["high"]
    kelvin = [float(r.settings["temperature_K"]) for r in (low, high)]
    energies = [_series(r.potential_energy, kept(r)) for r in (low, high)]
    return _only(asked, "ensemble", ensemble_check(energies[0], energies[1], kelvin[0], kelvin[1]))


def _vibrations(asked: Asked) -> Assessment:
    run = asked.runs["nve"]
    assert run.momenta is not None and run.time_ps is not None
    structure = run.settings["structure"]
    masses = np.asarray(structure["masses"], dtype=np.float64)
    inside = internal_momenta(run.positions, run.momenta, masses)
    h = float(run.settings["timestep_fs"])
    spectrum = vibrations(inside, masses, np.asarray(structure["numbers"]), run.time_ps, h)
    modes = np.asarray(asked.found["modes_cm"], dtype=np.float64)
    lines = match_peaks(spectrum, modes)
    judged = _only(asked, "vibrations", lines)
    first = judged.runs[0]
    return replace(judged, runs=(replace(first, findings={**first.findings, "spectrum": spectrum}),))


def _stability(asked: Asked) -> Assessment:
    run = asked.runs["nvt"]
    structure = run.settings["structure"]
    found = stability(
        run.positions,
        np.arange(len(run.positions), dtype=np.float64) if run.time_ps is None else run.time_ps,
        np.asarray(structure["numbers"]),
        [(int(i), int(j)) for i, j in structure["bonds"]],
        momenta=run.momenta,
        masses=np.asarray(structure["masses"], dtype=np.float64),
        temperature_K=float(run.settings["temperature_K"]),
    )
    return _only(asked, "stability", found)


QUESTIONS: dict[str, Callable[[Asked], Assessment]] = {
    "nve": _nve,
    "certify": _certificate,
    "step-size": _step_size,
    "ensemble": _ensemble,
    "vibrations": _vibrations,
    "stability": _stability,
}
"""How a study is judged; any other as a loose set of runs."""


def _series(energies: Array | None, rows: NDArray[np.bool_] | None = None) -> Array:
    """Energies of (frames, replicas) as (replicas, frames)."""
    assert energies is not None
    return energies.T if rows is None else energies[rows].T


def assess_folder(folder: str | Path, against: str | Path | None = None, drift_limit: float = 0.1) -> Assessment:
    """Judge a run folder, a folder of run folders, or a study; see `assess` for the arguments.

    Raises:
        InputError: no finished run there, or a reference that does not fit.
    """
    from mlff_sim.runfolder import find_runs, read_run, read_study

    study = read_study(folder)
    runs: dict[str, Run] = {path.name: read_run(path) for path in find_runs(folder)}
    if missing := [name for name in study.get("runs", {}) if name not in runs]:
        raise InputError(
            f"'{folder}' is an unfinished study without its {' and '.join(missing)}; give the same command again."
        )
    judge = QUESTIONS.get(study.get("question", ""), _plain)
    reference = load_reference(against) if against else None
    return judge(Asked(runs, reference, drift_limit, study.get("found", {}), study.get("facts", {})))
