"""What every verb shares: one-line errors, exit codes, and a progress bar that is silent in a pipe."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from mlff_sim.errors import InputError

PASS, FAIL, USAGE, INCONCLUSIVE = 0, 1, 2, 3
VERDICT_CODES = {"pass": PASS, "fail": FAIL, "inconclusive": INCONCLUSIVE}

out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 160)
"""Standard output; in a pipe there is no width to keep to, and a table of figures is better not wrapped."""


def error_line(message: str) -> None:
    """One line on standard error, without markup."""
    sys.stderr.write("error: " + " ".join(str(message).split()) + "\n")


class Bar:
    """A `mlff_sim.progress.Progress` drawn with rich.

    Args:
        bar: the drawn bar.
        unit: what is counted, e.g. "steps".
        scale: simulated ps per unit, or 0; shown as ps/min.
    """

    def __init__(self, bar: Progress, unit: str, scale: float = 0.0) -> None:
        """Add the task."""
        self._bar, self._unit, self._scale = bar, unit, scale
        self._task = bar.add_task("starting", total=None, rate="")
        self._note, self._origin = "", (0.0, time.perf_counter())

    def update(self, done: float, total: float, note: str = "") -> None:
        """Move the bar; negative `done` counts towards a start."""
        if note != self._note:
            self._note, self._origin = note, (done, time.perf_counter())
        seconds = time.perf_counter() - self._origin[1]
        rate = (done - self._origin[0]) / seconds if seconds > 0.5 else 0.0
        text = (
            ""
            if not rate
            else f"{60 * rate * self._scale:.3g} ps/min"
            if self._scale
            else ""
            if self._unit == "s"
            else f"{rate:.3g} {self._unit}/s"
        )
        self._bar.update(self._task, description=note or "working", completed=max(done, 0.0), total=total, rate=text)


@contextmanager
def progress_bar(unit: str, scale: float = 0.0) -> Iterator[Bar]:
    """A bar on standard error with rate and time left; nothing at all where that is no terminal."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        yield Bar(bar, unit, scale)


def quiet_threads() -> None:
    """Default to one OpenMP thread, before any library that reads the variable is loaded."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")


def writable_folder(out: Path, option: str = "--out") -> None:
    """Refuse a folder that cannot be made or written into, before any work is done.

    Raises:
        InputError: it is a file, or may not be written.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{option} {out} is a file; give a folder.")
    above = next(p for p in (out, *out.absolute().parents) if p.exists())
    if not (above.is_dir() and os.access(above, os.W_OK)):
        raise InputError(f"{option} {out} cannot be written: {above} is no folder that you may write to; give another.")


def writable_file(out: Path, option: str = "--out") -> None:
    """Refuse a file that cannot be made where it is asked for, before any work is done.

    Raises:
        InputError: it is a folder, or in one that does not exist.
    """
    if not out.parent.is_dir():
        raise InputError(f"the folder of {option} {out} does not exist.")
    if out.is_dir():
        raise InputError(f"{option} {out} is a folder; give a file.")
