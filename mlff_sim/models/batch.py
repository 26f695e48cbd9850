"""Many structures in as few calls as memory allows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mlff_sim.acceleration import Acceleration, Execution, chosen
from mlff_sim.errors import InputError
from mlff_sim.forces import Evaluation, ForceProvider, evaluate
from mlff_sim.models.graph import GraphProvider
from mlff_sim.models.registry import bind, check_periodicity
from mlff_sim.structure import charge_and_spin, check_cell

if TYPE_CHECKING:
    from ase import Atoms


def evaluate_batch(
    model: Any,
    structures: Sequence[Atoms],
    *,
    device: str = "auto",
    dtype: str = "float32",
    acceleration: Acceleration | str = "none",
    memory_GB: float | None = None,
) -> list[Evaluation]:
    """Energy, forces, stress and energies by atom of many structures, in their order.

    Structures of one composition are replicas, which students and graph networks take in one call. Graph networks take
    different compositions in one call as well. Other models are called in a loop, and so are networks whose answer for
    a structure depends on what else is in the call, which is tried first.

    Args:
        model: as for `MLFFCalculator`.
        structures: of any sizes and cells; charge and multiplicity are read from `atoms.info`.
        device: as for `MLFFCalculator`.
        dtype: as for `MLFFCalculator`.
        acceleration: as for `MLFFCalculator`, for replicas; calls that mix compositions are not compiled. Off by
            default: compiling takes longer than most batches.
        memory_GB: what one call may take, and more structures than that are split; by default half of what is free.

    Raises:
        InputError: a structure the model cannot describe; it is named by its index.
    """
    if hasattr(structures, "positions"):
        raise InputError("one Atoms object is given and a list of structures is needed; write [atoms].")
    execution = Execution(device, dtype, chosen(acceleration))
    groups: dict[tuple[Any, ...], list[int]] = {}
    for k, atoms in enumerate(structures):
        try:
            check_cell(atoms.cell.array, atoms.pbc, len(atoms))
            key = charge_and_spin(atoms)
        except InputError as error:
            raise InputError(f"structure {k}: {error}") from error
        if not len(atoms):
            raise InputError(f"structure {k} has no atoms.")
        if not np.isfinite(atoms.positions).all():
            raise InputError(f"structure {k} has a position that is not a finite number.")
        groups.setdefault((atoms.numbers.tobytes(), tuple(atoms.pbc.tolist()), *key), []).append(k)
    if len(groups) > 1 and isinstance(model, ForceProvider):
        raise InputError("a model that is bound to one composition cannot evaluate several; give its name or module.")
    mixed = _mixed(model, structures, execution, memory_GB) if len(groups) > 1 else None
    if mixed is not None:
        return mixed
    answers: dict[int, Evaluation] = {}
    for members in groups.values():
        first = structures[members[0]]
        provider = _bound(model, structures, members[0], execution)
        if hasattr(provider, "memory_GB"):
            provider.memory_GB = memory_GB
        cells = np.stack([structures[k].cell.array for k in members]) if first.pbc.any() else None
        x = np.stack([structures[k].positions for k in members])
        together = evaluate(provider, x, cells)
        for k, index in enumerate(members):
            parts = (together.stress, together.atomic_energies)
            answers[index] = Evaluation(
                together.energy[k], together.forces[k], *(None if p is None else p[k] for p in parts)
            )
    return [answers[k] for k in range(len(structures))]


def _bound(model: Any, structures: Sequence[Atoms], k: int, execution: Execution) -> ForceProvider:
    try:
        provider = bind(model, structures[k], execution)
        check_periodicity(provider, structures[k])
        return provider
    except InputError as error:
        raise InputError(f"structure {k}: {error}") from error


def _mixed(
    model: Any, structures: Sequence[Atoms], execution: Execution, memory_GB: float | None
) -> list[Evaluation] | None:
    """Different compositions side by side, where the model is a graph network that takes them so; None otherwise."""
    from ase import Atoms

    pbc = structures[0].pbc
    if any((atoms.pbc != pbc).any() for atoms in structures):
        return None
    if not isinstance(_bound(model, structures, 0, execution), GraphProvider):
        return None
    everything = Atoms(numbers=np.concatenate([a.numbers for a in structures]), pbc=pbc, cell=structures[0].cell)
    try:
        provider = bind(model, everything, execution)
    except InputError:
        for k in range(1, len(structures)):  # which one it is
            _bound(model, structures, k, execution)
        raise
    assert isinstance(provider, GraphProvider)
    provider.memory_GB = memory_GB
    return provider.each([(a.numbers, a.positions, a.cell.array if pbc.any() else None) for a in structures])
