"""Any TorchScript file that turns positions into an energy, as a force provider.

A TorchScript archive holds a program in TorchScript's own small language, not Python: loading one cannot run Python or
start processes. It is a program still, which may loop for ever or fill the memory, and PyTorch's reader of archives
has had faults of its own: load files whose origin you trust.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mlff_sim.errors import InputError
from mlff_sim.forces import Array, Evaluation, stress_from_strain
from mlff_sim.models.safefile import sha256
from mlff_sim.units import HARTREE, KCAL_PER_MOL, KJ_PER_MOL, NM

if TYPE_CHECKING:
    from ase import Atoms

    from mlff_sim.acceleration import Execution

FORMAT, VERSION = "mlff-sim-torchscript", 1
RECORD = "mlff_sim.json"
"""Name of our record among the extra files of a TorchScript archive."""
LENGTHS = {"A": 1.0, "nm": NM}
ENERGIES = {"eV": 1.0, "kJ/mol": KJ_PER_MOL, "kcal/mol": KCAL_PER_MOL, "hartree": HARTREE}
DECLARE = "torchscript:FILE,length=nm,energy=kJ/mol"


class TorchScriptProvider:
    """A TorchScript module bound to one composition; forces, and stress if the box can be differentiated, by autograd.

    Args:
        module: `forward(positions)` or, if periodic, `forward(positions, boxvectors)`, returning the energy.
        numbers: atomic numbers, shape (n,).
        pbc: periodic directions, all or none.
        length, energy: the module's units, in A and eV.
        dtype: the module's precision, "float32" or "float64".
        inputs: precision of the positions and box vectors it is given, if another.
        cutoff: A, if known.
        name, record: for the record of a run.
    """

    conservative = True
    batched = False

    def __init__(
        self,
        module: torch.jit.ScriptModule,
        numbers: Array,
        *,
        pbc: tuple[bool, ...],
        length: float,
        energy: float,
        dtype: str,
        inputs: str | None = None,
        cutoff: float | None = None,
        name: str = "torchscript",
        record: Mapping[str, Any] | None = None,
    ) -> None:
        """Bind; nothing is evaluated yet."""
        self.name, self.pbc, self.cutoff, self.dtype = name, pbc, cutoff, dtype
        self._inputs: torch.dtype = getattr(torch, inputs or dtype)
        self.numbers = np.asarray(numbers, dtype=np.int64)
        self._module, self._length, self._energy, self._record = module, length, energy, dict(record or {})

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Name, precision and the record of the file."""
        return {"name": self.name, "dtype": self.dtype, **self._record}

    def reset(self) -> None:
        """Nothing to forget: the module is taken to be a pure function."""

    def __call__(self, positions: Array, cell: Array | None = None, /) -> Evaluation:
        """Evaluate positions of shape (n, 3) in A and, if periodic, a cell (3, 3)."""
        x = self._leaf(positions)
        if any(self.pbc):
            if cell is None:
                raise InputError(f"'{self.name}' is periodic and needs a cell.")
            box = self._leaf(cell)
            leaves: tuple[Tensor, ...] = (x, box)
        else:
            leaves = (x,)
        energy = self._scalar(self._run(leaves))
        if not energy.requires_grad:
            raise InputError(f"'{self.name}' returns an energy that cannot be differentiated by the positions.")
        gradients = torch.autograd.grad(energy, leaves, allow_unused=True)
        if gradients[0] is None:
            raise InputError(f"'{self.name}' returns an energy that does not depend on the positions.")
        g = gradients[0].double().numpy()
        stress = None
        if cell is not None and len(leaves) == 2 and gradients[1] is not None:
            # Positions and box strained together; the sum of the forces is zero, so any origin will do.
            centred = (positions - positions.mean(axis=0)) / self._length
            w = centred.T @ g + (cell / self._length).T @ gradients[1].double().numpy()
            stress = stress_from_strain(w * self._energy, cell)
        value = np.array(energy.item() * self._energy)
        return Evaluation(value, -g * (self._energy / self._length), stress)

    def _run(self, leaves: tuple[Tensor, ...]) -> Any:
        try:
            return self._module(*leaves)
        except (RuntimeError, torch.jit.Error) as error:  # its own traceback in many lines; the last is the message
            reason = next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), "")
            raise InputError(
                f"'{self.name}' failed ({reason}); it was given {str(self._inputs).removeprefix('torch.')}, which dtype "
                "= 'float32' or 'float64' decides for a file that does not say."
            ) from error

    def _leaf(self, values: Array) -> Tensor:
        scaled = torch.from_numpy(np.asarray(values, dtype=np.float64) / self._length)
        return scaled.to(self._inputs).requires_grad_(True)

    def _scalar(self, energy: Any) -> Tensor:
        if not isinstance(energy, Tensor) or energy.numel() != 1:
            what = tuple(energy.shape) if isinstance(energy, Tensor) else type(energy).__name__
            raise InputError(f"'{self.name}' returned {what}; one energy is expected.")
        return energy.reshape(())


