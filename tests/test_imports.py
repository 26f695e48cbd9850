"""Imports point downward, and importing the command line loads nothing heavy."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import mlff_sim

ROOT = Path(mlff_sim.__file__).parent
FLOORS = {
    "units": 0,
    "errors": 0,
    "structure": 0,
    "smiles": 0,
    "state": 0,
    "motion": 0,
    "forces": 0,
    "progress": 0,
    "limits": 0,
    "cost": 0,
    "acceleration": 1,
    "neighbors": 1,
    "models": 1,
    "soap": 1,
    "distill": 2,
    "predictors": 2,
    "leaps": 2,
    "integrators": 3,
    "runfolder": 3,
    "trajectory": 3,
    "simulation": 3,
    "benchmark": 4,
    "lessons": 4,
    "studies": 4,
    "timestudy": 4,
    "validation": 4,
    "interfaces": 4,
    "report": 5,
    "cli": 6,
}
SIDEWAYS = {
    ("simulation", "integrators"),
    ("simulation", "runfolder"),
    ("models", "acceleration"),
    ("models", "neighbors"),
    ("timestudy", "studies"),
    ("leaps", "predictors"),
}
"""Between rooms of one floor: the run loop uses the integrators and the run folder, models use what makes them fast, leaps
are learnt as predictors are, a study of many molecules is made of studies; never the other way round."""
GROUND = {"units", "errors", "structure", "smiles", "state", "motion", "forces", "progress", "limits", "cost"}
"""Files of the lowest floor share it and may import each other; Python itself refuses circles among them."""


def modules() -> list[Path]:
    """Every file of the package but its own `__init__`, which hands out names from all floors when asked."""
    return [p for p in sorted(ROOT.rglob("*.py")) if p != ROOT / "__init__.py"]


def room(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix("").parts[0]


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """(line, room of mlff_sim) of every import in a file, inside functions and under TYPE_CHECKING as well."""
    for node in ast.walk(ast.parse(path.read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide where they point"
            names = [f"{node.module}.{a.name}" for a in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "mlff_sim" and parts[1:2] != ["__version__"]:
                yield node.lineno, parts[1] if len(parts) > 1 else ""


def allowed(importer: str, target: str) -> bool:
    return (
        importer == target
        or FLOORS[target] < FLOORS[importer]
        or {importer, target} <= GROUND
        or (importer, target) in SIDEWAYS
    )


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_downward(path: Path) -> None:
    assert room(path) in FLOORS, f"{room(path)} has no floor yet; give it one above"
    for line, target in imported(path):
        assert target in FLOORS, f"{path.name}:{line} imports mlff_sim.{target}, which has no floor"
        assert allowed(room(path), target), f"{path.name}:{line}: {room(path)} must not import {target}"


def test_the_rule_forbids_something() -> None:
    for pair in (
        ("models", "distill"),
        ("integrators", "simulation"),
        ("validation", "report"),
        ("report", "cli"),
        ("units", "models"),
    ):
        assert not allowed(*pair)
    assert sum(1 for p in modules() for _ in imported(p)) > 100, "the walk sees the imports"


HEAVY = ("torch", "openmm", "mace", "pyscf", "tblite", "h5py", "scipy", "pymbar", "plotly", "matplotlib", "mdtraj")


@pytest.mark.parametrize("module", ["mlff_sim", "mlff_sim.cli.main"])
def test_importing_loads_nothing_heavy(module: str) -> None:
    """`mlff-sim --help` answers at once."""
    code = f"import sys, {module}; print(*[m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_integrators_and_validation_do_not_know_each_other() -> None:
    """Validators take arrays: they import no integrator and no model."""
    for path in (ROOT / "validation").rglob("*.py"):
        assert not {t for _, t in imported(path)} & {"integrators", "simulation", "models", "distill"}, path.name


def test_public_names_are_where_they_are_said_to_be() -> None:
    """`from mlff_sim import X` works for every X it lists, and for nothing else."""
    for name in mlff_sim.__all__:
        assert getattr(mlff_sim, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = mlff_sim.no_such_name


@pytest.mark.parametrize("name", ["integrators", "validation"])
def test_the_rooms_have_a_door_at_the_root(name: str) -> None:
    """Committed links, for those who come to read; without support for links a checkout has the file they are stored as."""
    door = ROOT.parent / name
    target = f"mlff_sim/{name}"
    assert door.readlink() == Path(target) if door.is_symlink() else door.read_text() == target
