"""OpenMM runs the scheme that the NumPy reference runs: the same trajectory, evaluations counted, energies right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from io import StringIO
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from test_openmm import topology

from mlff_sim import openmm_hybrid
from mlff_sim.errors import InputError
from mlff_sim.forces import Array
from mlff_sim.integrators.force_table import ForceTable
from mlff_sim.integrators.mollifier import Mollifier
from mlff_sim.integrators.schemes import Scheme, baoab, obabo, respa, verlet
from mlff_sim.integrators.stepper import Langevin, Stepper
from mlff_sim.models.analytic import LennardJones
from mlff_sim.models.registry import load_model
from mlff_sim.state import State, kinetic_energy, maxwell_boltzmann
from mlff_sim.structure import covalent_bonds
from mlff_sim.units import FS, KB, NM, PS

mm = pytest.importorskip("openmm")
app, unit = pytest.importorskip("openmm.app"), pytest.importorskip("openmm.unit")

from mlff_sim.interfaces.openmm_integrator import ENERGY, Answers, add_forces, translate  # noqa: E402

GROUPS = {"student": 0, "residual": 1, "teacher": 2}
SPEED = NM / PS
"""nm/ps in internal units."""


def system_of(masses: Array) -> Any:
    system = mm.System()
    for mass in masses:
        system.addParticle(mass)
    return system


def context(system: Any, integrator: Any, start: State, masses: Array, platform: str = "Reference") -> Any:
    """A context at the first replica of a state."""
    made = mm.Context(system, integrator, mm.Platform.getPlatformByName(platform))
    made.setPositions(start.positions[0] / NM)
    made.setVelocities(start.momenta[0] / masses[:, None] / SPEED)
    return made


def state_of(made: Any, masses: Array) -> tuple[Array, Array, float, float]:
    """Positions, momenta, kinetic and potential energy, internal units."""
    state = made.getState(positions=True, velocities=True, energy=True)
    x = NM * state.getPositions(asNumpy=True)._value
    p = SPEED * masses[:, None] * state.getVelocities(asNumpy=True)._value
    return x, p, state.getKineticEnergy()._value * ENERGY, state.getPotentialEnergy()._value * ENERGY


def models(atoms: Atoms, kind: str, toys: Any) -> tuple[ForceTable, Scheme]:
    """A new table of forces, and the scheme of a step."""
    if kind == "argon":
        pair = {name: LennardJones(atoms.numbers, eps) for name, eps in (("teacher", 0.0103), ("student", 0.009))}
        return ForceTable(pair, {"residual": ("teacher", "student")}), respa("residual", verlet("student"), 4)
    given = {name: load_model(name, atoms) for name in ("harmonic", "morse")}
    if kind == "verlet":
        return ForceTable({"teacher": given["morse"]}), verlet("teacher")
    if kind == "three levels":
        everything = {"fast": given["harmonic"], "morse": given["morse"], "slow": toys.trap(len(atoms), 0.1)}
        table = ForceTable(everything, {"mid": ("morse", "fast")})
        return table, respa("slow", respa("mid", verlet("fast"), 2), 3)
    mollifier, at = None, ""
    if kind == "mollified":
        mollifier, at = Mollifier(atoms.numbers.tolist(), covalent_bonds(atoms), atoms.positions), "@A"
    table = ForceTable(
        {"teacher": given["morse"], "student": given["harmonic"]},
        {"residual": ("teacher" + at, "student" + at)},
        mollifier,
    )
    return table, respa("residual", verlet("student"), 4)


CALLS = {
    "verlet": {"teacher": 1},
    "argon": {"teacher": 1, "student": 4},
    "respa": {"teacher": 1, "student": 4},
    "mollified": {"teacher": 1, "student": 5},
    "three levels": {"slow": 1, "morse": 3, "fast": 6},
}
"""Evaluations in a step, of new positions only."""


@pytest.mark.parametrize("kind", CALLS)
def test_openmm_is_the_reference_engine(kind: str, ethanol: Atoms, thermal: Callable[..., State], toys: Any) -> None:
    """Positions, momenta and energies to 1e-12 of their size (eV, A, u) after 300 outer steps, as many evaluations.

    Both do the same arithmetic in double precision but for units: a step rounds positions of up to L A by eps L / 2 a
    few times, at random. Undamped, 300 steps of 4 drifts make sqrt(1200) eps L = 8e-15 L of it, which bonded dynamics,
    where errors grow with time and not exponentially over 30 periods, multiplies by less than a hundred.
    """
    atoms, start, steps, outer = ethanol, thermal(), 300, 2.0 * FS
    if kind == "argon":
        atoms = bulk("Ar", a=5.3, cubic=True) * (2, 2, 1)
        momenta = maxwell_boltzmann(atoms.get_masses(), 40.0, np.random.default_rng(1), remove_com=True)
        start, outer = State(atoms.positions[None], momenta[None]), 8.0 * FS
    masses = atoms.get_masses()
    table, scheme = models(atoms, kind, toys)
    reference = Stepper(scheme, outer, masses, table, start)
    groups = {name: group for group, name in enumerate(reversed(reference.kicks))}
    mine, _ = models(atoms, kind, toys)
    system, integrator = system_of(masses), translate(scheme, groups, outer)
    add_forces(system, Answers(mine, list(atoms.symbols)), groups)
    made = context(system, integrator, start, masses)
    assert integrator.getStepSize()._value == outer / PS
    for _ in range(3):
        integrator.step(steps // 3)
        for _ in range(steps // 3):
            reference.step()
        x, p, kinetic, potential = state_of(made, masses)
        xr, pr = reference.state.positions[0], reference.state.momenta[0]
        np.testing.assert_allclose(x, xr, rtol=0, atol=1e-12 * np.abs(xr).max())
        np.testing.assert_allclose(p, pr, rtol=0, atol=1e-12 * np.abs(pr).max())
        assert kinetic == pytest.approx(float(kinetic_energy(pr[None], masses)[0]), rel=1e-12)
        assert potential == pytest.approx(float(reference.potential()[0]), rel=1e-12)
    assert np.abs(x - atoms.positions).max() > 0.5
    # One more of each for the positions of the start; "mollified" asks the student there in two places.
    at_start = {name: 1 + (kind == "mollified" and name == "student") for name in CALLS[kind]}
    assert mine.calls == table.calls == {name: steps * n + at_start[name] for name, n in CALLS[kind].items()}


def openmms_noise(steps: int, scheme: Scheme, seed: int, masses: Array) -> Array:
    """The unit normal numbers that OpenMM draws in a scheme with one bath a step, (steps, n, 3).

    They are what an infinite friction makes of velocities without forces. (OpenMM draws at kicks and drifts, too.)
    """
    hot = Langevin(300.0, 1e9, 0, 1)
    integrator = translate(scheme, GROUPS, 1e-6 * PS, hot)
    integrator.setRandomNumberSeed(seed)
    made = context(system_of(masses), integrator, State(*np.zeros((2, 1, len(masses), 3))), masses)
    out = []
    for _ in range(steps):
        integrator.step(1)
        v = made.getState(velocities=True).getVelocities(asNumpy=True)._value  # an energy would draw
        out.append(SPEED * v * np.sqrt(masses / hot.kT)[:, None])
    return np.array(out)


@pytest.mark.parametrize("scheme", [baoab("teacher"), respa("residual", baoab("student"), 1)], ids=["baoab", "respa"])
def test_the_bath_is_the_reference_engines(
    scheme: Scheme, ethanol: Atoms, thermal: Callable[..., State], toys: Any
) -> None:
    """Given the noise that OpenMM draws, the reference visits the same states, and its heat is the same.

    So decay and amplitude of the bath are those of `Langevin.coefficients`, to 1e-12.
    """
    masses, start, steps, outer, seed = ethanol.get_masses(), thermal(), 200, 0.5 * FS, 5
    bath = Langevin(300.0, 5.0, 0, 1)
    noise = iter(openmms_noise(steps, scheme, seed, masses))
    bath.noise = lambda draws, n: np.array([[next(noise)] for _ in range(draws)])  # type: ignore[method-assign]
    table, mine = (models(ethanol, "respa", toys)[0] for _ in range(2))
    reference = Stepper(scheme, outer, masses, table, start, bath)
    system, integrator = system_of(masses), translate(scheme, GROUPS, outer, bath)
    integrator.setRandomNumberSeed(seed)
    add_forces(system, Answers(mine, list(ethanol.symbols)), {name: GROUPS[name] for name in reference.kicks})
    made = context(system, integrator, start, masses)
    integrator.step(steps)
    for _ in range(steps):
        reference.step()
    x, p, _, _ = state_of(made, masses)
    xr, pr = reference.state.positions[0], reference.state.momenta[0]
    np.testing.assert_allclose(x, xr, rtol=0, atol=1e-12 * np.abs(xr).max())
    np.testing.assert_allclose(p, pr, rtol=0, atol=1e-12 * np.abs(pr).max())
    heat = integrator.getGlobalVariableByName("heat") * ENERGY
    assert abs(heat) > 0.01 and heat == pytest.approx(float(reference.heat[0]), rel=1e-11)
    assert mine.calls == table.calls


@pytest.mark.parametrize("platform", ["Reference", "CPU"])
def test_baoab_samples_harmonic_positions_exactly(platform: str, toys: Any) -> None:
    """<x^2> = kT/k even at wh = 1.8, where other splittings are five times off; <p^2> = m kT (1 - (wh)^2 / 4).

    Leimkuhler & Matthews, J. Chem. Phys. 138, 174102 (2013), doi:10.1063/1.4802990. 3000 oscillators are independent:
    the scatter of their averages gives the standard error, of which four are allowed.
    """
    n, kappa, wh = 1000, 1.3, 1.8
    top = topology(Atoms(f"H{n}", np.zeros((n, 3))))
    masses = np.full(n, app.element.hydrogen.mass._value)
    h = wh * np.sqrt(masses[0] / kappa)
    system, integrator = openmm_hybrid(
        top, student=None, teacher=toys.trap(n, kappa), timestep=h / FS * unit.femtosecond, k_steps=1,
        temperature_K=300.0, friction_per_ps=PS / h, seed=1,
    )  # fmt: skip
    made = context(system, integrator, State(*np.zeros((2, 1, n, 3))), masses, platform)
    integrator.step(50)  # the slowest mode forgets its start by a factor of at least e every four steps
    x2, p2 = np.zeros((2, n, 3))
    for _ in range(200):
        integrator.step(1)
        x, p, _, _ = state_of(made, masses)
        x2, p2 = x2 + x**2 / 200, p2 + p**2 / 200
    kT = KB * 300.0
    for mean, exact in ((x2, kT / kappa), (p2, masses[0] * kT * (1 - wh**2 / 4))):
        error = mean.std(ddof=1) / np.sqrt(mean.size)
        assert error < 0.02 * exact
        assert abs(mean.mean() - exact) < 4 * error


def hybrid(atoms: Atoms, start: State, **changes: Any) -> tuple[Any, Any]:
    """A context of `openmm_hybrid` with bonds as models, and its integrator."""
    given: dict[str, Any] = {"student": "harmonic", "teacher": "morse", "k_steps": 4} | changes
    system, integrator = openmm_hybrid(
        given.pop("target", topology(atoms)), positions=atoms.positions * unit.angstrom, **given
    )
    masses = np.array([system.getParticleMass(i)._value for i in range(len(atoms))])
    return context(system, integrator, start, masses), integrator


@pytest.mark.parametrize(
    "settings",
    [
        {"scheme": "respa"},
        {"scheme": "mollified"},
        {"middle": "morse", "middle_steps": 2, "teacher": "lj"},
        {"temperature_K": 1e-30, "friction_by_element": {"H": 20.0, "O": 0.0}, "friction_per_ps": 3.0},
        {"temperature_K": 1e-30, "integrator": "obabo", "friction_per_ps": 3.0},
    ],
    ids=["respa", "mollified", "middle", "friction by element", "obabo"],
)
def test_it_is_what_hybrid_dynamics_runs(
    settings: dict[str, Any], ethanol: Atoms, thermal: Callable[..., State]
) -> None:
    """The same positions as in ASE, from the same arguments, to rounding; with a bath, one too cold for its noise."""
    from ase import units

    from mlff_sim import HybridDynamics

    atoms, start = ethanol.copy(), thermal()
    settings = {"student": "harmonic", "teacher": "morse", "k_steps": 4} | settings
    if settings["teacher"] == "lj":
        settings["teacher"] = LennardJones(ethanol.numbers, 0.001, 1.0)
    # OpenMM's masses are those of its elements.
    atoms.set_masses([atom.element.mass._value for atom in topology(atoms).atoms()])
    atoms.set_momenta(start.momenta[0])
    made, integrator = hybrid(ethanol, start, **settings)
    made.setVelocities(start.momenta[0] / atoms.get_masses()[:, None] / SPEED)
    dynamics = HybridDynamics(atoms, 0.5 * units.fs, **settings)
    dynamics.run(50)
    integrator.step(50)
    x, p, _, potential = state_of(made, atoms.get_masses())
    np.testing.assert_allclose(x, atoms.positions, rtol=0, atol=1e-11)
    np.testing.assert_allclose(p, atoms.get_momenta(), rtol=0, atol=1e-11)
    assert potential == pytest.approx(atoms.get_potential_energy(), abs=1e-11)


def test_reports_are_the_teachers_energy_and_cost_no_call(
    ethanol: Atoms, thermal: Callable[..., State], toys: Any
) -> None:
    """20 outer steps, each reported and looked at twice: 21 teacher calls; potential energies are the teacher's."""
    morse = load_model("morse", ethanol)
    teacher, student = toys.counted(morse), toys.counted(load_model("harmonic", ethanol))
    system, integrator = openmm_hybrid(
        topology(ethanol), student=student, teacher=teacher, timestep=0.25 * unit.femtosecond, k_steps=4
    )
    simulation = app.Simulation(topology(ethanol), system, integrator, mm.Platform.getPlatformByName("Reference"))
    simulation.context.setPositions(ethanol.positions * unit.angstrom)
    simulation.context.setVelocitiesToTemperature(300.0, 3)
    out = StringIO()
    simulation.reporters.append(
        app.StateDataReporter(out, 1, step=True, time=True, potentialEnergy=True, totalEnergy=True)
    )
    expected = []
    for _ in range(20):
        simulation.step(1)
        state = simulation.context.getState(energy=True, forces=True, positions=True)
        answer = morse(NM * state.getPositions(asNumpy=True)._value)
        expected.append(float(answer.energy) / ENERGY)
        np.testing.assert_allclose(state.getForces(asNumpy=True)._value, answer.forces * NM / ENERGY, rtol=0, atol=1e-9)
    rows = np.array([[float(word) for word in line.split(",")] for line in out.getvalue().splitlines()[1:]])
    np.testing.assert_allclose(rows[:, 1], 0.001 * np.arange(1, 21), rtol=1e-9)
    np.testing.assert_allclose(rows[:, 2], expected, rtol=0, atol=1e-9)
    assert teacher.calls == 21 and student.calls == 81
    kinetic = rows[:, 3] - rows[:, 2]
    assert kinetic[-1] == pytest.approx(state.getKineticEnergy()._value, abs=1e-9)


