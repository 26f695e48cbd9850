"""Two-model dynamics in OpenMM: force groups and a `CustomIntegrator` made from the scheme the other engines run.

A scheme is a tuple of kicks, drifts and baths (`mlff_sim.integrators.schemes`). `translate` writes it out as the
computations of a `CustomIntegrator`, one by one; `add_forces` gives every force that kicks a `PythonForce` of its own
group. Their sum is the potential energy, so what OpenMM reports is what the dynamics conserves.
"""

from __future__ import annotations

import traceback
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import numpy as np

from mlff_sim.acceleration import Acceleration, Execution, chosen
from mlff_sim.errors import InputError, NonFinite
from mlff_sim.forces import Array, ForceProvider
from mlff_sim.integrators.force_table import ForceTable
from mlff_sim.integrators.mollifier import Mollifier
from mlff_sim.integrators.schemes import Bath, Drift, Kick, Scheme, merged
from mlff_sim.integrators.stepper import Langevin, Stepper
from mlff_sim.interfaces.openmm_force import _moment
from mlff_sim.interfaces.openmm_system import atoms_of, check_system, imported, number, quantity
from mlff_sim.models.registry import bind, check_periodicity, resolve, student_name
from mlff_sim.simulation.assembly import Dynamics, assemble, relaxed
from mlff_sim.simulation.config import RunConfig
from mlff_sim.state import State
from mlff_sim.structure import covalent_bonds, per_atom, whole
from mlff_sim.units import NM, PS

if TYPE_CHECKING:
    from ase import Atoms

SCHEMES = ("respa", "mollified")
ENERGY = (NM / PS) ** 2
"""u nm^2/ps^2 in eV: what OpenMM, in its equations of motion, takes a kJ/mol to be. It differs from the kJ/mol of
CODATA 2014 by 3e-10 of itself; with it, trajectories are those of the other engines to the last digits."""


def translate(scheme: Scheme, groups: Mapping[str, int], timestep: float, bath: Langevin | None = None) -> Any:
    """The `openmm.CustomIntegrator` that executes a scheme; one of its steps is one outer step.

    | flow | computation |
    |---|---|
    | `Kick("f")` over t | v <- v + t f / m, with the forces of the group of "f" |
    | `Drift()` over t | x <- x + t v |
    | `Bath()` over t | v <- a v + sqrt((1 - a^2) kT / m) xi, a = exp(-friction t), exact for any t |

    Each step begins by `addUpdateContextState`, so that a `CMMotionRemover` does its work. Whenever
    OpenMM changes from one group to another it asks for forces again; those of `add_forces` are remembered as long as
    nothing moves, so each model is evaluated once for new positions, however many kicks and reports ask for it.

    Args:
        scheme: flows and fractions of the outer step.
        groups: force group of every force that kicks.
        timestep: outer time step, internal units.
        bath: temperature and friction, needed when the scheme holds a `Bath`; its random streams are not used, the
            noise is OpenMM's.

    The variables `kT` (kJ/mol, global) and `friction` (1/ps, global, or per degree of freedom where atoms have their own)
    can be changed as the simulation goes; `heat` (kJ/mol, global) is the energy the bath has put in, so that
    K + U - heat is conserved.
    """
    import openmm

    integrator = openmm.CustomIntegrator(timestep / PS)
    if any(isinstance(flow, Bath) for flow, _ in scheme):
        if bath is None:
            raise ValueError("the scheme has a bath flow and no bath was given.")
        integrator.addGlobalVariable("kT", bath.kT / ENERGY)
        if bath.remove_com:
            raise ValueError("the centre of mass is kept at rest by a CMMotionRemover in OpenMM, not by the bath.")
        if np.ndim(bath.friction):
            integrator.addPerDofVariable("friction", 0.0)
            of_atoms = [openmm.Vec3(g, g, g) for g in np.asarray(bath.friction * PS).tolist()]
            integrator.setPerDofVariableByName("friction", of_atoms)
        else:
            integrator.addGlobalVariable("friction", bath.friction * PS)
        for name in ("heat", "before", "after"):
            integrator.addGlobalVariable(name, 0.0)
    integrator.addUpdateContextState()
    for flow, fraction in merged(scheme):
        t = f"dt*{fraction.numerator}/{fraction.denominator}"
        if isinstance(flow, Kick):
            integrator.addComputePerDof("v", f"v+{t}*f{groups[flow.force]}/m")
        elif isinstance(flow, Drift):
            integrator.addComputePerDof("x", f"x+{t}*v")
        elif isinstance(flow, Bath):
            integrator.addComputeSum("before", "m*v*v/2")
            integrator.addComputePerDof("v", f"a*v+sqrt((1-a*a)*kT/m)*gaussian; a=exp(-friction*{t})")
            integrator.addComputeSum("after", "m*v*v/2")
            integrator.addComputeGlobal("heat", "heat+after-before")
        else:
            raise NotImplementedError(f"OpenMM has no translation of {flow}.")
    return integrator


