"""Time studies: several molecules, each run in several ways, so that time and accuracy can be held side by side.

The folder has one for each molecule, which is a study (`mlff_sim.studies`) of its own: a warm-up with the teacher, the teacher
alone, and a run for each way, all from the same starts. Whatever is finished is left as it is; the same call goes on.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mlff_sim import studies
from mlff_sim.errors import InputError, SimulationStopped
from mlff_sim.integrators.mollifier import Mollifier
from mlff_sim.progress import Named, Progress, Silent
from mlff_sim.runfolder import write_json
from mlff_sim.simulation import Run, RunConfig
from mlff_sim.simulation.config import corrections_from_fraction
from mlff_sim.structure import SHIPPED, covalent_bonds, read_structures

QUESTION, FORMAT, FILE = "time", "mlff-sim-time-study", "time-study.json"
TEACHER = "teacher"
"""The teacher alone: the reference, and a way that is always gone."""
STUDENTS = "students"
"""Folder of the students that are distilled on the way."""
FEWEST = 3
"""Replicas of the teacher that seeds are told from: each is held to two others at least."""
LEAST_ATOMS = 3
"""Of a molecule that a student can be distilled of."""
CALLS = 5
"""Teacher calls, at least, of a run that only measures what they cost, in two outer steps or more; of the teacher alone twice as many."""


@dataclass(frozen=True)
class Scheme:
    """A way to simulate, before its numbers are known; what it costs is in `mlff_sim.cost.CYCLES`.

    Attributes:
        settings: of the run, beside those of the teacher alone.
        needs: "student", "predictor", or nothing.
        k_steps: inner steps in a cycle where none are given; None where they follow from something else.
    """

    settings: Mapping[str, Any]
    needs: str = "student"
    k_steps: int | None = None


SCHEMES: dict[str, Scheme] = {
    TEACHER: Scheme({}, needs=""),
    "respa": Scheme({"scheme": "respa"}, k_steps=8),
    "mollified": Scheme({"scheme": "mollified"}, k_steps=12),
    "ghmc": Scheme({"scheme": "ghmc"}, k_steps=200),
    "kstep": Scheme({"scheme": "kstep"}, needs="predictor"),
}
"""By the name that is given on the command line. Their steps are those that hold for most molecules at 0.5 fs."""
TUNING_PS = 2.0
"""ps, of the warm-up in which "ghmc:auto" finds its trajectories."""


@dataclass(frozen=True)
class Way:
    """A scheme with its numbers: a row of the table for each molecule.

    Attributes:
        name: of the run folder.
        settings: of the run, beside those of the teacher alone.
        needs: as of `Scheme`.
    """

    name: str
    settings: Mapping[str, Any]
    needs: str


@dataclass(frozen=True)
class MacroSteps:
    """What the ways with a predictor differ in.

    Attributes:
        predictors: their files.
        macro_steps: S, steps of the baseline in a jump.
        fractions: of S, which the teacher repeats.
        save_interval: steps between the frames it was trained on; S is a multiple.
    """

    predictors: tuple[str, ...] = ()
    macro_steps: tuple[int, ...] = (200,)
    fractions: tuple[float, ...] = (0.05,)
    save_interval: int = 50

    def ways(self, scheme: str) -> Iterator[Way]:
        """One for each predictor, number of steps and fraction.

        Raises:
            InputError: no predictor, or numbers that do not fit.
        """
        if not self.predictors:
            raise InputError(f"scheme '{scheme}' needs a predictor; give --predictor FILE, or leave the scheme out.")
        if twice := [p for p in self.predictors if self.predictors.count(p) > 1]:
            raise InputError(f"predictor '{twice[0]}' is given twice; once is enough.")
        taken: set[str] = set()
        for file in self.predictors:
            if not Path(file).is_file():
                raise InputError(f"predictor '{file}' is no file; mlff-sim train-predictor writes one.")
            taken.add(name := first_free(_slug(Path(file).name), taken))
            yield from self._of(file, scheme, f"{scheme}-{name}")

    def _of(self, file: str, scheme: str, name: str) -> Iterator[Way]:
        """Those with one predictor."""
        for s in self.macro_steps:
            k, rest = divmod(s, self.save_interval) if self.save_interval > 0 else (0, 1)
            if rest or k < 1:
                raise InputError(f"{s} macro steps are no multiple of the save interval of {self.save_interval} steps.")
            for f in self.fractions:
                settings = {**SCHEMES[scheme].settings, "predictor": file, "k_steps": k}
                settings |= {"save_interval": self.save_interval, "corrector_steps": corrections_from_fraction(f, s)}
                settings |= {"friction_per_ps": None, "friction_by_element": {}}  # what draws need, not dynamics
                yield Way(f"{name}-{s}-{f:g}", settings, SCHEMES[scheme].needs)


def ways(words: Sequence[str], macro: MacroSteps | None = None) -> tuple[Way, ...]:
    """From names of schemes to what is run, the teacher alone first, whether or not it is named.

    Args:
        words: names of `SCHEMES`, of those of two models perhaps with their inner steps: "respa:8", "ghmc:auto".
        macro: of the schemes with a predictor.

    Raises:
        InputError: an unknown scheme, steps that are no number, one way twice, or nothing to compare with the teacher.
    """
    found = [Way(TEACHER, {}, "")]
    for word in words:
        name, colon, steps = word.strip().partition(":")
        if name not in SCHEMES:
            raise InputError(
                f"scheme '{name}' is unknown; choose some of: {', '.join(SCHEMES)}, those with a student perhaps as NAME:K."
            )
        scheme = SCHEMES[name]
        if colon and scheme.k_steps is None:
            raise InputError(f"scheme '{word.strip()}' takes no steps after a colon; write '{name}'.")
        if scheme.needs == "predictor":
            found += (macro or MacroSteps()).ways(name)
        elif scheme.needs == "student":
            k = scheme.k_steps if not colon else "auto" if steps == "auto" else _whole(steps, word)
            more = {"equilibrate_ps": TUNING_PS} if (name, k) == ("ghmc", "auto") else {}
            found.append(Way(f"{name}-{k}", {**scheme.settings, "k_steps": k, **more}, scheme.needs))
    names = [way.name for way in found]
    if twice := [n for n in names if names.count(n) > 1]:
        raise InputError(f"scheme '{twice[0]}' is given twice; once is enough.")
    if len(found) == 1:
        raise InputError(
            f"there is nothing to compare with the teacher alone; add some of: {', '.join([*SCHEMES][1:])}."
        )
    return tuple(found)


def _whole(text: str, word: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InputError(f"scheme '{word}' has no whole number after the colon; write for instance respa:8.") from None


def molecules(structures: Sequence[str], file: str | Path | None = None) -> dict[str, str]:
    """Structures by a name of their own, which is that of their folder, from those given and those listed in a file.

    Args:
        structures: as `RunConfig` takes them.
        file: a structure or a SMILES on each line, perhaps followed by a name; lines that begin with # say nothing.

    Raises:
        InputError: none at all, one twice, or a file that cannot be read.
    """
    given = [(s, "") for s in structures]
    if file is not None:
        try:
            lines = [line.split() for line in Path(file).read_text(encoding="utf-8").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"list of molecules '{file}' cannot be read ({type(error).__name__}).") from error
        for first, *rest in (line for line in lines if line and not line[0].startswith("#")):
            known = first.startswith("smiles:") or first.partition("@")[0] in SHIPPED
            known = known or Path(first.partition("@")[0]).is_file()
            given.append((first if known else f"smiles:{first}", " ".join(rest)))
    if not given:
        raise InputError("there is no molecule; give --structure (as often as you like), or --molecules FILE.")
    found: dict[str, str] = {}
    for structure, called in given:
        if structure in found.values():
            raise InputError(f"'{structure}' is given twice; every molecule once.")
        name = first_free(_slug(called or structure), {*found, STUDENTS})
        found[name] = structure
    return found


def _slug(structure: str) -> str:
    """A name for a folder: the stem of a file, or what of a SMILES a folder may be called."""
    plain = structure.removeprefix("smiles:")
    path, _, index = plain.partition("@")
    if plain == structure and Path(path).suffix:
        plain = Path(path).stem + (f"-{index}" if index else "")
    return re.sub(r"[^A-Za-z0-9]+", "-", plain).strip("-") or "molecule"


def first_free(name: str, taken: set[str]) -> str:
    """The name, or with the first number that makes it another than those taken."""
    return next(n for k in range(1, len(taken) + 2) if (n := name if k == 1 else f"{name}-{k}") not in taken)


@dataclass(frozen=True)
class TimeStudy:
    """What is run.

    Attributes:
        molecules: structures by name.
        base: the teacher alone; its structure is not looked at.
        ways: of `ways`, the teacher alone first.
        students: a model name for all molecules, or a folder with NAME.* for each; None distils.
        student_s: s, to distil a student of each molecule in.
        warm_ps: ps, of warm-up with the teacher for each replica.
        calls_only: run a few outer steps of each only, and no warm-up, to know what calls cost.
        on_residual: of runs with a student, see `RunConfig`.
    """

    molecules: Mapping[str, str]
    base: RunConfig
    ways: tuple[Way, ...]
    students: str | None = None
    student_s: float = 120.0
    warm_ps: float = 2.0
    calls_only: bool = False
    on_residual: str = "stop"
    decisive: dict[str, Any] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Refuse what cannot be run, before anything is."""
        if not (np.isfinite(self.student_s) and self.student_s >= 0):
            raise InputError(f"a budget of {self.student_s:g} s for a student must not be negative.")
        needy = [way.name for way in self.ways if way.needs == "student"]
        if needy and self.students is None and not self.student_s:
            raise InputError(
                f"scheme '{needy[0]}' needs a student, and there is no time to distil one; give --students, or minutes."
            )
        if self.calls_only and any(way.settings.get("k_steps") == "auto" for way in self.ways):
            raise InputError(
                "k_steps = 'auto' is found by running, which is what --call-times-only leaves out; give a number."
            )
        if not self.calls_only and (self.base.replicas or 1) < FEWEST:
            raise InputError(
                f"replicas = {self.base.replicas or 1} of the teacher cannot say how far seeds differ; give {FEWEST} or more, five are better."
            )
        asked = {
            "format": FORMAT,
            "molecules": dict(self.molecules),
            "students": self.students,
            "student_s": self.student_s if needy and self.students is None else None,
            "warm_ps": self.warm_ps,
            "calls_only": self.calls_only,
            "duration_ps": self.base.duration_ps,
            "runs": {w.name: self.config(w, "", "", i).decisive for i, w in enumerate(self.ways)},
        }
        object.__setattr__(
            self, "decisive", json.loads(json.dumps(asked))
        )  # a frozen instance allows no plain assignment

    def config(self, way: Way, structure: str, student: str | None, place: int) -> RunConfig:
        """The run of a way: `place` in the study gives it noise of its own, so that runs are no copies of each other."""
        own = dict(way.settings)
        if way.needs == "student":
            own |= {"student": student, "on_residual": self.on_residual}
        found = replace(self.base, structure=structure, seed=self.base.seed + place, **own)
        if not self.calls_only:
            return found
        from mlff_sim.cost import CYCLES

        steps, calls, _ = CYCLES[found.scheme](vars(found)) if way.settings else (2.0, 1.0, 0.0)
        cycles = max(2, math.ceil(CALLS / calls))
        duration_ps = cycles * steps * found.timestep_fs / 1000
        found = replace(found, duration_ps=duration_ps, replicas=1, every=1, equilibrate_ps=0.0)
        # What is dropped at a start that is cold would be made by the teacher, hundreds of calls for a jump.
        return replace(found, unguarded=(*found.unguarded, "draws")) if way.needs == "predictor" else found


