"""Guards: a run that leaves physics behind stops at once and says where."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from mlff_sim.errors import NonFinite, SimulationStopped
from mlff_sim.forces import Array
from mlff_sim.integrators.stepper import Stepper
from mlff_sim.state import State, kinetic_energy
from mlff_sim.units import KB


class Guard:
    """Stops a run whose forces are not finite or whose temperature has run away.

    The limit on the kinetic temperature of a replica is T (1 + 8 sqrt(2 / dof)), eight standard deviations of the
    canonical kinetic energy above the higher of the target and the start. With the centre of mass at rest there are
    three degrees of freedom fewer.
    """

    rule_temperature = "temperature runs away"

    def __init__(self, masses: Array, state: State, temperature_K: float, *, com_removed: bool = False) -> None:
        """Set the limit from the start."""
        self.masses = masses
        self.dof = 3 * len(masses) - 3 * com_removed
        start = float(self.temperature(state).max())
        self.limit_K = max(temperature_K, start) * (1 + 8 * np.sqrt(2 / self.dof))

    def temperature(self, state: State) -> Array:
        """Kinetic temperature of each replica, K."""
        return 2 * kinetic_energy(state.momenta, self.masses) / (self.dof * KB)

    def check(self, state: State, step: int) -> None:
        """Raise `SimulationStopped` when a rule is broken."""
        temperature = self.temperature(state)
        if not (temperature < self.limit_K).all():  # a NaN fails this comparison too
            r = int(np.argmax(~(temperature < self.limit_K)))
            p = state.momenta[r]
            finite = np.isfinite(p).all(axis=1)
            if not finite.all():
                atom = int(np.argmin(finite))
                raise SimulationStopped(
                    "forces must be finite", step, r, atom, f"the momentum of atom {atom} is not a number"
                )
            atom = int(np.argmax((p * p).sum(axis=1) / self.masses))
            raise SimulationStopped(
                self.rule_temperature,
                step,
                r,
                atom,
                f"{temperature[r]:.0f} K exceeds {self.limit_K:.0f} K; atom {atom} is the hottest; try a shorter outer step or more friction",
            )

    @contextmanager
    def watching(self, state: State, step: int) -> Iterator[None]:
        """Turn every way the models can fail inside a step into a `SimulationStopped` that names atom and rule."""
        try:
            yield
        except NonFinite as bad:
            detail = f"{bad.what} of atom {bad.atom} are not numbers"
            raise SimulationStopped(f"{bad.what} must be finite", step, bad.replica, bad.atom, detail) from bad
        except RuntimeError as error:
            if isinstance(error, SimulationStopped):
                raise
            heat = (state.momenta * state.momenta).sum(axis=-1) / self.masses
            replica, atom = (int(i) for i in np.unravel_index(int(np.argmax(heat)), heat.shape))
            detail = f"{' '.join(str(error).split())}; atom {atom} was the hottest"
            raise SimulationStopped("the teacher must converge", step, replica, atom, detail) from error

    def advance(self, stepper: Stepper, step: int) -> None:
        """One outer step under this guard."""
        with self.watching(stepper.state, step):
            stepper.step()
        self.check(stepper.thermal(), step)