def test_energy_fluctuates_with_the_square_of_the_step(ethanol: Atoms, thermal: Callable[..., State]) -> None:
    """Half the step over the same time: a quarter of the fluctuation of K + U, as of any second-order scheme."""
    spread = []
    for h in (0.2, 0.1):
        made, integrator = hybrid(ethanol, thermal(), timestep=h * unit.femtosecond, scheme="mollified")
        energies = []
        for _ in range(round(40 / (4 * h))):
            integrator.step(1)
            _, _, kinetic, potential = state_of(made, np.ones(9))
            energies.append(kinetic + potential)
        spread.append(np.std(energies))
    assert 3.5 < spread[0] / spread[1] < 4.5


def test_moved_atoms_are_noticed_and_new_velocities_cost_nothing(
    ethanol: Atoms, thermal: Callable[..., State], toys: Any
) -> None:
    """The memory is of positions: what the user sets between two steps is taken up."""
    teacher = toys.counted(load_model("morse", ethanol))
    made, integrator = hybrid(ethanol, thermal(), teacher=teacher)
    integrator.step(3)
    assert teacher.calls == 4
    made.setVelocitiesToTemperature(100, 1)
    integrator.step(1)
    assert teacher.calls == 5
    made.setPositions(ethanol.positions * unit.angstrom)
    integrator.step(1)
    assert teacher.calls == 7
    np.testing.assert_allclose(teacher.asked[5], ethanol.positions, atol=1e-12)


