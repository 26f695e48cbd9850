"""From run folders to one typed assessment: what was judged, how it came out, and what was not judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlff_sim.errors import InputError
from mlff_sim.forces import Array
from mlff_sim.state import kinetic_energy
from mlff_sim.units import KB, MEV
from mlff_sim.validation.assessment import Assessment, Finding, Jumps, Run, RunAssessment, clock, sound
from mlff_sim.validation.beside import beside
from mlff_sim.validation.distances import Distribution, compare
from mlff_sim.validation.energy import fewest_frames, nve_drift
from mlff_sim.validation.ensemble import equipartition
from mlff_sim.validation.montecarlo import Leaps, MonteCarlo, monte_carlo, observables
from mlff_sim.validation.radial import rdf
from mlff_sim.validation.spacing import FrameSpacing, KineticConsistency, frame_spacing, kinetic_consistency
from mlff_sim.validation.timing import methods, speed
from mlff_sim.validation.verdict import Verdict

RELAXATION_TIMES = 3.0
"""A Langevin bath forgets the start as exp(-friction t); after three of these 5 % are left."""
MOST_CUT = 0.2
"""Never leave out more than this share of a run."""
TIMELESS = "its files hold no times; give the time between frames."
SPACING_FRAMES = 500
"""The time between frames shows in a few; more would only take memory."""


BOUNDED_NOTE = (
    "Temperature was not judged: velocities are bounded in this scheme, and only positions are canonical. "
    "Its time is not physical."
)

KSTEP_NOTE = (
    "A predictor jumps: its time is approximate, so rates and spectra are not judged, and energy is kept by construction, "
    "so a drift would say nothing. Temperatures and structure are what tells."
)
"""Of scheme "kstep"."""

RECIPE = (
    "kind",
    "ensemble",
    "scheme",
    "temperature_K",
    "timestep_fs",
    "k_steps",
    "proposal_steps",
    "friction_per_ps",
    "friction_by_element",
    "integrator",
    "middle_steps",
    "remove_com",
    "hydrogen_mass",
    "replicas",
    "duration_ps",
    "seed",
    "models",
    "versions",
)
"""Settings of a run that are remembered with its distributions."""


def assess(runs: Sequence[Run], against: Run | Distribution | None = None, drift_limit: float = 0.1) -> Assessment:
    """Judge the runs of a study.

    Energy drift is judged on NVE runs, temperature on NVT runs, structure on NVT runs against the reference
    (on NVE runs where there is no other). A run that a guard stopped fails. Speed is reported, not judged.

    Args:
        runs: one or more run folders, read.
        against: reference for the structure: a run of the teacher alone, or a stored distribution.
        drift_limit: meV/atom/ps.

    Returns:
        The assessment; it is inconclusive, with a note on what would settle it, where nothing could be judged.

    Raises:
        InputError: the reference is of another molecule or temperature.
        ValueError: no runs.
    """
    if not runs:
        raise ValueError("no run to assess; give at least one.")
    reference = against if against is None or isinstance(against, Distribution) else reference_of(against)
    any_nvt = any(r.settings["ensemble"] == "nvt" for r in runs)
    other = against if against is not None and not isinstance(against, Distribution) else None
    if other is not None and any(Path(r.folder).resolve() == Path(other.folder).resolve() for r in runs):
        raise InputError(f"'{other.folder}' is compared with itself, which it passes; give another reference.")
    held = [r.settings["ensemble"] == "nvt" or not any_nvt for r in runs]
    judged = tuple(
        _assess_run(r, reference if h else None, drift_limit, other if h else None)
        for r, h in zip(runs, held, strict=True)
    )
    notes, known = [], {r.settings["ensemble"] for r in runs}
    if not any(r.drift for r in judged) and known == {"nvt"}:
        notes.append("Energy conservation was not judged: add an NVE run (5 or more replicas).")
    if not any(r.temperatures and r.temperatures.verdict for r in judged):
        bounded = not all(_has_momenta(r.settings) for r in judged)
        if bounded or (known == {"nve"} and any(r.temperatures for r in judged)):
            notes.append(BOUNDED_NOTE if bounded else "Temperature was not judged: add an NVT run.")
    if reference is None:
        notes.append("Structure was not judged: give a reference, a run of the teacher alone or a stored distribution.")
    for run in judged:
        if kept := run.settings.get("relabelled"):
            notes.append(
                f"{kept} frames of {run.name} lie beyond the student's training range; they are in its relabel.npz with the "
                "teacher's answers: mlff-sim distill --labels."
            )
    return Assessment(judged, tuple(notes), methods(runs, judged))


def load_reference(path: str | Path) -> Run | Distribution:
    """A reference for `assess`: a stored distribution (a file) or a run folder.

    Raises:
        InputError: neither is there.
    """
    if Path(path).is_dir():
        from mlff_sim.runfolder import find_runs, read_run

        runs = find_runs(path)
        if len(runs) > 1:
            raise InputError(f"'{path}' holds {len(runs)} runs; give the one that is the reference.")
        return read_run(runs[0])
    return Distribution.load(Path(path))


def reference_of(*runs: Run, block_ps: float | None = None) -> Distribution:
    """Pair-distance distributions after equilibration, of one run or pooled over several of one ensemble.

    Args:
        runs: runs that differ in nothing but seed and replicas.
        block_ps: as for `pair_distributions`.

    Returns:
        The distributions, with the settings of the runs as recipe.

    Raises:
        InputError: the runs differ in more, so that they are not samples of one ensemble.
    """
    first = runs[0]
    settings = first.settings
    numbers = np.asarray(settings["structure"]["numbers"])
    for other in runs[1:]:
        free = ("seed", "replicas", "versions")
        changed = [k for k in RECIPE if k not in free and other.settings.get(k) != settings.get(k)]
        if changed or other.settings["structure"]["numbers"] != settings["structure"]["numbers"]:
            what = ", ".join(changed) or "atoms"
            raise InputError(f"'{first.folder}' and '{other.folder}' differ in {what}; pool runs of one ensemble.")
    recipe = {name: settings.get(name) for name in RECIPE}
    if settings["ensemble"] == "nve":
        recipe["temperature_K"] = None
    if len(runs) > 1:
        recipe |= {name: [r.settings[name] for r in runs] for name in ("seed", "replicas")}
    if first.time_ps is None:
        raise InputError(f"'{first.folder}' is no reference for the structure: {TIMELESS}")
    rows, time_ps = min(int(sound(r).sum()) for r in runs), clock(first)
    if rows < 2:
        raise InputError(f"'{first.folder}' is no reference for the structure: fewer than 2 frames; run longer.")
    if len(numbers) < 2:
        raise InputError(f"'{first.folder}' is no reference for the structure: it is a single atom.")
    start = _equilibration_ps(settings, time_ps[:rows])
    keep = slice(int(np.searchsorted(time_ps[:rows], start)), rows)
    positions = np.concatenate([r.positions[keep] for r in runs], axis=1) if len(runs) > 1 else first.positions[keep]
    cells = _cells(first)
    return rdf(
        positions, time_ps[keep], numbers, None if cells is None else cells[keep], block_ps=block_ps, recipe=recipe
    )


def _cells(run: Run) -> Array | None:
    """Cells of a periodic run, A, shape (frames, replicas, 3, 3)."""
    cells: Array | None = getattr(run, "cells", None)
    return cells


def _has_momenta(settings: Mapping[str, Any]) -> bool:
    """Whether the momenta of a run are Maxwell's; runs say so that have others."""
    return bool(settings.get("physical_momenta", True))


