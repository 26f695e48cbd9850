"""The student: its forces are its energy's gradient, and its file is data."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms

from mlff_sim.acceleration import Acceleration, Execution
from mlff_sim.errors import InputError
from mlff_sim.forces import check_provider, evaluate
from mlff_sim.models.checkpoint import load_student, read_record, save_student
from mlff_sim.models.registry import load_model
from mlff_sim.models.safefile import sha256
from mlff_sim.models.student import Student
from mlff_sim.structure import read_structure

COMPILED = Acceleration(compile=True)


@pytest.fixture
def frames(ethanol: Atoms) -> np.ndarray:
    return ethanol.get_positions() + 0.1 * np.random.default_rng(1).standard_normal((7, 9, 3))


@pytest.mark.parametrize("widths", [(16,), (16, 16), (8, 12, 10)])
def test_it_obeys_the_laws_of_a_force_field(
    widths: tuple[int, ...], ethanol: Atoms, make_student: Callable[..., Any]
) -> None:
    """In float64 the laws hold to 1e-6 eV/A (the truncation of the fourth-order difference), in float32 to rounding."""
    exact = check_provider(make_student(ethanol, widths, "float64"), ethanol.get_positions(), tolerance=1e-6)
    assert exact.failures == [], exact
    single = check_provider(make_student(ethanol, widths), ethanol.get_positions())
    assert single.failures == [], single
    assert single.tolerance < 0.01


@pytest.mark.parametrize("widths", [(16,), (16, 16), (8, 12, 10)])
def test_the_backward_pass_written_by_hand_is_autograd(
    widths: tuple[int, ...], ethanol: Atoms, frames: np.ndarray, make_student: Callable[..., Any]
) -> None:
    """To float64 rounding: some hundred products and sums of numbers of order one."""
    network = make_student(ethanol, widths, "float64").network
    x = torch.from_numpy(frames).requires_grad_()
    energy, forces = network(x)
    (gradient,) = torch.autograd.grad(energy.sum(), x)
    assert forces.abs().max() > 0.05
    assert (forces + gradient).abs().max() < 1e3 * np.finfo(np.float64).eps


def test_a_batch_is_its_loop(ethanol: Atoms, frames: np.ndarray, make_student: Callable[..., Any]) -> None:
    """In float64 to 1e-13, in float32 to a few roundings: matrix libraries sum batches in another order."""
    for dtype, tolerance in (("float64", 1e-13), ("float32", 20 * np.finfo(np.float32).eps)):
        student = make_student(ethanol, dtype=dtype)
        batch, loop = student(frames), [student(x) for x in frames]
        scale = np.abs(batch.forces).max()
        assert np.abs(batch.forces - np.array([r.forces for r in loop])).max() < tolerance * max(1.0, scale)
        assert np.abs(batch.energy - np.array([r.energy for r in loop])).max() < tolerance * 10
        assert batch.energy.shape == (7,) and batch.forces.shape == frames.shape
        assert evaluate(student, frames).forces.tobytes() == batch.forces.tobytes()


def test_a_compiled_student_takes_positions_of_any_kind(ethanol: Atoms, make_student: Callable[..., Any]) -> None:
    """Single precision, or columns first: the graph, which does not look, is given what it was made for."""
    student = make_student(ethanol)
    fast = Student(student.network, ethanol.numbers, 0.0, {}, execution=Execution("cpu", "float32", COMPILED))
    x = ethanol.get_positions()
    right = fast(x).forces
    assert fast.report()["compiled"]
    np.testing.assert_array_equal(fast(np.asfortranarray(x)).forces, right)
    np.testing.assert_allclose(fast(x.astype(np.float32)).forces, right, atol=1e-4)  # eV/A, of 1e-7 A


def test_far_from_the_origin_it_says_the_same(ethanol: Atoms, make_student: Callable[..., Any]) -> None:
    """Pair vectors are formed in float64: 10 um away they keep 11 digits, where float32 would keep two."""
    student, x = make_student(ethanol), ethanol.get_positions()
    assert np.abs(student(x + 1e5).forces - student(x).forces).max() < 1e-5


def test_the_energy_shift_is_added_in_float64(ethanol: Atoms, make_student: Callable[..., Any]) -> None:
    """Near -4000 eV a float32 has steps of 0.2 meV; differences of energies must not have them."""
    student, x = make_student(ethanol), ethanol.get_positions()
    before = student(x).energy
    student.energy_shift -= 4000.0
    assert abs(student(x).energy - (before - 4000.0)) < 1e-11


# The file.


def test_a_saved_student_comes_back_bit_for_bit(
    ethanol: Atoms, frames: np.ndarray, make_student: Callable[..., Any], tmp_path: Path
) -> None:
    student = make_student(ethanol, (8, 12, 10))
    save_student(student, tmp_path / "a.anything")
    again = load_student(tmp_path / "a.anything")
    assert again(frames).forces.tobytes() == student(frames).forces.tobytes()
    assert again(frames).energy.tobytes() == student(frames).energy.tobytes()
    assert again.numbers.tolist() == ethanol.numbers.tolist()
    assert (again.dtype, again.conservative, again.batched) == ("float32", True, True)


def test_the_record_survives(ethanol: Atoms, make_student: Callable[..., Any], tmp_path: Path) -> None:
    student, path = make_student(ethanol), tmp_path / "a.student"
    save_student(student, path)
    again = load_student(path)
    assert {k: again.record[k] for k in student.record} == student.record
    assert again.provenance["sha256"] == sha256(path)
    assert again.provenance["architecture"] == {"kind": "inverse-distance-mlp", "widths": [16, 16]}
    assert again.provenance["energy_shift_eV"] == student.energy_shift
    assert json.loads(json.dumps(read_record(path))) == read_record(path)
    save_student(again, tmp_path / "b.student")
    assert load_student(tmp_path / "b.student").record["labels"] == 200


def test_saving_leaves_one_file(ethanol: Atoms, make_student: Callable[..., Any], tmp_path: Path) -> None:
    for _ in range(2):
        save_student(make_student(ethanol), tmp_path / "a.student")
    assert [p.name for p in tmp_path.iterdir()] == ["a.student"]


def test_loading_runs_no_code(student_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("a student file was unpickled")

    monkeypatch.setattr(torch, "load", refuse)
    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    assert load_student(student_file).numbers.size == 9


class Bomb:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return pytest.fail, ("a pickle was loaded",)


@pytest.mark.parametrize("kind", ["pickle", "torch"])
def test_a_pickle_by_another_name_is_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "student.safetensors"
    if kind == "pickle":
        path.write_bytes(pickle.dumps(Bomb()))
    else:
        torch.save({"bomb": Bomb()}, path)
    with pytest.raises(InputError, match="truncated or no safetensors file"):
        load_student(path)


def test_a_file_cut_short_anywhere_is_refused(student_file: Path, tmp_path: Path) -> None:
    whole, path = student_file.read_bytes(), tmp_path / "cut.student"
    for size in [0, 1, 7, 8, 9, *range(100, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match="truncated"):
            load_student(path)


def test_a_flipped_bit_in_the_header_never_escapes_as_a_traceback(
    student_file: Path, tmp_path: Path, ethanol: Atoms
) -> None:
    """One bit in each byte of the header in turn: the file is refused in words, or what was hit is only a remark."""
    whole = student_file.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    path, x = tmp_path / "flipped.student", ethanol.get_positions()
    right = load_student(student_file)(x).forces
    refused = 0
    for k in range(header):
        path.write_bytes(whole[:k] + bytes([whole[k] ^ 1]) + whole[k + 1 :])
        try:
            student = load_student(path)
        except InputError as error:
            assert "\n" not in str(error)
            refused += 1
            continue
        if student.numbers.tolist() == ethanol.numbers.tolist():  # the registry refuses others
            np.testing.assert_array_equal(student(x).forces, right, err_msg=f"byte {k}")
    assert refused > header // 4


def test_weights_that_are_not_numbers_are_refused(
    ethanol: Atoms, make_student: Callable[..., Any], tmp_path: Path
) -> None:
    student = make_student(ethanol)
    student.network.layers[0].weight[0, 0] = float("nan")
    save_student(student, tmp_path / "nan.student")
    with pytest.raises(InputError, match="not finite"):
        load_student(tmp_path / "nan.student")


def test_safetensors_of_something_else_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    future = json.dumps({"format": "mlff-sim-student", "version": 99, "architecture": {"kind": "other"}})
    for name, metadata in {"none": None, "foreign": {"format": "pt"}, "future": {"mlff_sim": future}}.items():
        save_file({"weight": torch.zeros(3)}, tmp_path / name, metadata=metadata)
        with pytest.raises(InputError, match=r"record|version reads"):
            load_student(tmp_path / name)


# The one that comes with the package.


def test_the_shipped_student_keeps_the_promise_of_its_record() -> None:
    """On a fresh trajectory of its teacher at 300 K its force error is the recorded one, within a factor of two."""
    from mlff_sim.distill.sampling import teacher_trajectory

    aspirin = read_structure("aspirin")
    student, teacher = load_model("student:aspirin-gfn2", aspirin), load_model("gfn2-xtb", aspirin)
    start, masses, rng = aspirin.get_positions(), aspirin.get_masses(), np.random.default_rng(123)
    frames = teacher_trajectory(teacher, start, masses, temperature_K=300, steps=240, every=20, discard=140, rng=rng)
    error = np.mean([np.abs(student(x).forces - forces).mean() for x, _, forces in frames])
    promised = student.provenance["errors"]["force_mae_meV_per_A"]
    assert 0 < promised < 10
    assert 1e3 * error < 2 * promised
    assert check_provider(student, start).failures == []
