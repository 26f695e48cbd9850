"""The TorchForce backend: the answers of PythonForce, without Python, and a System that can be written and read."""

from __future__ import annotations

import builtins
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from mlff_sim import openmm_force, read_structure
from mlff_sim.errors import InputError, MissingExtra
from mlff_sim.models.registry import load_model
from mlff_sim.units import KJ_PER_MOL, NM

mm = pytest.importorskip("openmm")
torch = pytest.importorskip("torch")
pytest.importorskip("openmmtorch", exc_type=ImportError)

from test_graph import Pairs  # noqa: E402
from test_mace import mace_file  # noqa: E402, F401  (a fixture)
from test_openmm import answer, topology, unit  # noqa: E402

from mlff_sim.interfaces.torch_force import load_openmmtorch  # noqa: E402

PLATFORMS = ["Reference", "CPU"]


def context(atoms: Atoms, force: Any, platform: str = "Reference") -> Any:
    system = mm.System()
    for mass in atoms.get_masses():
        system.addParticle(mass)
    if atoms.pbc.any():
        system.setDefaultPeriodicBoxVectors(*vectors(atoms))
    system.addForce(force)
    return started(system, atoms, platform)


def started(system: Any, atoms: Atoms, platform: str = "Reference") -> Any:
    made = mm.Context(system, mm.VerletIntegrator(0.0005), mm.Platform.getPlatformByName(platform))
    made.setPositions(atoms.positions * unit.angstrom)
    return made


def vectors(atoms: Atoms) -> list[Any]:
    return [mm.Vec3(*row) * unit.angstrom for row in atoms.cell.array]


def same(a: Any, b: Any, rel: float) -> None:
    """Energies and forces, relative to the largest component; a comparison of zeros would say nothing."""
    (e, f), (energy, forces) = answer(a), answer(b)
    assert e == pytest.approx(energy, rel=rel)
    assert np.abs(f - forces).max() < rel * np.abs(forces).max() and np.abs(forces).max() > 1e-3


@pytest.fixture
def crystal() -> Atoms:
    """Narrower than two cutoffs, with vectors in OpenMM's lower triangular form."""
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    atoms.set_cell([[5.64, 0, 0], [0.5, 5.64, 0], [-0.7, 0.3, 5.64]], scale_atoms=True)
    atoms.rattle(0.1, seed=2)
    return atoms


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_network_in_float64_is_that_of_python_force(platform: str, ethanol: Atoms, crystal: Atoms) -> None:
    """To 1e-6 of the largest force, at other numbers of edges and in other boxes; measured: 1e-13."""
    for atoms in (ethanol, crystal):
        ours, theirs = (
            context(
                atoms,
                openmm_force(Pairs(), topology(atoms), backend=b, acceleration="none", dtype="float64", force_group=3),
                platform,
            )
            for b in ("torchforce", "python")
        )
        for scale in (1.0, 1.3, 0.9, 1.0):
            scaled = atoms.copy()
            scaled.set_cell(scale * atoms.cell.array)
            scaled.positions = scale * atoms.positions + [0.0, 0.0, 20.0]
            for made in (ours, theirs):
                if atoms.pbc.any():
                    made.setPeriodicBoxVectors(*vectors(scaled))
                made.setPositions(scaled.positions * unit.angstrom)
            same(ours, theirs, 1e-6)
        force = ours.getSystem().getForce(0)
        assert force.usesPeriodicBoundaryConditions() == bool(atoms.pbc.any())
        assert force.getName() == "mlff-sim" and ours.getState(energy=True, groups={0}).getPotentialEnergy()._value == 0


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_student_in_float32(platform: str, student_file: Path, ethanol: Atoms) -> None:
    """The network's own forces, not autograd's, which round otherwise: by 1.3e-6 for the shipped student of aspirin."""
    for atoms, model in ((ethanol, f"student:{student_file}"), (read_structure("aspirin"), "student:aspirin-gfn2")):
        top = topology(atoms)
        same(
            context(atoms, openmm_force(model, top, backend="torchforce"), platform),
            context(atoms, openmm_force(model, top, acceleration="none"), platform),
            1e-6,
        )


@pytest.mark.filterwarnings("ignore")  # e3nn and MACE warn on import and on loading
def test_mace(mace_file: Path, ethanol: Atoms) -> None:  # noqa: F811
    name, top = f"mace:{mace_file}", topology(ethanol)
    ours, theirs = (
        context(ethanol, openmm_force(name, top, backend=b, acceleration="none", dtype="float64"), "CPU")
        for b in ("torchforce", "python")
    )
    same(ours, theirs, 1e-6)


