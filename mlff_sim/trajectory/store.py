"""Frames of any number in memory of one size.

Numbers of each frame (time, energies) are all kept. Positions and momenta fill a buffer; when it is full every second
frame in it is dropped, and from then on only every second one comes in. What is kept is always evenly spaced, from the
first frame on. The frames that were consecutive when that happened first are kept apart, for whatever needs all of them.
"""

from __future__ import annotations

from array import array

import numpy as np

from mlff_sim.errors import InputError
from mlff_sim.forces import Array
from mlff_sim.trajectory.frame import Frame

FEWEST = 64
"""Frames that are kept however large they are."""
WINDOW = 4
"""The window of consecutive frames is the buffer's size over this."""


class Store:
    """Takes frames of several replicas, one replica after the other.

    Args:
        replicas: how many there will be.
        memory: bytes that positions, momenta and cells may take together.
    """

    def __init__(self, replicas: int, memory: int) -> None:
        """The buffers are made when the first frame shows what it holds."""
        self.replicas, self.memory = replicas, memory
        self.capacity = 0
        self.stride = [1] * replicas
        self.frames = [0] * replicas
        self.scalars: list[dict[str, array[float]]] = [{} for _ in range(replicas)]
        self.dropped: list[set[str]] = [set() for _ in range(replicas)]
        self.buffers: dict[str, Array] = {}
        self.windows: dict[str, Array] = {}

    def put(self, replica: int, frame: Frame, name: str) -> None:
        """Take the next frame of a replica; `name` is its file's, for errors.

        Raises:
            InputError: it has no velocities or no cell and others have, or the other way round.
        """
        parts = {"positions": frame.positions, "momenta": frame.momenta, "cells": frame.cell}
        arrays = {k: v for k, v in parts.items() if v is not None}
        if not self.buffers:
            self._allocate(arrays)
        index, words = self.frames[replica], {"momenta": "velocities", "cells": "a periodic cell"}
        for part in sorted(arrays.keys() ^ self.buffers.keys()):
            have, first = ("no ", "") if part in self.buffers else ("", "no ")
            raise InputError(
                f"frame {index} of '{name}' has {have}{words[part]} and the first frame read has {first}{words[part]}; "
                "give frames that hold the same."
            )
        self._count(replica, index, frame)
        if index % self.stride[replica] == 0:
            if index // self.stride[replica] == self.capacity:
                self._halve(replica)
            for part, value in arrays.items():
                self.buffers[part][index // self.stride[replica], replica] = value
        self.frames[replica] += 1

    def _allocate(self, arrays: dict[str, Array]) -> None:
        each = sum(8 * v.size for v in arrays.values()) * self.replicas * (1.0 + 1.0 / WINDOW)
        self.capacity = 2 * (max(FEWEST, int(self.memory / each)) // 2)
        # The operating system hands out memory where it is written to: short files take little of this.
        shapes = {part: (self.replicas, *v.shape) for part, v in arrays.items()}
        self.buffers = {part: np.empty((self.capacity, *shape)) for part, shape in shapes.items()}
        self.windows = {part: np.empty((self.capacity // WINDOW, *shape)) for part, shape in shapes.items()}

    def _count(self, replica: int, index: int, frame: Frame) -> None:
        """Keep the numbers of a frame; those that a frame lacks are dropped for all."""
        kept = self.scalars[replica]
        if index == 0:
            kept.update({name: array("d") for name in frame.scalars})
        for name in list(kept):
            if name in frame.scalars:
                kept[name].append(frame.scalars[name])
            else:
                del kept[name]
                self.dropped[replica].add(name)

    def _halve(self, replica: int) -> None:
        """Drop every second frame of a replica; the first time, keep the last ones that were consecutive."""
        for part, buffer in self.buffers.items():
            if self.stride[replica] == 1:
                self.windows[part][:, replica] = buffer[len(buffer) - len(self.windows[part]) :, replica]
            for row in range(1, self.capacity // 2):
                buffer[row, replica] = buffer[2 * row, replica]
        self.stride[replica] *= 2

    def align(self) -> int:
        """Bring all replicas to one stride; the number of frames that they all have, of those kept."""
        widest = max(self.stride)
        for replica in range(self.replicas):
            while self.stride[replica] < widest:
                self._halve(replica)
        return (min(self.frames) - 1) // widest + 1

    def window(self) -> tuple[int, dict[str, Array]] | None:
        """First frame and arrays of the consecutive ones; None where a replica ended before them."""
        if max(self.stride) == 1:
            rows = min(self.frames)
            return 0, {part: buffer[:rows] for part, buffer in self.buffers.items()}
        if min(self.frames) < self.capacity:
            return None
        return self.capacity - self.capacity // WINDOW, self.windows
