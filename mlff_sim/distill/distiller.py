"""The rounds of distillation: sample with the student, label with the teacher, train; within a budget, resumable."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlff_sim.distill.dataset import Labels, hydrogen_exchanges, label, read_labels
from mlff_sim.distill.plan import FRESH, TEST_FRAMES, TUNING, read_start
from mlff_sim.errors import InputError
from mlff_sim.forces import Array, ForceProvider
from mlff_sim.models.checkpoint import load_student, save_student
from mlff_sim.models.safefile import sha256
from mlff_sim.models.shipped import student_path
from mlff_sim.progress import Progress, Silent
from mlff_sim.structure import check_free
from mlff_sim.units import MEV

if TYPE_CHECKING:
    from ase import Atoms

    from mlff_sim.models.student import InverseDistanceNet, Student

END_SHARE = 0.015
"""Share of the budget kept for what comes before and after the rounds: start-up, last errors, writing the file."""
PART_S, PARTS = 20.0, 8
"""Labels are written in parts of so many seconds, and in no fewer than so many: all but one survive an interruption."""


SAME_TEACHER = 1.0
"""meV/atom and meV/A by which labels that are handed in may differ from the teacher's own answer."""


@dataclass(frozen=True)
class DistillConfig:
    """What to distil.

    Attributes:
        teacher: registry name of the teacher.
        temperatures_K: frames are sampled at temperatures between the lowest and the highest; the error is
            reported at the lowest.
        budget_s: wall time in all: labels, training and the test trajectory.
        target_mae: meV/A; stop when the error on the test trajectory is below. None: use the whole budget.
        widths: hidden widths; None chooses by the number of pairs, or takes those of `start`.
        seed: of everything random. Training against the clock is not reproducible bit by bit.
        labels: file of more labelled frames to train on and to sample from, such as the relabel.npz of a run.
        start: a student of the same molecule and another, cheaper teacher to begin with; a file or a shipped name. It
            samples from the first frame on, so that the new teacher is asked for a few hundred labels and no more.
    """

    teacher: str
    temperatures_K: tuple[float, ...] = (300.0, 500.0)
    budget_s: float = 360.0
    target_mae: float | None = None
    widths: tuple[int, ...] | None = None
    seed: int = 0
    labels: str | None = None
    start: str | None = None

    def __post_init__(self) -> None:
        """Refuse numbers that make no sense."""
        if not self.temperatures_K or not all(0 < t < float("inf") for t in self.temperatures_K):
            raise InputError(f"temperatures {self.temperatures_K} K must be positive, e.g. 300,500.")
        if not self.budget_s > 0:
            raise InputError(f"budget {self.budget_s} s must be positive, e.g. 6min.")
        if self.target_mae is not None and not self.target_mae > 0:
            raise InputError(f"target force MAE {self.target_mae} meV/A must be positive.")
        if self.widths is not None and (not self.widths or min(self.widths) < 1):
            raise InputError(f"hidden widths {self.widths} must be positive, e.g. 256,256.")


@dataclass
class Distillation:
    """What came out, and what it cost.

    Attributes:
        student: the trained student, also saved to the output file.
        force_mae: meV/A, on the test frames.
        tested: what these are; a trajectory of the teacher at the lowest temperature, where there was budget for one.
        own_states_mae: meV/A, of the student before the last round's training, on the frames it sampled itself.
        labels: frames in the training set.
        teacher_s, training_s, sampling_s, test_s: wall time by purpose, s.
        history: one entry per round.
    """

    student: Student
    force_mae: float
    tested: str
    own_states_mae: float | None
    labels: int
    teacher_s: float
    training_s: float
    sampling_s: float
    test_s: float
    history: list[dict[str, Any]] = field(default_factory=list)


