"""Lines of a text trajectory, which may end anywhere."""

from __future__ import annotations

from itertools import chain, islice
from operator import itemgetter
from pathlib import Path
from types import TracebackType

import numpy as np

from mlff_sim.errors import InputError
from mlff_sim.forces import Array


class Cut(Exception):
    """The file ends within a frame."""


class Lines:
    """A text file by lines.

    A last line without its end may have lost digits, which nothing else would show: it counts as cut.
    """

    def __init__(self, path: Path) -> None:
        """Open the file."""
        self.path, self._size = path, path.stat().st_size
        self._file = path.open(encoding="utf-8")

    def __enter__(self) -> Lines:
        """Be closed at the end of a with block."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close the file."""
        self._file.close()

    def head(self) -> str | None:
        """The next line that is not blank; None at the end of the file."""
        for line in self._file:
            if line.strip():
                if not line.endswith("\n"):
                    raise Cut
                return line.strip()
        return None

    def take(self, count: int) -> list[str]:
        """The next `count` lines.

        Raises:
            Cut: there are fewer, or the last one has no end.
        """
        if count > self._size:
            raise InputError(f"trajectory '{self.path}' announces {count} lines, more than it has bytes.")
        lines = list(islice(self._file, count))
        if len(lines) < count or (lines and not lines[-1].endswith("\n")):
            raise Cut
        return lines


def columns(rows: list[list[str]], which: list[int]) -> Array:
    """Numbers in some columns, at least two, of rows of words, shape (rows, columns).

    Raises:
        ValueError: a row is too short, or a word is no number.
    """
    words = chain.from_iterable(map(itemgetter(*which), rows))
    try:
        # Three times as fast as to let NumPy convert the words.
        return np.fromiter(map(float, words), np.float64, len(rows) * len(which)).reshape(len(rows), len(which))
    except IndexError as error:
        raise ValueError("a line has too few columns") from error
