"""The potential "mlff-sim" of openmm-ml: a model for a whole System, or for the ML part of a mixed ML/MM one."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

from mlff_sim.errors import InputError


class PotentialFactory:
    """What openmm-ml finds under its entry point and asks for potentials.

    It comes before the import of openmm-ml, and without a base class of its: that import loads all entry points, and
    so this file, which may be what started it.
    """

    def createImpl(self, name: str, **settings: Any) -> Potential:
        """Answer `MLPotential("mlff-sim", model=..., **settings)`."""
        return Potential(**settings)


from openmmml.mlpotential import MLPotentialImpl  # noqa: E402


class Potential(MLPotentialImpl):  # type: ignore[misc]
    """A model of the registry, or a module, or a provider, as openmm-ml's `MLPotential("mlff-sim", model=...)`.

    Settings are the keyword arguments of `mlff_sim.openmm_force` and mean the same there: `periodic`, `acceleration`,
    `device`, `dtype`, `charge`, `spin`. They can be given to `MLPotential`, or to `createSystem` and
    `createMixedSystem`, which win.

    Unless `periodic` says otherwise, a model sees images where the topology has a box, as openmm-ml's own potentials
    do; the ML part of a mixed System is taken for whole molecules in vacuum if the model knows nothing else.
    openmm-ml removes the constraints within that part, unless `removeConstraints=False` asks it to keep them.

    Raises:
        InputError: no model, an unknown one, or a setting that does not exist.
    """

    def __init__(self, **settings: Any) -> None:
        """Check the names; the model is built when its atoms are known."""
        _must_be_known(settings)
        if "model" not in settings:
            raise InputError('which model? Write MLPotential("mlff-sim", model="mace:FILE"), for instance.')
        self.settings = settings
        self._images = _images(settings["model"])

    def addForces(
        self, topology: Any, system: Any, atoms: Iterable[int] | None, forceGroup: int, **settings: Any
    ) -> None:
        """Add the model to a System.

        Raises:
            InputError: as `mlff_sim.openmm_force`; or a setting that does not exist, in a System without MM part (in
                one with, it may be the embedding's).
        """
        from mlff_sim.interfaces.openmm_force import openmm_force

        if "model" in settings:
            raise InputError("the model is given to MLPotential itself; make another for another model.")
        if atoms is None:
            _must_be_known(settings)
        chosen = {**self.settings, **{k: v for k, v in settings.items() if k in _known()}}
        if chosen.get("periodic") is None and atoms is not None:
            chosen["periodic"] = topology.getPeriodicBoxVectors() is not None and self._images != "none"
        force = openmm_force(
            topology=topology, atoms=None if atoms is None else list(atoms), force_group=forceGroup, **chosen
        )
        if not system.getNumParticles():  # openmm-ml is about to interpolate, for which OpenMM copies the force
            _must_be_copyable(chosen["model"], chosen.get("backend", "auto"))
        system.addForce(force)

    def getMLLongRange(self) -> bool | None:
        """Whether the model has more than a cutoff in a periodic box: no, or None where only the user can tell."""
        if self.settings.get("periodic") is False:
            return False
        return None if self._images == "unknown" else False


def _known() -> set[str]:
    """The settings a user may give."""
    from mlff_sim.interfaces.openmm_force import openmm_force

    return set(inspect.signature(openmm_force).parameters) - {"topology", "atoms", "force_group", "system"}


def _must_be_known(settings: dict[str, Any]) -> None:
    unknown = sorted(set(settings) - _known())
    if unknown:
        raise InputError(
            f"{unknown[0]} is no setting of the potential 'mlff-sim'; it has {', '.join(sorted(_known()))}."
        )


def _images(model: Any) -> str:
    """What a model makes of a periodic box, in the words of `ModelFamily.images`."""
    from mlff_sim.forces import ForceProvider
    from mlff_sim.models.registry import resolve

    if isinstance(model, str):
        return resolve(model)[0].images
    if isinstance(model, ForceProvider) and not any(getattr(model, "pbc", (False,))):
        return "none"
    return "unknown" if getattr(model, "cutoff", None) is None else "local"


def _must_be_copyable(model: Any, backend: str) -> None:
    if backend == "torchforce":
        from openmm import __version__ as openmm

        from mlff_sim.interfaces.torch_force_xml import affected

        if affected(openmm, openmmtorch := version("openmmtorch")):
            raise InputError(
                f"interpolate=True makes OpenMM copy the force, and OpenMM {openmm} crashes when it copies a TorchForce "
                f"of openmmtorch {openmmtorch}; use backend='python'."
            )
        return
    try:
        pickle.dumps(model)
    except Exception as error:
        reason = str(error).split("\n")[0]
        raise InputError(
            f"interpolate=True makes OpenMM copy the model, and this {type(model).__name__} cannot be pickled "
            f"({reason}); give it by name, or define its class at the top level of a module."
        ) from error
