"""Validators: arrays in, typed verdicts out. They print nothing, plot nothing and write nothing.

| question | function | answer |
|---|---|---|
| is the energy conserved? | `nve_drift` | `Drift` |
| is every element at the bath's temperature? | `kinetic_temperatures` | `Temperatures` |
| is the structure the same? | `pair_distributions`, `compare` | `Distribution`, `RdfResult` |
| at which frequencies does it vibrate? | `vibrations`, `infrared`, `internal_momenta` | `Spectrum` |
| are the spectra the same? | `compare_spectra` | `SpectrumResult` |
| are the lines where they should be? | `peaks`, `match_peaks` | `Peak`, `PeakMatch` |
| is it faster, and from when on? | `break_even`, `measured_speedup`, `predict`, `sample_rates` | `BreakEven`, `Speedup`, `Prediction`, `Rate` |
| which of several methods? | `method_bars`, `accuracy_per_second` | `MethodBars`, `AccuracyPerSecond` |
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
from mlff_sim.validation.distances import Distribution, RdfResult, compare, pair_distributions
from mlff_sim.validation.energy import Drift, nve_drift
from mlff_sim.validation.ensemble import GroupTemperature, Temperatures, kinetic_temperatures
from mlff_sim.validation.lines import Line, Peak, PeakMatch, match_peaks, peaks
from mlff_sim.validation.methods import AccuracyPerSecond, Method, MethodBars, accuracy_per_second, method_bars
from mlff_sim.validation.molecule import internal_momenta
from mlff_sim.validation.spectra import SpectrumResult, compare_spectra
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
    "BreakEven",
    "CallTimes",
    "Cycle",
    "Distribution",
    "Drift",
    "GroupTemperature",
    "Line",
    "Method",
    "MethodBars",
    "Peak",
    "PeakMatch",
    "Prediction",
    "Rate",
    "RdfResult",
    "Run",
    "RunAssessment",
    "Spectrum",
    "SpectrumResult",
    "Speed",
    "Speedup",
    "Temperatures",
    "Verdict",
    "accuracy_per_second",
    "assess",
    "assess_folder",
    "break_even",
    "compare",
    "compare_spectra",
    "corrected_cm",
    "infrared",
    "internal_momenta",
    "kinetic_temperatures",
    "load_reference",
    "match_peaks",
    "measured_speedup",
    "method_bars",
    "nve_drift",
    "observed_cm",
    "pair_distributions",
    "peaks",
    "predict",
    "reference_of",
    "sample_rates",
    "vibrations",
    "worst",
]
