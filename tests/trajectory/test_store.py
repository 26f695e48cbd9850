"""Any number of frames in memory of one size: what is kept is evenly spaced, and numbers of every frame stay."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from files import Truth, springs, write_dcd, write_extxyz, write_pdb

from mlff_sim.trajectory import ReadOptions, read_files
from mlff_sim.trajectory.frame import Frame
from mlff_sim.trajectory.store import FEWEST, WINDOW, Store


def frame(index: int, replica: int = 0) -> Frame:
    """Its positions say which it is."""
    return Frame(
        np.full((2, 3), float(index) + 1e6 * replica), np.full((2, 3), -float(index)), None, {"time_ps": 0.5 * index}
    )


@pytest.mark.parametrize("frames", [1, 2, 63, 64, 65, 127, 128, 129, 1000, 4095, 4097])
def test_every_so_many_frames_are_kept_from_the_first_on(frames: int) -> None:
    store = Store(1, memory=0)
    for index in range(frames):
        store.put(0, frame(index), "file")
    rows, stride = store.align(), store.stride[0]
    assert store.capacity == FEWEST
    assert stride == max(1, 2 ** int(np.ceil(np.log2(frames / FEWEST))))
    expected = np.arange(0, frames, stride)
    np.testing.assert_array_equal(store.buffers["positions"][:rows, 0, 0, 0], expected)
    np.testing.assert_array_equal(store.buffers["momenta"][:rows, 0, 1, 2], -expected)
    np.testing.assert_array_equal(np.array(store.scalars[0]["time_ps"]), 0.5 * np.arange(frames))
    found = store.window()
    assert found is not None
    begin, window = found
    size = frames if stride == 1 else FEWEST // WINDOW
    np.testing.assert_array_equal(window["positions"][:, 0, 0, 0], begin + np.arange(size))


def test_replicas_of_different_lengths_come_to_one_stride() -> None:
    """The window is there where all replicas reach it."""
    for lengths, stride, rows, window in (
        ((300, 40), 8, 5, False),
        ((300, 64), 8, 8, True),
        ((50, 300, 200), 8, 7, False),
    ):
        store = Store(len(lengths), memory=0)
        for replica, length in enumerate(lengths):
            for index in range(length):
                store.put(replica, frame(index, replica), "file")
        assert store.align() == rows
        assert set(store.stride) == {stride}
        for replica in range(len(lengths)):
            np.testing.assert_array_equal(
                store.buffers["positions"][:rows, replica, 0, 0], stride * np.arange(rows) + 1e6 * replica
            )
        assert (store.window() is not None) is window


def test_a_long_file_is_read_in_little_memory(tmp_path: Path) -> None:
    """10,000 frames of 9 atoms, 2.2 MB of positions in double precision, with 0.2 MB for them."""
    truth, frames = springs(frames=1000, every=1), 10_000
    x, none = np.tile(truth.positions, (10, 1, 1)), np.empty(0)
    many = Truth(truth.atoms, 0.0005 * np.arange(frames), x, none, none, none)
    write_dcd(many, tmp_path / "a.dcd")
    write_pdb(many, tmp_path / "a.pdb")
    files = [tmp_path / "a.dcd", tmp_path / "a.pdb"]
    read_files(files, ReadOptions(memory_MB=0.01))  # what is imported counts once
    tracemalloc.start()
    run = read_files(files, ReadOptions(memory_MB=0.2))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Beside them the time of each frame, a few copies of that, and one of what was kept.
    assert peak < 2 * 0.2e6 + 8 * 8 * frames
    # A quarter of the memory is the window's.
    capacity = 2 * int(0.2e6 / (1.25 * 9 * 3 * 8) / 2)
    assert run.stride == 2 ** int(np.ceil(np.log2(frames / capacity))) == 16
    assert len(run.every["time_ps"]) == frames
    assert run.window is not None
    single = 2.0**-24 * np.abs(x).max()
    np.testing.assert_allclose(run.positions[:, 0], x[::16], atol=single)
    assert run.time_ps is not None
    np.testing.assert_allclose(run.time_ps, many.time_ps[::16], rtol=2.0**-23)
    assert run.window.time_ps is not None
    begin = round(run.window.time_ps[0] / 0.0005)
    assert begin == capacity - capacity // WINDOW
    np.testing.assert_allclose(run.window.positions[:, 0], x[begin : begin + capacity // WINDOW], atol=single)
    assert any("every 16th frame were kept (625 of 10000)" in n for n in run.settings["notes"])


def test_thinning_changes_nothing_but_the_frames(tmp_path: Path) -> None:
    truth = springs(frames=400)
    write_extxyz(truth, tmp_path / "a.extxyz")
    whole, thin = (read_files([tmp_path / "a.extxyz"], ReadOptions(memory_MB=mb)) for mb in (200.0, 0.01))
    assert thin.stride == 8
    for name in ("time_ps", "conserved", "potential_energy", "positions", "momenta"):
        np.testing.assert_array_equal(getattr(thin, name), getattr(whole, name)[::8])
    for name, series in whole.every.items():
        np.testing.assert_array_equal(thin.every[name], series)
    np.testing.assert_array_equal(replace(whole).every["total_energy"][:, 0], whole.conserved[:, 0])
