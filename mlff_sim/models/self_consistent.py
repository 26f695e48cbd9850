"""What self-consistent teachers share: one structure at a time, each replica from its own last solution."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlff_sim.forces import Array, Evaluation


class SelfConsistent:
    """A provider that solves one structure after the other, and remembers a guess for each replica until `reset`."""

    cutoff: float | None = None
    dtype = "float64"
    conservative = True
    batched = True

    def __init__(self) -> None:
        """Nothing is remembered yet."""
        self._guesses: list[Any] = []

    def _solve(self, slot: int, positions: Array, guess: Any) -> tuple[float, Array, Any]:
        """Energy in eV, forces in eV/A, shape (n, 3), and the guess for the next time, of the replica in a slot."""
        raise NotImplementedError

    def _single(self, slot: int, positions: Array) -> tuple[float, Array]:
        while len(self._guesses) <= slot:
            self._guesses.append(None)
        energy, forces, self._guesses[slot] = self._solve(slot, positions, self._guesses[slot])
        return energy, forces

    def __call__(self, positions: Array, cell: Array | None = None, /) -> Evaluation:
        """Evaluate positions (n, 3) or (replicas, n, 3) of a molecule in vacuum."""
        if positions.ndim == 2:
            energy, forces = self._single(0, positions)
            return Evaluation(np.array(energy), forces)
        results = [self._single(r, x) for r, x in enumerate(positions)]
        return Evaluation(np.array([e for e, _ in results]), np.stack([f for _, f in results]))

    def reset(self) -> None:
        """Drop the guess of every replica."""
        self._guesses = [None] * len(self._guesses)
