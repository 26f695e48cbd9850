"""Schemes are data, so their laws are statements about tuples and hold exactly."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise

import pytest

from mlff_sim.integrators.schemes import (
    Bath,
    Drift,
    Kick,
    Scheme,
    baoab,
    is_symmetric,
    merged,
    obabo,
    only,
    respa,
    scaled,
    strang,
    substeps,
    total_time,
    verlet,
)

INNER = (verlet, baoab, obabo)
SCHEMES = (
    {inner.__name__: inner("f") for inner in INNER}
    | {f"respa-{inner.__name__}-{k}": respa("slow", inner("fast"), k) for inner in INNER for k in range(1, 8)}
    | {
        f"three-{inner.__name__}-{m}-{k}": respa("slow", respa("middle", inner("fast"), m), k)
        for inner in INNER
        for m in (1, 2, 5)
        for k in (1, 3, 4)
    }
)
schemes = pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES.keys())


@schemes
def test_a_scheme_reads_the_same_from_both_ends(scheme: Scheme) -> None:
    """Symmetric compositions are their own adjoint: second order and reversible (Strang 1968)."""
    assert is_symmetric(scheme)
    assert is_symmetric(merged(scheme))


@schemes
def test_every_flow_gets_exactly_one_step(scheme: Scheme) -> None:
    """Consistency: kicks of each force, drift and bath run for dt in all, as fractions without rounding."""
    flows = {flow for flow, _ in scheme}
    assert Drift() in flows
    assert total_time(scheme) == dict.fromkeys(flows, Fraction(1))


@schemes
def test_merging_keeps_the_times_and_leaves_no_equal_neighbours(scheme: Scheme) -> None:
    joined = merged(scheme)
    assert total_time(joined) == total_time(scheme)
    assert all(a[0] != b[0] for a, b in pairwise(joined))
    assert merged(joined) == joined


def test_merging_does_less_work() -> None:
    """k Verlet steps have k + 1 kicks when neighbouring half kicks are joined, not 2 k."""
    kicks = [flow for flow, _ in merged(respa("slow", verlet("fast"), 5)) if flow == Kick("fast")]
    assert len(kicks) == 6


@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("k", range(1, 8))
def test_respa_calls_the_slow_force_at_the_ends_only(inner: object, k: int) -> None:
    """Between two half kicks of the slow force lie k inner steps and nothing else."""
    scheme = respa("slow", inner("fast"), k)  # type: ignore[operator]
    half = (Kick("slow"), Fraction(1, 2))
    assert scheme[0] == scheme[-1] == half
    assert scheme[1:-1] == scaled(inner("fast"), Fraction(1, k)) * k  # type: ignore[operator]


def test_the_named_schemes_are_the_published_ones() -> None:
    half, whole = Fraction(1, 2), Fraction(1)
    kick, drift = (Kick("f"), half), (Drift(), half)
    assert verlet("f") == (kick, (Drift(), whole), kick)
    assert baoab("f") == (kick, drift, (Bath(), whole), drift, kick)
    assert obabo("f") == ((Bath(), half), kick, (Drift(), whole), kick, (Bath(), half))


@pytest.mark.parametrize("inner", INNER)
def test_three_levels_ask_each_force_as_often_as_they_say(inner: Callable[[str], Scheme]) -> None:
    """Six inner steps, the middle force every two, the slow one at the ends: 1 + 1, 3 + 1 and 6 + 3 kicks of theirs.

    Kicks of the fast force meet at the points where the middle one acts, but the middle kick stands between them.
    """
    scheme = merged(respa("slow", respa("middle", inner("fast"), 2), 3))
    kicks = [flow.force for flow, _ in scheme if isinstance(flow, Kick)]
    counts = {name: kicks.count(name) for name in ("slow", "middle", "fast")}
    fast = 12 if inner is obabo else 9  # there a bath stands between the kicks, too
    assert counts == {"slow": 2, "middle": 4, "fast": fast}
    assert kicks[:2] == ["slow", "middle"] and kicks[-2:] == ["middle", "slow"]
    moves = sum(isinstance(flow, Drift) for flow, _ in scheme)
    assert moves == (12 if inner is baoab else 6)


def test_symmetry_is_not_granted_to_everything() -> None:
    assert not is_symmetric(only(Kick("f")) + only(Drift()))
    assert is_symmetric(strang(only(Kick("f")), only(Drift())))


@pytest.mark.parametrize("k", [0, -1, 1.5, 2.0, "3"])
def test_a_number_of_substeps_is_a_whole_number(k: object) -> None:
    with pytest.raises(ValueError, match="whole number of at least 1"):
        substeps(verlet("f"), k)  # type: ignore[arg-type]
