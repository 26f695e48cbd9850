"""Hybrid Monte Carlo with a student is exact for the teacher, whatever the student is."""

from __future__ import annotations

import importlib
import json
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from conftest import Well
from scipy.integrate import quad

from mlff_sim import RunConfig, run
from mlff_sim.errors import InputError
from mlff_sim.forces import Array, Evaluation, ForceProvider
from mlff_sim.integrators.force_table import ForceTable
from mlff_sim.integrators.fused import FusedStepper, _pieces
from mlff_sim.integrators.metropolis import Metropolis
from mlff_sim.integrators.schemes import baoab, merged, respa, substeps, verlet
from mlff_sim.integrators.stepper import Langevin, Stepper
from mlff_sim.models.registry import load_model
from mlff_sim.models.workers import load_shared
from mlff_sim.runfolder import read_run
from mlff_sim.simulation.assembly import Dynamics, assemble
from mlff_sim.state import State
from mlff_sim.units import FS, KB
from mlff_sim.validation import assess

KT = KB * 300.0


def chain(
    teacher: ForceProvider, student: ForceProvider, k: int, friction: float, replicas: int, seed: int = 3
) -> Metropolis:
    table = ForceTable({"teacher": teacher, "student": student}, {"residual": ("teacher", "student")})
    n = len(teacher.numbers)
    rng, masses = np.random.default_rng(seed), np.full(n, 12.0)
    start = State(rng.choice([-1.0, 1.0], (replicas, n, 3)), rng.standard_normal((replicas, n, 3)) * np.sqrt(12 * KT))
    scheme = substeps(verlet("student"), k)
    proposer = Stepper(scheme, k * 10 * FS, masses, table, start)
    return Metropolis(proposer, Langevin(300.0, friction, seed, replicas))


@pytest.mark.parametrize(
    ("friction", "student"),
    [(1e6, Well(1.0, 1.0, "bad")), (5.0, Well(1.0, 1.0, "bad")), (5.0, Well(2.5, 0.0, "fair"))],
    ids=["all momenta new", "some new", "a fair student"],
)
def test_a_double_well_is_sampled_exactly_with_a_bad_student(friction: float, student: Well) -> None:
    """<x>, <x^2> and the share of the deeper well against quadrature, within four standard errors over 400 replicas.

    The student has its barrier wrong by a factor of three and the wrong tilt; without the test the averages are its own.
    """
    teacher = Well(3.0, -0.4)
    s = chain(teacher, student, k=8, friction=friction, replicas=400)
    samples = []
    for step in range(1200):
        s.step()
        if step >= 200:
            samples.append(s.state.positions[:, 0, 0])
    x = np.array(samples)  # steps, replicas

    def exact(f: Any, model: Well) -> float:
        weight = lambda y: np.exp(-model.energy(y) / KT)  # noqa: E731
        return quad(lambda y: f(y) * weight(y), -4, 4)[0] / quad(weight, -4, 4)[0]

    for f in (lambda y: y, lambda y: y * y, lambda y: 1.0 * (y > 0)):
        means = f(x).mean(axis=0)
        stderr = means.std(ddof=1) / np.sqrt(len(means))
        assert abs(means.mean() - exact(f, teacher)) < 4 * stderr
        if student.name == "bad":
            assert abs(exact(f, student) - exact(f, teacher)) > 10 * stderr, "the test could not tell"
    rate = s.accepted.sum() / (s.proposals * 400)
    assert 0.1 < rate < 0.97


def test_the_momenta_are_maxwells(toys: Any) -> None:
    """<p^2> / m = kT in every direction, also where momenta are turned round at refusals."""
    s = chain(toys.trap(2, 3 * KT), toys.trap(2, 1.5 * KT), k=4, friction=20.0, replicas=500)
    kinetic = []
    for _ in range(600):
        s.step()
        kinetic.append((s.state.momenta**2).mean(axis=(1, 2)) / 12.0)
    means = np.array(kinetic)[100:].mean(axis=0)
    assert abs(means.mean() - KT) < 4 * means.std(ddof=1) / np.sqrt(len(means))
    assert 0.2 < s.accepted.sum() / (s.proposals * 500) < 0.99


def test_the_teacher_as_its_own_student_is_refused_only_for_the_step_error(toys: Any) -> None:
    """Harmonic, w dt = 0.05: |dH| < (w dt)^2 / 8 of a few kT, so hardly anything is refused; one teacher call a step."""
    trap = toys.counted(toys.trap(1, KT))
    s = chain(trap, toys.trap(1, KT), k=5, friction=10.0, replicas=50)
    s.potential()
    before = trap.calls
    for _ in range(200):
        s.step()
    assert trap.calls - before == 200
    assert s.accepted.sum() > 0.99 * 50 * 200


