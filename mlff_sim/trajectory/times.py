"""When each frame was: what the files say, what the user says, and whether it can be so."""

from __future__ import annotations

import numpy as np

from mlff_sim.errors import InputError
from mlff_sim.forces import Array

EVEN = 0.02
"""Share of the time between frames by which one may be off: more than rounding of printed times."""
SINGLE = 4.0 * float(np.finfo(np.float32).eps)
"""Rounding of times kept in single precision, relative to the time, with room for the difference of two."""


def frame_times(written: Array | None, frames: int, frame_ps: float | None, notes: list[str]) -> Array | None:
    """Times in ps, shape (frames, replicas); None where neither the files nor the user know them.

    Args:
        written: ps, by the files, shape (frames, replicas), or None.
        frames: how many there are.
        frame_ps: the user's time between frames, which wins.
        notes: is told where the two differ, and of uneven frames.

    Raises:
        InputError: times do not increase.
    """
    if frame_ps is not None:
        if written is not None and frames > 1:
            own = float(np.median(np.diff(written[:, 0])))
            if abs(own - frame_ps) > EVEN * frame_ps:
                notes.append(f"The files say {own:g} ps between frames; {frame_ps:g} was given and used.")
        return frame_ps * np.arange(frames, dtype=np.float64)[:, None]
    if written is None or frames < 2:
        return written
    steps = np.diff(written, axis=0)
    if np.any(steps <= 0):
        frame, replica = (int(k) for k in np.argwhere(steps <= 0)[0])
        raise InputError(
            f"times do not increase: frame {frame + 1} is at {written[frame + 1, replica]:g} ps and the one before at "
            f"{written[frame, replica]:g}; remove repeated frames, or give the time between frames (frame_ps)."
        )
    middle = float(np.median(steps))
    if np.abs(steps - middle).max() > EVEN * middle + SINGLE * np.abs(written).max():
        notes.append(
            f"Frames are not evenly spaced ({steps.min():g} to {steps.max():g} ps), which correlation times take them to be."
        )
    return written


def same_clock(times: Array, names: list[str]) -> None:
    """Refuse replicas that were recorded at other intervals, and files that are parts of one run.

    Args:
        times: ps, shape (frames, replicas).
        names: of the files.

    Raises:
        InputError: naming the two.
    """
    if len(times) < 2:
        return
    step = float(np.median(np.diff(times[:, 0])))
    slack = EVEN * step + SINGLE * np.abs(times).max()
    for r in range(1, times.shape[1]):
        if np.abs((times[:, r] - times[0, r]) - (times[:, 0] - times[0, 0])).max() > slack:
            raise InputError(
                f"'{names[0]}' and '{names[r]}' were recorded at different times; replicas need the same time between frames."
            )
        for a, b in ((0, r), (r, 0)):
            if 0 <= times[0, b] - times[-1, a] <= 1.5 * step:
                raise InputError(
                    f"'{names[b]}' begins where '{names[a]}' ends: parts of one run, not replicas; join them into one file."
                )
