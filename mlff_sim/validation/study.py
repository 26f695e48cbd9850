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
from mlff_sim.validation.assessment import Assessment, Finding, Run, clock, sound
from mlff_sim.validation.beside import spectrum_of
from mlff_sim.validation.boltzmann import ensemble_check
from mlff_sim.validation.certificate import certify
from mlff_sim.validation.distances import Distribution
from mlff_sim.validation.lines import match_peaks
from mlff_sim.validation.preset import quick_nve
from mlff_sim.validation.stepsize import step_size_law
from mlff_sim.validation.survival import stability


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
    return certify(asked.runs["fast"], asked.runs["verlet"], asked.drift_limit)


def _only(judge: Callable[[Asked], Mapping[str, Finding]], of_stopped: bool = False) -> Callable[[Asked], Assessment]:
    """An assessment of the one question that was asked; whatever else the runs would show they were not made for.

    Where a run was stopped (and the question is not what stopped it), or is too short for the validator, there is no
    answer, and the assessment says why.
    """

    def assessed(asked: Asked) -> Assessment:
        plain = assess(list(asked.runs.values()), None, asked.drift_limit)
        bare = tuple(replace(r, drift=None, temperatures=None, rdf=None) for r in plain.runs)
        if any(r.ended for r in bare) and not of_stopped:
            return Assessment(bare, ())
        bare = tuple(r if r.ended else replace(r, notes=()) for r in bare)
        try:
            findings = judge(asked)
        except ValueError as error:
            return Assessment(bare, (f"Not judged: {error}",))
        return Assessment((replace(bare[0], findings=findings), *bare[1:]), ())

    return assessed


def _quick(asked: Asked) -> Mapping[str, Finding]:
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
    return {"quick": found}


def _nve(asked: Asked) -> Assessment:
    return _only(_quick)(asked) if asked.facts.get("quick") else _plain(asked)


def _step_size(asked: Asked) -> Assessment:
    ended = {name: bool(run.settings.get("stop")) for name, run in asked.runs.items()}
    if ended["double"] and not (ended["single"] or ended["half"]):
        # Twice the step is more than was asked of the model; what happens there is not held against it.
        rest = {name: run for name, run in asked.runs.items() if name != "double"}
        note = "Not judged: at twice the step the run was stopped. Ask with a shorter --timestep-fs."
        return replace(_only(lambda _: {})(replace(asked, runs=rest)), notes=(note,))
    return _only(_step_size_law)(asked)


def _step_size_law(asked: Asked) -> Mapping[str, Finding]:
    runs = [asked.runs[name] for name in ("half", "single", "double")]
    steps = [float(r.settings["timestep_fs"]) for r in runs]
    return {"step-size": step_size_law(steps, [_series(r.conserved) for r in runs])}


def _ensemble(asked: Asked) -> Mapping[str, Finding]:
    low, high = asked.runs["low"], asked.runs["high"]
    kelvin = [float(r.settings["temperature_K"]) for r in (low, high)]
    energies = [_series(r.potential_energy, kept(r)) for r in (low, high)]
    return {"ensemble": ensemble_check(energies[0], energies[1], kelvin[0], kelvin[1])}


def _vibrations(asked: Asked) -> Mapping[str, Finding]:
    run = asked.runs["nve"]
    spectrum = spectrum_of(run, np.ones(len(run.positions), dtype=np.bool_))
    modes = np.asarray(asked.found["modes_cm"], dtype=np.float64)
    return {"vibrations": match_peaks(spectrum, modes), "spectrum": spectrum}


def _stability(asked: Asked) -> Mapping[str, Finding]:
    run = asked.runs["nvt"]
    structure = run.settings["structure"]
    found = stability(
        run.positions,
        clock(run),
        np.asarray(structure["numbers"]),
        [(int(i), int(j)) for i, j in structure["bonds"]],
        momenta=run.momenta,
        masses=np.asarray(structure["masses"], dtype=np.float64),
        temperature_K=float(run.settings["temperature_K"]),
    )
    return {"stability": found}


QUESTIONS: dict[str, Callable[[Asked], Assessment]] = {
    "nve": _nve,
    "certify": _certificate,
    "step-size": _step_size,
    "ensemble": _only(_ensemble),
    "vibrations": _only(_vibrations),
    "stability": _only(_stability, of_stopped=True),
}
"""How a study is judged; any other as a loose set of runs."""
COMPARED = ("", "nve", "nvt")
"""Questions with a use for a reference; "" is that of a folder that is no study."""


def _series(energies: Array | None, rows: NDArray[np.bool_] | None = None) -> Array:
    """Energies of (frames, replicas) as (replicas, frames)."""
    assert energies is not None
    return energies.T if rows is None else energies[rows].T


def reference_for(question: str, against: str | Path | None) -> Run | Distribution | None:
    """The reference that a question is asked with, read before there is anything to compare with it.

    Raises:
        InputError: it is not there, or the question has no use for one.
    """
    if against is None:
        return None
    if question not in COMPARED:
        raise InputError(f"'{question}' compares nothing with a reference; leave --against out.")
    return load_reference(against)


def assess_folder(folder: str | Path, against: str | Path | None = None, drift_limit: float = 0.1) -> Assessment:
    """Judge a run folder, a folder of run folders, or a study; see `assess` for the arguments.

    Raises:
        InputError: no finished run there, or a reference that does not fit.
    """
    from mlff_sim.runfolder import find_runs, read_run, read_study

    study = read_study(folder)
    missing = [name for name in study.get("runs", {}) if not (Path(folder) / name / "log.h5").is_file()]
    if study.get("facts", {}).get("modes") and "found" not in study:
        missing.append("normal modes")
    if missing:
        raise InputError(
            f"'{folder}' is an unfinished study without its {' and '.join(missing)}; give the same command again."
        )
    runs: dict[str, Run] = {path.name: read_run(path) for path in find_runs(folder)}
    question = study.get("question", "")
    judge, reference = QUESTIONS.get(question, _plain), reference_for(question, against)
    return judge(Asked(runs, reference, drift_limit, study.get("found", {}), study.get("facts", {})))
