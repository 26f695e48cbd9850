"""Two-model dynamics in OpenMM: force groups and a `CustomIntegrator` made from the scheme the other engines run.

A scheme is a tuple of kicks, drifts and baths (`mlff_sim.integrators.schemes`). `translate` writes it out as the
computations of a `CustomIntegrator`, one by one; `add_forces` gives every force that kicks a `PythonForce` of its own
group. Their sum is the potential energy, so what OpenMM reports is what the dynamics conserves.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from mlff_sim.acceleration import Acceleration, Execution, chosen
from mlff_sim.errors import InputError, MissingExtra, NonFinite
from mlff_sim.forces import Array, ForceProvider
from mlff_sim.integrators.force_table import ForceTable
from mlff_sim.integrators.mollifier import Mollifier
from mlff_sim.integrators.schemes import Bath, Drift, Kick, Scheme, merged
from mlff_sim.integrators.stepper import Langevin
from mlff_sim.interfaces.openmm_force import _moment
from mlff_sim.models.registry import bind, resolve, student_name
from mlff_sim.simulation.assembly import Dynamics, assemble, relaxed
from mlff_sim.simulation.config import RunConfig
from mlff_sim.state import State
from mlff_sim.structure import check_structure, covalent_bonds
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

    Each step begins by `addUpdateContextState`, so that a `CMMotionRemover` does its work. Where a group was evaluated
    at the same positions before, the forces of `add_forces` are remembered: nothing is computed twice.

    Args:
        scheme: flows and fractions of the outer step.
        groups: force group of every force that kicks.
        timestep: outer time step, internal units.
        bath: temperature and friction, needed when the scheme holds a `Bath`; its random streams are not used, the
            noise is OpenMM's.

    The global variables `kT` (kJ/mol) and `friction` (1/ps) can be changed as the simulation goes; `heat` (kJ/mol) is
    the energy the bath has put in, so that K + U - heat is conserved.
    """
    import openmm

    integrator = openmm.CustomIntegrator(timestep / PS)
    if any(isinstance(flow, Bath) for flow, _ in scheme):
        if bath is None:
            raise ValueError("the scheme has a bath flow and no bath was given.")
        integrator.addGlobalVariable("kT", bath.kT / ENERGY)
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


class Answers:
    """What the forces of one `ForceTable` answer to OpenMM: they share one memory, of the current positions.

    Args:
        table: the named forces.
        symbols: chemical symbols of the atoms, for what is said of a fault.
    """

    def __init__(self, table: ForceTable, symbols: list[str]) -> None:
        """Nothing is evaluated yet."""
        self.table, self.symbols = table, symbols
        self._positions: Array | None = None

    def answer(self, name: str, state: Any) -> tuple[float, Array]:
        """Energy (kJ/mol) and forces (n, 3) (kJ/mol/nm) of a named force at the positions of an `openmm.State`."""
        from openmm import unit

        x: Array = NM * state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
        if self._positions is None or not np.array_equal(x, self._positions):
            self._positions = x
            self.table.move(x[None])
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
        return energy / ENERGY, found.forces[0] * (NM / ENERGY)


