"""A model as openmm-torch's `TorchForce`: TorchScript inside the System, no Python while it runs.

On the Reference and CPU platforms the module is given float64 positions and runs on torch's own threads beside
OpenMM's: set both (`torch.set_num_threads`, the platform's property Threads) where they share cores.
"""

from __future__ import annotations

import contextlib
import functools
import io
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mlff_sim.errors import InputError, MissingExtra
from mlff_sim.interfaces.torch_force_xml import mend_reading

if TYPE_CHECKING:
    from ase import Atoms

    from mlff_sim.interfaces.ase_calculator import MLFFCalculator

SPACING_A = 1.6
"""Distance of the atoms in the structure that a model is recorded at; a topology has no positions."""


@functools.cache
def load_openmmtorch() -> Any:
    """Import openmmtorch and its plug-ins, in whatever order torch and openmm were imported.

    Call it before a System with a TorchForce is read from XML in a process that has not built one: openmmtorch 1.5
    crashes when OpenMM 8.6 reads its XML, and `mend_reading` prevents that.

    Raises:
        MissingExtra: it is not installed.
        InputError: it was built for another torch or OpenMM.
    """
    import openmm
    import torch  # noqa: F401  (first: openmmtorch is linked against torch's libraries and does not look for them)

    try:
        with contextlib.redirect_stderr(io.StringIO()):  # it remarks on a deprecated import of its own
            import openmmtorch
        _load_plugins(openmm)
    except ModuleNotFoundError as error:
        if error.name != "openmmtorch":
            raise
        raise MissingExtra("backend = 'torchforce'", "torchforce") from None
    except Exception as error:  # ImportError of a library that does not fit, OpenMMException of a plug-in
        reason = str(error).split("\n")[0]
        raise InputError(
            f"openmmtorch cannot be loaded here ({reason}). It is compiled for one torch and one OpenMM. Installed: "
            f"{_installed()}; what fits: {_fitting()}; install it with: pip install 'mlff-sim[torchforce]'"
        ) from error
    mend_reading(openmm, openmmtorch, version("openmmtorch"))
    return openmmtorch


def _load_plugins(openmm: Any) -> None:
    """Load the plug-ins that failed because OpenMM was imported before torch; the Reference one must be there."""
    failed = [f for f in openmm.Platform.getPluginLoadFailures() if "OpenMMTorch" in f]
    for failure in failed:
        library = failure.removeprefix("Error loading library ").split(": ")[0]
        try:
            openmm.Platform.loadPluginLibrary(library)
        except Exception:  # a platform that this machine lacks
            if "Reference" in library:
                raise


def _installed() -> str:
    found = []
    for package in ("openmmtorch", "torch", "openmm"):
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"no {package}")
    return ", ".join(found)


def _fitting() -> str:
    """The combination that this package's extra asks for."""
    extra = [r.split(";")[0].strip() for r in requires("mlff-sim") or [] if "torchforce" in r.partition(";")[2]]
    return ", ".join(extra)


def torch_force(
    calculator: MLFFCalculator, numbers: NDArray[np.int64], periodic: bool, particles: Sequence[int] | None
) -> Any:
    """The `openmmtorch.TorchForce` of a calculator's model.

    It gives the forces of all particles; on those that are not the model's they are zero. A System with it can be
    serialised: the XML holds the whole TorchScript module.

    Args:
        calculator: names or holds the model: a student, a MACE or another graph network.
        numbers: atomic numbers of the model's atoms, shape (n,).
        periodic: whether the model sees the periodic box.
        particles: indices of its atoms, ascending; None if they are all particles of the System.

    Raises:
        InputError: openmmtorch cannot be used, or the model cannot be exported; see `script_module`.
    """
    openmmtorch = load_openmmtorch()
    from mlff_sim.models.student import Student
    from mlff_sim.models.torchscript_export import script_module

    example = _example(numbers, periodic)
    provider = calculator._fitting(example)
    module, _ = script_module(provider, example, particles, frozen=True)
    force = openmmtorch.TorchForce(module)
    force.setOutputsForces(isinstance(provider, Student))
    force.setUsesPeriodicBoundaryConditions(periodic)
    return force


def _example(numbers: NDArray[np.int64], periodic: bool) -> Atoms:
    """Some structure of these atoms: a shaken cubic grid."""
    from ase import Atoms

    side = int(np.ceil(len(numbers) ** (1 / 3) - 1e-9))
    grid = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), -1).reshape(-1, 3)[: len(numbers)]
    x = SPACING_A * grid + 0.1 * np.random.default_rng(0).uniform(-1, 1, grid.shape)
    return Atoms(numbers=numbers, positions=x, cell=[SPACING_A * side] * 3, pbc=periodic)
