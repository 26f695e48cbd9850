"""Predictor files: safetensors with a JSON record in the header. Loading one runs no code from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlff_sim.errors import InputError, MissingExtra
from mlff_sim.models.safefile import load_weights, no_record, read_header, sha256, write_network

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mlff_sim.predictors.network import PredictorNet
    from mlff_sim.predictors.predictor import Predictor

FORMAT, LEAPS = "mlff-sim-predictor", "mlff-sim-generating-function"
VERSION = 1
PURPOSE = {
    FORMAT: "draws macro-steps (--arch egnn or transformer), for scheme 'kstep'",
    LEAPS: "leaps (--arch generating), for proposals of scheme 'ghmc'",
}
"""What the predictors of each format are for."""
LEAST_ATOMS = 3
"""Two atoms can be displaced only along their line, or their angular momentum is lost; networks for more do not know that."""


def save_predictor(network: PredictorNet, record: Mapping[str, Any], path: str | Path) -> None:
    """Write a network and its record to one safetensors file, atomically; any suffix will do.

    The header's `mlff_sim` entry is the record as JSON. It must hold `macro_steps` (baseline steps), `timestep_fs`,
    `elements` (atomic numbers) and `largest` (atoms); format, version, architecture and units are added.
    """
    full = {
        **record,
        "format": FORMAT,
        "version": VERSION,
        "architecture": network.architecture.as_dict(),
        "units": {"length": "A", "energy": "eV", "mass": "u"},
    }
    write_network(network, full, path)


def read_predictor(path: str | Path) -> dict[str, Any]:
    """The JSON record of a predictor file, without loading tensors or torch.

    Raises:
        InputError: missing file, truncated or foreign content.
    """
    record: dict[str, Any] = read_header(path, "predictor", f"mlff-sim train-predictor --out {path}")
    try:
        form, version = record["format"], int(record["version"])
        if form == FORMAT and version <= VERSION:
            record["macro_steps"] = [int(s) for s in record["macro_steps"]]
            record["timestep_fs"] = float(record["timestep_fs"])
            record["elements"] = [int(z) for z in record["elements"]]
            record["largest"] = int(record["largest"])
            return record
    except (KeyError, TypeError, ValueError) as error:
        raise no_record(path, "predictor", "mlff-sim train-predictor") from error
    raise foreign(path, form, version, FORMAT, VERSION)


def foreign(path: str | Path, form: Any, version: Any, wanted: str, newest: int) -> InputError:
    """What is said of a file of another format, or of a newer version."""
    if form != wanted and form in PURPOSE:
        return InputError(f"predictor '{path}' {PURPOSE[form]}; wanted is one that {PURPOSE[wanted]}.")
    return InputError(f"'{path}' has format {form} {version}; a predictor is {wanted} up to {newest}.")


def check_predictor(
    record: Mapping[str, Any], path: str | Path, numbers: Sequence[int], steps: int, timestep_fs: float
) -> str:
    """Refuse a predictor that knows nothing of these atoms or this macro-step.

    Returns:
        A warning, or nothing.

    Raises:
        InputError: an element, macro-step or time step it was not trained for.
    """
    from ase.data import chemical_symbols

    if len(numbers) < LEAST_ATOMS:
        raise InputError(f"the structure has {len(numbers)} atoms; a predictor is for {LEAST_ATOMS} or more.")
    foreign = sorted(set(numbers) - set(record["elements"]))
    if foreign:
        known = ", ".join(chemical_symbols[z] for z in record["elements"])
        raise InputError(
            f"predictor '{path}' knows the elements {known}, and the structure has "
            f"{', '.join(chemical_symbols[z] for z in foreign)}; train one with such molecules."
        )
    trained, baseline = record["macro_steps"], record["timestep_fs"]
    if abs(timestep_fs - baseline) > 1e-9 * baseline:
        raise InputError(
            f"predictor '{path}' counts in baseline steps of {baseline:g} fs, and timestep_fs = {timestep_fs:g}; use {baseline:g}."
        )
    if steps not in trained:
        raise InputError(
            f"predictor '{path}' was not trained for macro-steps of {steps} baseline steps (k_steps * save_interval); it knows "
            f"{', '.join(str(s) for s in trained)}."
        )
    if len(numbers) > record["largest"]:
        return (
            f"the molecule has {len(numbers)} atoms and the largest that predictor '{path}' was trained with {record['largest']}: "
            "it extrapolates, and the guards may fall back often"
        )
    return ""


def needs_geometric() -> None:
    """Refuse to go on without torch-geometric.

    Raises:
        MissingExtra: it is not installed.
    """
    import importlib.util

    if importlib.util.find_spec("torch_geometric") is None:
        raise MissingExtra("a predictor (torch-geometric)", "predictor")


def load_network(path: str | Path) -> tuple[PredictorNet, dict[str, Any]]:
    """The network and the record of a predictor file.

    Raises:
        InputError: missing, truncated, corrupted or foreign file; MissingExtra without torch-geometric.
    """
    record = read_predictor(path)
    needs_geometric()
    from mlff_sim.predictors.network import ARCHITECTURES, Architecture, PredictorNet

    try:
        architecture = Architecture(**record["architecture"])
        if architecture.kind not in ARCHITECTURES:
            raise ValueError(f"unknown architecture '{architecture.kind}'")
        network = PredictorNet(architecture, len(record["macro_steps"]))
    except Exception as error:
        raise InputError(f"predictor file '{path}' is corrupted ({str(error).splitlines()[0]}).") from error
    load_weights(network, path, "predictor")
    record["sha256"] = sha256(path)
    return network, record


def load_predictor(
    path: str | Path,
    numbers: NDArray[np.int64],
    masses: NDArray[np.float64],
    bonds: Sequence[tuple[int, int]],
    steps: int,
    timestep_fs: float,
    *,
    compile: bool = False,
    amp: bool = False,
) -> Predictor:
    """A predictor bound to a molecule and a macro-step.

    Args:
        path: its file.
        numbers: atomic numbers, (n,).
        masses: u, (n,).
        bonds: pairs of bonded atoms.
        steps: baseline steps of the macro-step.
        timestep_fs: of the baseline.
        compile: compile the network.
        amp: products in bfloat16.

    Raises:
        InputError: as `read_predictor`, `check_predictor` and `load_network`.
    """
    network, record = load_network(path)
    warning = check_predictor(record, path, [int(z) for z in numbers], steps, timestep_fs)
    from mlff_sim.predictors.predictor import Predictor

    if warning:
        import warnings

        warnings.warn(f"{warning}.", stacklevel=2)
    return Predictor(network, record, numbers, masses, bonds, steps, compile=compile, amp=amp)