def carry_out(study: TimeStudy, folder: str | Path, progress: Progress | None = None) -> Iterator[tuple[str, Path]]:
    """Make the runs that are not there yet, molecule by molecule.

    Yields:
        Name and folder of each molecule whose runs are there. A run that a guard stops is left as it is; a molecule whose
        warm-up is stopped has no others.

    Raises:
        InputError: settings or files that cannot be used, or a folder that holds something else.
    """
    root, progress = Path(folder), progress or Silent()
    students = {name: _given_student(study, name) for name in study.molecules}
    _claim(study, root, students)
    for i, (name, structure) in enumerate(study.molecules.items()):
        told = Named(progress, f"{name} ({i + 1} of {len(study.molecules)})")
        student = students[name]
        if student is None and any(way.needs == "student" for way in study.ways):
            student = _distilled(study, name, structure, root, told)
        runs = {way.name: study.config(way, structure, student, k) for k, way in enumerate(study.ways)}
        warm_ps = 0.0 if study.calls_only else study.warm_ps
        with suppress(SimulationStopped):
            studies.carry_out(studies.Study(QUESTION, runs, warm_ps), root / name, told)
        yield name, root / name


def _claim(study: TimeStudy, root: Path, students: Mapping[str, str | None]) -> None:
    """See that the folder is this study's, or of less of it; or, once all molecules and models can be used, make it so."""
    path = root / FILE
    if path.is_file():
        try:
            known = json.loads(path.read_text())
        except ValueError:
            known = {}
        if known == study.decisive:
            return
        if not isinstance(known, dict) or not studies.grown(known, study.decisive, "molecules", "runs"):
            key = next(
                (k for k in study.decisive if not isinstance(known, dict) or known.get(k) != study.decisive[k]), ""
            )
            raise InputError(
                f"'{root}' holds another time study (its {key.replace('_', ' ')} differ); give another folder."
            )
    elif root.exists() and not root.is_dir():
        raise InputError(f"'{root}' is a file; give a folder.")
    elif root.is_dir() and any(not p.name.startswith(f".{FILE}.") for p in root.iterdir()):
        raise InputError(f"'{root}' is not empty and holds no time study; give a new folder.")
    for name, structure in study.molecules.items():
        _check(study, name, structure, students[name], root)
    root.mkdir(parents=True, exist_ok=True)
    write_json(path, study.decisive)


