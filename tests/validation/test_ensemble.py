"""Temperatures: the canonical ensemble passes, a hot element does not, and a short run says that it cannot tell."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import lfilter

from mlff_sim.motion import kinetic_by_motion
from mlff_sim.state import at_rest, maxwell_boltzmann
from mlff_sim.units import KB
from mlff_sim.validation import Temperatures, Verdict, equipartition
from mlff_sim.validation.sampling import statistical_inefficiency

NUMBERS = np.array([6, 6, 8, 1, 1, 1, 1, 1, 1])
MASSES = np.array([12.011, 12.011, 15.999, 1.008, 1.008, 1.008, 1.008, 1.008, 1.008])


def momenta(frames: int, *, com: bool, seed: int = 0) -> np.ndarray:
    """Independent canonical momenta at 300 K, shape (frames, 4, 9, 3)."""
    rng = np.random.default_rng(seed)
    return np.array([[maxwell_boltzmann(MASSES, 300.0, rng, remove_com=com) for _ in range(4)] for _ in range(frames)])


@pytest.mark.parametrize("com", [False, True])
def test_maxwell_boltzmann_passes(com: bool) -> None:
    """Every mean within 4 exact standard errors, and the estimated ones right."""
    frames = 1500
    result = equipartition(momenta(frames, com=com), MASSES, NUMBERS, 300.0, com)
    assert result.verdict is Verdict.PASS
    shares = {name: MASSES[[z == {"C": 6, "O": 8, "H": 1}[name] for z in NUMBERS]] for name in result.by_element}
    for name, group in result.by_element.items():
        # Momenta over sqrt(mass) have the covariance kT (1 - s s^T / M), s = sqrt(mass); T is its mean square.
        s = np.sqrt(shares[name])
        a = np.eye(len(s)) - com * np.outer(s, s) / MASSES.sum()
        exact = 300.0 * np.sqrt(2 * np.trace(a @ a) / np.trace(a) ** 2 / 3 / (4 * frames))
        assert abs(group.mean_K - 300.0) < 4 * exact
        # g sums 10 lags of a correlation that is zero, each known to 1 / sqrt(6000): g = 1 +- 0.08, never below 1.
        assert 0.95 * exact < group.stderr_K < 1.15 * exact


def test_forgetting_the_fixed_momentum_is_caught() -> None:
    """Counting 27 degrees of freedom where 24 move reads 11 % low: the test above can fail."""
    result = equipartition(momenta(1500, com=True), MASSES, NUMBERS, 300.0, False)
    assert result.total.mean_K == pytest.approx(300.0 * 24 / 27, rel=0.02)
    assert result.verdict is Verdict.FAIL


def test_hot_hydrogens_fail_and_are_named() -> None:
    """Hydrogens 10 % hot, the rest right."""
    p = momenta(1500, com=False)
    p[:, :, NUMBERS == 1] *= np.sqrt(1.1)
    result = equipartition(p, MASSES, NUMBERS, 300.0, False)
    assert {name: g.verdict for name, g in result.by_element.items()} == {
        "C": Verdict.PASS,
        "O": Verdict.PASS,
        "H": Verdict.FAIL,
    }
    assert result.verdict is Verdict.FAIL


def test_a_short_run_is_inconclusive() -> None:
    """Ten frames do not resolve 3 % of a mean over 27 degrees of freedom: 3 sigma is 4 % and more."""
    assert (
        equipartition(momenta(10, com=False)[:, :1], MASSES, NUMBERS, 300.0, False).total.verdict
        is Verdict.INCONCLUSIVE
    )


def many(frames: int, seed: int, temperature_K: float = 300.0) -> np.ndarray:
    """Independent canonical momenta at rest, shape (frames, 4, 9, 3)."""
    rng = np.random.default_rng(seed)
    white = rng.standard_normal((frames, 4, 9, 3)) * np.sqrt(KB * temperature_K * MASSES)[:, None]
    return at_rest(white, MASSES)


def shapes(frames: int, seed: int) -> np.ndarray:
    """A molecule that turns and vibrates, A, shape (frames, 4, 9, 3)."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((9, 3)) * 2.0 + 0.2 * rng.standard_normal((frames, 4, 9, 3))


