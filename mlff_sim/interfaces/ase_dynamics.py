"""Two-model dynamics as an ASE `MolecularDynamics`: `attach`, `run`, loggers and trajectories as usual."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import units
from ase.calculators.calculator import Calculator, all_changes
from ase.md.md import MolecularDynamics

from mlff_sim.acceleration import Execution
from mlff_sim.errors import InputError
from mlff_sim.forces import ForceProvider
from mlff_sim.integrators.metropolis import Metropolis
from mlff_sim.integrators.mollifier import Mollifier
from mlff_sim.integrators.stepper import Langevin, Stepper
from mlff_sim.models.registry import bind, student_name
from mlff_sim.simulation.assembly import Dynamics, assemble, relaxed
from mlff_sim.simulation.config import BOUNDED, RunConfig
from mlff_sim.simulation.guards import Guard
from mlff_sim.simulation.temperature import Temperature
from mlff_sim.state import State, kinetic_energy
from mlff_sim.structure import check_free, covalent_bonds, per_atom

if TYPE_CHECKING:
    from ase import Atoms


class HybridDynamics(MolecularDynamics):
    """A cheap student advances, the teacher corrects at every outer step.

    One step of ASE is one *outer* step of `k_steps * timestep`: `run(1000)` makes 1000 teacher calls, and observers see
    positions, momenta, energy and forces at outer points, where energies are right. The atoms are given a calculator
    that answers from the last outer point without another call, and asks the teacher anywhere else.

    Args:
        atoms: a molecule in vacuum, with momenta; they are advanced in place, with the masses they have now.
            Constraints are refused.
        timestep: *inner* time step in ASE's units, e.g. `0.5 * units.fs`.
        student: cheap model: a student file, a registry name, a module or a `ForceProvider`.
        teacher: expensive model: the same, or None for the calculator the atoms have.
        k_steps: inner steps in an outer step.
        scheme: "respa", "mollified" or "ghmc"; see `RunConfig`.
        temperature_K: of a Langevin bath; None for constant energy.
        friction_per_ps: of the bath.
        friction_by_element, remove_com, integrator: more of the bath; see `RunConfig`. For constant energy, ASE's
            `Stationary(atoms)` removes the motion of the centre of mass for good.
        seed: of the bath.
        middle: a model between the two, asked every `middle_steps`; see `RunConfig`.
        middle_steps: its inner steps.
        compile: compile the student's inner loop.
        options: of `MolecularDynamics`: `trajectory`, `logfile`, `loginterval`.

    Raises:
        InputError: settings that make no sense, a periodic or constrained structure, or a model that does not fit.

    Attributes:
        stepper: the engine; `stepper.potential()` is the energy that is conserved with the kinetic one, less
            `stepper.heat`, and `acceptance` the share of accepted proposals of "ghmc".
    """

    def __init__(
        self,
        atoms: Atoms,
        timestep: float,
        *,
        student: Any,
        teacher: Any = None,
        k_steps: int = 8,
        scheme: str = "respa",
        temperature_K: float | None = None,
        friction_per_ps: float = 1.0,
        friction_by_element: Mapping[str, float] | None = None,
        remove_com: bool = False,
        integrator: str = "baoab",
        seed: int = 0,
        middle: Any = None,
        middle_steps: int | None = None,
        compile: bool = True,
        **options: Any,
    ) -> None:
        """Check, load the models, and be ready at the atoms' state; nothing is evaluated yet."""
        inner_fs = timestep / units.fs
        if isinstance(k_steps, str):
            raise InputError(
                f"k_steps = '{k_steps}': HybridDynamics has no warm-up to find it in; give a whole number, mlff-sim cadence knows one."
            )
        config = RunConfig(  # checks what the two have in common
            "atoms",
            "teacher",
            "student",
            ensemble="nve" if temperature_K is None else "nvt",
            timestep_fs=inner_fs,
            k_steps=k_steps,
            duration_ps=1e6,
            temperature_K=300.0 if temperature_K is None else temperature_K,
            friction_per_ps=friction_per_ps,
            friction_by_element=friction_by_element or {},
            remove_com=remove_com,
            integrator=integrator,
            seed=seed,
            scheme=scheme,
            middle=None if middle is None else "middle",
            middle_steps=middle_steps,
        )
        if scheme in BOUNDED:
            raise InputError(
                f"HybridDynamics hands ASE momenta that are m v, and scheme '{scheme}' has others; use mlff-sim hybrid, run()."
            )
        _check(atoms)
        friction = per_atom(atoms, config.friction_per_ps or 0.0, config.friction_by_element, "friction_per_ps")
        if remove_com and (temperature_K is None or len(atoms) == 1):
            raise InputError("remove_com is the bath's, of several atoms: give temperature_K, or use ASE's Stationary.")
        if teacher is None and atoms.calc is None:
            raise InputError("which teacher? Give teacher=..., or attach a calculator to the atoms.")
        if teacher is None and isinstance(atoms.calc, OuterPoint):
            teacher = atoms.calc.teacher  # of the dynamics before this one
        if teacher is None:
            from mlff_sim.models.ase_backed import AseProvider

            given = atoms.calc
            teacher = AseProvider(atoms, lambda: given, "the atoms' calculator")
        if isinstance(student, str):
            student = student_name(student)
        providers = {
            "student": bind(student, atoms, Execution(device="cpu")),
            "teacher": bind(teacher, atoms),
        }
        if middle is not None:
            providers["middle"] = bind(student_name(middle) if isinstance(middle, str) else middle, atoms)
        masses = atoms.get_masses()
        mollifier = None
        if scheme == "mollified":
            at_rest = relaxed(providers["student"], atoms.get_positions())
            mollifier = Mollifier(atoms.numbers.tolist(), covalent_bonds(atoms), at_rest)
            if not len(mollifier.hydrogens):
                raise InputError("scheme 'mollified' needs X-H bonds and the atoms have none; use 'respa'.")
        bath = None
        if temperature_K is not None:
            bath = Langevin(temperature_K, friction, seed, 1, remove_com=remove_com)
        state = _state(atoms)
        dynamics = Dynamics(scheme, inner_fs, k_steps, compile, integrator=integrator, middle_steps=middle_steps)
        self.stepper = assemble(dynamics, providers, masses, state, bath, mollifier)
        self._temperature = Temperature(self.stepper, atoms.numbers.tolist(), config.temperature_K)
        self._guard = Guard(self.stepper, [self._temperature])
        super().__init__(atoms, k_steps * timestep, **options)
        atoms.calc = OuterPoint(self.stepper)

    @property
    def acceptance(self) -> float | None:
        """Share of proposals accepted so far; None for schemes that propose nothing."""
        s = self.stepper
        return float(s.accepted.sum() / max(1, s.proposals)) if isinstance(s, Metropolis) else None

    def step(self, forces: Any = None) -> Any:
        """One outer step; `forces` are ASE's business and not needed."""
        _check(self.atoms)
        self._notice(_state(self.atoms))
        self._guard.advance(self.nsteps + 1)
        # Copies: observers may write into the atoms' arrays.
        self.atoms.set_positions(self.stepper.state.positions[0].copy())
        self.atoms.set_momenta(self.stepper.state.momenta[0].copy())
        return self.atoms.get_forces()

    def _notice(self, now: State) -> None:
        """Go on from what an observer, or the user between two runs, has made of the atoms."""
        before, self.stepper.state = self.stepper.state, now
        if not np.array_equal(now.positions, before.positions):
            self.stepper.forces.move(now.positions)
        if kinetic_energy(now.momenta, self.stepper.masses) > kinetic_energy(before.momenta, self.stepper.masses):
            self._temperature.warm(now)  # they were heated on purpose