class _Ledger:
    """The work folder's memory: finished stages and seconds spent by purpose, rewritten atomically.

    Every second is booked: what has no purpose of its own goes under "rest".
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.path = folder / "progress.json"
        self.data: dict[str, Any] = {"settings": settings, "spent": {}, "stage": 0, "history": []}
        if self.path.exists():
            data = json.loads(self.path.read_text())
            if data["settings"] != settings:
                changed = sorted(k for k in settings if data["settings"].get(k) != settings[k])
                raise InputError(
                    f"'{folder}' holds an unfinished distillation with other settings ({', '.join(changed)}); repeat them, or delete the folder."
                )
            self.data = data
        self.mark = time.perf_counter()

    def book(self, purpose: str, seconds: float | None = None) -> None:
        """Book the time since the last booking, or other seconds in its place."""
        now = time.perf_counter()
        self.data["spent"][purpose] = self.spent(purpose) + (now - self.mark if seconds is None else seconds)
        self.mark = now

    @contextmanager
    def spend(self, purpose: str) -> Iterator[None]:
        self.book("rest")
        try:
            yield
        finally:
            self.book(purpose)

    def spent(self, purpose: str | None = None) -> float:
        return float(self.data["spent"].get(purpose, 0.0) if purpose else sum(self.data["spent"].values()))

    def save(self) -> None:
        self.book("rest")
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(json.dumps(self.data, indent=1))
        os.replace(temporary, self.path)


def default_widths(n_atoms: int) -> tuple[int, ...]:
    """Hidden widths by size: a wider net for more pairs, still small against a teacher call."""
    return (256, 256) if n_atoms * (n_atoms - 1) // 2 <= 100 else (384, 384)


class _Distiller:
    """One distillation in its work folder; each method is a stage that is skipped when its file is there."""

    def __init__(
        self,
        atoms: Atoms,
        teacher: ForceProvider,
        config: DistillConfig,
        folder: Path,
        progress: Progress,
        given: Labels,
    ) -> None:
        begun = time.perf_counter()
        import torch

        from mlff_sim.distill.training import Trainer, TrainingConfig
        from mlff_sim.models.student import InverseDistanceNet

        self.atoms, self.teacher, self.config, self.folder, self.progress = atoms, teacher, config, folder, progress
        self.given = given
        start = read_start(config.start, config.widths, atoms)
        self.plan = FRESH if start is None else TUNING
        widths = config.widths or (tuple(start["widths"]) if start else default_widths(len(atoms)))
        settings = {
            **asdict(config),
            "widths": widths,
            "start": start,
            "numbers": atoms.numbers.tolist(),
            **({"labels_sha256": sha256(config.labels)} if config.labels else {}),
            "teacher_model": dict(teacher.provenance),
        }
        self.ledger = _Ledger(folder, json.loads(json.dumps(settings)))
        self.ledger.mark = begun
        self.range = (min(config.temperatures_K), max(config.temperatures_K))
        torch.manual_seed(config.seed)
        self.network: InverseDistanceNet = InverseDistanceNet(len(atoms), widths)
        self.training = TrainingConfig(learning_rate=self.plan.learning_rate)
        self.explored = Labels.empty(len(atoms))
        self.orders = hydrogen_exchanges(atoms) if self.plan.exchange else np.arange(len(atoms))[None]
        self.trainer = Trainer(self.network, self.training, config.seed, folder / "training.pt")

    def tick(self, extra_s: float, note: str) -> None:
        self.progress.update(min(self.config.budget_s, self.ledger.spent() + extra_s), self.config.budget_s, note)

    def labels_file(self, stage: int) -> Path:
        return self.folder / f"labels-{stage}.npz"

    def labels_until(self, stage: int) -> Labels:
        return sum((Labels.load(self.labels_file(k)) for k in range(stage + 1)), self.given)

    def trajectory(
        self, file: Path, purpose: str, temperature_K: float, frames: int, every: int, discard: int, share: float
    ) -> Labels:
        """A teacher trajectory, cut short when it has used its share of the budget."""
        from mlff_sim.distill.sampling import teacher_trajectory

        if not file.exists():
            with self.ledger.spend(purpose):
                self.teacher.reset()
                begun = time.perf_counter()
                kept: list[tuple[Array, float, Array]] = []
                for frame in teacher_trajectory(
                    self.teacher,
                    self.atoms.get_positions(),
                    self.atoms.get_masses(),
                    temperature_K=temperature_K,
                    steps=discard + frames * every,
                    every=every,
                    discard=discard,
                    rng=np.random.default_rng([self.config.seed, *purpose.encode()]),
                ):
                    kept.append(frame)
                    seconds = time.perf_counter() - begun
                    self.tick(seconds, "teacher trajectory")
                    if seconds > share * self.config.budget_s and len(kept) >= 20:
                        break
                x, e, f = zip(*kept, strict=True)
                Labels(np.array(x), np.array(e), np.array(f)).save(file)
            self.ledger.save()
        return Labels.load(file)

    def plan_labels(self, known: Labels) -> None:
        """Decide once how many labels the budget allows, from the measured cost of one."""
        if "seconds_per_label" not in self.ledger.data:
            begun = time.perf_counter()
            sample = label(self.teacher, known.positions[-20:])
            self.ledger.data["seconds_per_label"] = (time.perf_counter() - begun) / max(1, len(sample))

    def label_count(self, stage: int) -> int:
        affordable = self.plan.teacher_share * self.config.budget_s / self.ledger.data["seconds_per_label"]
        return max(
            self.plan.fewest_labels, int(self.plan.rounds[stage - 1][0] * min(self.plan.most_labels, affordable))
        )

    def answer(self, file: Path, purpose: str, frames: Array, size: int, limit_s: float, note: str) -> None:
        """The teacher's answers to frames, `size` at a time; what was answered before an interruption is kept."""
        begun, known = time.perf_counter(), list[Labels]()
        for first in range(0, len(frames), size):
            part = file.with_name(f"{file.stem}-from-{first}.npz")
            if not part.exists():
                with self.ledger.spend(purpose):
                    label(self.teacher, frames[first : first + size]).save(part)
                self.ledger.save()
            known.append(Labels.load(part))
            self.tick(0.0, note)
            if time.perf_counter() - begun > limit_s and sum(map(len, known)) >= self.plan.fewest_labels:
                break  # strained frames cost more than thermal ones; the budget comes first
        answered = sum(known, Labels.empty(len(self.atoms)))
        if not len(answered):
            raise InputError(
                f"the teacher has no sensible answer to any of {len(frames)} frames that the student samples; begin with a better one."
            )
        answered.save(file)
        for part in self.folder.glob(f"{file.stem}-from-*.npz"):
            part.unlink()

    def sampled(self, temperatures_K: tuple[float, float], count: int, stage: int) -> Array:
        """New frames of the student as it is, from where there are labels of earlier stages."""
        from mlff_sim.distill.sampling import student_frames

        known = sum((Labels.load(self.labels_file(k)) for k in range(stage)), self.explored)
        with self.ledger.spend("sampling"):
            return student_frames(
                self.network,
                known,
                self.atoms.get_masses(),
                self.atoms.numbers,
                temperatures_K=temperatures_K,
                count=count,
                stride=self.plan.stride,
                discard=self.plan.discard,
                limit_s=self.plan.sampling_share * self.config.budget_s * self.plan.rounds[max(stage, 1) - 1][0],
                rng=np.random.default_rng([self.config.seed, 3, stage]),
            )

    def sample_and_label(self, stage: int) -> None:
        """New frames from the student as it is, answered by the teacher."""
        if self.labels_file(stage).exists():
            return
        self.ledger.save()  # what a label costs decides how many there are, also after an interruption
        frames = self.sampled(self.range, self.label_count(stage), stage)
        cost = self.ledger.data["seconds_per_label"]
        size = max(1, min(len(frames) // PARTS, int(PART_S / cost)))
        note = f"round {stage}: teacher labels"
        self.answer(self.labels_file(stage), "teacher", frames, size, 1.2 * len(frames) * cost, note)

    def training_seconds(self, stage: int) -> float:
        """This stage's share of what is left when the labels still to come are paid for."""
        to_come = (
            sum(self.label_count(s) for s in range(stage + 1, len(self.plan.rounds) + 1))
            * self.ledger.data["seconds_per_label"]
        )
        self.ledger.book("rest")
        left = (1 - END_SHARE) * self.config.budget_s - self.ledger.spent() - 1.03 * to_come
        shares = [0.02, *(r[1] for r in self.plan.rounds)]
        return float(max(0.5, left * shares[stage] / sum(shares[stage:])))

    def train(self, stage: int, test: Labels) -> float:
        """Train on all labels so far; returns the force MAE on the test trajectory."""
        import torch

        from mlff_sim.distill.training import force_mae

        data, labels = self.ledger.data, self.labels_until(stage)
        own = force_mae(self.network, Labels.load(self.labels_file(stage))) if stage else None
        seconds = data.setdefault("training_seconds", {}).setdefault(str(stage), self.training_seconds(stage))
        self.ledger.save()
        steps = self.trainer.train(
            labels.exchanged(self.orders),
            seconds,
            stage,
            lambda s: self.tick(s, f"round {stage}: training on {len(labels)} labels"),
        )
        self.ledger.book("training", seconds)  # of all attempts, where an earlier one was interrupted
        mae = force_mae(self.network, test)
        data["history"].append(
            {
                "round": stage,
                "labels": len(labels),
                "steps": steps,
                "force_mae_meV_per_A": mae,
                "own_states_mae_meV_per_A": own,
                "spent_s": self.ledger.spent(),
            }
        )
        data["stage"] = stage + 1
        temporary = self.folder / "network.tmp"
        torch.save(self.network.state_dict(), temporary)
        os.replace(temporary, self.folder / "network.pt")
        self.ledger.save()
        self.tick(0.0, f"round {stage}: force MAE {mae:.1f} meV/A")
        return mae

    def begin(self) -> Labels:
        """Test frames and the first labels, both from trajectories of the teacher; returns the former."""
        import torch

        test = self.trajectory(
            self.folder / "test.npz", "test", self.range[0], frames=200, every=20, discard=500, share=0.05
        )
        first = self.trajectory(
            self.labels_file(0), "teacher", self.range[1], frames=1000, every=2, discard=20, share=0.03
        )
        self.network.set_statistics(torch.from_numpy(first.positions).float(), torch.from_numpy(first.energies).float())
        self.plan_labels(first)
        return test

    def begin_from(self, start: str) -> Labels:
        """The same where a student is the start: its trajectory says where sampling may begin, and holds no labels."""
        from mlff_sim.distill.sampling import teacher_trajectory

        student = load_student(student_path(start))
        self.network.load_state_dict(student.network.state_dict())
        with self.ledger.spend("sampling"):
            trajectory = teacher_trajectory(
                student,
                self.atoms.get_positions(),
                self.atoms.get_masses(),
                temperature_K=self.range[1],
                steps=2000,
                every=4,
                discard=20,
                rng=np.random.default_rng([self.config.seed, 2]),
            )
            x, e, f = zip(*trajectory, strict=True)
        self.explored = Labels(np.array(x), np.array(e), np.array(f))
        Labels.empty(len(self.atoms)).save(self.labels_file(0))
        self.ledger.data["stage"] = max(1, self.ledger.data["stage"])
        file = self.folder / "test.npz"
        if not file.exists():
            frames = self.sampled((self.range[0], self.range[0]), TEST_FRAMES, 0)
            self.answer(file, "test", frames, 1, 0.15 * self.config.budget_s, "test frames")
        test = Labels.load(file)
        self.ledger.data.setdefault("seconds_per_label", self.ledger.spent("test") / len(test))
        return test

    def run(self) -> None:
        """All rounds, from wherever the folder says the last call stopped."""
        import torch

        test = self.begin() if self.config.start is None else self.begin_from(self.config.start)
        if (self.folder / "network.pt").exists():
            self.network.load_state_dict(torch.load(self.folder / "network.pt", weights_only=True))
        # Stage 0 trains on the teacher's own short trajectory, stages 1 ... on what the student sampled as well.
        for stage in range(self.ledger.data["stage"], len(self.plan.rounds) + 1):
            if stage:
                self.sample_and_label(stage)
            mae = self.train(stage, test)
            if self.config.target_mae is not None and mae <= self.config.target_mae:
                break

    def _tested(self) -> str:
        return "an independent teacher trajectory" if self.config.start is None else "the student it started from"

    def result(self) -> Distillation:
        """The student with its record."""
        from mlff_sim import __version__
        from mlff_sim.distill.training import energy_offset, largest_error
        from mlff_sim.models.student import Student

        ledger, last = self.ledger, self.ledger.data["history"][-1]
        labels, test = self.labels_until(last["round"]), Labels.load(self.folder / "test.npz")
        shift = energy_offset(self.network, labels)
        pair = np.linalg.norm(
            labels.positions[:, self.network.pair_i] - labels.positions[:, self.network.pair_j], axis=-1
        )
        own = [
            h["own_states_mae_meV_per_A"] for h in ledger.data["history"] if h["own_states_mae_meV_per_A"] is not None
        ]
        record = {
            "species": self.atoms.get_chemical_formula("hill"),
            "recipe": {**ledger.data["settings"], "training": asdict(self.training), "rounds": self.plan.rounds},
            "labels": len(labels),
            "training_range": {
                "temperature_K": list(self.range),
                "pair_distance_A": [float(pair.min()), float(pair.max())],
            },
            "errors": {
                "force_mae_meV_per_A": last["force_mae_meV_per_A"],
                "own_states_mae_meV_per_A": own[-1] if own else None,
                "largest_on_an_atom_meV_per_A": largest_error(self.network, labels + test),
                "test": f"{len(test)} frames of {self._tested()} at {self.range[0]:g} K",
            },
            "seconds": ledger.data["spent"],
            "history": ledger.data["history"],
            "versions": {p: importlib.metadata.version(p) for p in ("torch", "numpy", "safetensors")}
            | {"mlff-sim": __version__},
        }
        return Distillation(
            student=Student(self.network, self.atoms.numbers, shift, record),
            force_mae=last["force_mae_meV_per_A"],
            tested=record["errors"]["test"],
            own_states_mae=record["errors"]["own_states_mae_meV_per_A"],
            labels=len(labels),
            teacher_s=ledger.spent("teacher"),
            training_s=ledger.spent("training"),
            sampling_s=ledger.spent("sampling"),
            test_s=ledger.spent("test"),
            history=ledger.data["history"],
        )


def _check_teacher(teacher: ForceProvider, given: Labels, config: DistillConfig) -> None:
    """Refuse labels that are another teacher's: energies would not fit together."""
    answer = label(teacher, given.positions[:1])
    if not len(answer):
        return
    energy = abs(float(answer.energies[0] - given.energies[0])) / (MEV * len(teacher.numbers))
    force = np.abs(answer.forces[0] - given.forces[0]).max() / MEV
    if max(energy, force) > SAME_TEACHER:
        raise InputError(
            f"the labels of '{config.labels}' are not of teacher '{config.teacher}': they differ by "
            f"{energy:.3g} meV/atom and {force:.3g} meV/A at the first frame."
        )


def distill(
    atoms: Atoms, teacher: ForceProvider, config: DistillConfig, out: str | Path, progress: Progress | None = None
) -> Distillation:
    """Distil a teacher into a student of one molecule and write its file.

    Rounds of student-driven sampling at several temperatures, teacher labels and warm-start training. What is
    unfinished lives in `OUT.work`; the same call takes it up again, with the seconds already spent counted.

    Args:
        atoms: the molecule, where sampling starts.
        teacher: bound to it.
        config: temperatures, budget, target, seed.
        out: student file to write.
        progress: told seconds of the budget spent.

    Raises:
        InputError: a periodic or constrained structure, labels of something else, or a work folder of other settings.
    """
    if atoms.pbc.any():
        raise InputError("this student describes molecules in vacuum; the structure is periodic.")
    check_free(atoms)
    if len(atoms) < 3:
        raise InputError(f"the structure has {len(atoms)} atoms; a student needs at least 3.")
    given = Labels.empty(len(atoms))
    if config.labels is not None:
        given = read_labels(config.labels, atoms.numbers.tolist())
        _check_teacher(teacher, given, config)
    read_start(config.start, config.widths, atoms)  # its mistakes before the folder is made
    folder = Path(f"{out}.work")
    folder.mkdir(parents=True, exist_ok=True)
    run = _Distiller(atoms, teacher, config, folder, progress or Silent(), given)
    run.run()
    result = run.result()
    save_student(result.student, out)
    shutil.rmtree(folder)
    return result