def _equilibration_ps(settings: Mapping[str, Any], time_ps: Array) -> float:
    """Time from which an NVT run counts: three relaxation times of its bath, less what it equilibrated unrecorded."""
    friction = _lowest_friction(settings)
    if settings.get("scheme") == "kstep":  # the atoms of a frame move on with the draws, however strong the bath
        friction = min(friction, 1000 / float(settings["outer_step_fs"]))
    if settings["ensemble"] != "nvt" or not len(time_ps):
        return 0.0
    span = float(time_ps[-1] - time_ps[0])
    needed = RELAXATION_TIMES / friction - (settings.get("equilibrate_ps") or 0.0) if friction > 0 else np.inf
    return float(time_ps[0]) + float(min(needed, MOST_CUT * span)) if needed > 0 else 0.0


def _lowest_friction(settings: Mapping[str, Any]) -> float:
    """1/ps, of the element that forgets last."""
    friction, own = settings.get("friction_per_ps") or 0.0, settings.get("friction_by_element") or {}
    if not own:
        return float(friction)
    from ase.data import chemical_symbols

    elements = {chemical_symbols[z] for z in settings["structure"]["numbers"]}
    return float(min(own.get(element, friction) for element in elements))


def _assess_run(
    run: Run, reference: Distribution | None, drift_limit: float, other: Run | None = None
) -> RunAssessment:
    """Judge one run by everything that applies to it; `other` is the run that the reference was made from."""
    settings, rows = run.settings, sound(run)
    structure, nvt = settings["structure"], settings["ensemble"] == "nvt"
    n, time_ps = len(structure["numbers"]), clock(run)
    cut_ps = _equilibration_ps(settings, time_ps[rows])
    keep, time_ps = rows & (time_ps >= cut_ps), time_ps[rows]
    conserved = np.empty((len(time_ps), 0)) if run.conserved is None else run.conserved[rows]
    notes = [*settings.get("notes", ())]
    if settings.get("status") != "finished" and settings.get("kind") != "trajectory":
        notes.append(_ending(settings))
    drift = temperatures = structural = None
    if settings["ensemble"] is None:
        notes.append(
            "Neither energy drift nor temperature was judged: the files do not say whether a bath was at work; say nve, "
            "or nvt and its temperature."
        )
    if settings.get("scheme") == "kstep":
        notes.append(KSTEP_NOTE)
    elif settings["ensemble"] == "nve":
        if run.conserved is None or run.time_ps is None:
            what = "energies" if run.conserved is None else "times"
            notes.append(f"Energy drift was not judged: the files hold no {what}.")
        elif len(time_ps) >= fewest_frames(conserved.shape[1]):
            drift = nve_drift(time_ps, conserved.T, n, drift_limit, **_kinetic_scale(run, rows))
        else:
            notes.append(
                f"Energy drift was not judged: {len(time_ps)} frames are too few; run longer or record more often."
            )
    if keep.sum() >= 2:
        masses, numbers = np.asarray(structure["masses"], dtype=np.float64), np.asarray(structure["numbers"])
        target = float(settings["temperature_K"]) if nvt else None
        if run.momenta is None:
            notes.append("Temperature was not judged: the files hold no velocities.")
        elif settings.get("constraints"):
            notes.append(
                f"Temperature was not judged: {settings['constraints']}, so elements have fewer degrees of freedom than "
                "three for each atom."
            )
        elif _has_momenta(settings):
            temperatures = equipartition(
                run.momenta[keep],
                masses,
                numbers,
                target,
                bool(settings["com_removed"]),
                positions=run.positions[keep],
            )
        else:
            notes.append(BOUNDED_NOTE)
        if reference is not None:
            if run.time_ps is not None:
                structural = compare(reference_of(run), reference)
            else:
                notes.append(f"Structure was not judged: {TIMELESS}")
    else:
        notes.append("Temperature and structure were not judged: fewer than 2 frames; run longer or record more often.")
    ghmc = _monte_carlo(run, rows, keep)
    if ghmc is not None and not ghmc.acceptance:
        notes.append(f"No proposal was accepted, so nothing was sampled; {ghmc.remedy}.")
    if (settings.get("tuning") or {}).get("longest"):
        notes.append(
            f"Of the trajectories tried, the longest was best (k_steps = {settings['k_steps']}); with a longer "
            "equilibrate_ps, longer ones would be tried."
        )
    findings: dict[str, Finding] = {}
    if (spacing := _spacing(run)) is not None:
        if spacing.verdict is Verdict.INCONCLUSIVE:
            notes.append(f"The time between frames was taken as given: {spacing.note}")
        else:
            findings["spacing"] = spacing
    if (kinetic := _kinetic(run)) is not None:
        findings["kinetic"] = kinetic
    if other is not None and structural is not None and _cells(run) is None:
        findings |= beside(run, other, keep, kept(other), structural)
    return RunAssessment(
        name=Path(run.folder).name,
        settings=settings,
        cut_ps=cut_ps,
        time_ps=time_ps,
        energy=(conserved - conserved[:1]) / (MEV * n),
        residual=None if run.residual_mae is None else run.residual_mae[rows] / MEV,
        drift=drift,
        temperatures=temperatures,
        rdf=structural,
        speed=speed(run) if settings.get("kind") == "hybrid" else None,
        ghmc=ghmc,
        notes=tuple(notes),
        findings=findings,
        jumps=_jumps(run, rows),
    )


