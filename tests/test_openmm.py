"""The OpenMM force: the model's answers, asked once for each state, and faults that say what happened."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from mlff_sim import openmm_force
from mlff_sim.errors import InputError
from mlff_sim.models.registry import load_model
from mlff_sim.units import FS, KJ_PER_MOL, NM

mm = pytest.importorskip("openmm")
app, unit = pytest.importorskip("openmm.app"), pytest.importorskip("openmm.unit")


def topology(atoms: Atoms) -> Any:
    out = app.Topology()
    residue = out.addResidue("MOL", out.addChain())
    for symbol in atoms.symbols:
        out.addAtom(symbol, app.Element.getBySymbol(symbol), residue)
    if atoms.pbc.any():
        out.setPeriodicBoxVectors([mm.Vec3(*row) * unit.angstrom for row in atoms.cell.array])
    return out


def context(atoms: Atoms, force: Any, integrator: Any = None) -> Any:
    system = mm.System()
    for mass in atoms.get_masses():
        system.addParticle(mass)
    if atoms.pbc.any():
        system.setDefaultPeriodicBoxVectors(*[mm.Vec3(*row) * unit.angstrom for row in atoms.cell.array])
    system.addForce(force)
    made = mm.Context(
        system,
        integrator or mm.VerletIntegrator(0.5 * unit.femtosecond),
        mm.Platform.getPlatformByName("Reference"),
    )
    made.setPositions(atoms.positions * unit.angstrom)
    return made


def answer(made: Any) -> tuple[float, np.ndarray]:
    """Energy in eV and forces in eV/A."""
    state = made.getState(energy=True, forces=True)
    energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole) * KJ_PER_MOL
    forces = state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer) * KJ_PER_MOL / NM
    return energy, forces


@pytest.mark.parametrize("name", ["gfn2-xtb", "morse"])
def test_energy_and_forces_are_the_models(name: str, ethanol: Atoms) -> None:
    made = context(ethanol, openmm_force(name, topology(ethanol)))
    expected = load_model(name, ethanol)(ethanol.get_positions())
    energy, forces = answer(made)
    assert energy == pytest.approx(float(expected.energy), rel=1e-9)
    np.testing.assert_allclose(forces, expected.forces, atol=1e-7)


@contextlib.contextmanager
def counted() -> Iterator[list[str]]:
    """The moments of all evaluations."""
    from mlff_sim.interfaces import openmm_force as module

    calls: list[str] = []
    original = module.ModelCall._evaluate
    try:
        module.ModelCall._evaluate = lambda self, *a: calls.append(a[-1]) or original(self, *a)  # type: ignore[method-assign,func-returns-value]
        yield calls
    finally:
        module.ModelCall._evaluate = original  # type: ignore[method-assign]


def test_a_report_costs_no_evaluation(ethanol: Atoms) -> None:
    """50 steps with an energy report after each: 51 evaluations, one for each set of positions."""
    made = context(ethanol, openmm_force("morse", topology(ethanol)))
    with counted() as calls:
        made.setVelocitiesToTemperature(300)
        answer(made)
        for _ in range(50):
            made.getIntegrator().step(1)
            answer(made)
    assert len(calls) == 51


def test_dynamics_is_that_of_the_model(ethanol: Atoms, thermal: Any) -> None:
    """OpenMM's leapfrog on the Reference platform against velocity Verlet: positions agree after 50 steps.

    A leapfrog whose velocities start half a step back, v(-h/2) = v(0) - h a(0) / 2, visits the same positions.
    """
    from mlff_sim.integrators.force_table import ForceTable
    from mlff_sim.integrators.schemes import verlet
    from mlff_sim.integrators.stepper import Stepper

    start, m, h = thermal(), ethanol.get_masses(), 0.5 * FS
    model = load_model("morse", ethanol)
    stepper = Stepper(verlet("f"), h, m, ForceTable({"f": model}), start)
    half = (start.momenta[0] - 0.5 * h * model(start.positions[0]).forces) / m[:, None]
    made = context(ethanol, openmm_force("morse", topology(ethanol)))
    per_ps = half * 1000 * FS / NM  # A per internal time to nm/ps
    made.setVelocities(per_ps)
    for _ in range(50):
        stepper.step()
    made.getIntegrator().step(50)
    x = made.getState(positions=True).getPositions(asNumpy=True).value_in_unit(unit.angstrom)
    assert np.abs(x - ethanol.positions).max() > 0.05
    # The two packages use constants of different CODATA years: forces differ by 1e-8 of themselves.
    np.testing.assert_allclose(x, stepper.state.positions[0], atol=1e-6)


def test_a_part_of_the_atoms(ethanol: Atoms) -> None:
    """The model sees its own atoms only; the others feel nothing of it."""
    both = ethanol + Atoms("ArAr", [[9.0, 0, 0], [0, 9.0, 0]])
    made = context(both, openmm_force("morse", topology(both), atoms=range(9)))
    energy, forces = answer(made)
    expected = load_model("morse", ethanol)(ethanol.get_positions())
    assert energy == pytest.approx(float(expected.energy), abs=1e-9)
    np.testing.assert_allclose(forces[:9], expected.forces, atol=1e-7)
    assert not forces[9:].any()


def test_periodic() -> None:
    """The box is the context's, not the topology's; translated by a lattice vector nothing changes."""
    from test_graph import Pairs

    crystal = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    crystal.rattle(0.1, seed=1)
    made = context(
        crystal, openmm_force(Pairs(), topology(crystal), acceleration="none", dtype="float64", force_group=3)
    )
    energy, forces = answer(made)
    from mlff_sim import MLFFCalculator

    crystal.calc = MLFFCalculator(Pairs(), acceleration="none", dtype="float64")
    assert energy == pytest.approx(crystal.get_potential_energy(), abs=1e-9)
    np.testing.assert_allclose(forces, crystal.get_forces(), atol=1e-8)
    crystal.set_cell(1.01 * crystal.cell.array)
    made.setPeriodicBoxVectors(*[mm.Vec3(*row) * unit.angstrom for row in crystal.cell.array])
    assert answer(made)[0] == pytest.approx(crystal.get_potential_energy(), abs=1e-9)
    crystal.positions[2] += crystal.cell.array[1]
    made.setPositions(crystal.positions * unit.angstrom)
    assert answer(made)[0] == pytest.approx(energy_of(crystal), abs=1e-9)
    assert made.getState(energy=True, groups={0}).getPotentialEnergy()._value == 0.0


def energy_of(atoms: Atoms) -> float:
    return float(atoms.get_potential_energy())


def test_a_system_with_a_model_by_name_can_be_serialised(ethanol: Atoms) -> None:
    made = context(ethanol, openmm_force("gfn2-xtb", topology(ethanol)))
    answer(made)  # with the model built, as after a run
    system = mm.XmlSerializer.deserialize(mm.XmlSerializer.serialize(made.getSystem()))
    again = mm.Context(system, mm.VerletIntegrator(0.001), mm.Platform.getPlatformByName("Reference"))
    moved = ethanol.positions + 0.05 * np.random.default_rng(0).standard_normal(ethanol.positions.shape)
    again.setPositions(moved * unit.angstrom)
    made.setPositions(moved * unit.angstrom)
    assert np.abs(answer(made)[1]).max() > 0.1
    np.testing.assert_allclose(answer(again)[1], answer(made)[1], atol=1e-5)  # SCF from scratch, and from a guess


def test_a_fault_inside_the_model_is_told(ethanol: Atoms, toys: Any) -> None:
    class Faulty:
        def __init__(self, forces: Any) -> None:
            inner = load_model("harmonic", ethanol)
            self.__dict__.update({k: getattr(inner, k) for k in ("name", "numbers")})
            self.cutoff, self.dtype, self.conservative, self.batched = None, "float64", True, False
            self.provenance: dict[str, Any] = {}
            self.forces, self.inner = forces, inner

        def reset(self) -> None: ...

        def __call__(self, x: Any, cell: Any = None, /) -> Any:
            return self.forces(self.inner(x))

    def breaks(e: Any) -> Any:
        raise ValueError("deep inside the model")

    with pytest.raises(mm.OpenMMException, match=r"(?s)failed at step 0.*in breaks.*deep inside the model"):
        answer(context(ethanol, openmm_force(Faulty(breaks), topology(ethanol))))

    def nan(e: Any) -> Any:
        e.forces[5, 2] = np.nan
        return e

    with pytest.raises(mm.OpenMMException, match=r"step 0: the force of atom 5 \(H\) is not a finite number"):
        answer(context(ethanol, openmm_force(Faulty(nan), topology(ethanol))))


def test_a_mistake_that_shows_at_the_first_step_only_is_one_line() -> None:
    far = Atoms("He2", [[0, 0, 0], [9, 0, 0]])
    with pytest.raises(mm.OpenMMException) as told:
        answer(context(far, openmm_force("morse", topology(far))))
    assert str(told.value) == "step 0: the structure has no covalent bonds for a bonded model; use 'lj'."


def test_a_part_of_a_periodic_system_must_say_what_it_is(ethanol: Atoms) -> None:
    box = ethanol.copy()
    box.set_cell([20, 20, 20])
    box.pbc = True
    with pytest.raises(InputError, match="say periodic=False"):
        openmm_force("morse", topology(box), atoms=range(9))
    energy, _ = answer(context(box, openmm_force("morse", topology(box), atoms=range(9), periodic=False)))
    assert energy == pytest.approx(float(load_model("morse", ethanol)(ethanol.get_positions()).energy), abs=1e-9)


def test_mistakes(ethanol: Atoms, student_file: Path) -> None:
    top = topology(ethanol)
    for wrong in ([3, 2], [1, 1], [], [0, 9], [-1, 2]):
        with pytest.raises(InputError, match="ascending indices"):
            openmm_force("morse", top, atoms=wrong)
    for wrong in (["C1"], [0.5, 1]):
        with pytest.raises(InputError, match=r"an index in atoms = .* must be a whole number"):
            openmm_force("morse", top, atoms=wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"of the class Atoms; give an openmm\.app\.Topology"):
        openmm_force("morse", ethanol)
    with pytest.raises(InputError, match="unknown model"):
        openmm_force("nothing", top)
    top.addAtom("M", None, next(top.residues()))
    with pytest.raises(InputError, match=r"atom 9 \(M\) has no element: a virtual site"):
        openmm_force("morse", top)
    with pytest.raises(InputError, match="device 'gpu' is unknown"):
        openmm_force("morse", topology(ethanol), device="gpu")


def test_another_order_of_atoms_is_told_before_the_first_step(ethanol: Atoms, student_file: Path) -> None:
    """The first atom that differs is named, whether the model is bound by its file or by the caller."""
    other = topology(ethanol[[0, 1, 3, 2, 4, 5, 6, 7, 8]])
    for model in (f"student:{student_file}", load_model("morse", ethanol)):
        with pytest.raises(InputError, match="another atom order: its atom 2 is O, the structure's is H") as told:
            openmm_force(model, other)
        assert "\n" not in str(told.value)
    behind = topology(Atoms("Ar") + ethanol[[0, 1, 3, 2, 4, 5, 6, 7, 8]])
    with pytest.raises(InputError, match=r"atom 2 is O.*counted from the model's first, atom 1 of the topology"):
        openmm_force(load_model("morse", ethanol), behind, atoms=range(1, 10))


def test_periodicity_the_model_cannot_see_is_told_before_the_first_step(ethanol: Atoms) -> None:
    """OpenMM's box is periodic along three vectors or none: neither xTB here nor a slab model can be put into it."""
    from test_graph import Pairs

    from mlff_sim.models.graph import GraphProvider

    box = topology(Atoms(ethanol, cell=[20, 20, 20], pbc=True))
    with pytest.raises(InputError, match="for molecules in vacuum"):
        openmm_force("gfn2-xtb", box)
    with pytest.raises(
        InputError, match=r"periodic along \(True, True, False\) and the structure along \(True, True, T"
    ):
        openmm_force(GraphProvider(Pairs(), ethanol.numbers, pbc=(True, True, False)), box)