def test_a_part_of_the_atoms_in_a_system_read_from_xml(student_file: Path, ethanol: Atoms) -> None:
    """The model's atoms are picked inside, also after XML; the others feel nothing.

    Two modules with the same weights differ in nothing but the order in which TorchScript fuses their sums.
    """
    both = Atoms("Ar", [[9.0, 0, 0]]) + ethanol + Atoms("Ar", [[0, 9.0, 0]])
    force = openmm_force(f"student:{student_file}", topology(both), atoms=range(1, 10), backend="torchforce")
    made = context(both, force)
    again = started(mm.XmlSerializer.deserialize(mm.XmlSerializer.serialize(made.getSystem())), both)
    expected = load_model(f"student:{student_file}", ethanol)(ethanol.positions)
    for one in (made, again):
        energy, forces = answer(one)
        assert energy == pytest.approx(float(expected.energy), abs=1e-5)
        np.testing.assert_allclose(forces[1:10], expected.forces, atol=1e-4)
        assert not forces[[0, 10]].any()
    moved = both.positions + 0.05 * np.random.default_rng(0).standard_normal(both.positions.shape)
    for one in (made, again):
        one.setPositions(moved * unit.angstrom)
    np.testing.assert_allclose(answer(again)[1], answer(made)[1], atol=1e-5)


def test_xml_keeps_a_periodic_force(crystal: Atoms) -> None:
    made = context(crystal, openmm_force(Pairs(), topology(crystal), backend="torchforce", dtype="float64"))
    again = started(mm.XmlSerializer.deserialize(mm.XmlSerializer.serialize(made.getSystem())), crystal)
    same(again, made, 1e-12)


def test_dynamics_keeps_its_energy(ethanol: Atoms) -> None:
    """Verlet's energy error is of second order in the step: halved, it is a quarter of it (no force is missing)."""
    errors = []
    for steps, fs in ((20, 0.5), (40, 0.25)):
        system = mm.System()
        for mass in ethanol.get_masses():
            system.addParticle(mass)
        system.addForce(openmm_force(Pairs(), topology(ethanol), backend="torchforce", dtype="float64"))
        made = mm.Context(system, mm.VerletIntegrator(fs * 1e-3), mm.Platform.getPlatformByName("Reference"))
        made.setPositions(ethanol.positions * unit.angstrom)
        made.setVelocities(np.zeros((9, 3)))
        energies = []
        for _ in range(steps):
            state = made.getState(energy=True)
            energies.append((state.getPotentialEnergy() + state.getKineticEnergy())._value)
            made.getIntegrator().step(1)
        errors.append(np.abs(np.array(energies) - energies[0]).max())
    assert 3 < errors[0] / errors[1] < 5 and errors[0] > 1e-9


