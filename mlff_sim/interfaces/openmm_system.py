"""What openmm_hybrid is given, read and checked: a System or a topology, positions, and numbers with units."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mlff_sim.errors import InputError, MissingExtra
from mlff_sim.structure import check_structure

if TYPE_CHECKING:
    from ase import Atoms


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


def imported() -> tuple[Any, Any]:
    """OpenMM and its units, recent enough."""
    try:
        import openmm
        from openmm import unit
    except ImportError:
        raise MissingExtra("openmm_hybrid", "openmm") from None
    if not hasattr(openmm, "PythonForce"):
        raise InputError(f"OpenMM {openmm.__version__} has no PythonForce; install OpenMM 8.5 or newer.")
    return openmm, unit


def quantity(value: Any, in_unit: Any, name: str) -> Any:
    """The number or array of a value with a unit."""
    from openmm import unit

    if not unit.is_quantity(value):
        raise InputError(f"{name} has no unit; say which, as in {name}=...*unit.{in_unit.get_name()}.")
    if not value.unit.is_compatible(in_unit):
        raise InputError(f"{name} is in {value.unit.get_name()}; give it in {in_unit.get_name()} or the like.")
    return value.value_in_unit(in_unit)


def number(value: Any, in_unit: Any, name: str) -> float:
    """A number in the unit of its name, or with a unit of its own."""
    from openmm import unit

    plain = quantity(value, in_unit, name) if unit.is_quantity(value) else value
    try:
        return float(plain)
    except (TypeError, ValueError):
        raise InputError(f"{name} = {plain!r} must be a number.") from None


def atoms_of(system: Any, topology: Any, positions: Any) -> Atoms:
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
        x = np.asarray(quantity(positions, unit.angstrom, "positions"), dtype=np.float64)
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
