"""Reading a `TorchForce` from XML where openmm-torch itself cannot.

OpenMM 8.6 changed how a string property is returned from a serialised node, and openmmtorch 1.5 is compiled for the
older way: it writes XML correctly and crashes (a segmentation fault) when OpenMM 8.6 reads it. Its XML holds the whole
TorchScript archive in hexadecimal, so that the force can be rebuilt here; all other forces are left to OpenMM.
"""

from __future__ import annotations

import io
import re
from typing import Any
from xml.etree import ElementTree

from mlff_sim.errors import InputError

AFFECTED = "1.5"
"""The version of openmmtorch that cannot be read by OpenMM 8.6 and newer."""


def affected(openmm: str, openmmtorch: str) -> bool:
    """Whether these versions crash when OpenMM reads, copies or clones a `TorchForce` by itself."""
    release = tuple(int(k) for k in re.findall(r"\d+", openmm)[:2])
    return openmmtorch == AFFECTED and release >= (8, 6)


def mend_reading(openmm: Any, openmmtorch: Any, version: str) -> None:
    """Let `openmm.XmlSerializer` build TorchForces itself, if these versions need it; other documents are not touched.

    Covers `deserialize`, and copies and pickles, of a System or force. What OpenMM clones inside is beyond reach: a
    TorchForce within a `CustomCVForce`.
    """
    if not affected(openmm.__version__, version):
        return
    serializer = openmm.XmlSerializer
    system, force = serializer.deserializeSystem, serializer._deserializeForce

    def read_system(text: str) -> Any:
        """Reconstruct a System from XML."""
        if not _holds_torch_force(text):
            return system(text)
        root = ElementTree.fromstring(text)
        listed = root.find("Forces")
        assert listed is not None, "it holds a force"
        nodes = list(listed)
        for node in nodes:
            listed.remove(node)
        read = system(ElementTree.tostring(root, encoding="unicode"))
        for node in nodes:  # one after the other, so that their order stays
            read.addForce(read_force(ElementTree.tostring(node, encoding="unicode")))
        return read

    def read_force(text: str) -> Any:
        """Reconstruct a force from XML."""
        if not _holds_torch_force(text):
            return force(text)
        node = ElementTree.fromstring(text)
        if node.get("type") != "TorchForce":
            raise InputError(
                f"a TorchForce inside a {node.get('type')} cannot be read by OpenMM {openmm.__version__} with "
                f"openmmtorch {version}; build the System again instead of reading it."
            )
        return _torch_force(node, openmmtorch)

    def copy_system(one: Any) -> Any:
        """Clone a System."""
        holds_one = any(openmmtorch.TorchForce.isinstance(f) for f in one.getForces())
        return read_system(serializer.serializeSystem(one)) if holds_one else clone_system(one)

    def copy_force(one: Any) -> Any:
        """Clone a force."""
        is_one = openmmtorch.TorchForce.isinstance(one)
        return read_force(serializer._serializeForce(one)) if is_one else clone_force(one)

    clone_system, clone_force = serializer._cloneSystem, serializer._cloneForce
    serializer.deserializeSystem, serializer._deserializeForce = staticmethod(read_system), staticmethod(read_force)
    serializer._cloneSystem, serializer._cloneForce = staticmethod(copy_system), staticmethod(copy_force)
    openmm.System.__copy__ = copy_system  # it does not go through the serializer


def _holds_torch_force(text: str) -> bool:
    return 'type="TorchForce"' in text


def _torch_force(node: ElementTree.Element, openmmtorch: Any) -> Any:
    """The force that openmm-torch wrote, from its attributes and children."""
    import torch

    archive = io.BytesIO(bytes.fromhex(node.get("encodedFileContents", "")))
    force = openmmtorch.TorchForce(torch.jit.load(archive, map_location="cpu"))
    force.setForceGroup(int(node.get("forceGroup", "0")))
    force.setUsesPeriodicBoundaryConditions(node.get("usesPeriodic", "0") == "1")
    force.setOutputsForces(node.get("outputsForces", "0") == "1")
    if node.get("name"):
        force.setName(node.get("name"))
    for child in node.iterfind("GlobalParameters/Parameter"):
        force.addGlobalParameter(child.get("name"), float(child.get("default", "0")))
    for child in node.iterfind("ParameterDerivatives/Parameter"):
        force.addEnergyParameterDerivative(child.get("name"))
    for child in node.iterfind("Properties/Property"):
        force.setProperty(child.get("name"), child.get("value"))
    return force
