"""The fused engine against the NumPy reference: the same tuple, executed by a compiled graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
from ase import Atoms

from mlff_sim.forces import Array
from mlff_sim.integrators.force_table import ForceTable
from mlff_sim.integrators.fused import FusedStepper
from mlff_sim.integrators.schemes import Drift, Kick, Scheme, baoab, obabo, respa, verlet
from mlff_sim.integrators.stepper import Langevin, Stepper
from mlff_sim.models.registry import load_model
from mlff_sim.state import State
from mlff_sim.units import FS, NM, PS

K, OUTER_FS, STEPS = 2, 1.0, 20


@dataclass
class Case:
    """One fused stepper, kept for all tests of the session, and what it takes to start it and the reference again."""

    fused: FusedStepper
    replicas: int
    start: Callable[[int], State]
    twin: Callable[[State, Langevin | None], Stepper]
    rounding: float
    thermostatted: bool

    def bath(self) -> Langevin | None:
        """A new bath with the same seed."""
        return Langevin(300.0, 5.0, 21, self.replicas) if self.thermostatted else None

    def fresh(self) -> tuple[FusedStepper, Stepper]:
        """The fused stepper back at the start, and a reference there."""
        state = self.start(self.replicas)
        self.fused.restart(state, self.bath())
        return self.fused, self.twin(state, self.bath())

    def tolerance(self, fs: float) -> Array:
        """How far float32 may carry each atom in a time t, A, shape (n, 1).

        Both engines evaluate the same network, but sum in another order, so that their forces differ by up to twice
        the rounding error df of a float32 evaluation. A constant force df displaces a mass m by df t^2 / 2m; below
        half a radian of the fastest mode, as here, displacements do not grow by more than that of free flight.
        """
        t = fs * FS
        return 2 * self.rounding * t**2 / (2 * self.fused.masses[:, None])


CASES = [(1, "nve", False), (3, "nvt", False), (1, "nvt", False), (3, "nve", False), (1, "nve", True), (3, "nvt", True)]


@pytest.fixture(scope="session", params=CASES, ids=lambda p: f"{'compiled' if p[2] else 'eager'}-{p[1]}-{p[0]}")
def case(request: pytest.FixtureRequest, ethanol: Atoms, make_student: Callable[..., Any]) -> Iterator[Case]:
    """Every compiled graph is made once per session: two of them, which is where this file's time goes."""
    from mlff_sim.integrators.force_table import ForceTable
    from mlff_sim.state import maxwell_boltzmann

    replicas, ensemble, compile = request.param
    student, exact = make_student(ethanol), make_student(ethanol, dtype="float64")
    masses, x0 = ethanol.get_masses(), ethanol.get_positions()
    scheme = respa("residual", (baoab if ensemble == "nvt" else verlet)("student"), K)

    def table() -> ForceTable:
        models = {"teacher": load_model("morse", ethanol), "student": student}
        return ForceTable(models, {"residual": ("teacher", "student")})

    def start(r: int) -> State:
        rng = np.random.default_rng(13)
        momenta = [maxwell_boltzmann(masses, 300.0, rng, remove_com=True) for _ in range(r)]
        return State(np.repeat(x0[None], r, axis=0), np.array(momenta))

    frames = x0 + 0.1 * np.random.default_rng(0).standard_normal((200, *x0.shape))
    rounding = float(np.abs(student(frames).forces - exact(frames).forces).max())
    arguments = (OUTER_FS * FS, masses)
    bath = Langevin(300.0, 5.0, 21, replicas) if ensemble == "nvt" else None
    fused = FusedStepper(scheme, *arguments, table(), start(replicas), bath, compile=compile)

    def twin(state: State, bath: Langevin | None) -> Stepper:
        return Stepper(scheme, *arguments, table(), state, bath)

    yield Case(fused, replicas, start, twin, rounding, ensemble == "nvt")


