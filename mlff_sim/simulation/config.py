"""The settings of a run, checked before anything heavy loads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlff_sim.acceleration import Acceleration, Execution
from mlff_sim.errors import InputError

ENSEMBLES = ("nve", "nvt")
SCHEMES = ("respa", "mollified", "ghmc")
GUARDS = ("pairs", "bonds", "temperature", "energy")
"""Guards that can be switched off. That forces are numbers and the teacher converges is always asked for."""
ON_RESIDUAL = ("stop", "relabel", "ignore")
CHECKPOINT_STEPS = 200
"""Outer steps between checkpoints of a long run; fixed by the settings, because the teacher's memory is dropped there."""


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
        scheme: how the teacher corrects: "respa" kicks with teacher minus student; "mollified" takes this residual
            with the X-H bonds at fixed lengths, so that those stretches are the student's and cannot resonate; "ghmc"
            accepts or refuses trajectories of `k_steps` steps of the student, which samples the teacher's ensemble
            exactly and has no time.
        compile: compile the inner loop.
        compile_teacher: compile a teacher that is a graph network (MACE, `module:`), which takes a minute at every start.
        amp: bfloat16 products in the student's hidden layers.
        unguarded: guards that are switched off, of `GUARDS`.
        energy_budget_meV: for each atom, by which the conserved energy may change before the run is stopped. None allows
            kT/2 in NVE, and anything in NVT, where a bath takes up what the steps put in.
        on_residual: what to do where teacher and student differ by more than in training: "stop", "relabel" (keep such
            frames with the teacher's answer in relabel.npz, and go on) or "ignore".
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
    compile_teacher: bool = False
    amp: bool = False
    unguarded: tuple[str, ...] = ()
    energy_budget_meV: float | None = None
    on_residual: str = "stop"

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
            raise InputError(
                f"k_steps = {self.k_steps} must be a whole number of at least 1 (inner steps per teacher call)."
            )
        if self.student is None and self.k_steps != 1:
            raise InputError(f"k_steps = {self.k_steps} needs a student; plain dynamics has k_steps = 1.")
        if self.student is None and self.scheme != "respa":
            raise InputError(f"scheme '{self.scheme}' needs a student; it is a way to combine two models.")
        if self.scheme == "ghmc" and self.ensemble != "nvt":
            raise InputError(
                f"scheme 'ghmc' samples at constant temperature; ensemble '{self.ensemble}' needs another."
            )
        if self.scheme == "ghmc" and self.friction_per_ps == 0:
            raise InputError(
                "scheme 'ghmc' with friction_per_ps = 0 never draws momenta, and does not sample; give some."
            )
        if self.every is not None and self.every < 1:
            raise InputError(f"every = {self.every} must be at least 1 (outer steps between frames).")
        if self.replicas is not None and self.replicas < 1:
            raise InputError(f"replicas = {self.replicas} must be at least 1.")
        if self.seed < 0:
            raise InputError(f"seed = {self.seed} must not be negative.")
        self._check_guards()
        if self.duration_ps * 1000 < self.outer_step_fs * (1 - 1e-9):
            raise InputError(
                f"duration {self.duration_ps:g} ps is shorter than one outer step of {self.outer_step_fs:g} fs (k_steps * timestep)."
            )

    def _check_guards(self) -> None:
        """Which guards there are, and what they can be told."""
        for name in self.unguarded:
            if name not in GUARDS:
                hint = " for the residual there is on_residual 'ignore'." if name == "residual" else ""
                raise InputError(f"guard '{name}' is unknown; switch off any of: {', '.join(GUARDS)}.{hint}")
        if self.on_residual not in ON_RESIDUAL:
            raise InputError(f"on_residual '{self.on_residual}' is unknown; choose one of: {', '.join(ON_RESIDUAL)}.")
        if self.on_residual != "stop" and self.student is None:
            raise InputError(
                f"on_residual '{self.on_residual}' needs a student; there is no residual in plain dynamics."
            )
        budget = self.energy_budget_meV
        if budget is None:
            return
        if not (np.isfinite(budget) and budget > 0):
            raise InputError(f"energy_budget_meV = {budget:g} must be a positive number (per atom).")
        if "energy" in self.unguarded:
            raise InputError(f"energy_budget_meV = {budget:g} and no guard of the energy exclude each other; give one.")
        if self.scheme == "ghmc":
            raise InputError("scheme 'ghmc' has no energy_budget_meV: the energy changes that it accepts are meant.")

    @property
    def execution(self) -> Execution:
        """How the teacher is evaluated: in a way that does not depend on the clock, so that a run can be repeated."""
        return Execution(acceleration=Acceleration(compile=self.compile_teacher, prune_edges=True))

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
        """Outer steps between checkpoints: an eighth of a short run, at most 200 and a whole number of frames."""
        steps = min(CHECKPOINT_STEPS, -(-self.outer_steps // 8))
        return self.frame_steps * -(-steps // self.frame_steps)


def k_from_fraction(fraction: float) -> int:
    """Inner steps per teacher call for a fraction of teacher calls per inner step.

    Raises:
        InputError: outside (0, 1], or no whole number of steps.
    """
    if not 0 < fraction <= 1:
        raise InputError(f"corrector fraction {fraction:g} is outside (0, 1].")
    k = round(1 / fraction)
    if abs(k * fraction - 1) > 1e-3:
        raise InputError(
            f"corrector fraction {fraction:g} is not 1/K for a whole K; the nearest is {1 / k:.6g} (K = {k})."
        )
    return k


def k_from_steps(steps: int, duration_ps: float, timestep_fs: float) -> int:
    """Inner steps per teacher call for a number of teacher calls in the whole run.

    Raises:
        InputError: below 1, or no whole number of inner steps between them.
    """
    for name, value in (("duration_ps", duration_ps), ("timestep_fs", timestep_fs)):
        if not (np.isfinite(value) and value > 0):
            raise InputError(f"{name} = {value:g} must be a positive number.")
    inner = round(duration_ps * 1000 / timestep_fs)
    if steps < 1 or steps > inner:
        raise InputError(f"corrector steps {steps} must be between 1 and the {inner} inner steps of the run.")
    if inner % steps:
        k = max(1, round(inner / steps))
        raise InputError(
            f"{steps} corrector steps do not divide the {inner} inner steps of the run; use {inner // k} (K = {k}) or give --k-steps."
        )
    return inner // steps
