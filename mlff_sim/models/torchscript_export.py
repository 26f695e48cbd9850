"""Torch models as TorchScript that needs nothing but positions and a box: the neighbour list travels inside.

The outer module is compiled from source (`torch.jit.script`), so that its loops and checks stay alive; the network in
it is traced. A trace is a recording, and a network that turns its number of edges into a Python number records that
too. Hence the result is compared with the provider, at structures with more and with fewer edges, before it is used.
"""

from __future__ import annotations

import copy
import json
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from mlff_sim.acceleration import Acceleration
from mlff_sim.errors import InputError
from mlff_sim.forces import Array, ForceProvider
from mlff_sim.models.graph import GraphProvider
from mlff_sim.models.student import Student
from mlff_sim.models.torchscript_file import FORMAT, RECORD, VERSION
from mlff_sim.models.torchscript_modules import (
    AllPairs,
    AllPairsWithForces,
    InABox,
    InVacuum,
    edges_in_a_box,
    edges_in_vacuum,
)
from mlff_sim.units import KJ_PER_MOL, NM

if TYPE_CHECKING:
    from ase import Atoms

SCALES = (1.0, 1.12, 0.9)
"""The export is checked at the structure it was recorded at, and blown up and squeezed, so that edges go and come."""
JITTER_A = 0.02
ROUNDING = 1e-4
"""Deviation allowed relative to the largest value: a thousand roundings of float32, for structures far from any sense.
A number of edges that was recorded as a constant is off by as much as the value itself, or fails outright."""


class _Graph(torch.nn.Module):
    """A `GraphModel` with its atomic numbers fixed."""

    numbers: Tensor

    def __init__(self, module: torch.nn.Module, numbers: Tensor) -> None:
        super().__init__()
        self.module = module
        self.register_buffer("numbers", numbers)

    def forward(self, x: Tensor, box: Tensor, pairs: Tensor, images: Tensor) -> Tensor:
        out: Tensor = self.module(x, self.numbers, box, pairs, images)
        return out


class _Student(torch.nn.Module):
    """A student's network for one structure; without its hand-written forces, they are dropped from the trace."""

    def __init__(self, network: torch.nn.Module, forces: bool) -> None:
        super().__init__()
        self.network, self.forces = network, forces

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        answer: tuple[Tensor, Tensor] = self.network(x[None])
        return answer if self.forces else answer[0]


def script_module(
    provider: ForceProvider, example: Atoms, particles: Sequence[int] | None = None, *, frozen: bool = False
) -> tuple[torch.jit.ScriptModule, dict[str, float]]:
    """A model as one TorchScript module of positions and, if periodic, box vectors, in nm and kJ/mol.

    Args:
        provider: a student, a MACE or any other `GraphProvider`, on the CPU and not compiled.
        example: a structure of the provider's atoms to record at; its periodicity is the module's.
        particles: the model's atoms among all that the module will be given; None if they are all.
        frozen: compare the module as it is after `torch.jit.freeze`, which whoever runs it may apply (openmm-torch
            does): freezing removes every `detach`, and so changes derivatives that rely on it. A student then returns
            its own forces as well, which are those that it gives anywhere else to the last digit but one.

    Returns:
        The module, and its largest deviations from the provider in meV/atom and meV/A.

    Raises:
        InputError: a model that is no torch model, partial periodicity, or one that recorded what should vary.
    """
    pbc = tuple(getattr(provider, "pbc", (False,) * 3))
    if any(pbc) and not all(pbc):
        raise InputError(f"'{provider.name}' is periodic along {pbc}; TorchScript export knows all or none.")
    common = (particles, len(provider.numbers))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing warns of every Python number; `_checked` finds those that matter
        try:
            with _Slices():
                module = _scripted(
                    provider, np.asarray(example.positions), example.cell.array if all(pbc) else None, common, frozen
                )
        except InputError:
            raise
        except (RuntimeError, TypeError, ValueError) as error:
            raise InputError(f"'{provider.name}' cannot be recorded as TorchScript ({_first_line(error)}).") from error
        shown = torch.jit.freeze(module) if frozen else module
    return module, _checked(shown, provider, example, particles)


def _scripted(provider: ForceProvider, x: Array, cell: Array | None, common: tuple[Any, int], forces: bool) -> Any:
    if isinstance(provider, Student):
        network = _Student(copy.deepcopy(provider.network).cpu(), forces)
        traced = torch.jit.trace(network, torch.from_numpy(x - x.mean(0)), check_trace=False)
        whole = AllPairsWithForces if forces else AllPairs
        return torch.jit.script(whole(traced, provider.energy_shift, *common).eval())
    if not isinstance(provider, GraphProvider):
        raise InputError(
            f"'{provider.name}' cannot be exported: TorchScript holds torch models only (student:FILE, mace:FILE, a "
            "torch.nn.Module); distil a student from it first."
        )
    _ = provider(x) if cell is None else provider(x, cell)  # a network that cannot be used says so better than a trace
    dtype, cutoff = getattr(torch, provider.dtype), float(provider.cutoff or 0.0)
    inputs = torch.from_numpy(x - x.mean(0))
    if cell is None:
        pairs, box = edges_in_vacuum(inputs, cutoff), 2 * cutoff * torch.eye(3)
        images = torch.zeros(pairs.shape[1], 3)
    else:
        box = torch.from_numpy(np.array(cell))
        pairs, images = edges_in_a_box(inputs, box, cutoff)
    graph = _Graph(copy.deepcopy(provider.module).cpu(), torch.from_numpy(np.asarray(provider.numbers)))
    traced = torch.jit.trace(graph, (inputs.to(dtype), box.to(dtype), pairs, images.to(dtype)), check_trace=False)
    kind = InVacuum if cell is None else InABox
    return torch.jit.script(kind(cutoff, dtype, traced, float(provider.reference.sum()), *common).eval())


