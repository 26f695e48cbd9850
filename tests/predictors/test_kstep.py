"""Macro-steps: what they conserve, what happens to a draw that cannot be, and runs made of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms

from mlff_sim.errors import InputError
from mlff_sim.forces import Array, evaluate
from mlff_sim.integrators.kstep import DRAWS, KStep, scaled_to
from mlff_sim.integrators.stepper import Langevin, Stepper
from mlff_sim.models.registry import load_model
from mlff_sim.runfolder import read_run
from mlff_sim.simulation import RunConfig, run
from mlff_sim.simulation.assembly import Dynamics, assemble, macro_steps
from mlff_sim.simulation.config import WARM_FRICTION, corrections_from_fraction
from mlff_sim.simulation.soundness import FALSE_ALARMS, Sound
from mlff_sim.state import State, kinetic_energy, maxwell_boltzmann
from mlff_sim.structure import covalent_bonds
from mlff_sim.units import PS
from mlff_sim.validation.assess import kept

S, N, H = 40, 4, 0.5
PLAIN = Dynamics("respa", H, 1, compile=False)
MACRO = Dynamics("kstep", H, S, compile=False, corrections=N)


class Exact:
    """Draws what Verlet of the teacher gives, as if the future were known."""

    def __init__(self, teacher: Any, masses: Array) -> None:
        self.teacher, self.masses, self.calls, self.seconds = teacher, masses, 0, 0.0

    def draw(self, state: State, streams: Sequence[np.random.Generator]) -> State:
        stepper = assemble(PLAIN, {"teacher": self.teacher}, self.masses, state)
        for _ in range(S):
            stepper.step()
        self.calls += len(state.positions)
        return stepper.state


class Rough(Exact):
    """Shakes the atoms and draws new momenta: right in nothing but P and L."""

    def draw(self, state: State, streams: Sequence[np.random.Generator]) -> State:
        self.calls += len(state.positions)
        shape = state.positions.shape[1:]
        x = state.positions + 0.01 * np.array([s.standard_normal(shape) for s in streams])
        p = state.momenta * np.array([s.uniform(0.8, 1.2, (shape[0], 1)) for s in streams])
        return State(x, p)


@pytest.fixture
def teacher(ethanol: Atoms) -> Any:
    return load_model("mmff", ethanol)


@pytest.fixture
def make(ethanol: Atoms, teacher: Any, thermal: Callable[..., State]) -> Callable[..., KStep]:
    masses = ethanol.get_masses()

    def build(draws: type[Exact] = Exact, replicas: int = 3, friction: float = 0.0, sound: Any = None) -> KStep:
        bath = Langevin(300.0, friction, 5, replicas)
        models = {"teacher": teacher}
        return macro_steps(MACRO, models, masses, thermal(replicas), bath, draws(teacher, masses), sound)

    return build


def momenta(state: State) -> tuple[Array, Array]:
    return state.momenta.sum(axis=1), np.cross(state.positions, state.momenta).sum(axis=1)


def total(stepper: Any) -> Array:
    return stepper.kinetic() + stepper.potential() - stepper.heat


def test_a_predictor_that_knows_the_future_gives_the_dynamics(make, ethanol: Atoms, teacher: Any, thermal) -> None:
    stepper = make()
    plain = assemble(PLAIN, {"teacher": teacher}, ethanol.get_masses(), thermal(3))
    start = total(plain)
    stepper.step()
    for _ in range(S):
        plain.step()
    # Scaling takes back the energy error of Verlet there, dE: a change of the momenta of dE / 2K.
    wrong = np.abs(total(plain) - start).max() / plain.kinetic().min()
    for _ in range(N):
        plain.step()
    assert 0 < wrong < 0.05
    np.testing.assert_allclose(stepper.state.positions, plain.state.positions, atol=wrong * 0.05)
    assert stepper.fallbacks.tolist() == stepper.redraws.tolist() == [0, 0, 0]
    assert stepper.forces.calls == {
        "teacher": 3 * (1 + 1 + N),
        "predictor": 3,
    }  # the start, where it landed, the corrector


def test_energy_and_momenta_stay_over_any_jump(make) -> None:
    stepper = make(Rough)
    energy = total(stepper)
    stepper._jump(stepper.state)
    np.testing.assert_allclose(total(stepper), energy, atol=1e-12)
    # P and L are the draw's; scaling changes neither.
    drawn = stepper.state
    scaled, enough = scaled_to(drawn, stepper.masses, 1.3 * kinetic_energy(drawn.momenta, stepper.masses))
    assert enough.all()
    for a, b in zip(momenta(State(drawn.positions, scaled)), momenta(drawn), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-11)
    np.testing.assert_allclose(
        kinetic_energy(scaled, stepper.masses), 1.3 * kinetic_energy(drawn.momenta, stepper.masses), rtol=1e-12
    )


def test_no_energy_for_the_momenta_is_no_frame(thermal, ethanol: Atoms) -> None:
    state, masses = thermal(2), ethanol.get_masses()
    momenta, enough = scaled_to(state, masses, np.array([-0.1, 1.0]))
    assert enough.tolist() == [False, True]
    np.testing.assert_allclose(momenta[0], state.momenta[0], atol=1e-12)


def test_without_a_judge_every_draw_is_taken(make) -> None:
    """Also one that leaves no energy for the momenta, which then are those drawn; with a judge it is dropped."""

    class Hot(Rough):
        def draw(self, state: State, streams: Any) -> State:
            drawn = super().draw(state, streams)
            return State(1.2 * drawn.positions, drawn.momenta)

    stepper, judged = make(Hot), make(Hot, sound=lambda state, which: np.full(len(which), True))
    start, energy = stepper.state, total(stepper)
    assert stepper._jump(start).all() and not judged._jump(start).any()
    assert (total(stepper) > energy + 1).all()
    np.testing.assert_allclose(stepper.kinetic(), kinetic_energy(start.momenta, stepper.masses), rtol=0.5)
    assert not stepper.fallbacks.any() and not stepper.redraws.any()


@pytest.mark.parametrize("friction", [0.0, 2.0])
def test_a_dropped_draw_is_made_by_the_teacher(make, ethanol: Atoms, teacher: Any, thermal, friction: float) -> None:
    stepper = make(Rough, friction=friction, sound=lambda s, which: which != 1)
    stepper.step()
    assert stepper.fallbacks.tolist() == [0, 1, 0]
    counts = stepper.counts()
    np.testing.assert_array_equal(counts["fallbacks"], [0, 1, 0])
    np.testing.assert_array_equal(counts["redraws"], [0, DRAWS - 1, 0])
    np.testing.assert_array_equal(stepper.fallbacks, 0)
    if friction:
        assert np.abs(stepper.heat).min() > 0
        return
    start = thermal(3)
    slow = assemble(PLAIN, {"teacher": teacher}, ethanol.get_masses(), State(start.positions[1:2], start.momenta[1:2]))
    for _ in range(S + N):
        slow.step()
    np.testing.assert_allclose(stepper.state.positions[1], slow.state.positions[0], atol=1e-10)


def test_what_the_bath_puts_in_is_booked(make) -> None:
    stepper = make(Rough, friction=5.0, sound=lambda s, which: which != 2)
    before = total(stepper)
    for _ in range(3):
        stepper.step()
        # Jumps conserve exactly; what is left is that of N steps of BAOAB, and of S more where the teacher went itself.
        assert np.abs(total(stepper) - before).max() < 0.005
    assert np.abs(stepper.heat).min() > 1e-3


def test_a_draw_of_no_numbers_falls_back(make) -> None:
    stepper = make(Rough)
    energy = total(stepper)

    class Broken(Rough):
        def draw(self, state: State, streams: Any) -> State:
            return State(np.full_like(state.positions, np.nan), state.momenta)

    stepper.predictor = Broken(stepper.forces.providers["teacher"], stepper.masses)
    stepper.step()
    assert stepper.fallbacks.tolist() == [1, 1, 1]
    np.testing.assert_allclose(total(stepper), energy, atol=0.02)  # Verlet's own fluctuation at 0.5 fs


def test_where_the_teacher_fails_all_fall_back(make, monkeypatch: pytest.MonkeyPatch) -> None:
    stepper = make(Rough)
    energy = total(stepper)

    def failing(*_: Any) -> Any:
        raise RuntimeError("SCF not converged")

    monkeypatch.setattr("mlff_sim.integrators.kstep.evaluate", failing)
    stepper.step()
    assert stepper.fallbacks.tolist() == [1, 1, 1]
    np.testing.assert_allclose(total(stepper), energy, atol=0.02)


def test_a_draw_is_repeated_before_the_teacher_goes(make) -> None:
    """The second try holds: it costs one call of one replica more, and its forces are those of where it landed."""
    seen: list[int] = []

    def once(state: State, which: Array) -> Array:
        seen.append(len(which))
        return (which != 1) | (len(seen) > 1)

    stepper = make(Rough, sound=once)
    before = stepper.forces["teacher"].energy  # evaluated: three calls
    good = stepper._jump(stepper.state)
    assert good.all() and seen == [3, 1]
    assert stepper.redraws.tolist() == [0, 1, 0] and stepper.forces.calls == {"teacher": 3 + 3 + 1, "predictor": 4}
    here = stepper.forces["teacher"]
    fresh = evaluate(stepper.forces.providers["teacher"], stepper.state.positions)
    np.testing.assert_allclose(here.energy, fresh.energy, atol=1e-9)
    np.testing.assert_allclose(here.forces, fresh.forces, atol=1e-9)
    assert np.abs(here.energy - before).min() > 0


def test_sound_frames_are_dropped_once_in_a_thousand(ethanol: Atoms) -> None:
    masses, draws = ethanol.get_masses(), 40_000
    x = np.repeat(ethanol.get_positions()[None], draws, axis=0)
    sound = Sound(ethanol.numbers.tolist(), covalent_bonds(ethanol), x, masses, np.full(draws, 300.0))
    rng = np.random.default_rng(0)
    p = np.array([maxwell_boltzmann(masses, 300.0, rng, remove_com=False) for _ in range(draws)])

    dropped = float((~sound(State(x, p), np.arange(draws))).mean())
    # Four groups share it, and the whole is nearly a sum of the others: between a half and all of it, 4 sigma of 40 counts.
    assert 0.3 * FALSE_ALARMS < dropped < 1.7 * FALSE_ALARMS


def test_what_cannot_be_a_frame_is_dropped(ethanol: Atoms, thermal) -> None:
    masses, start = ethanol.get_masses(), thermal(4)
    sound = Sound(ethanol.numbers.tolist(), covalent_bonds(ethanol), start.positions, masses, np.full(4, 300.0))
    x, p = start.positions.copy(), start.momenta.copy()
    x[1, 8] += 2.0 * (x[1, 8] - x[1, 2])  # O-H at three times its length
    p[2] *= 0.05
    p[3, 3:] *= 3.0  # hydrogens at nine times their temperature

    assert sound(State(x, p), np.arange(4)).tolist() == [True, False, False, False]
    assert sound(State(x[2:], p[2:]), np.array([2, 3])).tolist() == [False, False]


@pytest.fixture
def settings(predictor_file: Path) -> RunConfig:
    return RunConfig(
        "ethanol",
        "mmff",
        scheme="kstep",
        predictor=str(predictor_file),
        k_steps=2,
        save_interval=20,
        corrector_steps=4,
        duration_ps=0.88,
        replicas=2,
        compile=False,
        seed=3,
    )


@pytest.mark.parametrize("ensemble", ["nve", "nvt"])
def test_a_run_of_macro_steps(settings: RunConfig, tmp_path: Path, ensemble: str) -> None:
    config = replace(settings, ensemble=ensemble)
    data = read_run(run(config, tmp_path / "run"))
    assert data.settings["status"] == "finished" and data.settings["physical_time"] is False
    assert data.time_ps[-1] == pytest.approx(0.88) and data.time_ps[1] == pytest.approx(0.022)  # (40 + 4) x 0.5 fs
    assert 0 <= data.counts["fallbacks"].sum() < data.counts["fallbacks"].size
    drift = data.conserved - data.conserved[0]
    # By construction over jumps; the corrector's is that of Verlet at 0.5 fs.
    assert np.abs(drift).max() < 0.05
    assert data.settings["teacher_calls"] >= 2 * (1 + 40 // 2 * 5)
    assert data.settings["models"]["predictor"]["macro_steps"] == [20, 40]


def test_without_the_guard_of_draws_none_is_dropped(
    settings: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Sound, "__call__", lambda self, state, which: np.zeros(len(which), dtype=np.bool_))
    config = replace(settings, duration_ps=0.022, baseline=False)
    free = replace(config, unguarded=("draws",))
    guarded, unguarded = (read_run(run(c, tmp_path / n)) for c, n in ((config, "guarded"), (free, "free")))
    assert guarded.counts["fallbacks"].sum() == 2
    assert unguarded.counts["fallbacks"].sum() == 0


def test_the_bath_is_strong_after_jumps_and_not_in_the_warm_up(
    settings: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What draws are wrong by goes into the bath; a warm-up of dynamics would only crawl in it."""
    assert settings.friction_per_ps == 300.0 and replace(settings, friction_per_ps=7.0).friction_per_ps == 7.0
    seen = []
    whole = Stepper.step

    def step(self: Stepper) -> None:
        if self.bath is not None and not isinstance(self, KStep):
            seen.append(float(self.bath.friction) * PS)
        whole(self)

    monkeypatch.setattr(Stepper, "step", step)
    run(replace(settings, equilibrate_ps=0.01, replicas=1, duration_ps=0.022), tmp_path / "run")
    assert seen[:20] == pytest.approx([WARM_FRICTION] * 20) and seen[20:] == pytest.approx([300.0] * len(seen[20:]))
    assert len(seen) > 20