@pytest.mark.parametrize("seed", range(3))
def test_the_canonical_ensemble_passes_in_every_part(seed: int) -> None:
    """Total, elements, motions and the distribution; the translation of a molecule at rest is none."""
    result = equipartition(many(4000, seed), MASSES, NUMBERS, 300.0, True, positions=shapes(4000, seed))
    assert set(result.by_motion) == {"rotation", "internal"}
    assert result.verdict is Verdict.PASS
    for group in result.by_motion.values():
        dof = {"rotation": 3, "internal": 21}[group.name]
        exact = 300.0 * np.sqrt(2 / dof / 16000)
        assert abs(group.mean_K - 300.0) < 4 * exact
        assert 0.95 * exact < group.stderr_K < 1.15 * exact


@pytest.mark.parametrize("seed", range(3))
def test_a_thermostat_at_310_K_fails(seed: int) -> None:
    """3.3 % too hot, three sigma of 16,000 frames of 24 degrees of freedom is 0.7 %; the shape is right."""
    result = equipartition(many(4000, seed, 310.0), MASSES, NUMBERS, 300.0, True)
    assert result.total.verdict is Verdict.FAIL
    assert result.distribution.verdict is Verdict.PASS


@pytest.mark.parametrize("seed", range(3))
def test_hydrogens_5_percent_hot_fail_where_the_mean_looks_fine(seed: int) -> None:
    """Heavy atoms pay for it; the total is 300 K and passes."""
    p = many(4000, seed)
    light = NUMBERS == 1
    shares = 3 * (1 - MASSES / MASSES.sum())
    p[:, :, light] *= np.sqrt(1.05)
    p[:, :, ~light] *= np.sqrt(1 - 0.05 * shares[light].sum() / shares[~light].sum())
    result = equipartition(p, MASSES, NUMBERS, 300.0, True)
    assert result.total.verdict is Verdict.PASS
    assert result.by_element["H"].verdict is Verdict.FAIL
    assert result.by_element["H"].mean_K == pytest.approx(315.0, abs=4.0)


def test_a_flying_ice_cube_fails() -> None:
    """Rotation twice as hot, vibration paying for it (Harvey et al., J. Comput. Chem. 19, 726 (1998))."""
    p, x = many(2000, 0), shapes(2000, 0)
    centred = x - np.average(x, axis=2, weights=MASSES)[:, :, None]
    square = np.einsum("i,fria,frib->frab", MASSES, centred, centred)
    inertia = np.trace(square, axis1=2, axis2=3)[..., None, None] * np.eye(3) - square
    turn = np.linalg.solve(inertia, np.cross(centred, p).sum(axis=2)[..., None])[..., 0]
    rigid = MASSES[:, None] * np.cross(turn[:, :, None], centred)
    hot = np.sqrt(2.0) * rigid + np.sqrt(18 / 21) * (p - rigid)
    result = equipartition(hot, MASSES, NUMBERS, 300.0, True, positions=x)
    assert {name: g.verdict for name, g in result.by_motion.items()} == {
        "rotation": Verdict.FAIL,
        "internal": Verdict.FAIL,
    }
    assert result.by_motion["rotation"].mean_K == pytest.approx(600.0, rel=0.03)
    assert result.total.verdict is Verdict.PASS


def test_a_pinned_temperature_has_the_wrong_distribution() -> None:
    """Velocities rescaled halfway to 300 K in every frame: the mean is right and the width is not."""
    p = many(500, 0)
    t = (p**2 / MASSES[:, None]).sum(axis=(2, 3)) / (24 * KB)
    result = equipartition(p * np.sqrt(300.0 / t)[..., None, None] ** 0.5, MASSES, NUMBERS, 300.0, True)
    assert result.total.verdict is Verdict.PASS
    assert result.distribution.verdict is Verdict.FAIL
    assert result.distribution.width_K == pytest.approx(150.0, rel=0.1)


def test_replicas_at_different_temperatures_have_the_wrong_distribution() -> None:
    """Two at 240 K and two at 360 K."""
    p = np.concatenate([many(1000, 0, 240.0)[:, :2], many(1000, 1, 360.0)[:, :2]], axis=1)
    # Frames in random order: kept in order, the replicas' difference is one endless correlation, and inconclusive.
    p = np.random.default_rng(0).permutation(p.reshape(4000, 1, 9, 3)).reshape(1000, 4, 9, 3)
    assert equipartition(many(1000, 2), MASSES, NUMBERS, 300.0, True).distribution.verdict is Verdict.PASS
    assert equipartition(p, MASSES, NUMBERS, 300.0, True).distribution.verdict is Verdict.FAIL


def test_false_alarms_are_rare() -> None:
    """At most 0.3 % for each of total, three elements and two motions and 0.1 % for the distribution: 1.8 % in all.

    Of 300 clean runs of 100 frames, whose three sigma of 4.3 % is above the limits and so decides, at most 13 fail
    (99.9 % of the binomial).
    """
    fails = 0
    for seed in range(300):
        result = equipartition(many(100, seed), MASSES, NUMBERS, 300.0, True, positions=shapes(100, seed))
        fails += result.verdict is Verdict.FAIL
    assert fails <= 13