def test_a_force_added_later_kicks_with_the_student(ethanol: Atoms, thermal: Callable[..., State], toys: Any) -> None:
    """A restraint in group 0, OpenMM's default: the reference with a student and a teacher that hold it both."""
    kappa = 0.5

    class Held:
        """A model and a spring to the origin."""

        def __init__(self, name: str) -> None:
            self.inner, self.trap = load_model(name, ethanol), toys.trap(9, kappa)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.inner, name)

        def __call__(self, x: Array, cell: Any = None, /) -> Any:
            from mlff_sim.forces import Evaluation

            a, b = self.inner(x), self.trap(x)
            return Evaluation(a.energy + b.energy, a.forces + b.forces)

    start, top = thermal(), topology(ethanol)
    masses = np.array([atom.element.mass._value for atom in top.atoms()])
    table = ForceTable({"teacher": Held("morse"), "student": Held("harmonic")}, {"residual": ("teacher", "student")})
    reference = Stepper(respa("residual", verlet("student"), 4), 2.0 * FS, masses, table, start)
    system, integrator = openmm_hybrid(
        top, student="harmonic", teacher="morse", k_steps=4, positions=ethanol.positions * unit.angstrom
    )
    spring = mm.CustomExternalForce(f"{0.5 * kappa * NM**2 / ENERGY!r}*(x^2+y^2+z^2)")
    for i in range(9):
        spring.addParticle(i)
    system.addForce(spring)
    made = context(system, integrator, start, masses)
    integrator.step(50)
    for _ in range(50):
        reference.step()
    x, _, _, potential = state_of(made, masses)
    np.testing.assert_allclose(x, reference.state.positions[0], rtol=0, atol=1e-11)
    assert potential == pytest.approx(float(reference.potential()[0]), abs=1e-11)