def test_a_refused_replica_goes_back_and_the_others_go_on(toys: Any) -> None:
    """Positions of before, momenta turned round, the forces those of the positions; heat books what was accepted."""
    s = chain(toys.trap(3, 5 * KT), toys.trap(3, 0.2 * KT), k=6, friction=0.0, replicas=40)
    for _ in range(5):
        start, heat = s.state, s.heat
        h = s._hamiltonian()
        accepted = s.accepted.copy()
        s.step()
        take = s.accepted > accepted
        assert 0 < take.sum() < 40
        np.testing.assert_array_equal(s.state.positions[~take], start.positions[~take])
        np.testing.assert_allclose(s.state.momenta[~take], -start.momenta[~take], rtol=1e-14)
        assert (s.state.positions[take] != start.positions[take]).all()
        for name, model in s.forces.providers.items():
            np.testing.assert_array_equal(s.forces[name].forces, model(s.state.positions).forces)
        # With no friction nothing is refreshed: H - heat stays.
        np.testing.assert_allclose(s._hamiltonian() - s.heat, h - heat, atol=1e-9 * KT)


def test_a_proposal_that_flies_apart_is_refused(toys: Any) -> None:
    """A student that throws some atoms to infinity, and a teacher that cannot be asked there."""

    class Thrower(toys.trap):  # type: ignore[misc]
        def __call__(self, positions: Array, cell: Array | None = None, /) -> Evaluation:
            answer = super().__call__(positions)
            forces = np.where(np.abs(positions) > 2.0, np.inf, answer.forces)
            return Evaluation(answer.energy, forces)

    class Picky(toys.trap):  # type: ignore[misc]
        def __call__(self, positions: Array, cell: Array | None = None, /) -> Evaluation:
            if np.abs(positions).max() > 2.5:
                raise RuntimeError("no convergence")
            return super().__call__(positions)

    for teacher, student in ((toys.trap(1, KT), Thrower(1, KT)), (Picky(1, KT), toys.trap(1, KT))):
        s = chain(teacher, student, k=6, friction=20.0, replicas=10)
        for _ in range(300):
            s.step()
            assert np.isfinite(s.state.positions).all() and np.isfinite(s.state.momenta).all()
        assert 0 < s.accepted.sum() < 10 * s.proposals


def test_after_a_failure_models_have_no_memory(toys: Any) -> None:
    """Which replicas were evaluated before the one that failed depends on how they are shared among processes."""

    class Forgetful(toys.trap):  # type: ignore[misc]
        calls = resets = failures = 0

        def reset(self) -> None:
            self.resets += 1

        def __call__(self, positions: Array, cell: Array | None = None, /) -> Evaluation:
            self.calls += 1
            if self.calls % 3 == 0:
                self.failures += 1
                raise RuntimeError("no convergence")
            return super().__call__(positions)

    teacher = Forgetful(1, KT)
    s = chain(teacher, toys.trap(1, KT), k=6, friction=20.0, replicas=2)
    for _ in range(10):
        s.step()
    assert teacher.resets == teacher.failures > 2


def test_only_reversible_proposals(toys: Any) -> None:
    table = ForceTable({"teacher": toys.trap(1, 1.0), "student": toys.trap(1, 1.0)})
    state = State(np.zeros((1, 1, 3)), np.zeros((1, 1, 3)))
    bath = Langevin(300.0, 1.0, 0, 1)
    with pytest.raises(ValueError, match="reversible"):
        Metropolis(Stepper(baoab("student"), 1.0, np.ones(1), table, state, bath), bath)
    with pytest.raises(ValueError, match="reversible"):
        Metropolis(Stepper(verlet("student")[:2], 1.0, np.ones(1), table, state), bath)


def test_respa_proposals_are_exact_too() -> None:
    """Trajectories corrected by the residual: accepted more often than the student's, and the same ensemble."""
    teacher, student = Well(3.0, -0.4), Well(2.0, 0.0, "student")
    table = ForceTable({"teacher": teacher, "student": student}, {"residual": ("teacher", "student")})
    rng = np.random.default_rng(0)
    start = State(rng.choice([-1.0, 1.0], (300, 1, 3)), rng.standard_normal((300, 1, 3)) * np.sqrt(12 * KT))
    scheme = substeps(respa("residual", verlet("student"), 4), 2)
    s = Metropolis(Stepper(scheme, 80 * FS, np.array([12.0]), table, start), Langevin(300.0, 1e6, 1, 300))
    xs = []
    for step in range(800):
        s.step()
        if step >= 150:
            xs.append(s.state.positions[:, 0, 0])
    means = np.array(xs).mean(axis=0)
    weight = lambda y: np.exp(-teacher.energy(y) / KT)  # noqa: E731
    exact = quad(lambda y: y * weight(y), -4, 4)[0] / quad(weight, -4, 4)[0]
    assert abs(means.mean() - exact) < 4 * means.std(ddof=1) / np.sqrt(len(means))
    plain = chain(teacher, student, k=8, friction=1e6, replicas=300)
    for _ in range(100):
        plain.step()
    assert s.accepted.sum() / s.proposals > plain.accepted.sum() / plain.proposals