def _jumps(run: Run, rows: NDArray[np.bool_]) -> Jumps | None:
    """Macro-steps of a run, over all rows but the first."""
    if "fallbacks" not in run.counts or rows.sum() < 2:
        return None
    dropped, again = (run.counts[name][rows][1:] for name in ("fallbacks", "redraws"))
    return Jumps(int(run.settings["every"]) * dropped.size, int(dropped.sum()), int(again.sum()))


def _kinetic_scale(run: Run, rows: NDArray[np.bool_]) -> dict[str, Any]:
    """What a drift is compared with: kinetic energies, (replicas, frames), degrees of freedom, and their temperature."""
    if run.momenta is None or not _has_momenta(run.settings):
        return {}
    masses = np.asarray(run.settings["structure"]["masses"], dtype=np.float64)
    kinetic = kinetic_energy(run.momenta[rows], masses)
    dof = 3.0 * len(masses) - (3.0 if run.settings["com_removed"] else 0.0)
    if not dof:
        return {"kinetic_eV": kinetic.T}
    return {"kinetic_eV": kinetic.T, "dof": dof, "temperature_K": float(2 * kinetic.mean() / (dof * KB))}


def kept(run: Run) -> NDArray[np.bool_]:
    """Frames after equilibration, shape (frames,)."""
    rows, time_ps = sound(run), clock(run)
    return rows & (time_ps >= _equilibration_ps(run.settings, time_ps[rows]))