def add_forces(system: Any, table: ForceTable, groups: Mapping[str, int], symbols: list[str]) -> None:
    """Add each named force of a table to an `openmm.System`, as a `PythonForce` in its group."""
    import openmm

    answers = Answers(table, symbols)
    for name, group in groups.items():
        force = openmm.PythonForce(partial(answers.answer, name))
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
    seed: int = 0,
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

    The student is in force group 0 and the residual in group 1. A force that is added to the System later, such as a
    restraint or a bias, belongs into group 0, where OpenMM puts it: it then kicks with the student, at every inner step.
    Forces in other groups would be reported and never kick.

    Args:
        target: `openmm.app.Topology` of a molecule in vacuum, of which a System is made; or an `openmm.System` with
            masses, repartitioned ones for instance, and no forces but a `CMMotionRemover`, to which the forces are added.
        student: cheap model: a student file, a registry name, a module or a `ForceProvider`; None for plain dynamics
            of the teacher (velocity Verlet or BAOAB), with `k_steps=1`.
        teacher: expensive model: the same.
        timestep: *inner* time step with its unit; 0.5 fs by default.
        k_steps: inner steps in an outer step.
        scheme: "respa" or "mollified"; see `RunConfig`.
        temperature_K: of a Langevin bath; None for constant energy.
        friction_per_ps: of the bath.
        seed: of the bath.
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
    openmm, unit = _openmm()
    if scheme not in SCHEMES:
        raise InputError(
            f"openmm_hybrid has no scheme '{scheme}'; choose one of: {', '.join(SCHEMES)}, or run it with "
            "HybridDynamics or mlff-sim hybrid."
        )
    inner_fs = 0.5 if timestep is None else _quantity(timestep, unit.femtosecond, "timestep")
    kelvin = None if temperature_K is None else _number(temperature_K, unit.kelvin, "temperature_K")
    friction = _number(friction_per_ps, unit.picosecond**-1, "friction_per_ps")
    RunConfig(  # checks what all engines have in common
        "atoms",
        "teacher",
        None if student is None else "student",
        ensemble="nve" if kelvin is None else "nvt",
        timestep_fs=inner_fs,
        k_steps=k_steps,
        duration_ps=1e6,
        temperature_K=300.0 if kelvin is None else kelvin,
        friction_per_ps=friction,
        seed=seed,
        scheme=scheme,
    )
    system = target if isinstance(target, openmm.System) else None
    if system is not None:
        check_system(system)
    atoms = _atoms(system, topology if system is not None else target, positions)
    atoms.info.update(charge=charge, spin=spin)
    execution = Execution(acceleration=chosen(acceleration))
    providers = {"teacher": _bound(teacher, atoms, execution, positions)}
    if student is not None:
        student = student_name(student) if isinstance(student, str) else student
        on_cpu = Execution(device="cpu", acceleration=execution.acceleration)
        providers["student"] = _bound(student, atoms, on_cpu, positions)
    mollifier = None
    if scheme == "mollified":
        if positions is None:
            raise InputError("scheme 'mollified' takes X-H lengths from a structure: give positions=...")
        at_rest = relaxed(providers["student"], atoms.get_positions())
        mollifier = Mollifier(atoms.numbers.tolist(), covalent_bonds(atoms), at_rest)
        if not len(mollifier.hydrogens):
            raise InputError("scheme 'mollified' needs X-H bonds and the molecule has none; use 'respa'.")
    if system is None:
        system = openmm.System()
        for mass in atoms.get_masses():
            system.addParticle(mass)
    bath = None if kelvin is None else Langevin(kelvin, friction, seed, 1)
    dynamics, nowhere = Dynamics(scheme, inner_fs, k_steps, compile=False), State(*np.zeros((2, 1, len(atoms), 3)))
    # This stepper never steps: it is asked for its scheme and its forces.
    stepper = assemble(dynamics, providers, atoms.get_masses(), nowhere, bath, mollifier)
    groups = {name: group for group, name in enumerate(reversed(stepper.kicks))}
    add_forces(system, stepper.forces, groups, list(atoms.symbols))
    integrator = translate(stepper.scheme, groups, stepper.timestep, bath)
    integrator.setRandomNumberSeed(seed % (2**31 - 1) + 1)  # 0 would be another seed at every start
    return system, integrator


def check_system(system: Any) -> None:
    """Refuse an `openmm.System` that holds what the schemes cannot move, or forces that would be counted twice.

    Raises:
        InputError: naming the first constraint, virtual site, massless particle or force.
    """
    if system.getNumConstraints():
        i, j, _ = system.getConstraintParameters(0)
        raise InputError(
            f"the System holds the distance of atoms {i} and {j} by a constraint, which openmm_hybrid cannot; build it "
            "with constraints=None and rigidWater=False."
        )
    for i in range(system.getNumParticles()):
        if system.isVirtualSite(i):
            raise InputError(f"particle {i} of the System is a virtual site; openmm_hybrid moves atoms only.")
        if not system.getParticleMass(i)._value > 0:
            raise InputError(f"particle {i} of the System has no mass; openmm_hybrid moves all atoms.")
    for force in system.getForces():
        kind = type(force).__name__
        if kind != "CMMotionRemover":
            raise InputError(
                f"the System has a {kind}, which would come on top of the models: give a System without forces, and add "
                "what is meant to (a restraint, a bias) afterwards, in force group 0."
            )


