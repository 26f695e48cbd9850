"""Any model of the registry as an OpenMM force (a `PythonForce`, OpenMM 8.5 or newer)."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlff_sim.acceleration import Acceleration
from mlff_sim.errors import InputError, MissingExtra
from mlff_sim.forces import Array
from mlff_sim.interfaces.ase_calculator import MLFFCalculator
from mlff_sim.units import KJ_PER_MOL, NM


class ModelCall:
    """What OpenMM calls: a state in, energy in kJ/mol and forces in kJ/mol/nm out.

    The last answer is kept for its positions and box, so an energy report, or a barostat that looks twice at
    one box, costs no further evaluation.
    It can be pickled, and so serialised with its System, if the model was given by name; a copy builds the model anew.
    """

    def __init__(self, calculator: MLFFCalculator, numbers: NDArray[np.int64], periodic: bool) -> None:
        """Bind a calculator to atomic numbers (n,)."""
        from ase import Atoms

        self.atoms = Atoms(numbers=numbers, positions=np.zeros((len(numbers), 3)), pbc=periodic)
        self.settings = {
            "model": calculator.model,
            "device": calculator.execution.device,
            "dtype": calculator.execution.dtype,
            "acceleration": calculator.execution.acceleration,
            "charge": calculator.charge,
            "spin": calculator.spin,
        }
        self.calculator, self.evaluations = calculator, 0
        self._last: tuple[Array, Array, float, Array] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Only what was asked for, nothing that was built."""
        return {"settings": self.settings, "numbers": self.atoms.numbers, "periodic": bool(self.atoms.pbc.any())}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Start afresh from the settings."""
        self.__init__(MLFFCalculator(**state["settings"]), state["numbers"], state["periodic"])  # type: ignore[misc]

    def __call__(self, state: Any) -> tuple[float, Array]:
        """Evaluate an `openmm.State`."""
        from openmm import unit

        x = state.getPositions(asNumpy=True).value_in_unit(unit.angstrom)
        cell = np.zeros((3, 3))
        if self.atoms.pbc.any():
            cell = state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.angstrom)
        if self._last is None or not (np.array_equal(x, self._last[0]) and np.array_equal(cell, self._last[1])):
            self._last = None
            energy, forces = self._evaluate(x, cell, state.getStepCount())
            self._last = (x.copy(), cell.copy(), energy, forces)
        return self._last[2], self._last[3]

    def _evaluate(self, x: Array, cell: Array, step: int) -> tuple[float, Array]:
        self.evaluations += 1
        self.atoms.set_positions(x)
        self.atoms.set_cell(cell)
        try:
            self.calculator.calculate(self.atoms, system_changes=self.calculator.check_state(self.atoms))
        except Exception as error:  # OpenMM would keep the message only
            raise RuntimeError(f"the model failed at step {step}:\n{traceback.format_exc()}") from error
        energy, forces = self.calculator.results["energy"], self.calculator.results["forces"]
        if not np.isfinite(energy):
            raise RuntimeError(f"step {step}: the energy of the model is not a finite number.")
        if not np.isfinite(forces).all():
            atom = int(np.argmin(np.isfinite(forces).all(axis=1)))
            raise RuntimeError(f"step {step}: the force on atom {atom} of the model is not a finite number.")
        return float(energy / KJ_PER_MOL), forces * (NM / KJ_PER_MOL)


def openmm_force(
    model: Any,
    topology: Any,
    *,
    atoms: Sequence[int] | None = None,
    periodic: bool | None = None,
    backend: str = "auto",
    acceleration: Acceleration | str = "auto",
    dtype: str = "float32",
    charge: int = 0,
    spin: int = 1,
    force_group: int = 0,
) -> Any:
    """A force for `System.addForce` that applies a model to all atoms or to some.

    Args:
        model: as for `MLFFCalculator`.
        topology: `openmm.app.Topology` that gives the elements.
        atoms: indices the model acts on, in ascending order; None for all. Interactions with the others are not the
            model's business.
        periodic: use the periodic box; by default if the topology has one. For some of the atoms it must be said: with
            False they must be whole, not split across the box.
        backend: "python" calls the model from OpenMM (`PythonForce`), "torchforce" puts its TorchScript into the
            System (`mlff_sim.interfaces.torch_force`; extra torchforce); "auto" is "python".
        acceleration: as for `MLFFCalculator`; TorchForce runs the model as it is.
        dtype: "float32" or "float64", of a module.
        charge: total charge of the model's atoms, e.
        spin: their multiplicity.
        force_group: of the force.

    Raises:
        InputError: OpenMM is missing or too old, or an index or element cannot be used.
    """
    if backend not in ("auto", "python", "torchforce"):
        raise InputError(f"backend '{backend}' is unknown; use 'auto', 'python' or 'torchforce'.")
    try:
        import openmm
    except ImportError:
        raise MissingExtra("openmm_force", "openmm") from None
    if backend != "torchforce" and not hasattr(openmm, "PythonForce"):
        raise InputError(f"OpenMM {openmm.__version__} has no PythonForce; install OpenMM 8.5 or newer.")
    everything = list(topology.atoms())
    chosen = list(range(len(everything))) if atoms is None else [int(i) for i in atoms]
    if not chosen or sorted(set(chosen)) != chosen or not 0 <= chosen[0] <= chosen[-1] < len(everything):
        raise InputError(
            f"atoms = {chosen[:5]}... must be ascending indices, each once, between 0 and {len(everything) - 1}."
        )
    for i in chosen:
        if everything[i].element is None:
            raise InputError(f"atom {i} ({everything[i].name}) has no element: a virtual site cannot be the model's.")
    numbers = np.array([everything[i].element.atomic_number for i in chosen], dtype=np.int64)
    if periodic is None:
        periodic = topology.getPeriodicBoxVectors() is not None
        if periodic and atoms is not None:
            raise InputError(
                "the topology is periodic and the model acts on some of its atoms: say periodic=False (they are whole "
                "molecules and see no images) or periodic=True."
            )
    if backend == "torchforce":
        from mlff_sim.interfaces.torch_force import torch_force

        plain = MLFFCalculator(model, device="cpu", acceleration="none", dtype=dtype, charge=charge, spin=spin)
        force = torch_force(plain, numbers, bool(periodic), None if atoms is None else chosen)
    else:
        calculator = MLFFCalculator(model, acceleration=acceleration, dtype=dtype, charge=charge, spin=spin)
        force = openmm.PythonForce(ModelCall(calculator, numbers, bool(periodic)))
    force.setName("mlff-sim")
    force.setForceGroup(force_group)
    force.setUsesPeriodicBoundaryConditions(bool(periodic))
    if atoms is not None and backend != "torchforce":
        force.setParticles(chosen)
    return force
