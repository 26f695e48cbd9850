"""The seam between models and everything else: positions in, energy and forces out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a model says about one structure, or about a batch of replicas of it.

    Attributes:
        energy: eV, shape () or (replicas,).
        forces: eV/A, shape (atoms, 3) or (replicas, atoms, 3).
        stress: eV/A^3, Voigt order xx yy zz yz xz xy, shape (6,) or (replicas, 6); None without a cell.
        atomic_energies: eV, shape (atoms,) or (replicas, atoms); None where the model has none.
    """

    energy: Array
    forces: Array
    stress: Array | None = None
    atomic_energies: Array | None = None


@runtime_checkable
class ForceProvider(Protocol):
    """Positions in, energy and forces out; species and cell conventions are bound at construction.

    A provider is a function of positions. One that starts from an earlier result (an SCF guess) keeps one
    such memory per replica, converges tightly enough that it does not show, and drops it in `reset`.

    Attributes:
        name: the name it is known by in the registry.
        numbers: atomic numbers it is bound to, shape (atoms,).
        cutoff: A, or None when every pair of atoms interacts.
        dtype: floating-point type the forces are computed in, "float32" or "float64".
        conservative: True when the forces are the exact negative gradient of the energy.
        batched: True when positions of shape (replicas, atoms, 3) are accepted in one call.
        provenance: versions, settings and file hashes, for the record of a run.
    """

    name: str
    numbers: NDArray[np.int64]
    cutoff: float | None
    dtype: str
    conservative: bool
    batched: bool

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Versions, settings and hashes that identify this model, JSON-serialisable."""

    def __call__(self, positions: Array, cell: Array | None = None, /) -> Evaluation:
        """Evaluate positions of shape (atoms, 3) or, if `batched`, (replicas, atoms, 3), in A."""

    def reset(self) -> None:
        """Forget whatever was remembered from earlier calls."""


def evaluate(provider: ForceProvider, positions: Array, cell: Array | None = None) -> Evaluation:
    """Evaluate positions of shape (replicas, atoms, 3), looping where the provider cannot batch.

    The cell, if there is one, has shape (3, 3) or (replicas, 3, 3).
    """
    if provider.batched:
        return provider(positions, cell)
    if cell is None:
        return stacked([provider(x) for x in positions])
    cells = np.broadcast_to(cell, (len(positions), 3, 3))
    return stacked([provider(x, h) for x, h in zip(positions, cells, strict=True)])


def stacked(results: Sequence[Evaluation]) -> Evaluation:
    """One evaluation of replicas from one of each; stress and energies by atom where all have them."""
    stress, atomic = [r.stress for r in results], [r.atomic_energies for r in results]
    return Evaluation(
        energy=np.array([float(r.energy) for r in results]),
        forces=np.stack([r.forces for r in results]),
        stress=np.stack([s for s in stress if s is not None]) if all(s is not None for s in stress) else None,
        atomic_energies=np.stack([e for e in atomic if e is not None]) if all(e is not None for e in atomic) else None,
    )


def stress_from_strain(derivative: Array, cell: Array) -> Array:
    """Stress in eV/A^3, order xx yy zz yz xz xy, from dE/dstrain (3, 3) in eV and the cell (3, 3) in A."""
    w: Array = derivative / abs(np.linalg.det(cell))
    return (0.5 * (w + w.T))[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]


@dataclass(frozen=True)
class ProviderCheck:
    """Outcome of `check_provider`: the largest violation of each law, in the units of the law.

    Attributes:
        gradient: eV/A, forces against central differences of the energy.
        translation: eV/A, change of the forces under a shift of all atoms.
        rotation: eV/A, forces of the turned structure against the turned forces.
        permutation: eV/A, forces after exchanging two like atoms; None without like atoms.
        batch: eV/A, one batched call against a loop; None where the provider does not batch.
        tolerance: eV/A, what each was held to.
        stress: eV/A, derivative of the energy by strain, over the cube root of the volume V, against V times the stress;
            None without a stress.
    """

    gradient: float
    translation: float
    rotation: float
    permutation: float | None
    batch: float | None
    tolerance: float
    stress: float | None = None

    @property
    def failures(self) -> list[str]:
        """Names of the laws that do not hold within the tolerance."""
        laws = ("gradient", "stress", "translation", "rotation", "permutation", "batch")
        return [law for law in laws if (v := getattr(self, law)) is not None and not v <= self.tolerance]


def check_provider(
    provider: ForceProvider,
    positions: Array,
    cell: Array | None = None,
    *,
    tolerance: float | None = None,
    step: float | None = None,
    permutation: bool = False,
) -> ProviderCheck:
    """Hold a provider to the laws every force field obeys; for your own tests as much as for ours.

    Args:
        provider: the model under test, bound to the species of `positions`.
        positions: A, shape (atoms, 3).
        cell: A, shape (3, 3), of a periodic structure.
        tolerance: eV/A. Default: 1e-4 for float64 models; for float32 ones the rounding of the energy
            over the difference step, plus 1e-3.
        step: A, displacement of the central difference; default 1e-3 (float64) or 1e-2 (float32).
        permutation: also exchange two like atoms. Off by default: students that are bound to one
            molecule are not symmetric under it.

    Returns:
        The largest violation of each law.
    """
    x = np.asarray(positions, dtype=np.float64)
    single = provider.dtype != "float64"
    h = step or (1e-2 if single else 1e-3)

    def ask(y: Array, box: Array | None = cell) -> Evaluation:
        return provider(y) if box is None else provider(y, box)

    def forces(y: Array, box: Array | None = cell) -> Array:
        return np.asarray(ask(y, box).forces, dtype=np.float64)

    first = ask(x)
    f0 = np.asarray(first.forces, dtype=np.float64)
    if tolerance is None:
        tolerance = 1e-4 + (1e-3 + float(np.finfo(np.float32).eps) * abs(float(first.energy)) / h if single else 0.0)
    rng = np.random.default_rng(0)
    gradient = 0.0
    for _ in range(6):
        u = rng.standard_normal(x.shape)
        u /= np.linalg.norm(u)
        slope = _slope(lambda t, u=u: ask(x + t * u), h)  # type: ignore[misc]
        gradient = max(gradient, abs(slope + float((f0 * u).sum())))
    stress = None
    if cell is not None and first.stress is not None:
        stress = _stress_violation(ask, x, cell, np.asarray(first.stress, dtype=np.float64), h, rng)
    shift = np.abs(forces(x + np.array([1.7, -0.9, 2.3])) - f0).max()
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    turn *= np.sign(np.linalg.det(turn))
    rotation = np.abs(forces(x @ turn.T, None if cell is None else cell @ turn.T) - f0 @ turn.T).max()
    exchange = None
    if permutation:
        z = np.asarray(provider.numbers)
        i, j = next((i, j) for i in range(len(z)) for j in range(i) if z[i] == z[j])
        order = np.arange(len(z))
        order[[i, j]] = order[[j, i]]
        exchange = float(np.abs(forces(x[order]) - f0[order]).max())
    batch = None
    if provider.batched:
        many = np.stack([x, x + 0.01 * rng.standard_normal(x.shape)])
        loop = np.stack([forces(many[0]), forces(many[1])])
        batch = float(np.abs(ask(many).forces - loop).max())
    return ProviderCheck(float(gradient), float(shift), float(rotation), exchange, batch, float(tolerance), stress)


def _slope(at: Callable[[float], Evaluation], h: float) -> float:
    """dE/dt at 0, a fourth-order central difference: truncation h^4, far below the tolerance at these steps."""
    e = {k: float(at(k * h).energy) for k in (-2, -1, 1, 2)}
    return (8 * (e[1] - e[-1]) - (e[2] - e[-2])) / (12 * h)


def _stress_violation(
    ask: Callable[[Array, Array], Evaluation], x: Array, cell: Array, stress: Array, h: float, rng: np.random.Generator
) -> float:
    """Largest |dE/dt - V tr(stress strain) / L| in eV/A along six random strains t strain / L, L^3 = V."""
    volume = abs(float(np.linalg.det(cell)))
    length = volume ** (1 / 3)
    xx, yy, zz, yz, xz, xy = stress
    tensor = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    worst = 0.0
    for _ in range(6):
        strain = rng.standard_normal((3, 3))
        strain = strain + strain.T
        strain /= np.linalg.norm(strain) * length

        def at(t: float, strain: Array = strain) -> Evaluation:
            deform = np.eye(3) + t * strain
            return ask(x @ deform, cell @ deform)

        worst = max(worst, abs(_slope(at, h) - volume * float((tensor * strain).sum())))
    return worst