def in_a_process_of_its_own(code: str, folder: Path) -> None:
    """Run a script from a file, whose source TorchScript reads, and hold it to silence."""
    (folder / "script.py").write_text(textwrap.dedent(code))
    done = subprocess.run([sys.executable, folder / "script.py"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_openmm_may_be_imported_before_torch(tmp_path: Path) -> None:
    """Its plug-in for torch fails to load then, for want of torch's libraries; it is loaded again, and says nothing."""
    in_a_process_of_its_own(
        """
        import openmm
        assert any("TorchReference" in f for f in openmm.Platform.getPluginLoadFailures())
        from mlff_sim.interfaces.torch_force import load_openmmtorch
        import torch
        class Half(torch.nn.Module):
            def forward(self, positions):
                return 0.5 * (positions ** 2).sum()
        force = load_openmmtorch().TorchForce(torch.jit.script(Half()))
        system = openmm.System()
        system.addParticle(1.0)
        system.addForce(force)
        c = openmm.Context(system, openmm.VerletIntegrator(1e-3), openmm.Platform.getPlatformByName("CPU"))
        c.setPositions([[0, 0, 2.0]])
        assert c.getState(energy=True).getPotentialEnergy()._value == 2.0
        """,
        tmp_path,
    )


def test_xml_is_read_in_another_process(student_file: Path, ethanol: Atoms, tmp_path: Path) -> None:
    """With forces of OpenMM before and after it, whose order stays; groups and periodicity stay too."""
    system = mm.System()
    for mass in ethanol.get_masses():
        system.addParticle(mass)
    bonds = mm.HarmonicBondForce()
    bonds.addBond(0, 1, 0.1, 1000.0)
    system.addForce(bonds)
    name = f"student:{student_file}"
    system.addForce(openmm_force(name, topology(ethanol), backend="torchforce", force_group=5))
    system.addForce(mm.CMMotionRemover())
    energy = answer(started(system, ethanol))[0]
    (tmp_path / "system.xml").write_text(mm.XmlSerializer.serialize(system))
    np.save(tmp_path / "x.npy", ethanol.positions / NM)
    in_a_process_of_its_own(
        f"""
        import copy, pathlib, numpy, openmm
        from mlff_sim.interfaces.torch_force import load_openmmtorch
        load_openmmtorch()
        folder = pathlib.Path({str(tmp_path)!r})
        system = openmm.XmlSerializer.deserialize((folder / "system.xml").read_text())
        for one in (system, copy.deepcopy(system)):
            kinds = [f.getForceGroup() for f in one.getForces()], len(one.getForces())
            assert kinds == ([0, 5, 0], 3), kinds
            assert isinstance(one.getForce(0), openmm.HarmonicBondForce)
            c = openmm.Context(one, openmm.VerletIntegrator(1e-3), openmm.Platform.getPlatformByName("CPU"))
            c.setPositions(numpy.load(folder / "x.npy"))
            e = c.getState(energy=True).getPotentialEnergy()._value
            assert abs(e - {energy / KJ_PER_MOL}) < 1e-3, e
        """,
        tmp_path,
    )


@pytest.fixture
def unimportable(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Make `import openmmtorch` fail."""
    original = builtins.__import__

    def fail_with(error: Exception) -> None:
        def fails(name: str, *arguments: Any, **settings: Any) -> Any:
            if name == "openmmtorch":
                raise error
            return original(name, *arguments, **settings)

        load_openmmtorch.cache_clear()
        monkeypatch.setattr(builtins, "__import__", fails)

    yield fail_with
    load_openmmtorch.cache_clear()


def test_openmmtorch_that_does_not_fit(unimportable: Any, ethanol: Atoms) -> None:
    unimportable(ImportError("libOpenMMTorch.so: undefined symbol: _ZN3c105ErrorC2ENS_14SourceLocationE"))
    with pytest.raises(InputError, match="undefined symbol: _ZN3c") as caught:
        openmm_force(Pairs(), topology(ethanol), backend="torchforce")
    said = str(caught.value)
    assert f"torch {torch.__version__.split('+')[0]}" in said and f"openmm {mm.__version__}" in said
    assert "what fits: openmm==" in said and "torch==2.9.*" in said and "pip install 'mlff-sim[torchforce]'" in said
    assert "\n" not in said


def test_openmmtorch_that_is_not_there(unimportable: Any, ethanol: Atoms) -> None:
    unimportable(ModuleNotFoundError("No module named 'openmmtorch'", name="openmmtorch"))
    with pytest.raises(MissingExtra, match=r"pip install 'mlff-sim\[torchforce\]'"):
        openmm_force(Pairs(), topology(ethanol), backend="torchforce")


def test_derivatives_that_freezing_would_change_are_refused(ethanol: Atoms) -> None:
    """openmm-torch freezes its module and torch then drops every detach: the slope of this energy would be lost."""

    class ByHand(Pairs):
        def forward(self, positions: Any, *others: Any) -> Any:
            still = positions.detach()
            return super().forward(still, *others) + ((positions - still) * torch.tanh(still)).sum(1)

    with pytest.raises(InputError, match=r"rely on detach\(\)"):
        openmm_force(ByHand(), topology(ethanol), backend="torchforce")
    openmm_force(ByHand(), topology(ethanol), backend="python")


def test_interpolation_would_crash_and_is_refused(ethanol: Atoms) -> None:
    """openmm-ml puts the force into a CustomCVForce, which OpenMM clones by its own XML."""
    potential = pytest.importorskip("openmmml").MLPotential("mlff-sim", model=Pairs(), backend="torchforce")
    system = mm.System()
    for mass in ethanol.get_masses():
        system.addParticle(mass)
    potential.createMixedSystem(topology(ethanol), system, range(9))
    with pytest.raises(
        InputError, match=r"crashes when it copies a TorchForce of openmmtorch 1\.5; use backend='python'"
    ):
        potential.createMixedSystem(topology(ethanol), system, range(9), interpolate=True)


def test_mistakes(ethanol: Atoms, student_file: Path) -> None:
    with pytest.raises(InputError, match="backend 'torch' is unknown; use 'auto', 'python' or 'torchforce'"):
        openmm_force("morse", topology(ethanol), backend="torch")
    with pytest.raises(InputError, match="'morse' cannot be exported: TorchScript holds torch models only"):
        openmm_force("morse", topology(ethanol), backend="torchforce")
    with pytest.raises(InputError, match="another atom order"):
        openmm_force(f"student:{student_file}", topology(ethanol[::-1]), backend="torchforce")
    force = openmm_force(f"student:{student_file}", topology(ethanol), backend="torchforce")
    with pytest.raises(mm.OpenMMException, match="this model is for 9 atoms and was given 10"):
        answer(context(ethanol + Atoms("Ar", [[9.0, 0, 0]]), force))