def _spacing(run: Run) -> FrameSpacing | None:
    """Of the consecutive frames of files made elsewhere; a run folder's times are our own."""
    window = getattr(run, "window", None)
    if window is None or window.momenta is None or window.time_ps is None:
        return None
    masses = np.asarray(run.settings["structure"]["masses"], dtype=np.float64)
    some = slice(0, SPACING_FRAMES)
    cells = None if window.cells is None else window.cells[some]
    return frame_spacing(window.positions[some], window.momenta[some], masses, window.time_ps[some], cells)


def _kinetic(run: Run) -> KineticConsistency | None:
    """Of the energies that files made elsewhere state beside their velocities."""
    stated = getattr(run, "kinetic_energy", None)
    if run.settings.get("kind") != "trajectory" or stated is None or run.momenta is None:
        return None
    return kinetic_consistency(stated, run.momenta, np.asarray(run.settings["structure"]["masses"], dtype=np.float64))


def _monte_carlo(run: Run, rows: NDArray[np.bool_], keep: NDArray[np.bool_]) -> MonteCarlo | None:
    """Acceptance over all rows but the first, which precedes all proposals; samples after equilibration."""
    if "accepted" not in run.counts or run.potential_energy is None or rows.sum() < 2:
        return None
    structure = run.settings["structure"]
    series = observables(
        run.positions[keep],
        run.potential_energy[keep],
        np.asarray(structure["masses"], dtype=np.float64),
        structure["bonds"],
        np.asarray(structure["numbers"]),
    )
    wall_s = (run.settings.get("wall_s") or {}).get("total")
    counted = {name: c[rows][1:] for name, c in run.counts.items()}
    leaps = None
    if "leaps" in counted:
        leaps = Leaps(*(int(counted[name].sum()) for name in ("leaps", "unsolved", "one_way")))
    return monte_carlo(counted["accepted"], int(run.settings["every"]), series, wall_s, leaps)


def _ending(settings: Mapping[str, Any]) -> str:
    """How an unfinished run ended, in one line."""
    stop = settings.get("stop")
    if not stop:
        return f"The run is not complete (status '{settings.get('status')}'): finish it."
    where = f"replica {stop['replica']}, atom {stop['atom']}"
    return f"Stopped at outer step {stop['step']} by the guard '{stop['rule']}' ({where}): {stop['detail']}. stop.txt dissects it."