def test_motions_are_those_of_physical_validation() -> None:
    """Two molecules and an atom of random shape: to rounding, frame by frame."""
    from physical_validation.util.kinetic_energy import calc_molec_kinetic_energy

    rng = np.random.default_rng(0)
    x, p = rng.standard_normal((2, 5, 9, 3))
    molecules = [np.arange(4), np.arange(4, 8), np.array([8])]
    mine = kinetic_by_motion(x, p, MASSES, molecules, com_removed=False)
    for f in range(5):
        theirs = calc_molec_kinetic_energy(x[f], p[f] / MASSES[:, None], MASSES, np.array([0, 4, 8]), 9, 3)
        for name, key in (("translation", "translational"), ("rotation", "rotational"), ("internal", "internal")):
            assert mine[name][0][f] == pytest.approx(theirs[key].sum(), rel=1e-9)
    assert {name: dof for name, (_, dof) in mine.items()} == {"translation": 9, "rotation": 6, "internal": 12}


@pytest.mark.parametrize(
    ("line", "dof"),
    [([0.0, 1.2], {"rotation": 2, "internal": 1}), ([0.0, 1.2, 2.4], {"rotation": 2, "internal": 4}), ([0.0], {})],
)
def test_linear_molecules_turn_about_two_axes(line: list[float], dof: dict[str, float]) -> None:
    """A diatomic has one vibration, a linear triatomic four, an atom at rest nothing."""
    n = len(line)
    x = np.zeros((1, n, 3))
    x[0, :, 0] = line
    p = at_rest(np.random.default_rng(0).standard_normal((1, n, 3)), MASSES[:n])
    parts = kinetic_by_motion(x, p, MASSES[:n], [np.arange(n)], com_removed=True)
    assert {name: d for name, (_, d) in parts.items()} == dof
    if n > 1:
        along = 0.5 * (p[0, :, 0] ** 2 / MASSES[:n]).sum()
        assert parts["internal"][0][0] >= along * (1 - 1e-12), "motion along the axis is internal"


def test_fewer_than_50_samples_are_not_judged() -> None:
    """Not even what is far too hot."""
    result = equipartition(many(12, 0, 600.0), MASSES, NUMBERS, 300.0, True)
    assert result.total.samples < 50
    assert result.verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(
    ("p", "message"),
    [
        (np.full((5, 1, 9, 3), np.nan), "finite"),
        (np.zeros((0, 1, 9, 3)), "do not fit"),
        (np.zeros((5, 1, 8, 3)), "do not fit"),
        (np.zeros((5, 9, 3)), "do not fit"),
    ],
)
def test_what_has_no_temperature_is_refused(p: np.ndarray, message: str) -> None:
    """NaN, no frames, other atoms, a missing axis."""
    with pytest.raises(ValueError, match=message):
        equipartition(p, MASSES, NUMBERS, 300.0, True)


def test_one_frame_is_inconclusive() -> None:
    """It has a temperature and no error bar."""
    result = equipartition(many(1, 0)[:, :1], MASSES, NUMBERS, 300.0, True, positions=shapes(1, 0)[:, :1])
    assert result.verdict is Verdict.INCONCLUSIVE


def test_nve_is_reported_and_not_judged() -> None:
    """Without a bath there is nothing to be held to."""
    result = equipartition(momenta(200, com=True), MASSES, NUMBERS, None, True)
    assert isinstance(result, Temperatures)
    assert result.verdict is None
    assert result.total.mean_K == pytest.approx(300.0, rel=0.03)


def test_statistical_inefficiency_of_ar1() -> None:
    """AR(1) noise has g = (1 + a) / (1 - a) = 19 at a = 0.9; the estimate over 40,000 frames is within 20 %.

    Its variance is about 2 (2 M + 1) / N of g^2 (Madras & Sokal 1988): M = 60 lags until zero, 8 %.
    """
    rng = np.random.default_rng(0)
    series = lfilter([1.0], [1.0, -0.9], rng.standard_normal((8, 5000)), axis=-1)
    assert statistical_inefficiency(series) == pytest.approx(19.0, rel=0.2)


def test_a_constant_series_is_worth_one_sample() -> None:
    """No division by a variance of zero, and no false confidence."""
    assert statistical_inefficiency(np.full((2, 50), 1.1)) == 100.0
