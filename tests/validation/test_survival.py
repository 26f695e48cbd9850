"""What breaks first, and when: every rule catches its fault at the right frame; survival times have honest intervals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.data import covalent_radii

from mlff_sim.forces import Array
from mlff_sim.limits import LONGEST
from mlff_sim.state import maxwell_boltzmann
from mlff_sim.structure import covalent_bonds
from mlff_sim.validation import Stability, Verdict, stability, survival_time


@pytest.fixture
def judge(ethanol: Atoms) -> Callable[..., Stability]:
    """Frames of ethanol, 10 fs apart."""

    def judged(positions: Array, **options: Any) -> Stability:
        t = 5.0 + 0.01 * np.arange(len(positions))  # a time axis need not start at zero
        return stability(positions, t, ethanol.numbers, covalent_bonds(ethanol), **options)

    return judged


def thermal(ethanol: Atoms, frames: int, replicas: int, temperature_K: float, seed: int = 0) -> Array:
    """Independent momenta, shape (frames, replicas, n, 3)."""
    rng, masses = np.random.default_rng(seed), ethanol.get_masses()
    drawn = [maxwell_boltzmann(masses, temperature_K, rng, remove_com=False) for _ in range(frames * replicas)]
    return np.array(drawn).reshape(frames, replicas, len(masses), 3)


def test_a_sound_run_lasts(ethanol: Atoms, make_run: Callable[..., Array], judge: Callable[..., Stability]) -> None:
    """400 frames of four replicas, their momenta too: nothing broke, and what that proves is T / 3."""
    p = thermal(ethanol, 400, 4, 300.0)
    result = judge(make_run(400, seed=1), momenta=p, masses=ethanol.get_masses(), temperature_K=300.0)
    assert result.verdict is Verdict.PASS and result.first is None
    assert result.survived_ps == pytest.approx((3.99,) * 4)
    assert result.mean_ps == float("inf")
    assert result.ci95_ps[0] == pytest.approx(4 * 3.99 / np.log(20.0))


def test_a_broken_bond(ethanol: Atoms, make_run: Callable[..., Array], judge: Callable[..., Stability]) -> None:
    """C-H leaves in one replica: which bond, where, when, and the length beyond the guard's own limit."""
    x = make_run(300, seed=2)
    axis = ethanol.positions[3] - ethanol.positions[0]
    x[120:, 2, 3] += 2.0 * axis / np.linalg.norm(axis)
    result = judge(x)
    broken = result.first
    assert broken is not None and result.verdict is Verdict.FAIL
    assert (broken.rule, broken.replica, broken.frame, broken.atoms) == ("a bond is broken", 2, 120, (0, 3))
    assert broken.time_ps == pytest.approx(1.2)
    longest = LONGEST * np.linalg.norm(x[0, :, 3] - x[0, :, 0], axis=1).max()
    assert broken.limit == pytest.approx(max(longest, LONGEST * (covalent_radii[6] + covalent_radii[1])))
    assert broken.value > broken.limit
    assert [b is None for b in result.breaks] == [True, True, False, True]
    assert result.survived_ps == pytest.approx((2.99, 2.99, 1.2, 2.99))
    assert result.mean_ps == pytest.approx(3 * 2.99 + 1.2)
    assert "C0 and H3" in result.note and "1 of 4" in result.note


def test_atoms_too_close(make_run: Callable[..., Array], judge: Callable[..., Stability]) -> None:
    """The hydroxyl's hydrogen passes through a methyl hydrogen: not bonded, 0.3 A apart."""
    x = make_run(100, seed=3)
    x[40, 0, 3] = x[40, 0, 4] + [0.0, 0.3, 0.0]
    broken = judge(x).first
    assert broken is not None
    assert (broken.rule, broken.frame, broken.atoms) == ("atoms too close", 40, (3, 4))
    assert broken.value == pytest.approx(0.3)


def test_an_atom_that_flies_away(make_run: Callable[..., Array], ethanol: Atoms) -> None:
    """Without bonds, as in a cluster: it is named once it is three times as far as any was."""
    x = make_run(100, seed=4)
    away = ethanol.positions[5] - ethanol.positions.mean(axis=0)
    x[:, 1, 5] += np.maximum(0.0, 0.5 * (np.arange(100) - 50))[:, None] * away / np.linalg.norm(away)
    broken = stability(x, 0.01 * np.arange(100), ethanol.numbers).first
    assert broken is not None
    assert (broken.rule, broken.replica, broken.atoms) == ("an atom has flown away", 1, (5,))
    assert 54 <= broken.frame <= 60 and broken.value == pytest.approx(broken.limit, abs=0.6)


def test_a_hot_element(ethanol: Atoms, make_run: Callable[..., Array], judge: Callable[..., Stability]) -> None:
    """Oxygen takes off in one frame; hydrogens 5 % hot never reach what a sound run does not."""
    x, m = make_run(200, seed=5), ethanol.get_masses()
    p = thermal(ethanol, 200, 4, 300.0)
    p[:, :, 3:] *= np.sqrt(1.05)
    assert judge(x, momenta=p, masses=m, temperature_K=300.0).verdict is Verdict.PASS
    p[77, 3, 2] *= 9.0
    broken = judge(x, momenta=p, masses=m, temperature_K=300.0).first
    assert broken is not None
    assert (broken.rule, broken.replica, broken.frame, broken.atoms) == ("temperature runs away", 3, 77, (2,))
    assert broken.unit == "K" and broken.value > broken.limit > 600


