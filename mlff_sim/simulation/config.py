"""The settings of a run, checked before anything heavy loads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from mlff_sim.acceleration import Acceleration, Execution
from mlff_sim.errors import InputError

ENSEMBLES = ("nve", "nvt")
INTEGRATORS = ("baoab", "obabo")
AUTO = "auto"
"""For `k_steps`: found out before production, then frozen."""
SCHEMES = ("respa", "mollified", "ghmc", "sinr", "regulated", "kstep")
BOUNDED = ("sinr", "regulated")
"""Schemes with bounded velocities, whose momenta are not Maxwell's."""
FRICTIONS = {**dict.fromkeys(BOUNDED, 10.0), "kstep": 300.0}
"""1/ps, where none is given and 1/ps would be too little: what a draw of "kstep" is wrong by has a few steps of the corrector
to go into the bath."""
WARM_FRICTION = 5.0
"""1/ps, of warm-ups: with much more they only get slower."""
PREDICTED = ("kstep", "ghmc")
"""Schemes that can have a predictor."""
SAMPLERS = ("ghmc", *BOUNDED)
"""Schemes that sample at constant temperature and have no physical time."""
GUARDS = ("pairs", "bonds", "temperature", "energy", "draws")
"""Guards that can be switched off. That forces are numbers and the teacher converges is always asked for."""
ON_RESIDUAL = ("stop", "relabel", "ignore")
CHECKPOINT_STEPS = 200
"""Outer steps between checkpoints of a long run; fixed by the settings, because the teacher's memory is dropped there."""

WITHOUT_TRACE = ("teacher_workers",)
"""Settings that change how long a run takes and nothing else; a resumed run may have others."""


