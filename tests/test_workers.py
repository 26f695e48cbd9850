"""A teacher in several processes: the same bits as in one, its errors as they are, and no process left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from ase import Atoms

from mlff_sim.acceleration import Execution
from mlff_sim.errors import InputError, MissingExtra, NonFinite, SimulationStopped
from mlff_sim.models.workers import Workers, _packed, _unpacked, load_shared
from mlff_sim.report import rows
from mlff_sim.runfolder import read_run
from mlff_sim.simulation import RunConfig, run
from mlff_sim.simulation.clock import Baseline
from mlff_sim.validation import assess

FACTORIES = '''
"""Calculators that fail, each in its own way, when the first atom is beyond 50 A."""
import os
import signal
import time
from pathlib import Path

import numpy as np
from ase.calculators.calculator import Calculator, FileIOCalculator, all_changes
from mlff_sim.errors import InputError, MissingExtra, NonFinite


class Strange(LookupError):
    pass


class Fails(Calculator):
    implemented_properties = ["energy", "forces"]
    how = None

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        x = self.atoms.get_positions()
        if x[0, 0] > 50:
            self.how(x)
        self.results = {"energy": float((x**2).sum()), "forces": -2 * x}


def raising(make):
    def fail(x):
        raise make(x)
    def factory():
        calculator = Fails()
        calculator.how = fail
        return calculator
    return factory


user = raising(lambda x: InputError("give another"))
extra = raising(lambda x: MissingExtra("the model", "xtb"))
infinite = raising(lambda x: NonFinite("forces", 0, 3))
scf = raising(lambda x: RuntimeError("the SCF did not converge"))
strange = raising(lambda x: Strange("what nobody knows"))


def killed():
    calculator = Fails()
    calculator.how = lambda x: os.kill(os.getpid(), signal.SIGKILL)
    return calculator


def leaves():
    calculator = Fails()
    calculator.how = lambda x: os._exit(5)
    return calculator


def slow():
    calculator = Fails()
    def wait(x):
        Path(__file__).with_name(f"busy-{os.getpid()}").touch()
        time.sleep(600)
    calculator.how = wait
    return calculator


def unwilling():
    raise RuntimeError("no licence")


def files():
    return FileIOCalculator(command="true", directory="here")
'''


@pytest.fixture
def factories(tmp_path: Path) -> str:
    path = tmp_path / "factories.py"
    path.write_text(FACTORIES)
    return f"ase:{path}"


def processes(workers: Workers) -> list[int]:
    return [p.pid for p in workers._processes]


def alive(pid: int) -> bool:
    """A process that runs; one that has ended and was not asked about by its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def soon(condition: Callable[[], bool], seconds: float = 30.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


def arrays(folder: Path) -> dict[str, bytes]:
    """Every array of log.h5 outside /wall, as bytes."""
    with h5py.File(folder / "log.h5") as f:
        return {name: f[name][()].tobytes() for name in f if name != "wall"}


def test_the_same_bits_for_any_number_of_processes(ethanol: Atoms, gfn2: Any) -> None:
    """Five replicas along a path, each SCF from the replica's own last one; also after a reset, and alone."""
    rng = np.random.default_rng(1)
    many = [Workers("gfn2-xtb", ethanol, Execution(), w) for w in (2, 3)]
    try:
        assert [w.provenance for w in many] == [gfn2.provenance] * 2
        assert all((w.numbers == gfn2.numbers).all() and w.name == "gfn2-xtb" for w in many)
        x = ethanol.get_positions() + 0.03 * rng.standard_normal((5, 9, 3))
        for step in range(4):
            x = x + 0.01 * rng.standard_normal(x.shape)
            expected = gfn2(x)
            for w in many:
                answer = w(x)
                np.testing.assert_array_equal(answer.energy, expected.energy)
                np.testing.assert_array_equal(answer.forces, expected.forces)
            if step == 1:
                for model in (gfn2, *many):
                    model.reset()
        np.testing.assert_array_equal(many[1](x[0]).forces, gfn2(x[0]).forces)
        # What is not per replica comes along, too; an analytic model has none of it.
        assert many[0](x).stress is None
    finally:
        for w in many:
            w.close()


def test_a_memory_that_went_to_another_replica_would_show(ethanol: Atoms, gfn2: Any) -> None:
    """Or the test above could not fail: the SCF of a warm start differs in its last digits."""
    x = ethanol.get_positions() + 0.03 * np.random.default_rng(1).standard_normal((2, 9, 3))
    gfn2(x)
    warm = gfn2(x[::-1].copy())
    gfn2.reset()
    assert (gfn2(x[::-1].copy()).forces != warm.forces).any()


def test_a_run_is_the_same_and_is_taken_up_with_any_number(student_file: Path, tmp_path: Path) -> None:
    """W = 1, 2 and 3; interrupted after a checkpoint with 3 and finished with 2. Three replicas of GFN2-xTB."""
    config = RunConfig(
        "ethanol",
        "gfn2-xtb",
        str(student_file),
        k_steps=2,
        duration_ps=0.04,
        equilibrate_ps=0.005,
        friction_per_ps=20.0,
        replicas=3,
        compile=False,
    )
    one = run(config, tmp_path / "1")
    for w in (2, 3):
        assert arrays(run(replace(config, teacher_workers=w), tmp_path / str(w))) == arrays(one)
    settings = read_run(tmp_path / "3").settings
    assert settings["teacher_workers"] == 3 and "teacher_workers" not in settings["config"]
    assert settings["timing"]["predicted_speedup"] > 0 and settings["teacher_calls"] == 3 * 41

    told = [row.advice for row in rows(assess([read_run(tmp_path / "3")])) if row.quantity == "Speed-up, measured"]
    assert len(told) == 1 and "In both the teacher had 3 processes." in told[0]

    class Interrupted(Exception):
        pass

    class Progress:
        def update(self, done: float, total: float, note: str = "") -> None:
            if done >= total / 2:
                raise Interrupted

    with pytest.raises(Interrupted):
        run(replace(config, teacher_workers=3), tmp_path / "broken", progress=Progress())
    assert (tmp_path / "broken" / "segments" / "checkpoint.npz").exists()
    run(replace(config, teacher_workers=2), tmp_path / "broken", resume=True)
    assert arrays(tmp_path / "broken") == arrays(one)
    assert arrays(run(replace(config, seed=1), tmp_path / "other")) != arrays(one)


def test_the_baseline_has_as_many_processes_and_a_replica_for_each(ethanol: Atoms, thermal: Any) -> None:
    """So that the speed-up is a comparison on equal processors: 25 + 25 steps and the start, of two of three replicas."""
    config = RunConfig("ethanol", "morse", "harmonic", replicas=3, teacher_workers=2)
    baseline = Baseline(config, ethanol)
    assert isinstance(baseline.table.providers["teacher"], Workers)
    assert baseline.block(thermal(3)) > 0
    assert baseline.table.calls["teacher"] == 2 * (2 * 25 + 1)


@pytest.mark.parametrize(
    ("factory", "kind", "words"),
    [
        ("user", InputError, "give another"),
        ("extra", MissingExtra, r"the model needs an optional package.*mlff-sim\[xtb\]"),
        ("infinite", NonFinite, "forces of atom 3 in replica 0 are not finite"),
        ("scf", RuntimeError, "the SCF did not converge"),
        ("strange", LookupError, "what nobody knows"),
    ],
)
def test_an_error_is_the_same_here(
    factory: str, kind: type[Exception], words: str, factories: str, ethanol: Atoms
) -> None:
    """Its class, or the nearest that is known here; its message."""
    x = np.repeat(ethanol.get_positions()[None], 5, axis=0)
    bad = x.copy()
    bad[3, 0, 0] = 60.0
    workers = Workers(f"{factories}:{factory}", ethanol, Execution(), 2)
    try:
        with pytest.raises(kind, match=words) as caught:
            workers(bad)
        assert type(caught.value) is kind
        assert any("factories.py" in note for note in getattr(caught.value.__cause__ or caught.value, "__notes__", ()))
        np.testing.assert_array_equal(workers(x).forces, -2 * x)  # and they go on
    finally:
        workers.close()


def test_a_replica_of_one_process_is_named_as_one_of_all(ethanol: Atoms, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replica 1 of the second of three processes is replica 4; a model that is asked for one at a time does not count."""
    workers = Workers("lj", ethanol, Execution(), 3)
    monkeypatch.setattr(Workers, "_receive", lambda self, w: (w != 1, _packed(NonFinite("forces", 1, 7))))
    try:
        with pytest.raises(NonFinite, match="atom 7 in replica 4"):
            workers(np.zeros((6, 9, 3)))
    finally:
        workers.close()


def test_errors_that_cannot_be_pickled_keep_their_message() -> None:
    class Local(ValueError):
        pass

    error = Local("here", lambda: 0)
    back = _unpacked(_packed(error))
    assert type(back) is RuntimeError and str(back) == str(error)
    with pytest.raises(OSError, match="No such file") as caught:
        raise _unpacked(_packed(FileNotFoundError(2, "No such file", "x")))
    assert type(caught.value) is FileNotFoundError and caught.value.errno == 2


def test_mistakes_when_a_model_is_loaded(factories: str, ethanol: Atoms, student_file: Path) -> None:
    for name, words in {
        f"{factories}:unwilling": "failed to build its calculator .*no licence",
        f"{factories}:nothing": "cannot be loaded",
        f"{factories}:files": "2 processes would overwrite each other's in .*here.*mkdtemp",
        f"student:{student_file}": "evaluates all replicas in one call.*Use 1",
        "gfn9": "unknown model",
    }.items():
        with pytest.raises(InputError, match=words):
            load_shared(name, ethanol, Execution(), 2)


@pytest.mark.parametrize(
    ("factory", "words"),
    [
        ("killed", "process 2 of the 2 .* was killed by SIGKILL, perhaps out of memory; use fewer"),
        ("leaves", "process 2 of the 2 .* ended with exit code 5"),
    ],
)
def test_a_process_that_is_gone_ends_the_run_with_one_line(
    factory: str, words: str, factories: str, ethanol: Atoms
) -> None:
    """No failure of a model, which a Monte Carlo step would take for a refusal; the others are not left behind."""
    x = np.repeat(ethanol.get_positions()[None], 2, axis=0)
    workers = Workers(f"{factories}:{factory}", ethanol, Execution(), 2)
    x[1, 0, 0] = 60.0
    with pytest.raises(InputError, match=words):
        workers(x)
    assert not any(alive(p) for p in processes(workers))
    with pytest.raises(InputError, match="have ended"):
        workers(x)
    idle = Workers("lj", ethanol, Execution(), 2)
    os.kill(processes(idle)[0], signal.SIGKILL)
    assert soon(lambda: not alive(processes(idle)[0]))
    with pytest.raises(InputError, match="process 1 of the 2 that evaluate 'lj' was killed by SIGKILL"):
        idle(x)


def test_processes_end_with_their_object(ethanol: Atoms) -> None:
    workers = Workers("lj", ethanol, Execution(), 2)
    pids = processes(workers)
    assert all(alive(p) for p in pids)
    del workers
    assert not any(alive(p) for p in pids)


SCRIPT = """
import signal, sys, numpy as np
signal.signal(signal.SIGINT, signal.default_int_handler)  # what is started in the background is told to ignore it
from mlff_sim.acceleration import Execution
from mlff_sim.models.workers import load_shared
from mlff_sim.structure import read_structure
atoms = read_structure("ethanol")
w = load_shared(sys.argv[1], atoms, Execution(), 2)  # no `if __name__ == "__main__"` here
x = np.repeat(atoms.get_positions()[None], 2, axis=0)
x[:, 0, 0] = 60.0 if "slow" in sys.argv[1] else 0.0
print(*(p.pid for p in w._processes), flush=True)
w(x)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "ctrl-c"])
def test_processes_end_with_the_parent_in_the_middle_of_an_evaluation(
    how: signal.Signals, factories: str, tmp_path: Path
) -> None:
    """However it goes; of Ctrl-C only the parent says something."""
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, str(tmp_path / "script.py"), f"{factories}:slow"]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert parent.stdout is not None and parent.stderr is not None
    pids = [int(p) for p in parent.stdout.readline().split()]
    assert len(pids) == 2 and soon(lambda: len(list(tmp_path.glob("busy-*"))) == 2)
    assert all(os.getpgid(p) != os.getpgid(parent.pid) for p in pids), "a terminal's Ctrl-C would reach them"
    os.kill(parent.pid, how)
    _, err = parent.communicate(timeout=30)
    assert soon(lambda: not any(alive(p) for p in pids), 10)
    assert err.count("Traceback") == (how == signal.SIGINT)