def _checked(module: Any, provider: ForceProvider, example: Atoms, particles: Sequence[int] | None) -> dict[str, float]:
    """Largest deviations from the provider; refused if they are beyond rounding."""
    rng, limits = np.random.default_rng(0), Acceleration()
    rows = np.arange(len(example)) if particles is None else np.asarray(particles)
    energies, forces = [0.0], [0.0]
    for scale in SCALES:
        x = scale * example.positions + JITTER_A * rng.standard_normal(example.positions.shape)
        cell = scale * example.cell.array if all(getattr(provider, "pbc", (False,))) else None
        given = np.zeros((rows[-1] + 1, 3))
        given[rows] = x / NM
        leaf = torch.from_numpy(given).requires_grad_(True)
        try:
            energy = module(leaf) if cell is None else module(leaf, torch.from_numpy(cell / NM))
            if isinstance(energy, tuple):
                energy, gradient = energy[0], -energy[1].detach()
            else:
                (gradient,) = torch.autograd.grad(energy, leaf)
        except (RuntimeError, torch.jit.Error) as error:
            raise InputError(
                f"'{provider.name}' as TorchScript fails at another structure ({_first_line(error)}); does it turn "
                "the number of edges into a Python number?"
            ) from error
        truth = provider(x) if cell is None else provider(x, cell)
        change = KJ_PER_MOL * gradient.numpy()[rows] / NM + truth.forces
        per_atom = float(energy.item()) * KJ_PER_MOL - float(truth.energy)
        energies.append(1e3 * abs(per_atom) / len(x))
        forces.append(1e3 * float(np.abs(change).max()))
        allowed_energy = limits.gate_energy_meV_per_atom + 1e3 * ROUNDING * abs(float(truth.energy)) / len(x)
        allowed_force = limits.gate_force_meV_per_A + 1e3 * ROUNDING * float(np.abs(truth.forces).max())
        if not (energies[-1] <= allowed_energy and forces[-1] <= allowed_force):
            raise InputError(
                f"'{provider.name}' as TorchScript differs from the model itself by {energies[-1]:.3g} meV/atom and "
                f"{forces[-1]:.3g} meV/A at a structure scaled by {scale:g}: a number that should vary was recorded, or "
                "(for TorchForce) its derivatives rely on detach()."
            )
    return {"energy_deviation_meV_per_atom": max(energies), "force_deviation_meV_per_A": max(forces)}


class _Slices(TorchFunctionMode):
    """Records `split` and `chunk` as slices.

    TorchScript joins the gradients of the parts again, and forgets parts that nothing depends on: the gradient then has
    too few columns (seen with torch 2.9, as "mat1 and mat2 shapes cannot be multiplied").
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        parts = func(*args, **(kwargs or {}))
        if func not in (torch.split, Tensor.split, torch.chunk, Tensor.chunk):
            return parts
        given = {k: v for k, v in zip(("input", "sizes", "dim"), args, strict=False)} | (kwargs or {})
        whole, dim, start, slices = given["input"], given.get("dim", 0), 0, []
        for part in parts:
            slices.append(torch.narrow(whole, dim, start, part.shape[dim]))
            start += part.shape[dim]
        return tuple(slices)


def _first_line(error: BaseException) -> str:
    """The last line of a TorchScript error is the message; the others are its traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else ''}"


def export_torchscript(provider: ForceProvider, path: str | Path, example: Atoms) -> dict[str, Any]:
    """Write a model to a TorchScript file, atomically; `torchscript:FILE` and OpenMM's TorchForce read it.

    Its `forward(positions)`, for periodic models `forward(positions, boxvectors)`, takes nm and returns the energy in
    kJ/mol as a differentiable float64 scalar. What is recorded on a CPU runs on CPUs.

    Args:
        provider: a student, a MACE or any other `GraphProvider`.
        path: file to write, any suffix.
        example: a structure of the provider's atoms.

    Returns:
        The record that the file holds as `mlff_sim.json`: format, species, periodicity, units, precision, origin, and
        the largest deviations from the provider.

    Raises:
        InputError: see `script_module`; or the file cannot be written.
    """
    target = Path(path)
    module, deviation = script_module(provider, example)
    record = {
        "format": FORMAT,
        "version": VERSION,
        "numbers": np.asarray(provider.numbers).tolist(),
        "pbc": [bool(p) for p in getattr(provider, "pbc", (False,) * 3)],
        "cutoff": provider.cutoff,
        "dtype": provider.dtype,
        "device": "cpu",
        "units": {"length": "nm", "energy": "kJ/mol"},
        "name": provider.name,
        "provenance": dict(provider.provenance),
        "torch": torch.__version__,
        "structures_compared": len(SCALES),
        **deviation,
    }
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        torch.jit.save(module, str(temporary), _extra_files={RECORD: json.dumps(record)})
        os.replace(temporary, target)
    except (OSError, RuntimeError) as error:
        raise InputError(f"'{path}' cannot be written ({_first_line(error)}).") from error
    finally:
        temporary.unlink(missing_ok=True)
    return record
