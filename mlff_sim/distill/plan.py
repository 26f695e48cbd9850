"""How a distillation divides its budget: from nothing, or from a student of another teacher."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlff_sim.errors import InputError
from mlff_sim.models.checkpoint import read_record
from mlff_sim.models.safefile import sha256
from mlff_sim.models.shipped import student_path
from mlff_sim.structure import check_species

if TYPE_CHECKING:
    from ase import Atoms


@dataclass(frozen=True)
class Plan:
    """Rounds of sampling, labelling and training.

    Attributes:
        rounds: share of the labels and of the training time of each. The last trains longest, on all.
        teacher_share: share of the budget spent on labels, at most.
        sampling_share: share of the budget spent on frames for them, at most: a teacher may cost less than its student.
        fewest_labels: in a round.
        most_labels: in all; beyond, a small network gains more from training time.
        learning_rate: peak of the cosine.
        stride: steps of the student between frames.
        discard: frames of each replica before the first that is labelled.
        exchange: show like hydrogens in each other's place, so that every label counts several times.
    """

    rounds: tuple[tuple[float, float], ...]
    teacher_share: float
    sampling_share: float
    fewest_labels: int
    most_labels: int
    learning_rate: float
    stride: int
    discard: int
    exchange: bool


FRESH = Plan(
    rounds=((0.03, 0.04), (0.07, 0.06), (0.15, 0.10), (0.30, 0.20), (0.45, 0.60)),
    teacher_share=0.30,
    sampling_share=0.30,
    fewest_labels=64,
    most_labels=60_000,
    learning_rate=3e-3,
    stride=50,
    discard=0,
    exchange=False,
)
TUNING = Plan(
    rounds=((0.5, 0.2), (0.5, 0.8)),
    teacher_share=0.80,
    sampling_share=0.80,
    fewest_labels=4,
    most_labels=1000,
    learning_rate=1e-3,
    stride=200,
    discard=10,
    exchange=True,
)
"""From a student that samples well from the first frame on: few labels, as independent as can be, for most of the budget.

Force errors of 250 labels of GFN1-xTB for a GFN2-xTB student of ethanol (75 meV/A before), 1500 steps each: all weights
at a rate of 1e-3 3.4 meV/A, at 3e-4 3.8; without the exchange of hydrogens 5.8; a small network beside the student,
which would cost time in every step, 11.0; from scratch 12.4.
"""
TEST_FRAMES = 20
"""Held out of a tuning: each is a label less to train on, and 20 frames of ethanol have 540 components of a force."""


def read_start(start: str | None, widths: tuple[int, ...] | None, atoms: Atoms) -> Mapping[str, Any] | None:
    """What the record of a distillation says about the student it starts from; None without one.

    Raises:
        InputError: missing or damaged file, another molecule, other widths than asked for.
    """
    if start is None:
        return None
    path = student_path(start)
    record = read_record(path)
    check_species(record["numbers"], atoms, f"the student '{start}'")
    has = tuple(record["architecture"]["widths"])
    if widths is not None and widths != has:
        raise InputError(
            f"hidden widths {widths} are asked for and the student '{start}' has {has}; leave them out to keep them."
        )
    teacher = record.get("recipe", {}).get("teacher")
    return {"file": path.name, "sha256": sha256(path), "widths": list(has), "teacher": teacher}