class OuterPoint(Calculator):
    """The energy and forces that the dynamics knows at its outer point; elsewhere the teacher is asked."""

    implemented_properties = ["energy", "free_energy", "forces"]  # noqa: RUF012 (as ASE declares it)

    def __init__(self, stepper: Stepper) -> None:
        """Look at the engine of a dynamics."""
        super().__init__()  # type: ignore[no-untyped-call]
        self._stepper = stepper

    @property
    def teacher(self) -> ForceProvider:
        """The model that is asked elsewhere."""
        return self._stepper.forces.providers["teacher"]

    def calculate(
        self, atoms: Any = None, properties: Any = ("energy",), system_changes: Any = tuple(all_changes)
    ) -> None:
        """Fill in energy and forces.

        The energy is the one that is conserved with the kinetic energy, and the forces are minus its gradient: the
        teacher's, but for the X-H stretches of "mollified".
        """
        super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
        assert self.atoms is not None
        stepper, teacher = self._stepper, self.teacher
        if not np.array_equal(self.atoms.numbers, teacher.numbers):
            raise InputError("these are other atoms than those of the dynamics.")
        if np.array_equal(self.atoms.positions, stepper.state.positions[0]):
            energy, forces = float(stepper.potential()[0]), -stepper.gradient()[0]
        else:
            answer = teacher(self.atoms.positions)
            energy, forces = float(answer.energy), answer.forces
        self.results = {"energy": energy, "free_energy": energy, "forces": np.array(forces)}


def _check(atoms: Atoms) -> None:
    """Refuse what would go unnoticed by the engine."""
    if atoms.pbc.any():
        raise InputError("HybridDynamics is for molecules in vacuum, for now; the atoms are periodic.")
    check_free(atoms, "HybridDynamics")


def _state(atoms: Atoms) -> State:
    return State(atoms.get_positions()[None], atoms.get_momenta()[None])
