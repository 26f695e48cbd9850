"""How a torch model may be made faster, and how far that may move its answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mlff_sim.errors import InputError

COMPILE_S = 60.0
"""Seconds a compilation is reckoned to take. `compile="auto"` waits until the eager model has cost as much: whenever
the work ends, no more than twice the best choice was spent (the ski-rental rule)."""


@dataclass(frozen=True)
class Acceleration:
    """What may be done to a model. Whatever is done is compared with the eager model first, on the user's own frame.

    Attributes:
        compile: True at the first evaluation, False never, "auto" once the eager model has cost as much as compiling.
        skin_A: A, candidate pairs are kept until atoms have moved half of this.
        gate_energy_meV_per_atom: largest deviation from the eager model in the energy of an atom and in the virial.
        gate_force_meV_per_A: largest deviation in any force component.
    """

    compile: bool | Literal["auto"] = "auto"
    skin_A: float = 0.5
    gate_energy_meV_per_atom: float = 0.1
    gate_force_meV_per_A: float = 1.0

    def __post_init__(self) -> None:
        """Refuse settings that make no sense."""
        if self.compile not in (True, False, "auto"):
            raise InputError(f"compile = {self.compile!r} must be True, False or 'auto'.")
        for name in ("skin_A", "gate_energy_meV_per_atom", "gate_force_meV_per_A"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"{name} = {getattr(self, name):g} must not be negative.")


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