def test_a_system_of_ones_own(ethanol: Atoms, thermal: Callable[..., State]) -> None:
    """Its masses are used, and its CMMotionRemover works; elements come from the masses, or from a topology."""
    start = thermal()
    masses = np.array([atom.element.mass._value for atom in topology(ethanol).atoms()])
    heavy = masses + 2.0 * (ethanol.numbers == 1)
    drifting = State(start.positions, start.momenta + 0.5 * heavy[:, None])
    for weights, top in ((masses, None), (heavy, topology(ethanol))):
        own = system_of(weights)
        own.addForce(mm.CMMotionRemover(1))
        made, integrator = hybrid(ethanol, drifting, target=own, topology=top)
        assert made.getSystem().getNumForces() == 3 and own.getParticleMass(8)._value == weights[8]
        integrator.step(2)
        _, p, _, _ = state_of(made, weights)
        assert np.abs(p.sum(axis=0)).max() < 1e-12 < np.abs(drifting.momenta[0].sum(axis=0)).min()


def test_without_noise_many_baths_a_step_are_the_reference_engines(
    ethanol: Atoms, thermal: Callable[..., State], toys: Any
) -> None:
    """At 0 K, four baths a step and one cut in two: each decays by its own share of the step, to 1e-12.

    With a friction of all atoms, and with one of each.
    """
    masses, start = ethanol.get_masses(), thermal()
    for scheme, friction in (
        (respa("residual", baoab("student"), 4), 5.0),
        (respa("residual", baoab("student"), 4), np.linspace(0.0, 9.0, 9)),
        (obabo("teacher"), 5.0),
    ):
        bath = Langevin(0.0, friction, 0, 1)
        table, mine = (models(ethanol, "respa", toys)[0] for _ in range(2))
        reference = Stepper(scheme, 1.0 * FS, masses, table, start, bath)
        system, integrator = system_of(masses), translate(scheme, GROUPS, 1.0 * FS, bath)
        add_forces(system, Answers(mine, list(ethanol.symbols)), {name: GROUPS[name] for name in reference.kicks})
        made = context(system, integrator, start, masses)
        integrator.step(200)
        for _ in range(200):
            reference.step()
        x, p, _, _ = state_of(made, masses)
        np.testing.assert_allclose(x, reference.state.positions[0], rtol=0, atol=1e-12)
        np.testing.assert_allclose(p, reference.state.momenta[0], rtol=0, atol=1e-12)
        heat = integrator.getGlobalVariableByName("heat") * ENERGY
        assert heat < -0.1 and heat == pytest.approx(float(reference.heat[0]), rel=1e-11)


