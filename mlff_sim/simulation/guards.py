"""Guards: a run that leaves physics behind stops at once and says where."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlff_sim.errors import NonFinite, SimulationStopped
from mlff_sim.forces import Array
from mlff_sim.integrators.stepper import Stepper
from mlff_sim.simulation.rules import Rule
from mlff_sim.state import State

LAST_FRAMES = 10
"""Outer steps before a stop that are remembered."""


@dataclass(frozen=True)
class Moment:
    """A stepper after an outer step.

    Attributes:
        step: its number.
        state: positions and momenta.
        kinetic, potential, conserved: eV, shape (replicas,).
    """

    step: int
    state: State
    kinetic: Array
    potential: Array
    conserved: Array


class Guard:
    """Advances a stepper, and stops it when forces are not finite, a model fails or a rule is broken.

    Args:
        stepper: at the start.
        rules: what else to look at after every step.

    Attributes:
        tail: the last steps, the one that broke a rule included; none whose momenta are not numbers.
    """

    def __init__(self, stepper: Stepper, rules: Sequence[Rule] = ()) -> None:
        """Bind; nothing is evaluated yet."""
        self.stepper, self.rules = stepper, tuple(rules)
        self.tail: deque[Moment] = deque(maxlen=LAST_FRAMES)

    def begin(self) -> None:
        """Take the present state as the start, step 0."""
        with self.watching(0):
            self._remember(0)
            for rule in self.rules:
                rule.begin(self.stepper)

    def advance(self, step: int) -> None:
        """One outer step, the `step`-th.

        Raises:
            SimulationStopped: with the rule, the step, the replica and the atom.
        """
        with self.watching(step):
            self.stepper.step()
            self._check_finite(step)
            self._remember(step)
            for rule in self.rules:
                breach = rule.broken(self.stepper)
                if breach is not None:
                    raise SimulationStopped(
                        breach.rule,
                        step,
                        breach.replica,
                        breach.atom,
                        breach.detail,
                        (breach.value, breach.limit, breach.unit),
                    )

    @contextmanager
    def watching(self, step: int) -> Iterator[None]:
        """Turn every way the models can fail inside a step into a `SimulationStopped` that names atom and rule."""
        state = self.stepper.state
        try:
            yield
        except NonFinite as bad:
            detail = f"{bad.what} of atom {bad.atom} are not numbers"
            raise SimulationStopped(f"{bad.what} must be finite", step, bad.replica, bad.atom, detail) from bad
        except RuntimeError as error:
            if isinstance(error, SimulationStopped):
                raise
            p = self.stepper.thermal(state).momenta
            heat = (p * p).sum(axis=-1) / self.stepper.masses
            replica, atom = (int(i) for i in np.unravel_index(int(np.argmax(heat)), heat.shape))
            detail = f"{' '.join(str(error).split())}; atom {atom} was the hottest"
            raise SimulationStopped("the teacher must converge", step, replica, atom, detail) from error

    def _check_finite(self, step: int) -> None:
        p = self.stepper.state.momenta
        if not np.isfinite(p.sum()):
            r, atom = (int(i) for i in np.argwhere(~np.isfinite(p).all(axis=-1))[0])
            raise SimulationStopped(
                "forces must be finite", step, r, atom, f"the momentum of atom {atom} is not a number"
            )

    def _remember(self, step: int) -> None:
        s = self.stepper
        kinetic, potential = s.kinetic(), s.potential()
        self.tail.append(Moment(step, s.state, kinetic, potential, kinetic + potential - s.heat))

    # For the checkpoint.

    def saved(self) -> dict[str, Any]:
        """What the rules remember."""
        return {f"guard:{rule.name}:{k}": v for rule in self.rules for k, v in rule.state.items()}

    def restore(self, saved: Mapping[str, Array], step: int) -> None:
        """Continue from what `saved` gave."""
        for rule in self.rules:
            prefix = f"guard:{rule.name}:"
            rule.state = {k.removeprefix(prefix): v for k, v in saved.items() if k.startswith(prefix)}
        self._remember(step)