def test_a_box_smaller_than_the_cutoff_is_no_mistake() -> None:
    """Every image counts: the primitive cell, 4 A wide, has an eighth of the energy of the doubled one."""
    from test_graph import Pairs

    small = bulk("NaCl", "rocksalt", a=5.64)
    settings: dict[str, Any] = {"acceleration": "none", "dtype": "float64"}
    energies = []
    for crystal in (small, small * (2, 2, 2)):
        cell, rotation = crystal.cell.standard_form()  # OpenMM wants a lower triangle
        turned = Atoms(crystal.numbers, crystal.positions @ rotation.T, cell=cell, pbc=True)
        energies.append(answer(context(turned, openmm_force(Pairs(5.5), topology(turned), **settings)))[0])
    assert abs(energies[0]) > 0.1 and 8 * energies[0] == pytest.approx(energies[1], rel=1e-10)


def test_what_a_system_may_not_hold_inside_the_region(ethanol: Atoms) -> None:
    """Constraints between atoms of the model and virtual sites among them; between or outside of others they may be."""
    top, system = topology(ethanol + Atoms("Ar")), mm.System()
    for _ in range(10):
        system.addParticle(1.0)
    system.addConstraint(8, 9, 0.2)
    openmm_force("morse", top, atoms=range(9), system=system)
    system.addConstraint(2, 8, 0.0972)
    with pytest.raises(InputError, match=r"atoms 2 \(O\) and 8 \(H\) of the model are held at 0.972 A by a constraint"):
        openmm_force("morse", top, atoms=range(9), system=system)
    system.removeConstraint(1)
    system.setParticleMass(7, 0.0)
    system.setVirtualSite(7, mm.TwoParticleAverageSite(0, 1, 0.5, 0.5))
    with pytest.raises(InputError, match=r"atom 7 \(H\) is a virtual site"):
        openmm_force("morse", top, atoms=range(9), system=system)
    openmm_force("lj", top, atoms=range(7), system=system)
    with pytest.raises(InputError, match="the System has 10 particles and the topology 9 atoms"):
        openmm_force("morse", topology(ethanol), system=system)