def test_the_seed_is_that_of_the_noise(ethanol: Atoms, thermal: Callable[..., State]) -> None:
    """Every seed, 0 too, gives its own run, and the same one again."""
    ends = []
    for seed in (0, 0, 1):
        made, integrator = hybrid(ethanol, thermal(), temperature_K=300.0, friction_per_ps=5.0, seed=seed)
        integrator.step(3)
        ends.append(made.getState(positions=True).getPositions(asNumpy=True)._value)
    assert np.array_equal(ends[0], ends[1]) and np.abs(ends[0] - ends[2]).max() > 1e-4


def test_an_integrator_can_be_serialised(ethanol: Atoms, thermal: Callable[..., State]) -> None:
    """The same file again, and the same states, noise included; a checkpoint goes on as if there had been none."""
    settings: dict[str, Any] = {"temperature_K": 300.0, "friction_per_ps": 5.0, "seed": 3}
    made, integrator = hybrid(ethanol, thermal(), **settings)
    text = mm.XmlSerializer.serialize(integrator)
    copy = mm.XmlSerializer.deserialize(text)
    assert mm.XmlSerializer.serialize(copy) == text
    masses = np.array([made.getSystem().getParticleMass(i)._value for i in range(9)])
    integrator.step(10)
    checkpoint, states = made.createCheckpoint(), []
    for _ in range(2):
        made.loadCheckpoint(checkpoint)
        integrator.step(10)
        states.append(state_of(made, masses)[0])
    other = context(made.getSystem(), copy, thermal(), masses)
    made.reinitialize()
    copy.step(20)
    assert np.array_equal(states[0], states[1])
    np.testing.assert_allclose(state_of(other, masses)[0], states[0], rtol=0, atol=1e-11)


