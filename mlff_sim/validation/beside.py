"""A run beside a run of the reference: what takes both trajectories, not a stored distribution."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mlff_sim.validation.assessment import Finding, Run, clock
from mlff_sim.validation.distances import RdfResult
from mlff_sim.validation.lines import match_peaks
from mlff_sim.validation.molecule import internal_momenta
from mlff_sim.validation.spectra import compare_spectra
from mlff_sim.validation.structure import structure_errors
from mlff_sim.validation.verdict import Verdict
from mlff_sim.validation.vibrations import Spectrum, vibrations

Rows = NDArray[np.bool_]


def beside(run: Run, reference: Run, rows: Rows, reference_rows: Rows, rdf: RdfResult) -> dict[str, Finding]:
    """Bonds, angles and dihedrals; and the density of vibrational states, where both conserve energy and have a time.

    Args:
        run: a molecule without a cell.
        reference: the same molecule.
        rows: frames of the run that count, shape (frames,).
        reference_rows: of the reference.
        rdf: the comparison of their pair distances.
    """
    found: dict[str, Finding] = {}
    structure = run.settings["structure"]
    bonds = [(int(i), int(j)) for i, j in structure.get("bonds") or ()]
    if bonds:
        found["geometry"] = structure_errors(
            run.positions[rows],
            reference.positions[reference_rows],
            clock(run)[rows],
            clock(reference)[reference_rows],
            np.asarray(structure["numbers"]),
            bonds,
            pair_distances=rdf,
        )
    if _oscillates(run) and _oscillates(reference):
        # Frames of fast and slow run are as far apart, so that both fold alike.
        spectra = spectrum_of(run, rows, folded=True), spectrum_of(reference, reference_rows, folded=True)
        found["lines"] = match_peaks(*spectra)
        distance = compare_spectra(*spectra)
        # How energy is shared among modes takes far longer to see than where their lines are; unseen, it is not judged.
        found["vibrations"] = replace(distance, verdict=None) if distance.verdict is Verdict.INCONCLUSIVE else distance
    return found


def _oscillates(run: Run) -> bool:
    """Whether there is a spectrum to look at: no bath, velocities, a time that is one, and a step to correct for."""
    s = run.settings
    known = run.momenta is not None and s.get("timestep_fs") is not None
    return known and s["ensemble"] == "nve" and bool(s.get("physical_time", True))


def spectrum_of(run: Run, rows: Rows, *, folded: bool = False) -> Spectrum:
    """Of all motion inside the molecule, in the frames that count; `folded` as for `vibrations`."""
    assert run.momenta is not None
    masses = np.asarray(run.settings["structure"]["masses"], dtype=np.float64)
    inside = internal_momenta(run.positions[rows], run.momenta[rows], masses)
    numbers = np.asarray(run.settings["structure"]["numbers"])
    return vibrations(inside, masses, numbers, clock(run)[rows], float(run.settings["timestep_fs"]), folded=folded)
