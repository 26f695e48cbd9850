"""Runs: settings in, a run folder out."""

from mlff_sim.simulation.config import RunConfig, k_from_fraction, k_from_steps, k_from_text
from mlff_sim.simulation.run import Run, run

__all__ = ["Run", "RunConfig", "k_from_fraction", "k_from_steps", "k_from_text", "run"]
