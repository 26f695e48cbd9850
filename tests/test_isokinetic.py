"""Schemes with bounded velocities: the published flows, canonical positions, no resonance, exact resume."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from ase import Atoms, units
from scipy.integrate import quad, solve_ivp

from mlff_sim import RunConfig, run
from mlff_sim.errors import InputError
from mlff_sim.forces import Array, Evaluation
from mlff_sim.integrators.force_table import ForceTable
from mlff_sim.integrators.fused import FusedStepper
from mlff_sim.integrators.isokinetic import LAWS, TAU, Bounded, isokinetic
from mlff_sim.integrators.schemes import (
    Drift,
    Fade,
    Feel,
    Glide,
    Kick,
    Scale,
    Scheme,
    baoab,
    is_symmetric,
    merged,
    respa,
    total_time,
)
from mlff_sim.integrators.stepper import Langevin, Stepper
from mlff_sim.interfaces.ase_dynamics import HybridDynamics
from mlff_sim.models.registry import load_model
from mlff_sim.runfolder import read_run
from mlff_sim.simulation.guards import Guard
from mlff_sim.simulation.temperature import Temperature
from mlff_sim.state import State
from mlff_sim.units import FS, KB, PS
from mlff_sim.validation import assess

T = 300.0
KT = KB * T
laws = pytest.mark.parametrize("law", LAWS)


# The scheme as data.


@laws
@pytest.mark.parametrize("k", [1, 2, 5])
def test_it_is_symmetric_and_every_flow_gets_one_step(law: str, k: int) -> None:
    """Its own adjoint, so of second order (Strang 1968), and consistent, as fractions without rounding."""
    scheme = respa("residual", isokinetic("student", law), k)
    assert is_symmetric(scheme) and is_symmetric(merged(scheme))
    flows = {Kick("residual"), Kick("student"), Glide(), Feel(law), Scale(law), Fade()}
    assert total_time(scheme) == total_time(merged(scheme)) == dict.fromkeys(flows, Fraction(1))
    assert all(a[0] != b[0] for a, b in pairwise(merged(scheme)))
    assert Drift() not in flows, "a glide is none"


# Its flows are the published ones.


@pytest.fixture
def one() -> Bounded:
    """The thermostats of one hydrogen."""
    return Bounded(np.array([1.008]), KT, 10 / PS)


def published(mass: float, p: Array, b: Bounded) -> tuple[Array, Array]:
    """The two velocities per degree of freedom of the isokinetic equations with L = 1, Q = kT tau^2, that belong to p."""
    v = b.speed * np.tanh(p / b.unit)
    return v, np.sqrt((KT - mass * v * v) * 2 / (KT * TAU**2))


def test_a_kick_is_the_published_one(one: Bounded) -> None:
    """v -> (v + F s / m) / s', v1 -> v1 / s', with s(t) of Leimkuhler, Margul & Tuckerman 2013, is p -> p + t F."""
    rng, mass, t = np.random.default_rng(0), 1.008, 2.0 * FS
    p, force = rng.standard_normal((2, 1, 50, 3)) * np.array([0.2, 1.5])[:, None, None, None]
    v, v1 = published(mass, p, one)
    a, b = force * v / KT, force**2 / (mass * KT)
    root = np.sqrt(b)
    s = np.sinh(root * t) / root + a / b * (np.cosh(root * t) - 1)
    slope = np.cosh(root * t) + a / root * np.sinh(root * t)
    after, after1 = published(mass, p + t * force, one)
    assert np.abs(after - v).max() > 0.1 * one.speed.max()
    np.testing.assert_allclose(after, (v + force / mass * s) / slope, atol=1e-12 * one.speed.max())
    np.testing.assert_allclose(after1, v1 / slope, atol=1e-8 * v1.max())  # a difference of squares near the bound


def test_the_thermostats_are_the_published_ones(one: Bounded) -> None:
    """dv/dt = -lambda v, dv1/dt = -(lambda + v2) v1, lambda = -Q v1^2 v2 / 2 kT; dv2/dt = (Q v1^2 - kT) / Q.

    The equations without the force, split into v2 and the rest as published, solved numerically to 1e-12.
    """
    rng, mass, t = np.random.default_rng(1), 1.008, 3.0 * FS
    p, xi = 0.3 * rng.standard_normal((1, 20, 3)), rng.standard_normal((1, 1, 20, 3)) / TAU
    v, v1 = published(mass, p, one)

    def rate(time: float, y: Array) -> Array:
        v, v1 = y.reshape(2, -1)
        force = -KT * TAU**2 * v1**2 * xi.ravel() / (2 * KT)
        return np.concatenate([-force * v, -(force + xi.ravel()) * v1])

    solved = solve_ivp(rate, (0, t), np.concatenate([v.ravel(), v1.ravel()]), rtol=1e-12, atol=1e-14).y[:, -1]
    _, scaled, _ = one.act(Scale("sinr"), t, p, p, xi, None)
    after, after1 = published(mass, scaled, one)
    assert np.abs(after - v).max() > 0.05 * one.speed.max()
    np.testing.assert_allclose(after.ravel(), solved[: v.size], atol=1e-9 * one.speed.max())
    np.testing.assert_allclose(after1.ravel(), solved[v.size :], atol=1e-8 * v1.max())
    _, same, felt = one.act(Feel("sinr"), t, p, p, xi, None)
    np.testing.assert_allclose(felt[0] - xi[0], t * (v1**2 - 1 / TAU**2), rtol=1e-9, atol=1e-12 / TAU)
    assert same is p


@laws
def test_velocities_follow_from_the_kinetic_energy(law: str, one: Bounded) -> None:
    """v = dK/dp, by differences; K of a momentum far beyond thermal does not overflow and grows like c |p|."""
    p, step = np.linspace(-3, 3, 30).reshape(1, 10, 3), 1e-5
    glided, _, _ = one.act(Glide(), 1.0, np.zeros_like(p), p, np.zeros((1, 1, 10, 3)), None)
    for i in range(10):
        for j in range(3):
            up, down = p.copy(), p.copy()
            up[0, i, j] += step
            down[0, i, j] -= step
            slope = (one.kinetic(up) - one.kinetic(down)) / (2 * step)
            assert slope[0] == pytest.approx(glided[0, i, j], abs=1e-7 * one.speed.max())
    assert np.abs(glided).max() < one.speed.max()
    assert one.kinetic(np.full((1, 1, 1), 1e4))[0] == pytest.approx(1e4 * one.speed[0, 0] - KT * np.log(2.0), rel=1e-12)


@laws
@pytest.mark.parametrize("part", ["Feel", "Scale"])
def test_the_thermostats_keep_the_stationary_density(law: str, part: str, one: Bounded) -> None:
    """rho = exp(-K/kT - (tau xi)^2 / 2): together, Feel and Scale have no flux out of any point, div(rho u) = 0.

    The vector field from differences of the flows, its divergence from differences of the field; either alone has one.
    """
    q, y = np.meshgrid(np.linspace(-2.5, 2.5, 11), np.linspace(-2, 2, 11))
    d, tiny = 1e-4, 1e-6 * TAU

    def field(eta: Array, tau_xi: Array, parts: tuple[str, ...]) -> tuple[Array, Array]:
        p, xi = (eta[..., None] * one.unit).reshape(1, -1, 1), (tau_xi / TAU).reshape(1, 1, -1, 1)
        _, p1, _ = one.act(Scale(law), tiny, p, p, xi, None)
        _, _, xi1 = one.act(Feel(law), tiny, p, p, xi, None)
        rho = (np.exp(-0.5 * tau_xi**2) / np.cosh(eta)).ravel()
        first = (p1 - p).ravel() / one.unit[0, 0] / tiny * TAU * ("Scale" in parts)
        second = (xi1 - xi).ravel() / tiny * TAU**2 * ("Feel" in parts)
        return (rho * first).reshape(eta.shape), (rho * second).reshape(eta.shape)

    def divergence(*parts: str) -> Array:
        along = (field(q + d, y, parts)[0] - field(q - d, y, parts)[0]) / (2 * d)
        across = (field(q, y + d, parts)[1] - field(q, y - d, parts)[1]) / (2 * d)
        return along + across

    assert np.abs(divergence("Feel", "Scale")).max() < 1e-5
    assert np.abs(divergence(part)).max() > 0.1, "the test can fail"


def test_the_isokinetic_constraint_is_kept(toys: Any) -> None:
    """m v^2 + Q v1^2 / 2 = kT, with v1 carried along by the published flows for 20,000 of them: to rounding.

    Each flow multiplies v1 by a factor good to a few 1e-16: at worst 1e-11 after all of them.
    """
    s = Stepper(isokinetic("f", "sinr"), 0.1 * TAU, *oscillators(toys.trap(40, KT)), Langevin(T, 10.0, 5, 1))
    b = s.bounded
    assert b is not None
    _, v1 = published(MASS, s.state.momenta, b)
    for _ in range(3000):
        for flow, fraction in s.scheme:
            before, xi, t = s.state.momenta, s.extension[0], s.timestep * float(fraction)
            s.apply(flow, fraction)
            if isinstance(flow, Kick):  # v1 / s'(t), which is cosh eta / cosh eta'
                force, v = s.forces["f"].forces, b.speed * np.tanh(before / b.unit)
                root = np.abs(force) / np.sqrt(MASS * KT)
                v1 = v1 / (np.cosh(root * t) + force * v / KT / root * np.sinh(root * t))
            elif isinstance(flow, Scale):  # the published solution of the thermostat's part
                v = b.speed * np.tanh(before / b.unit)
                w = v1 * np.exp(-xi * t)
                v1 = w * np.sqrt(KT / (MASS * v * v + 0.5 * KT * TAU**2 * w * w))
    v = b.speed * np.tanh(s.state.momenta / b.unit)
    assert np.abs(MASS * v**2 + 0.5 * KT * TAU**2 * v1**2 - KT).max() < 1e-11 * KT
    assert np.ptp(v1) > 0.5 / TAU


# The distribution of positions.


class Wells:
    """Atoms in U/kT = x^2 / 2, x^4 / 4 and 2 (x^2 - 1)^2 in every direction: three in five, one, and one."""

    name, cutoff, dtype, conservative, batched = "wells", None, "float64", True, True

    def __init__(self, fifth: int) -> None:
        self.numbers, self.ends = np.ones(5 * fifth, dtype=np.int64), [3 * fifth, 4 * fifth]

    @property
    def provenance(self) -> Mapping[str, Any]:
        return {"name": self.name}

    def reset(self) -> None:
        pass

    energies = (lambda x: 0.5 * x**2, lambda x: 0.25 * x**4, lambda x: 2 * (x**2 - 1) ** 2)
    slopes = (lambda x: x, lambda x: x**3, lambda x: 8 * x * (x**2 - 1))

    def __call__(self, positions: Array, cell: Array | None = None, /) -> Evaluation:
        parts = np.split(positions, self.ends, axis=-2)
        energy = sum(u(x).sum((-1, -2)) for u, x in zip(self.energies, parts, strict=True))
        forces = [-KT * g(x) for g, x in zip(self.slopes, parts, strict=True)]
        return Evaluation(KT * np.asarray(energy), np.concatenate(forces, axis=-2))


MASS = KT * TAU**2
"""u; with it an oscillator of stiffness kT has an angular frequency of 1 / TAU."""


def oscillators(model: Any) -> tuple[Array, ForceTable, State]:
    """Masses, a table and a start near equilibrium for `Stepper`."""
    rng, n = np.random.default_rng(3), len(model.numbers)
    momenta = np.sqrt(MASS * KT) * rng.standard_normal((1, n, 3))
    return np.full(n, MASS), ForceTable({"f": model}), State(rng.standard_normal((1, n, 3)), momenta)


@laws
def test_positions_are_canonical(law: str) -> None:
    """<x^2> and <x^4> within 1 % of quadrature, in a harmonic, a quartic and a double well.

    1 % is more than three standard errors, from the scatter of the averages of independent coordinates. The step is
    a sixtieth of a period and a tenth of the thermostats' time; at twice that "regulated" is off by 1.2 % in <x^4>.
    """
    wells = Wells(1200)
    s = Stepper(isokinetic("f", law), 0.1 * TAU, *oscillators(wells), Langevin(T, 10.0, 1, 1))
    moments = np.zeros((2, len(wells.numbers), 3))
    burn, steps = 250, 3000
    for step in range(burn + steps):
        s.step()
        if step >= burn:
            square = s.state.positions[0] ** 2
            moments += np.array([square, square**2]) / steps
    for power, moment in ((2, moments[0]), (4, moments[1])):
        for part, u in zip(np.split(moment, wells.ends), Wells.energies, strict=True):
            weight = lambda y, u=u: np.exp(-u(y))  # noqa: E731
            exact = quad(lambda y, w=weight, m=power: y**m * w(y), -8, 8)[0] / quad(weight, -8, 8)[0]  # type: ignore[misc]
            error = part.std(ddof=1) / np.sqrt(part.size)
            assert 3 * error < 0.01 * exact, "not enough samples to tell"
            assert abs(part.mean() - exact) < 0.01 * exact


@laws
def test_momenta_are_those_of_the_scheme(law: str, toys: Any) -> None:
    """Equipartition <p dK/dp> = kT is what `thermal` shows the guard; <m v^2> = kT L / (L + 1), half of kT, not kT."""
    s = Stepper(isokinetic("f", law), 0.2 * TAU, *oscillators(toys.trap(1000, KT)), Langevin(T, 10.0, 2, 1))
    assert s.bounded is not None
    thermal, kinetic = np.zeros(3000), np.zeros(3000)
    for step in range(1000):
        s.step()
        if step >= 200:
            thermal += s.thermal().momenta.ravel() ** 2 / MASS / 800
            kinetic += MASS * (s.bounded.speed * np.tanh(s.state.momenta / s.bounded.unit)).ravel() ** 2 / 800
    for mean, exact in ((thermal, KT), (kinetic, 0.5 * KT)):
        error = mean.std(ddof=1) / np.sqrt(mean.size)
        assert error < 0.01 * exact
        assert abs(mean.mean() - exact) < 4 * error + 0.01 * exact  # and (wh)^2 / 4, of the splitting
    rule = Temperature(s, [1] * 1000, T)
    assert rule.limit_K[0].max() < 1.5 * T and rule.broken(s) is None
    s.state = State(s.state.positions, 2 * s.state.momenta)
    assert rule.broken(s) is not None


def resonant(scheme: Callable[[str], Scheme], windings: int, friction: float, toys: Any) -> float:
    """<x^2> over its exact value, at kicks of a residual of 3 % that come every `windings` half periods."""
    atoms, mass, epsilon, k = 400, 1.0, 0.03, 10 * windings
    w = 2 * np.pi / (10 * FS)
    student, teacher = toys.trap(atoms, mass * w**2), toys.trap(atoms, mass * w**2 * (1 + epsilon))
    outer = (1 - epsilon / 2) * windings * np.pi / w  # the middle of the window of instability
    table = ForceTable({"teacher": teacher, "student": student}, {"residual": ("teacher", "student")})
    rng = np.random.default_rng(4)
    start = State(
        rng.standard_normal((1, atoms, 3)) * np.sqrt(KT / teacher.kappa), rng.standard_normal((1, atoms, 3)) * KT**0.5
    )
    s = Stepper(
        respa("residual", scheme("student"), k),
        outer,
        np.full(atoms, mass),
        table,
        start,
        Langevin(T, friction, 6, 1),
    )
    mean, steps = 0.0, 800 // windings
    for step in range(steps):
        s.step()
        if step >= steps // 3:
            mean += float((s.state.positions**2).mean()) / (steps - steps // 3)
    return mean * teacher.kappa / KT


@pytest.mark.parametrize("windings", [1, 2, 4])
def test_no_outer_step_resonates(windings: int, toys: Any) -> None:
    """In windows of instability at wH = pi, 2 pi and 4 pi, a residual of 3 % moves <x^2> by less than 10 %.

    BAOAB-RESPA with 1/ps heats without end there: energy grows at epsilon w / 2 = 9/ps each half period.
    """
    for law in LAWS:
        assert abs(resonant(lambda f, law=law: isokinetic(f, law), windings, 10.0, toys) - 1) < 0.10  # type: ignore[misc]
    assert resonant(baoab, windings, 1.0, toys) > 100


# Runs.


@pytest.fixture
def settings(student_file: Path) -> RunConfig:
    return RunConfig(
        "ethanol", "morse", str(student_file), k_steps=4, duration_ps=0.04, scheme="sinr", replicas=2, baseline=False,
        compile=False, equilibrate_ps=0.01, every=2,
    )  # fmt: skip


def rows(folder: Path) -> dict[str, Array]:
    with h5py.File(folder / "log.h5") as f:
        return {name: f[name][()] for name in f if name != "wall"}


@laws
@pytest.mark.parametrize("steps", [1, 7, 13])
def test_a_resumed_run_is_the_unbroken_one(
    law: str, steps: int, settings: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit, thermostats included: stopped after any outer step, taken up from the checkpoint before it."""
    monkeypatch.setattr("mlff_sim.simulation.config.CHECKPOINT_STEPS", 4)
    config = replace(settings, scheme=law)
    unbroken = rows(run(config, tmp_path / "unbroken"))

    advance, done = Guard.advance, 0

    def dying(self: Guard, step: int) -> None:
        nonlocal done
        done += 1
        if done > 5 + steps:  # five of equilibration
            raise KeyboardInterrupt
        advance(self, step)

    monkeypatch.setattr(Guard, "advance", dying)
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "broken")
    monkeypatch.setattr(Guard, "advance", advance)
    resumed = rows(run(config, tmp_path / "broken", resume=True))
    assert unbroken.keys() == resumed.keys()
    for name, values in unbroken.items():
        np.testing.assert_array_equal(values, resumed[name], err_msg=name)
    other = rows(run(replace(config, seed=1), tmp_path / "other"))
    assert not np.array_equal(other["positions"], unbroken["positions"]), "the comparison can fail"


