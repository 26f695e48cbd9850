"""Are bonds, angles and dihedrals the same? Their means, widths and distributions, each beside what sampling alone shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlff_sim.forces import Array
from mlff_sim.validation.deviations import Row, Sampling, compared, controls_of
from mlff_sim.validation.distances import (
    RdfResult,
    checked,
    compare,
    pair_distributions,
)
from mlff_sim.validation.internal import internal_coordinates
from mlff_sim.validation.sampling import ENOUGH_SAMPLES, student_t
from mlff_sim.validation.verdict import Verdict, worst

LIMITS = {"bond": 0.005, "angle": 0.5, "dihedral": 5.0}
"""What counts as the same, in A and degrees: an eighth and a tenth of the thermal widths of bonds and angles; of torsions,
4 % of the population hopping over by 120 degrees."""
UNITS = {"bond": "A", "angle": "deg", "dihedral": "deg"}


@dataclass(frozen=True, eq=False)
class StructureFigure:
    """One statistic of one kind of coordinate, over all coordinates that are judged; `structure_errors` has the formulas.

    Attributes:
        kind: "bond", "angle" or "dihedral".
        statistic: "mean", "width" or "wasserstein".
        unit: of everything below, "A" or "deg".
        error: RMSE of means or widths, mean Wasserstein distance.
        noise: its expectation if run and reference sampled one distribution: the seed-to-seed floor.
        noise95: its 95 % quantile under the same assumption.
        limit: what counts as the same.
        worst: name of the coordinate that exceeds its noise by most; where none does, of the one that is off by most.
        worst_error: of that coordinate, run less reference.
        worst_noise95: what all coordinates stay below together, 19 times in 20, at this coordinate.
        samples: effective samples of the slowest judged coordinate, in run or reference.
        unresolved: names of coordinates that are not judged, for want of effective samples.
        names: of all coordinates.
        errors: of all, run less reference, shape (coordinates,).
        floors: of all, what sampling shows: standard deviation, or mean of a Wasserstein distance; shape (coordinates,).
        verdict: see `structure_errors`.
        note: which rule decided, and what would settle it.
    """

    kind: str
    statistic: str
    unit: str
    error: float
    noise: float
    noise95: float
    limit: float
    worst: str
    worst_error: float
    worst_noise95: float
    samples: float
    unresolved: tuple[str, ...]
    names: tuple[str, ...]
    errors: Array
    floors: Array
    verdict: Verdict | None
    note: str


@dataclass(frozen=True, eq=False)
class StructureErrors:
    """Bonds, angles and dihedrals of a run beside those of a reference; `structure_errors` has the formulas.

    Attributes:
        figures: those judged; a molecule without dihedrals has none of these.
        mean_bond_rmse: A.
        mean_angle_rmse: degrees; NaN without angles.
        mean_dihedral_rmse: degrees; NaN without dihedrals that have a mean.
        mean_rdf_l1: between 0 and 2.
        floors: name of each of the four to what the reference shows of itself, or expects of another sample (RDF).
        pair_distances: the comparison behind `mean_rdf_l1`, with a verdict of its own.
    """

    figures: tuple[StructureFigure, ...]
    mean_bond_rmse: float
    mean_angle_rmse: float
    mean_dihedral_rmse: float
    mean_rdf_l1: float
    floors: Mapping[str, float]
    pair_distances: RdfResult

    @property
    def verdict(self) -> Verdict:
        """The worst of the figures."""
        return worst(f.verdict for f in self.figures)

    @property
    def note(self) -> str:
        """Of the first figure that has the verdict; of the first, where none could be judged."""
        shown = [f for f in self.figures if f.verdict is self.verdict] or [*self.figures]
        return shown[0].note if shown else "There is no bond, angle or dihedral."

    def figure(self, kind: str, statistic: str) -> StructureFigure:
        """The figure of a kind and statistic."""
        return next(f for f in self.figures if (f.kind, f.statistic) == (kind, statistic))


def structure_errors(
    run: Array,
    reference: Array,
    run_ps: Array,
    reference_ps: Array,
    numbers: NDArray[np.int64],
    bonds: Sequence[tuple[int, int]],
    *,
    limits: Mapping[str, float] | None = None,
    pair_distances: RdfResult | None = None,
    draws: int = 400,
    seed: int = 0,
) -> StructureErrors:
    """Hold the bonds, angles and dihedrals of a molecule to those of a reference.

    For every coordinate q (`internal_coordinates`), run less reference:

        mean          <q>, of a dihedral the circular mean arg <exp(iq)>
        width         standard deviation, of a dihedral the angular deviation sqrt(2 (1 - R)), R = |<exp(iq)>|, which is
                      the standard deviation of narrow distributions and 81 degrees of a free rotor
        wasserstein   integral |F - F_ref| dq of the cumulated distributions, of a dihedral the least
                      integral |F - F_ref - c| dq over all c, the distance on the circle

    The first two are summed up as root mean squares over the coordinates, the third as their mean. A dihedral counts for
    mean and width where R of the reference exceeds 3/4; one that visits several wells has neither. (Mardia & Jupp,
    Directional Statistics (2000), section 2.3; Rabin, Delon & Gousseau, J. Math. Imaging Vis. 41, 147 (2011),
    doi:10.1007/s10851-011-0284-0.)

    Floor, of each coordinate and of each figure: what another sample of the reference's physics would show. Means of up to
    64 blocks of the reference, drawn with random signs (the wild bootstrap of `compare`) and scaled to the lengths of run
    and reference, or to what the run's effective samples know where that is less than its length leads one to expect, as in
    samplers of other dynamics. Blocks shorter than memory lasts scatter too little; that is mended by the factor of
    exponential correlation with the statistical inefficiency that pymbar finds. Several runs of the reference
    are several replicas of it: differences between them count as slow correlation, and so are in the floor.

    Torsions with fewer than 50 effective samples shift bonds and angles: gauche and trans differ by degrees in an angle
    beside them, and a run that happened to see more of one would not be wrong. Bonds and angles are therefore compared at
    the reference's populations of such torsions, by regression on cos and sin of up to three times their angles.

    What is held rigid, by constraints, is known for certain and has a sample in every frame.

    Verdict of a figure, over the coordinates with 50 or more effective samples in run and in reference:
        none: no coordinate has so many, and nothing is judged.
        FAIL: the figure less its 95 % quantile of noise is beyond the limit; or so is any coordinate by itself, less what
            all coordinates stay below together 19 times in 20.
        PASS: no coordinate is beyond the limit; or none is beyond the noise, which is itself within the limit.
        INCONCLUSIVE: anything else.
    A coordinate with fewer, such as a torsion that hardly hops, is named and not judged: its populations decide nothing.

    The project's origin had four figures whose formulas were not kept. Here they are the plain ones that come out at the
    same size: mean over all coordinates of the root mean square, over frames, of the distance from the reference's mean
    (the shorter way round for dihedrals, those with a mean only), so that a perfect run shows the thermal width, which
    `floors` has; and the mean over element pairs of integral |p - p_ref| dr of `compare`.

    Args:
        run: A, shape (frames, replicas, n, 3), not wrapped.
        reference: the same shape with other frames and replicas.
        run_ps: ps, shape (frames,), evenly spaced.
        reference_ps: ps, shape (frames,).
        numbers: atomic numbers, shape (n,).
        bonds: pairs of bonded atoms, such as of `mlff_sim.structure.covalent_bonds`.
        limits: what counts as the same; default 0.005 A for "bond", 0.5 and 5 degrees for "angle" and "dihedral".
        pair_distances: the comparison of pair distances where it is at hand; None to make it.
        draws: pseudo-runs.
        seed: of the signs.

    Raises:
        ValueError: wrong shapes, fewer than two frames, numbers that are not finite, no bonds, an unknown limit.
    """
    x, step = checked(run, run_ps, numbers)
    y, reference_step = checked(reference, reference_ps, numbers)
    if not len(bonds):
        raise ValueError("no bonds; give pairs of bonded atoms, or compare pair distances alone.")
    limit = {**LIMITS, **(limits or {})}
    if set(limit) != set(LIMITS) or not all(v >= 0 for v in limit.values()):
        raise ValueError(f"limits = {dict(limits or {})} must be of {', '.join(LIMITS)}, and none below 0.")
    sample = Sampling(x.shape, y.shape, step, reference_step, draws, seed)
    p, q = (np.ascontiguousarray(a.reshape(-1, len(numbers), 3).transpose(2, 1, 0)) for a in (x, y))
    coordinates = internal_coordinates(numbers, bonds, q)
    slow = controls_of([c for c in coordinates if c.kind == "dihedral"], p, q, sample)
    rows: dict[str, list[Row]] = {}
    for c in coordinates:
        rows.setdefault(c.kind, []).append(compared(c, c.values(p), c.values(q), sample, slow))
    figures = [
        _figure(kind, statistic, [r for r in of_kind if statistic in r.errors], limit[kind], sample)
        for kind, of_kind in rows.items()
        for statistic in ("mean", "width", "wasserstein")
        if any(statistic in r.errors for r in of_kind)
    ]
    if pair_distances is None:
        pair_distances = compare(
            pair_distributions(x, run_ps, numbers), pair_distributions(y, reference_ps, numbers), draws=draws, seed=seed
        )
    spreads = {kind: [r.spread for r in of_kind if "mean" in r.errors] for kind, of_kind in rows.items()}
    mine, own = ({kind: _mean([s[k] for s in spreads.get(kind, [])]) for kind in LIMITS} for k in (0, 1))
    return StructureErrors(
        figures=tuple(figures),
        mean_bond_rmse=mine["bond"],
        mean_angle_rmse=mine["angle"],
        mean_dihedral_rmse=mine["dihedral"],
        mean_rdf_l1=0.01 * pair_distances.error_percent,
        floors={f"mean_{k}_rmse": v for k, v in own.items()} | {"mean_rdf_l1": 0.01 * pair_distances.noise_percent},
        pair_distances=pair_distances,
    )


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


def _figure(kind: str, statistic: str, rows: list[Row], limit: float, sample: Sampling) -> StructureFigure:
    """Sum up and judge; see `structure_errors`."""
    errors = np.array([r.errors[statistic] for r in rows])
    pseudo = np.stack([r.pseudo[statistic] for r in rows])
    samples = np.array([r.samples[statistic] for r in rows])
    names = tuple(r.name for r in rows)
    squares = statistic != "wasserstein"
    floors = np.sqrt((pseudo**2).mean(axis=1)) if squares else pseudo.mean(axis=1)
    judged = samples >= ENOUGH_SAMPLES
    seen = judged if judged.any() else np.ones_like(judged)

    def total(values: Array) -> Array:
        out: Array = np.sqrt((values**2).mean(axis=0)) if squares else values.mean(axis=0)
        return out

    error, drawn = float(total(errors[seen])), total(pseudo[seen])
    noise = noise95 = float("inf")
    if np.isfinite(drawn).all():
        noise, noise95 = float(drawn.mean()), float(np.quantile(drawn, 0.95))
    together = _together(np.abs(pseudo[seen]), floors[seen], sample.count)
    bands = together * floors
    excess = np.where(seen, np.abs(errors) - bands, -np.inf)
    # The one that is off beyond noise by most; where none is, the one that is off by most.
    k = int(np.argmax(excess if excess.max() > 0 else np.where(seen, np.abs(errors), -1.0)))
    unit = UNITS[kind]
    what = f"{kind} {names[k]} ({statistic}) is off by {errors[k]:+.2g} {unit}, sampling explains {bands[k]:.2g}"
    verdict: Verdict | None = Verdict.INCONCLUSIVE
    note = f"{what}, the limit is {limit:g}: run longer."
    if not judged.any():
        verdict, note = None, ""
    elif error - noise95 > limit or excess[k] > limit:
        verdict, note = Verdict.FAIL, f"{what}, the limit is {limit:g}."
    elif np.abs(errors[judged]).max() <= limit:
        verdict, note = Verdict.PASS, f"No {kind} is off by more than {limit:g} {unit}."
    elif excess[k] <= 0 and error <= noise95 and floors[judged].max() <= limit:
        verdict, note = Verdict.PASS, f"{what}: no more than sampling."
    if not judged.all():
        j = int(np.argmin(samples))
        note += (
            f" Not judged: {int((~judged).sum())} of {len(names)} {kind}s with too few effective samples, {names[j]} "
            f"{samples[j]:.0f} where {ENOUGH_SAMPLES:.0f} are needed; sample run and reference longer."
        )
    return StructureFigure(
        kind=kind,
        statistic=statistic,
        unit=unit,
        error=error,
        noise=noise,
        noise95=noise95,
        limit=limit,
        worst=names[k],
        worst_error=float(errors[k]),
        worst_noise95=float(bands[k]),
        samples=float(samples[seen].min()),
        unresolved=tuple(n for n, ok in zip(names, judged, strict=True) if not ok),
        names=names,
        errors=errors,
        floors=floors,
        verdict=verdict,
        note=note.strip(),
    )


def _together(pseudo: Array, floors: Array, blocks: int) -> float:
    """Times its floor that no coordinate exceeds, 19 times in 20, with floors that are estimates from so many blocks."""
    from scipy.special import ndtr

    if not np.isfinite(floors).all():
        return float("inf")
    highest = float(np.quantile((pseudo / np.maximum(floors, 1e-300)[:, None]).max(axis=0), 0.95))
    return max(highest, student_t(float(ndtr(highest)), blocks - 1.0))
