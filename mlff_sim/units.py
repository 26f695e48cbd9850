"""The one unit system inside the package: eV, Angstrom, atomic mass unit.

Time follows as A (u/eV)^1/2 (about 10.18 fs) and momentum as (eV u)^1/2, the units of ASE. Quantities in
other units carry a suffix in their name (`timestep_fs`, `temperature_K`); conversions come from
`ase.units` (CODATA 2014) and are never written out as literals.
"""

from __future__ import annotations

from math import pi as _pi

from ase import units as _ase

FS: float = _ase.fs
"""One femtosecond in internal time units."""
PS: float = 1000.0 * _ase.fs
"""One picosecond in internal time units."""
KB: float = _ase.kB
"""Boltzmann's constant, eV/K."""
HARTREE: float = _ase.Hartree
"""One Hartree in eV."""
BOHR: float = _ase.Bohr
"""One Bohr radius in A."""
KJ_PER_MOL: float = _ase.kJ / _ase.mol
"""One kJ/mol in eV."""
KCAL_PER_MOL: float = _ase.kcal / _ase.mol
"""One kcal/mol in eV."""
NM: float = _ase.nm
"""One nanometre in A."""
MEV: float = 1e-3
"""One milli-electronvolt in eV."""
CM1: float = 2 * _pi * 100 * _ase._c / _ase.second
"""Angular frequency in internal units of a wave number of 1/cm."""