def test_it_follows_the_reference_within_float32(case: Case) -> None:
    fused, reference = case.fresh()
    fused.forces.calls.update(teacher=0, student=0)
    for _ in range(STEPS):
        fused.step()
        reference.step()
    assert np.abs(reference.state.positions - case.start(case.replicas).positions).max() > 0.05
    tolerance = case.tolerance(STEPS * OUTER_FS)
    assert tolerance.max() < 1e-4, "or the test would pass for another scheme"
    assert (np.abs(fused.state.positions - reference.state.positions) < tolerance).all()
    momentum = 2 * case.rounding * STEPS * OUTER_FS * FS
    assert np.abs(fused.state.momenta - reference.state.momenta).max() < momentum
    # dE = p dp / m before and after each of the baths: heat differs by what the momenta differ by.
    speeds = np.abs(reference.state.momenta / fused.masses[:, None]).sum(axis=(1, 2))
    assert (np.abs(fused.heat - reference.heat) <= STEPS * K * 2 * speeds * momentum).all()
    assert bool(fused.heat.any()) == case.thermostatted
    # The residual once per outer step, the student k times; both once at the start.
    assert fused.forces.calls == reference.forces.calls
    assert fused.forces.calls == {"teacher": (STEPS + 1) * case.replicas, "student": (K * STEPS + 1) * case.replicas}


def test_openmm_follows_it_within_float32(case: Case) -> None:
    """The same scheme and the same student, called from a `CustomIntegrator`."""
    mm = pytest.importorskip("openmm")
    from mlff_sim.interfaces.openmm_integrator import Answers, add_forces, translate

    if case.thermostatted:
        pytest.skip("OpenMM draws noise of its own")
    fused, twin = case.fresh()
    groups, masses, nm_per_ps = {"student": 0, "residual": 1}, fused.masses, NM / PS
    system, integrator = mm.System(), translate(twin.scheme, groups, twin.timestep)
    for mass in masses:
        system.addParticle(mass)
    add_forces(system, Answers(twin.forces, ["X"] * len(masses)), groups)
    context = mm.Context(system, integrator, mm.Platform.getPlatformByName("Reference"))
    context.setPositions(twin.state.positions[0] / NM)
    context.setVelocities(twin.state.momenta[0] / masses[:, None] / nm_per_ps)
    for _ in range(STEPS):
        fused.step()
    integrator.step(STEPS)
    found = NM * context.getState(positions=True).getPositions(asNumpy=True)._value
    assert np.abs(found - twin.state.positions[0]).max() > 0.05
    assert (np.abs(fused.state.positions[0] - found) < case.tolerance(STEPS * OUTER_FS)).all()


def test_what_it_knows_at_the_end_is_what_the_models_say_there(case: Case) -> None:
    """Energies and forces that come out of the graph are entered for the positions that come out with them."""
    fused, _ = case.fresh()
    for _ in range(3):
        fused.step()
    answer, known = fused.student(fused.state.positions), fused.forces["student"]
    assert np.abs(answer.forces - known.forces).max() < 2 * case.rounding
    assert np.abs(answer.energy - known.energy).max() < 1e-5  # float32 of energies of some eV about the shift
    difference = fused.forces["teacher"].forces - known.forces
    np.testing.assert_array_equal(fused.forces["residual"].forces, difference)


def test_running_again_gives_the_same_bits(case: Case) -> None:
    """A resumed run can only be the unbroken one if the graph is a function."""
    ends = []
    for _ in range(2):
        fused, _ = case.fresh()
        for _ in range(5):
            fused.step()
        ends.append(fused.state)
    np.testing.assert_array_equal(ends[0].positions, ends[1].positions)
    np.testing.assert_array_equal(ends[0].momenta, ends[1].momenta)


def test_what_it_holds_does_not_hold_what_was_before(case: Case) -> None:
    """No array of the stepper is a view of a view of the last step's: a chain as long as the run once overflowed the stack
    of whoever freed it, 100 ps of a student later."""
    fused, _ = case.fresh()

    def depth(array: Any) -> int:
        count = 0
        while getattr(array, "base", None) is not None:
            array, count = array.base, count + 1
        return count

    first = fused.extension
    for _ in range(5):
        fused.step()
    assert fused.extension is first
    assert max(depth(a) for a in (fused.state.positions, fused.state.momenta, fused.heat)) <= 2