@laws
def test_the_clock_leaves_no_trace(law: str, settings: RunConfig, tmp_path: Path) -> None:
    """Timing the models beforehand, with steps that move the thermostats too, changes no bit."""
    config = replace(settings, scheme=law, equilibrate_ps=0.0)
    timed, untimed = (rows(run(replace(config, baseline=b), tmp_path / str(b))) for b in (True, False))
    for name, values in untimed.items():
        np.testing.assert_array_equal(values, timed[name], err_msg=name)


@laws
def test_a_replica_of_a_batch_is_the_replica_alone(law: str, ethanol: Atoms, thermal: Any, two_models: Any) -> None:
    """Bit for bit: streams and thermostats belong to replicas."""
    start, ends = thermal(3), []
    for r in (slice(None), slice(1, 2)):
        bath = Langevin(T, 10.0, 11, 3)
        bath.streams = bath.streams[r]
        table = two_models(load_model("morse", ethanol), load_model("harmonic", ethanol))
        state = State(start.positions[r], start.momenta[r])
        s = Stepper(respa("residual", isokinetic("student", law), 3), 3 * FS, ethanol.get_masses(), table, state, bath)
        for _ in range(20):
            s.step()
        ends.append((s.state.positions, s.state.momenta, s.extension[0], s.heat))
    for together, alone in zip(*ends, strict=True):
        np.testing.assert_array_equal(together[1], alone[0])


