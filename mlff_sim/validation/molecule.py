"""The motion within a molecule, without its flight and its turning."""

from __future__ import annotations

import numpy as np

from mlff_sim.forces import Array
from mlff_sim.motion import angular_velocity


def internal_momenta(positions: Array, momenta: Array, masses: Array) -> Array:
    """Momenta of a molecule without its drift and its turning, in axes that turn with it.

    The momentum of the centre of mass and the rotation at the angular velocity I^-1 L are taken off; what is left is
    turned so that the molecule lies on its first frame (mass-weighted, Kabsch, Acta Cryst. A 32, 922 (1976),
    doi:10.1107/S0567739476001873), without which every line would be split by the rotation.

    Args:
        positions: A, shape (frames, replicas, n, 3), not wrapped.
        momenta: (eV u)^1/2, the same shape.
        masses: u, shape (n,).

    Returns:
        (eV u)^1/2, the same shape.
    """
    x, p, m = (np.asarray(a, np.float64) for a in (positions, momenta, masses))
    if x.shape != p.shape or x.ndim != 4 or x.shape[2:] != (len(m), 3):
        raise ValueError(f"positions {x.shape} and momenta {p.shape} must be (frames, replicas, {len(m)}, 3).")
    if not (np.isfinite(x).all() and np.isfinite(p).all()):
        raise ValueError("positions and momenta must be finite numbers.")
    x = x - np.average(x, axis=2, weights=m)[:, :, None]
    p = p - p.sum(axis=2, keepdims=True) * (m / m.sum())[:, None]
    momentum = np.cross(x, p).sum(axis=2)
    omega = angular_velocity(x, m, momentum)
    p -= m[:, None] * np.cross(omega[:, :, None], x)
    u, _, vt = np.linalg.svd(np.einsum("k,frki,rkj->frij", m, x, x[0]))
    u[..., -1] *= np.sign(np.linalg.det(u @ vt))[..., None]
    out: Array = p @ (u @ vt)
    return out
