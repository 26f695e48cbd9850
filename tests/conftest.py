"""What the tests share: molecules, toy force fields with exact answers, small students, and the command line."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy and torch read it

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms

from mlff_sim.forces import Array, Evaluation, ForceProvider
from mlff_sim.integrators.force_table import ForceTable
from mlff_sim.models.registry import load_model
from mlff_sim.runfolder import RunWriter
from mlff_sim.simulation import RunConfig, run
from mlff_sim.state import State, maxwell_boltzmann
from mlff_sim.structure import read_structure
from mlff_sim.units import KB


class Trap:
    """Independent oscillators U = sum kappa x^2 / 2 about the origin, all alike or kappa (n, 1): every one has an exact solution."""

    name, cutoff, dtype, conservative, batched = "trap", None, "float64", True, True

    def __init__(self, atoms: int, kappa: Any) -> None:
        self.numbers, self.kappa = np.ones(atoms, dtype=np.int64), kappa

    @property
    def provenance(self) -> Mapping[str, Any]:
        return {"name": self.name, "kappa": self.kappa}

    def reset(self) -> None:
        pass

    def __call__(self, positions: Array, cell: Array | None = None, /) -> Evaluation:
        return Evaluation(0.5 * (self.kappa * positions**2).sum((-1, -2)), -self.kappa * positions)


KT = KB * 300.0


class Well:
    """U = barrier (x^2 - 1)^2 + tilt x + kappa (y^2 + z^2) / 2 for one atom: two wells of different depth along x."""

    cutoff, dtype, conservative, batched = None, "float64", True, True

    def __init__(self, barrier: float, tilt: float, name: str = "well") -> None:
        self.numbers, self.barrier, self.tilt, self.name = np.array([1]), barrier * KT, tilt * KT, name

    @property
    def provenance(self) -> Mapping[str, Any]:
        return {"name": self.name}

    def reset(self) -> None:
        pass

    def energy(self, x: Any) -> Any:
        return self.barrier * (x**2 - 1) ** 2 + self.tilt * x

    def __call__(self, positions: Array, cell: Array | None = None, /) -> Evaluation:
        x, rest = positions[..., 0], positions[..., 1:]
        forces = np.concatenate([-(4 * self.barrier * x * (x**2 - 1) + self.tilt)[..., None], -KT * rest], axis=-1)
        return Evaluation((self.energy(x) + 0.5 * KT * (rest**2).sum(-1)).sum(-1), forces)


class Counted:
    """Another provider, and the positions of every structure it was asked about."""

    def __init__(self, inner: ForceProvider) -> None:
        self.inner, self.asked, self.calls = inner, [], 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def __call__(self, positions: Array, cell: Array | None = None, /) -> Evaluation:
        self.calls += 1
        self.asked.extend(positions.reshape(-1, *positions.shape[-2:]).copy())
        return self.inner(positions, cell)


@dataclass(frozen=True)
class Toys:
    """The helper classes, for tests to build their own."""

    trap: type[Trap] = Trap
    counted: type[Counted] = Counted


@pytest.fixture(scope="session")
def toys() -> Toys:
    return Toys()


@pytest.fixture(scope="session")
def ethanol() -> Iterator[Atoms]:
    """The same for all tests, and so not to be changed; a test that does is told at the end."""
    atoms = read_structure("ethanol")
    before = atoms.get_positions()
    yield atoms
    assert np.array_equal(atoms.positions, before), "a test has moved the ethanol that all tests share"


@pytest.fixture
def gfn2(ethanol: Atoms) -> ForceProvider:
    """A fresh GFN2-xTB, without anything remembered."""
    return load_model("gfn2-xtb", ethanol)


@pytest.fixture
def thermal(ethanol: Atoms) -> Callable[..., State]:
    """States of ethanol at its minimum with momenta drawn at a temperature, total momentum zero."""

    def make(replicas: int = 1, temperature_K: float = 300.0, seed: int = 7) -> State:
        rng, masses = np.random.default_rng(seed), ethanol.get_masses()
        momenta = [maxwell_boltzmann(masses, temperature_K, rng, remove_com=True) for _ in range(replicas)]
        return State(np.repeat(ethanol.get_positions()[None], replicas, axis=0), np.array(momenta))

    return make


@pytest.fixture
def two_models() -> Callable[..., ForceTable]:
    """The force table of two-model dynamics: teacher, student and their difference, the residual."""

    def make(teacher: ForceProvider, student: ForceProvider) -> ForceTable:
        return ForceTable({"teacher": teacher, "student": student}, {"residual": ("teacher", "student")})

    return make


@pytest.fixture(scope="session")
def make_student() -> Callable[..., Any]:
    """Untrained students with inputs standardised about the structure and forces of a few tenths of eV/A."""
    import torch

    from mlff_sim.models.student import InverseDistanceNet, Student

    torch.set_num_threads(1)

    def make(atoms: Atoms, widths: Sequence[int] = (16, 16), dtype: str = "float32", seed: int = 0) -> Student:
        torch.manual_seed(seed)
        rng = np.random.default_rng(seed)
        network = InverseDistanceNet(len(atoms), widths)
        frames = atoms.get_positions() + 0.05 * rng.standard_normal((200, len(atoms), 3))
        network.set_statistics(
            torch.from_numpy(frames).float(), torch.from_numpy(0.5 * rng.standard_normal(200)).float()
        )
        record = {
            "species": atoms.get_chemical_formula("hill"),
            "labels": 200,
            "seconds": {"teacher": 1.5, "training": 2.25},
        }
        return Student(network.to(getattr(torch, dtype)), atoms.numbers, -312.5, record)

    return make


@pytest.fixture(scope="session")
def student_file(make_student: Callable[..., Any], ethanol: Atoms, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a small untrained student of ethanol; not to be changed."""
    from mlff_sim.models.checkpoint import save_student

    path = tmp_path_factory.mktemp("student") / "ethanol.student"
    save_student(make_student(ethanol), path)
    return path


