"""Models by name, through the entry-point group `mlff_sim.models`.

A name is `KEY` or `KEY:ARGUMENT`. The entry point is a `ModelFamily`: it says what it is, whether it can be used
here, and builds a provider bound to a structure. Nothing heavy is imported until a family is asked to build.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from mlff_sim.acceleration import Execution
from mlff_sim.errors import InputError, MissingExtra
from mlff_sim.forces import ForceProvider

if TYPE_CHECKING:
    from ase import Atoms

GROUP = "mlff_sim.models"
Build = Callable[[str, "Atoms", Execution], ForceProvider]


@dataclass(frozen=True)
class ModelFamily:
    """A kind of model that can be asked for by name.

    Attributes:
        build: makes a provider from the argument after the colon (empty without one), the structure, and where and how
            precisely to evaluate; what is no torch model has no use for the last.
        summary: one line for `mlff-sim models`.
        argument: what follows the colon, for the listing, or empty.
        role: "teacher", "student" or "test".
        requires: modules that must be importable.
        extra: the extra of this package that installs them.
        fault: why its entry point cannot be loaded, or empty.
    """

    build: Build
    summary: str
    argument: str = ""
    role: str = "teacher"
    requires: tuple[str, ...] = ()
    extra: str = ""
    fault: str = ""

    @property
    def missing(self) -> list[str]:
        """Modules this family needs and this Python lacks."""
        return [m for m in self.requires if importlib.util.find_spec(m) is None]


def families() -> dict[str, ModelFamily]:
    """All registered families by key; the package's own and those of third parties."""
    found: dict[str, ModelFamily] = {}
    for point in sorted(entry_points(group=GROUP), key=lambda p: p.name):
        found[point.name] = _load(point)
    return found


def _load(point: EntryPoint) -> ModelFamily:
    """The family behind an entry point; a third party's that fails to import must not take the others with it."""
    try:
        family: ModelFamily = point.load()
    except Exception as error:
        reason = f"{point.value} cannot be loaded ({type(error).__name__}: {error})".replace("\n", " ")
        return ModelFamily(_unusable, reason, role="broken", fault=reason)
    return family


def _unusable(argument: str, atoms: Atoms, execution: Execution) -> ForceProvider:
    raise AssertionError("resolve() refuses a family with a fault")


def resolve(name: str) -> tuple[ModelFamily, str]:
    """Look a name up without building anything: its family and its argument.

    Raises:
        InputError: unknown name (lists the known), a missing or superfluous argument, a missing package.
    """
    key, _, argument = name.partition(":")
    points = {p.name: p for p in entry_points(group=GROUP)}
    if key not in points:
        raise InputError(f"unknown model '{name}'; known: {', '.join(usage(k, f) for k, f in families().items())}.")
    family = _load(points[key])
    if family.fault:
        raise InputError(f"the model '{key}' is registered, but {family.fault}; repair or remove the package.")
    if bool(argument) != bool(family.argument):
        raise InputError(f"'{name}' should read {usage(key, family)}.")
    if family.missing:
        raise MissingExtra(f"the model '{key}' ({', '.join(family.missing)})", family.extra)
    return family, argument


def usage(key: str, family: ModelFamily) -> str:
    """How a family's name is written, e.g. `student:FILE`."""
    return f"{key}:{family.argument}" if family.argument else key


def load_model(name: str, atoms: Atoms, execution: Execution | None = None) -> ForceProvider:
    """Build the provider called `name`, bound to the species of `atoms`.

    Args:
        name: e.g. "gfn2-xtb", "student:FILE", "ase:package.module:factory".
        atoms: the structure; charge and multiplicity are read from `atoms.info["charge"]` and `["spin"]`.
        execution: device, precision and acceleration of torch models; by default a plain evaluation, which is the
            same at every start.

    Raises:
        InputError: unknown model, unusable argument, or a structure the model cannot describe.
    """
    family, argument = resolve(name)
    return family.build(argument, atoms, execution or Execution())