def _openmm() -> tuple[Any, Any]:
    """OpenMM and its units, recent enough."""
    try:
        import openmm
        from openmm import unit
    except ImportError:
        raise MissingExtra("openmm_hybrid", "openmm") from None
    if not hasattr(openmm, "PythonForce"):
        raise InputError(f"OpenMM {openmm.__version__} has no PythonForce; install OpenMM 8.5 or newer.")
    return openmm, unit


def _quantity(value: Any, in_unit: Any, name: str) -> Any:
    """The number or array of a value with a unit."""
    from openmm import unit

    if not unit.is_quantity(value):
        raise InputError(f"{name} has no unit; say which, as in {name}=...*unit.{in_unit.get_name()}.")
    if not value.unit.is_compatible(in_unit):
        raise InputError(f"{name} is in {value.unit.get_name()}; give it in {in_unit.get_name()} or the like.")
    return value.value_in_unit(in_unit)


def _number(value: Any, in_unit: Any, name: str) -> float:
    """A number in the unit of its name, or with a unit of its own."""
    from openmm import unit

    plain = _quantity(value, in_unit, name) if unit.is_quantity(value) else value
    try:
        return float(plain)
    except (TypeError, ValueError):
        raise InputError(f"{name} = {plain!r} must be a number.") from None


def _atoms(system: Any, topology: Any, positions: Any) -> Atoms:
    """Elements, masses and, if they are given, positions, of a topology or a System."""
    from ase import Atoms
    from openmm import unit

    elements, masses = [], []
    if topology is not None:
        if not hasattr(topology, "atoms"):
            raise InputError(
                f"'{type(topology).__name__}' is no openmm.app.Topology and no openmm.System; give one, such as "
                "pdb.topology."
            )
        if topology.getPeriodicBoxVectors() is not None:
            raise InputError("openmm_hybrid is for molecules in vacuum, for now; the topology is periodic.")
        for i, atom in enumerate(topology.atoms()):
            if atom.element is None:
                raise InputError(f"atom {i} ({atom.name}) has no element: a virtual site cannot be the models'.")
            elements.append(atom.element)
        masses = [element.mass for element in elements]
    if system is not None:
        masses = [system.getParticleMass(i) for i in range(system.getNumParticles())]
        elements = elements or [_element(mass, i) for i, mass in enumerate(masses)]
    if len(elements) != len(masses):
        raise InputError(f"the System has {len(masses)} particles and the topology {len(elements)} atoms.")
    if not masses:
        raise InputError("there are no atoms.")
    numbers = [element.atomic_number for element in elements]
    atoms = Atoms(numbers, masses=[mass.value_in_unit(unit.dalton) for mass in masses])
    if positions is not None:
        x = np.asarray(_quantity(positions, unit.angstrom, "positions"), dtype=np.float64)
        if x.shape != (len(atoms), 3):
            raise InputError(f"positions have the shape {x.shape}; {len(atoms)} atoms need ({len(atoms)}, 3).")
        atoms.set_positions(x)
        check_structure(atoms, "positions")
    return atoms


def _element(mass: Any, i: int) -> Any:
    """The element of a mass, where there is no doubt."""
    from openmm import app, unit

    element = app.Element.getByMass(mass)
    if element is None or abs((element.mass - mass).value_in_unit(unit.dalton)) > 0.02:
        raise InputError(f"particle {i} of the System has a mass of {mass}, which is no element's; give topology=...")
    return element


def _bound(model: Any, atoms: Atoms, execution: Execution, positions: Any) -> ForceProvider:
    """The provider of a model; one that is defined by a structure needs the positions."""
    if isinstance(model, str) and positions is None and not resolve(model)[0].composition:
        raise InputError(f"the model '{model}' is defined by a structure: give positions=...")
    return bind(model, atoms, execution)
