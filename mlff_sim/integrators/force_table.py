"""Named forces at the current positions, each evaluated at most once, and counted and timed when it is."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np

from mlff_sim.errors import NonFinite
from mlff_sim.forces import Array, Evaluation, ForceProvider, evaluate


class ForceTable:
    """What the models say at one point; moving on forgets it.

    Args:
        providers: models by name.
        differences: derived forces by name, each the difference (a, b) -> a - b of two models, formed in float64.
            The correction of two-model dynamics is one: `{"residual": ("teacher", "student")}`.

    Attributes:
        calls: evaluations of each model, counted per replica.
        seconds: wall time spent in each model.
    """

    def __init__(
        self, providers: Mapping[str, ForceProvider], differences: Mapping[str, tuple[str, str]] | None = None
    ) -> None:
        """Start with nothing evaluated."""
        self.providers, self.differences = dict(providers), dict(differences or {})
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
        self.calls[name] += calls
        self.seconds[name] += seconds

    def __getitem__(self, name: str) -> Evaluation:
        """The named force at the current positions."""
        if name not in self.known:
            if name in self.differences:
                a, b = (self[n] for n in self.differences[name])
                self.known[name] = Evaluation(a.energy - b.energy, a.forces - b.forces)
            else:
                assert self._positions is not None, "move() comes before the first evaluation"
                _check_finite("positions", self._positions)
                start = time.perf_counter()
                self.known[name] = evaluate(self.providers[name], self._positions)
                self.seconds[name] += time.perf_counter() - start
                self.calls[name] += len(self._positions)
                _check_finite("forces", self.known[name].forces)
        return self.known[name]

    def reset(self) -> None:
        """Make every model forget its history; what is known at the current positions stays."""
        for provider in self.providers.values():
            provider.reset()


def _check_finite(what: str, values: Array) -> None:
    """Raise `NonFinite` naming the first atom whose values, shape (replicas, n, 3), are not numbers."""
    if not np.isfinite(values.sum()):
        r, atom = np.argwhere(~np.isfinite(values).all(axis=-1))[0]
        raise NonFinite(what, int(r), int(atom))
