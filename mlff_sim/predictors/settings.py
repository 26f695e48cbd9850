"""What the settings of any training must be."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from mlff_sim.errors import InputError


def check_numbers(config: object, positive: Sequence[str], least: Mapping[str, int]) -> None:
    """Refuse attributes that are no numbers of their kind.

    Args:
        config: has them.
        positive: names of positive numbers.
        least: of whole numbers, and the smallest that is allowed.

    Raises:
        InputError: names the first.
    """
    for name in positive:
        value = getattr(config, name)
        if not (math.isfinite(value) and value > 0):
            raise InputError(f"{name} = {value:g} must be a positive number.")
    for name, smallest in least.items():
        value = getattr(config, name)
        if not isinstance(value, int) or value < smallest:
            raise InputError(f"{name} = {value} must be a whole number of at least {smallest}.")