def _check(study: TimeStudy, name: str, structure: str, student: str | None, root: Path) -> None:
    """Refuse a molecule that one of the runs cannot be made of; after hours it would be a pity."""
    warm_ps = 0.0 if study.calls_only else study.warm_ps
    for place, way in enumerate(study.ways):
        if (root / name / way.name).exists():  # of the study before it grew
            continue
        if way.needs == "student" and student is None:
            _check_distillable(structure, way)
            continue
        config = study.config(way, structure, student, place)
        more = {"equilibrate_ps": max(config.equilibrate_ps, warm_ps), "teacher_workers": 1}
        Run(replace(config, **more), root / name / way.name)  # type: ignore[arg-type]


def _check_distillable(structure: str, way: Way) -> None:
    """Refuse a molecule that no student can be distilled of, or whose student would be of no use."""
    atoms = read_structures(structure)[0]
    if len(atoms) < LEAST_ATOMS:
        raise InputError(
            f"'{structure}' has {len(atoms)} atoms; a student needs at least {LEAST_ATOMS}, or give --students."
        )
    stretches = Mollifier(atoms.numbers.tolist(), covalent_bonds(atoms), atoms.get_positions()).hydrogens
    if way.settings.get("scheme") == "mollified" and not len(stretches):
        raise InputError(f"scheme 'mollified' needs X-H bonds and '{structure}' has none; use 'respa'.")


