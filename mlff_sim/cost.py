"""What a two-model scheme costs, in one formula for all of them.

Between two corrections a scheme advances S steps of the baseline with e teacher calls and c calls of the model that
replaces the others. Where a baseline step costs t_b, a teacher call in the scheme t_e and a model call t_c,

    speed-up = S t_b / (e t_e + c t_c),

which is above 1 where the model calls cost less than S t_b - e t_e: with f = e / S and t_e = t_b,

    c t_c < (1 - f) S t_force.

| scheme | S | e | c |
|---|---|---|---|
| RESPA, K inner steps | K | 1 | K, mollified K + 1 |
| hybrid Monte Carlo, trajectories of K student steps | K | 1 | K |
| the same, M outer steps of RESPA each | M K | M | M K |
| the same, N leaps of a generating function of M steps each | N M | 1 | N |
| a predictor that jumps S steps, f S of them repeated by the teacher | S | f S | 1 |
| the same, the teacher's steps counted as time as well, with the energy on landing | (1 + f) S | f S + 1 | 1 |

Hybrid Monte Carlo has no time: what its steps are worth is in its effective samples, not here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from mlff_sim.forces import Array

Settings = Mapping[str, Any]


def _inner(s: Settings) -> tuple[float, float, float]:
    """One teacher call for K inner steps, as many times as there are outer steps in a proposal."""
    k, made = float(s["k_steps"]), float(s.get("proposal_steps") or 1)
    return made * k, made, made * k


def _proposal(s: Settings) -> tuple[float, float, float]:
    """Leaps where there is a predictor, and one teacher call at their end; steps of the student else."""
    leaps = float(s["k_steps"])
    return (leaps * float(s["save_interval"]), 1.0, leaps) if s.get("predictor") else _inner(s)


def _jump(s: Settings) -> tuple[float, float, float]:
    """A jump of S steps, and N = f S of the teacher's that are time as well; one call more is for the energy on landing."""
    jump, corrected = float(s["k_steps"]) * float(s["save_interval"]), float(s["corrector_steps"])
    return jump + corrected, corrected + 1.0, 1.0


def _mollified(s: Settings) -> tuple[float, float, float]:
    """The student is asked once more, at the mollified positions."""
    return float(s["k_steps"]), 1.0, float(s["k_steps"]) + 1.0


CYCLES: dict[str, Callable[[Settings], tuple[float, float, float]]] = {
    "respa": _inner,
    "sinr": _inner,
    "regulated": _inner,
    "mollified": _mollified,
    "ghmc": _proposal,
    "kstep": _jump,
}
"""The table, as functions of a run's settings: S, e and c of each scheme of two models."""

Time = TypeVar("Time", float, Array)
"""One time, or many."""


def predicted_speedup(
    k: float, t_b: Time, t_e: Time, t_c: Time, student_calls: float | None = None, teacher_calls: float = 1
) -> Time:
    """Speed-up k t_b / (e t_e + c t_c): k baseline steps against the e teacher and c student calls of a cycle.

    Args:
        k: baseline steps in a cycle, the inner steps of an outer step.
        t_b: time of a teacher call in the baseline, along its short steps.
        t_e: time of a teacher call at the outer stride, where its warm start is older; same unit.
        t_c: time of a student call; same unit.
        student_calls: c, one for each inner step by default; mollified schemes make one more, a predictor one in all.
        teacher_calls: e, more than one in proposals of several outer steps.
    """
    return k * t_b / (teacher_calls * t_e + (k if student_calls is None else student_calls) * t_c)


def allowed_student_time(k: float, t_b: Time, t_e: Time, teacher_calls: float = 1) -> Time:
    """What the student calls of a cycle may cost for the cycle to pay, k t_b - e t_e; (1 - f) S t_force where t_e = t_b."""
    return k * t_b - teacher_calls * t_e
