"""Any model of the registry as an ASE calculator, with little bookkeeping of its own."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes

from mlff_sim.acceleration import Acceleration, Execution, chosen
from mlff_sim.errors import InputError
from mlff_sim.forces import ForceProvider
from mlff_sim.structure import check_cell, whole

if TYPE_CHECKING:
    from ase import Atoms


class MLFFCalculator(Calculator):
    """A force field for ASE: everything a model knows about a structure, from one evaluation.

    Args:
        model: a name of the registry ("mace:FILE", "student:FILE", "chgnet", "gfn2-xtb", "module:FILE.py:factory",
            "ase:package.module:factory"), a `torch.nn.Module` with the signature of
            `mlff_sim.models.graph.GraphModel`, or a `ForceProvider`.
        device: "cpu", "cuda", "cuda:1", or "auto": a GPU where there is one and the model can use it.
        dtype: "float32" or "float64", of a module.
        acceleration: "auto", "none" or an `Acceleration`, for modules and MACE.
        charge: total charge in e, unless `atoms.info["charge"]` says otherwise.
        spin: multiplicity 2S + 1, unless `atoms.info["spin"]` says otherwise.

    Energies are in eV, forces in eV/A, stress in eV/A^3 (Voigt order xx yy zz yz xz xy; positive under tension, as in
    ASE). A change of positions, numbers, cell, periodicity, charge or spin is noticed; nothing else is looked at.
    """

    implemented_properties = ["energy", "free_energy", "forces", "stress", "energies"]  # noqa: RUF012 (as ASE declares it)

    def __init__(
        self,
        model: Any,
        *,
        device: str = "auto",
        dtype: str = "float32",
        acceleration: Acceleration | str = "auto",
        charge: int = 0,
        spin: int = 1,
    ) -> None:
        """Check the arguments; the model is built at the first evaluation, when the elements are known."""
        super().__init__()  # type: ignore[no-untyped-call]
        if isinstance(model, str):
            from mlff_sim.models.registry import resolve

            resolve(model)
        self.model, self.execution = model, Execution(device, dtype, chosen(acceleration))
        self.charge, self.spin = whole(charge, "charge"), whole(spin, "spin", least=1)
        self.provider: ForceProvider | None = None
        self._last: tuple[Any, ...] | None = None
        self._bound: tuple[Any, ...] = ()
        self._spent: list[float] = [0, 0.0]  # calls and seconds

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles hold what was asked for; they build the model anew."""
        return {**self.__dict__, "provider": None, "_bound": (), "_last": None, "results": {}, "atoms": None}

    def acceleration_report(self) -> dict[str, Any]:
        """What engaged, by how much it deviates, and where the time went; empty for models without acceleration.

        Times are ms a call: `list_ms` (neighbours), `transfer_ms` (to tensors, to the device and back), `model_ms`, and
        `glue_ms`, the rest of what this calculator does.
        """
        report = getattr(self.provider, "report", None)
        if report is None:
            return {}
        told = dict(report())
        parts = sum(told.get(f"{name}_ms", 0.0) for name in ("list", "transfer", "model"))
        calls, seconds = self._spent
        seconds -= told["compile_s"]
        return {**told, "glue_ms": max(0.0, 1e3 * seconds / calls - parts) if calls else 0.0}

    # ASE's protocol.

    def check_state(self, atoms: Atoms, tol: float = 0.0) -> list[str]:
        """What has changed since the last evaluation, by exact comparison of what the model can see."""
        if self._last is None:
            return list(all_changes)
        positions, numbers, cell, pbc, charge, spin = self._last
        changes = []
        if not np.array_equal(atoms.arrays["numbers"], numbers):
            changes.append("numbers")
        if not np.array_equal(atoms.arrays["positions"], positions):
            changes.append("positions")
        if not np.array_equal(atoms.cell.array, cell):
            changes.append("cell")
        if not np.array_equal(atoms.pbc, pbc):
            changes.append("pbc")
        if (charge, spin) != self._charge_and_spin(atoms):
            changes.append("initial_charges")
        return changes

    def get_property(self, name: str, atoms: Atoms | None = None, allow_calculation: bool = True) -> Any:
        """One property; evaluates if something has changed."""
        if name not in self.implemented_properties:
            raise PropertyNotImplementedError(f"{name} is no property of this calculator.")
        if atoms is None and self.atoms is None:
            raise InputError("there is no structure to evaluate; attach the calculator to an Atoms object.")
        if atoms is not None:
            changes = self.check_state(atoms)
            if changes:
                if not allow_calculation:
                    return None
                self.calculate(atoms, [name], changes)
        if name not in self.results:
            raise PropertyNotImplementedError(f"the model does not give {name} for this structure.")
        value = self.results[name]
        return value.copy() if isinstance(value, np.ndarray) else value

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Evaluate the model and fill in all properties."""
        atoms = self.atoms if atoms is None else atoms
        if atoms is None:
            raise InputError("there is no structure to evaluate; attach the calculator to an Atoms object.")
        if not len(atoms):
            raise InputError("the structure has no atoms.")
        start = time.perf_counter()
        self._last, self.results = None, {}
        x = atoms.arrays["positions"]
        if not np.isfinite(x.sum()):
            bad = int(np.argmin(np.isfinite(x).all(axis=1)))
            raise InputError(f"position of atom {bad} ({atoms.symbols[bad]}) is not a finite number.")
        if "cell" in system_changes and atoms.pbc.any():
            check_cell(atoms.cell.array, atoms.pbc, len(atoms))
        provider = self.prepare(atoms)
        building = time.perf_counter() - start
        answer = provider(x, atoms.cell.array) if atoms.pbc.any() else provider(x)
        energy = float(answer.energy)
        self.results = {"energy": energy, "free_energy": energy, "forces": np.asarray(answer.forces)}
        if answer.stress is not None:
            self.results["stress"] = np.asarray(answer.stress)
        if answer.atomic_energies is not None:
            self.results["energies"] = np.asarray(answer.atomic_energies)
        self.atoms = atoms
        numbers, cell = atoms.arrays["numbers"].copy(), atoms.cell.array.copy()
        self._last = (x.copy(), numbers, cell, atoms.pbc.copy(), *self._charge_and_spin(atoms))
        self._spent[0] += 1
        self._spent[1] += time.perf_counter() - start - (building if self._spent[0] == 1 else 0.0)

    def prepare(self, atoms: Atoms) -> ForceProvider:
        """The model for these elements, periodicity, charge and spin; built if it is not there yet."""
        key = (atoms.numbers.tobytes(), tuple(atoms.pbc.tolist()), *self._charge_and_spin(atoms))
        if self.provider is None or key != self._bound:
            self.provider = self._fitting(atoms)
            self._bound, self._spent = key, [0, 0.0]
        return self.provider

    def reset(self) -> None:
        """Forget the last evaluation."""
        self._last, self.results, self.atoms = None, {}, None

    def _charge_and_spin(self, atoms: Atoms) -> tuple[int, int]:
        charge, spin = atoms.info.get("charge", self.charge), atoms.info.get("spin", self.spin)
        return whole(charge, "charge"), whole(spin, "spin", least=1)

    def _fitting(self, atoms: Atoms) -> ForceProvider:
        """The model for this structure, refused where it would not see the periodicity."""
        from mlff_sim.models.registry import check_periodicity

        provider = self._bind(atoms)
        check_periodicity(provider, atoms)
        return provider

    def _bind(self, atoms: Atoms) -> ForceProvider:
        bound = atoms.copy()
        bound.info["charge"], bound.info["spin"] = self._charge_and_spin(atoms)
        from mlff_sim.models.registry import bind

        return bind(self.model, bound, self.execution)
