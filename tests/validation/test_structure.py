"""Bonds, angles and dihedrals: values, formulas, floors that are the scatter of twins; faults are caught, hops are not faults."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from scipy.signal import lfilter
from scipy.stats import binom, wasserstein_distance

from mlff_sim.forces import Array
from mlff_sim.structure import covalent_bonds
from mlff_sim.validation import StructureErrors, Verdict, structure_errors
from mlff_sim.validation.deviations import Sampling, compared
from mlff_sim.validation.internal import Coordinate, internal_coordinates


def columns(positions: Array) -> Array:
    """(frames, replicas, n, 3) as (3, n, sets)."""
    return np.ascontiguousarray(positions.reshape(-1, *positions.shape[2:]).transpose(2, 1, 0))


@pytest.fixture
def judge(ethanol: Atoms) -> Callable[..., StructureErrors]:
    """Run against reference, frames 10 fs apart."""

    def judged(run: Array, reference: Array, **options: Any) -> StructureErrors:
        times = [0.01 * np.arange(len(x)) for x in (run, reference)]
        return structure_errors(run, reference, *times, ethanol.numbers, covalent_bonds(ethanol), **options)

    return judged


def test_values_are_those_of_ase(ethanol: Atoms) -> None:
    """Lengths, angles and dihedrals of thirty scattered frames, to rounding."""
    rng = np.random.default_rng(0)
    x = ethanol.positions + 0.1 * rng.standard_normal((30, 1, len(ethanol), 3))
    frame = ethanol.copy()
    for c in internal_coordinates(ethanol.numbers, covalent_bonds(ethanol), columns(x)):
        values = c.values(columns(x))
        for k in range(30):
            frame.positions = x[k, 0]
            for atoms, value in zip(c.atoms, values[:, k], strict=True):
                asked = {"bond": frame.get_distance, "angle": frame.get_angle, "dihedral": frame.get_dihedral}[c.kind]
                off = asked(*atoms) - value
                assert abs((off + 180) % 360 - 180) < 1e-7


def test_what_there_is_in_ethanol(ethanol: Atoms) -> None:
    """8 bonds, 13 angles, 12 dihedrals; hydrogens of a methyl or methylene group are not told apart by these."""
    found = internal_coordinates(ethanol.numbers, covalent_bonds(ethanol), columns(ethanol.positions[None, None]))
    kinds = [c.kind for c in found]
    assert [kinds.count(k) for k in ("bond", "angle", "dihedral")] == [8, 13, 4]
    sizes = {c.name: len(c.atoms) for c in found if c.kind == "dihedral"}
    assert sorted(sizes.values()) == [1, 2, 3, 6] and sum(sizes.values()) == 12
    assert found[0].name == "C0-C1"


def test_linear_angles_have_no_dihedrals() -> None:
    """Propyne: none across its triple bond or beyond, where a dihedral would jump at random."""
    propyne = molecule("C3H4_C3v")
    found = internal_coordinates(propyne.numbers, covalent_bonds(propyne), columns(propyne.positions[None, None]))
    assert [c.kind for c in found].count("angle") == 6 + 2
    assert not [c.name for c in found if c.kind == "dihedral"]


def test_formulas(ethanol: Atoms, make_run: Callable[..., Array], judge: Callable[..., StructureErrors]) -> None:
    """RMSE of means and widths and mean Wasserstein distance, beside NumPy and SciPy on the values themselves.

    The histogram of 120 bins shifts a Wasserstein distance by less than a bin; far less where densities are smooth.
    """
    run, reference = make_run(300, 2, seed=1, tau=0.5), make_run(400, 2, seed=2, tau=0.5)
    result = judge(run, reference)
    coordinates = internal_coordinates(ethanol.numbers, covalent_bonds(ethanol), columns(reference))
    values = [(c, c.values(columns(run)), c.values(columns(reference))) for c in coordinates]
    for kind in ("bond", "angle"):
        a, b = (np.concatenate([v[k] for v in values if v[0].kind == kind]) for k in (1, 2))
        means, widths = a.mean(axis=1) - b.mean(axis=1), a.std(axis=1) - b.std(axis=1)
        assert result.figure(kind, "mean").error == pytest.approx(np.sqrt((means**2).mean()))
        assert result.figure(kind, "width").error == pytest.approx(np.sqrt((widths**2).mean()), rel=1e-9)
        w = np.mean([wasserstein_distance(u, v) for u, v in zip(a, b, strict=True)])
        assert result.figure(kind, "wasserstein").error == pytest.approx(w, rel=0.1)
        plain = np.mean([np.sqrt(((u - v.mean()) ** 2).mean()) for u, v in zip(a, b, strict=True)])
        assert getattr(result, f"mean_{kind}_rmse") == pytest.approx(plain)
        assert result.floors[f"mean_{kind}_rmse"] == pytest.approx(b.std(axis=1).mean())
    one = next(v for v in values if v[0].kind == "dihedral" and len(v[0].atoms) == 1)
    z, w = (np.exp(1j * np.radians(v)).mean() for v in one[1:])
    k = result.figure("dihedral", "mean").names.index(one[0].name)
    assert result.figure("dihedral", "mean").errors[k] == pytest.approx(np.degrees(np.angle(z / w)))
    widths = [np.degrees(np.sqrt(2 * (1 - abs(v)))) for v in (z, w)]
    assert result.figure("dihedral", "width").errors[k] == pytest.approx(widths[0] - widths[1])
    assert result.mean_rdf_l1 == pytest.approx(0.01 * result.pair_distances.error_percent)


@pytest.mark.parametrize("centre", [0.0, 90.0, 180.0])
def test_dihedrals_live_on_a_circle(centre: float) -> None:
    """A chain whose dihedral is moved by 20 degrees: mean and Wasserstein distance say 20 wherever on the circle it sits.

    Tolerance: the standard error of the difference for Gaussians of 8 degrees, four times, and a bin of 3 degrees, by which
    the edges of histograms can bring it down.
    """
    rng = np.random.default_rng(3)

    def chain(mean: float, frames: int) -> Array:
        phi = np.radians(rng.normal(mean, 8.0, (frames, 2)))
        x = np.zeros((frames, 2, 4, 3))
        x[:, :, 0], x[:, :, 2] = [1.4, 0.0, 0.0], [0.0, 0.0, 1.5]
        x[:, :, 3] = np.stack([1.4 * np.cos(phi), 1.4 * np.sin(phi), np.full_like(phi, 1.5)], axis=-1)
        return x

    t, z, bonds = 0.01 * np.arange(2000), np.array([8, 6, 6, 8]), [(0, 1), (1, 2), (2, 3)]
    result = structure_errors(chain(centre + 20.0, 2000), chain(centre, 2000), t, t, z, bonds)
    error = 4 * 8.0 * np.sqrt(2 / 4000)
    assert abs(result.figure("dihedral", "mean").worst_error) == pytest.approx(20.0, abs=error)
    assert result.figure("dihedral", "wasserstein").error == pytest.approx(20.0, abs=error + 0.3)
    assert result.mean_dihedral_rmse == pytest.approx(np.hypot(20.0, 8.0), abs=error)
    assert result.floors["mean_dihedral_rmse"] == pytest.approx(8.0, abs=error)
    assert result.verdict is Verdict.FAIL
    # Held rigid, as with constraints: known for certain, not for want of samples unknown.
    assert result.figure("bond", "mean").verdict is Verdict.PASS


@pytest.mark.parametrize("seed", [10, 20, 30])
def test_the_clean_twin_passes(
    make_run: Callable[..., Array], judge: Callable[..., StructureErrors], seed: int
) -> None:
    """Bonds, angles and dihedrals of another sample of the same physics."""
    result = judge(make_run(2500, seed=seed), make_run(2500, seed=seed + 1))
    assert result.verdict is Verdict.PASS, result.note
    for f in result.figures:
        assert f.error < 2 * f.noise95 and f.samples > 50 and not f.unresolved


@pytest.mark.parametrize("seed", [10, 20, 30])
def test_one_long_bond_is_caught(
    ethanol: Atoms, make_run: Callable[..., Array], judge: Callable[..., StructureErrors], seed: int
) -> None:
    """One C-H of five, by 0.01 A, which is a quarter of its width; the figure names it, and its size within the noise."""
    run = make_run(2500, seed=seed, tau=1.0)
    axis = ethanol.positions[4] - ethanol.positions[0]
    run[:, :, 4] += 0.01 * axis / np.linalg.norm(axis)
    figure = judge(run, make_run(2500, seed=seed + 1, tau=1.0)).figure("bond", "mean")
    assert figure.verdict is Verdict.FAIL
    assert figure.worst == "C0-H4" and "C0-H4" in figure.note
    assert abs(figure.worst_error - 0.01) < figure.worst_noise95 < 0.005


def test_a_wrong_angle_is_caught(
    ethanol: Atoms, make_run: Callable[..., Array], judge: Callable[..., StructureErrors]
) -> None:
    """C-C-O opened by two degrees with all bond lengths kept: the bonds pass."""
    run = make_run(2500, seed=40)
    frame = ethanol.copy()
    frame.set_angle(0, 1, 2, 2.0, indices=[2, 8], add=True)
    run += frame.positions - ethanol.positions
    result = judge(run, make_run(2500, seed=41))
    assert result.figure("bond", "mean").verdict is Verdict.PASS
    figure = result.figure("angle", "mean")
    assert figure.verdict is Verdict.FAIL and result.verdict is Verdict.FAIL
    k = figure.names.index("C0-C1-O2")
    assert abs(figure.errors[k] - 2.0) < 5 * figure.floors[k]


def test_a_wrong_width_is_caught(make_run: Callable[..., Array], judge: Callable[..., StructureErrors]) -> None:
    """Everything scatters a quarter more about the same places."""
    run, reference = make_run(2500, seed=50), make_run(2500, seed=51)
    run += 0.25 * (run - run.mean(axis=(0, 1)))
    result = judge(run, reference)
    for kind in ("bond", "angle"):
        assert result.figure(kind, "width").verdict is Verdict.FAIL
        assert (result.figure(kind, "width").errors > 0).all()


def test_rotamers_that_were_sampled_are_judged(
    make_run: Callable[..., Array], judge: Callable[..., StructureErrors]
) -> None:
    """A fast torsion with its populations exchanged, 60:40 for 40:60, is a failure: 0.2 x 120 degrees on the circle."""
    reference = make_run(2500, seed=60, hop=5.0)
    figure = judge(make_run(2500, seed=61, hop=5.0, populations=(0.4, 0.6)), reference).figure(
        "dihedral", "wasserstein"
    )
    assert figure.verdict is Verdict.FAIL and "O2" in figure.worst
    k = figure.names.index("C0-C1-O2-H8")
    assert figure.errors[k] == pytest.approx(0.2 * 120.0, abs=5 * figure.floors[k])
    twin = judge(make_run(2500, seed=62, hop=5.0), reference)
    assert twin.figure("dihedral", "wasserstein").verdict is not Verdict.FAIL


@pytest.mark.parametrize("seed", [70, 80, 90])
def test_rotamers_that_hardly_hop_decide_nothing(
    make_run: Callable[..., Array], judge: Callable[..., StructureErrors], seed: int
) -> None:
    """A few hops in all, populations far off: the torsion is named and not judged, and no angle beside it fails.

    C-C-O is 2.6 degrees wider in the second well, so means would be off by more than a degree.
    """
    slow = {"hop": 500.0, "methyl": 300.0}
    run = make_run(1500, seed=seed, populations=(0.15, 0.85), **slow)
    result = judge(run, make_run(1500, seed=seed + 1, **slow))
    assert result.verdict is not Verdict.FAIL
    dihedral = result.figure("dihedral", "wasserstein")
    assert "C0-C1-O2-H8" in dihedral.unresolved and "effective samples" in dihedral.note
    angle = result.figure("angle", "mean")
    assert angle.verdict is not Verdict.FAIL
    k = angle.names.index("C0-C1-O2")
    assert abs(angle.errors[k]) < 5 * angle.floors[k] < 1.0


def test_a_fault_is_found_beside_a_slow_torsion(
    ethanol: Atoms, make_run: Callable[..., Array], judge: Callable[..., StructureErrors]
) -> None:
    """C-O too long by 0.015 A in both wells of a torsion that hardly hops."""
    run, reference = (make_run(1500, seed=s, hop=500.0, methyl=300.0) for s in (75, 76))
    axis = ethanol.positions[2] - ethanol.positions[1]
    run[:, :, [2, 8]] += 0.015 * axis / np.linalg.norm(axis)
    figure = judge(run, reference).figure("bond", "mean")
    assert figure.verdict is Verdict.FAIL and figure.worst == "C1-O2"


def test_a_methyl_group_may_turn(make_run: Callable[..., Array], judge: Callable[..., StructureErrors]) -> None:
    """It turned in the run and not in the reference: its hydrogens are exchanged, and the dihedrals are the same."""
    figure = judge(make_run(2500, seed=64, methyl=400.0), make_run(2500, seed=65)).figure("dihedral", "wasserstein")
    assert figure.verdict is Verdict.PASS, figure.note
    turning = [n for n in figure.names if "H3" in n]
    assert len(turning) == 2 and all("alike" in n for n in turning)


def test_widths_have_samples_of_their_own(
    ethanol: Atoms, make_run: Callable[..., Array], judge: Callable[..., StructureErrors]
) -> None:
    """Energy that comes and goes slowly, as at low friction: many samples of means, few of widths, and floors to match."""
    runs = []
    for seed in (68, 69):
        x, rng = make_run(2500, seed=seed, tau=0.5), np.random.default_rng(seed)
        slow = lfilter([0.1], [1.0, -0.995], rng.standard_normal((2500, 4)), axis=0)  # memory of 200 frames
        runs.append(ethanol.positions + np.exp(0.3 * slow)[..., None, None] * (x - ethanol.positions))
    result = judge(*runs)
    assert result.figure("bond", "mean").samples > 10 * result.figure("bond", "width").samples
    assert result.figure("bond", "mean").verdict is Verdict.PASS
    assert result.figure("bond", "width").verdict is not Verdict.FAIL
    steady = judge(*(make_run(2500, seed=seed, tau=0.5) for seed in (68, 69)))
    assert (result.figure("bond", "width").floors > 3 * steady.figure("bond", "width").floors).all()


def test_a_methyl_group_that_leans_slowly_is_not_resolved(
    ethanol: Atoms, make_run: Callable[..., Array], judge: Callable[..., StructureErrors]
) -> None:
    """It leans 10 degrees one way, then the other: e^{i phi} of its three hydrogens adds up to nothing and does not see it."""
    run, reference = make_run(2000, seed=66), make_run(2000, seed=67)
    rng, start = np.random.default_rng(0), ethanol.positions
    axis = (start[0] - start[1]) / np.linalg.norm(start[0] - start[1])
    for x in (run, reference):
        sign = np.repeat(rng.choice([-1.0, 1.0], (5, 4)), 400, axis=0)
        for h in (3, 4, 5):
            x[:, :, h] += np.radians(10.0) * sign[..., None] * np.cross(axis, start[h] - start[0])
    figure = judge(run, reference).figure("dihedral", "wasserstein")
    assert figure.verdict is not Verdict.FAIL
    assert sum("alike" in n and "H3" in n for n in figure.unresolved) == 2


@pytest.mark.parametrize("tau", [2.0, 25.0, 60.0])
def test_blocks_shorter_than_memory_are_mended(tau: float) -> None:
    """The mean of N steps of AR(1) has the variance (1 + a) / (1 - a) / N, a = exp(-1 / tau), to first order in tau / N.

    Mean over 300 series of 4 x 1000 steps in blocks of 62. Each estimate has 63 degrees of freedom at most, so their mean
    is known to 4 sqrt(2 / 63 / 300), 4 %; the order neglected is tau / 1000 and what mean of all takes off, 1 / N_eff.
    """
    rng, a = np.random.default_rng(1), np.exp(-1.0 / tau)
    slow = (1 + a) / (1 - a)
    sampling = Sampling((1000, 4), (1000, 4), 1.0, 1.0, 1, 0)
    sampling.signs = np.eye(64)  # the sum of squares is then that of all signs on average
    assert sampling.count == 64
    found = []
    for _ in range(300):
        noise = rng.standard_normal((1000, 4))
        noise[0] /= np.sqrt(1 - a * a)
        series = lfilter([np.sqrt(1 - a * a)], [1.0, -a], noise, axis=0).ravel()
        found.append((sampling.pseudo(sampling.means(series), slow, 0.0, 0.0) ** 2).sum())
    exact = 2 * slow / 4000
    assert np.mean(found) == pytest.approx(exact, rel=0.04 + tau / 1000 + slow / 4000)


def test_frames_of_a_sampler_know_less_than_those_that_follow_a_vibration() -> None:
    """Frames that resolve a vibration know its mean far better than as many independent ones, which macro-steps leave.

    A bond that oscillates with the period of 10 frames for 50, 4 x 4000 of them, beside 400 independent frames in as long: the
    difference of their means scatters by 1 / 20 of its width, to 15 % over 200 pairs (three times 1 / (2 x 200)^1/2). Pseudo-runs
    do so too, or more by up to 30 %: 400 samples are estimated as 400 at most, on average 290. By the blocks of the reference alone it
    would be a third.
    """
    rng, decay = np.random.default_rng(2), np.exp(-1 / 50)
    bond = Coordinate("bond", ((0, 1),), "bond")
    sampling = Sampling((400, 1), (4000, 4), 40.0, 1.0, 200, 0)
    rows = []
    for _ in range(200):
        noise = np.sqrt(1 - decay**2) * (rng.standard_normal((4000, 4)) + 1j * rng.standard_normal((4000, 4)))
        series = lfilter([1.0], [1.0, -decay * np.exp(0.2j * np.pi)], noise, axis=0).real
        rows.append(compared(bond, rng.standard_normal((1, 400)) + 50, series.reshape(1, -1) + 50, sampling, {}))
    assert np.std([r.errors["mean"] for r in rows]) == pytest.approx(0.05, rel=0.15)
    for statistic in ("mean", "width"):
        off = np.std([r.errors[statistic] for r in rows])
        assert 0.95 * off < np.mean([r.pseudo[statistic].std() for r in rows]) < 1.3 * off
    off = np.mean([r.errors["wasserstein"] for r in rows])
    assert 0.95 * off < np.mean([r.pseudo["wasserstein"].mean() for r in rows]) < 1.3 * off


@pytest.mark.parametrize(("frames", "tau"), [(1000, 3.0), (250, 3.0), (1000, 12.0)])
def test_the_floor_is_the_scatter_of_twins(
    make_run: Callable[..., Array], judge: Callable[..., StructureErrors], frames: int, tau: float
) -> None:
    """24 pairs of twins, runs as long as the reference or a quarter: the mean error is the mean floor.

    Within four standard errors of the mean over pairs and a tenth, which is the bias that blocks of finite length leave.
    """
    pairs = [
        judge(make_run(frames, seed=200 + 2 * i, tau=tau), make_run(1000, seed=201 + 2 * i, tau=tau), draws=100)
        for i in range(24)
    ]
    for k, figure in enumerate(pairs[0].figures):
        errors, floors = (np.array([getattr(p.figures[k], name) for p in pairs]) for name in ("error", "noise"))
        stderr = np.hypot(errors.std(), floors.std()) / np.sqrt(len(pairs))
        assert abs(errors.mean() - floors.mean()) < 4 * stderr + 0.1 * floors.mean(), figure.kind + figure.statistic


@pytest.mark.slow
def test_false_alarms(ethanol: Atoms, make_run: Callable[..., Array], judge: Callable[..., StructureErrors]) -> None:
    """200 pairs of twins with a slow torsion and a turning methyl group.

    Beyond 95 % of its noise lies each figure in at most 5 %, and none fails with its limit in more than 5 %, all together:
    up to the 99.9 % quantile of the binomial.
    """
    beyond: dict[tuple[str, str], list[bool]] = {}
    failures, known = 0, None
    for i in range(200):
        run, reference = (make_run(600, seed=1000 + 2 * i + k, hop=60.0, methyl=40.0) for k in (0, 1))
        result = judge(run, reference, pair_distances=known, draws=200)
        known = result.pair_distances
        failures += result.verdict is Verdict.FAIL
        for f in result.figures:
            if f.samples >= 50:
                beyond.setdefault((f.kind, f.statistic), []).append(f.error > f.noise95)
    for seen in beyond.values():
        assert sum(seen) <= binom.ppf(0.999, len(seen), 0.05)
    assert failures <= binom.ppf(0.999, 200, 0.05)


def test_too_few_samples_decide_nothing(make_run: Callable[..., Array], judge: Callable[..., StructureErrors]) -> None:
    """Fewer than 50 effective samples: inconclusive, whatever the fault, and with a reference of one block, too."""
    short, long = make_run(10, 1, seed=5), make_run(1000, seed=6)
    for run, reference in ((short, long), (long, short), (long + 0.0, make_run(2, 1, seed=7))):
        result = judge(run, reference)
        assert result.verdict is Verdict.INCONCLUSIVE and {f.verdict for f in result.figures} == {None}
        assert "effective samples" in result.figure("bond", "mean").note
        assert result.figure("bond", "mean").unresolved


def test_identical_runs_agree(make_run: Callable[..., Array], judge: Callable[..., StructureErrors]) -> None:
    """No error at all, and no division by zero where a bond is rigid."""
    x = make_run(1500, seed=8)
    x[:, :, 8] = x[:, :, 2] + [0.0, 0.0, 0.96]
    result = judge(x, x)
    assert all(f.error < 1e-9 for f in result.figures)
    assert result.mean_bond_rmse == pytest.approx(result.floors["mean_bond_rmse"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"run": np.full((9, 1, 3, 3), np.nan)}, "finite"),
        ({"run": np.zeros((1, 1, 3, 3)), "run_ps": np.zeros(1)}, "1 frame"),
        ({"reference": np.zeros((0, 1, 3, 3)), "reference_ps": np.zeros(0)}, "0 frame"),
        ({"reference": np.zeros((9, 1, 4, 3))}, "must be"),
        ({"bonds": []}, "no bonds"),
        ({"bonds": [(0, 3)]}, "from 0 to 2"),
        ({"bonds": [(1, 1)]}, "different"),
        ({"limits": {"bonds": 1.0}}, "limits"),
        ({"limits": {"bond": -1.0}}, "limits"),
    ],
)
def test_mistakes_are_told(change: dict[str, Any], words: str) -> None:
    """In one line."""
    x, t = np.random.default_rng(0).random((9, 1, 3, 3)), np.arange(9.0)
    given: dict[str, Any] = {"run": x, "reference": x, "run_ps": t, "reference_ps": t, "numbers": np.array([1, 8, 1])}
    given |= {"bonds": [(0, 1), (1, 2)]} | change
    with pytest.raises(ValueError, match=words) as told:
        structure_errors(**given)
    assert "\n" not in str(told.value)
