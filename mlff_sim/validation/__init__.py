"""Validators: arrays in, typed verdicts out. They print nothing, plot nothing and write nothing.

| question | function | answer |
|---|---|---|
| is the energy conserved? | `nve_drift` | `Drift` |
| is every element at the bath's temperature? | `kinetic_temperatures` | `Temperatures` |
| is the structure the same? | `rdf` (in a cell), `pair_distributions` (of a molecule), `compare` | `Distribution`, `RdfResult` |
| are bonds, angles and dihedrals the same? | `structure_errors` | `StructureErrors`, `StructureFigure` |
| how long does it last, and what breaks first? | `stability`, `survival_time` | `Stability`, `Break` |
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
from mlff_sim.validation.radial import coordination, rdf
from mlff_sim.validation.structure import StructureErrors, StructureFigure, structure_errors
from mlff_sim.validation.survival import Break, Stability, stability, survival_time
from mlff_sim.validation.verdict import Verdict, worst

__all__ = [
    "Assessment",
    "Break",
    "Distribution",
    "Drift",
    "GroupTemperature",
    "RdfResult",
    "Run",
    "RunAssessment",
    "Speed",
    "Speedup",
    "Stability",
    "StructureErrors",
    "StructureFigure",
    "Temperatures",
    "Verdict",
    "assess",
    "assess_folder",
    "compare",
    "coordination",
    "kinetic_temperatures",
    "load_reference",
    "measured_speedup",
    "nve_drift",
    "pair_distributions",
    "rdf",
    "reference_of",
    "stability",
    "structure_errors",
    "survival_time",
    "worst",
]