def _xtb(method: str) -> Build:
    def build(argument: str, atoms: Atoms, execution: Execution) -> ForceProvider:
        from mlff_sim.models.xtb import XTB

        if atoms.pbc.any():
            raise InputError(f"{method} is offered for molecules in vacuum here; the structure is periodic.")
        return XTB(
            atoms.numbers, method=method, charge=int(atoms.info.get("charge", 0)), spin=int(atoms.info.get("spin", 1))
        )

    return build


def _student(argument: str, atoms: Atoms, execution: Execution) -> ForceProvider:
    from mlff_sim.models.checkpoint import load_student, read_record
    from mlff_sim.models.shipped import student_path

    path = student_path(argument)
    check_species(read_record(path)["numbers"], atoms, argument)
    return load_student(path)


def check_species(numbers: list[int], atoms: Atoms, path: str, what: str = "student") -> None:
    """Refuse a student (or what else is bound to its atoms) of another molecule, or with another order of atoms.

    Raises:
        InputError: naming both formulas, or the first atom out of order.
    """
    from ase.formula import Formula
    from ase.symbols import Symbols

    mine, given = list(map(int, numbers)), atoms.numbers.tolist()
    if mine == given:
        return
    trained = str(Formula(str(Symbols(mine))).convert("hill"))
    if sorted(mine) != sorted(given):
        raise InputError(
            f"{what} '{path}' was trained for {trained}; the structure is {atoms.get_chemical_formula('hill')}."
        )
    k = next(i for i, (a, b) in enumerate(zip(mine, given, strict=True)) if a != b)
    raise InputError(
        f"{what} '{path}' is for {trained} in another atom order: "
        f"its atom {k} is {Symbols(mine)[k]}, the structure's is {atoms.symbols[k]}; reorder it to {Symbols(mine)}."
    )


def _ase(argument: str, atoms: Atoms, execution: Execution) -> ForceProvider:
    from mlff_sim.models.ase_backed import from_name

    return from_name(argument, atoms)


def _mace(argument: str, atoms: Atoms, execution: Execution) -> ForceProvider:
    from mlff_sim.models.mace import load_mace

    return load_mace(argument, atoms, execution)


def _torchscript(argument: str, atoms: Atoms, execution: Execution) -> ForceProvider:
    from mlff_sim.models.torchscript_file import load_torchscript

    return load_torchscript(argument, atoms, execution)


def _lj(argument: str, atoms: Atoms, execution: Execution) -> ForceProvider:
    from mlff_sim.models.analytic import LennardJones

    return LennardJones(atoms.numbers)


def _harmonic(argument: str, atoms: Atoms, execution: Execution) -> ForceProvider:
    from mlff_sim.models.analytic import Harmonic, bonded

    return bonded(Harmonic, atoms)


def _morse(argument: str, atoms: Atoms, execution: Execution) -> ForceProvider:
    from mlff_sim.models.analytic import Morse, bonded

    return bonded(Morse, atoms)


gfn2_xtb = ModelFamily(
    _xtb("GFN2-xTB"), "tight binding, the embedded default teacher", requires=("tblite",), extra="xtb"
)
gfn1_xtb = ModelFamily(_xtb("GFN1-xTB"), "tight binding, the older parametrisation", requires=("tblite",), extra="xtb")
ase_calculator = ModelFamily(
    _ase, "any ASE calculator, from a function that returns one", argument="package.module:factory"
)
student = ModelFamily(
    _student,
    "a distilled student of one molecule (mlff-sim distill)",
    argument="FILE",
    role="student",
    requires=("torch",),
)
mace = ModelFamily(
    _mace, "a trained MACE model; its file is a pickle", argument="FILE", requires=("mace",), extra="mace"
)
torchscript = ModelFamily(
    _torchscript, "a TorchScript file: positions (and box) to energy", argument="FILE", requires=("torch",)
)
lj = ModelFamily(_lj, "Lennard-Jones argon over all pairs", role="test")
harmonic = ModelFamily(_harmonic, "harmonic bonds at the structure's own lengths", role="test")
morse = ModelFamily(_morse, "Morse bonds at the structure's own lengths", role="test")
