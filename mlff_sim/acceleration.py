"""How a torch model may be made faster, and how far that may move its answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from numbers import Real
from typing import TYPE_CHECKING, Literal

from mlff_sim.errors import InputError

if TYPE_CHECKING:
    import torch

COMPILE_S = 60.0
"""Seconds a compilation is reckoned to take. `compile="auto"` waits until the eager model has cost as much: whenever
the work ends, no more than twice the best choice was spent (the ski-rental rule)."""
MODES = ("default", "max-autotune-no-cudagraphs")
PRECISIONS = ("float32", "float64")


@dataclass(frozen=True)
class Acceleration:
    """What may be done to a model. Whatever is done is compared with the eager model first, on the user's own frame.

    Attributes:
        compile: True at the first evaluation, False never, "auto" once the eager model has cost as much as compiling.
        compile_mode: "default", or "max-autotune-no-cudagraphs", which tries kernels and takes minutes longer. What it
            picks can differ from one start to the next, and so the last digits.
        autocast: None, "bfloat16" or "float16": the precision of large matrix products. They sum in float32; geometry,
            read-out and everything else stays in float32, energies are added in float64.
        tf32: on NVIDIA GPUs, allow float32 products of matrices to round their factors to 10 bits.
        skin_A: A, candidate pairs are kept until atoms have moved half of this.
        static_edges: True pads edges to a fixed number, False compiles for any number, "auto" pads where CUDA graphs,
            which need it, are asked for.
        prune_edges: True gives the model edges within the cutoff only, "auto" also those of the skin where that is faster
            and its envelope is seen to be zero there. What decides by the clock cannot be repeated to the last digit.
        cuda_graphs: replay recorded kernels instead of launching each; needs `compile` and a GPU.
        gate_energy_meV_per_atom: largest deviation from the eager model in the energy of an atom and in the virial.
        gate_force_meV_per_A: largest deviation in any force component.
    """

    compile: bool | Literal["auto"] = "auto"
    compile_mode: str = "default"
    autocast: Literal["bfloat16", "float16"] | None = None
    tf32: bool = False
    skin_A: float = 0.5
    static_edges: bool | Literal["auto"] = "auto"
    prune_edges: bool | Literal["auto"] = "auto"
    cuda_graphs: bool = False
    gate_energy_meV_per_atom: float = 0.1
    gate_force_meV_per_A: float = 1.0

    def __post_init__(self) -> None:
        """Refuse settings that make no sense."""
        for name, allowed in {
            "compile": (True, False, "auto"),
            "compile_mode": MODES,
            "autocast": (None, "bfloat16", "float16"),
            "tf32": (True, False),
            "static_edges": (True, False, "auto"),
            "prune_edges": (True, "auto"),
            "cuda_graphs": (True, False),
        }.items():
            if getattr(self, name) not in allowed:
                raise InputError(f"{name} = {getattr(self, name)!r} is unknown; use {_listed(allowed)}.")
        for name in ("skin_A", "gate_energy_meV_per_atom", "gate_force_meV_per_A"):
            value = getattr(self, name)
            if not (isinstance(value, Real) and 0 <= float(value) < float("inf")):
                raise InputError(f"{name} = {value!r} must be a number, finite and not negative.")
        if self.cuda_graphs and self.compile is False:
            raise InputError("cuda_graphs = True needs compile = True or 'auto'.")
        if self.cuda_graphs and self.static_edges is False:
            raise InputError("cuda_graphs = True replays fixed shapes: static_edges = False cannot go with it.")

    @property
    def padded(self) -> bool:
        """True when edges are padded to a fixed number."""
        return self.cuda_graphs if self.static_edges == "auto" else self.static_edges


@dataclass(frozen=True)
class Execution:
    """Where and how precisely a model is evaluated.

    Attributes:
        device: "cpu", "cuda" or "cuda:1"; "auto" takes a GPU where there is one.
        dtype: "float32" or "float64", of networks whose file does not say.
        acceleration: what may be done for speed. Off by default: what decides by the clock cannot be repeated exactly.
    """

    device: str = "auto"
    dtype: str = "float32"
    acceleration: Acceleration = field(default_factory=lambda: Acceleration(compile=False))

    def __post_init__(self) -> None:
        """Refuse what is unknown; whether there is such a GPU is seen when a model is built."""
        if self.device not in ("auto", "cpu", "cuda") and not self.device.removeprefix("cuda:").isdigit():
            raise InputError(f"device '{self.device}' is unknown; use 'auto', 'cpu', 'cuda' or 'cuda:0'.")
        if self.dtype not in PRECISIONS:
            raise InputError(f"dtype '{self.dtype}' is unknown; use {_listed(PRECISIONS)}.")


def check_device(device: str) -> None:
    """Refuse a GPU that is not there.

    Raises:
        InputError: `device` names a GPU and PyTorch sees none, or not that many.
    """
    if not device.startswith("cuda"):
        return
    import torch

    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(device.partition(":")[2] or 0) >= there:
        seen = f"{there} GPU{'s' if there > 1 else ''}" if there else "no GPU"
        raise InputError(f"device = '{device}' is asked for and PyTorch sees {seen} here; say 'cpu' or 'auto'.")


def _listed(allowed: tuple[object, ...]) -> str:
    words = [repr(a) for a in allowed]
    return f"{', '.join(words[:-1])} or {words[-1]}"


def chosen(acceleration: Acceleration | str) -> Acceleration:
    """The settings for a word: "auto" and "none" are known.

    Raises:
        InputError: any other word.
    """
    if isinstance(acceleration, Acceleration):
        return acceleration
    if acceleration == "auto":
        return Acceleration()
    if acceleration == "none":
        return Acceleration(compile=False)
    raise InputError(f"acceleration '{acceleration}' is unknown; use 'auto', 'none' or an Acceleration(...).")


def usable(device: str) -> torch.device:
    """The device for a word: "auto" is a GPU where there is one.

    Raises:
        InputError: there is no such GPU.
    """
    import torch

    check_device(device)
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device)