def test_numbers_that_are_none(ethanol: Atoms, make_run: Callable[..., Array], judge: Callable[..., Stability]) -> None:
    """The first NaN, in positions or momenta; what broke before it counts as the cause."""
    x = make_run(100, seed=6)
    x[60:, 1, 7, 2] = np.nan
    result = judge(x)
    assert result.first is not None
    assert (result.first.rule, result.first.frame, result.first.atoms) == ("numbers must be finite", 60, (7,))
    p = thermal(ethanol, 100, 4, 300.0)
    p[30, 0, 2, 0] = np.inf
    both = judge(x, momenta=p, masses=ethanol.get_masses(), temperature_K=300.0)
    assert both.first is not None and (both.first.replica, both.first.frame, both.first.atoms) == (0, 30, (2,))
    x[55:, 1, 7] += 4.0
    earlier = judge(x).breaks[1]
    assert earlier is not None and (earlier.frame, earlier.rule) == (55, "a bond is broken")


def test_the_first_break_does_not_depend_on_chunks(
    make_run: Callable[..., Array], judge: Callable[..., Stability], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A break far behind, looked at in pieces of one frame and in one piece."""
    x = make_run(300, 1, seed=7)
    x[290:, 0, 8] += 5.0
    whole = judge(x).first
    monkeypatch.setattr("mlff_sim.validation.survival.CHUNK", 1)
    assert whole is not None and judge(x).first == whole and whole.frame == 290


def test_what_is_required_decides(make_run: Callable[..., Array], judge: Callable[..., Stability]) -> None:
    """12 ps without a break show 4 ps of survival on average, and are not enough to show 10; breaks at once fail it."""
    x = make_run(301, seed=8)
    assert judge(x, required_ps=3.9).verdict is Verdict.PASS
    longer = judge(x, required_ps=10.0)
    assert longer.verdict is Verdict.INCONCLUSIVE and "10 ps" in longer.note
    x[3:, :, 4] += 5.0
    assert judge(x, required_ps=10.0).verdict is Verdict.FAIL


def test_the_interval_covers() -> None:
    """4000 studies of ten replicas that break at random and are watched for one mean lifetime, or a tenth of it.

    The interval is conservative (Garwood): it holds the truth in at least 95 %, less four standard errors, and in these
    cases not always. The estimate is the one of maximum likelihood: no other makes the data as likely.
    """
    rng = np.random.default_rng(9)
    for watched in (1.0, 0.1):
        lives = rng.exponential(1.0, (4000, 10))
        covered = []
        for life in lives:
            mean, (low, high) = survival_time(float(np.minimum(life, watched).sum()), int((life < watched).sum()))
            covered.append(low <= 1.0 <= high)
            assert low <= mean <= high
        assert 0.95 - 4 * np.sqrt(0.95 * 0.05 / 4000) < np.mean(covered) < 1.0
    mean, _ = survival_time(7.0, 3)
    likelihood = [-3 * np.log(tau) - 7.0 / tau for tau in (0.99 * mean, mean, 1.01 * mean)]
    assert max(likelihood) == likelihood[1]


def test_textbook_interval() -> None:
    """Four breaks in 20: Garwood's Poisson interval for a count of four is 1.0899 to 10.2416."""
    mean, (low, high) = survival_time(20.0, 4)
    assert mean == 5.0
    assert (20.0 / high, 20.0 / low) == pytest.approx((1.0899, 10.2416), abs=1e-4)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"positions": np.zeros((1, 1, 2, 3)), "time_ps": np.zeros(1)}, "1 frame"),
        ({"positions": np.zeros((0, 1, 2, 3)), "time_ps": np.zeros(0)}, "0 frame"),
        ({"positions": np.zeros((4, 2, 3))}, "must be"),
        ({"positions": np.zeros((4, 0, 2, 3))}, "must be"),
        ({"positions": np.full((4, 1, 2, 3), np.nan)}, "first frame"),
        ({"time_ps": np.zeros(4)}, "increase"),
        ({"bonds": [(0, 2)]}, "from 0 to 1"),
        ({"momenta": np.zeros((4, 1, 2, 3))}, "masses"),
        ({"momenta": np.zeros((3, 1, 2, 3)), "masses": np.ones(2), "temperature_K": 300.0}, "momenta"),
    ],
)
def test_mistakes_are_told(change: dict[str, Any], words: str) -> None:
    """In one line."""
    x = np.zeros((4, 1, 2, 3))
    x[:, :, 1, 0] = 1.0
    given: dict[str, Any] = {"positions": x, "time_ps": np.arange(4.0), "numbers": np.array([1, 8])} | change
    with pytest.raises(ValueError, match=words) as told:
        stability(**given)
    assert "\n" not in str(told.value)
