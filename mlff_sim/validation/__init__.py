"""Validators: arrays in, typed verdicts out. They print nothing, plot nothing and write nothing.

| question | function | answer |
|---|---|---|
| is the energy conserved? | `nve_drift` | `Drift` |
| and by the quick criteria, without error bars? | `quick_nve` | `QuickNve` |
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
| is the fast run the same physics as the slow one? | `certify` | `Assessment` with `Differences` and `Control` |
| is it faster, and from when on? | `break_even`, `measured_speedup`, `predict`, `sample_rates` | `BreakEven`, `Speedup`, `Prediction`, `Rate` |
| how far is it from the teacher, beside the teacher's own seeds? | `beside_floor` | `BesideFloor` |
| which way to simulate several molecules is worth its time? | `judge_molecule`, `judge_folder` | `TimeTable` of `Cell` and `Mean` |
| which of several methods? | `method_bars`, `accuracy_per_second` | `MethodBars`, `AccuracyPerSecond` |
| all of it, for the runs of a study | `assess` | `Assessment` |
"""

from mlff_sim.validation.assess import assess, load_reference, reference_of
from mlff_sim.validation.assessment import Assessment, Finding, Run, RunAssessment, Speed
from mlff_sim.validation.boltzmann import EnsembleCheck, ensemble_check
from mlff_sim.validation.breakeven import (
    BreakEven,
    CallTimes,
    Cycle,
    Prediction,
    Rate,
    Speedup,
    break_even,
    measured_speedup,
    predict,
    sample_rates,
)
from mlff_sim.validation.certificate import Control, Difference, Differences, certify
from mlff_sim.validation.distances import Distribution, RdfResult, compare, pair_distributions
from mlff_sim.validation.energy import Drift, nve_drift
from mlff_sim.validation.ensemble import (
    GroupTemperature,
    KineticDistribution,
    Temperatures,
    equipartition,
)
from mlff_sim.validation.floor import BesideFloor, beside_floor
from mlff_sim.validation.lines import Line, Peak, PeakMatch, match_peaks, peaks
from mlff_sim.validation.methods import AccuracyPerSecond, Method, MethodBars, accuracy_per_second, method_bars
from mlff_sim.validation.molecule import internal_momenta
from mlff_sim.validation.preset import QuickNve, quick_nve
from mlff_sim.validation.radial import coordination, rdf
from mlff_sim.validation.sampling import Convergence, convergence
from mlff_sim.validation.spacing import FrameSpacing, KineticConsistency, frame_spacing, kinetic_consistency
from mlff_sim.validation.spectra import SpectrumResult, compare_spectra
from mlff_sim.validation.stepsize import StepSizeLaw, step_size_law
from mlff_sim.validation.structure import StructureErrors, StructureFigure, structure_errors
from mlff_sim.validation.study import assess_folder
from mlff_sim.validation.survival import Break, Stability, stability, survival_time
from mlff_sim.validation.timestudy import Cell, Mean, TimeTable, judge_folder, judge_molecule
from mlff_sim.validation.verdict import Verdict, worst
from mlff_sim.validation.vibrations import (
    Spectrum,
    corrected_cm,
    infrared,
    observed_cm,
    vibrations,
)

__all__ = [
    "AccuracyPerSecond",
    "Assessment",
    "BesideFloor",
    "Break",
    "BreakEven",
    "CallTimes",
    "Cell",
    "Control",
    "Convergence",
    "Cycle",
    "Difference",
    "Differences",
    "Distribution",
    "Drift",
    "EnsembleCheck",
    "Finding",
    "FrameSpacing",
    "GroupTemperature",
    "KineticConsistency",
    "KineticDistribution",
    "Line",
    "Mean",
    "Method",
    "MethodBars",
    "Peak",
    "PeakMatch",
    "Prediction",
    "QuickNve",
    "Rate",
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
    "TimeTable",
    "Verdict",
    "accuracy_per_second",
    "assess",
    "assess_folder",
    "beside_floor",
    "break_even",
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
    "judge_folder",
    "judge_molecule",
    "kinetic_consistency",
    "load_reference",
    "match_peaks",
    "measured_speedup",
    "method_bars",
    "nve_drift",
    "observed_cm",
    "pair_distributions",
    "peaks",
    "predict",
    "quick_nve",
    "rdf",
    "reference_of",
    "sample_rates",
    "stability",
    "step_size_law",
    "structure_errors",
    "survival_time",
    "vibrations",
    "worst",
]