@dataclass(frozen=True)
class Recipe:
    """What was asked for: enough to build the forces anew in a copy of the System, or in another process.

    Attributes:
        models: "teacher", unless dynamics is plain "student", and perhaps "middle": a name, a module or a provider each.
        atoms: elements, masses, charge and spin; positions where they were given.
        acceleration: of the models.
        dynamics: what a step is.
        mollifier: of "mollified".
    """

    models: Mapping[str, Any]
    atoms: Atoms
    acceleration: Acceleration
    dynamics: Dynamics
    mollifier: Mollifier | None = None

    def providers(self) -> dict[str, ForceProvider]:
        """The models, built; the student on the CPU, as in the other engines."""
        return {
            name: bind(
                model,
                self.atoms,
                Execution(device="cpu" if name == "student" else "auto", acceleration=self.acceleration),
            )
            for name, model in self.models.items()
        }

    def stepper(self, providers: Mapping[str, ForceProvider], bath: Langevin | None = None) -> Stepper:
        """The engine that OpenMM takes the scheme and the forces of. It never steps."""
        nowhere = State(*np.zeros((2, 1, len(self.atoms), 3)))
        return assemble(self.dynamics, providers, self.atoms.get_masses(), nowhere, bath, self.mollifier)


class Answers:
    """What the forces of one `ForceTable` answer to OpenMM: they share one memory, of the current positions.

    Args:
        table: the named forces.
        symbols: chemical symbols of the atoms, for what is said of a fault.
        recipe: of the table; without one the forces cannot be copied or serialised.
    """

    def __init__(self, table: ForceTable, symbols: list[str], recipe: Recipe | None = None) -> None:
        """Nothing is evaluated yet."""
        self.table, self.symbols, self.recipe = table, symbols, recipe
        self.token, self.taken = uuid.uuid4().hex, set[str]()
        self._positions: Array | None = None

    def answer(self, name: str, state: Any) -> tuple[float, Array]:
        """Energy (kJ/mol) and forces (n, 3) (kJ/mol/nm) of a named force at the positions of an `openmm.State`."""
        from openmm import unit

        x: Array = NM * state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
        if self._positions is None or not np.array_equal(x, self._positions):
            self.table.move(x[None])
        self._positions = None  # after a fault, nothing that was found here is trusted
        try:
            found = self.table[name]
        except NonFinite as error:
            what = f"the {error.what.removesuffix('s')} of atom {error.atom} ({self.symbols[error.atom]})"
            raise RuntimeError(f"{_moment(state)}: {what} is not a finite number.") from error
        except InputError as error:  # a mistake of the caller's, said in one line
            raise InputError(f"{_moment(state)}: {error}") from error
        except Exception as error:  # OpenMM would keep the message only
            raise RuntimeError(f"a model failed at {_moment(state)}:\n{traceback.format_exc()}") from error
        energy = float(found.energy[0])
        if not np.isfinite(energy):
            raise RuntimeError(f"{_moment(state)}: the energy of the {name} is not a finite number.")
        self._positions = x
        return energy / ENERGY, found.forces[0] * (NM / ENERGY)


