"""From the name of a scheme and two models to a stepper."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from mlff_sim.forces import Array, ForceProvider, evaluate
from mlff_sim.integrators.force_table import MOLLIFIED, ForceTable
from mlff_sim.integrators.isokinetic import LAWS, isokinetic
from mlff_sim.integrators.kstep import Draw, Judge, KStep
from mlff_sim.integrators.leap import Generating, LeapStepper
from mlff_sim.integrators.metropolis import Metropolis
from mlff_sim.integrators.mollifier import Mollifier
from mlff_sim.integrators.schemes import baoab, obabo, respa, substeps, verlet
from mlff_sim.integrators.stepper import Langevin, Stepper
from mlff_sim.state import State
from mlff_sim.units import FS


@dataclass(frozen=True)
class Dynamics:
    """What a step is.

    Attributes:
        scheme: "respa", "mollified", "ghmc", "sinr", "regulated" or "kstep"; see `RunConfig`. Plain dynamics where there is no student.
        timestep_fs: inner time step.
        k_steps: inner steps in an outer step.
        corrections: "kstep": steps of the teacher after a macro-step, which is `k_steps` long.
        proposal_steps: "ghmc": outer steps of "respa" in a proposal; None proposes `k_steps` steps of the student alone.
        compile: compile the inner loop of a student.
        amp: bfloat16 products in its hidden layers.
        integrator: "baoab" or "obabo", where there is a bath.
        middle_steps: inner steps of the "middle" model, where there is one.
    """

    scheme: str
    timestep_fs: float
    k_steps: int
    compile: bool = True
    amp: bool = False
    integrator: str = "baoab"
    middle_steps: int | None = None
    proposal_steps: int | None = None
    corrections: int | None = None


def assemble(
    dynamics: Dynamics,
    providers: Mapping[str, ForceProvider],
    masses: Array,
    state: State,
    bath: Langevin | None = None,
    mollifier: Mollifier | None = None,
) -> Stepper:
    """A stepper at the start of its dynamics, whose steps are outer steps.

    Args:
        dynamics: what a step is.
        providers: "teacher" and, unless dynamics is plain, "student"; perhaps a "middle" between them.
        masses: u, shape (n,).
        state: where to start.
        bath: for constant temperature, which "ghmc", "sinr" and "regulated" need; None for constant energy.
        mollifier: for "mollified".
    """
    exact = dynamics.scheme == "ghmc"
    inside = verlet if bath is None or exact else {"baoab": baoab, "obabo": obabo}[dynamics.integrator]
    fast, scheme, differences = "teacher", inside("teacher"), {}
    if "student" in providers:
        inner = isokinetic("student", dynamics.scheme) if dynamics.scheme in LAWS else inside("student")
        fast, scheme = "student", respa("residual", inner, dynamics.k_steps)
        differences = {"residual": ("teacher", "student")}
        if dynamics.middle_steps is not None:
            m = dynamics.middle_steps
            scheme = respa("residual", respa("correction", inside("student"), m), dynamics.k_steps // m)
            differences = {"residual": ("teacher", "middle"), "correction": ("middle", "student")}
        if exact and dynamics.proposal_steps is None:
            scheme = substeps(verlet("student"), dynamics.k_steps)
        if mollifier is not None:
            differences = {"residual": ("teacher" + MOLLIFIED, "student" + MOLLIFIED)}
    table = ForceTable(providers, differences, mollifier)
    outer = dynamics.k_steps * dynamics.timestep_fs * FS
    arguments = (scheme, outer, masses, table, state, None if exact else bath)
    if _is_student_on_cpu(providers[fast]):
        from mlff_sim.integrators.fused import FusedStepper

        stepper: Stepper = FusedStepper(*arguments, fast=fast, compile=dynamics.compile, amp=dynamics.amp)
    else:
        stepper = Stepper(*arguments)
    if not exact:
        return stepper
    assert bath is not None
    return Metropolis(stepper, bath, steps=dynamics.proposal_steps or 1)


def _is_student_on_cpu(model: ForceProvider) -> bool:
    """True for what the compiled loop can run; torch is loaded only for what may be one."""
    if not hasattr(model, "network"):
        return False
    from mlff_sim.models.student import Student

    return isinstance(model, Student) and model.device.type == "cpu"


def relaxed(model: ForceProvider, positions: Array) -> Array:
    """The nearest minimum of a model, A, shape (n, 3), by L-BFGS (scipy)."""
    from scipy.optimize import minimize

    def energy_and_gradient(x: Array) -> tuple[float, Array]:
        answer = evaluate(model, x.reshape(1, -1, 3))
        return float(answer.energy[0]), -answer.forces.ravel()

    found: Array = minimize(energy_and_gradient, positions.ravel(), jac=True, method="L-BFGS-B").x.reshape(-1, 3)
    return found if np.isfinite(found).all() else positions


RESPA_FS = 4.0
"""Longest outer step of the RESPA that takes over where a draw is dropped: what conserves without a forecast."""


def macro_steps(
    dynamics: Dynamics,
    providers: Mapping[str, ForceProvider],
    masses: Array,
    state: State,
    bath: Langevin,
    predictor: Draw,
    sound: Judge | None,
) -> KStep:
    """A stepper whose steps are draws of a predictor, each corrected by the teacher.

    Args:
        dynamics: "kstep"; `k_steps` are the baseline steps of a macro-step.
        providers: "teacher" and, to take over where a draw is dropped, perhaps a "student".
        masses: u, shape (n,).
        state: where to start.
        bath: at constant temperature, or without friction.
        predictor: bound to the molecule and the macro-step.
        sound: which replicas may go on from a draw.
    """
    bathed = bool(np.any(bath.friction))
    plain = replace(dynamics, scheme="respa", k_steps=1, compile=False, amp=False)
    teacher = {"teacher": providers["teacher"]}
    slow, made_by = plain, dict(providers)
    if "student" in providers:
        k = max(
            k
            for k in range(1, dynamics.k_steps + 1)
            if dynamics.k_steps % k == 0 and k * dynamics.timestep_fs <= max(RESPA_FS, dynamics.timestep_fs)
        )
        slow = replace(plain, k_steps=k)
    steps = dynamics.k_steps // slow.k_steps

    def fallback(start: State, part: Langevin) -> tuple[State, Array]:
        for provider in made_by.values():
            provider.reset()  # guesses belong to replicas, and these are others
        stepper = assemble(slow, made_by, masses, start, part if bathed else None)
        for _ in range(steps):
            stepper.step()
        for name in ("calls", "seconds"):
            spent, table = getattr(stepper.forces, name), getattr(corrector.forces, name)
            table.update({key: table.get(key, 0) + value for key, value in spent.items()})
        return stepper.state, stepper.heat

    corrector = assemble(plain, teacher, masses, state, bath if bathed else None)
    assert dynamics.corrections is not None
    return KStep(corrector, predictor, dynamics.k_steps, dynamics.corrections, bath, fallback, sound)


def leaps(
    dynamics: Dynamics,
    providers: Mapping[str, ForceProvider],
    masses: Array,
    state: State,
    bath: Langevin,
    generator: Generating,
    steps: int,
) -> Metropolis:
    """A stepper whose steps are proposals of leaps, accepted or refused by the teacher.

    Args:
        dynamics: "ghmc"; `k_steps` are the leaps in a proposal.
        providers: "teacher" and, to tell the solver where to begin to look, perhaps a "student".
        masses: u, shape (n,).
        state: where to start.
        bath: draws new momenta.
        generator: bound to the molecule.
        steps: baseline steps in a leap.
    """
    student = providers.get("student")

    def direct(start: State) -> State:
        """Where velocity Verlet of the student leads; it forgets what it was asked before, so a function of the state alone."""
        assert student is not None
        student.reset()
        table = ForceTable({"student": student})
        stepper = Stepper(verlet("student"), dynamics.timestep_fs * FS, masses, table, start)
        for _ in range(steps):
            stepper.step()
        return stepper.state

    table = ForceTable({"teacher": providers["teacher"]})
    proposer = LeapStepper(generator, table, state, direct=direct if student is not None else None)
    return Metropolis(proposer, bath, steps=dynamics.k_steps)
