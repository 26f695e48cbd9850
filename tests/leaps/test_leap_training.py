"""Generating functions learnt from pairs of states, and kept in files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mlff_sim.errors import InputError
from mlff_sim.forces import Array
from mlff_sim.leaps.file import load_generating, save_generating
from mlff_sim.leaps.generating import GeneratingNet, Generator
from mlff_sim.leaps.midpoint import solve
from mlff_sim.leaps.training import Midpoints, errors, midpoints, train
from mlff_sim.state import State
from mlff_sim.units import FS, KB

NUMBERS, MASSES = np.array([8, 1]), np.array([16.0, 1.0])
STIFF = 48.0  # eV/A^2: w = 7.1 / internal time, 3720 1/cm, a period of 9.0 fs


def diatomic(frames: int, frame_fs: float, replicas: int, seed: int = 0) -> tuple[Array, Array]:
    """Exact dynamics of O-H on a spring along x, not turning, with its centre at rest: positions and momenta."""
    rng, kT = np.random.default_rng(seed), KB * 300.0
    mu = MASSES.prod() / MASSES.sum()
    omega = np.sqrt(STIFF / mu)
    r, s = rng.standard_normal((2, replicas)) * np.sqrt([[kT / STIFF], [kT / mu]])
    t = np.arange(frames)[:, None] * frame_fs * FS
    length = 0.97 + r * np.cos(omega * t) + s / omega * np.sin(omega * t)
    speed = s * np.cos(omega * t) - r * omega * np.sin(omega * t)
    q, p = np.zeros((2, frames, replicas, 2, 3))
    q[..., 0, 0], q[..., 1, 0] = -length * mu / MASSES[0], length * mu / MASSES[1]
    p[..., 0, 0], p[..., 1, 0] = -speed * mu, speed * mu
    return q, p


@pytest.fixture(scope="module")
def learnt() -> tuple[GeneratingNet, Midpoints]:
    """A network of the stride of 3 fs, w h = 2.1, trained for 250 steps."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    data = midpoints(*diatomic(60, 1.0, 40), 1.0, 3.0, NUMBERS, MASSES)
    network = GeneratingNet([1, 8], channels=8)
    assert train(network, data, 1.0, steps=250, learning_rate=1e-2)[0] == 250
    return network, data


def test_midpoints_of_an_oscillator_are_known() -> None:
    """dN/dq is (2 / w h) tan(w h / 2) times the force of the spring at the midpoint, dN/dp that less one times the velocity."""
    data = midpoints(*diatomic(10, 1.0, 5), 1.0, 3.0, NUMBERS, MASSES)
    mu = MASSES.prod() / MASSES.sum()
    half = np.sqrt(STIFF / mu) * 3.0 * FS / 2
    factor = np.tan(half) / half
    assert len(data) == 7 * 5 and factor > 1.5
    stretch = data.q[:, 1, 0] - data.q[:, 0, 0] - 0.97
    np.testing.assert_allclose(data.force[:, 1, 0], -factor * STIFF * stretch, atol=1e-12)
    np.testing.assert_allclose(data.excess[:, 1, 0], (factor - 1) * data.p[:, 1, 0] / MASSES[1], atol=1e-12)


def test_a_network_learns_a_stride_and_then_leaps(learnt: tuple[GeneratingNet, Midpoints]) -> None:
    """Trained without solving; solved, it follows the exact motion to a hundredth of how far the atoms move.

    The midpoint rule of the true spring is wrong here by the angle w h - 2 arctan(w h / 2) = 0.5, a quarter of the way.
    """
    network, data = learnt
    mae, relative = errors(network, data)
    assert relative < 0.02 and mae < 0.02 * 1e3 * np.sqrt((data.force**2).mean())
    q, p = diatomic(4, 1.0, 50, seed=1)
    start, exact = State(q[0], p[0]), State(q[3], p[3])

    def missed(gradient: Any) -> float:
        got = solve(gradient, start, MASSES, 3.0 * FS)
        assert got.solved.all()
        return float(np.sqrt(((got.state.positions - exact.positions) ** 2).mean()))

    def spring(at: Array, momenta: Array) -> tuple[Array, Array]:
        d = at[:, 1] - at[:, 0]
        r = np.linalg.norm(d, axis=1, keepdims=True)
        pull = STIFF * (r - 0.97) * d / r
        return 3.0 * FS * np.stack([-pull, pull], axis=1), 3.0 * FS * momenta / MASSES[:, None]

    moved = float(np.sqrt(((start.positions - exact.positions) ** 2).mean()))
    assert missed(Generator(network, NUMBERS, MASSES, 3.0)) < 0.01 * moved
    assert missed(spring) > 0.1 * moved


def test_bad_pairs_are_refused() -> None:
    q, p = diatomic(5, 1.0, 2)
    with pytest.raises(InputError, match=r"stride 2\.5 fs is no whole number of frames of 1 fs; the nearest is 2 fs"):
        midpoints(q, p, 1.0, 2.5, NUMBERS, MASSES)
    with pytest.raises(InputError, match=r"stride 5 fs is longer than the trajectory of 4 fs"):
        midpoints(q, p, 1.0, 5.0, NUMBERS, MASSES)


def test_a_file_gives_back_the_same_leap(tmp_path: Path, learnt: tuple[GeneratingNet, Midpoints]) -> None:
    network, data = learnt
    path = tmp_path / "oh.leap"
    save_generating(network, 3.0, path, {"molecule": "OH"})
    again, record = load_generating(path)
    assert record["stride_fs"] == 3.0 and record["molecule"] == "OH"
    q, p = data.q[:3], data.p[:3]
    for a, b in zip(
        Generator(network, NUMBERS, MASSES, 3.0)(q, p), Generator(again, NUMBERS, MASSES, 3.0)(q, p), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(InputError, match="does not know the element C; it knows H, O"):
        Generator(again, np.array([6, 1]), MASSES, 3.0)


def test_files_that_are_none(tmp_path: Path, learnt: tuple[GeneratingNet, Midpoints]) -> None:
    """One line each, before anything is computed."""
    good = tmp_path / "good"
    save_generating(learnt[0], 3.0, good, {})
    blob = good.read_bytes()
    (tmp_path / "short").write_bytes(blob[: len(blob) // 2])
    save_file({"x": torch.zeros(1)}, tmp_path / "foreign")
    tensors = learnt[0].state_dict()
    record: dict[str, Any] = load_generating(good)[1]

    def write(name: str, changes: dict[str, Any], weights: dict[str, torch.Tensor]) -> None:
        save_file(weights, tmp_path / name, metadata={"mlff_sim": json.dumps({**record, **changes})})

    write("newer", {"version": 99}, tensors)
    write("no stride", {"stride_fs": 0.0}, tensors)
    write("other size", {"architecture": {**record["architecture"], "channels": 9}}, tensors)
    write("nan", {}, {**tensors, "mix.weight": tensors["mix.weight"] * np.nan})
    for name, what in (
        ("absent", "does not exist"),
        ("short", "truncated"),
        ("foreign", "without a generating-function record"),
        ("newer", "format mlff-sim-generating-function 99"),
        ("no stride", "corrupted"),
        ("other size", "corrupted"),
        ("nan", "not finite"),
    ):
        with pytest.raises(InputError, match=what) as refused:
            load_generating(tmp_path / name)
        assert "\n" not in str(refused.value)
