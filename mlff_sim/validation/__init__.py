"""Validators: arrays in, typed verdicts out. They print nothing, plot nothing and write nothing.

| question | function | answer |
|---|---|---|
| is the energy conserved? | `nve_drift` | `Drift` |
| is every element and kind of motion at the bath's temperature? | `equipartition` | `Temperatures` |
| is a series equilibrated, and what is it worth? | `convergence` | `Convergence` |
| is the structure the same? | `pair_distributions`, `compare` | `Distribution`, `RdfResult` |
| is it faster, and from when on? | `measured_speedup` | `Speedup` |
| is the fast run the same physics as the slow one? | `certify` | `Assessment` with `Differences` and `Control` |
| all of it, for the runs of a study | `assess` | `Assessment` |
"""

from mlff_sim.validation.assess import (
    Assessment,
    Run,
    RunAssessment,
    Speed,
    assess,
    load_reference,
    reference_of,
)
from mlff_sim.validation.breakeven import Speedup, measured_speedup
from mlff_sim.validation.certificate import Control, Difference, Differences, certify
from mlff_sim.validation.distances import Distribution, RdfResult, compare, pair_distributions
from mlff_sim.validation.energy import Drift, nve_drift
from mlff_sim.validation.ensemble import GroupTemperature, Temperatures, kinetic_temperatures
from mlff_sim.validation.study import assess_folder
from mlff_sim.validation.ensemble import GroupTemperature, KineticDistribution, Temperatures, equipartition
from mlff_sim.validation.sampling import Convergence, convergence
from mlff_sim.validation.verdict import Verdict, worst

__all__ = [
    "Assessment",
    "Control",
    "Difference",
    "Differences",
    "Convergence",
    "Distribution",
    "Drift",
    "GroupTemperature",
    "KineticDistribution",
    "RdfResult",
    "Run",
    "RunAssessment",
    "Speed",
    "Speedup",
    "Temperatures",
    "Verdict",
    "assess",
    "assess_folder",
    "certify",
    "compare",
    "convergence",
    "equipartition",
    "load_reference",
    "measured_speedup",
    "nve_drift",
    "pair_distributions",
    "reference_of",
    "worst",
]
