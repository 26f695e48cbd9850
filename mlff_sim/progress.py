"""How long work tells that it is alive, without any library function printing."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives the state of a long job; the command line turns it into a bar with rate and time left."""

    def update(self, done: float, total: float, note: str = "") -> None:
        """Say that `done` of `total` units (named by the caller) are finished."""


class Silent:
    """The default: says nothing."""

    def update(self, done: float, total: float, note: str = "") -> None:
        """Do nothing."""


class Named:
    """Progress that says what it is of."""

    def __init__(self, progress: Progress, name: str) -> None:
        """Wrap another."""
        self._progress, self._name = progress, name

    def update(self, done: float, total: float, note: str = "") -> None:
        """Pass it on."""
        self._progress.update(done, total, f"{self._name}: {note}" if note else self._name)
