"""The run loop: two-model RESPA or plain dynamics, with its clock, guards, checkpoints and the baseline beside it."""

from __future__ import annotations

import copy
import json
import os
import time
from collections import deque
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlff_sim.errors import InputError, NonFinite, SimulationStopped
from mlff_sim.forces import Array, Evaluation, ForceProvider
from mlff_sim.integrators.force_table import ForceTable
from mlff_sim.integrators.schemes import Scheme, baoab, respa, verlet
from mlff_sim.integrators.stepper import Langevin, Stepper
from mlff_sim.models.registry import load_model, resolve
from mlff_sim.progress import Progress, Silent
from mlff_sim.runfolder import FORMAT, VERSION, RunWriter, hardware, read_settings, versions
from mlff_sim.state import State, kinetic_energy, maxwell_boltzmann, temperature_by_group
from mlff_sim.structure import covalent_bonds, read_structures
from mlff_sim.units import FS, KB

if TYPE_CHECKING:
    from ase import Atoms

ENSEMBLES = ("nve", "nvt")
SCHEMES = ("respa",)
CHECKPOINT_STEPS = 200
"""Outer steps between checkpoints, at least; fixed by the settings, because the teacher's memory is dropped there."""
BASELINE_STEPS = 25
"""Timed all-teacher steps in one baseline block, after as many untimed ones at the start of the block."""
BASELINE_BLOCKS = 8
"""Baseline blocks in a run, at most."""