@pytest.mark.parametrize("scheme", ["respa", "mollified"])
def test_a_system_can_be_serialised(scheme: str, ethanol: Atoms, thermal: Callable[..., State]) -> None:
    """Copies build the models anew and share their evaluations among themselves, not with the original."""
    from mlff_sim.interfaces.openmm_integrator import _COPIES

    made, integrator = hybrid(ethanol, thermal(), scheme=scheme)
    masses = np.array([made.getSystem().getParticleMass(i)._value for i in range(9)])
    text = [mm.XmlSerializer.serialize(each) for each in (made.getSystem(), integrator)]
    integrator.step(20)
    expected, kept = state_of(made, masses), []
    for _ in range(2):
        system, copy = (mm.XmlSerializer.deserialize(each) for each in text)
        kept.append((context(system, copy, thermal(), masses), copy, list(_COPIES.values())[-1]))
    for _, copy, _ in kept:  # in turns: they do not disturb each other
        copy.step(10)
    for other, copy, answers in kept:
        copy.step(10)
        np.testing.assert_allclose(state_of(other, masses)[0], expected[0], rtol=0, atol=1e-11)
        assert state_of(other, masses)[3] == pytest.approx(expected[3], abs=1e-11)
        per_step = CALLS[scheme]["student"]
        assert answers.table.calls == {"teacher": 21, "student": 20 * per_step + 1 + (scheme == "mollified")}
    answers = Answers(models(ethanol, "respa", None)[0], list(ethanol.symbols))
    bare = system_of(masses)
    add_forces(bare, answers, {"teacher": 0})
    with pytest.raises(Exception, match="could not be pickled"):
        mm.XmlSerializer.serialize(bare)


