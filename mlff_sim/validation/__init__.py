"""Validators: arrays in, typed verdicts out. They print nothing, plot nothing and write nothing.

| question | function | answer |
|---|---|---|
| is the energy conserved? | `nve_drift` | `Drift` |
| is every element at the bath's temperature? | `kinetic_temperatures` | `Temperatures` |
| is the structure the same? | `pair_distributions`, `compare` | `Distribution`, `RdfResult` |
| do times, velocities and energies of a file fit? | `frame_spacing`, `kinetic_consistency` | `FrameSpacing`, `KineticConsistency` |
| is it faster, and from when on? | `measured_speedup` | `Speedup` |
| all of it, for the runs of a study | `assess` | `Assessment` |
"""

from mlff_sim.validation.assess import (
    Assessment,
    Run,
    RunAssessment,
    Speed,
    assess,
    assess_folder,
    load_reference,
    reference_of,
)
from mlff_sim.validation.breakeven import Speedup, measured_speedup
from mlff_sim.validation.distances import Distribution, RdfResult, compare, pair_distributions
from mlff_sim.validation.energy import Drift, nve_drift
from mlff_sim.validation.ensemble import GroupTemperature, Temperatures, kinetic_temperatures
from mlff_sim.validation.spacing import FrameSpacing, KineticConsistency, frame_spacing, kinetic_consistency
from mlff_sim.validation.verdict import Verdict, worst

__all__ = [
    "Assessment",
    "Distribution",
    "Drift",
    "FrameSpacing",
    "GroupTemperature",
    "KineticConsistency",
    "RdfResult",
    "Run",
    "RunAssessment",
    "Speed",
    "Speedup",
    "Temperatures",
    "Verdict",
    "assess",
    "assess_folder",
    "compare",
    "frame_spacing",
    "kinetic_consistency",
    "kinetic_temperatures",
    "load_reference",
    "measured_speedup",
    "nve_drift",
    "pair_distributions",
    "reference_of",
    "worst",
]