@pytest.mark.parametrize("compile", [False, True])
def test_the_fused_loop_follows_the_reference(
    compile: bool, ethanol: Atoms, make_student: Any, thermal: Any, two_models: Any
) -> None:
    """Both laws and the same tuple in torch, over 10 fs.

    Their float32 forces differ by less than 1e-5 eV/A, which moves a hydrogen by 5e-7 A in that time; no velocity can
    grow, so that ten times as much is safe.
    """
    for law in LAWS[: 1 if compile else 2]:
        scheme, ends = respa("residual", isokinetic("student", law), 2), []
        for kind, more in ((Stepper, {}), (FusedStepper, {"compile": compile})):
            table = two_models(load_model("morse", ethanol), make_student(ethanol))
            arguments = (1.0 * FS, ethanol.get_masses(), table, thermal(2), Langevin(T, 10.0, 7, 2))
            s = kind(scheme, *arguments, **more)
            start = s.kinetic() + s.potential()
            for _ in range(10):
                s.step()
            ends.append((s, s.kinetic() + s.potential() - s.heat - start))
        (plain, lost), (fused, lost_too) = ends
        assert np.abs(fused.state.positions - plain.state.positions).max() < 5e-6
        assert np.abs(fused.state.momenta - plain.state.momenta).max() < 1e-4
        np.testing.assert_allclose(fused.extension, plain.extension, atol=1e-3 / TAU)
        np.testing.assert_allclose(fused.heat, plain.heat, atol=1e-4)
        np.testing.assert_allclose(lost, lost_too, atol=1e-4)
        assert np.abs(plain.state.positions - thermal(2).positions).max() > 0.05 and plain.heat.all()
        assert fused.forces.calls == plain.forces.calls


