"""What OpenMM's own reporters write is read back as its own State had it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlff_sim.trajectory import ReadOptions, read_files
from mlff_sim.units import KJ_PER_MOL, NM, PS
from mlff_sim.validation import Verdict, assess

openmm = pytest.importorskip("openmm")
from openmm import app, unit  # noqa: E402

ATOMS, FRAMES, EVERY, STEP_PS = 27, 30, 2, 0.0005


@pytest.fixture(scope="module", params=[False, True], ids=["molecule", "box"])
def recorded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Carbons and hydrogens on springs, and what the Context said at each report."""
    folder, periodic = tmp_path_factory.mktemp("openmm"), request.param
    system, topology = openmm.System(), app.Topology()
    residue = topology.addResidue("UNK", topology.addChain())
    places = 0.2 * np.stack(np.meshgrid(*[np.arange(3)] * 3, indexing="ij"), -1).reshape(-1, 3) + 0.3
    force = openmm.CustomExternalForce("2000*((x-x0)^2+(y-y0)^2+(z-z0)^2)")
    for name in ("x0", "y0", "z0"):
        force.addPerParticleParameter(name)
    for i, place in enumerate(places):
        element = app.Element.getBySymbol("CH"[i % 2])
        topology.addAtom(f"{element.symbol}{i}", element, residue)
        system.addParticle(element.mass)
        force.addParticle(i, place)
    system.addForce(force)
    if periodic:
        vectors = [openmm.Vec3(2.0, 0, 0), openmm.Vec3(0.3, 1.8, 0), openmm.Vec3(-0.2, 0.4, 1.9)]
        topology.setPeriodicBoxVectors(vectors * unit.nanometer)
        system.setDefaultPeriodicBoxVectors(*vectors)
    integrator = openmm.LangevinMiddleIntegrator(300.0, 1.0, STEP_PS)
    integrator.setRandomNumberSeed(1)
    simulation = app.Simulation(topology, system, integrator, openmm.Platform.getPlatformByName("Reference"))
    simulation.context.setPositions(places)
    simulation.context.setVelocitiesToTemperature(300.0, 1)
    with (folder / "top.pdb").open("w") as file:
        app.PDBFile.writeFile(topology, 10.0 * places * unit.angstrom, file)
    simulation.reporters += [
        app.DCDReporter(str(folder / "a.dcd"), EVERY),
        app.XTCReporter(str(folder / "a.xtc"), EVERY),
        app.StateDataReporter(
            str(folder / "state.csv"),
            1,
            step=True,
            time=True,
            potentialEnergy=True,
            kineticEnergy=True,
            temperature=True,
        ),
    ]
    states = []
    for _ in range(FRAMES):
        simulation.step(EVERY)
        states.append(simulation.context.getState(positions=True, velocities=True, energy=True))
    return folder, {
        "positions": np.array([s.getPositions(asNumpy=True)._value for s in states]) * NM,
        "velocities": np.array([s.getVelocities(asNumpy=True)._value for s in states]) * NM / PS,
        "time": np.array([s.getTime()._value for s in states]),
        "total": np.array([(s.getPotentialEnergy() + s.getKineticEnergy())._value for s in states]) * KJ_PER_MOL,
        "cells": np.array([s.getPeriodicBoxVectors(asNumpy=True)._value for s in states]) * NM if periodic else None,
    }


@pytest.mark.parametrize(("name", "rounding"), [("a.dcd", 1e-6), ("a.xtc", 0.0051)])
def test_reporters_are_read(name: str, rounding: float, recorded: tuple[Path, dict[str, Any]]) -> None:
    """DCD in single precision, XTC in thousandths of a nm; a table with twice as many rows as there are frames."""
    folder, truth = recorded
    run = read_files([folder / name, folder / "top.pdb", folder / "state.csv"])
    assert run.settings["notes"] == []
    assert run.positions.shape == (FRAMES, 1, ATOMS, 3)
    np.testing.assert_allclose(run.positions[:, 0], truth["positions"], atol=rounding)
    np.testing.assert_allclose(run.time_ps, truth["time"], rtol=1e-12)
    assert run.conserved is not None
    np.testing.assert_allclose(run.conserved[:, 0], truth["total"], rtol=1e-12)
    if truth["cells"] is None:
        assert run.cells is None
    else:
        assert run.cells is not None
        np.testing.assert_allclose(run.cells[:, 0], truth["cells"], atol=2e-5)


def test_the_header_of_a_dcd_knows_the_time(recorded: tuple[Path, dict[str, Any]]) -> None:
    folder, truth = recorded
    run = read_files([folder / "a.dcd", folder / "top.pdb"])
    np.testing.assert_allclose(run.time_ps, truth["time"], rtol=1e-6)


def test_mdtraj_writes_hdf5(recorded: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    """MDTraj's own writer, where PyTables is installed."""
    pytest.importorskip("tables")
    import mdtraj
    from mdtraj.formats import HDF5TrajectoryFile

    folder, truth = recorded
    with HDF5TrajectoryFile(str(tmp_path / "a.h5"), "w") as file:
        file.topology = mdtraj.load_topology(str(folder / "top.pdb"))
        file.write(
            truth["positions"] / NM,
            time=truth["time"],
            velocities=truth["velocities"] * PS / NM,
            potentialEnergy=truth["total"] / KJ_PER_MOL,
            kineticEnergy=0.0 * truth["total"] + 1.0,
        )
    run = read_files([tmp_path / "a.h5"], ReadOptions(ensemble="nve"))
    np.testing.assert_allclose(run.positions[:, 0], truth["positions"], atol=1e-6)
    assert run.momenta is not None
    masses = np.array(run.settings["structure"]["masses"])[:, None]
    np.testing.assert_allclose(run.momenta[:, 0] / masses, truth["velocities"], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(run.potential_energy[:, 0], truth["total"], rtol=1e-6)  # type: ignore[index]
    # Velocities of the middle scheme are half a step late, w h / 2 = 0.02 of a radian for hydrogens at these springs.
    assert assess([run]).runs[0].parts["spacing"] is Verdict.PASS
