"""Studies: the runs that answer a question about a model, or about the fast way to run one.

A study is a folder of run folders with a `study.json` that says what was asked. Every run in it survives being killed,
so a study does, too: the same call goes on where it was.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mlff_sim.errors import InputError, SimulationStopped
from mlff_sim.forces import Array
from mlff_sim.progress import Named, Progress, Silent
from mlff_sim.runfolder import STUDY_FORMAT, read_run, read_study, write_json
from mlff_sim.simulation import Run, RunConfig
from mlff_sim.simulation.config import GUARDS, WARM_FRICTION
from mlff_sim.state import State, at_rest

STARTS = Path("starts") / "run"
"""Where in a study the warm-up lies: a floor deeper than what is judged."""
WARM_STEP_FS = 1.0
"""fs, of the warm-up: the teacher's own dynamics, whose positions BAOAB samples well at this step."""


SPECTRUM_FS = 2.0
"""fs, between frames that tell every frequency there is in a molecule."""
TRIALS = ("nve", "nvt", "step-size", "ensemble", "vibrations", "stability")
"""Questions about one model."""


@dataclass(frozen=True)
class Study:
    """What is asked, and the runs that answer it.

    Attributes:
        question: what the runs are judged by, e.g. "nve" or "certify".
        runs: settings by name, of molecules that start where the warm-up ends.
        warm_ps: ps, of warm-up for each replica, with the teacher at constant temperature; 0 starts from the file.
        facts: what else the judge has to know.
    """

    question: str
    runs: Mapping[str, RunConfig]
    warm_ps: float = 2.0
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a warm-up that is none."""
        if not (np.isfinite(self.warm_ps) and self.warm_ps >= 0):
            raise InputError(f"equilibrate_ps = {self.warm_ps:g} must not be negative.")


def carry_out(study: Study, folder: str | Path, progress: Progress | None = None) -> Path:
    """Make the runs of a study that are not there yet, and go on with those that are not finished.

    A run that a guard stops is left as it is; the judge sees it.

    Returns:
        The folder.

    Raises:
        InputError: settings or files that cannot be used, or a folder that holds another study.
        SimulationStopped: by a guard in the warm-up, so that there is nowhere to start from.
    """
    root, progress = Path(folder), progress or Silent()
    asked = {
        "format": STUDY_FORMAT,
        "question": study.question,
        "facts": dict(study.facts),
        "warm_ps": study.warm_ps,
        "runs": {name: config.decisive for name, config in study.runs.items()},
    }
    asked = json.loads(json.dumps(asked))
    known = read_study(root)
    found = known.pop("found", None)
    if known and not grown(known, asked, "runs"):
        raise InputError(f"'{root}' holds another study ({_changed(known, asked)}); give another folder.")
    if not known and root.is_dir() and any(not p.name.startswith(".study.json.") for p in root.iterdir()):
        raise InputError(f"'{root}' is not empty and holds no study; give a new folder.")
    first = next(iter(study.runs.values()))
    if not known:
        # Before the folder exists, whatever can be checked is; of a start from where the warm-up will end.
        warm_ps = study.warm_ps or first.equilibrate_ps
        Run(replace(first, equilibrate_ps=warm_ps), root / next(iter(study.runs)))
        if study.warm_ps:
            _warm_up(first, study.warm_ps)
        root.mkdir(parents=True, exist_ok=True)
    if known != asked:
        write_json(root / "study.json", asked if found is None else asked | {"found": found})
    aim = bool(study.facts.get("quick"))
    starts = _warm(first, study.warm_ps, root, progress, aim) if study.warm_ps else first.structure
    outer = None
    for name, config in study.runs.items():
        settled = replace(config, structure=starts)
        if outer is not None and settled.plain:
            # Frames as far apart as those of the fast run, so that spectra of the two fold alike.
            settled = replace(settled, every=max(1, round(outer / settled.timestep_fs)))
        with suppress(SimulationStopped):
            Run(settled, root / name, resume=True, progress=Named(progress, name)).run()
        settings = read_run(root / name).settings
        if settings.get("kind") == "hybrid" and settings.get("physical_time"):
            outer = float(settings["outer_step_fs"]) * int(settings["every"])
    if study.facts.get("modes") and found is None:
        write_json(root / "study.json", asked | {"found": {"modes_cm": _modes(first, progress)}})
    return root


def grown(known: Mapping[str, Any], asked: Mapping[str, Any], *parts: str) -> bool:
    """Whether what is asked for is what is known, but for more in some of its parts."""
    same = {key: value for key, value in asked.items() if key not in parts}
    return same == {key: value for key, value in known.items() if key not in parts} and all(
        asked[part] == {**asked[part], **(known.get(part) or {})} for part in parts
    )


def _changed(known: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    """The first thing that two studies differ in."""
    key = next(key for key in asked if known.get(key) != asked[key])
    if key != "runs" or not (known.get(key) or {}).keys() <= asked[key].keys():
        return f"its {key} is {known.get(key)}, not {asked[key]}" if key != "runs" else "other runs"
    name = next(name for name in known[key] if known[key][name] != asked[key][name])
    here, there = asked[key][name], known[key][name]
    setting = next(s for s in here if there.get(s) != here[s])
    return f"{setting} of {name} is {there.get(setting)} there and {here[setting]} here"


def _modes(config: RunConfig, progress: Progress) -> list[float]:
    """Wave numbers of the normal modes, 1/cm."""
    from mlff_sim.models.registry import load_model
    from mlff_sim.simulation.modes import normal_modes
    from mlff_sim.structure import read_structures

    atoms = read_structures(config.structure)[0]
    progress.update(0, 1, "normal modes")
    return [
        float(w) for w in normal_modes(load_model(config.teacher, atoms), atoms.get_positions(), atoms.get_masses())
    ]


def _warm_up(config: RunConfig, warm_ps: float) -> RunConfig:
    """The warm-up: the teacher alone, at constant temperature."""
    return RunConfig(
        config.structure,
        config.teacher,
        ensemble="nvt",
        timestep_fs=min(WARM_STEP_FS, 2 * config.timestep_fs),
        duration_ps=warm_ps,
        temperature_K=config.temperature_K,
        friction_per_ps=WARM_FRICTION,
        replicas=config.replicas or 1,
        seed=config.seed,
        compile=config.compile,
        compile_teacher=config.compile_teacher,
        teacher_workers=config.teacher_workers,
        unguarded=config.unguarded,
        hydrogen_mass=config.hydrogen_mass,
    )


def _warm(config: RunConfig, warm_ps: float, root: Path, progress: Progress, aim: bool) -> str:
    """A frame for each replica after a warm-up with the teacher; where it is, with the slice that holds them.

    With `aim` momenta are scaled so that the mean temperature to come is the one asked for.
    """
    path = root / STARTS.parent / "starts.xyz"
    replicas = config.replicas or 1
    if not path.exists():
        from ase import Atoms
        from ase.io import write

        from mlff_sim.structure import charge_and_spin, read_structures

        warm = _warm_up(config, warm_ps)
        with suppress(SimulationStopped):
            Run(warm, root / STARTS, resume=True, progress=Named(progress, "warm-up")).run()
        found = read_run(root / STARTS)
        if stop := found.settings["stop"]:
            detail = f"during the warm-up, {stop['detail']}; {root / STARTS / 'stop.txt'} dissects it"
            raise SimulationStopped(stop["rule"], stop["step"], stop["replica"], stop["atom"], detail)
        masses = np.array(found.settings["structure"]["masses"])
        state = State(found.positions[-1], at_rest(found.momenta[-1], masses))
        if aim:
            state = _aimed(config, state, masses, found.potential_energy[-1])
        charge, spin = charge_and_spin(read_structures(config.structure)[0])
        images = []
        for x, p in zip(state.positions, state.momenta, strict=True):
            image = Atoms(
                found.settings["structure"]["numbers"], x, masses=masses, info={"charge": charge, "spin": spin}
            )
            image.set_momenta(p)
            images.append(image)
        temporary = path.with_suffix(".tmp")
        write(temporary, images, format="extxyz")
        temporary.replace(path)
    return f"{path}@0:{replicas}"


def trial(question: str, config: RunConfig, warm_ps: float = 2.0, *, quick: bool = False) -> Study:
    """The study that answers a question about one model.

    | question | runs | judged by |
    |---|---|---|
    | "nve" | replicas at constant energy | drift of the energy |
    | "nvt" | replicas under a bath | temperature of each element and kind of motion; structure against a reference |
    | "step-size" | constant energy at twice, once and half the time step | fluctuation of the energy, which goes with its square |
    | "ensemble" | baths at two temperatures | the ratio of their distributions of the potential energy |
    | "vibrations" | constant energy, a frame every 2 fs | lines of the spectrum against normal modes |
    | "stability" | replicas under a bath, without guards | how long they last, and what breaks first |

    Args:
        question: one of these.
        config: model, structure, time step, length, replicas and temperature; the rest follows from the question.
        warm_ps: ps, of warm-up.
        quick: of "nve", start with the energy that aims at the temperature, and judge by the quick criteria.

    Raises:
        InputError: another question, or quick criteria for another than "nve".
    """
    nve, nvt = replace(config, ensemble="nve"), replace(config, ensemble="nvt")
    if not (np.isfinite(warm_ps) and warm_ps >= 0):
        raise InputError(f"equilibrate_ps = {warm_ps:g} must not be negative.")
    if question in ("nvt", "ensemble") and not (config.friction_per_ps and all(config.friction_by_element.values())):
        raise InputError(f"question '{question}' is about a bath, and friction_per_ps = 0 is none; give some.")
    if quick and not warm_ps:
        raise InputError("the quick criteria aim at a temperature from where a warm-up ends; give some equilibrate_ps.")
    if quick and question != "nve":
        raise InputError(f"the quick criteria are for 'nve'; question '{question}' has none.")
    if question == "nve":
        return Study(question, {"nve": nve}, warm_ps, {"quick": True} if quick else {})
    if question == "nvt":
        return Study(question, {"nvt": nvt}, warm_ps)
    if question == "step-size":
        # Frames at the same times in all three.
        row = config.every or 4
        if row % 2:
            raise InputError(
                f"every = {row} is odd, and the run at twice the step records as often; give an even number."
            )
        steps = {"double": (2.0, row // 2), "single": (1.0, row), "half": (0.5, 2 * row)}
        runs = {n: replace(nve, timestep_fs=f * config.timestep_fs, every=e) for n, (f, e) in steps.items()}
        return Study(question, runs, warm_ps)
    if question == "ensemble":
        from mlff_sim.structure import read_structures

        n = len(read_structures(config.structure)[0])
        high = config.temperature_K * (1 + 1 / np.sqrt(1.5 * n))
        warm = {"equilibrate_ps": max(warm_ps, 1e-3)}
        runs = {"low": replace(nvt, **warm), "high": replace(nvt, temperature_K=round(float(high), 1), **warm)}  # type: ignore[arg-type]
        return Study(question, runs, 0.0)
    if question == "vibrations":
        if config.every is not None:
            raise InputError(f"question '{question}' records a frame every {SPECTRUM_FS:g} fs; leave every out.")
        every = max(1, int(SPECTRUM_FS / config.timestep_fs))
        return Study(question, {"nve": replace(nve, every=every)}, warm_ps, {"modes": True})
    if question == "stability":
        unguarded = replace(nvt, unguarded=tuple(g for g in GUARDS if g != "energy"), energy_budget_meV=None)
        return Study(question, {"nvt": unguarded}, warm_ps)
    raise InputError(f"question '{question}' is unknown; choose one of: {', '.join(TRIALS)}.")


def _aimed(config: RunConfig, state: State, masses: Array, potential_eV: Array) -> State:
    """The same positions, with the total energy that has the temperature as its mean in the harmonic limit."""
    from mlff_sim.forces import evaluate
    from mlff_sim.models.registry import load_model
    from mlff_sim.motion import aimed_momenta
    from mlff_sim.simulation.assembly import relaxed
    from mlff_sim.structure import read_structures

    model = load_model(config.teacher, read_structures(config.structure)[0])
    lowest = [float(evaluate(model, relaxed(model, x)[None]).energy[0]) for x in state.positions]
    above = np.maximum(potential_eV - np.array(lowest), 0.0)
    return State(state.positions, aimed_momenta(state, masses, config.temperature_K, above, com_removed=True))