def test_equilibration_takes_some_jumps(settings: RunConfig, tmp_path: Path) -> None:
    """Momenta are forgotten at once, and the shape is not: three macro-steps of 22 fs are left out, as far as a fifth allows."""
    data = read_run(run(settings, tmp_path / "run"))
    assert np.flatnonzero(kept(data))[0] == 3


def test_a_run_that_is_cut_ends_as_the_unbroken(
    settings: RunConfig, tmp_path: Path, cut_and_resumed: Callable[..., Path]
) -> None:
    config = replace(settings, ensemble="nvt", baseline=False)
    whole = read_run(run(config, tmp_path / "whole"))
    again = read_run(cut_and_resumed(config, tmp_path / "cut"))
    for name in ("positions", "momenta", "conserved"):
        np.testing.assert_array_equal(getattr(again, name), getattr(whole, name))
    assert set(whole.counts) == {"fallbacks", "redraws"}
    for name, counted in whole.counts.items():
        np.testing.assert_array_equal(again.counts[name], counted)


def test_the_corrector_is_a_whole_number_of_steps() -> None:
    assert corrections_from_fraction(0.05, 200) == 10
    with pytest.raises(
        InputError, match=r"is 0.5 steps, no whole number of at least 1; the nearest that is: 0.05 \(1 step\)"
    ):
        corrections_from_fraction(0.025, 20)
    with pytest.raises(InputError, match=r"the nearest that is: 0.03 \(6 steps\)"):
        corrections_from_fraction(0.0312, 200)
    with pytest.raises(InputError, match="outside"):
        corrections_from_fraction(0.0, 200)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"predictor": None}, "needs a predictor; train one"),
        ({"corrector_steps": None}, "must be a whole number from 1 to the 40 baseline steps"),
        ({"corrector_steps": 41}, "must be a whole number from 1 to the 40 baseline steps"),
        ({"k_steps": "auto"}, "'auto' has no rule for scheme 'kstep'"),
        ({"k_steps": 3}, "was not trained for macro-steps of 60 baseline steps .* it knows 20, 40"),
        ({"timestep_fs": 1.0}, "counts in baseline steps of 0.5 fs"),
        ({"hydrogen_mass": 3.0}, "hydrogen_mass cannot go with"),
        ({"save_interval": 0}, "save_interval = 0"),
        ({"structure": "smiles:CCN"}, "knows the elements H, C, O, and the structure has N"),
        (
            {"scheme": "respa", "k_steps": 1, "corrector_steps": None},
            "predictor is for schemes kstep and ghmc; scheme 'respa' has none",
        ),
    ],
)
def test_mistakes(settings: RunConfig, tmp_path: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        run(replace(settings, **change), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_larger_molecule_is_warned_of(settings: RunConfig, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="has 12 atoms and the largest .* 9: it extrapolates"):
        data = read_run(run(replace(settings, structure="smiles:CCCO", duration_ps=0.088), tmp_path / "run"))
    assert data.settings["status"] == "finished"


def test_files_that_are_no_predictors(
    settings: RunConfig, tmp_path: Path, predictor_file: Path, student_file: Path
) -> None:
    cut = tmp_path / "cut"
    cut.write_bytes(predictor_file.read_bytes()[:-100])
    for path, said in (
        (tmp_path / "none", "does not exist; train one"),
        (cut, "truncated"),
        (student_file, "has format mlff-sim-student"),
    ):
        with pytest.raises(InputError, match=said):
            run(replace(settings, predictor=str(path)), tmp_path / "run")