def _given_student(study: TimeStudy, name: str) -> str | None:
    """The student that was given for a molecule; None where one is to be distilled.

    Raises:
        InputError: a folder without one for this molecule, or with several.
    """
    if study.students is None or not any(way.needs == "student" for way in study.ways):
        return None
    if not Path(study.students).is_dir():
        return study.students
    found = sorted(p for p in Path(study.students).glob(f"{name}.*") if p.is_file())
    if len(found) != 1:
        raise InputError(
            f"'{study.students}' holds {len(found) or 'no'} student{'s' * (len(found) > 1)} {name}.*; give one for each "
            f"of: {', '.join(study.molecules)}."
        )
    return str(found[0])


def _distilled(study: TimeStudy, name: str, structure: str, root: Path, progress: Progress) -> str:
    """The student of a molecule, distilled now or before."""
    path = root / STUDENTS / f"{name}.safetensors"
    if not path.is_file():
        from mlff_sim.distill import DistillConfig, distill
        from mlff_sim.models.registry import load_model

        path.parent.mkdir(exist_ok=True)
        atoms, t = read_structures(structure)[0], study.base.temperature_K
        teacher = load_model(study.base.teacher, atoms, study.base.execution)
        config = DistillConfig(
            study.base.teacher, temperatures_K=(t, t + 200.0), budget_s=study.student_s, seed=study.base.seed
        )
        distill(atoms, teacher, config, path, Named(progress, "student"))
    return str(path)
