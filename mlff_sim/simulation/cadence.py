"""The cadence certificate: which outer steps two models allow, predicted before a run. What is asked and answered.

How the answers come about is in `mlff_sim.simulation.forecast` and, the physics, in `mlff_sim.integrators.resonance`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from mlff_sim.errors import InputError
from mlff_sim.units import CM1, FS

SCHEMES = ("respa", "mollified")
PIECE_PS, WINDOW_PS = 0.15, 0.1
"""Length of each trajectory, and of the pieces over which the work of the kicks is summed up."""
MARGIN = 2.0
"""By which the limits are divided for a recommendation: the worst predictions of heating so far were three times too low."""
ONE_SIDED = 1.645
"""Standard errors above a prediction that its upper bound (95 %) lies."""


@dataclass(frozen=True)
class CadenceConfig:
    """What to predict.

    Attributes:
        structure: structure file or shipped name; a molecule in vacuum.
        teacher, student: registry names.
        schemes: of "respa" and "mollified".
        ensemble: whose recommendation is asked for; both are worked out.
        temperature_K: of the trajectories and of the bath.
        friction_per_ps: of the bath.
        friction_by_element: of the bath, where an element has its own.
        hydrogen_mass: u, of hydrogens, as in `RunConfig`; None keeps the structure's masses.
        amp: bfloat16 products in the student's hidden layers.
        timestep_fs: inner time step.
        max_outer_fs: longest outer step.
        drift_limit: meV/atom/ps, the most heating at constant energy.
        temperature_limit_K: the most by which any element may be off under the bath.
        teacher_calls: asked for, for each scheme; at least five trajectories are made.
        seed: of everything random.
    """

    structure: str
    teacher: str
    student: str
    schemes: tuple[str, ...] = SCHEMES
    ensemble: str = "nvt"
    temperature_K: float = 300.0
    friction_per_ps: float = 1.0
    timestep_fs: float = 0.5
    max_outer_fs: float = 12.0
    drift_limit: float = 0.1
    temperature_limit_K: float = 3.0
    teacher_calls: int = 10_000
    seed: int = 0
    friction_by_element: Mapping[str, float] = field(default_factory=dict)
    hydrogen_mass: float | None = None
    amp: bool = False

    def friction(self, element: str) -> float:
        """1/ps, of an element."""
        return self.friction_by_element.get(element, self.friction_per_ps)

    @property
    def bath(self) -> str:
        """The frictions in words."""
        return ", ".join(
            [f"{self.friction_per_ps:g}/ps", *(f"{e} {g:g}/ps" for e, g in self.friction_by_element.items())]
        )

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        if self.ensemble not in ("nve", "nvt"):
            raise InputError(f"ensemble '{self.ensemble}' is unknown; choose one of: nve, nvt.")
        unknown = [s for s in self.schemes if s not in SCHEMES]
        if unknown or not self.schemes:
            raise InputError(
                f"scheme '{', '.join(unknown)}' has no cadence to predict; choose one of: {', '.join(SCHEMES)}."
            )
        for name in ("temperature_K", "timestep_fs", "max_outer_fs", "drift_limit", "temperature_limit_K"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value > 0):
                raise InputError(f"{name} = {value:g} must be a positive number.")
        for friction in (self.friction_per_ps, *self.friction_by_element.values()):
            if not (np.isfinite(friction) and friction >= 0):
                raise InputError(f"friction_per_ps = {friction:g} must not be negative.")
        if self.ensemble == "nvt" and not any((self.friction_per_ps, *self.friction_by_element.values())):
            raise InputError("friction_per_ps = 0 is no bath; give some friction, or ensemble 'nve'.")
        if self.hydrogen_mass is not None and not 1 <= self.hydrogen_mass < np.inf:
            raise InputError(f"hydrogen_mass = {self.hydrogen_mass:g} u must be at least 1; 3 is usual.")
        if not 2 <= self.max_outer_fs / self.timestep_fs <= 100:
            raise InputError(
                f"max_outer_fs = {self.max_outer_fs:g} must be 2 to 100 inner steps of {self.timestep_fs:g} fs."
            )
        if self.timestep_fs > 1:
            raise InputError(f"timestep_fs = {self.timestep_fs:g} is too long to see X-H stretches; give at most 1.")
        if self.max_outer_fs > 1000 * WINDOW_PS / 2:
            raise InputError(f"max_outer_fs = {self.max_outer_fs:g} must be at most {500 * WINDOW_PS:g}.")
        if self.teacher_calls < 1:
            raise InputError(f"teacher_calls = {self.teacher_calls} must be a whole number of at least 1.")
        if self.seed < 0:
            raise InputError(f"seed = {self.seed} must not be negative.")


@dataclass(frozen=True)
class Estimate:
    """A predicted number with its standard error, from the scatter over trajectories."""

    value: float
    stderr: float

    @property
    def upper(self) -> float:
        """One-sided 95 % bound."""
        return self.value + ONE_SIDED * self.stderr


@dataclass(frozen=True)
class Step:
    """What is predicted of one outer step.

    Attributes:
        k: inner steps.
        outer_fs: outer step, fs.
        heating: meV/atom/ps, mean growth of the conserved energy at constant energy.
        walk: meV/atom/ps^1/2: the conserved energy of one run walks by this times the root of its length.
        hot: K, by element, how far it runs above the bath; infinite where the bath cannot keep up.
        growth: 1/ps, of the fastest growing mode in the frozen frames' linear maps, their mean.
        bias: %, largest over modes and frames, of <q^2> away from resonance.
        speedup: predicted, over the teacher alone at the inner step; None if not timed.
    """

    k: int
    outer_fs: float
    heating: Estimate
    walk: float
    hot: Mapping[str, Estimate]
    growth: float
    bias: float
    speedup: float | None

    @property
    def hottest(self) -> str:
        """The element that runs hottest."""
        return max(self.hot, key=lambda e: self.hot[e].upper)

    def scatter(self, replicas: int = 5, duration_ps: float = 20.0) -> float:
        """Standard deviation of the mean slope of so many runs, meV/atom/ps: that of a fit to a random walk."""
        return float(self.walk * np.sqrt(1.2 / (duration_ps * replicas)))


@dataclass(frozen=True)
class Mode:
    """A fast mode of the student.

    Attributes:
        cm1: wave number, mean over frames.
        hydrogen: share of its motion that is along X-H bonds.
        error: epsilon, share of its stiffness that the student misses: root mean square over frames.
        growth: 1/ps, epsilon w / 2: the most it can grow by; a friction above twice of it closes its windows.
    """

    cm1: float
    hydrogen: float
    error: float
    growth: float


@dataclass(frozen=True)
class Outlook:
    """What is predicted of one scheme.

    Attributes:
        scheme: "respa" or "mollified".
        steps: by outer step.
        modes: fast modes by falling wave number.
        nve, nvt: recommended k of each ensemble; None where not even k = 2 is within the limits.
        next_friction: 1/ps, that would allow the next longer outer step at constant temperature; None at the end.
    """

    scheme: str
    steps: tuple[Step, ...]
    modes: tuple[Mode, ...]
    nve: int | None
    nvt: int | None
    next_friction: float | None

    def step(self, k: int | None) -> Step | None:
        """The prediction for k inner steps."""
        return next((s for s in self.steps if s.k == k), None)


@dataclass(frozen=True)
class Cadence:
    """The certificate.

    Attributes:
        config: what was asked.
        formula: of the structure.
        outlooks: by scheme.
        timing: ms: "teacher" (after an outer step), "student" (an inner step), "baseline"; empty if not timed.
        investment_s: s, spent on the student; None if unknown.
        teacher_calls: made.
    """

    config: CadenceConfig
    formula: str
    outlooks: tuple[Outlook, ...]
    timing: Mapping[str, float]
    investment_s: float | None
    teacher_calls: int

    @property
    def recommended(self) -> tuple[str, int] | None:
        """Scheme and k for the ensemble asked for: the longest outer step; None where nothing holds."""
        found = [(k, o.scheme) for o in self.outlooks if (k := getattr(o, self.config.ensemble)) is not None]
        if not found:
            return None
        k, scheme = max(found, key=lambda pair: pair[0])
        return scheme, k

    def break_even_ps(self, step: Step) -> float | None:
        """Length of a run from which distilling has paid, ps; None if never or unknown."""
        if not step.speedup or step.speedup <= 1 or not self.investment_s or not self.timing:
            return None
        baseline_s_per_ps = self.timing["baseline"] / self.config.timestep_fs
        return self.investment_s / (baseline_s_per_ps * (1 - 1 / step.speedup))


def longest(steps: tuple[Step, ...], fits: Callable[[Step], bool]) -> int | None:
    """The longest outer step that fits and below which every one fits: a valley between windows is not trusted."""
    best = None
    for s in steps:
        if not fits(s):
            break
        best = s.k
    return best


def windows(modes: tuple[Mode, ...], max_outer_fs: float) -> list[tuple[float, float, float]]:
    """Forbidden outer steps of single modes: (from fs, to fs, growth 1/ps) of each window below the longest step."""
    out = []
    for mode in modes:
        w = mode.cm1 * CM1 * FS  # rad / fs
        n = 1
        while n * np.pi / w <= max_outer_fs:
            end, width = n * np.pi / w, mode.error * n * np.pi / w
            out.append((end - width, end + width, mode.growth))
            n += 1
    return sorted(out)


def frozen(outlook: Outlook, config: CadenceConfig) -> dict[str, Any]:
    """The recommended cadence of a run, and what it was chosen from.

    Returns:
        "k_steps"; "longest", True where no longer step was looked at; "predicted", what is expected of it.

    Raises:
        InputError: not even k = 2 is within the limits.
    """
    k = outlook.nve if config.ensemble == "nve" else outlook.nvt
    step = outlook.step(k)
    if step is None:
        raise InputError(
            f"k_steps = 'auto': no outer step of scheme '{outlook.scheme}' is predicted to hold for {config.ensemble}; "
            "distil a better student, take more friction, or give a number. mlff-sim cadence shows why."
        )
    return {"k_steps": step.k, "longest": step is outlook.steps[-1], "predicted": asdict(step)}