def test_it_is_reversible_unless_there_is_a_bath(case: Case) -> None:
    """There and back, with the forces on the way back off by at most a float32 rounding; see the NumPy test."""
    fused, _ = case.fresh()
    for _ in range(STEPS):
        fused.step()
    fused.restart(State(fused.state.positions, -fused.state.momenta), fused.bath)
    for _ in range(STEPS):
        fused.step()
    error = np.abs(fused.state.positions - case.start(case.replicas).positions)
    assert (error < case.tolerance(2 * STEPS * OUTER_FS)).all() != case.thermostatted


def test_the_teacher_is_asked_at_the_outer_points_only(
    ethanol: Atoms,
    make_student: Callable[..., Any],
    thermal: Callable[..., State],
    two_models: Callable[..., Any],
    toys: Any,
) -> None:
    """Counted at the models themselves, not in the table: k network evaluations and one teacher call a step."""
    teacher, student = toys.counted(load_model("morse", ethanol)), make_student(ethanol)
    evaluations: list[int] = []
    student.network.register_forward_hook(lambda module, inputs, output: evaluations.append(len(inputs[0])))
    stepper = FusedStepper(
        respa("residual", verlet("student"), 6),
        3.0 * FS,
        ethanol.get_masses(),
        two_models(teacher, student),
        thermal(2),
        compile=False,
    )
    for _ in range(4):
        stepper.step()
    assert teacher.calls == 5 and len(teacher.asked) == 2 * 5
    assert evaluations == [2] * (6 * 4 + 1)


def test_plain_dynamics_of_a_student_is_fused_too(
    ethanol: Atoms, make_student: Callable[..., Any], thermal: Callable[..., State]
) -> None:
    """`mlff-sim md --model student:FILE`: no slow force, one segment."""
    student, start = make_student(ethanol), thermal(2)
    arguments = (0.5 * FS, ethanol.get_masses())
    fused = FusedStepper(
        baoab("teacher"),
        *arguments,
        ForceTable({"teacher": student}),
        start,
        Langevin(300, 1, 0, 2),
        fast="teacher",
        compile=False,
    )
    plain = Stepper(baoab("teacher"), *arguments, ForceTable({"teacher": student}), start, Langevin(300, 1, 0, 2))
    for _ in range(10):
        fused.step()
        plain.step()
    assert np.abs(fused.state.positions - plain.state.positions).max() < 1e-6
    assert fused.forces.calls == plain.forces.calls


