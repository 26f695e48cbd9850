"""Laws of the integrators: order, reversibility, what is conserved, and who is asked how often."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ase import Atoms

from mlff_sim.forces import Array, ForceProvider
from mlff_sim.integrators.force_table import ForceTable
from mlff_sim.integrators.schemes import Kick, Scheme, baoab, merged, only, respa, strang, substeps, verlet
from mlff_sim.integrators.stepper import Langevin, Stepper
from mlff_sim.models.analytic import Harmonic
from mlff_sim.models.registry import load_model
from mlff_sim.state import State, kinetic_energy
from mlff_sim.units import FS

EPS = np.finfo(np.float64).eps
SYSTEMS = {
    "verlet-harmonic": (verlet("teacher"), "harmonic", "harmonic"),
    "verlet-morse": (verlet("teacher"), "morse", "harmonic"),
    "verlet-mmff": (verlet("teacher"), "mmff", "harmonic"),
    "respa-2": (respa("residual", verlet("student"), 2), "morse", "harmonic"),
    "respa-3": (respa("residual", verlet("student"), 3), "morse", "harmonic"),
}
systems = pytest.mark.parametrize(("scheme", "teacher", "student"), SYSTEMS.values(), ids=SYSTEMS.keys())


def highest_frequency(model: ForceProvider, positions: Array, masses: Array) -> float:
    """Largest angular frequency of the normal modes, from a Hessian of central differences of the forces."""
    n, h = positions.size, 1e-4
    hessian = np.empty((n, n))
    for i in range(n):
        d = np.zeros(n)
        d[i] = h
        d = d.reshape(positions.shape)
        hessian[i] = ((model(positions - d).forces - model(positions + d).forces) / (2 * h)).ravel()
    root = np.sqrt(np.repeat(masses, 3))
    return float(np.sqrt(np.linalg.eigvalsh(0.5 * (hessian + hessian.T) / root[:, None] / root).max()))


# Order.


@systems
def test_halving_the_step_divides_the_energy_error_by_four(
    scheme: Scheme,
    teacher: str,
    student: str,
    ethanol: Atoms,
    thermal: Callable[..., State],
    two_models: Callable[..., ForceTable],
) -> None:
    """Symmetric schemes have errors a(t) h^2 + b(t) h^4 + ... (Hairer, Lubich & Wanner, II.3): the ratio is 4 + O(h^2).

    For a mode of frequency w and Verlet, the exact solution has the phase w t (1 + (wh)^2 / 24) and an amplitude
    wrong by (wh)^2 / 8, so |b h^4 / a h^2| <= (wh)^2 (1/4 + wt/12), and the ratio is within three times that of 4.
    """
    model, masses, duration = load_model(teacher, ethanol), ethanol.get_masses(), 8.0
    begin = thermal(temperature_K=600)

    def errors(step_fs: float) -> Array:
        stepper = Stepper(scheme, step_fs * FS, masses, two_models(model, load_model(student, ethanol)), begin)
        out = []
        for k in range(round(duration / step_fs) + 1):
            if k:
                stepper.step()
            if k % round(0.5 / step_fs) == 0:
                s = stepper.state
                out.append(kinetic_energy(s.momenta, masses)[0] + model(s.positions[0]).energy)
        return np.array(out) - out[0]

    ratio = np.linalg.norm(errors(0.5)) / np.linalg.norm(errors(0.25))
    w = highest_frequency(model, ethanol.get_positions(), masses)
    next_order = (w * 0.5 * FS) ** 2 * (1 / 4 + w * duration * FS / 12)
    assert next_order < 0.1, "the steps must be short enough for the law to show"
    assert abs(ratio - 4) < 3 * next_order


def test_verlet_conserves_its_shadow_energy_exactly() -> None:
    """For an oscillator E_n - E_0 = (k/8) (wh)^2 (u_n^2 - u_0^2): Verlet conserves p^2/2m + k u^2 (1 - (wh)^2/4) / 2.

    Follows from its propagator; see Leimkuhler & Matthews, Molecular Dynamics (2015), section 3.4.
    """
    k, r0, masses = 20.0, 1.3, np.array([1.008, 35.45])
    mu = masses.prod() / masses.sum()
    h = 1.2 / np.sqrt(k / mu)  # w h = 1.2, well into where second order is no approximation any more
    model = Harmonic(np.array([1, 17]), np.array([[0, 1]]), np.array([r0]), k)
    start = State(np.array([[[0.0, 0, 0], [r0 + 0.05, 0, 0]]]), np.array([[[0.6, 0, 0], [-0.6, 0, 0]]]))
    stepper = Stepper(verlet("f"), h, masses, ForceTable({"f": model}), start)
    energies, stretches = [], []
    for _ in range(1000):
        s = stepper.state
        energies.append(kinetic_energy(s.momenta, masses)[0] + model(s.positions[0]).energy)
        stretches.append(np.linalg.norm(s.positions[0, 1] - s.positions[0, 0]) - r0)
        stepper.step()
    e, u = np.array(energies), np.array(stretches)
    predicted = k / 8 * 1.2**2 * (u**2 - u[0] ** 2)
    # Each step rounds positions of size 2 r0: a force wrong by 2 k r0 eps, and energy wrong by that times u.
    assert np.abs(e - e[0] - predicted).max() < 1000 * 2 * k * r0 * EPS * np.abs(u).max()
    assert np.abs(predicted).max() > 0.1 * e[0]


# Reversal.


def there_and_back(stepper: Stepper, steps: int) -> Array:
    """Run, flip the momenta, run: how far from the start each coordinate ends, A."""
    start = stepper.state
    for _ in range(steps):
        stepper.step()
    assert np.abs(stepper.state.positions - start.positions).max() > 0.05, "the run must go somewhere"
    stepper.restart(State(stepper.state.positions, -stepper.state.momenta), None)
    for _ in range(steps):
        stepper.step()
    return np.abs(stepper.state.positions - start.positions)


def growth(build: Callable[[State], Stepper], start: State, steps: int) -> float:
    """By how much a small displacement has grown at most along the run, at least 1."""
    d = 1e-7 * np.random.default_rng(5).standard_normal(start.positions.shape)
    one, other = build(start), build(State(start.positions + d, start.momenta))
    largest = 1.0
    for _ in range(steps):
        one.step()
        other.step()
        largest = max(largest, np.abs(other.state.positions - one.state.positions).max() / np.abs(d).max())
    return float(largest)


@systems
def test_reversing_the_momenta_leads_back_to_the_start(
    scheme: Scheme,
    teacher: str,
    student: str,
    ethanol: Atoms,
    thermal: Callable[..., State],
    two_models: Callable[..., ForceTable],
) -> None:
    """Every step rounds positions once (eps / 2 relative), and what is rounded grows as any displacement does."""
    start, steps = thermal(temperature_K=600), 100

    def build(state: State) -> Stepper:
        table = two_models(load_model(teacher, ethanol), load_model(student, ethanol))
        return Stepper(scheme, 1.0 * FS, ethanol.get_masses(), table, state)

    drifts = sum(1 for flow, _ in merged(scheme) if not isinstance(flow, Kick))
    tolerance = 2 * steps * drifts * EPS * np.abs(start.positions).max() * growth(build, start, 2 * steps)
    assert tolerance < 1e-9
    assert there_and_back(build(start), steps).max() < tolerance


def test_reversal_shows_a_scheme_that_is_not_symmetric(ethanol: Atoms, thermal: Callable[..., State]) -> None:
    """Dropping the last half kick of Verlet is seen: the test above can fail."""
    table = ForceTable({"teacher": load_model("harmonic", ethanol)})
    stepper = Stepper(verlet("teacher")[:2], 1.0 * FS, ethanol.get_masses(), table, thermal(temperature_K=600))
    assert there_and_back(stepper, 100).max() > 1e-3


def test_two_model_dynamics_with_a_network_is_reversible(
    ethanol: Atoms,
    thermal: Callable[..., State],
    two_models: Callable[..., ForceTable],
    make_student: Callable[..., Any],
) -> None:
    """A float32 student is a function of positions, but one with steps of its rounding in it.

    On the way back the positions differ in their last float64 digits, which can tip a float32 rounding: the force
    may differ by twice its rounding error df at any step. Over the time t that displaces a mass m by df t^2 / 2m,
    times the growth of displacements along the run.
    """
    start, steps, masses = thermal(temperature_K=600), 50, ethanol.get_masses()
    student, exact = make_student(ethanol), make_student(ethanol, dtype="float64")

    def build(state: State) -> Stepper:
        table = two_models(load_model("morse", ethanol), student)
        return Stepper(respa("residual", verlet("student"), 4), 1.0 * FS, masses, table, state)

    frames = start.positions + 0.1 * np.random.default_rng(0).standard_normal((100, *start.positions.shape[1:]))
    rounding = np.abs(student(frames).forces - exact(frames).forces).max()
    t = 2 * steps * 1.0 * FS
    tolerance = 2 * rounding * t**2 / (2 * masses.min()) * growth(build, start, 2 * steps)
    assert tolerance < 0.02, "or the test would not tell a reversible scheme from another"
    assert there_and_back(build(start), steps).max() < tolerance


# One inner step per teacher call is velocity Verlet of the teacher.


@pytest.mark.parametrize("student", ["network", "harmonic", "morse"])
def test_k_1_is_velocity_verlet_of_the_teacher(
    student: str,
    ethanol: Atoms,
    thermal: Callable[..., State],
    two_models: Callable[..., ForceTable],
    make_student: Callable[..., Any],
) -> None:
    """With k = 1 the kicks add up to the teacher's, whatever the student says: (T - S) + S = T up to rounding.

    The acceptance figure is 1e-10 A after 100 steps. Here 4e-15 A are measured: the student's share cancels to
    rounding, and the SCF guesses of the two runs have nearly the same history.
    """
    start, masses = thermal(), ethanol.get_masses()
    cheap = make_student(ethanol) if student == "network" else load_model(student, ethanol)
    plain = Stepper(
        verlet("teacher"), 0.5 * FS, masses, ForceTable({"teacher": load_model("gfn2-xtb", ethanol)}), start
    )
    table = two_models(load_model("gfn2-xtb", ethanol), cheap)
    hybrid = Stepper(respa("residual", verlet("student"), 1), 0.5 * FS, masses, table, start)
    for _ in range(100):
        plain.step()
        hybrid.step()
    assert np.abs(plain.state.positions - start.positions).max() > 0.05
    assert np.abs(plain.state.positions - hybrid.state.positions).max() < 1e-10
    assert np.abs(plain.state.momenta - hybrid.state.momenta).max() < 1e-10


# Who is asked, and how often.


@pytest.mark.parametrize("inner", [verlet, baoab])
@pytest.mark.parametrize("replicas", [1, 3])
def test_the_residual_is_formed_once_per_outer_step(
    inner: Callable[[str], Scheme],
    replicas: int,
    ethanol: Atoms,
    thermal: Callable[..., State],
    two_models: Callable[..., ForceTable],
    toys: Any,
) -> None:
    teacher, student = toys.counted(load_model("morse", ethanol)), toys.counted(load_model("harmonic", ethanol))
    table = two_models(teacher, student)
    bath = Langevin(300.0, 1.0, 0, replicas)
    k, outer = 5, 7
    stepper = Stepper(
        respa("residual", inner("student"), k), 2.0 * FS, ethanol.get_masses(), table, thermal(replicas), bath
    )
    points = [stepper.state.positions]
    for _ in range(outer):
        stepper.step()
        points.append(stepper.state.positions)
    # One call at the start and one at each outer point; a log that reads the energies there costs nothing more.
    _ = table["teacher"], table["student"], table["residual"]
    assert table.calls == {"teacher": (outer + 1) * replicas, "student": (k * outer + 1) * replicas}
    assert len(teacher.asked) == (outer + 1) * replicas
    assert len(student.asked) == (k * outer + 1) * replicas
    np.testing.assert_array_equal(np.array(teacher.asked), np.concatenate(points))


# What two-model dynamics conserves.


class Diatomic:
    """RESPA of a harmonic diatomic whose student has the wrong force constant, next to its exact propagator."""

    def __init__(self, student_k: float, outer: float, k_steps: int) -> None:
        self.k, self.r0, self.masses = 20.0, 1.3, np.array([1.008, 35.45])
        self.mu = self.masses.prod() / self.masses.sum()
        self.w = float(np.sqrt(self.k / self.mu))
        self.h = outer / self.w  # in units of 1 / w
        self.scheme = respa("residual", verlet("student"), k_steps)
        self.models = [
            Harmonic(np.array([1, 17]), np.array([[0, 1]]), np.array([self.r0]), k) for k in (self.k, student_k)
        ]
        constants = {"residual": self.k - student_k, "student": student_k}
        self.propagator = np.eye(2)
        for flow, fraction in self.scheme:
            t = self.h * float(fraction)
            one = [[1, 0], [-t * constants[flow.force], 1]] if isinstance(flow, Kick) else [[1, t / self.mu], [0, 1]]
            self.propagator = np.array(one) @ self.propagator

    def energies(self, steps: int, table: Callable[..., ForceTable], p: float = 0.6) -> Array:
        """K + U_teacher at the outer points, eV, from a bond at rest length with momenta -p and p."""
        start = State(np.array([[[0.0, 0, 0], [self.r0, 0, 0]]]), np.array([[[-p, 0, 0], [p, 0, 0]]]))
        stepper = Stepper(self.scheme, self.h, self.masses, table(*self.models), start)
        out = []
        for _ in range(steps):
            s = stepper.state
            out.append(kinetic_energy(s.momenta, self.masses)[0] + stepper.forces["teacher"].energy[0])
            stepper.step()
        return np.array(out)

    @property
    def bound(self) -> float:
        """Largest |E - E_0| / E_0 a run that starts with all energy kinetic can show.

        A symmetric propagator [[a, b], [c, a]] conserves c u^2 - b p^2. From (0, p) it turns where u^2 = -b p^2 / c,
        with the potential energy -k b p^2 / 2c against p^2 / 2 mu at the start; in between the energy is linear in u^2.
        """
        (_, b), (c, _) = self.propagator
        return float(abs(-self.k * self.mu * b / c - 1))


@pytest.mark.parametrize("error", [0.1, -0.1, 0.5])
def test_teacher_energy_is_conserved_with_a_wrong_student(error: float, two_models: Callable[..., ForceTable]) -> None:
    """K + U_teacher at outer points stays within the exact bound, without a trend, however wrong the student is."""
    system = Diatomic(20.0 * (1 + error), outer=0.8, k_steps=4)
    assert abs(np.trace(system.propagator)) < 2, "below the first resonance"
    energies = system.energies(4000, two_models)
    change = np.abs(energies / energies[0] - 1)
    # 4000 points of a rotation by about 0.8 rad lie denser than 2 pi / 1000, so the bound is met to (pi / 1000)^2.
    assert change.max() < system.bound * (1 + 1e-9) + 1e-11
    assert change.max() > system.bound * (1 - 1e-4)
    assert abs(change[:2000].max() / change[2000:].max() - 1) < 1e-4


def test_the_energy_error_of_a_wrong_student_scales_as_the_outer_step_squared(
    two_models: Callable[..., ForceTable],
) -> None:
    """The bound is second order: -k mu b / c = 1 + B H^2 + O(H^4), so halving H divides by 4 (1 + O((wH)^2))."""
    errors = [
        np.abs((e := Diatomic(22.0, outer, 4).energies(4000, two_models)) / e[0] - 1).max()
        for outer in (0.2, 0.1, 0.05)
    ]
    first, second = errors[0] / errors[1], errors[1] / errors[2]
    assert abs(first - 4) < 4 * 0.2**2
    assert abs(second - 4) < 4 * 0.1**2


def test_above_resonance_the_energy_grows_as_the_propagator_says(two_models: Callable[..., ForceTable]) -> None:
    """Near w H = pi a wrong student is unstable (Biesiadecki & Skeel, J. Comput. Phys. 109, 318 (1993))."""
    system = Diatomic(22.0, outer=np.pi - 0.1, k_steps=8)
    rate = np.abs(np.linalg.eigvals(system.propagator)).max()
    assert rate > 1.02
    energies = system.energies(60, two_models, p=1e-3)  # small, for the bond must not turn over as it grows
    assert np.log(energies[50] / energies[20]) == pytest.approx(60 * np.log(rate), rel=0.05)


def test_a_scheme_with_a_bath_needs_one(ethanol: Atoms, thermal: Callable[..., State]) -> None:
    table = ForceTable({"f": load_model("harmonic", ethanol)})
    with pytest.raises(ValueError, match="no bath was given"):
        Stepper(baoab("f"), 1.0, ethanol.get_masses(), table, thermal())


def test_nested_substeps_compose() -> None:
    """Substeps of substeps are substeps: nothing is special about one level."""
    inner = strang(only(Kick("f")), substeps(verlet("g"), 2))
    assert substeps(substeps(inner, 2), 3) == substeps(inner, 6)
