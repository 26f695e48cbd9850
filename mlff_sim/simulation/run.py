"""One run, from its settings to a finished folder."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from mlff_sim.acceleration import Execution
from mlff_sim.errors import InputError, SimulationStopped
from mlff_sim.forces import Array, ForceProvider
from mlff_sim.integrators.metropolis import Metropolis
from mlff_sim.integrators.mollifier import Mollifier
from mlff_sim.integrators.stepper import Langevin, Stepper
from mlff_sim.leaps.file import check_generating, load_generator, read_generating
from mlff_sim.models.registry import resolve, student_name
from mlff_sim.models.workers import load_shared
from mlff_sim.predictors.file import check_predictor, load_predictor, read_predictor
from mlff_sim.progress import Progress, Silent
from mlff_sim.runfolder import FORMAT, VERSION, RunWriter, hardware, read_settings, versions
from mlff_sim.simulation.assembly import Dynamics, assemble, leaps, macro_steps, relaxed
from mlff_sim.simulation.cadence import CadenceConfig, frozen
from mlff_sim.simulation.clock import Baseline
from mlff_sim.simulation.config import AUTO, BOUNDED, SAMPLERS, WARM_FRICTION, RunConfig
from mlff_sim.simulation.dissection import dissect, facts, told
from mlff_sim.simulation.forecast import Forecast
from mlff_sim.simulation.guards import Guard
from mlff_sim.simulation.production import Production
from mlff_sim.simulation.relabel import Relabel
from mlff_sim.simulation.rules import Rule, training_range
from mlff_sim.simulation.soundness import Sound
from mlff_sim.simulation.tuning import choose, jumps, ladder, unit_steps
from mlff_sim.simulation.watch import budget, common_rules, residual
from mlff_sim.state import State, at_rest, kinetic_energy, maxwell_boltzmann
from mlff_sim.structure import check_free, covalent_bonds, per_atom, read_structures, repartitioned_masses
from mlff_sim.units import FS, KB

if TYPE_CHECKING:
    from ase import Atoms

    from mlff_sim.leaps.generating import Generator
    from mlff_sim.predictors.predictor import Predictor

EQUILIBRATION = 2**32
"""Added to the seed for the random streams of equilibration."""


class Run:
    """Two-model or plain dynamics of all replicas.

    Args:
        config: what to do.
        out: run folder.
        resume: continue what is there.
        progress: told outer steps.
    """

    def __init__(
        self, config: RunConfig, out: str | Path, *, resume: bool = False, progress: Progress | None = None
    ) -> None:
        """Check everything that can be checked, cheap things first, then load the models. Nothing is written yet."""
        self.config, self.progress = config, progress or Silent()
        names = {"teacher": config.teacher}
        if config.student is not None:
            # The student first: its species are checked without loading torch.
            middle = {"middle": student_name(config.middle)} if config.middle is not None else {}
            names = {"student": student_name(config.student), **middle, **names}
        for name in names.values():
            resolve(name)
        frames = read_structures(config.structure)
        self.atoms, self.fingerprint = frames[0], _fingerprint(frames)
        if any(f.pbc.any() for f in frames):
            raise InputError(f"'{config.structure}' is periodic; runs are of molecules in vacuum, for now.")
        if config.replicas is not None and len(frames) not in (1, config.replicas):
            raise InputError(
                f"'{config.structure}' holds {len(frames)} frames for {config.replicas} replicas; "
                "give one frame, or one for each."
            )
        if any(f.numbers.tolist() != self.atoms.numbers.tolist() for f in frames):
            raise InputError(f"the frames of '{config.structure}' differ in their atoms; replicas are copies of one.")
        self.replicas = config.replicas or len(frames)
        for frame in frames:
            check_free(frame, f"'{config.structure}'")
        if config.teacher_workers > self.replicas:
            raise InputError(
                f"teacher_workers = {config.teacher_workers} for {self.replicas} replica{'s' * (self.replicas > 1)}: "
                f"a replica is evaluated in one process; use at most {self.replicas}."
            )
        self.ladder = ladder(config, self.replicas) if config.k_steps == AUTO and config.scheme == "ghmc" else None
        self.bonds = covalent_bonds(self.atoms)
        if config.hydrogen_mass is not None:
            _repartition(frames, self.bonds, config.hydrogen_mass)
        self.masses = self.atoms.get_masses()
        if config.predictor is not None:
            what = (config.predictor, self.atoms.numbers.tolist(), config.jump_steps, config.timestep_fs)
            if config.leaps:
                check_generating(read_generating(config.predictor), *what)
            else:
                check_predictor(read_predictor(config.predictor), *what)
        if config.remove_com and len(self.atoms) == 1:
            raise InputError("remove_com leaves a single atom nothing to move with.")
        # NVE runs asked for without friction still equilibrate with 1/ps.
        friction = config.friction_per_ps or (1.0 if config.ensemble == "nve" else 0.0)
        self.friction = per_atom(self.atoms, friction, config.friction_by_element, "friction_per_ps")
        if config.scheme == "mollified" and not len(self._mollifier(self.atoms.positions).hydrogens):
            raise InputError(f"scheme 'mollified' needs X-H bonds and '{config.structure}' has none; use 'respa'.")
        self.start, self.com_removed = self._initial_state(frames)
        # The loop that a student runs in is on the CPU, also where it is alone.
        alone = resolve(names["teacher"])[0].role == "student" and config.student is None
        how = {"teacher": config.execution, "middle": config.execution, "student": Execution(device="cpu")}
        if alone:
            how["teacher"] = how["student"]
        self.providers: dict[str, ForceProvider] = {
            key: load_shared(name, self.atoms, how[key], config.teacher_workers if key == "teacher" else 1)
            for key, name in names.items()
        }
        self.predictor = self._load_predictor() if config.predictor is not None else None
        if config.on_residual == "relabel" and (
            config.middle is not None or training_range(self.providers["student"].provenance) is None
        ):
            why = (
                "the teacher corrects a middle model"
                if config.middle
                else f"'{config.student}' records no training errors"
            )
            raise InputError(f"on_residual 'relabel' needs to know how well the student was trained, and {why}.")
        self.mollifier = None
        if config.scheme == "mollified":
            self.mollifier = self._mollifier(relaxed(self.providers["student"], self.atoms.get_positions()))
            self.providers["student"].reset()
        self.writer = RunWriter(Path(out), self._settings(), self.atoms)
        self.action = self.writer.check(resume)

    @property
    def status(self) -> str:
        """What the folder says: "finished", "stopped", or "running"."""
        return str(read_settings(self.writer.folder)["status"])

    def _initial_state(self, frames: list[Atoms]) -> tuple[State, bool]:
        """Positions and momenta of every replica, and whether the centre of mass is at rest (and stays so)."""
        config = self.config
        given = [f.has("momenta") and bool(f.get_momenta().any()) for f in frames]
        copies = len(frames) < self.replicas
        if copies and all(given) and config.ensemble == "nve" and not config.equilibrate_ps:
            raise InputError(
                f"{self.replicas} NVE replicas from one frame with velocities would be copies; "
                f"give a frame for each (FILE@0:{self.replicas}) or --equilibrate-ps."
            )
        if copies:
            frames, given = frames * self.replicas, given * self.replicas
        com_stays = config.ensemble == "nve" or config.remove_com
        momenta = []
        for r, (frame, has) in enumerate(zip(frames, given, strict=True)):
            rng = np.random.Generator(np.random.PCG64([config.seed, 0, r]))
            drawn = maxwell_boltzmann(self.masses, config.temperature_K, rng, remove_com=com_stays)
            p = frame.get_momenta() if has else drawn
            momenta.append(at_rest(p, self.masses) if config.remove_com else p)
        state = State(np.array([f.get_positions() for f in frames]), np.array(momenta))
        still = np.abs(state.momenta.sum(axis=1)).max() < 1e-6 * np.abs(state.momenta).max()
        return state, bool(com_stays and still)

    def _mollifier(self, at_rest: Array) -> Mollifier:
        return Mollifier(self.atoms.numbers.tolist(), self.bonds, at_rest)

    def _settings(self) -> dict[str, Any]:
        config, numbers = self.config, self.atoms.numbers.tolist()
        hashes = {key: p.provenance.get("sha256") for key, p in self.providers.items()}
        models = {"model" if config.plain else key: dict(p.provenance) for key, p in self.providers.items()}
        if self.predictor is not None:
            models["predictor"] = dict(self.predictor.record)
            hashes["predictor"] = self.predictor.record["sha256"]
        settings = {
            "format": FORMAT,
            "version": VERSION,
            "kind": "md" if config.plain else "hybrid",
            **asdict(config),
            "replicas": self.replicas,
            **_layout(config),
            "com_removed": self.com_removed,
            "physical_time": config.scheme not in (*SAMPLERS, "kstep"),
            "physical_momenta": config.scheme not in BOUNDED,
            "structure": {
                "file": config.structure,
                "formula": self.atoms.get_chemical_formula("hill"),
                "numbers": numbers,
                "masses": self.masses.tolist(),
                "bonds": self.bonds,
            },
            # The start is known by what it holds: its file may be called otherwise where a run is taken up.
            "config": {
                **{k: v for k, v in config.decisive.items() if k != "structure"},
                "hashes": hashes,
                "start": self.fingerprint,
            },
            "models": models,
            "students_stretches": [[int(self.mollifier.parent[h]), int(h)] for h in self.mollifier.hydrogens]
            if self.mollifier
            else [],
            "versions": versions(),
            "hardware": hardware(),
        }
        plain: dict[str, Any] = json.loads(json.dumps(settings))
        return plain

    def _stepper(self, ensemble: str, state: State, seed: int, compile: bool) -> Stepper:
        config = self.config
        bath = self._bath(seed) if ensemble == "nvt" else None
        # Where the length of trajectories is tuned, they are repetitions of the shortest.
        k = config.k_steps if isinstance(config.k_steps, int) else unit_steps(config.timestep_fs)
        dynamics = Dynamics(
            config.scheme,
            config.timestep_fs,
            k,
            compile,
            config.amp,
            config.integrator,
            config.middle_steps,
            config.proposal_steps,
            config.corrector_steps,
        )
        if self.predictor is None:
            return assemble(dynamics, self.providers, self.masses, state, bath, self.mollifier)
        if config.leaps:
            assert bath is not None
            generator = cast("Generator", self.predictor)
            return leaps(dynamics, self.providers, self.masses, state, bath, generator, config.jump_steps)
        sound = None if "draws" in config.unguarded else self._sound(state)
        # Draws need random numbers at constant energy, too.
        bath = bath or Langevin(config.temperature_K, 0.0, seed, self.replicas)
        macro = replace(dynamics, k_steps=config.macro_steps)
        return macro_steps(macro, self.providers, self.masses, state, bath, cast("Predictor", self.predictor), sound)

    def _sound(self, start: State) -> Sound:
        """The judge of draws; a start that is hotter than the bath is no reason to drop what follows from it."""
        started_K = kinetic_energy(start.momenta, self.masses) / (1.5 * len(self.masses) * KB)
        temperature_K = np.maximum(started_K, self.config.temperature_K)
        return Sound(self.atoms.numbers.tolist(), self.bonds, self.start.positions, self.masses, temperature_K)

    def _load_predictor(self) -> Predictor | Generator:
        config = self.config
        path, numbers, jump = str(config.predictor), self.atoms.numbers, (config.jump_steps, config.timestep_fs)
        if config.leaps:
            return load_generator(path, numbers, self.masses, *jump)
        how = {"compile": config.compile, "amp": config.amp}
        return load_predictor(path, numbers, self.masses, self.bonds, *jump, **how)

    def _bath(self, seed: int, most: float = np.inf) -> Langevin:
        config = self.config
        friction = np.minimum(self.friction, most)
        return Langevin(config.temperature_K, friction, seed, self.replicas, remove_com=config.remove_com)

    def _watch(self, stepper: Stepper) -> tuple[Guard, Relabel | None]:
        """The guard of production, and what collects frames where that is asked for."""
        rules: list[Rule] = []
        compared = "residual" in stepper.forces.differences
        seen = residual(stepper, self.providers["student"].provenance) if compared else None
        if seen is not None and self.config.on_residual == "stop":
            rules.append(seen)
        rules += common_rules(self.config, stepper, self.atoms, self.bonds, self.start)
        rules += budget(self.config, stepper, self.start)
        collects = seen is not None and self.config.on_residual == "relabel"
        return Guard(stepper, rules), Relabel(seen, stepper, self._step_fs(stepper)) if seen and collects else None

    def _step_fs(self, stepper: Stepper) -> float:
        """Outer step; while lengths of trajectories are tried out there is none yet, and the shortest stands for it."""
        return stepper.timestep / FS if self.config.k_steps == AUTO else self.config.outer_step_fs

    def _dissected(self, stop: SimulationStopped) -> tuple[dict[str, Any], dict[str, Any]]:
        """Facts and dissection for run.json; leaves both as text, and the last frames, in the folder."""
        outer, r = self._step_fs(self.guard.stepper), stop.replica
        what = facts(stop, self.atoms, outer)
        found = dissect(stop, self.guard, self.atoms, self.bonds, self.start.positions, outer)
        frames = [(m.step * outer / 1000, m.state.positions[r]) for m in self.guard.tail]
        frames = [(t, x) for t, x in frames if np.isfinite(x).all()]
        self.writer.stopped(told(what, found), frames or [(0.0, self.guard.stepper.state.positions[r])])
        return what, found

    def run(self) -> str:
        """Run to the end and return the status. On a finished folder this does nothing.

        Raises:
            SimulationStopped: a guard ended the run; the folder holds everything up to there.
        """
        if self.action == "finished":
            return self.status
        _limit_threads(len(self.atoms))
        saved = self.writer.checkpoint() if self.action == "resume" else None
        if self.config.k_steps == AUTO and self.config.scheme != "ghmc":
            self.config = self._foretold(saved)
        self.writer.open()
        config = self.config
        baseline = Baseline(config, self.atoms) if config.baseline and not config.plain else None
        stepper = self._stepper(config.ensemble, self.start, config.seed, config.compile)
        self.guard, relabel = self._watch(stepper)
        production = Production(config, self.guard, self.writer, self.progress, baseline, relabel)
        try:
            if isinstance(stepper, Metropolis) and config.k_steps == AUTO:
                tuning = json.loads(str(saved["json"]))["tuning"] if saved else self._tune(stepper)
                self.config = production.config = self._settle(stepper, tuning)
            elif saved is None:
                self._equilibrate(stepper)
            if saved is None:
                production.begin()
            else:
                production.restore(saved)
            production.run()
        except SimulationStopped as stop:
            production.abandon()
            what, found = self._dissected(stop)
            self.writer.finish("stopped", what, {**production.summary(), "dissection": found})
            raise
        self.writer.finish("finished", None, production.summary())
        return "finished"

    def _tune(self, stepper: Metropolis) -> dict[str, Any]:
        """The warm-up in which trajectories of several lengths are tried; leaves the stepper at the start of production."""
        config, rungs, bath = self.config, self.ladder, stepper.bath
        assert rungs is not None
        stepper.bath = self._bath(config.seed + EQUILIBRATION)
        production, self.guard = self.guard, self._warming(stepper)
        accepted, jumped = (np.zeros((rungs.sweeps, len(rungs.multiples))) for _ in range(2))
        for sweep in range(rungs.sweeps):
            for i, stepper.steps in enumerate(rungs.multiples):
                before, count = stepper.state.positions, stepper.accepted
                self._warm(sweep * len(rungs.multiples) + i + 1)
                accepted[sweep, i] = (stepper.accepted - count).mean()
                jumped[sweep, i] = jumps(before, stepper.state.positions).mean()
            self.progress.update(sweep + 1, rungs.sweeps, "equilibration, tuning k")
        stepper.forces.reset()
        stepper.restart(stepper.state, bath)
        self.guard = production
        return choose(rungs, accepted, jumped)

    def _foretold(self, saved: dict[str, Array] | None) -> RunConfig:
        """The settings with the cadence that is predicted to hold, or was when the run began; run.json will say so."""
        config = self.config
        if saved:
            found = json.loads(str(saved["json"]))["cadence"]
        else:
            asked = CadenceConfig(
                config.structure,
                config.teacher,
                str(config.student),
                (config.scheme,),
                config.ensemble,
                config.temperature_K,
                config.friction_per_ps or 0.0,
                config.timestep_fs,
                friction_by_element=config.friction_by_element,
                max_outer_fs=min(12.0, 100 * config.timestep_fs),
                # No more calls than the run itself would make at 4 fs, so that finding out is not the larger part.
                teacher_calls=max(1, min(10_000, round(250 * config.duration_ps * self.replicas))),
                hydrogen_mass=config.hydrogen_mass,
                amp=config.amp,
                seed=config.seed,
            )
            models = self.providers["teacher"], self.providers["student"]
            try:
                outlook = Forecast(asked, self.atoms, *models, self.progress).cadence(timing=False).outlooks[0]
            except SimulationStopped as stop:
                raise InputError(
                    f"k_steps = 'auto' cannot be predicted ({stop}); give a number, or a better student."
                ) from stop
            for model in models:
                model.reset()
            found = frozen(outlook, asked)
        settled = replace(config, k_steps=found["k_steps"])
        self.writer.settings |= {**_layout(settled), "cadence": found}
        return settled

    def _settle(self, stepper: Metropolis, tuning: dict[str, Any]) -> RunConfig:
        """Freeze the length that was chosen, and say so in run.json."""
        stepper.steps = tuning["k_steps"] // unit_steps(self.config.timestep_fs)
        settled = replace(self.config, k_steps=tuning["k_steps"])
        self.writer.settings |= {**_layout(settled), "tuning": tuning}
        self.writer.open()
        return settled

    def _warming(self, stepper: Stepper) -> Guard:
        """The guard of what comes before production."""
        return Guard(stepper, common_rules(self.config, stepper, self.atoms, self.bonds, self.start))

    def _warm(self, step: int) -> None:
        """One step before production."""
        try:
            self.guard.advance(step)
        except SimulationStopped as stop:
            detail = f"during equilibration, {stop.detail}"
            raise SimulationStopped(stop.rule, step, stop.replica, stop.atom, detail, stop.measure) from stop

    def _equilibrate(self, stepper: Stepper) -> None:
        """NVT before production, with the same models, or the teacher where a predictor jumps; leaves the stepper at the start."""
        config = self.config
        outer = config.timestep_fs if config.predictor is not None else config.outer_step_fs
        steps = round(config.equilibrate_ps * 1000 / outer)
        if not steps:
            return
        bath, seed = stepper.bath, config.seed + EQUILIBRATION
        warm = stepper
        if config.predictor is not None:
            teacher = {"teacher": self.providers["teacher"]}
            dynamics = Dynamics("respa", config.timestep_fs, 1, integrator=config.integrator)
            warm = assemble(dynamics, teacher, self.masses, self.start, self._bath(seed, WARM_FRICTION))
        elif config.ensemble == "nvt":
            warm.bath = self._bath(seed)
        else:
            warm = self._stepper("nvt", self.start, seed, compile=False)  # too short to be worth compiling
        production, self.guard = self.guard, self._warming(warm)
        for step in range(1, steps + 1):
            self._warm(step)
            self.progress.update((step - steps) * outer / config.outer_step_fs, config.outer_steps, "equilibration")
        state = warm.state
        if config.ensemble == "nve":
            state = State(state.positions, at_rest(state.momenta, self.masses))
            self.writer.settings["com_removed"] = True
        warm.forces.reset()
        stepper.restart(state, bath)
        self.guard = production


def _repartition(frames: list[Atoms], bonds: list[tuple[int, int]], hydrogen_mass: float) -> None:
    """Give all frames the repartitioned masses; momenta they have keep each atom's kinetic energy, and so the ensemble."""
    masses = repartitioned_masses(frames[0], bonds, hydrogen_mass)
    for frame in frames:
        old, p = frame.get_masses(), frame.get_momenta()
        frame.set_masses(masses)
        if p.any() and not np.array_equal(old, masses):
            new = p * np.sqrt(masses / old)[:, None]
            was_still = np.abs(p.sum(axis=0)).max() < 1e-6 * np.abs(p).max()
            frame.set_momenta(at_rest(new, masses) if was_still else new)


def _fingerprint(frames: list[Atoms]) -> str:
    """Of atoms, masses, positions and momenta in a structure file, rounded as files round."""
    parts = [np.concatenate([f.numbers, f.get_masses(), f.positions.ravel(), f.get_momenta().ravel()]) for f in frames]
    rounded = np.concatenate(parts).round(6) + 0.0  # no negative zeros
    return hashlib.sha256(rounded.tobytes()).hexdigest()


def _layout(config: RunConfig) -> dict[str, Any]:
    """What of the settings depends on the length of an outer step."""
    if config.k_steps == AUTO:
        return {"every": None, "outer_step_fs": None}
    return {"k_steps": config.k_steps, "every": config.frame_steps, "outer_step_fs": config.outer_step_fs}


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
