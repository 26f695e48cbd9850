"""From the name of a scheme and two models to a stepper."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mlff_sim.forces import Array, ForceProvider, evaluate
from mlff_sim.integrators.force_table import MOLLIFIED, ForceTable
from mlff_sim.integrators.isokinetic import LAWS, isokinetic
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
        scheme: "respa", "mollified", "ghmc", "sinr" or "regulated"; see `RunConfig`. Plain dynamics where there is no student.
        timestep_fs: inner time step.
        k_steps: inner steps in an outer step.
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