def test_faults_are_told(ethanol: Atoms, thermal: Callable[..., State], toys: Any) -> None:
    """A traceback of a model's fault; a force that is no number stops the run, with step and atom."""

    class Broken(toys.counted):
        def __call__(self, x: Any, cell: Any = None, /) -> Any:
            answer = super().__call__(x, cell)
            if self.calls >= 3 and self.how == "raises":
                raise ValueError("deep inside the model")
            if self.calls >= 3:
                getattr(answer, self.how)[0] = np.nan
            return answer

    for how, words in (
        ("forces", r"step 1: the force of atom 0 \(C\) is not a finite number"),
        ("energy", r"step 1: the energy of the residual is not a finite number"),
        ("raises", r"(?s)a model failed at step 1:.*in __call__.*deep inside the model"),
    ):
        teacher = Broken(load_model("morse", ethanol))
        teacher.how = how
        made, integrator = hybrid(ethanol, thermal(), teacher=teacher)
        with pytest.raises(mm.OpenMMException, match=words):
            integrator.step(5)
        with pytest.raises(mm.OpenMMException, match=words):  # it is not remembered
            made.getState(forces=True)


def with_constraint(system: Any) -> None:
    system.addConstraint(2, 8, 0.0972)


def with_site(system: Any) -> None:
    system.setParticleMass(7, 0.0)
    system.setVirtualSite(7, mm.TwoParticleAverageSite(0, 1, 0.5, 0.5))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (with_constraint, r"distance of atoms 2 and 8 by a constraint.*constraints=None"),
        (with_site, r"particle 7 of the System is a virtual site"),
        (lambda s: s.setParticleMass(3, 0.0), r"particle 3 of the System has no mass"),
        (lambda s: s.addForce(mm.HarmonicBondForce()), r"has a HarmonicBondForce.*afterwards, in force group 0"),
        (lambda s: s.addForce(mm.MonteCarloBarostat(1.0, 300.0)), r"has a MonteCarloBarostat"),
        (lambda s: s.setParticleMass(8, 3.02), r"particle 8 of the System has a mass of 3.02.*give topology=\.\.\."),
        (lambda s: s.addParticle(12.011), r"for C2H6O; the structure is C3H6O"),
    ],
)
def test_what_a_system_may_not_hold(change: Callable[[Any], Any], words: str, ethanol: Atoms) -> None:
    system = system_of(ethanol.get_masses())
    change(system)
    models = {name: load_model(model, ethanol) for name, model in (("student", "harmonic"), ("teacher", "morse"))}
    before = system.getNumForces()
    with pytest.raises(InputError, match=words) as told:
        openmm_hybrid(system, **models)
    assert "\n" not in str(told.value) and system.getNumForces() == before


