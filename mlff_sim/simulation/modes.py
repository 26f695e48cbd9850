"""Normal modes by central differences of forces."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mlff_sim.forces import Array, ForceProvider, evaluate
from mlff_sim.simulation.assembly import relaxed
from mlff_sim.units import CM1

DISPLACEMENT = 0.01
"""A, of the central differences."""


STRAIGHT = 1e-2
"""Of its length, how far from a line the atoms of a linear molecule may be after relaxation."""


def hessian(forces: Callable[[Array], Array], x: Array, masses: Array) -> Array:
    """Mass-weighted and symmetrised, 1 / time^2, shape (3n, 3n), at positions (n, 3), of forces at positions."""
    rows = []
    for i in range(x.size):
        d: Array = np.zeros(x.size)
        d[i] = DISPLACEMENT
        d = d.reshape(x.shape)
        rows.append((forces(x - d) - forces(x + d)).ravel() / (2 * DISPLACEMENT))
    root = np.sqrt(np.repeat(masses, 3))
    out: Array = np.array(rows) / root / root[:, None]
    return 0.5 * (out + out.T)


def normal_modes(model: ForceProvider, positions: Array, masses: Array) -> Array:
    """Wave numbers of the harmonic modes at the minimum nearest to positions (n, 3), 1/cm, rising.

    Without the six smallest, which are translations and rotations (five where all atoms are in a line, three of an
    atom); imaginary ones are negative.
    """
    model.reset()
    at_rest = relaxed(model, positions)
    squares = np.linalg.eigvalsh(hessian(lambda x: evaluate(model, x[None]).forces[0], at_rest, masses))
    model.reset()
    extent = np.linalg.svd(at_rest - at_rest.mean(axis=0), compute_uv=False)
    rigid = (3, 5, 6, 6)[int((extent > STRAIGHT * max(extent[0], 1.0)).sum())]
    internal = np.sort(squares[np.argsort(np.abs(squares))[rigid:]])
    out: Array = np.sign(internal) * np.sqrt(np.abs(internal)) / CM1
    return out
