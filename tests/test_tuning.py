"""`distill --from`: a student of a cheap teacher becomes one of an expensive teacher, with few labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms

from mlff_sim.distill import DistillConfig, distill, distiller
from mlff_sim.distill.dataset import MAX_EXCHANGES, Labels, hydrogen_exchanges, label
from mlff_sim.distill.plan import TEST_FRAMES, TUNING
from mlff_sim.errors import InputError
from mlff_sim.forces import Evaluation
from mlff_sim.models.checkpoint import read_record, save_student
from mlff_sim.models.registry import load_model
from mlff_sim.models.safefile import sha256
from mlff_sim.models.shipped import student_path
from mlff_sim.structure import read_structure

BRIEF = replace(TUNING, most_labels=96, stride=20, discard=1)
START = "aspirin-gfn2"


@pytest.fixture(autouse=True)
def less_sampling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels need not be independent here, and the seconds are for training."""
    monkeypatch.setattr(distiller, "TUNING", BRIEF)


@pytest.fixture(scope="module")
def aspirin() -> Atoms:
    return read_structure("aspirin")


class Counted:
    """GFN1-xTB, its calls counted, one of which can be made to fail."""

    def __init__(self, atoms: Atoms, fails_at: int | None = None) -> None:
        self.inner, self.calls, self.fails_at = load_model("gfn1-xtb", atoms), 0, fails_at
        self.numbers, self.reset, self.provenance = self.inner.numbers, self.inner.reset, self.inner.provenance

    def __call__(self, positions: np.ndarray, cell: Any = None, /) -> Evaluation:
        self.calls += 1
        if self.calls == self.fails_at:
            raise KeyboardInterrupt
        return self.inner(positions)


def test_hydrogens_of_one_neighbour_are_exchanged(ethanol: Atoms, aspirin: Atoms) -> None:
    """3! x 2! x 1! orders of ethanol, the identity first; every atom keeps its element and its neighbour."""
    orders = hydrogen_exchanges(ethanol)
    assert orders.shape == (12, 9) and orders[0].tolist() == list(range(9))
    assert len({tuple(o) for o in orders}) == 12
    heavy = ethanol.numbers > 1
    d = np.linalg.norm(ethanol.positions[:, None] - ethanol.positions[None], axis=-1)
    for order in orders:
        assert (order[heavy] == np.flatnonzero(heavy)).all()
        assert ((d[order][:, heavy] < 1.3) == (d[:, heavy] < 1.3)).all()
    assert len(hydrogen_exchanges(aspirin)) == 6  # one methyl group
    many = Atoms("CH4" * 2, positions=10.0 * np.repeat([0, 1], 5)[:, None] + np.tile(methane(), (2, 1)))
    assert len(hydrogen_exchanges(many)) == MAX_EXCHANGES < 24 * 24
    assert len(hydrogen_exchanges(Atoms("CO", positions=[[0, 0, 0], [0, 0, 1.1]]))) == 1


def methane() -> np.ndarray:
    return 0.63 * np.array([[0, 0, 0], [1, 1, 1], [-1, -1, 1], [1, -1, -1], [-1, 1, -1]])


def test_an_exchanged_label_is_what_the_teacher_would_say(ethanol: Atoms) -> None:
    """Like atoms are alike: energies and forces of GFN2-xTB in another order of the hydrogens, to its convergence."""
    teacher = load_model("gfn2-xtb", ethanol)
    x = ethanol.positions + 0.05 * np.random.default_rng(1).standard_normal((2, 9, 3))
    shown = label(teacher, x).exchanged(hydrogen_exchanges(ethanol)[[0, 3, 7]])
    asked = label(teacher, shown.positions)
    assert np.abs(shown.positions[2:] - np.tile(x, (2, 1, 1))).max() > 0.1, "they did change places"
    np.testing.assert_allclose(shown.energies, asked.energies, rtol=0, atol=1e-7)
    np.testing.assert_allclose(shown.forces, asked.forces, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_few_labels_are_enough(aspirin: Atoms, tmp_path: Path) -> None:
    """The force error to the new teacher falls, by how much is a matter of speed; the constant is the new teacher's."""
    teacher, out = Counted(aspirin), tmp_path / "gfn1.student"
    config = DistillConfig("gfn1-xtb", budget_s=40, start=START)
    result = distill(aspirin, teacher, config, out)  # type: ignore[arg-type]
    assert result.labels + TEST_FRAMES <= teacher.calls <= BRIEF.most_labels + TEST_FRAMES
    x = aspirin.positions + 0.02 * np.random.default_rng(3).standard_normal((20, 21, 3))
    truth = label(load_model("gfn1-xtb", aspirin), x)
    before, after = (load_model(f"student:{name}", aspirin)(x) for name in (START, out))
    assert np.abs(after.forces - truth.forces).mean() < np.abs(before.forces - truth.forces).mean()
    assert abs(np.median(after.energy - truth.energies)) < 0.1 < abs(np.median(before.energy - truth.energies))
    record = read_record(out)
    assert record["recipe"]["teacher"] == "gfn1-xtb"
    origin = {"file": f"{START}.safetensors", "sha256": sha256(student_path(START)), "widths": [384, 384]}
    assert record["recipe"]["start"] == {**origin, "teacher": "gfn2-xtb"}
    assert record["errors"]["test"] == "20 frames of the student it started from at 300 K"
    assert [h["round"] for h in record["history"]] == [1, 2]
    assert sum(record["seconds"].values()) < 40 * 1.3
    assert not Path(f"{out}.work").exists()


@pytest.mark.slow
def test_answers_survive_an_interruption(aspirin: Atoms, tmp_path: Path) -> None:
    """No frame is asked about twice but those of the interrupted part; another start is refused. One round is enough here."""
    out, other = tmp_path / "a.student", tmp_path / "other.student"
    config = DistillConfig("gfn1-xtb", budget_s=200, target_mae=1000, start=START)
    part = BRIEF.most_labels // 2 // 8
    first = Counted(aspirin, fails_at=TEST_FRAMES + 2 * part + 2)
    with pytest.raises(KeyboardInterrupt):
        distill(aspirin, first, config, out)  # type: ignore[arg-type]
    work = Path(f"{out}.work")
    assert sorted(p.name for p in work.glob("labels-1-*")) == ["labels-1-from-0.npz", f"labels-1-from-{part}.npz"]

    changed = bytearray(student_path(START).read_bytes())
    changed[-1] ^= 1
    other.write_bytes(bytes(changed))
    with pytest.raises(InputError, match=r"other settings \(start\)"):
        distill(aspirin, first, replace(config, start=str(other)), out)  # type: ignore[arg-type]

    second = Counted(aspirin)
    distill(aspirin, second, config, out)  # type: ignore[arg-type]
    assert second.calls == BRIEF.most_labels // 2 - 2 * part
    assert not work.exists()


def test_a_student_that_samples_nonsense_is_no_start(
    make_student: Callable[..., Any], ethanol: Atoms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One whose frames no teacher has anything to say about."""
    start = tmp_path / "untrained.student"
    save_student(make_student(ethanol), start)
    monkeypatch.setattr("mlff_sim.distill.distiller.label", lambda teacher, frames: Labels.empty(len(ethanol)))
    with pytest.raises(InputError, match=r"no sensible answer to any of .* begin with a better one"):
        distill(
            ethanol,
            load_model("gfn1-xtb", ethanol),
            DistillConfig("gfn1-xtb", start=str(start)),
            tmp_path / "no.student",
        )
