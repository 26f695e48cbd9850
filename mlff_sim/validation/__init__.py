"""Validators: arrays in, typed verdicts out. They print nothing, plot nothing and write nothing.

| question | function | answer |
|---|---|---|
| is the energy conserved? | `nve_drift` | `Drift` |
| does the energy error fall with the square of the time step? | `step_size_law` | `StepSizeLaw` |
| is every element and kind of motion at the bath's temperature? | `equipartition` | `Temperatures` |
| are energies at two temperatures a Boltzmann factor apart? | `ensemble_check` | `EnsembleCheck` |
| is a series equilibrated, and what is it worth? | `convergence` | `Convergence` |
| is the structure the same? | `rdf` (in a cell), `pair_distributions` (of a molecule), `compare` | `Distribution`, `RdfResult` |
| are bonds, angles and dihedrals the same? | `structure_errors` | `StructureErrors`, `StructureFigure` |
| how long does it last, and what breaks first? | `stability`, `survival_time` | `Stability`, `Break` |
| do times, velocities and energies of a file fit? | `frame_spacing`, `kinetic_consistency` | `FrameSpacing`, `KineticConsistency` |
| at which frequencies does it vibrate? | `vibrations`, `infrared`, `internal_momenta` | `Spectrum` |
| are the spectra the same? | `compare_spectra` | `SpectrumResult` |
| are the lines where they should be? | `peaks`, `match_peaks` | `Peak`, `PeakMatch` |
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
from mlff_sim.validation.boltzmann import EnsembleCheck, ensemble_check
from mlff_sim.validation.breakeven import Speedup, measured_speedup
from mlff_sim.validation.certificate import Control, Difference, Differences, certify
from mlff_sim.validation.distances import Distribution, RdfResult, compare, pair_distributions
from mlff_sim.validation.energy import Drift, nve_drift
from mlff_sim.validation.ensemble import (
    GroupTemperature,
    KineticDistribution,
    Temperatures,
    equipartition,
)
from mlff_sim.validation.peaks import Line, Peak, PeakMatch, match_peaks, peaks
from mlff_sim.validation.radial import coordination, rdf
from mlff_sim.validation.sampling import Convergence, convergence
from mlff_sim.validation.spacing import FrameSpacing, KineticConsistency, frame_spacing, kinetic_consistency
from mlff_sim.validation.spectra import SpectrumResult, compare_spectra
from mlff_sim.validation.stepsize import StepSizeLaw, step_size_law
from mlff_sim.validation.structure import StructureErrors, StructureFigure, structure_errors
from mlff_sim.validation.study import assess_folder
from mlff_sim.validation.survival import Break, Stability, stability, survival_time
from mlff_sim.validation.verdict import Verdict, worst
from mlff_sim.validation.vibrations import (
    Spectrum,
    corrected_cm,
    infrared,
    internal_momenta,
    observed_cm,
    vibrations,
)

__all__ = [
    "Assessment",
    "Break",
    "Control",
    "Convergence",
    "Difference",
    "Differences",
    "Distribution",
    "Drift",
    "EnsembleCheck",
    "FrameSpacing",
    "GroupTemperature",
    "KineticConsistency",
    "KineticDistribution",
    "Line",
    "Peak",
    "PeakMatch",
    "RdfResult",
    "Run",
    "RunAssessment",
    "Spectrum",
    "SpectrumResult",
    "Speed",
    "Speedup",
    "Stability",
    "StepSizeLaw",
    "StructureErrors",
    "StructureFigure",
    "Temperatures",
    "Verdict",
    "assess",
    "assess_folder",
    "certify",
    "compare",
    "compare_spectra",
    "convergence",
    "coordination",
    "corrected_cm",
    "ensemble_check",
    "equipartition",
    "frame_spacing",
    "infrared",
    "internal_momenta",
    "kinetic_consistency",
    "load_reference",
    "match_peaks",
    "measured_speedup",
    "nve_drift",
    "observed_cm",
    "pair_distributions",
    "peaks",
    "rdf",
    "reference_of",
    "stability",
    "step_size_law",
    "structure_errors",
    "survival_time",
    "vibrations",
    "worst",
]
