"""Predicts a cadence: samples with the student, asks the teacher along the way, and works out what the kicks would do.

Short trajectories of the student are sampled at temperature. From the power of the residual force along them follow, for
every outer step, the heat that the kicks would put in, how far the conserved energy would walk, and which element would
run hot under a bath. Hessians of both models at a few frames give the fast modes, the share of their stiffness that the
student misses, and the windows of linear instability.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from mlff_sim.acceleration import Execution
from mlff_sim.cost import predicted_speedup
from mlff_sim.errors import InputError, NonFinite, SimulationStopped
from mlff_sim.forces import Array, ForceProvider, evaluate
from mlff_sim.integrators.mollifier import Mollifier
from mlff_sim.integrators.resonance import kick_work, map_growth, position_bias
from mlff_sim.integrators.stepper import Langevin, Stepper
from mlff_sim.models.registry import load_model, resolve, student_name
from mlff_sim.progress import Progress, Silent
from mlff_sim.simulation.assembly import Dynamics, assemble, relaxed
from mlff_sim.simulation.cadence import (
    MARGIN,
    ONE_SIDED,
    PIECE_PS,
    WINDOW_PS,
    Cadence,
    CadenceConfig,
    Estimate,
    Mode,
    Outlook,
    Step,
    longest,
)
from mlff_sim.simulation.clock import BASELINE_STEPS
from mlff_sim.simulation.guards import Guard
from mlff_sim.simulation.modes import hessian
from mlff_sim.simulation.temperature import Temperature
from mlff_sim.state import State, maxwell_boltzmann
from mlff_sim.structure import check_free, covalent_bonds, per_atom, read_structure, repartitioned_masses
from mlff_sim.units import CM1, FS, KB, MEV, PS

if TYPE_CHECKING:
    from ase import Atoms

WARM_UP_PS, WARM_UP_FRICTION = 2.0, 5.0
"""How the trajectories get to temperature: under a bath, with the student."""
HESSIAN_FRAMES = 4
"""Frames whose Hessians are taken, the first at rest."""
SLOWEST_CM1 = 200.0
"""Modes below this wave number are left out of the linear analysis: no outer step comes near their period."""
CHUNK = 50
"""Frames between two words to the progress bar."""


def predict(config: CadenceConfig, progress: Progress | None = None, *, timing: bool = True) -> Cadence:
    """Sample, ask the teacher, and predict.

    Args:
        config: what to predict.
        progress: told teacher calls.
        timing: also time both models, which compiles the student's loop; no other figure depends on it.

    Raises:
        InputError: settings, structure or models that cannot be used.
        SimulationStopped: the student's own dynamics does not hold.
    """
    names = {"student": student_name(config.student), "teacher": config.teacher}
    for name in names.values():
        resolve(name)
    atoms = read_structure(config.structure)
    if atoms.pbc.any():
        raise InputError(f"'{config.structure}' is periodic; runs are of molecules in vacuum, for now.")
    check_free(atoms, f"'{config.structure}'")
    per_atom(atoms, config.friction_per_ps, config.friction_by_element, "friction_per_ps")
    if config.hydrogen_mass is not None:
        atoms.set_masses(repartitioned_masses(atoms, covalent_bonds(atoms), config.hydrogen_mass))
    models = {key: load_model(name, atoms, Execution(device="cpu")) for key, name in names.items()}
    return Forecast(config, atoms, models["teacher"], models["student"], progress).cadence(timing)


class Forecast:
    """The stages of a prediction, for two models at hand.

    Args:
        config: what to predict; the names in it are for the record.
        atoms: a molecule in vacuum.
        teacher, student: bound to its atoms.
        progress: told teacher calls.
    """

    def __init__(
        self,
        config: CadenceConfig,
        atoms: Atoms,
        teacher: ForceProvider,
        student: ForceProvider,
        progress: Progress | None = None,
    ) -> None:
        """Relax the structure with the student, for the bond lengths of the mollifier; nothing is sampled yet."""
        self.config, self.atoms, self.progress = config, atoms, progress or Silent()
        self.teacher, self.student = teacher, student
        self.masses = atoms.get_masses()
        self.kT = KB * config.temperature_K
        symbols = atoms.get_chemical_symbols()
        self.groups = {e: np.array([i for i, s in enumerate(symbols) if s == e]) for e in sorted(set(symbols))}
        bonds = covalent_bonds(atoms)
        self.bathed = all(config.friction(e) > 0 for e in self.groups)
        if config.ensemble == "nvt" and not self.bathed:
            cold = next(e for e in self.groups if not config.friction(e) > 0)
            raise InputError(f"friction_per_ps = 0 of {cold} is no bath for it; give it some, or ensemble 'nve'.")
        self.at_rest = relaxed(student, atoms.get_positions())
        self.mollifier = Mollifier(atoms.numbers.tolist(), bonds, self.at_rest)
        self.schemes = [s for s in config.schemes if s != "mollified" or len(self.mollifier.hydrogens)]
        if not self.schemes:
            raise InputError(f"scheme 'mollified' needs X-H bonds and '{config.structure}' has none; use 'respa'.")
        self.frames = 1 + round(1000 * PIECE_PS / config.timestep_fs)
        self.replicas = max(5, config.teacher_calls // self.frames)
        hessian = 6 * len(atoms) * HESSIAN_FRAMES
        self.calls, self.planned = 0, len(self.schemes) * (self.replicas * self.frames + hessian)

    def cadence(self, timing: bool) -> Cadence:
        """All stages; with `timing` both models are timed at the end, which compiles the loop of a student."""
        positions, velocities = self._trajectories()
        powers = {s: self._power(s, positions, velocities) for s in self.schemes}
        frames = np.concatenate([self.at_rest[None], positions[0, : HESSIAN_FRAMES - 1]])
        student = [self._hessian(self._student_forces, x) for x in frames]
        residual = {
            s: [self._hessian(lambda x, s=s: self._residual(s, x[None])[0], y) for y in frames]  # type: ignore[misc]
            for s in self.schemes
        }
        timings = self._timings(State(positions[0, :1], velocities[0, :1] * self.masses[:, None])) if timing else {}
        provenance = dict(self.student.provenance)
        spent = provenance.get("seconds")
        investment = sum(float(v) for v in spent.values()) if isinstance(spent, Mapping) else spent
        return Cadence(
            self.config,
            self.atoms.get_chemical_formula("hill"),
            tuple(self._outlook(s, powers[s], student, residual[s], timings) for s in self.schemes),
            timings,
            float(investment) if investment else None,
            self.calls,
        )

    # What is measured.

    def _trajectories(self) -> tuple[Array, Array]:
        """Positions and velocities of the student, both (frames, replicas, n, 3), canonical at their starts."""
        c, R = self.config, self.replicas
        plain = Dynamics("respa", c.timestep_fs, 1, compile=False, amp=c.amp)
        rng = np.random.Generator(np.random.PCG64([c.seed, 2]))
        draws = [maxwell_boltzmann(self.masses, 2 * c.temperature_K, rng, remove_com=True) for _ in range(R)]
        start = State(np.repeat(self.at_rest[None], R, axis=0), np.stack(draws))
        bath = Langevin(c.temperature_K, WARM_UP_FRICTION, c.seed, R)
        stepper = assemble(plain, {"teacher": self.student}, self.masses, start, bath)
        guard, steps = self._guard(stepper), round(1000 * WARM_UP_PS / c.timestep_fs)
        for step in range(1, steps + 1):
            self._advance(guard, step)
            if step % CHUNK == 0:
                self.progress.update(step - steps, self.planned, "sampling with the student")
        p = stepper.state.momenta
        p = p - self.masses[:, None] * (p.sum(axis=1, keepdims=True) / self.masses.sum())
        stepper = assemble(plain, {"teacher": self.student}, self.masses, State(stepper.state.positions, p))
        guard, states = self._guard(stepper), [stepper.state]
        for step in range(1, self.frames):
            self._advance(guard, step)
            states.append(stepper.state)
        return np.stack([s.positions for s in states]), np.stack([s.momenta for s in states]) / self.masses[:, None]

    def _guard(self, stepper: Stepper) -> Guard:
        return Guard(stepper, [Temperature(stepper, self.atoms.numbers.tolist(), self.config.temperature_K)])

    def _advance(self, guard: Guard, step: int) -> None:
        try:
            guard.advance(step)
        except SimulationStopped as stop:
            detail = f"in the student's own dynamics, {stop.detail}"
            raise SimulationStopped(stop.rule, step, stop.replica, stop.atom, detail, stop.measure) from stop

    def _student_forces(self, x: Array) -> Array:
        forces: Array = evaluate(self.student, x[None]).forces[0]
        return forces

    def _residual(self, scheme: str, x: Array) -> Array:
        """Residual forces of the scheme at positions (R, n, 3), of a frame of all trajectories, each with its own guess."""
        at = self.mollifier(x) if scheme == "mollified" else x
        try:
            forces = evaluate(self.teacher, at).forces
        except (NonFinite, RuntimeError) as error:
            detail = f"along the student's trajectories, {' '.join(str(error).split())}"
            raise SimulationStopped("the teacher must converge", 0, 0, 0, detail) from error
        self.calls += len(at)
        self.progress.update(self.calls, self.planned, "asking the teacher")
        residual: Array = forces - evaluate(self.student, at).forces
        if scheme == "mollified":
            residual = self.mollifier.pull_back(x, residual)
        return residual

    def _power(self, scheme: str, positions: Array, velocities: Array) -> Array:
        """Power of the residual force on each atom, eV / time, shape (frames, replicas, n)."""
        self.teacher.reset()
        frames = zip(positions, velocities, strict=True)
        return np.array([(self._residual(scheme, x) * v).sum(axis=-1) for x, v in frames])

    def _hessian(self, forces: Callable[[Array], Array], x: Array) -> Array:
        self.teacher.reset()
        return hessian(forces, x, self.masses)

    def _timings(self, one: State) -> dict[str, float]:
        """ms: both models in a hybrid step of 8 inner steps, and the teacher along inner steps; medians."""
        c = self.config
        self.progress.update(self.planned, self.planned, "compiling and timing")
        both = {"teacher": self.teacher, "student": self.student}
        samples: dict[str, list[float]] = {"teacher": [], "student": [], "baseline": []}
        runs = [
            (assemble(Dynamics("respa", c.timestep_fs, 8, amp=c.amp), both, self.masses, one), ("teacher", "student")),
            (assemble(Dynamics("respa", c.timestep_fs, 1), {"teacher": self.teacher}, self.masses, one), ("baseline",)),
        ]
        for stepper, names in runs:
            self.teacher.reset()
            for _ in range(BASELINE_STEPS):
                stepper.step()
            for _ in range(BASELINE_STEPS):
                seconds, calls = dict(stepper.forces.seconds), dict(stepper.forces.calls)
                stepper.step()
                for name in names:
                    model = "teacher" if name == "baseline" else name
                    spent, made = (
                        stepper.forces.seconds[model] - seconds[model],
                        stepper.forces.calls[model] - calls[model],
                    )
                    samples[name].append(1e3 * spent / made)
        return {name: float(np.median(values)) for name, values in samples.items()}

    # What follows from it.

    def _outlook(
        self, scheme: str, power: Array, student: list[Array], residual: list[Array], timing: Mapping[str, float]
    ) -> Outlook:
        c = self.config
        spectra = [_modes(k, r) for k, r in zip(student, residual, strict=True)]
        ks = range(2, int(c.max_outer_fs / c.timestep_fs + 1e-9) + 1)
        steps = tuple(self._step(scheme, k, power, spectra, timing) for k in ks)
        return Outlook(
            scheme,
            steps,
            self._mode_table(student, spectra),
            longest(steps, lambda s: s.heating.upper <= c.drift_limit / MARGIN),
            nvt := longest(steps, lambda s: max(e.upper for e in s.hot.values()) <= c.temperature_limit_K / MARGIN)
            if self.bathed
            else None,
            self._next_friction(steps, nvt) if self.bathed and not c.friction_by_element else None,
        )

    def _step(
        self,
        scheme: str,
        k: int,
        power: Array,
        spectra: list[tuple[Array, Array, Array]],
        timing: Mapping[str, float],
    ) -> Step:
        c, n = self.config, len(self.masses)
        work = kick_work(power, k, c.timestep_fs * FS, WINDOW_PS * PS, self.kT, self.groups)
        per_atom = PS / (MEV * n)
        outer = k * c.timestep_fs * FS
        calls = k + (scheme == "mollified")
        speedup = (
            predicted_speedup(k, timing["baseline"], timing["teacher"], timing["student"], calls) if timing else None
        )
        bias = [np.abs(position_bias(w, np.diag(d) / w**2, outer)).max(initial=0.0) for w, d, _ in spectra]
        return Step(
            k,
            k * c.timestep_fs,
            _estimate(work.heating * per_atom),
            float(np.sqrt(max(work.walk.mean(), 0.0) * PS) / (MEV * n)),
            {e: self._excess(v, e) for e, v in work.by_group.items()} if self.bathed else {},
            float(np.mean([map_growth(w, d, outer) for w, d, _ in spectra])) * PS,
            100 * float(np.median(bias)),
            speedup,
        )

    def _excess(self, heating: Array, element: str) -> Estimate:
        """How far an element runs above the bath, K: what is put in is what the friction takes out, 2 gamma (K - K0).

        The work grows in proportion to the energy of what it heats, so the excess is T x / (1 - x), with x = P / (3 N kT
        gamma); heat that leaks to other elements would lower it.
        """
        gamma = self.config.friction(element) / PS
        x = _estimate(heating / (3 * len(self.groups[element]) * self.kT * gamma))
        if x.upper >= 1:
            return Estimate(np.inf if x.value >= 1 else self.config.temperature_K * x.value / (1 - x.value), np.inf)
        excess, upper = (self.config.temperature_K * y / (1 - y) for y in (x.value, x.upper))
        return Estimate(excess, (upper - excess) / ONE_SIDED)

    def _next_friction(self, steps: tuple[Step, ...], k: int | None) -> float | None:
        """The friction at which the step after k is within the limit: x is in inverse proportion to it."""
        c = self.config
        following = next((s for s in steps if s.k == (k or 1) + 1), None)
        if following is None:
            return None
        T, limit = c.temperature_K, c.temperature_limit_K / MARGIN
        upper = max(e.upper for e in following.hot.values())
        if not np.isfinite(upper):
            return None
        x = upper / (T + upper)
        return float(c.friction_per_ps * x * (T + limit) / limit)

    def _mode_table(self, student: list[Array], spectra: list[tuple[Array, Array, Array]]) -> tuple[Mode, ...]:
        """Fast modes, matched between frames by their order."""
        hydrogens, parent = self.mollifier.hydrogens, self.mollifier.parent
        along = np.zeros((len(hydrogens), len(self.masses), 3))
        for row, h in zip(along, hydrogens, strict=True):
            u = self.at_rest[h] - self.at_rest[parent[h]]
            u /= np.linalg.norm(u)
            row[h], row[parent[h]] = u / np.sqrt(self.masses[h]), -u / np.sqrt(self.masses[parent[h]])
        # An orthonormal basis of all stretches: those that share a heavy atom are not orthogonal.
        axes = np.linalg.qr(along.reshape(len(hydrogens), -1).T)[0].T
        fast = min(len(w) for w, _, _ in spectra)
        out = []
        for i in range(1, fast + 1):
            w = np.array([s[0][-i] for s in spectra])
            error = np.array([s[1][-i, -i] / s[0][-i] ** 2 for s in spectra])
            rms = float(np.sqrt((error**2).mean()))
            share = float(((axes @ spectra[0][2][:, -i]) ** 2).sum())
            out.append(Mode(float(w.mean()) / CM1, share, rms, 0.5 * rms * float(w.mean()) * PS))
        return tuple(out)


def _modes(student: Array, residual: Array) -> tuple[Array, Array, Array]:
    """Angular frequencies (m,) of the student's fast modes, rising; the residual in them (m, m); the modes (3n, m)."""
    values, vectors = np.linalg.eigh(student)
    keep = values > (SLOWEST_CM1 * CM1) ** 2
    v = vectors[:, keep]
    return np.sqrt(values[keep]), v.T @ residual @ v, v


def _estimate(values: Array) -> Estimate:
    return Estimate(float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values))))
