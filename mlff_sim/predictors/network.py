"""The predictor: where the atoms of a molecule are a macro-step later, as a network that draws from what is possible.

Over a hundred femtoseconds the phase of a fast vibration cannot be known, so a network that is trained to be right on
average predicts stiff molecules without vibrations. This one gets random vectors with its input and is trained, by a
proper score (`scores.py`), to give what a frame may become with its probability: an engression (Shen & Meinshausen, J. R.
Stat. Soc. B (2024), arXiv:2307.00835) for the transfer operator of molecular dynamics (implicit transfer operators:
Schreiner, Winther & Olsson, NeurIPS 2023, arXiv:2305.18046). One evaluation gives one frame.

The motion of the molecule as a whole is not learnt. Total momentum and angular momentum are those of the frame, exactly:

1. the network sees x about the centre of mass, and momenta without translation and rotation;
2. it gives displacements and new momenta, as vectors that turn with the molecule;
3. both are turned as a rigid body of that shape would in the meantime, the centre moves on, and momenta get the
   rotation that makes L what it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mlff_sim.predictors.layers import EquivariantLayer
from mlff_sim.predictors.rigid import angular_velocity, free_rotation, rigid_motion, turning
from mlff_sim.units import KB

ARCHITECTURES = {"egnn": 0, "transformer": 4}
"""Names, and heads of attention."""
SEPARATIONS = 4
"""Kinds of pairs: bonded, one or two atoms between, and further."""
NEAR_A, FAR_A, BASIS = 0.8, 6.0, 16
"""Range and number of the Gaussians that distances are expanded in."""
REFERENCE_K = 300.0
"""Momenta are measured in (m kT)^1/2 at this temperature."""
DISPLACEMENT_A = 0.3
"""Unit of displacements."""
HEAVIEST = 100


@dataclass(frozen=True)
class Architecture:
    """What a network is built from.

    Attributes:
        kind: "egnn" or "transformer".
        width: of the scalars of an atom.
        channels: vectors of an atom.
        layers: of messages.
        noise: random vectors an atom gets.
    """

    kind: str = "egnn"
    width: int = 64
    channels: int = 16
    layers: int = 4
    noise: int = 4

    def as_dict(self) -> dict[str, Any]:
        """For the record of a file."""
        return asdict(self)


class Molecule:
    """What a network knows of a molecule beforehand.

    Args:
        numbers: atomic numbers, (n,).
        masses: u, (n,).
        bonds: pairs of bonded atoms.
    """

    def __init__(
        self, numbers: NDArray[np.int64], masses: NDArray[np.float64], bonds: Sequence[tuple[int, int]]
    ) -> None:
        """List the pairs, and how many bonds they are apart."""
        n = len(numbers)
        self.numbers = torch.tensor(np.asarray(numbers), dtype=torch.int64)
        self.masses = torch.tensor(np.asarray(masses), dtype=torch.float64)
        apart = separations(n, bonds)
        self.apart = apart
        target, source = np.nonzero(~np.eye(n, dtype=bool))
        self.target, self.source = torch.tensor(target), torch.tensor(source)
        self.kinds = torch.nn.functional.one_hot(torch.tensor(apart[target, source] - 1), SEPARATIONS).float()

    def __len__(self) -> int:
        """Number of atoms."""
        return len(self.numbers)


def separations(n: int, bonds: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    """Bonds between two atoms along the shortest way, (n, n), at most `SEPARATIONS`; 0 on the diagonal."""
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import shortest_path

    i, j = np.array(bonds, dtype=np.int64).reshape(-1, 2).T
    graph = csr_matrix((np.ones(len(i)), (i, j)), shape=(n, n))
    ways = shortest_path(graph, directed=False, unweighted=True)
    near: NDArray[np.int64] = np.minimum(ways, SEPARATIONS).astype(np.int64)
    return near


class PredictorNet(nn.Module):
    """Displacements and momenta of a macro-step, without the motion of the molecule as a whole.

    Args:
        architecture: sizes.
        strides: how many different macro-steps it knows.
    """

    centres: Tensor

    def __init__(self, architecture: Architecture, strides: int) -> None:
        """Build the layers with PyTorch's default initialisation."""
        super().__init__()
        a = self.architecture = architecture
        self.element, self.stride = nn.Embedding(HEAVIEST, a.width), nn.Embedding(strides, a.width)
        self.vectors = nn.Linear(2 + a.noise, a.channels, bias=False)
        self.register_buffer("centres", torch.linspace(NEAR_A, FAR_A, BASIS), persistent=False)
        heads = ARCHITECTURES[a.kind]
        edge = BASIS + SEPARATIONS
        self.layers = nn.ModuleList(EquivariantLayer(a.width, a.channels, edge, heads) for _ in range(a.layers))
        self.read = nn.Linear(a.channels, 2, bias=False)
        self.scale = nn.Sequential(nn.Linear(a.width, a.width), nn.SiLU(), nn.Linear(a.width, 2))

    def forward(
        self, molecule: Molecule, stride: int, x: Tensor, v: Tensor, spinning: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Displacements in A and momenta in thermal units, (R, n, 3) each.

        Args:
            molecule: what is known beforehand.
            stride: which of the macro-steps.
            x: A, (R, n, 3).
            v: internal momenta in thermal units, (R, n, 3).
            spinning: those of the rotation as a whole, which pulls a molecule apart and turns its vibrations, (R, n, 3).
            noise: normal random vectors, (R, n, noise, 3).
        """
        replicas, n = x.shape[:2]
        d = x[:, molecule.source] - x[:, molecule.target]
        length = torch.sqrt((d * d).sum(-1, keepdim=True))
        r = (d / length).flatten(0, 1)
        width = (FAR_A - NEAR_A) / BASIS
        basis = torch.exp(-(((length.reshape(-1, 1) - self.centres) / width) ** 2))
        edge = torch.cat([basis, molecule.kinds.repeat(replicas, 1)], dim=-1)
        pairs = torch.stack([molecule.source, molecule.target])
        first = n * torch.arange(replicas)
        edge_index = (pairs[:, None] + first[:, None]).flatten(1)
        h = (self.element(molecule.numbers) + self.stride.weight[stride]).repeat(replicas, 1)
        given = torch.cat([v[:, :, None], spinning[:, :, None], noise], dim=2).flatten(0, 1)
        vectors = torch.einsum("akx,ck->acx", given, self.vectors.weight)
        for layer in self.layers:
            h, vectors = layer(h, vectors, edge_index, edge, r, n - 1)
        read = torch.einsum("acx,dc->adx", vectors, self.read.weight) * (1 + self.scale(h))[..., None]
        displacement, momenta = read.unflatten(0, (replicas, n)).unbind(2)
        return DISPLACEMENT_A * displacement, momenta


def advanced(
    network: PredictorNet, molecule: Molecule, stride: int, time: float, x: Tensor, p: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor]:
    """Positions and momenta a macro-step later; total and angular momentum stay to rounding.

    Args:
        network: in its precision.
        molecule: of the frames.
        stride: which of the network's macro-steps.
        time: its length in internal units.
        x: A, (R, n, 3), float64.
        p: (eV u)^1/2, (R, n, 3), float64.
        noise: normal random vectors, (R, n, noise, 3), in the network's precision.
    """
    m = molecule.masses
    rigid = rigid_motion(x, p, m)
    about = x - rigid.centre
    spinning = turning(about, m, rigid.rate)
    internal = p - m[:, None] * rigid.velocity - spinning
    unit = torch.sqrt(m * KB * REFERENCE_K)[:, None]
    given = [a.to(noise.dtype) for a in (about, internal / unit, spinning / unit)]
    displacement, momenta = network(molecule, stride, *given, noise)
    y, q = about + displacement.to(x.dtype), momenta.to(x.dtype) * unit
    y = y - (m[:, None] * y).sum(1, keepdim=True) / m.sum()
    y, q = free_rotation(y, q, m, rigid.spin, time)
    q = q - m[:, None] * q.sum(1, keepdim=True) / m.sum()
    for _ in range(2):  # the floor under the moments of inertia leaves a billionth the first time
        missing = rigid.spin - torch.linalg.cross(y, q).sum(1)
        q = q + turning(y, m, angular_velocity(y, m, missing))
    return y + rigid.centre + rigid.velocity * time, q + m[:, None] * rigid.velocity