def test_a_guard_and_the_command_line_say_the_same(
    factories: str, tmp_path: Path, cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stops a run in one process stops it in two."""
    text = Path(factories.removeprefix("ase:")).read_text().replace("x[0, 0] > 50", "True")
    sick = tmp_path / "sick.py"
    sick.write_text(text)
    for w in (1, 2):
        with pytest.raises(SimulationStopped, match=r"the teacher must converge .*the SCF did not converge"):
            run(
                RunConfig("ethanol", f"ase:{sick}:scf", replicas=2, teacher_workers=w, duration_ps=0.01),
                tmp_path / str(w),
            )
    common = ["md", "--structure", "ethanol", "--replicas", "2", "--duration-ps", "0.01", "--teacher-workers"]
    for value, model, words in (
        ("0", "lj", "teacher_workers = 0 must be a whole number of at least 1"),
        ("-2", "lj", "teacher_workers = -2"),
        ("3", "lj", "teacher_workers = 3 for 2 replicas.*use at most 2"),
        ("two", "lj", "--teacher-workers.*integer"),
        ("2", f"ase:{sick}:user", "give another"),
        ("2", f"ase:{sick}:killed", "was killed by SIGKILL"),
    ):
        out = tmp_path / f"out-{value}-{model[-4:]}"
        done = cli(*common, value, "--model", model, "--out", out)
        assert done.code == 2, done
        assert re.search(words, done.line), done.line
    done = cli(*common, "2", "--model", "morse", "--out", tmp_path / "good")
    assert done.code in (0, 1) and done.err == ""
    results = json.loads((tmp_path / "good" / "results.json").read_text())
    assert results["runs"][0]["teacher_workers"] == 2
