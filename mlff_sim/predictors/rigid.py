"""Motion of a molecule as a whole: taken out before the network sees it, and put back exactly."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

TURNS = 4
"""Parts of a macro-step in which rotation is integrated; at 300 K a small molecule turns by a tenth to a third in each."""
FLOOR = 1e-9
"""Of the moments of inertia, relative to the largest: a linear molecule has one that is zero, and no angular momentum there."""


@dataclass(frozen=True)
class Rigid:
    """Rigid motion of the molecules of a batch.

    Attributes:
        centre: A, (R, 1, 3).
        velocity: of the centre, (R, 1, 3).
        spin: angular momentum about the centre, (R, 3).
        rate: angular velocity, (R, 3).
    """

    centre: Tensor
    velocity: Tensor
    spin: Tensor
    rate: Tensor


def rigid_motion(x: Tensor, p: Tensor, masses: Tensor) -> Rigid:
    """Of positions and momenta (R, n, 3) and masses (n,)."""
    m = masses[:, None]
    total = masses.sum()
    centre, velocity = (m * x).sum(1, keepdim=True) / total, p.sum(1, keepdim=True) / total
    about = x - centre
    spin = torch.linalg.cross(about, p).sum(1)
    return Rigid(centre, velocity, spin, angular_velocity(about, masses, spin))


def angular_velocity(about: Tensor, masses: Tensor, spin: Tensor) -> Tensor:
    """I^-1 L of positions about the centre of mass, (R, n, 3), and angular momenta (R, 3)."""
    square = torch.einsum("n,rna,rnb->rab", masses, about, about)
    trace = square.diagonal(dim1=1, dim2=2).sum(-1)[:, None, None]
    tensor = trace * (1 + FLOOR) * torch.eye(3, dtype=about.dtype, device=about.device) - square
    # By cofactors, which a compiler fuses, unlike a call into a library for a 3 x 3 system.
    a, b, c = tensor.unbind(1)
    rows = torch.stack([torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b)], dim=1)
    determinant = (a * rows[:, 0]).sum(-1)[:, None]
    rate: Tensor = torch.einsum("rab,rb->ra", rows, spin) / determinant
    return rate


def turned(vectors: Tensor, rotation: Tensor) -> Tensor:
    """Vectors (R, n, 3) rotated by the rotation vectors (R, 3), by Rodrigues' formula."""
    angle = torch.sqrt((rotation * rotation).sum(-1) + 1e-30)[:, None, None]
    axis = (rotation[:, None] / angle).expand_as(vectors)
    parallel = axis * (axis * vectors).sum(-1, keepdim=True)
    result: Tensor = (
        parallel + torch.cos(angle) * (vectors - parallel) + torch.sin(angle) * torch.linalg.cross(axis, vectors)
    )
    return result


def free_rotation(x: Tensor, p: Tensor, masses: Tensor, spin: Tensor, time: float) -> tuple[Tensor, Tensor]:
    """Positions about the centre and momenta, (R, n, 3), turned as a free rigid body with the angular momentum (R, 3) turns.

    dR/dt = [I^-1 L] R with I that of the turned body: an asymmetric top precesses. Midpoint rule, in `TURNS` parts.
    """
    part = time / TURNS
    for _ in range(TURNS):
        middle = turned(x, 0.5 * part * angular_velocity(x, masses, spin))
        rate = part * angular_velocity(middle, masses, spin)
        x, p = turned(x, rate), turned(p, rate)
    return x, p


def turning(about: Tensor, masses: Tensor, rate: Tensor) -> Tensor:
    """Momenta (R, n, 3) of a rotation at the angular velocities (R, 3)."""
    momenta: Tensor = masses[:, None] * torch.linalg.cross(rate[:, None].expand_as(about), about)
    return momenta