@laws
def test_energy_less_heat_is_conserved_to_second_order(law: str, toys: Any) -> None:
    """K + U - heat with the K of the scheme changes by the splitting alone: four times less at half the step."""
    changes = []
    for wh in (0.2, 0.1):
        rng, n = np.random.default_rng(8), 200
        x, p = rng.standard_normal((2, n, 5, 3))
        table = ForceTable({"f": toys.trap(5, KT)})
        start = State(x, p * np.sqrt(MASS * KT))
        s = Stepper(isokinetic("f", law), wh * TAU, np.full(5, MASS), table, start, Langevin(T, 10.0, 3, n))
        before = s.kinetic() + s.potential()
        for _ in range(round(4 / wh)):
            s.step()
        changes.append(np.sqrt(((s.kinetic() + s.potential() - s.heat - before) ** 2).mean()))
    assert changes[0] < 0.1 * KT
    assert changes[0] / changes[1] == pytest.approx(4, rel=0.25)


@laws
def test_what_such_a_run_says_of_itself(law: str, settings: RunConfig, tmp_path: Path, cli: Any) -> None:
    """Positions only: no temperature is judged, and time is called what it is not."""
    folder = run(replace(settings, scheme=law), tmp_path / "run")
    data = read_run(folder)
    assert data.settings["friction_per_ps"] == 10.0
    assert data.settings["physical_time"] is data.settings["physical_momenta"] is False
    judged = assess([data])
    assert judged.runs[0].temperatures is None and judged.runs[0].drift is None
    assert any("velocities are bounded" in note and "time is not physical" in note for note in judged.notes)
    said = cli("validate", str(folder))
    assert f"positions only ({law})" in said.out and "temperature of" not in said.out.lower()
    plain = read_run(run(replace(settings, scheme="respa", friction_per_ps=None), tmp_path / "respa"))
    assert assess([plain]).runs[0].temperatures is not None and plain.settings["friction_per_ps"] == 1.0


