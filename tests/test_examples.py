"""The examples do what they say, in a shorter version."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_alanine_dipeptide_in_water() -> None:
    """20 fs of it: the peptide has the energy of its model, and the solution its temperature.

    GFN2-xTB puts ACE-ALA-NME at -897 eV, which is -86.6 MJ/mol; 420 waters at -40 kJ/mol add about -17. Started with
    300 K at a minimum, about half of the kinetic energy becomes potential before the bath has made up for it.
    """
    for package in ("openmmml", "tblite"):
        pytest.importorskip(package)
    command = [sys.executable, "-W", "error", str(EXAMPLES / "alanine_dipeptide.py"), "--steps", "20"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    first, _, *rows, last = done.stdout.splitlines()
    assert first.startswith("22 atoms by gfn2-xtb, ") and last.endswith(" steps/s") and float(last.split()[0]) > 0
    steps, potential, temperature = np.array([row.split(",") for row in rows], dtype=float).T
    assert steps.tolist() == [4, 8, 12, 16, 20]
    assert np.all((potential > -1.06e5) & (potential < -1.00e5))  # kJ/mol
    assert np.all((temperature > 100) & (temperature < 350))
