"""The potential "mlff-sim" of openmm-ml: whole systems, ML/MM systems and the way between, against what they are made of."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from test_graph import Pairs
from test_openmm import answer, topology

from mlff_sim import openmm_force
from mlff_sim.errors import InputError
from mlff_sim.models.registry import load_model
from mlff_sim.structure import covalent_bonds
from mlff_sim.units import KJ_PER_MOL

mm, unit = pytest.importorskip("openmm"), pytest.importorskip("openmm.unit")
MLPotential = pytest.importorskip("openmmml").MLPotential

EXACT: dict[str, Any] = {"acceleration": "none", "dtype": "float64"}
WATER = Atoms("OH2", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
REGION = range(6, 15)
"""The atoms of ethanol, behind two waters."""


@pytest.fixture
def solution(ethanol: Atoms) -> Atoms:
    """Two waters, then ethanol, which is at its minimum; the waters are within the cutoff of a pair force field."""
    atoms = Atoms()
    for place in ([3.6, 0.3, 0.2], [-3.5, 0.5, 1.0]):
        one = WATER.copy()
        one.translate(ethanol.get_center_of_mass() + place)
        atoms += one
    return atoms + ethanol


def bonded_topology(atoms: Atoms) -> Any:
    top = topology(atoms)
    everything = list(top.atoms())
    for i, j in covalent_bonds(atoms):
        top.addBond(everything[i], everything[j])
    return top


def conventional(atoms: Atoms, constraints: bool = False) -> Any:
    """A force field made up for the purpose: harmonic bonds, angles, charges and Lennard-Jones; rigid O-H bonds if asked."""
    system, bonds = mm.System(), [tuple(map(int, b)) for b in covalent_bonds(atoms)]
    stretch, charges = mm.HarmonicBondForce(), mm.NonbondedForce()
    for symbol, mass in zip(atoms.symbols, atoms.get_masses(), strict=True):
        system.addParticle(mass)
        charges.addParticle({"O": -0.6, "C": -0.1, "H": 0.15}[symbol], 0.3 if symbol != "H" else 0.1, 0.4)
    for i, j in bonds:
        if constraints and "O" in atoms.symbols[[i, j]]:
            system.addConstraint(i, j, 0.097)
        stretch.addBond(i, j, 0.11, 3e5)
    charges.createExceptionsFromBonds(bonds, 0.8, 0.5)
    if atoms.pbc.any():
        system.setDefaultPeriodicBoxVectors(*[mm.Vec3(*row) * unit.angstrom for row in atoms.cell.array])
        charges.setNonbondedMethod(mm.NonbondedForce.CutoffPeriodic)
        charges.setCutoffDistance(0.9)
    system.addForce(stretch)
    system.addForce(charges)
    return system


def started(system: Any, atoms: Atoms) -> Any:
    made = mm.Context(system, mm.VerletIntegrator(5e-4), mm.Platform.getPlatformByName("Reference"))
    extra = np.zeros((system.getNumParticles() - len(atoms), 3))  # link atoms, placed by OpenMM
    made.setPositions(np.vstack([atoms.positions, extra]) * unit.angstrom)
    made.computeVirtualSites()
    return made


def energy(system: Any, atoms: Atoms) -> float:
    return answer(started(system, atoms))[0]


def check_forces(made: Any, atoms: Atoms) -> None:
    """Along a random direction: -F.u against the central difference of the energy, error h^2 times a third derivative."""
    forces = answer(made)[1][: len(atoms)]
    x, u, h = atoms.get_positions(), np.random.default_rng(5).standard_normal((len(atoms), 3)), 1e-4
    extra = np.zeros((made.getSystem().getNumParticles() - len(atoms), 3))
    ends = []
    for sign in (1, -1):
        made.setPositions(np.vstack([x + sign * h * u, extra]) * unit.angstrom)
        made.computeVirtualSites()
        ends.append(answer(made)[0])
    slope = float((forces * u).sum())
    assert abs(slope) > 0.1 and (ends[1] - ends[0]) / (2 * h) == pytest.approx(slope, abs=2e-4)


@pytest.mark.parametrize("first", ["openmmml", "mlff_sim.interfaces.openmm_ml"])
def test_openmm_ml_finds_it_and_loads_nothing_heavy_for_it(first: str) -> None:
    """openmm-ml imports every potential there is; either package may be what is imported first."""
    code = f"import sys, {first}, openmmml; print('mlff-sim' in openmmml.MLPotential._implFactories, *sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found, *loaded = done.stdout.split()
    assert found == "True" and not {"torch", "ase", "mace"} & set(loaded)


def test_a_whole_system_is_the_force_alone(ethanol: Atoms) -> None:
    top, moved = topology(ethanol), ethanol.copy()
    moved.rattle(0.05, seed=1)
    for model in (Pairs(), load_model("morse", ethanol), "gfn2-xtb"):
        alone = mm.System()
        for mass in ethanol.get_masses():
            alone.addParticle(mass)
        alone.addForce(openmm_force(model, top, **EXACT))
        made = started(MLPotential("mlff-sim", model=model, **EXACT).createSystem(top), moved)
        (e0, f0), (e1, f1) = answer(started(alone, moved)), answer(made)
        assert abs(f0).max() > 0.01 and e1 == pytest.approx(e0, rel=1e-12)
        np.testing.assert_allclose(f1, f0, atol=1e-5)  # an SCF from scratch, and from the other's rounding


def test_mixed_is_the_model_inside_and_the_force_field_everywhere_else(solution: Atoms, ethanol: Atoms) -> None:
    """E = E_model(region) + E_MM(all) - E_MM(region alone), exactly, without a box; constraints of the region are gone."""
    mechanics = conventional(solution, constraints=True)
    potential = MLPotential("mlff-sim", model=Pairs(), **EXACT)
    mixed = potential.createMixedSystem(bonded_topology(solution), mechanics, REGION, forceGroup=3)
    made = started(mixed, solution)
    model = energy(potential.createSystem(topology(ethanol)), ethanol)
    rest = energy(mechanics, solution) - energy(conventional(ethanol), ethanol)
    assert abs(model) > 0.01 and abs(rest) > 0.01
    assert answer(made)[0] == pytest.approx(model + rest, abs=1e-9)
    assert made.getState(energy=True, groups={3}).getPotentialEnergy()._value * KJ_PER_MOL == pytest.approx(model)
    check_forces(made, solution)
    left = [mixed.getConstraintParameters(k)[:2] for k in range(mixed.getNumConstraints())]
    assert left == [[0, 1], [0, 2], [3, 4], [3, 5]] and mechanics.getNumConstraints() == 6


def test_interpolation_goes_from_the_force_field_to_the_mixed_system(solution: Atoms) -> None:
    """E(l) = (1 - l) E_MM + l E_mixed, and so do the forces."""
    mechanics, top = conventional(solution), bonded_topology(solution)
    potential = MLPotential("mlff-sim", model=Pairs(), **EXACT)
    mixed = energy(potential.createMixedSystem(top, mechanics, REGION), solution)
    made = started(potential.createMixedSystem(top, mechanics, REGION, interpolate=True), solution)
    assert answer(made)[0] == pytest.approx(mixed, abs=1e-9)
    pure = energy(mechanics, solution)
    for share in (0.0, 1.0, 0.3):
        made.setParameter("lambda_interpolate", share)
        assert answer(made)[0] == pytest.approx((1 - share) * pure + share * mixed, abs=1e-9)
    assert abs(pure - mixed) > 0.1
    check_forces(made, solution)


def test_a_bond_across_the_border_is_closed_by_a_hydrogen_of_the_model(ethanol: Atoms) -> None:
    """openmm-ml's link atom, a virtual site, is one of the model's atoms; the force on it reaches the two it hangs on."""
    methyl = [i for i in range(9) if i == 0 or (0, i) in {tuple(sorted(b)) for b in covalent_bonds(ethanol)}]
    methyl.remove(1)
    assert ethanol[methyl].get_chemical_formula() == "CH3"
    potential = MLPotential("mlff-sim", model=Pairs(), **EXACT)
    mixed = potential.createMixedSystem(bonded_topology(ethanol), conventional(ethanol), methyl)
    made = started(mixed, ethanol)
    assert mixed.getNumParticles() == 10 and mixed.isVirtualSite(9)
    check_forces(made, ethanol)


def test_in_a_box_the_model_sees_images_and_atoms_may_be_anywhere(solution: Atoms) -> None:
    """An atom of the region moved by a lattice vector, away from its molecule, changes nothing."""
    solution.set_cell([20, 21, 22])
    solution.pbc = True
    potential = MLPotential("mlff-sim", model=Pairs(), **EXACT)
    mixed = potential.createMixedSystem(bonded_topology(solution), conventional(solution), REGION)
    before = energy(mixed, solution)
    solution.positions[8] += solution.cell.array[1]
    assert energy(mixed, solution) == pytest.approx(before, abs=1e-9)
    apart = potential.createMixedSystem(bonded_topology(solution), conventional(solution), REGION, periodic=False)
    assert abs(energy(apart, solution) - before) > 0.01


def test_in_a_box_a_model_for_molecules_sees_the_molecule(solution: Atoms, ethanol: Atoms) -> None:
    solution.set_cell([20, 21, 22])
    solution.pbc = True
    top, mechanics = bonded_topology(solution), conventional(solution)
    for model in ("gfn2-xtb", load_model("morse", ethanol)):
        mixed = MLPotential("mlff-sim", model=model).createMixedSystem(top, mechanics, REGION, forceGroup=1)
        made = started(mixed, solution)
        found = made.getState(energy=True, groups={1}).getPotentialEnergy()._value * KJ_PER_MOL
        expected = (load_model(model, ethanol) if isinstance(model, str) else model)(ethanol.positions).energy
        assert found == pytest.approx(float(expected), abs=1e-7)


def test_only_the_user_can_tell_whether_an_ase_calculator_has_an_ewald_sum(solution: Atoms) -> None:
    potential = MLPotential("mlff-sim", model="ase:ase.calculators.emt:EMT")
    assert potential._impl.getMLLongRange() is None
    solution.set_cell([20, 21, 22])
    solution.pbc = True
    with pytest.raises(ValueError, match="provide the mlLongRange option"):
        potential.createMixedSystem(bonded_topology(solution), conventional(solution), REGION)
    potential.createMixedSystem(bonded_topology(solution), conventional(solution), REGION, mlLongRange=False)


def test_charge_and_spin_reach_the_model_and_can_be_given_late(ethanol: Atoms) -> None:
    cation = ethanol.copy()
    cation.info.update(charge=1, spin=2)
    expected = float(load_model("gfn2-xtb", cation)(ethanol.get_positions()).energy)
    top = topology(ethanol)
    early = MLPotential("mlff-sim", model="gfn2-xtb", charge=1, spin=2).createSystem(top)
    late = MLPotential("mlff-sim", model="gfn2-xtb").createSystem(top, charge=1, spin=2)
    for system in (early, late):
        assert energy(system, ethanol) == pytest.approx(expected, abs=1e-7)


class Nameless(Pairs):
    """A module with something in it that cannot be pickled."""

    def __init__(self) -> None:
        super().__init__()
        self.hook = lambda energy: energy


class Broken(Pairs):
    """A model that says NaN where its atoms 0 and 5 are more than 4 A apart; at the minimum of ethanol they are not."""

    def forward(self, positions: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        energies: torch.Tensor = super().forward(positions, *rest)
        return energies if (positions[5] - positions[0]).norm() < 4.0 else energies + (positions[5] * torch.nan).sum()


@pytest.mark.parametrize("interpolate", [False, True])
def test_an_atom_without_a_force_is_named_as_in_the_topology(solution: Atoms, interpolate: bool) -> None:
    """Sixth of the region is number 11 of all; inside openmm-ml's interpolation OpenMM counts no steps, but tells the time."""
    potential = MLPotential("mlff-sim", model=Broken(), **EXACT)
    mixed = potential.createMixedSystem(
        bonded_topology(solution), conventional(solution), REGION, interpolate=interpolate
    )
    made = started(mixed, solution)
    made.getIntegrator().step(2)
    solution.positions[11] += [0, 0, 9.0]
    made.setPositions(solution.positions * unit.angstrom)
    when = "time 0.001 ps" if interpolate else "step 2"
    with pytest.raises(mm.OpenMMException, match=rf"^{when}: the force of atom 11 \(H\) is not a finite number"):
        made.getState(energy=True)
    solution.positions[12, 1] = np.nan
    made.setPositions(solution.positions * unit.angstrom)
    with pytest.raises(mm.OpenMMException, match=rf"^{when}: the position of atom 12 \(H\) is not a finite number"):
        made.getState(energy=True)