@laws
def test_what_makes_no_sense_is_refused(law: str, settings: RunConfig, ethanol: Atoms) -> None:
    """In one line that names the scheme."""
    for changes, words in (
        ({"ensemble": "nve"}, "samples at constant temperature"),
        ({"friction_per_ps": 0.0}, "never draws random numbers"),
        ({"student": None, "k_steps": 1}, "needs a student"),
    ):
        with pytest.raises(InputError, match=f"scheme '{law}'.*{words}") as refused:
            replace(settings, scheme=law, **changes)  # type: ignore[arg-type]
        assert "\n" not in str(refused.value)
    moving = ethanol.copy()
    with pytest.raises(InputError, match=f"scheme '{law}'"):
        HybridDynamics(moving, 0.5 * units.fs, student="harmonic", teacher="morse", scheme=law, temperature_K=T)


def test_from_the_command_line(student_file: Path, tmp_path: Path, cli: Any) -> None:
    """The scheme runs, says that its time is none, and refuses NVE and zero friction with exit code 2."""
    common = ["--structure", "ethanol", "--teacher", "morse", "--student", str(student_file), "--scheme", "sinr"]
    common += ["--k-steps", "3", "--duration-ps", "0.09", "--no-compile", "--no-baseline", "--replicas", "2"]
    done = cli("hybrid", *common, "--out", str(tmp_path / "a"))
    assert done.code in (0, 1, 3), done.err
    assert "positions only" in done.out
    for wrong in (["--ensemble", "nve"], ["--friction-per-ps", "0"]):
        refused = cli("hybrid", *common, *wrong, "--out", str(tmp_path / "b"))
        assert refused.code == 2 and "sinr" in refused.line and not (tmp_path / "b").exists()