@dataclass(frozen=True)
class RunConfig:
    """Settings of one run; two runs with equal settings are the same run.

    Attributes:
        structure: structure file, `FILE` or `FILE@INDEX`, or a shipped name.
        teacher: registry name of the model whose physics is wanted.
        student: registry name or file of the cheap model; None for plain dynamics of the teacher alone.
        ensemble: "nve" (velocity Verlet inside) or "nvt" (BAOAB inside).
        timestep_fs: inner time step.
        k_steps: inner steps per teacher call; 1 for plain dynamics.
        duration_ps: of production.
        temperature_K: of the bath, of drawn velocities, and of the guard.
        friction_per_ps: of the bath.
        equilibrate_ps: BAOAB with the same models before production, not recorded.
        every: outer steps between recorded frames; None chooses about 10 fs.
        replicas: copies, each with its own random stream; None takes the number of frames in the structure.
        seed: of everything random.
        baseline: time the all-teacher baseline in alternating blocks.
        scheme: "respa".
        compile: compile the inner loop.
        amp: bfloat16 products in the student's hidden layers.
    """

    structure: str
    teacher: str
    student: str | None = None
    ensemble: str = "nvt"
    timestep_fs: float = 0.5
    k_steps: int = 1
    duration_ps: float = 10.0
    temperature_K: float = 300.0
    friction_per_ps: float = 1.0
    equilibrate_ps: float = 0.0
    every: int | None = None
    replicas: int | None = None
    seed: int = 0
    baseline: bool = True
    scheme: str = "respa"
    compile: bool = True
    amp: bool = False

    def __post_init__(self) -> None:
        """Refuse settings that make no sense, before anything is loaded."""
        if self.ensemble not in ENSEMBLES:
            raise InputError(f"ensemble '{self.ensemble}' is unknown; choose one of: {', '.join(ENSEMBLES)}.")
        if self.scheme not in SCHEMES:
            raise InputError(f"scheme '{self.scheme}' is unknown; choose one of: {', '.join(SCHEMES)}.")
        for name in ("timestep_fs", "duration_ps", "temperature_K"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value > 0):
                raise InputError(f"{name} = {value:g} must be a positive number.")
        for name in ("friction_per_ps", "equilibrate_ps"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value >= 0):
                raise InputError(f"{name} = {value:g} must not be negative.")
        if not isinstance(self.k_steps, int) or self.k_steps < 1:
            raise InputError(f"k_steps = {self.k_steps} must be a whole number of at least 1 (inner steps per teacher call).")
        if self.student is None and self.k_steps != 1:
            raise InputError(f"k_steps = {self.k_steps} needs a student; plain dynamics has k_steps = 1.")
        if self.every is not None and self.every < 1:
            raise InputError(f"every = {self.every} must be at least 1 (outer steps between frames).")
        if self.replicas is not None and self.replicas < 1:
            raise InputError(f"replicas = {self.replicas} must be at least 1.")
        if self.seed < 0:
            raise InputError(f"seed = {self.seed} must not be negative.")
        if self.duration_ps * 1000 < self.outer_step_fs * (1 - 1e-9):
            raise InputError(f"duration {self.duration_ps:g} ps is shorter than one outer step of {self.outer_step_fs:g} fs (k_steps * timestep).")

    @property
    def outer_step_fs(self) -> float:
        """Time between teacher calls, k_steps * timestep_fs."""
        return self.k_steps * self.timestep_fs

    @property
    def outer_steps(self) -> int:
        """Outer steps of production."""
        return max(1, round(self.duration_ps * 1000 / self.outer_step_fs))

    @property
    def frame_steps(self) -> int:
        """Outer steps between recorded frames."""
        return min(self.every or max(1, round(10.0 / self.outer_step_fs)), self.outer_steps)

    @property
    def checkpoint_steps(self) -> int:
        """Outer steps between checkpoints, a whole number of frames."""
        return self.frame_steps * -(-CHECKPOINT_STEPS // self.frame_steps)


@dataclass(frozen=True)
class Timing:
    """Times measured before production, and the speed-up they predict.

    Attributes:
        teacher_ms: teacher call after an outer step (t_e); with a warm start it costs more after a long stride.
        student_inner_us: inner step per replica (t_c).
        baseline_teacher_ms: all-teacher step at the inner stride (t_b).
        predicted_speedup: k t_b / (t_e + k t_c).
    """

    teacher_ms: float
    student_inner_us: float
    baseline_teacher_ms: float
    predicted_speedup: float


class Baseline:
    """All-teacher velocity Verlet at the inner time step, on copies, with a teacher of its own."""

    def __init__(self, config: RunConfig, atoms: Atoms) -> None:
        """Load the second teacher."""
        self.table = ForceTable({"teacher": load_model(config.teacher, atoms)})
        self.config, self.masses = config, atoms.get_masses()

    def block(self, state: State) -> float:
        """Seconds per step of one replica, started from a copy of its present state."""
        self.table.reset()
        one = State(state.positions[:1].copy(), state.momenta[:1].copy())
        stepper = Stepper(verlet("teacher"), self.config.timestep_fs * FS, self.masses, self.table, one)
        for _ in range(BASELINE_STEPS):  # a new SCF needs a few calls until its warm starts are warm
            stepper.step()
        start = time.perf_counter()
        for _ in range(BASELINE_STEPS):
            stepper.step()
        return (time.perf_counter() - start) / BASELINE_STEPS


class Guard:
    """Stops a run whose forces are not finite or whose temperature has run away.

    The limit on the kinetic temperature of a replica is T (1 + 8 sqrt(2 / dof)), eight standard deviations of the
    canonical kinetic energy above the higher of the target and the start.
    """

    rule_temperature = "temperature runs away"

    def __init__(self, masses: Array, state: State, temperature_K: float) -> None:
        """Set the limit from the start."""
        self.masses = masses
        self.dof = 3 * len(masses)
        start = float(self.temperature(state).max())
        self.limit_K = max(temperature_K, start) * (1 + 8 * np.sqrt(2 / self.dof))

    def temperature(self, state: State) -> Array:
        """Kinetic temperature of each replica, K."""
        return 2 * kinetic_energy(state.momenta, self.masses) / (self.dof * KB)

    def check(self, state: State, step: int) -> None:
        """Raise `SimulationStopped` when a rule is broken."""
        temperature = self.temperature(state)
        if not (temperature < self.limit_K).all():  # a NaN fails this comparison too
            r = int(np.argmax(~(temperature < self.limit_K)))
            p = state.momenta[r]
            finite = np.isfinite(p).all(axis=1)
            if not finite.all():
                atom = int(np.argmin(finite))
                raise SimulationStopped("forces must be finite", step, r, atom, f"the momentum of atom {atom} is not a number")
            atom = int(np.argmax((p * p).sum(axis=1) / self.masses))
            raise SimulationStopped(self.rule_temperature, step, r, atom, f"{temperature[r]:.0f} K exceeds {self.limit_K:.0f} K; atom {atom} is the hottest; try a shorter outer step or more friction")


class Run:
    """One run, from its settings to a finished folder.

    Args:
        config: what to do.
        out: run folder.
        resume: continue what is there.
        progress: told outer steps.
    """

    def __init__(self, config: RunConfig, out: str | Path, *, resume: bool = False, progress: Progress | None = None) -> None:
        """Check everything that can be checked, cheap things first, then load the models. Nothing is written yet."""
        self.config, self.progress = config, progress or Silent()
        student = config.student
        if student is not None and ":" not in student:
            student = f"student:{student}"
        for name in (config.teacher, student):
            if name is not None:
                resolve(name)
        frames = read_structures(config.structure)
        self.atoms = frames[0]
        if config.replicas is not None and len(frames) not in (1, config.replicas):
            raise InputError(f"'{config.structure}' holds {len(frames)} frames for {config.replicas} replicas; give one frame, or one for each.")
        if any(len(f) != len(self.atoms) or (f.numbers != self.atoms.numbers).any() for f in frames):
            raise InputError(f"the frames of '{config.structure}' differ in their atoms; replicas must be copies of one structure.")
        self.replicas = config.replicas or len(frames)
        self.masses = self.atoms.get_masses()
        self.start, self.com_removed = self._initial_state(frames)
        # The student first: its species are checked without loading torch.
        providers: dict[str, ForceProvider] = {}
        if student is not None:
            providers["student"] = load_model(student, self.atoms)
        providers["teacher"] = load_model(config.teacher, self.atoms)
        self.providers = providers
        self.writer = RunWriter(Path(out), self._settings(), self.atoms)
        self.action = self.writer.check(resume)

    @property
    def status(self) -> str:
        """What the folder says: "finished", "stopped", or "running"."""
        return str(read_settings(self.writer.folder)["status"])

    def _initial_state(self, frames: list[Atoms]) -> tuple[State, bool]:
        config = self.config
        frames = frames if len(frames) == self.replicas else frames * self.replicas
        given = [f.has("momenta") and bool(f.get_momenta().any()) for f in frames]
        if all(given) and self.replicas > 1 and len(set(map(id, frames))) == 1 and config.ensemble == "nve" and not config.equilibrate_ps:
            raise InputError(f"{self.replicas} NVE replicas from one frame with velocities would be copies; give a frame for each (FILE@0:{self.replicas}) or --equilibrate-ps.")
        remove = config.ensemble == "nve" and not all(given)
        momenta = [
            f.get_momenta() if has else maxwell_boltzmann(self.masses, config.temperature_K, np.random.Generator(np.random.PCG64([config.seed, 0, r])), remove_com=remove)
            for r, (f, has) in enumerate(zip(frames, given, strict=True))
        ]
        state = State(np.array([f.get_positions() for f in frames]), np.array(momenta))
        still = bool(np.abs(state.momenta.sum(axis=1)).max() < 1e-6 * np.abs(state.momenta).max())
        return state, config.ensemble == "nve" and still

    def _settings(self) -> dict[str, Any]:
        config = self.config
        return {
            "format": FORMAT,
            "version": VERSION,
            "kind": "hybrid" if config.student else "md",
            **asdict(config),
            "every": config.frame_steps,
            "replicas": self.replicas,
            "outer_step_fs": config.outer_step_fs,
            "com_removed": self.com_removed,
            "structure": {
                "file": config.structure,
                "formula": self.atoms.get_chemical_formula("hill"),
                "numbers": self.atoms.numbers.tolist(),
                "masses": self.masses.tolist(),
                "bonds": covalent_bonds(self.atoms),
            },
            "config": {**asdict(config), "hashes": {name: p.provenance.get("sha256") for name, p in self.providers.items()}, "numbers": self.atoms.numbers.tolist()},
            "models": json.loads(json.dumps({name if config.student else "model": dict(p.provenance) for name, p in self.providers.items()})),
            "versions": versions(),
            "hardware": hardware(),
        }

    def _scheme(self, ensemble: str) -> Scheme:
        inside = baoab if ensemble == "nvt" else verlet
        return respa("residual", inside("student"), self.config.k_steps) if self.config.student else inside("teacher")

    def _stepper(self, ensemble: str, state: State, seed: int, friction_per_ps: float) -> Stepper:
        config = self.config
        difference = {"residual": ("teacher", "student")} if config.student else {}
        table = ForceTable(self.providers, difference)
        bath = Langevin(config.temperature_K, friction_per_ps, seed, self.replicas) if ensemble == "nvt" else None
        arguments = (self._scheme(ensemble), config.outer_step_fs * FS, self.masses, table, state, bath)
        fast = "student" if config.student else "teacher"
        if _is_network(self.providers[fast]):
            from mlff_sim.integrators.fused import FusedStepper

            return FusedStepper(*arguments, fast=fast, compile=config.compile, amp=config.amp)
        return Stepper(*arguments)

    def run(self) -> str:
        """Run to the end; returns "finished". On a finished folder it does nothing.

        Raises:
            SimulationStopped: a guard ended the run; the folder holds everything up to there.
        """
        if self.action == "finished":
            return self.status
        _limit_threads(len(self.atoms))
        self.writer.open()
        saved = self.writer.checkpoint() if self.action == "resume" else None
        try:
            stepper = self._equilibrated() if saved is None else self._stepper(self.config.ensemble, self.start, self.config.seed, self.config.friction_per_ps)
            self.production = _Production(self, stepper, saved)
            self.production.run()
        except SimulationStopped as stop:
            facts = {"rule": stop.rule, "step": stop.step, "replica": stop.replica, "atom": stop.atom, "detail": stop.detail}
            production = getattr(self, "production", None)
            self.writer.finish("stopped", facts, production.summary() if production else None)
            raise
        self.writer.finish("finished", None, self.production.summary())
        return "finished"

    def _equilibrated(self) -> Stepper:
        config = self.config
        state = self.start
        steps = round(config.equilibrate_ps * 1000 / config.outer_step_fs)
        if steps:
            warm = self._stepper("nvt", state, config.seed + 2**32, config.friction_per_ps or 1.0)
            guard = Guard(self.masses, state, config.temperature_K)
            for step in range(1, steps + 1):
                _advance(warm, guard, step)
                self.progress.update(step - steps, config.outer_steps, "equilibration")
            state = warm.state
            if config.ensemble == "nve":
                p = state.momenta
                p = p - self.masses[:, None] * (p.sum(axis=1, keepdims=True) / self.masses.sum())
                state, self.com_removed = State(state.positions, p), True
                self.writer.settings["com_removed"] = True
        for provider in self.providers.values():
            provider.reset()
        return self._stepper(config.ensemble, state, config.seed, config.friction_per_ps)


class _Production:
    """The recorded part of a run."""

    def __init__(self, run: Run, stepper: Stepper, saved: dict[str, Array] | None) -> None:
        self.config, self.masses, self.writer, self.progress = run.config, run.masses, run.writer, run.progress
        self.hybrid = run.config.student is not None
        self.stepper = stepper
        self.step = 0
        self.residual_sum, self.residual_steps = np.zeros(run.replicas), 0
        self.wall: dict[str, list[float]] = {}
        self.rows: dict[str, list[Any]] = {}
        self.baseline = Baseline(run.config, run.atoms) if self.hybrid and run.config.baseline else None
        self.timing: Timing | None = None
        self.seconds = dict.fromkeys(("teacher", "student", "total", "baseline"), 0.0)
        self.teacher_calls = 0
        self.tail: deque[tuple[float, State]] = deque(maxlen=10)
        if saved is not None:
            self._restore(saved)
        self.guard = Guard(run.masses, run.start, run.config.temperature_K)
        if saved is None:
            stepper.forces["teacher"]
            if self.hybrid:
                self.timing = self._probe()
            self._record()

    # What a row holds, and when.

    def _record(self) -> None:
        s, table = self.stepper, self.stepper.forces
        kinetic = kinetic_energy(s.state.momenta, self.masses)
        potential = np.asarray(table["teacher"].energy, dtype=np.float64)
        row: dict[str, Any] = {
            "time_ps": self.step * self.config.outer_step_fs / 1000,
            "potential_energy": potential,
            "kinetic_energy": kinetic,
            "heat": s.heat,
            "conserved": kinetic + potential - s.heat,
            "positions": s.state.positions,
            "momenta": s.state.momenta,
        }
        if self.hybrid:
            if not self.residual_steps:
                self._measure_residual()
            row["residual_mae"] = self.residual_sum / self.residual_steps
            self.residual_sum, self.residual_steps = np.zeros_like(self.residual_sum), 0
        for name, value in row.items():
            self.rows.setdefault(name, []).append(value)

    def _measure_residual(self) -> None:
        self.residual_sum = self.residual_sum + np.abs(self.stepper.forces["residual"].forces).mean(axis=(1, 2))
        self.residual_steps += 1

    def run(self) -> None:
        config, total = self.config, self.config.outer_steps
        blocks = min(BASELINE_BLOCKS, -(-total // config.checkpoint_steps))
        baseline_at = {round(total * (i + 0.5) / blocks / config.checkpoint_steps) * config.checkpoint_steps for i in range(blocks)}
        table = self.stepper.forces
        while self.step < total:
            start, before = time.perf_counter(), (dict(table.seconds), dict(table.calls))
            steps = min(config.checkpoint_steps, total - self.step)
            try:
                for _ in range(steps):
                    self.tail.append((self.step * config.outer_step_fs / 1000, self.stepper.state))
                    _advance(self.stepper, self.guard, self.step + 1)
                    self.step += 1
                    if self.hybrid:
                        self._measure_residual()
                    if self.step % config.frame_steps == 0:
                        self._record()
                    if self.step % 20 == 0:
                        self.progress.update(self.step, total, "production")
            except SimulationStopped as stop:
                self._account(start, before, steps)
                self._write(None)
                self.writer.last_frames([(t, s.positions[stop.replica]) for t, s in self.tail if np.isfinite(s.positions).all()])
                raise
            table.reset()  # the teacher's memory is dropped at every checkpoint, in unbroken runs too
            self._account(start, before, steps)
            if self.baseline is not None and (self.step in baseline_at or (self.step == total and "block_baseline_s_per_ps" not in self.wall)):
                begin = time.perf_counter()
                per_ps = self.baseline.block(self.stepper.state) / (config.timestep_fs / 1000)
                self.seconds["baseline"] += time.perf_counter() - begin
                self.wall.setdefault("block_baseline_s_per_ps", []).append(per_ps)
            self._write(self._checkpoint())
            self.progress.update(self.step, total, "production")

    def _account(self, start: float, before: tuple[dict[str, float], dict[str, int]], steps: int) -> None:
        """Book the wall time of one block of outer steps."""
        table = self.stepper.forces
        elapsed = time.perf_counter() - start
        for name in ("teacher", "student"):
            self.seconds[name] += table.seconds.get(name, 0.0) - before[0].get(name, 0.0)
        self.seconds["total"] += elapsed
        self.teacher_calls += table.calls["teacher"] - before[1]["teacher"]
        replicas = len(self.stepper.state.positions)
        self.wall.setdefault("block_hybrid_s_per_ps", []).append(elapsed / (steps * self.config.outer_step_fs / 1000) / replicas)

    # Checkpoints: everything the next step depends on, bit for bit.

    def _checkpoint(self) -> dict[str, Any]:
        s = self.stepper
        saved: dict[str, Any] = {"step": self.step, "positions": s.state.positions, "momenta": s.state.momenta, "heat": s.heat}
        for name, e in s.forces.known.items():
            saved[f"energy:{name}"], saved[f"forces:{name}"] = e.energy, e.forces
        numbers = {"seconds": self.seconds, "teacher_calls": self.teacher_calls, "timing": asdict(self.timing) if self.timing else None}
        if s.bath is not None:
            numbers["streams"] = [stream.bit_generator.state for stream in s.bath.streams]
        saved["json"] = np.array(json.dumps(numbers))
        saved["com_removed"] = np.array(self.writer.settings["com_removed"])
        return saved

    def _restore(self, saved: dict[str, Array]) -> None:
        s = self.stepper
        self.step = int(saved["step"])
        s.state, s.heat = State(saved["positions"], saved["momenta"]), saved["heat"]
        s.forces.move(s.state.positions)
        for name in [k.removeprefix("energy:") for k in saved if k.startswith("energy:")]:
            s.forces.known[name] = Evaluation(saved[f"energy:{name}"], saved[f"forces:{name}"])
        numbers = json.loads(str(saved["json"]))
        self.seconds, self.teacher_calls = numbers["seconds"], numbers["teacher_calls"]
        self.timing = Timing(**numbers["timing"]) if numbers["timing"] else None
        for stream, state in zip(s.bath.streams if s.bath else [], numbers.get("streams", []), strict=True):
            stream.bit_generator.state = state
        self.writer.settings["com_removed"] = bool(saved["com_removed"])

    def _write(self, checkpoint: dict[str, Any] | None) -> None:
        replicas, n = self.stepper.state.positions.shape[:2]
        shapes = {"time_ps": (0,), "positions": (0, replicas, n, 3), "momenta": (0, replicas, n, 3)}
        names = ["time_ps", "potential_energy", "kinetic_energy", "heat", "conserved", "positions", "momenta"] + (["residual_mae"] if self.hybrid else [])
        rows = {k: np.array(self.rows[k], dtype=np.float64) if self.rows.get(k) else np.zeros(shapes.get(k, (0, replicas))) for k in names}
        self.writer.segment(rows, {k: np.array(v) for k, v in self.wall.items()}, checkpoint)
        self.rows, written = {}, self.wall
        self.wall = {k: [] for k in written}

    # Timing before production.

    def _probe(self) -> Timing:
        """Time teacher, student and baseline on copies; leaves the run as if nothing had happened."""
        s = self.stepper
        before = (s.state, s.heat, dict(s.forces.known), copy.deepcopy(s.bath.streams) if s.bath else [])
        s.step()  # compiles
        steps = 15
        teacher, student, calls = s.forces.seconds["teacher"], s.forces.seconds["student"], s.forces.calls["teacher"]
        for _ in range(steps):
            s.step()
        replicas, k = len(s.state.positions), self.config.k_steps
        t_e = (s.forces.seconds["teacher"] - teacher) / (s.forces.calls["teacher"] - calls)
        t_c = (s.forces.seconds["student"] - student) / (steps * k * replicas)
        t_b = float(np.median([self.baseline.block(s.state) for _ in range(3)])) if self.baseline else float("nan")
        s.state, s.heat, known, streams = before
        s.forces.move(s.state.positions)
        s.forces.known.update(known)
        if s.bath is not None:
            s.bath.streams = streams
        s.forces.reset()
        return Timing(1e3 * t_e, 1e6 * t_c, 1e3 * t_b, k * t_b / (t_e + k * t_c))

    def summary(self) -> dict[str, Any]:
        """What run.json gains at the end."""
        rest = self.seconds["total"] - self.seconds["teacher"] - self.seconds["student"]
        timing = None
        if self.timing:
            timing = {k: v if np.isfinite(v) else None for k, v in asdict(self.timing).items()}
        return {"wall_s": {**self.seconds, "rest": rest}, "teacher_calls": self.teacher_calls, "timing": timing}


def _advance(stepper: Stepper, guard: Guard, step: int) -> None:
    """One outer step with every way it can go wrong said in the same words."""
    try:
        stepper.step()
    except NonFinite as bad:
        raise SimulationStopped(f"{bad.what} must be finite", step, bad.replica, bad.atom, f"{bad.what} of atom {bad.atom} is not a number") from bad
    except RuntimeError as error:
        p = stepper.state.momenta
        heat = (p * p).sum(axis=-1) / guard.masses
        r, atom = np.unravel_index(int(np.argmax(heat)), heat.shape)
        raise SimulationStopped("the teacher must converge", step, int(r), int(atom), " ".join(str(error).split()) + f"; atom {atom} is the hottest") from error
    guard.check(stepper.state, step)


def _is_network(provider: ForceProvider) -> bool:
    return hasattr(provider, "network")


def _limit_threads(n_atoms: int) -> None:
    """One thread for small systems, unless the user has decided: two are slower there, sometimes by far."""
    if n_atoms < 200 and "OMP_NUM_THREADS" not in os.environ:
        import torch

        torch.set_num_threads(1)


def run(config: RunConfig, out: str | Path, *, resume: bool = False, progress: Progress | None = None) -> Path:
    """Run a simulation and return its folder. The function behind `mlff-sim hybrid` and `mlff-sim md`.

    Args:
        config: settings.
        out: run folder; must be new, or hold the same run with `resume`.
        resume: continue from the last checkpoint, exactly as if the run had not been interrupted.
        progress: told outer steps.

    Raises:
        InputError: settings, files or folder that cannot be used.
        SimulationStopped: a guard ended the run.
    """
    Run(config, out, resume=resume, progress=progress).run()
    return Path(out)


def k_from_fraction(fraction: float) -> int:
    """Inner steps per teacher call for a fraction of teacher calls per inner step.

    Raises:
        InputError: outside (0, 1], or no whole number of steps.
    """
    if not 0 < fraction <= 1:
        raise InputError(f"corrector fraction {fraction:g} is outside (0, 1].")
    k = round(1 / fraction)
    if abs(k * fraction - 1) > 1e-3:
        raise InputError(f"corrector fraction {fraction:g} is not 1/K for a whole K; the nearest is {1 / k:.6g} (K = {k}).")
    return k


def k_from_steps(steps: int, duration_ps: float, timestep_fs: float) -> int:
    """Inner steps per teacher call for a number of teacher calls in the whole run.

    Raises:
        InputError: below 1, or no whole number of inner steps between them.
    """
    inner = round(duration_ps * 1000 / timestep_fs)
    if steps < 1 or steps > inner:
        raise InputError(f"corrector steps {steps} must be between 1 and the {inner} inner steps of the run.")
    if inner % steps:
        k = max(1, round(inner / steps))
        raise InputError(f"{steps} corrector steps do not divide the {inner} inner steps of the run; use {inner // k} (K = {k}) or give --k-steps.")
    return inner // steps
