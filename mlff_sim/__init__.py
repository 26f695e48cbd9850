"""Fast, certified molecular dynamics of trained force fields: a cheap student advances, the expensive teacher corrects."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from mlff_sim.acceleration import Acceleration
    from mlff_sim.errors import InputError, SimulationStopped
    from mlff_sim.forces import Evaluation, ForceProvider, check_provider
    from mlff_sim.interfaces.ase_calculator import MLFFCalculator
    from mlff_sim.interfaces.ase_dynamics import HybridDynamics
    from mlff_sim.interfaces.openmm_force import openmm_force
    from mlff_sim.interfaces.openmm_integrator import openmm_hybrid
    from mlff_sim.models.batch import evaluate_batch
    from mlff_sim.models.registry import load_model
    from mlff_sim.report import validate
    from mlff_sim.simulation import RunConfig, run
    from mlff_sim.structure import read_structure

_HOME = {
    "Acceleration": "acceleration",
    "HybridDynamics": "interfaces.ase_dynamics",
    "MLFFCalculator": "interfaces.ase_calculator",
    "openmm_force": "interfaces.openmm_force",
    "openmm_hybrid": "interfaces.openmm_integrator",
    "InputError": "errors",
    "SimulationStopped": "errors",
    "Evaluation": "forces",
    "ForceProvider": "forces",
    "check_provider": "forces",
    "evaluate_batch": "models.batch",
    "load_model": "models.registry",
    "validate": "report",
    "RunConfig": "simulation",
    "run": "simulation",
    "read_structure": "structure",
}

__all__ = [
    "Acceleration",
    "Evaluation",
    "ForceProvider",
    "HybridDynamics",
    "InputError",
    "MLFFCalculator",
    "RunConfig",
    "SimulationStopped",
    "__version__",
    "check_provider",
    "evaluate_batch",
    "load_model",
    "openmm_force",
    "openmm_hybrid",
    "read_structure",
    "run",
    "validate",
]


def __getattr__(name: str) -> Any:
    """Load the public names when they are first used, so that `import mlff_sim` costs nothing (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module 'mlff_sim' has no attribute {name!r}")
    return getattr(importlib.import_module(f"mlff_sim.{_HOME[name]}"), name)
