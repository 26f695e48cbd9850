"""Each format, written from one known run, is read back to within the format's own rounding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from files import KJ, PS, WRITERS, Truth, springs, write_all

from mlff_sim.trajectory import read_files

SINGLE = 2.0**-24
"""Largest relative error of rounding to single precision."""
EPS = 2.0**-50


@pytest.fixture(scope="module", params=[None, 30.0], ids=["molecule", "box"])
def truth(request: pytest.FixtureRequest) -> Truth:
    return springs(cell=None if request.param is None else np.diag([request.param, 1.1 * request.param, 28.0]))


def rounding(name: str, truth: Truth) -> dict[str, float]:
    """Largest error of positions (A), momenta, time (ps) and energy (eV) that writing may have caused."""
    x, t = np.abs(truth.positions).max(), truth.time_ps.max()
    m, v = truth.atoms.get_masses().max(), np.abs(truth.velocities).max()
    e = np.abs(truth.potential).max()
    return {
        "run.traj": {"x": 0.0, "p": 0.0, "t": 0.0, "e": 0.0},
        # ASE writes %16.8f, and the shortest text that gives back a float.
        "run.extxyz": {"x": 0.5e-8, "p": 0.5e-8, "t": 0.0, "e": 0.0},
        # Ten digits in these files.
        "run.dump": {"x": x * 0.5e-9, "p": m * v / PS * 0.5e-9, "t": 0.0, "e": 0.0},
        "run.h5": {"x": x * SINGLE, "p": m * v / PS * SINGLE, "t": t * SINGLE, "e": 2.0 * e * SINGLE},
        # The time step in single precision; the table, in full, wins.
        "run.dcd": {"x": x * SINGLE, "p": 0.0, "t": 0.0, "e": 0.0},
        # A thousandth of a nm, of a number in single precision.
        "run.xtc": {"x": 0.005 + 3.0 * x * SINGLE, "p": 0.0, "t": 0.0, "e": 0.0},
    }[name]


@pytest.mark.parametrize("name", WRITERS)
def test_what_was_written_is_read(name: str, truth: Truth, tmp_path: Path) -> None:
    run = read_files(write_all(truth, tmp_path, name))
    off = rounding(name, truth)
    assert run.settings["structure"]["numbers"] == truth.atoms.numbers.tolist()
    np.testing.assert_allclose(run.positions[:, 0], truth.positions, rtol=EPS, atol=off["x"])
    assert run.time_ps is not None
    np.testing.assert_allclose(run.time_ps, truth.time_ps, rtol=8 * EPS, atol=off["t"])
    if name in ("run.dcd", "run.xtc"):
        assert run.momenta is None
    else:
        assert run.momenta is not None
        np.testing.assert_allclose(run.momenta[:, 0], truth.momenta, rtol=8 * EPS, atol=off["p"])
    if name == "run.dump":
        assert run.conserved is None
    else:
        total = truth.potential + truth.kinetic
        # A rounded momentum p makes an error of sum |p| dp / m in the kinetic energy.
        kinetic = float((np.abs(truth.momenta) / truth.atoms.get_masses()[:, None]).sum((1, 2)).max()) * off["p"]
        assert run.conserved is not None
        np.testing.assert_allclose(run.conserved[:, 0], total, rtol=8 * EPS, atol=off["e"] + kinetic)
    if truth.cell is None:
        assert run.cells is None
    else:
        assert run.cells is not None
        np.testing.assert_allclose(run.cells[:, 0], np.tile(truth.cell, (40, 1, 1)), rtol=2 * SINGLE, atol=1e-5)
    assert run.settings["notes"] == []
    assert run.stride == 1


def test_units_are_what_they_say(tmp_path: Path) -> None:
    """Names of units cannot hide a factor: KJ and PS here come from ASE, as the conversions that are tested do."""
    assert pytest.approx(1.0 / 96.48533, rel=1e-6) == KJ
    assert pytest.approx(98.22695, rel=1e-6) == PS