@pytest.mark.parametrize("bath", [False, True])
def test_long_trajectories_are_compiled_in_pieces(bath: bool, ethanol: Atoms, make_student: Any, thermal: Any) -> None:
    """The pieces are the trajectory, mostly one and the same, and take it where the whole takes it, noise included."""
    student, inner = make_student(ethanol), (baoab if bath else verlet)("student")
    scheme = merged(substeps(inner, 100))
    pieces = _pieces(scheme)
    assert tuple(item for piece in pieces for item in piece) == scheme
    assert len(pieces) == 8 and len(set(pieces)) == 3
    assert _pieces(merged(substeps(inner, 30))) == [merged(substeps(inner, 30))]
    ends = []
    for kind in (Stepper, FusedStepper):
        table = ForceTable({"student": student})
        more = {"compile": False} if kind is FusedStepper else {}
        heat = Langevin(300.0, 1.0, 0, 2) if bath else None
        s = kind(scheme, 100 * 0.5 * FS, ethanol.get_masses(), table, thermal(2), heat, **more)
        s.step()
        assert table.calls["student"] == 2 * 101
        ends.append(s.state)
    # Float32 forces summed in another order: 1e-6 eV/A over 50 fs move a hydrogen by less than 2e-5 A.
    assert np.abs(ends[0].positions - ends[1].positions).max() < 2e-5
    assert np.abs(ends[0].positions - thermal(2).positions).max() > 0.05


def test_a_loop_that_cannot_be_compiled_is_no_refused_proposal(
    ethanol: Atoms, make_student: Any, thermal: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a C++ compiler, say; all proposals would be refused, and the run would look like one."""

    def backend(*arguments: Any) -> Any:
        raise OSError("no compiler")

    compile = torch.compile
    monkeypatch.setattr(torch, "compile", lambda run, **options: compile(run, backend=backend, **options))
    providers = {"teacher": load_model("morse", ethanol), "student": make_student(ethanol)}
    bath = Langevin(300.0, 1.0, 0, 2)
    s = assemble(Dynamics("ghmc", 0.5, 2), providers, ethanol.get_masses(), thermal(2), bath)
    with pytest.raises(InputError, match=r"no compiler.*--no-compile"):
        s.step()


def test_a_teacher_that_fails_from_the_start_on_is_refused_in_the_timing_too(
    toys: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Timing the models beforehand meets proposals that never reach the teacher's answer."""

    class Once(toys.trap):  # type: ignore[misc]
        calls = 0

        def __call__(self, positions: Array, cell: Array | None = None, /) -> Evaluation:
            self.calls += 1
            if self.calls > 1:
                raise RuntimeError("no convergence")
            return super().__call__(positions)

    module = importlib.import_module("mlff_sim.simulation.run")
    monkeypatch.setattr(module, "load_shared", lambda name, *_: (Once if name == "morse" else toys.trap)(9, KT))
    config = RunConfig("ethanol", "morse", "harmonic", k_steps=2, duration_ps=0.01, scheme="ghmc", baseline=False)
    data = read_run(run(config, tmp_path / "run"))
    assert not data.counts["accepted"].any() and data.settings["timing"] is None
    assert any("No proposal" in note for note in assess([data]).runs[0].notes)


def test_what_the_compiled_loop_is_for(
    ethanol: Atoms,
    make_student: Any,
    student_file: Any,
    thermal: Any,
    toys: Any,
    tmp_path: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Students on the CPU, where one that runs alone is loaded, too; nothing else that calls something `network`."""
    trap, abroad = toys.trap(9, KT), make_student(ethanol)
    trap.network, abroad.device = object(), torch.device("cuda")
    for student, fused in ((trap, False), (abroad, False), (make_student(ethanol), True)):
        providers = {"teacher": toys.trap(9, KT), "student": student}
        s = assemble(Dynamics("respa", 0.5, 2), providers, ethanol.get_masses(), thermal(1))
        assert isinstance(s, FusedStepper) == fused
    asked = []
    module = importlib.import_module("mlff_sim.simulation.run")
    monkeypatch.setattr(module, "load_shared", lambda *given: asked.append(given[2].device) or load_shared(*given))
    for teacher in (f"student:{student_file}", "morse"):
        module.Run(RunConfig("ethanol", teacher), tmp_path / "run")
    assert asked == ["cpu", "auto"]


def test_from_the_command_line(ethanol: Atoms, student_file: Any, tmp_path: Any, cli: Any) -> None:
    """`--scheme ghmc` reports its acceptance and samples, and refuses NVE."""
    common = ["--structure", "ethanol", "--teacher", "morse", "--student", str(student_file), "--scheme", "ghmc"]
    common += ["--k-steps", "3", "--duration-ps", "0.09", "--no-compile", "--no-baseline", "--replicas", "2"]
    done = cli("hybrid", *common, "--out", str(tmp_path / "a"))
    assert done.code in (0, 1), done.err
    results = json.loads((tmp_path / "a" / "results.json").read_text())["ghmc"]
    assert results["proposals"] == 2 * 56 and 0 <= results["acceptance"] <= 1
    assert results["slowest"] in results["effective_samples_by_observable"]
    for wrong in (["--ensemble", "nve"], ["--friction-per-ps", "0"]):
        refused = cli("hybrid", *common, *wrong, "--out", str(tmp_path / "b"))
        assert refused.code == 2 and "ghmc" in refused.err and "Traceback" not in refused.err