def test_any_number_of_runs_in_a_process_compile(
    ethanol: Atoms, make_student: Callable[..., Any], thermal: Callable[..., State], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A study of many molecules: torch compiles one piece of code eight times at most, and then raises or is slow."""
    import torch

    # Traced and guarded as always, and not made machine code, which takes half a minute each.
    monkeypatch.setattr("torch.compile", partial(torch.compile, backend="eager"))
    table = ForceTable({"teacher": make_student(ethanol)})
    for k in range(torch._dynamo.config.recompile_limit + 2):
        stepper = FusedStepper(
            verlet("teacher"), (0.5 + 0.01 * k) * FS, ethanol.get_masses(), table, thermal(1), fast="teacher"
        )
        stepper.step()


SCHEMES: dict[str, tuple[Scheme, dict[str, Any] | None, bool]] = {
    "verlet": (respa("residual", verlet("student"), 3), None, False),
    "baoab": (respa("residual", baoab("student"), 3), {}, False),
    "obabo": (respa("residual", obabo("student"), 3), {}, False),
    "by-element": (respa("residual", baoab("student"), 3), {"friction_per_ps": True}, False),
    "remove-com": (respa("residual", baoab("student"), 3), {"remove_com": True}, False),
    "three": (respa("residual", respa("correction", baoab("student"), 2), 3), {"friction_per_ps": True}, False),
    "three-compiled": (respa("residual", respa("correction", obabo("student"), 2), 3), {"friction_per_ps": True}, True),
}


@pytest.mark.parametrize(("scheme", "settings", "compile"), SCHEMES.values(), ids=SCHEMES.keys())
def test_with_a_float64_student_it_is_the_reference_to_1e_12(
    scheme: Scheme,
    settings: dict[str, Any] | None,
    compile: bool,
    ethanol: Atoms,
    make_student: Callable[..., Any],
    thermal: Callable[..., State],
) -> None:
    """Sums are rounded in another order and nothing else differs: 1e-12 A and (eV u)^1/2 after 30 fs, heat too.

    Five steps of up to six inner ones of 1 fs with roundings of 1e-15 A, which displacements of a stiff molecule
    multiply by less than a hundred in that time.
    """
    from mlff_sim.integrators.force_table import ForceTable

    student, start, masses = make_student(ethanol, dtype="float64"), thermal(2), ethanol.get_masses()
    differences = {"residual": ("teacher", "student")}
    if any(flow == Kick("correction") for flow, _ in scheme):
        differences = {"residual": ("teacher", "middle"), "correction": ("middle", "student")}
    inner = total_inner(scheme)

    def made(kind: Callable[..., Stepper], **more: Any) -> Stepper:
        models = {"teacher": load_model("morse", ethanol), "middle": load_model("harmonic", ethanol)}
        table = ForceTable({**models, "student": student}, differences)
        bath = None
        if settings is not None:
            rates = np.where(ethanol.numbers == 1, 20.0, 5.0) if "friction_per_ps" in settings else 5.0
            bath = Langevin(300.0, rates, 21, 2, remove_com="remove_com" in settings)
        return kind(scheme, inner * 1.0 * FS, masses, table, start, bath, **more)

    fused, plain = made(FusedStepper, compile=compile), made(Stepper)
    assert isinstance(fused, FusedStepper)
    assert len({id(segment) for _, segment, _, _ in fused.program if segment}) == 1, "one piece is compiled, once"
    for _ in range(5):
        fused.step()
        plain.step()
    assert np.abs(plain.state.positions - start.positions).max() > 0.05
    assert np.abs(fused.state.positions - plain.state.positions).max() < 1e-12
    assert np.abs(fused.state.momenta - plain.state.momenta).max() < 1e-12
    assert np.abs(fused.heat - plain.heat).max() < 1e-12
    assert fused.forces.calls == plain.forces.calls


def total_inner(scheme: Scheme) -> int:
    """Inner steps in a step: each asks the student once."""
    moved, count = False, 0
    for flow, _ in scheme:
        moved = moved or flow == Drift()
        if moved and flow == Kick("student"):
            moved, count = False, count + 1
    return count


def test_a_segment_ends_with_its_force_known(
    ethanol: Atoms, make_student: Callable[..., Any], thermal: Callable[..., State], two_models: Callable[..., Any]
) -> None:
    """A scheme that drifts last would leave the student's force unknown; it is refused, not miscounted."""
    scheme: Scheme = tuple(reversed(verlet("student")[:2]))
    assert isinstance(scheme[-1][0], Kick)
    table = two_models(load_model("morse", ethanol), make_student(ethanol))
    with pytest.raises(ValueError, match="must end with a kick"):
        FusedStepper(scheme[::-1], 1.0, ethanol.get_masses(), table, thermal(), compile=False)


def test_bfloat16_products_change_the_forces_a_little(ethanol: Atoms, make_student: Callable[..., Any]) -> None:
    """Eight bits of mantissa: errors of about 2^-9 per product, hundredths of the force, and not nothing."""
    student = make_student(ethanol)
    x = ethanol.get_positions() + 0.05 * np.random.default_rng(0).standard_normal((10, 9, 3))
    exact = student(x).forces
    student.network.autocast = True
    change = np.abs(student(x).forces - exact).max() / np.abs(exact).max()
    assert 1e-5 < change < 0.05
