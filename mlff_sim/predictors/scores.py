"""How good a prediction by draws is: the energy score, which only the true distribution minimises.

ES = E|X - y| - E|X - X'| / 2 for draws X, X' of the prediction and what happened, y (Gneiting & Raftery, J. Am. Stat.
Assoc. 102, 359 (2007), doi:10.1198/016214506000001437). In high dimension the score of everything at once says little about
the shape of a part, so a sum is taken of scores of parts: every pair distance, the vectors of every atom, the distances
around every atom jointly, and everything jointly. Each is proper for its part, and so is the sum.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mlff_sim.predictors.network import REFERENCE_K, SEPARATIONS, Molecule
from mlff_sim.units import KB

WIDTHS_A = (0.04, 0.08, 0.15, 0.25)
"""A, units of distances one, two, three and more bonds apart: about how far they vibrate."""
DISPLACED_A = 0.25
"""A, unit of the positions of atoms."""


class Score:
    """The score of predictions of one molecule.

    Args:
        molecule: it.
    """

    def __init__(self, molecule: Molecule) -> None:
        """List the distances and neighbourhoods."""
        n, apart = len(molecule), molecule.apart
        i, j = np.triu_indices(n, 1)
        self.i, self.j = torch.tensor(i), torch.tensor(j)
        assert len(WIDTHS_A) == SEPARATIONS
        self.width = torch.tensor(np.array(WIDTHS_A)[apart[i, j] - 1])
        self.unit = torch.sqrt(molecule.masses * KB * REFERENCE_K)[:, None]
        near = apart <= 1
        around = [np.flatnonzero(near[a, i] & near[a, j]) for a in range(n)]
        self.around = [torch.tensor(pairs) for pairs in around if len(pairs) > 1]

    def __call__(
        self, first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor], true: tuple[Tensor, Tensor]
    ) -> Tensor:
        """Mean over frames; positions and momenta (R, n, 3) of two draws and of what happened."""
        a, b, y = (self._parts(x, p) for x, p in (first, second, true))
        total = _score(a[0][..., None], b[0][..., None], y[0][..., None])
        for k in (1, 2):  # positions, momenta
            total = total + _score(a[k], b[k], y[k])
        distances, momenta = (tuple(t[k].flatten(1) for t in (a, b, y)) for k in (0, 2))
        total = total + 2 * _joint(*distances) + _joint(*momenta)
        for pairs in self.around:
            total = total + 2 / len(self.around) * _joint(*(d[:, pairs] for d in distances))
        return total

    def _parts(self, x: Tensor, p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Distances (R, pairs), positions and momenta (R, n, 3), each in its unit."""
        d = x[:, self.i] - x[:, self.j]
        return torch.sqrt((d * d).sum(-1)) / self.width, x / DISPLACED_A, p / self.unit


def _score(a: Tensor, b: Tensor, y: Tensor) -> Tensor:
    """Energy score of vectors along the last dimension, averaged over all others."""

    def length(v: Tensor) -> Tensor:
        mean: Tensor = torch.sqrt((v * v).sum(-1) + 1e-12).mean()
        return mean

    score: Tensor = 0.5 * (length(a - y) + length(b - y) - length(a - b))
    return score


def _joint(a: Tensor, b: Tensor, y: Tensor) -> Tensor:
    """The same for each component of a vector."""
    score: Tensor = _score(a, b, y) / a.shape[-1] ** 0.5
    return score