def test_a_barostat_costs_one_evaluation_for_each_attempt() -> None:
    """Each step has one new set of positions, each attempt one more, be it accepted or not."""
    from test_graph import Pairs

    crystal = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    force = openmm_force(Pairs(), topology(crystal), acceleration="none", dtype="float64")
    system = mm.System()
    for mass in crystal.get_masses():
        system.addParticle(mass)
    system.setDefaultPeriodicBoxVectors(*[mm.Vec3(*row) * unit.angstrom for row in crystal.cell.array])
    system.addForce(force)
    barostat = mm.MonteCarloBarostat(1 * unit.bar, 300 * unit.kelvin, 2)
    barostat.setRandomNumberSeed(1)
    system.addForce(barostat)
    made = mm.Context(system, mm.VerletIntegrator(0.001), mm.Platform.getPlatformByName("Reference"))
    made.setPositions(crystal.positions * unit.angstrom)
    volumes = set()
    with counted() as calls:
        made.setVelocitiesToTemperature(300, 1)
        for _ in range(20):
            made.getIntegrator().step(2)
            volumes.add(made.getState(energy=True).getPeriodicBoxVolume()._value)
    accepted = len(volumes) - 1
    assert 0 < accepted < 19, "some attempts are accepted and some refused"
    # 40 steps, 20 attempts and 20 reports; the last report sees positions no step has evaluated, the others' are reused.
    assert len(calls) == 40 + 20 + 1
