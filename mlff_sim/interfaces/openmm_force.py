"""Any model of the registry as an OpenMM force (a `PythonForce`, OpenMM 8.5 or newer)."""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlff_sim.acceleration import Acceleration
from mlff_sim.errors import InputError, MissingExtra
from mlff_sim.forces import Array
from mlff_sim.interfaces.ase_calculator import MLFFCalculator
from mlff_sim.models.registry import resolve
from mlff_sim.structure import whole
from mlff_sim.units import KJ_PER_MOL, NM


class ModelCall:
    """What OpenMM calls: a state in, energy in kJ/mol and forces in kJ/mol/nm out.

    The last two answers are kept with their positions and box: an energy report costs no evaluation, and an attempt of
    a barostat one, whether it is accepted or goes back to where it was.
    It can be pickled, and so serialised with its System, if the model can (by name it always can); a copy builds the
    model anew.
    """

    def __init__(
        self, calculator: MLFFCalculator, numbers: NDArray[np.int64], periodic: bool, particles: Sequence[int]
    ) -> None:
        """Bind a calculator to atomic numbers (n,), which belong to these particles (n,) of the System."""
        from ase import Atoms

        self.atoms = Atoms(numbers=numbers, positions=np.zeros((len(numbers), 3)), pbc=periodic)
        self.particles = list(particles)
        self.settings = {
            "model": calculator.model,
            "device": calculator.execution.device,
            "dtype": calculator.execution.dtype,
            "acceleration": calculator.execution.acceleration,
            "charge": calculator.charge,
            "spin": calculator.spin,
        }
        self.calculator, self.evaluations = calculator, 0
        self._known: deque[tuple[Array, Array, float, Array]] = deque(maxlen=2)

    def __getstate__(self) -> dict[str, Any]:
        """Only what was asked for, nothing that was built."""
        return {
            "settings": self.settings,
            "numbers": self.atoms.numbers,
            "periodic": bool(self.atoms.pbc.any()),
            "particles": self.particles,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Start afresh from the settings."""
        calculator = MLFFCalculator(**state["settings"])
        self.__init__(calculator, state["numbers"], state["periodic"], state["particles"])  # type: ignore[misc]

    def __call__(self, state: Any) -> tuple[float, Array]:
        """Evaluate an `openmm.State`."""
        from openmm import unit

        x = state.getPositions(asNumpy=True).value_in_unit(unit.angstrom)
        cell = np.zeros((3, 3))
        if self.atoms.pbc.any():
            cell = state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.angstrom)
        for known in self._known:
            if np.array_equal(x, known[0]) and np.array_equal(cell, known[1]):
                return known[2], known[3]
        energy, forces = self._evaluate(x, cell, _moment(state))
        self._known.append((x.copy(), cell.copy(), energy, forces))
        return energy, forces

    def _evaluate(self, x: Array, cell: Array, moment: str) -> tuple[float, Array]:
        self.evaluations += 1
        self._must_be_finite("position", x, moment)
        self.atoms.set_positions(x)
        self.atoms.set_cell(cell)
        try:
            self.calculator.calculate(self.atoms, system_changes=self.calculator.check_state(self.atoms))
        except InputError as error:  # a mistake of the caller's, said in one line
            raise InputError(f"{moment}: {error}") from error
        except Exception as error:  # OpenMM would keep the message only
            raise RuntimeError(f"the model failed at {moment}:\n{traceback.format_exc()}") from error
        energy, forces = self.calculator.results["energy"], self.calculator.results["forces"]
        self._must_be_finite("force", forces, moment)
        if not np.isfinite(energy):
            raise RuntimeError(f"{moment}: the energy of the model is not a finite number.")
        return float(energy / KJ_PER_MOL), forces * (NM / KJ_PER_MOL)

    def _must_be_finite(self, what: str, values: Array, moment: str) -> None:
        if not np.isfinite(values).all():
            k = int(np.argmin(np.isfinite(values).all(axis=1)))
            atom = f"atom {self.particles[k]} ({self.atoms.symbols[k]})"
            raise RuntimeError(f"{moment}: the {what} of {atom} is not a finite number.")


def _moment(state: Any) -> str:
    """Which step it is; a force inside a `CustomCVForce`, as for interpolation, is told the time only."""
    from openmm import unit

    step, ps = state.getStepCount(), state.getTime().value_in_unit(unit.picosecond)
    return f"time {ps:g} ps" if ps and not step else f"step {step}"


def check_region(system: Any, topology: Any, atoms: Sequence[int] | None = None) -> None:
    """Refuse an `openmm.System` in which a model's atoms cannot move as the model says.

    `MLPotential.createMixedSystem` removes constraints within the region itself, unless it is told not to.

    Args:
        system: the `openmm.System` that the force is for.
        topology: its `openmm.app.Topology`, for the names.
        atoms: indices the model acts on; None for all.

    Raises:
        InputError: naming a constraint between two of the atoms, or a virtual site among them.
    """
    from openmm import unit

    everything = list(topology.atoms())
    if system.getNumParticles() != len(everything):
        raise InputError(
            f"the System has {system.getNumParticles()} particles and the topology {len(everything)} atoms."
        )
    region = set(range(len(everything)) if atoms is None else atoms)
    for i in sorted(region):
        if system.isVirtualSite(i):
            raise InputError(f"atom {i} ({everything[i].name}) is a virtual site: it cannot be the model's.")
    for k in range(system.getNumConstraints()):
        i, j, length = system.getConstraintParameters(k)
        if i in region and j in region:
            raise InputError(
                f"atoms {i} ({everything[i].name}) and {j} ({everything[j].name}) of the model are held at "
                f"{length.value_in_unit(unit.angstrom):.3f} A by a constraint; build the System with constraints=None "
                "and rigidWater=False, or remove it with System.removeConstraint."
            )


def _tell_mistakes_now(call: ModelCall) -> None:
    """Build a model that needs no positions, so that what it refuses is told before the first step."""
    try:
        call.calculator.prepare(call.atoms)
    except InputError as error:
        first = call.particles[0]
        counted = f" (Atoms are counted from the model's first, atom {first} of the topology.)" if first else ""
        raise InputError(f"{error}{counted}") from error


def openmm_force(
    model: Any,
    topology: Any,
    *,
    atoms: Sequence[int] | None = None,
    periodic: bool | None = None,
    backend: str = "auto",
    acceleration: Acceleration | str = "auto",
    device: str = "auto",
    dtype: str = "float32",
    charge: int = 0,
    spin: int = 1,
    force_group: int = 0,
    system: Any = None,
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
        device: as for `MLFFCalculator`; TorchForce runs on the CPU.
        dtype: "float32" or "float64", of a module.
        charge: total charge of the model's atoms, e.
        spin: their multiplicity.
        force_group: of the force.
        system: the `openmm.System` that the force is for, to be checked by `check_region`; not changed.

    Raises:
        InputError: OpenMM is missing or too old, an index or element cannot be used, the model is bound to another
            order of atoms, or the System constrains some of them.
    """
    if backend not in ("auto", "python", "torchforce"):
        raise InputError(f"backend '{backend}' is unknown; use 'auto', 'python' or 'torchforce'.")
    try:
        import openmm
    except ImportError:
        raise MissingExtra("openmm_force", "openmm") from None
    if backend != "torchforce" and not hasattr(openmm, "PythonForce"):
        raise InputError(f"OpenMM {openmm.__version__} has no PythonForce; install OpenMM 8.5 or newer.")
    if not hasattr(topology, "atoms"):
        raise InputError(
            f"the topology is an object of the class {type(topology).__name__}; give an openmm.app.Topology, such as "
            "pdb.topology."
        )
    everything = list(topology.atoms())
    chosen = list(range(len(everything))) if atoms is None else [whole(i, "an index in atoms") for i in atoms]
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
    if system is not None:
        check_region(system, topology, chosen)
    script = backend == "torchforce"
    calculator = MLFFCalculator(
        model,
        acceleration="none" if script else acceleration,
        device="cpu" if script else device,
        dtype=dtype,
        charge=charge,
        spin=spin,
    )
    call = ModelCall(calculator, numbers, bool(periodic), chosen)
    if not isinstance(model, str) or resolve(model)[0].composition:
        _tell_mistakes_now(call)
    if script:
        from mlff_sim.interfaces.torch_force import torch_force

        force = torch_force(calculator, numbers, bool(periodic), None if atoms is None else chosen)
    else:
        force = openmm.PythonForce(call)
    force.setName("mlff-sim")
    force.setForceGroup(force_group)
    force.setUsesPeriodicBoundaryConditions(bool(periodic))
    if atoms is not None and backend != "torchforce":
        force.setParticles(chosen)
    return force
