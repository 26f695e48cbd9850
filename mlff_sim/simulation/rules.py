"""What a sound run never does: one rule for each way of leaving physics behind, with a limit that is derived.

A rule looks at a stepper after an outer step and answers with a `Breach`, or None. It costs microseconds: it looks at
what the stepper knows anyway, and asks no model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mlff_sim.forces import Array
from mlff_sim.integrators.stepper import Stepper
from mlff_sim.limits import closest_pairs, longest_bonds
from mlff_sim.units import MEV

RESIDUAL_FACTOR = 2.0
"""Times the largest force error of an atom in training that the residual may reach: a frame not trained on is worse."""
RESIDUAL_MAES = 300.0
"""The same limit in mean absolute errors, for a student whose file does not know its largest.

Measured with students of ethanol and aspirin, worst atom of a frame: 29 in frames of 300 K, 65 between 300 and 500 K,
111 in the worst excursion of a sound run, 167 at the minimum of aspirin, which no thermal frame is near to, and 475 or more
with an X-H bond at 1.5 times its length.
"""
THERMAL_SHARE = 0.5
"""kT for each atom that the conserved energy may change by: in a harmonic molecule it raises T by a sixth."""


@dataclass(frozen=True)
class Breach:
    """A rule that was broken.

    Attributes:
        rule: its name.
        replica, atom: where, from 0.
        value, limit: in `unit`.
        detail: the two in a sentence, and what to do.
    """

    rule: str
    replica: int
    atom: int
    value: float
    limit: float
    unit: str
    detail: str


class Rule(Protocol):
    """A rule of a `Guard`.

    Attributes:
        name: what is broken, in words.
        state: what it remembers from step to step, for the checkpoint.
    """

    name: str
    state: dict[str, Array]

    def begin(self, stepper: Stepper) -> None:
        """Take the stepper as the start."""

    def broken(self, stepper: Stepper) -> Breach | None:
        """Look at the stepper after a step."""


class Closest:
    """No two atoms closer than `mlff_sim.limits.CLOSEST` times the sum of their covalent radii, or 0.8 times their start if that is less.

    Args:
        numbers: atomic numbers, shape (n,).
        start: A, shape (replicas, n, 3).
        pairs: to look at, shape (m, 2); None for all.
    """

    name = "atoms too close"

    def __init__(self, numbers: Sequence[int], start: Array, pairs: NDArray[np.int64] | None = None) -> None:
        """Set the limits."""
        seen = np.stack(np.triu_indices(len(numbers), 1), axis=1) if pairs is None else pairs
        self.i, self.j = seen.T
        self.limit_A: Array = closest_pairs(numbers, self.i, self.j, np.sqrt(self._squares(start)))
        self.squares = self.limit_A**2
        self.state: dict[str, Array] = {}

    def _squares(self, x: Array) -> Array:
        d = np.take(x, self.i, axis=1)
        d -= np.take(x, self.j, axis=1)
        squares: Array = np.einsum("rpi,rpi->rp", d, d)
        return squares

    def begin(self, stepper: Stepper) -> None:
        """Nothing to remember."""

    def broken(self, stepper: Stepper) -> Breach | None:
        """Look at all pairs."""
        squares = self._squares(stepper.state.positions)
        if not (squares < self.squares).any():
            return None
        r, k = (int(i) for i in np.unravel_index(int(np.argmin(squares / self.squares)), squares.shape))
        value, limit, i, j = float(np.sqrt(squares[r, k])), float(self.limit_A[k]), int(self.i[k]), int(self.j[k])
        detail = f"atoms {i} and {j} are {value:.2f} A apart, closer than {limit:.2f} A; try a shorter step"
        return Breach(self.name, r, i, value, limit, "A", detail)


class Stretch:
    """No bond of the start longer than `mlff_sim.limits.LONGEST` times its start, or the sum of the covalent radii if that is more.

    Args:
        numbers: atomic numbers, shape (n,).
        bonds: pairs of bonded atoms.
        start: A, shape (replicas, n, 3).
    """

    name = "a bond is broken"

    def __init__(self, numbers: Sequence[int], bonds: Sequence[tuple[int, int]], start: Array) -> None:
        """Set the limits."""
        self.i, self.j = np.array(bonds, dtype=np.int64).reshape(-1, 2).T
        self.limit_A: Array = longest_bonds(numbers, self.i, self.j, self._lengths(start))
        self.state: dict[str, Array] = {}

    def _lengths(self, x: Array) -> Array:
        d = x[:, self.i] - x[:, self.j]
        lengths: Array = np.sqrt(np.einsum("rbi,rbi->rb", d, d))
        return lengths

    def begin(self, stepper: Stepper) -> None:
        """Nothing to remember."""

    def broken(self, stepper: Stepper) -> Breach | None:
        """Look at all bonds."""
        lengths = self._lengths(stepper.state.positions)
        if not (lengths > self.limit_A).any():
            return None
        r, k = (int(i) for i in np.unravel_index(int(np.argmax(lengths / self.limit_A)), lengths.shape))
        value, limit, i, j = float(lengths[r, k]), float(self.limit_A[k]), int(self.i[k]), int(self.j[k])
        detail = (
            f"the bond of atoms {i} and {j} is {value:.2f} A long, more than {limit:.2f} A; try a shorter step, or "
            "--no-guard bonds if it may break"
        )
        return Breach(self.name, r, i, value, limit, "A", detail)


class Budget:
    """The conserved energy `K + U - heat` stays within so much of its start.

    Args:
        budget_meV: for each atom.
    """

    name = "energy budget spent"

    def __init__(self, budget_meV: float) -> None:
        """Keep the limit."""
        self.budget_meV = budget_meV
        self.state: dict[str, Array] = {}

    @staticmethod
    def conserved(stepper: Stepper) -> Array:
        """eV, shape (replicas,)."""
        conserved: Array = stepper.kinetic() + stepper.potential() - stepper.heat
        return conserved

    def begin(self, stepper: Stepper) -> None:
        """This is the energy to keep."""
        self.state["start"] = self.conserved(stepper)

    def broken(self, stepper: Stepper) -> Breach | None:
        """Compare with the start."""
        change = (self.conserved(stepper) - self.state["start"]) / (MEV * len(stepper.masses))
        if not (np.abs(change) > self.budget_meV).any():
            return None
        r = int(np.argmax(np.abs(change)))
        p = stepper.thermal().momenta[r]
        atom = int(np.argmax((p * p).sum(axis=1) / stepper.masses))
        value = float(change[r])
        detail = (
            f"the conserved energy has changed by {value:+.2f} meV/atom, more than {self.budget_meV:.4g}; atom {atom} is the "
            "hottest; try a shorter outer step, a better student, or --energy-budget-meV"
        )
        return Breach(self.name, r, atom, value, self.budget_meV, "meV/atom", detail)


class Residual:
    """What teacher and student differ by on any atom stays within what training has shown.

    Args:
        limit: eV/A.
        difference: the name under which a stepper's force table compares the two.
    """

    name = "residual beyond the training range"

    def __init__(self, limit: float, difference: str = "residual") -> None:
        """Keep the limit."""
        self.limit, self.difference = limit, difference
        self.state: dict[str, Array] = {}

    def squares(self, stepper: Stepper) -> Array:
        """(eV/A)^2, of each atom, shape (replicas, n)."""
        teacher, student = stepper.forces.compared(self.difference)
        d = teacher.forces - student.forces
        squares: Array = np.einsum("rni,rni->rn", d, d)
        return squares

    def beyond(self, stepper: Stepper) -> NDArray[np.bool_]:
        """Which replicas are."""
        found: NDArray[np.bool_] = np.any(self.squares(stepper) > self.limit**2, axis=1)
        return found

    def begin(self, stepper: Stepper) -> None:
        """Nothing to remember."""

    def broken(self, stepper: Stepper) -> Breach | None:
        """Look at all atoms."""
        squares = self.squares(stepper)
        if not (squares > self.limit**2).any():
            return None
        r, atom = (int(i) for i in np.unravel_index(int(np.argmax(squares)), squares.shape))
        value = float(np.sqrt(squares[r, atom]))
        detail = (
            f"teacher and student differ by {1e3 * value:.0f} meV/A on atom {atom}, more than {1e3 * self.limit:.0f}; distil again "
            "with --on-residual relabel and distill --labels, or --on-residual ignore"
        )
        return Breach(self.name, r, atom, value, self.limit, "eV/A", detail)


def training_range(student: Mapping[str, Any]) -> float | None:
    """eV/A that the residual of an atom may reach, from a student's record; None where nothing was recorded.

    `RESIDUAL_FACTOR` times the largest error in training, or where its file does not say, `RESIDUAL_MAES` times its
    mean absolute error.
    """
    errors = student.get("errors") or {}
    largest, mae = errors.get("largest_on_an_atom_meV_per_A"), errors.get("force_mae_meV_per_A")
    if largest is not None:
        return RESIDUAL_FACTOR * float(largest) * MEV
    return None if mae is None else RESIDUAL_MAES * float(mae) * MEV
