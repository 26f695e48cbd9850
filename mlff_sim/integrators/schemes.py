"""Integration schemes as data: flat tuples of (flow, fraction of the outer time step).

Every scheme is a symmetric (Strang) composition, so it is second order and time-reversible by construction
(Strang, SIAM J. Numer. Anal. 5, 506 (1968), doi:10.1137/0705041). The tuple is all there is: the NumPy reference
and the compiled inner loop execute the same one, OpenMM a translation of it, and consistency and symmetry are tests on
data.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True, slots=True)
class Kick:
    """p += t F(x) with the named force."""

    force: str


@dataclass(frozen=True, slots=True)
class Drift:
    """x += t p / m."""


@dataclass(frozen=True, slots=True)
class Bath:
    """Exact Ornstein-Uhlenbeck step of the momenta over the time t."""


@dataclass(frozen=True, slots=True)
class Glide(Drift):
    """x += t v(p) at a bounded velocity; this and the flows below are those of `isokinetic.py`."""


@dataclass(frozen=True, slots=True)
class Feel:
    """xi += t G(p): the thermostats, one for each degree of freedom, feel how hot its momentum is."""

    law: str


@dataclass(frozen=True, slots=True)
class Scale:
    """dp/dt = xi g(p) over the time t: the thermostats act."""

    law: str


@dataclass(frozen=True, slots=True)
class Fade(Bath):
    """Exact Ornstein-Uhlenbeck step of the thermostats over the time t."""


@dataclass(frozen=True, slots=True)
class Leap:
    """(x, p) -> (x', p') by a generating function at the midpoint, which is its own adjoint; see `leap.py`."""


Flow = Kick | Drift | Bath | Feel | Scale | Leap
Scheme = tuple[tuple[Flow, Fraction], ...]

HALF = Fraction(1, 2)


def only(flow: Flow) -> Scheme:
    """One flow over the whole step."""
    return ((flow, Fraction(1)),)


def scaled(scheme: Scheme, factor: Fraction) -> Scheme:
    """The same flows over a fraction of the time."""
    return tuple((flow, t * factor) for flow, t in scheme)


def strang(outer: Scheme, inner: Scheme) -> Scheme:
    """Half of the outer flow, the inner one, the other half."""
    return scaled(outer, HALF) + inner + scaled(outer, HALF)


def substeps(inner: Scheme, k: int) -> Scheme:
    """The inner scheme k times over a k-th of the time."""
    if not isinstance(k, int) or k < 1:
        raise ValueError(f"k = {k!r} sub-steps; it must be a whole number of at least 1.")
    return scaled(inner, Fraction(1, k)) * k


def merged(scheme: Scheme) -> Scheme:
    """Neighbouring equal flows joined into one: the same map with less work."""
    out: list[tuple[Flow, Fraction]] = []
    for flow, t in scheme:
        if out and out[-1][0] == flow:
            out[-1] = (flow, out[-1][1] + t)
        else:
            out.append((flow, t))
    return tuple(out)


def verlet(force: str) -> Scheme:
    """Velocity Verlet, Swope et al., J. Chem. Phys. 76, 637 (1982), doi:10.1063/1.442716."""
    return strang(only(Kick(force)), only(Drift()))


def baoab(force: str) -> Scheme:
    """BAOAB, Leimkuhler & Matthews, J. Chem. Phys. 138, 174102 (2013), doi:10.1063/1.4802990."""
    return strang(only(Kick(force)), strang(only(Drift()), only(Bath())))


def obabo(force: str) -> Scheme:
    """Langevin dynamics with the bath outside, Bussi & Parrinello, Phys. Rev. E 75, 056707 (2007).

    doi:10.1103/PhysRevE.75.056707. In the harmonic limit momenta are sampled without bias, and positions with one of
    second order; BAOAB has it the other way round.
    """
    return strang(only(Bath()), verlet(force))


def respa(slow: str, inner: Scheme, k: int) -> Scheme:
    """Reversible RESPA, Tuckerman, Berne & Martyna, J. Chem. Phys. 97, 1990 (1992), doi:10.1063/1.463137.

    The inner scheme may itself be one: `respa("slow", respa("middle", verlet("fast"), 2), 3)` kicks with the slow
    force every six steps and with the middle one every two.
    """
    return strang(only(Kick(slow)), substeps(inner, k))


def total_time(scheme: Scheme) -> dict[Flow, Fraction]:
    """Time each flow gets in one step; a consistent scheme gives every flow exactly 1."""
    total: dict[Flow, Fraction] = {}
    for flow, t in scheme:
        total[flow] = total.get(flow, Fraction(0)) + t
    return total


def is_symmetric(scheme: Scheme) -> bool:
    """True when the scheme reads the same from both ends, and so is its own adjoint."""
    return scheme == scheme[::-1]
