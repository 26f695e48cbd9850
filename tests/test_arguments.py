"""Numbers from the command line: how many steps, how long, how often."""

from __future__ import annotations

import math
from typing import Any

import pytest

from mlff_sim.cli.distill import parse_duration
from mlff_sim.errors import InputError
from mlff_sim.simulation import RunConfig, k_from_fraction, k_from_steps


@pytest.mark.parametrize(
    ("fraction", "k"),
    [(1.0, 1), (0.5, 2), (0.25, 4), (1 / 3, 3), (0.333333, 3), (1 / 7, 7), (0.05, 20), (1e-3, 1000), (1 / 12, 12)],
)
def test_a_fraction_is_one_over_k(fraction: float, k: int) -> None:
    assert k_from_fraction(fraction) == k


@pytest.mark.parametrize("fraction", [0.0, -0.5, 1.0001, 2.0, math.nan, math.inf, -math.inf])
def test_a_fraction_lies_between_zero_and_one(fraction: float) -> None:
    with pytest.raises(InputError, match=r"outside \(0, 1\]"):
        k_from_fraction(fraction)


@pytest.mark.parametrize(("fraction", "k"), [(0.7, 1), (0.4, 2), (0.3, 3), (0.36, 3)])
def test_a_fraction_that_is_no_unit_fraction_names_the_nearest(fraction: float, k: int) -> None:
    with pytest.raises(InputError, match=rf"\(K = {k}\)"):
        k_from_fraction(fraction)


@pytest.mark.parametrize(
    ("steps", "duration_ps", "timestep_fs", "k"),
    [(2000, 10.0, 0.5, 10), (20000, 10.0, 0.5, 1), (1, 10.0, 0.5, 20000), (3, 0.003, 0.25, 4), (7, 0.0007, 0.1, 1)],
)
def test_teacher_calls_in_the_run_give_k(steps: int, duration_ps: float, timestep_fs: float, k: int) -> None:
    assert k_from_steps(steps, duration_ps, timestep_fs) == k
    config = RunConfig("x", "lj", "s", duration_ps=duration_ps, timestep_fs=timestep_fs, k_steps=k)
    assert config.outer_steps == steps


@pytest.mark.parametrize("steps", [0, -3, 20001])
def test_teacher_calls_lie_between_one_and_every_step(steps: int) -> None:
    with pytest.raises(InputError, match="between 1 and the 20000 inner steps"):
        k_from_steps(steps, 10.0, 0.5)


def test_teacher_calls_that_do_not_divide_the_run_name_the_nearest() -> None:
    with pytest.raises(InputError, match=r"use 6666 \(K = 3\)"):
        k_from_steps(7000, 10.0, 0.5)


@pytest.mark.parametrize(
    ("duration_ps", "timestep_fs"),
    [(10.0, 0.0), (10.0, -0.5), (math.nan, 0.5), (10.0, math.nan), (math.inf, 0.5), (-1.0, 0.5)],
)
def test_teacher_calls_of_no_run_are_a_mistake_not_a_crash(duration_ps: float, timestep_fs: float) -> None:
    with pytest.raises(InputError):
        k_from_steps(100, duration_ps, timestep_fs)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("90", 90),
        ("90sec", 90),
        ("6min", 360),
        ("6m", 360),
        ("1.5h", 5400),
        ("2h", 7200),
        (" 5 min ", 300),
        ("0.5", 0.5),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["", " ", "0", "0s", "-5s", "1d", "five", "1e3", "1h30m", ".5h", "5.", "nan", "inf", "s", "6 min 3"],
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(InputError, match="no duration"):
        parse_duration(text)


def config(**changes: Any) -> RunConfig:
    return RunConfig(**{"structure": "ethanol", "teacher": "lj", "student": "s", **changes})


@pytest.mark.parametrize("name", ["timestep_fs", "duration_ps", "temperature_K"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_what_must_be_positive(name: str, value: float) -> None:
    with pytest.raises(InputError, match=name):
        config(**{name: value})


@pytest.mark.parametrize("name", ["friction_per_ps", "equilibrate_ps"])
def test_what_must_not_be_negative(name: str) -> None:
    config(**{name: 0.0})
    for value in (-1e-9, math.nan, math.inf):
        with pytest.raises(InputError, match=name):
            config(**{name: value})


@pytest.mark.parametrize(
    "change",
    [
        {"k_steps": 0},
        {"k_steps": -1},
        {"k_steps": 2.0},
        {"k_steps": 2, "student": None},
        {"every": 0},
        {"replicas": 0},
        {"seed": -1},
        {"ensemble": "npt"},
        {"scheme": "verlet"},
        {"scheme": "mollified", "student": None, "k_steps": 1},
        {"k_steps": 12, "duration_ps": 0.005},
    ],
    ids=str,
)
def test_settings_that_make_no_sense(change: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        config(**change)


def test_a_run_of_one_outer_step_is_a_run() -> None:
    assert config(k_steps=12, duration_ps=0.006).outer_steps == 1


def test_frames_and_checkpoints_fall_on_outer_steps() -> None:
    """About 10 fs between frames unless asked otherwise; checkpoints are whole numbers of frames and at least 200 steps."""
    c = config(k_steps=4, duration_ps=10.0)
    assert (c.outer_step_fs, c.outer_steps, c.frame_steps) == (2.0, 5000, 5)
    for every in (1, 3, 7, 150, 201, 5000, 9999):
        c = config(k_steps=4, duration_ps=10.0, every=every)
        assert c.frame_steps == min(every, 5000)
        assert c.checkpoint_steps % c.frame_steps == 0
        assert 200 <= c.checkpoint_steps < 200 + c.frame_steps or c.checkpoint_steps == c.frame_steps