class NamedForce:
    """What OpenMM calls for one force. It can be pickled, and so serialised with its System, if the models can."""

    def __init__(self, name: str, answers: Answers) -> None:
        """Bind a name to the answers it shares with others."""
        self.name, self.answers = name, answers

    def __call__(self, state: Any) -> tuple[float, Array]:
        """Evaluate an `openmm.State`."""
        return self.answers.answer(self.name, state)

    def __reduce__(self) -> tuple[Any, ...]:
        """Only what was asked for, nothing that was built."""
        if self.answers.recipe is None:
            raise TypeError("forces of a ForceTable cannot be pickled; openmm_hybrid's can.")
        return _restored, (self.name, self.answers.token, self.answers.recipe)


_COPIES: WeakValueDictionary[str, Answers] = WeakValueDictionary()


def _restored(name: str, token: str, recipe: Recipe) -> NamedForce:
    """A force of a copied System; forces that were copied together share their answers again."""
    answers = _COPIES.get(token)
    if answers is None or name in answers.taken:
        table = recipe.stepper(recipe.providers()).forces
        answers = _COPIES[token] = Answers(table, list(recipe.atoms.symbols), recipe)
    answers.taken.add(name)
    return NamedForce(name, answers)


def add_forces(system: Any, answers: Answers, groups: Mapping[str, int]) -> None:
    """Add named forces to an `openmm.System`, each as a `PythonForce` in its group."""
    import openmm

    for name, group in groups.items():
        force = openmm.PythonForce(NamedForce(name, answers))
        force.setName(f"mlff-sim {name}")
        force.setForceGroup(group)
        system.addForce(force)


