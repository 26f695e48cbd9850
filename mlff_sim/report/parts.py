"""The parts of a report: which answers stand together, in which order, and under which words."""

from __future__ import annotations

from typing import Any

from mlff_sim.validation import (
    Control,
    Differences,
    EnsembleCheck,
    FrameSpacing,
    KineticConsistency,
    PeakMatch,
    QuickNve,
    Spectrum,
    SpectrumResult,
    Stability,
    StepSizeLaw,
    StructureErrors,
)

HEADINGS = {
    "run": "The run",
    "files": "What the files say",
    "energy": "Energy",
    "temperature": "Temperature",
    "structure": "Structure",
    "vibrations": "Vibrations",
    "verlet": "Against plain Verlet",
    "further": "Further findings",
    "speed": "Speed",
    "made": "How it was made",
}
"""Parts of the table, in its order."""

PART: dict[type, str] = {
    Control: "verlet",
    Differences: "verlet",
    EnsembleCheck: "temperature",
    FrameSpacing: "files",
    KineticConsistency: "files",
    PeakMatch: "vibrations",
    QuickNve: "energy",
    Spectrum: "vibrations",
    SpectrumResult: "vibrations",
    Stability: "run",
    StepSizeLaw: "energy",
    StructureErrors: "structure",
}
"""Where the answers of validators stand."""

SECTIONS = {
    "energy": (
        "Energy conservation",
        "Kinetic plus potential energy, less the heat of a bath: what the dynamics conserves. A sound run stays flat; the dashed lines are the limit.",
    ),
    "steps": (
        "Step size",
        "How far the energy swings at each time step, beside the square law that every sound integrator follows. Above it, "
        "forces do not belong to the energy, or the step is too long.",
    ),
    "temperature": (
        "Temperature by element and kind of motion",
        "Resonance heats one element first. Bars are three standard errors, correlated frames accounted for.",
    ),
    "structure": (
        "Structure: pair distances",
        "How the distances between pairs of elements are distributed. The band holds what sampling alone explains in 19 of 20 bins.",
    ),
    "geometry": (
        "Structure: bonds, angles and dihedrals",
        "Each coordinate, run less reference. The bars are two standard deviations of what sampling alone shows: a point whose "
        "bar crosses zero is no difference. The numbers are those of the atoms in the file, from 0.",
    ),
    "vibrations": (
        "Vibrations",
        "The density of vibrational states from velocities, and how far each line is from where it was expected. "
        "Bars are two standard errors. What is faster than the frames can tell lies folded back below the end of the axis, in run "
        "and reference alike.",
    ),
    "verlet": (
        "Against plain Verlet of the teacher",
        "Differences from identical starts, replica by replica. The bars hold together in 95 of 100 cases; a sound run has them within the limits.",
    ),
    "speed": (
        "Speed",
        "Wall time of the run, and of the teacher alone in blocks that alternate with it on the same machine. Error bars are "
        "95 % intervals of the medians. Runs made at different times may have found the machine in different moods.",
    ),
    "residual": (
        "Force corrected",
        "Mean absolute difference between teacher and student along the run. A rise means the run has left what the student learned.",
    ),
}
"""Plots by section of the page, in its order: title and caption."""

SECTION: dict[type, str] = {
    Differences: "verlet",
    PeakMatch: "vibrations",
    Spectrum: "vibrations",
    SpectrumResult: "vibrations",
    StepSizeLaw: "steps",
    StructureErrors: "geometry",
}
"""Where the plots of validators stand."""


def part_of(finding: Any) -> str:
    """Part of the table of an answer; of one that is unknown here "further"."""
    return PART.get(type(finding), "further")


def section_of(finding: Any) -> str:
    """Section of the page for the plots of an answer."""
    return SECTION[type(finding)]
