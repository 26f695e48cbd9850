"""State of unfinished training on disk, so that the same command goes on where it was."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlff_sim.errors import InputError

SNAPSHOT_EVERY = 250
"""Updates between two of them."""


class Snapshot:
    """One file, replaced as a whole.

    Args:
        path: of it.
        settings: what the training must agree in to be taken up, JSON-like.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        """Bind; nothing is read yet."""
        self.path, self.settings = path, dict(settings)

    def save(self, state: Mapping[str, Any]) -> None:
        """Write numbers, tensors and containers of them, atomically."""
        import torch

        temporary = self.path.with_suffix(".tmp")
        torch.save({**state, "settings": self.settings}, temporary)
        os.replace(temporary, self.path)

    def load(self) -> dict[str, Any] | None:
        """What `save` was given; None where there is no file. No code from the file is run.

        Raises:
            InputError: no state of a training, or one of other settings.
        """
        if not self.path.exists():
            return None
        import torch

        try:
            saved: dict[str, Any] = torch.load(self.path, weights_only=True)
            theirs = dict(saved["settings"])
        except Exception as error:
            why = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(f"'{self.path}' is no state of a training ({why}); delete it to begin anew.") from error
        mine = self.settings
        changed = sorted(k for k in mine.keys() | theirs.keys() if _plain(theirs.get(k)) != _plain(mine.get(k)))
        if changed:
            raise InputError(
                f"'{self.path}' holds unfinished training with other settings ({', '.join(changed)}); repeat them, or delete it."
            )
        return saved


def _plain(value: Any) -> Any:
    """Tuples as lists, all the way down."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value
