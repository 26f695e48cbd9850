"""Models by name, through the entry-point group `mlff_sim.models`.

A name is `KEY` or `KEY:ARGUMENT`. The entry point is a `ModelFamily`: it says what it is, whether it can be used
here, and builds a provider bound to a structure. Nothing heavy is imported until a family is asked to build.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, Literal

from mlff_sim.acceleration import Execution, check_device
from mlff_sim.errors import InputError, MissingExtra
from mlff_sim.forces import ForceProvider
from mlff_sim.structure import charge_and_spin, check_species

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
        accelerated: True if it can run where `Execution.device` says, on a GPU for instance.
        fault: why its entry point cannot be loaded, or empty.
        images: what it makes of a periodic box: "none" (it describes molecules in vacuum), "local" (images within a
            cutoff), or "unknown" (there may be more, such as an Ewald sum).
        composition: True when `build` looks at elements, periodicity, charge and spin, but not at positions. Engines
            that know the elements before the positions can then build at once, and tell mistakes at once.
    """

    build: Build
    summary: str
    argument: str = ""
    role: str = "teacher"
    requires: tuple[str, ...] = ()
    extra: str = ""
    accelerated: bool = False
    fault: str = ""
    images: Literal["none", "local", "unknown"] = "unknown"
    composition: bool = False

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


def student_name(given: str) -> str:
    """The registry name of what was given for a student: a name, or a plain file or shipped student."""
    known = ":" in given or given in entry_points(group=GROUP).names
    return given if known else f"student:{given}"


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
        InputError: unknown model, unusable argument, a charge, spin or structure the model cannot describe, or a GPU
            that is not there or of no use to it.
    """
    family, argument = resolve(name)
    execution = execution or Execution()
    charge_and_spin(atoms)
    if execution.device.startswith("cuda") and not family.accelerated:
        raise InputError(f"'{name}' runs on the CPU only, and device = '{execution.device}' is asked for; say 'auto'.")
    check_device(execution.device)
    return family.build(argument, atoms, execution)


def bind(model: Any, atoms: Atoms, execution: Execution | None = None) -> ForceProvider:
    """The provider for a structure: of a name, of a module with the signature of `GraphModel`, or one that is given.

    Raises:
        InputError: as `load_model` and `bind_module`; a provider of other atoms.
    """
    if isinstance(model, str):
        return load_model(model, atoms, execution)
    if isinstance(model, ForceProvider):
        check_species(model.numbers, atoms, f"the given '{model.name}'")
        return model
    from mlff_sim.models.module import bind_module

    return bind_module(model, atoms, execution)


def _xtb(method: str) -> Build:
    def build(argument: str, atoms: Atoms, execution: Execution) -> ForceProvider:
        from mlff_sim.models.xtb import XTB

        if atoms.pbc.any():
            raise InputError(f"{method} is offered for molecules in vacuum here; the structure is periodic.")
        charge, spin = charge_and_spin(atoms)
        return XTB(atoms.numbers, method=method, charge=charge, spin=spin)

    return build


def _dft(argument: str, atoms: Atoms, execution: Execution) -> ForceProvider:
    from mlff_sim.models.dft import DFT, split

    functional, basis = split(argument)
    if atoms.pbc.any():
        raise InputError(f"'dft:{argument}' is offered for molecules in vacuum here; the structure is periodic.")
    charge, spin = charge_and_spin(atoms)
    return DFT(atoms.numbers, functional=functional, basis=basis, charge=charge, spin=spin)


def _mmff(argument: str, atoms: Atoms, execution: Execution) -> ForceProvider:
    from mlff_sim.models.mmff import MMFF

    return MMFF(atoms)


def _student(argument: str, atoms: Atoms, execution: Execution) -> ForceProvider:
    from mlff_sim.models.checkpoint import load_student, read_record
    from mlff_sim.models.shipped import student_path

    path = student_path(argument)
    check_species(read_record(path)["numbers"], atoms, f"student '{argument}'")
    return load_student(path, execution)


def check_periodicity(provider: ForceProvider, atoms: Atoms) -> None:
    """Refuse a structure whose periodicity a model would not see.

    Raises:
        InputError: naming the periodic directions of both.
    """
    sees, pbc = tuple(getattr(provider, "pbc", (False,) * 3)), tuple(atoms.pbc.tolist())
    if sees != pbc:
        raise InputError(
            f"the model '{provider.name}' is periodic along {sees} and the structure along {pbc}; "
            "set atoms.pbc to what the model describes, or choose a model that describes the structure."
        )


def _ase(argument: str, atoms: Atoms, execution: Execution) -> ForceProvider:
    from mlff_sim.models.ase_backed import from_name

    return from_name(argument, atoms)


def _mace(argument: str, atoms: Atoms, execution: Execution) -> ForceProvider:
    from mlff_sim.models.mace import load_mace

    return load_mace(argument, atoms, execution)


def _chgnet(argument: str, atoms: Atoms, execution: Execution) -> ForceProvider:
    from mlff_sim.models.chgnet import load_chgnet

    return load_chgnet(atoms, execution)


def _module(argument: str, atoms: Atoms, execution: Execution) -> ForceProvider:
    from mlff_sim.models.module import load_module

    return load_module(argument, atoms, execution)


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
    _xtb("GFN2-xTB"),
    "tight binding, the embedded default teacher",
    requires=("tblite",),
    extra="xtb",
    images="none",
    composition=True,
)
gfn1_xtb = ModelFamily(
    _xtb("GFN1-xTB"),
    "tight binding, the older parametrisation",
    requires=("tblite",),
    extra="xtb",
    images="none",
    composition=True,
)
dft = ModelFamily(
    _dft,
    "density functional theory (PySCF), e.g. dft:b3lyp/def2-svp",
    argument="FUNCTIONAL/BASIS",
    requires=("pyscf",),
    extra="dft",
    images="none",
    composition=True,
)
mmff = ModelFamily(
    _mmff,
    "MMFF94, a classical force field (RDKit), with the structure's own bonds",
    requires=("rdkit",),
    extra="mmff",
    images="none",
)
ase_calculator = ModelFamily(
    _ase, "any ASE calculator, from a function that returns one", argument="package.module:factory", composition=True
)
student = ModelFamily(
    _student,
    "a distilled student of one molecule (mlff-sim distill)",
    argument="FILE",
    role="student",
    requires=("torch",),
    accelerated=True,
    images="none",
    composition=True,
)
mace = ModelFamily(
    _mace,
    "a trained MACE model; its file is a pickle",
    argument="FILE",
    requires=("mace",),
    extra="mace",
    accelerated=True,
    images="local",
    composition=True,
)
chgnet = ModelFamily(
    _chgnet,
    "CHGNet, pretrained for crystals of most elements",
    requires=("chgnet",),
    extra="chgnet",
    accelerated=True,
    images="local",
    composition=True,
)
module = ModelFamily(
    _module,
    "your own network, from a function (of a package or of FILE.py) that returns a torch module",
    argument="package.module:factory",
    accelerated=True,
    images="local",
    composition=True,
)
torchscript = ModelFamily(
    _torchscript,
    "a TorchScript file: positions (and box) to energy",
    argument="FILE",
    requires=("torch",),
    composition=True,
)
lj = ModelFamily(_lj, "Lennard-Jones argon over all pairs", role="test", images="none", composition=True)
harmonic = ModelFamily(_harmonic, "harmonic bonds at the structure's own lengths", role="test", images="none")
morse = ModelFamily(_morse, "Morse bonds at the structure's own lengths", role="test", images="none")
