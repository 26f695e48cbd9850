"""Named forces at the current positions, each evaluated at most once, and counted and timed when it is."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np

from mlff_sim.errors import NonFinite
from mlff_sim.forces import Array, Evaluation, ForceProvider, evaluate
from mlff_sim.integrators.mollifier import Mollifier

MOLLIFIED = "@A"
"""Suffix of a model's name that asks for its answer at A(x): "teacher@A"."""


class ForceTable:
    """What the models say at one point; moving on forgets it.

    Args:
        providers: models by name.
        differences: derived forces by name, each the difference (a, b) -> a - b of two models, formed in float64.
            The correction of two-model dynamics is one: `{"residual": ("teacher", "student")}`, or in mollified
            form `{"residual": ("teacher@A", "student@A")}`.
        mollifier: the map A that names ending in "@A" refer to. Forces under such a name are those at A(x); a
            difference of two of them is pulled back to x.

    Attributes:
        calls: evaluations of each model, counted per replica.
        seconds: wall time spent in each model.
    """

    def __init__(
        self,
        providers: Mapping[str, ForceProvider],
        differences: Mapping[str, tuple[str, str]] | None = None,
        mollifier: Mollifier | None = None,
    ) -> None:
        """Start with nothing evaluated."""
        self.providers, self.differences, self.mollifier = dict(providers), dict(differences or {}), mollifier
        self.calls = dict.fromkeys(self.providers, 0)
        self.seconds = dict.fromkeys(self.providers, 0.0)
        self.known: dict[str, Evaluation] = {}
        self._positions: Array | None = None

    def move(self, positions: Array) -> None:
        """Go to other positions, shape (replicas, n, 3)."""
        self._positions = positions
        self.known.clear()

    def put(self, name: str, evaluation: Evaluation, calls: int = 0, seconds: float = 0.0) -> None:
        """Enter what was computed elsewhere for the current positions (by a compiled loop, or before a restart)."""
        self.known[name] = evaluation
        model = name.removesuffix(MOLLIFIED)
        self.calls[model] += calls
        self.seconds[model] += seconds

    def __getitem__(self, name: str) -> Evaluation:
        """The named force at the current positions."""
        if name not in self.known:
            self.known[name] = self._difference(name) if name in self.differences else self._evaluate(name)
        return self.known[name]

    def mismatch(self, name: str) -> Array:
        """Mean |F_a - F_b| over force components where the difference `name` compares its two models, (replicas,)."""
        a, b = self.compared(name)
        mean: Array = np.abs(a.forces - b.forces).mean(axis=(1, 2))
        return mean

    def compared(self, name: str) -> tuple[Evaluation, Evaluation]:
        """What the two models of the difference `name` say, where it compares them: at `compared_at`."""
        first, second = self.differences[name]
        return self[first], self[second]

    def compared_at(self, name: str) -> Array:
        """The positions that the difference `name` compares its two models at, A, shape (replicas, n, 3)."""
        assert self._positions is not None
        if self.mollifier is not None and self.differences[name][0].endswith(MOLLIFIED):
            return self.mollifier(self._positions)
        return self._positions

    def _difference(self, name: str) -> Evaluation:
        a, b = self.compared(name)
        energy, forces = a.energy - b.energy, a.forces - b.forces
        if self.mollifier is not None and self.differences[name][0].endswith(MOLLIFIED):
            assert self._positions is not None
            forces = self.mollifier.pull_back(self._positions, forces)
        return Evaluation(energy, forces)

    def _evaluate(self, name: str) -> Evaluation:
        model, x = name.removesuffix(MOLLIFIED), self._positions
        assert x is not None, "move() comes before the first evaluation"
        _check_finite("positions", x)
        if model != name:
            assert self.mollifier is not None
            x = self.mollifier(x)
        start = time.perf_counter()
        answer = evaluate(self.providers[model], x)
        self.put(name, answer, calls=len(x), seconds=time.perf_counter() - start)
        _check_finite("forces", answer.forces)
        return answer

    def reset(self) -> None:
        """Make every model forget its history; what is known at the current positions stays."""
        for provider in self.providers.values():
            provider.reset()


def _check_finite(what: str, values: Array) -> None:
    """Raise `NonFinite` naming the first atom whose values, shape (replicas, n, 3), are not numbers."""
    if not np.isfinite(values.sum()):
        r, atom = np.argwhere(~np.isfinite(values).all(axis=-1))[0]
        raise NonFinite(what, int(r), int(atom))