@dataclass(frozen=True)
class RunConfig:
    """Settings of one run; two runs with equal settings are the same run.

    Attributes:
        structure: structure file, `FILE` or `FILE@INDEX`, or a shipped name.
        teacher: registry name of the model whose physics is wanted.
        student: registry name or file of the cheap model; None for plain dynamics of the teacher alone.
        ensemble: "nve" (velocity Verlet inside) or "nvt" (BAOAB inside).
        timestep_fs: inner time step.
        k_steps: inner steps per teacher call; 1 for plain dynamics. "auto" finds it before production and keeps it: for
            "respa" and "mollified" it is predicted (`mlff_sim.simulation.forecast`), for "ghmc" tried out in the warm-up
            (`mlff_sim.simulation.tuning`).
        duration_ps: of production.
        temperature_K: of the bath, of drawn velocities, and of the guard.
        friction_per_ps: of the bath; None takes 1/ps, or 10/ps where it is that of thermostats ("sinr", "regulated"), or
            300/ps after draws ("kstep").
        equilibrate_ps: BAOAB with the same models before production, not recorded.
        every: outer steps between recorded frames; None chooses about 10 fs.
        replicas: copies, each with its own random stream; None takes the number of frames in the structure.
        seed: of everything random.
        baseline: time the all-teacher baseline in alternating blocks.
        scheme: how the teacher corrects: "respa" kicks with teacher minus student; "mollified" takes this residual
            with the X-H bonds at fixed lengths, so that those stretches are the student's and cannot resonate; "ghmc"
            accepts or refuses trajectories of `k_steps` steps of the student, which samples the teacher's ensemble
            exactly and has no time (with a predictor: `k_steps` leaps of its generating function); "sinr" and "regulated"
            kick as "respa" does and bound all velocities, so that no kick can resonate (`integrators/isokinetic.py`):
            canonical in positions only, without time; the friction is the rate at which their thermostats forget, and
            10/ps does best for fast modes.
        predictor: file of the predictor of "kstep", which draws a frame `k_steps` times `save_interval` time steps later; the
            teacher then makes `corrector_steps` time steps (`integrators/kstep.py`). Time is approximate there. A student,
            if one is given, makes the steps of draws that had to be dropped, by "respa"; else the teacher does.
            Or of "ghmc", a generating function whose leaps are `save_interval` time steps long: proposals are `k_steps` of
            them (`integrators/leap.py`). A student, if one is given, tells the solver where to begin to look.
        save_interval: of schemes with a predictor: baseline steps that `k_steps` counts.
        corrector_steps: of "kstep": steps of the teacher after each macro-step.
        proposal_steps: of "ghmc": a trajectory is that many outer steps of "respa", each of `k_steps` steps of the student,
            and as many teacher calls; None takes the student alone.
        compile: compile the inner loop.
        compile_teacher: compile a teacher that is a graph network (MACE, `module:`), which takes a minute at every start.
        amp: bfloat16 products in the student's hidden layers.
        integrator: splitting of Langevin dynamics inside: "baoab" samples positions without bias in the harmonic limit,
            "obabo" momenta.
        middle: registry name or file of a third model between the two: the student acts at every inner step, middle -
            student every `middle_steps`, teacher - middle every `k_steps`. Scheme "respa" only.
        middle_steps: inner steps per call of the middle model; divides `k_steps`.
        friction_by_element: of the bath, 1/ps, where an element has its own: {"H": 20.0}.
        remove_com: keep the centre of mass at rest, with 3 degrees of freedom fewer; in NVT the bath then acts relative
            to it. Without, NVE keeps the total momentum it starts with, and NVT has one as its bath has.
        hydrogen_mass: u, of every hydrogen with a heavier neighbour, which gives the difference: slower stretches for
            longer steps. What is sampled stays the same, times do not. Momenta in the structure are scaled to keep the
            kinetic energy of each atom. None keeps the structure's masses.
        teacher_workers: processes that evaluate the teacher's replicas side by side, with the same result for any number.
        unguarded: guards that are switched off, of `GUARDS`; without that of draws, "kstep" goes on from whatever is drawn.
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
    k_steps: int | str = 1
    duration_ps: float = 10.0
    temperature_K: float = 300.0
    friction_per_ps: float | None = None
    equilibrate_ps: float = 0.0
    every: int | None = None
    replicas: int | None = None
    seed: int = 0
    baseline: bool = True
    scheme: str = "respa"
    compile: bool = True
    compile_teacher: bool = False
    amp: bool = False
    integrator: str = "baoab"
    middle: str | None = None
    middle_steps: int | None = None
    friction_by_element: Mapping[str, float] = field(default_factory=dict)
    remove_com: bool = False
    hydrogen_mass: float | None = None
    teacher_workers: int = 1
    proposal_steps: int | None = None
    unguarded: tuple[str, ...] = ()
    energy_budget_meV: float | None = None
    on_residual: str = "stop"
    predictor: str | None = None
    save_interval: int = 50
    corrector_steps: int | None = None

    def __post_init__(self) -> None:
        """Refuse settings that make no sense, before anything is loaded."""
        if self.ensemble not in ENSEMBLES:
            raise InputError(f"ensemble '{self.ensemble}' is unknown; choose one of: {', '.join(ENSEMBLES)}.")
        if self.scheme not in SCHEMES:
            raise InputError(f"scheme '{self.scheme}' is unknown; choose one of: {', '.join(SCHEMES)}.")
        if self.friction_per_ps is None:  # a frozen instance allows no plain assignment
            object.__setattr__(self, "friction_per_ps", FRICTIONS.get(self.scheme, 1.0))
        for name in ("timestep_fs", "duration_ps", "temperature_K"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value > 0):
                raise InputError(f"{name} = {value:g} must be a positive number.")
        for name in ("friction_per_ps", "equilibrate_ps"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value >= 0):
                raise InputError(f"{name} = {value:g} must not be negative.")
        for element, value in self.friction_by_element.items():
            if not (np.isfinite(value) and value >= 0):
                raise InputError(f"friction_per_ps = {value:g} of {element} must not be negative.")
        if self.friction_by_element and self.remove_com:
            raise InputError(
                "remove_com needs one friction for all elements: the bath is exact about the centre of mass only then."
            )
        if self.hydrogen_mass is not None and not 1 <= self.hydrogen_mass < np.inf:
            raise InputError(f"hydrogen_mass = {self.hydrogen_mass:g} u must be at least 1; 3 is usual.")
        self._check_cadence()
        if self.corrector_steps is not None and self.scheme != "kstep":
            raise InputError(f"corrector_steps is for scheme 'kstep'; scheme '{self.scheme}' has none.")
        if self.scheme == "kstep" or self.predictor is not None:
            self._check_predictor()
        elif self.student is None and self.k_steps != 1:
            raise InputError(f"k_steps = {self.k_steps} needs a student; plain dynamics has k_steps = 1.")
        elif self.student is None and self.scheme != "respa":
            raise InputError(f"scheme '{self.scheme}' needs a student; it is a way to combine two models.")
        if self.scheme in SAMPLERS and self.ensemble != "nvt":
            raise InputError(
                f"scheme '{self.scheme}' samples at constant temperature; ensemble '{self.ensemble}' needs another."
            )
        if self.scheme in SAMPLERS and not any((self.friction_per_ps, *self.friction_by_element.values())):
            what = "momenta" if self.scheme == "ghmc" else "random numbers"
            raise InputError(
                f"scheme '{self.scheme}' with friction_per_ps = 0 never draws {what}, and does not sample; give some."
            )
        if self.integrator not in INTEGRATORS:
            raise InputError(f"integrator '{self.integrator}' is unknown; choose one of: {', '.join(INTEGRATORS)}.")
        if self.integrator != "baoab" and (self.ensemble != "nvt" or self.scheme in SAMPLERS):
            where = f"scheme '{self.scheme}'" if self.scheme in SAMPLERS else f"ensemble '{self.ensemble}'"
            raise InputError(
                f"integrator '{self.integrator}' is one of Langevin dynamics; {where} runs another inside."
            )
        if self.scheme in BOUNDED and (self.remove_com or self.friction_by_element):
            what = "remove_com" if self.remove_com else "friction of elements"
            raise InputError(f"{what} is for Langevin baths; scheme '{self.scheme}' has thermostats, all alike.")
        self._check_middle()
        if self.every is not None and self.every < 1:
            raise InputError(f"every = {self.every} must be at least 1 (outer steps between frames).")
        if self.replicas is not None and self.replicas < 1:
            raise InputError(f"replicas = {self.replicas} must be at least 1.")
        if not isinstance(self.teacher_workers, int) or self.teacher_workers < 1:
            raise InputError(
                f"teacher_workers = {self.teacher_workers} must be a whole number of at least 1 (processes)."
            )
        if self.seed < 0:
            raise InputError(f"seed = {self.seed} must not be negative.")
        self._check_guards()
        if self.k_steps != AUTO and self.duration_ps * 1000 < self.outer_step_fs * (1 - 1e-9):
            raise InputError(
                f"duration {self.duration_ps:g} ps is shorter than one outer step of {self.outer_step_fs:g} fs (k_steps * timestep)."
            )

    def _check_predictor(self) -> None:
        """The predictor, and what its scheme makes of it."""
        if self.scheme not in PREDICTED:
            raise InputError(f"predictor is for schemes {' and '.join(PREDICTED)}; scheme '{self.scheme}' has none.")
        if self.predictor is None:
            raise InputError(
                "scheme 'kstep' needs a predictor; train one with mlff-sim train-predictor, or choose another scheme."
            )
        if not isinstance(self.save_interval, int) or self.save_interval < 1:
            raise InputError(
                f"save_interval = {self.save_interval} must be a whole number of at least 1 (baseline steps)."
            )
        if self.k_steps == AUTO:
            raise InputError(
                f"k_steps = 'auto' has no rule for scheme '{self.scheme}' with a predictor; give a whole number."
            )
        for name in ("hydrogen_mass", "middle"):
            if getattr(self, name) is not None:
                raise InputError(
                    f"{name} cannot go with a predictor of scheme '{self.scheme}': it was trained without."
                )
        if self.leaps:
            if self.proposal_steps is not None or self.amp:
                what = "amp" if self.amp else "proposal_steps"
                raise InputError(
                    f"{what} cannot go with a predictor of scheme 'ghmc': proposals are k_steps of its leaps, in float64."
                )
            return
        n = self.corrector_steps
        if not isinstance(n, int) or not 1 <= n <= self.macro_steps:
            raise InputError(
                f"corrector_steps = {n} must be a whole number from 1 to the {self.macro_steps} baseline steps of a macro-step "
                f"(k_steps = {self.k_steps} times save_interval = {self.save_interval})."
            )

    def _check_middle(self) -> None:
        """Three levels: which steps of which model."""
        if (self.middle is None) != (self.middle_steps is None):
            raise InputError("middle and middle_steps come together: a model between the two, and its inner steps.")
        if self.middle is None:
            return
        if self.student is None or self.scheme != "respa":
            what = "no student" if self.student is None else f"scheme '{self.scheme}'"
            raise InputError(f"a middle model stands between student and teacher in scheme 'respa'; there is {what}.")
        m = self.middle_steps
        if not isinstance(m, int) or m < 1 or self.k_steps % m:
            raise InputError(
                f"middle_steps = {m} must be a whole number of at least 1 that divides k_steps = {self.k_steps}."
            )

    def _check_cadence(self) -> None:
        """Refuse numbers of steps that make no sense."""
        if isinstance(self.k_steps, str) and self.k_steps != AUTO:
            raise InputError(
                f"k_steps = '{self.k_steps}' is no integer and not 'auto', which finds it before production and then keeps it; "
                "a cadence that adapts in production does not keep the ensemble and is not offered."
            )
        if self.k_steps == AUTO:
            if self.scheme in BOUNDED:
                raise InputError(
                    f"k_steps = 'auto' has no rule for scheme '{self.scheme}', which nothing makes resonate."
                )
            if self.middle is not None:
                raise InputError("k_steps = 'auto' is for two models; with a middle one, give a whole number.")
            if self.proposal_steps is not None:
                raise InputError("k_steps = 'auto' tunes trajectories of the student alone; give it or proposal_steps.")
            if self.scheme == "ghmc" and not self.equilibrate_ps:
                raise InputError("k_steps = 'auto' is tuned in the warm-up; give some equilibrate_ps.")
        elif not isinstance(self.k_steps, int) or self.k_steps < 1:
            raise InputError(
                f"k_steps = {self.k_steps} must be a whole number of at least 1 (inner steps per teacher call)."
            )
        if self.proposal_steps is not None:
            if self.scheme != "ghmc":
                raise InputError(f"proposal_steps is for scheme 'ghmc'; scheme '{self.scheme}' proposes nothing.")
            if not isinstance(self.proposal_steps, int) or self.proposal_steps < 1:
                raise InputError(
                    f"proposal_steps = {self.proposal_steps} must be a whole number of at least 1 (outer steps in a "
                    "proposal); leave it out for trajectories of the student alone."
                )

    @property
    def decisive(self) -> dict[str, Any]:
        """The settings that make a run what it is: a checkpoint is taken up where these are equal."""
        return {name: value for name, value in asdict(self).items() if name not in WITHOUT_TRACE}

    def _check_guards(self) -> None:
        """Which guards there are, and what they can be told."""
        for name in self.unguarded:
            if name not in GUARDS:
                hint = "; for the residual there is on_residual 'ignore'" if name == "residual" else ""
                raise InputError(f"guard '{name}' is unknown; switch off any of: {', '.join(GUARDS)}{hint}.")
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
    def inner_steps(self) -> int:
        """Inner steps in an outer step, or in a proposal; of a macro-step with those of the corrector."""
        if not isinstance(self.k_steps, int):
            raise ValueError("how long a step is, is not known before k_steps has been tuned.")
        if self.predictor is not None:
            return self.macro_steps + (self.corrector_steps or 0)
        return self.k_steps * (self.proposal_steps or 1)

    @property
    def macro_steps(self) -> int:
        """Baseline steps between two calls of the teacher that a predictor jumps."""
        return int(self.k_steps) * self.save_interval

    @property
    def leaps(self) -> bool:
        """Whether the predictor is a generating function, which leaps, and does not draw."""
        return self.predictor is not None and self.scheme == "ghmc"

    @property
    def jump_steps(self) -> int:
        """Baseline steps of one jump of the predictor: what it has to be trained for."""
        return self.save_interval if self.leaps else self.macro_steps

    @property
    def plain(self) -> bool:
        """Whether the teacher goes alone."""
        return self.student is None and self.predictor is None

    @property
    def outer_step_fs(self) -> float:
        """Time between teacher calls, k_steps * timestep_fs; of a whole proposal where there is one."""
        return self.inner_steps * self.timestep_fs

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


def k_from_text(text: str) -> int | str:
    """Inner steps per teacher call from a word: a whole number, or anything else for `RunConfig` to judge."""
    try:
        return int(text)
    except ValueError:
        return text.strip()


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


def corrections_from_fraction(fraction: float, macro_steps: int) -> int:
    """Steps of the corrector after a macro-step, for their number as a fraction of its.

    Raises:
        InputError: outside (0, 1], or no whole number of steps.
    """
    if not 0 < fraction <= 1:
        raise InputError(f"corrector fraction {fraction:g} is outside (0, 1].")
    steps = max(1, round(fraction * macro_steps))
    if abs(steps - fraction * macro_steps) > 1e-6 * macro_steps:
        raise InputError(
            f"corrector fraction {fraction:g} of a macro-step of {macro_steps} baseline steps is {fraction * macro_steps:g} steps, "
            f"no whole number of at least 1; the nearest that is: {steps / macro_steps:g} ({steps} step{'s' * (steps > 1)})."
        )
    return steps


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