def test_mistakes(ethanol: Atoms) -> None:
    from test_graph import Pairs

    from mlff_sim.models.graph import GraphProvider

    nowhere, periodic, site = topology(ethanol), topology(ethanol), topology(ethanol)
    periodic.setPeriodicBoxVectors([mm.Vec3(*row) for row in 3 * np.eye(3)] * unit.nanometer)
    site.addAtom("M", None, next(site.residues()))
    x = ethanol.positions * unit.angstrom
    cases: Sequence[tuple[dict[str, Any], str]] = (
        ({"target": ethanol}, r"'Atoms' is no openmm\.app\.Topology and no openmm\.System"),
        ({"target": periodic}, r"in vacuum, for now; the topology is periodic"),
        ({"target": site}, r"atom 9 \(M\) has no element"),
        ({"target": app.Topology(), "positions": None}, r"there are no atoms"),
        ({"target": system_of(np.ones(3)), "topology": nowhere}, r"3 particles and the topology 9 atoms"),
        ({"scheme": "ghmc"}, r"no scheme 'ghmc'; choose one of: respa, mollified, or run it with HybridDynamics"),
        ({"timestep": 0.5}, r"timestep has no unit; say which, as in timestep=\.\.\.\*unit\.femtosecond"),
        ({"timestep": 0.5 * unit.angstrom}, r"timestep is in angstrom; give it in femtosecond"),
        ({"timestep": -0.5 * unit.femtosecond}, r"timestep_fs = -0.5 must be a positive number"),
        ({"k_steps": 0}, r"k_steps = 0 must be a whole number of at least 1"),
        ({"student": None}, r"k_steps = 8 needs a student"),
        ({"temperature_K": -1}, r"temperature_K = -1 must be a positive number"),
        ({"temperature_K": "hot"}, r"temperature_K = 'hot' must be a number"),
        ({"friction_per_ps": float("nan")}, r"friction_per_ps = nan must not be negative"),
        ({"friction_by_element": {"N": 1.0}, "temperature_K": 300.0}, r"given for N; the structure is C2H6O"),
        ({"integrator": "leapfrog"}, r"integrator 'leapfrog' is unknown; choose one of: baoab, obabo"),
        ({"middle": "morse"}, r"middle and middle_steps come together"),
        ({"positions": ethanol.positions}, r"positions has no unit"),
        ({"positions": x[:4]}, r"shape \(4, 3\); 9 atoms need \(9, 3\)"),
        ({"positions": None}, r"'morse' is defined by a structure: give positions"),
        ({"positions": None, "teacher": "lj", "student": "lj", "scheme": "mollified"}, r"give positions=\.\.\."),
        ({"student": "nothing.safetensors"}, r"nothing"),
        ({"teacher": "nothing"}, r"unknown model 'nothing'"),
        ({"seed": 0.5}, r"seed = 0.5 must be a whole number"),
        ({"timestep": [1, 2] * unit.femtosecond}, r"timestep = \[1, 2\] must be a number"),
        ({"teacher": None}, r"which teacher\?"),
        ({"teacher": GraphProvider(Pairs(), ethanol.numbers, pbc=(True,) * 3)}, r"is periodic along"),
        ({"charge": 0.5}, r"charge = 0.5 must be a whole number"),
        ({"acceleration": "much"}, r"acceleration"),
    )
    for changes, words in cases:
        given: dict[str, Any] = {"target": nowhere, "student": "harmonic", "teacher": "morse", "positions": x} | changes
        with pytest.raises(InputError, match=words) as told:
            openmm_hybrid(given.pop("target"), **given)
        assert "\n" not in str(told.value)
    argon = Atoms("Ar2", [[0, 0, 0], [0, 0, 4.0]])
    with pytest.raises(InputError, match="needs X-H bonds"):
        openmm_hybrid(
            topology(argon), student="lj", teacher="lj", scheme="mollified", positions=argon.positions * unit.angstrom
        )