def load_torchscript(argument: str, atoms: Atoms, execution: Execution) -> TorchScriptProvider:
    """Load `FILE` or `FILE,length=A|nm,energy=eV|kJ/mol|kcal/mol|hartree`; see this module on trust.

    Args:
        argument: the file; units must be given if and only if it has no record of ours.
        atoms: the structure to bind to; species and periodicity are compared with the record.
        execution: its `dtype` is what files without a record are given; others say themselves. Models run on the CPU.

    Raises:
        InputError: no such file, no TorchScript, units missing, unknown or contradicted, another species or order of
            atoms, another periodicity, or a `forward` with other arguments.
    """
    path, declared = _split(argument)
    file = Path(path)
    if not file.is_file():
        raise InputError(f"TorchScript file '{path}' does not exist; write one with: mlff-sim export.")
    extra = {RECORD: ""}
    try:
        module = torch.jit.load(str(file), map_location="cpu", _extra_files=extra).eval()
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        raise InputError(f"'{path}' cannot be read as a TorchScript file ({reason}).") from error
    record = _record(extra[RECORD], path)
    units = _units(record, declared, path)
    pbc = tuple(bool(p) for p in atoms.pbc)
    if any(pbc) and not all(pbc):
        raise InputError(f"the structure is periodic along {pbc}; a TorchScript model is periodic along all or none.")
    if record:
        from mlff_sim.structure import check_species

        check_species(record["numbers"], atoms, f"TorchScript model '{path}'")
        if record["pbc"] != list(pbc):
            raise InputError(
                f"TorchScript model '{path}' was exported for pbc = {record['pbc']} and the structure has {list(pbc)}; "
                "export it again with such a structure."
            )
    _check_arguments(module, any(pbc), path)
    return TorchScriptProvider(
        module,
        atoms.numbers,
        pbc=pbc,
        length=LENGTHS[units["length"]],
        energy=ENERGIES[units["energy"]],
        dtype=record.get("dtype", execution.dtype),
        inputs="float64" if record else None,  # ours round to their precision once the positions are centred
        cutoff=record.get("cutoff"),
        name=f"torchscript:{argument}",
        record={**record.get("provenance", {}), "units": units, "sha256": sha256(file)},
    )


def _split(argument: str) -> tuple[str, dict[str, str]]:
    """The file, and the settings that follow it."""
    path, *settings = argument.split(",")
    while settings and "=" not in settings[0]:  # a comma in the name of the file
        path += "," + settings.pop(0)
    allowed = {"length": LENGTHS, "energy": ENERGIES}
    declared: dict[str, str] = {}
    for setting in settings:
        key, _, value = setting.partition("=")
        if key not in allowed:
            raise InputError(f"'{setting}' in 'torchscript:{argument}' is unknown; write {DECLARE}.")
        if value not in allowed[key]:
            raise InputError(f"{key} = '{value}' is no unit known here; use {', '.join(allowed[key])}.")
        declared[key] = value
    return path, declared


def _record(text: str | bytes, path: str) -> dict[str, Any]:
    """Our record, checked; empty for a file that has none."""
    if not text:
        return {}
    try:
        record: dict[str, Any] = json.loads(text)
        known = record["format"] == FORMAT and record["version"] <= VERSION
        if known:
            record["numbers"] = [int(z) for z in record["numbers"]]
            record["pbc"] = [bool(p) for p in record["pbc"]]
            known = record["dtype"] in ("float32", "float64")
            known &= record["units"]["length"] in LENGTHS and record["units"]["energy"] in ENERGIES
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"the record {RECORD} in '{path}' cannot be read; export the model again.") from error
    if not known:
        raise InputError(f"'{path}' has a record of another version; this one reads {FORMAT} up to {VERSION}.")
    return record


def _units(record: dict[str, Any], declared: dict[str, str], path: str) -> dict[str, str]:
    """The units of a file: from its record, or as declared."""
    if record:
        units: dict[str, str] = record["units"]
        for key, value in declared.items():
            if value != units[key]:
                raise InputError(f"'{path}' says itself that {key} is in {units[key]}, not {value}; leave it out.")
        return units
    missing = [key for key in ("length", "energy") if key not in declared]
    if missing:
        raise InputError(
            f"'{path}' does not say its units of {' and '.join(missing)}; declare them: {DECLARE} "
            f"(length: {', '.join(LENGTHS)}; energy: {', '.join(ENERGIES)})."
        )
    return declared


def _check_arguments(module: Any, periodic: bool, path: str) -> None:
    """Refuse a `forward` that cannot be called with positions and, if periodic, box vectors."""
    method = getattr(module, "forward", None)
    if method is None:
        raise InputError(f"'{path}' has no forward(); it must turn positions into an energy.")
    arguments = method.schema.arguments[1:]
    needed = sum(not a.has_default_value() for a in arguments)
    given = 2 if periodic else 1
    if not needed <= given <= len(arguments):
        names = ", ".join(a.name for a in arguments)
        raise InputError(
            f"'{path}' is forward({names}); for a {'periodic structure' if periodic else 'molecule'} it must take "
            f"{'positions and box vectors' if periodic else 'positions alone'}."
        )
