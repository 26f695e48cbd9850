"""Files of learnt generating functions. Loading one runs no code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlff_sim.errors import InputError
from mlff_sim.models.safefile import load_weights, no_record, read_header, sha256, write_network
from mlff_sim.predictors.file import LEAPS, foreign
from mlff_sim.structure import check_elements

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mlff_sim.leaps.generating import GeneratingNet, Generator

FORMAT = LEAPS
VERSION = 1
KIND, MADE_BY = "generating-function", "mlff-sim train-predictor --arch generating"


def save_generating(network: GeneratingNet, stride_fs: float, path: str | Path, record: Mapping[str, Any]) -> None:
    """Write a network and its stride to one safetensors file, atomically.

    Args:
        network: N of this stride.
        stride_fs: h.
        path: any suffix will do.
        record: what else is worth knowing (data, errors, seconds), JSON-serialisable.
    """
    full = {
        **record,
        "format": FORMAT,
        "version": VERSION,
        "architecture": network.settings,
        "stride_fs": float(stride_fs),
        "units": {"length": "A", "energy": "eV", "mass": "u"},
    }
    write_network(network, full, path)


def read_generating(path: str | Path) -> dict[str, Any]:
    """The JSON record of a file, of which `stride_fs` is the stride, without loading tensors or torch.

    Raises:
        InputError: missing, truncated or foreign file.
    """
    record: dict[str, Any] = read_header(path, KIND, f"{MADE_BY} --out {path}")
    try:
        form, version = record["format"], int(record["version"])
        if form != FORMAT or version > VERSION:
            raise foreign(path, form, version, FORMAT, VERSION)
        record["architecture"] = dict(record["architecture"])
        record["architecture"]["elements"] = [int(z) for z in record["architecture"]["elements"]]
        record["stride_fs"] = float(record.get("stride_fs", 0.0))
    except InputError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise no_record(path, KIND, MADE_BY) from error
    if not record["stride_fs"] > 0:
        raise InputError(f"{KIND} file '{path}' is corrupted (no stride).")
    return record


def stride_steps(record: Mapping[str, Any], path: str | Path, timestep_fs: float) -> int:
    """Baseline steps in a leap.

    Raises:
        InputError: it is no whole number of them.
    """
    stride = float(record["stride_fs"])
    steps = max(1, round(stride / timestep_fs)) if timestep_fs > 0 else 1
    if abs(steps * timestep_fs - stride) > 1e-9 * stride:
        raise InputError(
            f"predictor '{path}' leaps {stride:g} fs, which is no whole number of baseline steps of timestep_fs = "
            f"{timestep_fs:g}; the nearest that divides it is {stride / steps:.6g}."
        )
    return steps


def check_generating(
    record: Mapping[str, Any], path: str | Path, numbers: Sequence[int], steps: int, timestep_fs: float
) -> None:
    """Refuse a generating function of other elements, or of another stride than so many baseline steps.

    Raises:
        InputError: an element or stride it was not trained for.
    """
    check_elements(numbers, record["architecture"]["elements"], f"predictor '{path}'")
    known = stride_steps(record, path, timestep_fs)
    if steps != known:
        raise InputError(
            f"predictor '{path}' leaps {record['stride_fs']:g} fs, and save_interval = {steps} baseline steps of {timestep_fs:g} fs "
            f"are {steps * timestep_fs:g} fs; use save_interval = {known}."
        )


def load_generating(path: str | Path) -> tuple[GeneratingNet, dict[str, Any]]:
    """The network of a file, and its record, of which `stride_fs` is the stride. No code from the file is run.

    Raises:
        InputError: missing, truncated, corrupted or foreign file.
    """
    record = read_generating(path)
    from mlff_sim.leaps.generating import GeneratingNet

    try:
        network = GeneratingNet(**record["architecture"])
    except Exception as error:
        raise InputError(f"{KIND} file '{path}' is corrupted ({str(error).splitlines()[0]}).") from error
    load_weights(network, path, KIND)
    record["sha256"] = sha256(path)
    return network, record


def load_generator(
    path: str | Path, numbers: NDArray[np.int64], masses: NDArray[np.float64], steps: int, timestep_fs: float
) -> Generator:
    """A generating function bound to a molecule.

    Args:
        path: its file.
        numbers: atomic numbers, (n,).
        masses: u, (n,).
        steps: baseline steps in a leap.
        timestep_fs: of the baseline.

    Raises:
        InputError: as `load_generating` and `check_generating`.
    """
    network, record = load_generating(path)
    check_generating(record, path, [int(z) for z in numbers], steps, timestep_fs)
    from mlff_sim.leaps.generating import Generator

    return Generator(network, numbers, masses, record["stride_fs"], record)