def test_mistakes(ethanol: Atoms, solution: Atoms, student_file: Any) -> None:
    """Each is one line, and told before a step is done."""
    top = topology(ethanol)
    wrong = [
        (r"which model\?", lambda: MLPotential("mlff-sim")),
        ("unknown model 'nothing'", lambda: MLPotential("mlff-sim", model="nothing")),
        ("speed is no setting.*acceleration, .*spin", lambda: MLPotential("mlff-sim", model="morse", speed=2)),
        ("given to MLPotential itself", lambda: MLPotential("mlff-sim", model="lj").createSystem(top, model="morse")),
        ("precision is no", lambda: MLPotential("mlff-sim", model="morse").createSystem(top, precision="single")),
        (
            "in another atom order: its atom 0 is C, the structure's is H",
            lambda: MLPotential("mlff-sim", model=f"student:{student_file}").createSystem(topology(ethanol[::-1])),
        ),
        (
            "ascending indices",
            lambda: MLPotential("mlff-sim", model=Pairs()).createMixedSystem(
                bonded_topology(solution), conventional(solution), list(reversed(REGION))
            ),
        ),
        (
            r"interpolate=True makes OpenMM copy the model, and this Nameless cannot be pickled \(.*give it by name",
            lambda: MLPotential("mlff-sim", model=Nameless()).createMixedSystem(
                bonded_topology(solution), conventional(solution), REGION, interpolate=True
            ),
        ),
    ]
    for words, mistake in wrong:
        with pytest.raises(InputError, match=words) as told:
            mistake()
        assert "\n" not in str(told.value)
