"""Validators: arrays in, typed verdicts out. They print nothing, plot nothing and write nothing.

| question | function | answer |
|---|---|---|
| is the energy conserved? | `nve_drift` | `Drift` |
| and by the quick criteria, without error bars? | `quick_nve` | `QuickNve` |
| does the energy error fall with the square of the time step? | `step_size_law` | `StepSizeLaw` |
| is every element and kind of motion at the bath's temperature? | `equipartition` | `Temperatures` |
| are energies at two temperatures a Boltzmann factor apart? | `ensemble_check` | `EnsembleCheck` |
| is a series equilibrated, and what is it worth? | `convergence` | `Convergence` |
| is the structure the same? | `pair_distributions`, `compare` | `Distribution`, `RdfResult` |
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
from mlff_sim.validation.boltzmann import EnsembleCheck, ensemble_check
from mlff_sim.validation.breakeven import Speedup, measured_speedup
from mlff_sim.validation.distances import Distribution, RdfResult, compare, pair_distributions
from mlff_sim.validation.energy import Drift, nve_drift
from mlff_sim.validation.ensemble import GroupTemperature, KineticDistribution, Temperatures, equipartition
from mlff_sim.validation.preset import QuickNve, quick_nve
from mlff_sim.validation.sampling import Convergence, convergence
from mlff_sim.validation.stepsize import StepSizeLaw, step_size_law
from mlff_sim.validation.verdict import Verdict, worst

__all__ = [
    "Assessment",
    "Convergence",
    "Distribution",
    "Drift",
    "EnsembleCheck",
    "GroupTemperature",
    "KineticDistribution",
    "QuickNve",
    "RdfResult",
    "Run",
    "RunAssessment",
    "Speed",
    "Speedup",
    "StepSizeLaw",
    "Temperatures",
    "Verdict",
    "assess",
    "assess_folder",
    "compare",
    "convergence",
    "ensemble_check",
    "equipartition",
    "load_reference",
    "measured_speedup",
    "nve_drift",
    "pair_distributions",
    "quick_nve",
    "reference_of",
    "step_size_law",
    "worst",
]
