"""Which guards a run gets: from its settings, and from what its stepper declares about itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mlff_sim.integrators.stepper import Stepper
from mlff_sim.simulation.config import RunConfig
from mlff_sim.simulation.rules import THERMAL_SHARE, Budget, Closest, Residual, Rule, Stretch, training_range
from mlff_sim.simulation.temperature import Temperature
from mlff_sim.state import State, kinetic_energy
from mlff_sim.units import KB, MEV

if TYPE_CHECKING:
    from ase import Atoms


def common_rules(
    config: RunConfig, stepper: Stepper, atoms: Atoms, bonds: Sequence[tuple[int, int]], start: State
) -> list[Rule]:
    """What equilibration and production are held to; what breaks first as a cause is asked first.

    Args:
        config: says which guards are off.
        stepper: to be watched.
        atoms: elements.
        bonds: pairs of bonded atoms of the start.
        start: of the run.
    """
    numbers = atoms.numbers.tolist()
    rules: list[Rule] = []
    if "bonds" not in config.unguarded and len(bonds):
        rules.append(Stretch(numbers, bonds, start.positions))
    if "pairs" not in config.unguarded and len(numbers) > 1:
        # Models of bonds alone let all other atoms pass through each other.
        seen = getattr(stepper.forces.providers["teacher"], "interacting", None)
        if seen is None or len(seen):
            rules.append(Closest(numbers, start.positions, seen))
    if "temperature" not in config.unguarded:
        rules.append(Temperature(stepper, numbers, config.temperature_K))
    return rules


def budget(config: RunConfig, stepper: Stepper, start: State) -> list[Rule]:
    """The budget of the conserved energy, where there is one: in NVE `THERMAL_SHARE` of kT an atom if not given."""
    if "energy" in config.unguarded or not stepper.conserving:
        return []
    if config.energy_budget_meV is not None:
        return [Budget(config.energy_budget_meV)]
    if config.ensemble != "nve":
        return []
    given = float(kinetic_energy(start.momenta, stepper.masses).mean()) / (1.5 * len(stepper.masses))
    return [Budget(THERMAL_SHARE * max(KB * config.temperature_K, given) / MEV)]


def residual(stepper: Stepper, student: Mapping[str, Any]) -> Residual | None:
    """The training range of a student, from its record; None where it has none, or another model is compared."""
    _, second = stepper.forces.differences["residual"]
    limit = training_range(student) if second.startswith("student") else None
    return None if limit is None else Residual(limit)