def openmm_hybrid(
    target: Any,
    *,
    student: Any,
    teacher: Any,
    timestep: Any = None,
    k_steps: int = 8,
    scheme: str = "respa",
    temperature_K: float | None = None,
    friction_per_ps: float = 1.0,
    friction_by_element: Mapping[str, float] | None = None,
    integrator: str = "baoab",
    seed: int = 0,
    middle: Any = None,
    middle_steps: int | None = None,
    positions: Any = None,
    topology: Any = None,
    acceleration: Acceleration | str = "auto",
    charge: int = 0,
    spin: int = 1,
) -> tuple[Any, Any]:
    """An `openmm.System` and an integrator in which a cheap student advances and the teacher corrects.

    One step of the integrator is one *outer* step of `k_steps * timestep`, with one call of the teacher. The potential
    energy that OpenMM reports is the one that is conserved: the teacher's, but for the X-H stretches of "mollified".
    Velocities are those of the same time as the positions.

    The student is in force group 0, and what corrects it in those above. A force that is added to the System later, such as a
    restraint or a bias, belongs into group 0, where OpenMM puts it: it then kicks with the student, at every inner step.
    Forces in other groups would be reported and never kick.

    Args:
        target: `openmm.app.Topology` of a molecule in vacuum, of which a System is made; or an `openmm.System` to which
            the forces are added, with masses of its own, repartitioned ones for instance, and no forces but a
            `CMMotionRemover`, which keeps the centre of mass at rest.
        student: cheap model: a student file, a registry name, a module or a `ForceProvider`; None for plain dynamics
            of the teacher (velocity Verlet or BAOAB), with `k_steps=1`.
        teacher: expensive model: the same.
        timestep: *inner* time step with its unit; 0.5 fs by default.
        k_steps: inner steps in an outer step.
        scheme: "respa" or "mollified"; see `RunConfig`.
        temperature_K: of a Langevin bath; None for constant energy.
        friction_per_ps: of the bath.
        friction_by_element: where an element has its own, 1/ps.
        integrator: "baoab" or "obabo", where there is a bath; see `RunConfig`.
        seed: of the bath.
        middle: a model between the two, asked every `middle_steps`; see `RunConfig`.
        middle_steps: its inner steps.
        positions: with their unit, (n, 3), near a minimum. Needed for "mollified", whose fixed lengths are those of the
            student's minimum next to them, and for models that are defined by a structure.
        topology: of a System whose masses do not tell the elements.
        acceleration: of both models, as for `MLFFCalculator`.
        charge: total charge, e.
        spin: multiplicity.

    Raises:
        InputError: settings that make no sense, a System that holds what the scheme cannot move, a model that does not
            fit, or OpenMM is missing or too old.
    """
    openmm, unit = imported()
    if scheme not in SCHEMES:
        raise InputError(
            f"openmm_hybrid has no scheme '{scheme}'; choose one of: {', '.join(SCHEMES)}, or run it with "
            "HybridDynamics or mlff-sim hybrid."
        )
    if teacher is None:
        raise InputError("which teacher? Give teacher=...; plain dynamics of one model has student=None and k_steps=1.")
    inner_fs = 0.5
    if timestep is not None:
        inner_fs = number(quantity(timestep, unit.femtosecond, "timestep"), unit.femtosecond, "timestep")
    kelvin = None if temperature_K is None else number(temperature_K, unit.kelvin, "temperature_K")
    friction = number(friction_per_ps, unit.picosecond**-1, "friction_per_ps")
    seed = whole(seed, "seed", least=0)
    if isinstance(k_steps, str):
        raise InputError(f"k_steps = '{k_steps}': openmm_hybrid needs a whole number; mlff-sim cadence knows one.")
    config = RunConfig(  # checks what all engines have in common
        "atoms",
        "teacher",
        None if student is None else "student",
        ensemble="nve" if kelvin is None else "nvt",
        timestep_fs=inner_fs,
        k_steps=k_steps,
        duration_ps=1e6,
        temperature_K=300.0 if kelvin is None else kelvin,
        friction_per_ps=friction,
        friction_by_element=friction_by_element or {},
        integrator=integrator,
        seed=seed,
        scheme=scheme,
        middle=None if middle is None else "middle",
        middle_steps=middle_steps,
    )
    system = target if isinstance(target, openmm.System) else None
    if system is not None:
        check_system(system)
    atoms = atoms_of(system, topology if system is not None else target, positions)
    atoms.info.update(charge=charge, spin=spin)
    frictions = per_atom(atoms, friction, config.friction_by_element, "friction_per_ps")
    models = {"teacher": teacher}
    for name, model in (("student", student), ("middle", middle)):
        if model is not None:
            models[name] = student_name(model) if isinstance(model, str) else model
    for model in models.values():
        if isinstance(model, str) and positions is None and not resolve(model)[0].composition:
            raise InputError(f"the model '{model}' is defined by a structure: give positions=...")
    dynamics = Dynamics(
        scheme, inner_fs, k_steps, compile=False, integrator=config.integrator, middle_steps=middle_steps
    )
    recipe = Recipe(models, atoms, chosen(acceleration), dynamics)
    providers = recipe.providers()
    for provider in providers.values():
        check_periodicity(provider, atoms)
    if scheme == "mollified":
        if positions is None:
            raise InputError("scheme 'mollified' takes X-H lengths from a structure: give positions=...")
        at_rest = relaxed(providers["student"], atoms.get_positions())
        mollifier = Mollifier(atoms.numbers.tolist(), covalent_bonds(atoms), at_rest)
        if not len(mollifier.hydrogens):
            raise InputError("scheme 'mollified' needs X-H bonds and the molecule has none; use 'respa'.")
        recipe = replace(recipe, mollifier=mollifier)
    if system is None:
        system = openmm.System()
        for mass in atoms.get_masses():
            system.addParticle(mass)
    bath = None if kelvin is None else Langevin(kelvin, frictions, seed, 1)
    stepper = recipe.stepper(providers, bath)
    groups = {name: group for group, name in enumerate(reversed(stepper.kicks))}
    add_forces(system, Answers(stepper.forces, list(atoms.symbols), recipe), groups)
    made = translate(stepper.scheme, groups, stepper.timestep, bath)
    made.setRandomNumberSeed(seed % (2**31 - 1) + 1)  # 0 would be another seed at every start
    return system, made