@pytest.fixture
def cut_and_resumed(monkeypatch: pytest.MonkeyPatch) -> Callable[[RunConfig, Path], Path]:
    """Makes a run that is interrupted after its third segment, and then taken up to its end."""

    def made(config: RunConfig, folder: Path) -> Path:
        segment, written = RunWriter.segment, []

        def cut(self: RunWriter, *args: Any) -> None:
            segment(self, *args)
            written.append(1)
            if len(written) == 3:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(RunWriter, "segment", cut)
            with pytest.raises(KeyboardInterrupt):
                run(config, folder)
        return run(config, folder, resume=True)

    return made


@pytest.fixture(scope="session")
def predictor_file(ethanol: Atoms, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained predictor that hardly moves the atoms: its draws are mostly taken."""
    import torch

    from mlff_sim.predictors.file import save_predictor
    from mlff_sim.predictors.network import Architecture, PredictorNet

    torch.manual_seed(0)
    net = PredictorNet(Architecture("egnn", 16, 4, 2, 2), 2)
    with torch.no_grad():
        net.read.weight.mul_(0.05)
        net.read.weight[1] *= 400
    path = tmp_path_factory.mktemp("predictor") / "small.predictor"
    record = {"macro_steps": [20, 40], "timestep_fs": 0.5, "elements": [1, 6, 8], "largest": 9}
    save_predictor(net, record, path)
    return path


@dataclass(frozen=True)
class Outcome:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """The one line on standard error that a mistake in the input is worth."""
        assert self.err.startswith("error: ") and self.err.count("\n") == 1 and self.err.endswith("\n"), self.err
        return self.err.removeprefix("error: ").rstrip("\n")


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run the command in this process; file descriptors are captured, so libraries that print are heard too."""
    from mlff_sim.cli.main import main

    def run(*arguments: object) -> Outcome:
        capfd.readouterr()
        with pytest.raises(SystemExit) as exit:
            main([str(a) for a in arguments])
        said = capfd.readouterr()
        return Outcome(int(exit.value.code or 0), said.out, said.err)

    return run


@pytest.fixture(scope="session")
def start() -> Callable[..., subprocess.Popen[str]]:
    """Start the command as a process of its own."""

    def run(*arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "mlff_sim.cli.main", *(str(a) for a in arguments)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return run


@pytest.fixture(scope="session")
def shell(start: Callable[..., subprocess.Popen[str]]) -> Callable[..., Outcome]:
    """Run the command as a process of its own to its end."""

    def run(*arguments: object) -> Outcome:
        process = start(*arguments)
        out, err = process.communicate(timeout=300)
        return Outcome(process.returncode, out, err)

    return run


def memory(rng: np.random.Generator, shape: tuple[int, ...], tau: float) -> Array:
    """Stationary AR(1) series along the first axis, unit variance, correlation exp(-t / tau)."""
    a = np.exp(-1.0 / tau)
    noise = np.sqrt(1 - a * a) * rng.standard_normal(shape)
    noise[0] /= np.sqrt(1 - a * a)
    from scipy.signal import lfilter

    out: Array = lfilter([1.0], [1.0, -a], noise, axis=0)
    return out


def states(rng: np.random.Generator, shape: tuple[int, int], populations: list[float], tau: float) -> Array:
    """A Markov chain along the first axis that draws a new state with probability 1 / tau."""
    drawn = rng.choice(len(populations), size=shape, p=populations)
    fresh = rng.random(shape) < 1.0 / tau
    fresh[0] = True
    latest = np.maximum.accumulate(np.where(fresh, np.arange(shape[0])[:, None], 0), axis=0)
    out: Array = np.take_along_axis(drawn, latest, axis=0)
    return out


def turned(x: Array, start: Array, end: Array, angle: Array) -> Array:
    """Points (..., 3) turned about the axis from start to end by an angle in radians (...), Rodrigues' formula."""
    k = (end - start) / np.linalg.norm(end - start)
    v, c, s = x - start, np.cos(angle)[..., None], np.sin(angle)[..., None]
    out: Array = start + v * c + np.cross(k, v) * s + k * (v @ k)[..., None] * (1 - c)
    return out


@pytest.fixture(scope="session")
def make_run(ethanol: Atoms) -> Callable[..., Array]:
    """Runs of an ethanol whose atoms scatter by 0.03 A with a memory, whose methyl turns and whose hydroxyl has two wells.

    In the second well the oxygen sits 0.08 A elsewhere, which opens the angle C-C-O, as gauche and trans do.
    """

    def make(
        frames: int = 1000,
        replicas: int = 4,
        *,
        seed: int,
        tau: float = 3.0,
        hop: float = 1e9,
        methyl: float = 1e9,
        populations: tuple[float, float] = (0.6, 0.4),
    ) -> Array:
        rng = np.random.default_rng(seed)
        start = ethanol.get_positions()
        x = np.broadcast_to(start, (frames, replicas, *start.shape)).copy()
        shape = (frames, replicas)
        if hop < 1e8:
            well = states(rng, shape, list(populations), hop)
            x[:, :, 8] = turned(start[8], start[1], start[2], well * np.radians(120.0))
            away = start[2] - start[0]
            x[:, :, [2, 8]] += (well[..., None] * 0.08 * away / np.linalg.norm(away))[:, :, None]
        if methyl < 1e8:
            turn = np.radians(120.0) * states(rng, shape, [1 / 3] * 3, methyl)
            for h in (3, 4, 5):
                x[:, :, h] = turned(start[h], start[1], start[0], turn)
        return x + 0.03 * memory(rng, x.shape, tau)

    return make
