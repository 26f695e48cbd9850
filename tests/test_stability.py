"""Linear laws: what one step of a scheme does to an oscillator is a matrix, and the stepper is made to show it.

Momenta are scaled to p / (m w), so that an exact step is a rotation by w H.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest

from mlff_sim.forces import Array, Evaluation
from mlff_sim.integrators.force_table import ForceTable
from mlff_sim.integrators.schemes import Bath, Kick, Scheme, baoab, obabo, respa, verlet
from mlff_sim.integrators.stepper import Langevin, Stepper
from mlff_sim.state import State
from mlff_sim.units import PS

EPS = np.finfo(np.float64).eps


class Traps:
    """Oscillators U = sum_i kappa_i x_i^2 / 2 about the origin, each atom with its own constant."""

    name, cutoff, dtype, conservative, batched = "traps", None, "float64", True, True
    provenance: Mapping[str, str] = {}

    def __init__(self, kappa: Array) -> None:
        self.numbers, self.kappa = np.ones(len(kappa), dtype=np.int64), kappa[:, None]

    def reset(self) -> None:
        pass

    def __call__(self, positions: Array, cell: Array | None = None, /) -> Evaluation:
        return Evaluation(0.5 * (self.kappa * positions**2).sum((-1, -2)), -self.kappa * positions)


def propagators(scheme: Scheme, wh: Array, constants: Mapping[str, Array], friction: float = 0.0) -> Array:
    """What one step of unit length does, shape (n, 2, 2), to oscillators of frequency `wh` and unit mass.

    Along the first axis an atom starts at unit displacement, along the second with unit momentum. The bath is at zero
    temperature: its noise adds to the means, which these are, nothing.

    Args:
        scheme: what is done in a step.
        wh: frequency times step, shape (n,), by which momenta are scaled.
        constants: force constants of each force in the scheme, shape (n,).
        friction: times the step.
    """
    n = len(wh)
    x, p = np.zeros((1, n, 3)), np.zeros((1, n, 3))
    x[0, :, 0], p[0, :, 1] = 1.0, wh
    table = ForceTable({name: Traps(kappa) for name, kappa in constants.items()})
    bath = Langevin(0.0, friction * PS, 0, 1) if any(isinstance(flow, Bath) for flow, _ in scheme) else None
    stepper = Stepper(scheme, 1.0, np.ones(n), table, State(x, p), bath)
    stepper.step()
    end = np.stack([stepper.state.positions[0, :, :2], stepper.state.momenta[0, :, :2] / wh[:, None]], axis=1)
    return np.asarray(end)


# The order of every scheme.

SHARES = {"fast": 0.9, "slow": 0.15, "slowest": -0.05, "f": 1.0}
"""Of the force constant: the fast one is wrong by a tenth, which the slower ones correct."""
SCHEMES = {
    "verlet": verlet("f"),
    "baoab": baoab("f"),
    "obabo": obabo("f"),
    "respa-verlet": respa("slow", verlet("fast"), 3),
    "respa-baoab": respa("slow", baoab("fast"), 3),
    "respa-obabo": respa("slow", obabo("fast"), 3),
    "three-verlet": respa("slowest", respa("slow", verlet("fast"), 2), 2),
    "three-baoab": respa("slowest", respa("slow", baoab("fast"), 2), 2),
    "three-obabo": respa("slowest", respa("slow", obabo("fast"), 2), 2),
}
schemes = pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES.keys())


def parts(scheme: Scheme, wh: Array) -> dict[str, Array]:
    """Force constants of the forces in a scheme, which add up to that of the frequency."""
    names = dict.fromkeys(flow.force for flow, _ in scheme if isinstance(flow, Kick))
    total = sum(SHARES[name] for name in names)
    return {name: wh**2 * SHARES[name] / total for name in names}


def exact(wh: float, friction: float) -> Array:
    """The matrix exponential of the damped oscillator's [[0, 1], [-1, -friction / wh]] wh, from its eigenvectors."""
    generator = np.array([[0.0, wh], [-wh, -friction]], dtype=np.complex128)
    values, vectors = np.linalg.eig(generator)
    return np.asarray((vectors @ np.diag(np.exp(values)) @ np.linalg.inv(vectors)).real)


@schemes
def test_every_scheme_is_of_second_order(scheme: Scheme) -> None:
    """The error of one symmetric step is c h^3 + d h^5: halving h divides it by 8.

    A scheme of first order has a ratio of 4, one of fourth order 32. The largest entry of the error is taken, and its
    corrections are of the relative size wh = 0.02 times constants of the order of one (Hairer, Lubich & Wanner,
    Geometric Numerical Integration, II.3 and III.5).
    """
    with_bath = any(isinstance(flow, Bath) for flow, _ in scheme)
    for friction in (0.0, 0.5) if with_bath else (0.0,):
        errors = []
        for wh in (0.02, 0.01):
            found = propagators(scheme, np.array([wh]), parts(scheme, np.array([wh])), friction * wh)[0]
            errors.append(np.abs(found - exact(wh, friction * wh)).max())
        assert errors[1] > 1e3 * EPS
        assert abs(errors[0] / errors[1] - 8) < 8 * 5 * 0.02


def test_the_order_shows_a_scheme_that_is_not_symmetric() -> None:
    """Verlet without its last half kick, whose time the first one gets, is symplectic Euler: a ratio of 4."""
    (flow, _), drift, _ = verlet("f")
    euler = ((flow, drift[1]), drift)
    errors = [
        np.abs(propagators(euler, np.array([wh]), {"f": np.array([wh**2])})[0] - exact(wh, 0.0)).max()
        for wh in (0.02, 0.01)
    ]
    assert abs(errors[0] / errors[1] - 4) < 4 * 5 * 0.02


@schemes
def test_run_flip_run_is_the_identity(scheme: Scheme) -> None:
    """Without friction every scheme is symplectic and reversible: det P = 1 and (R P)^2 = 1, R flips the momenta."""
    wh = np.linspace(0.1, 1.5, 15)
    found = propagators(scheme, wh, parts(scheme, wh))
    assert np.abs(np.linalg.det(found) - 1).max() < 100 * EPS
    back = np.diag([1.0, -1.0]) @ found
    assert np.abs(back @ back - np.eye(2)).max() < 100 * EPS


# Two levels: where kicks and oscillation fall into step.


def test_the_two_level_stability_map() -> None:
    """Half the trace of a step is cos(wH) - (eps wH / 2) sin(wH) for exact inner steps.

    Biesiadecki & Skeel, J. Comput. Phys. 109, 318 (1993), doi:10.1006/jcph.1993.1220: between two half kicks of
    -eps m w^2 x the student rotates by wH. With K Verlet steps inside it rotates by K theta instead, cos(theta) =
    1 - (wh)^2 / 2, h = H / K, and sin(wH) is divided by sqrt(1 - (wh)^2 / 4): the map changes by less than
    wH (wh)^2 / 24 times 1 + |eps| wH / 2, here 6e-7. With these put in it holds to rounding.
    """
    k = 8192
    wh, eps = (a.ravel() for a in np.meshgrid(np.pi * np.linspace(0.1, 3.0, 59), np.linspace(-0.02, 0.02, 9)))
    found = propagators(respa("slow", verlet("fast"), k), wh, {"fast": wh**2, "slow": eps * wh**2})
    half_trace = 0.5 * np.trace(found, axis1=1, axis2=2)
    assert np.abs(half_trace - (np.cos(wh) - 0.5 * eps * wh * np.sin(wh))).max() < 1e-6
    inner = wh / k
    angle, scale = 2 * k * np.arcsin(inner / 2), np.sqrt(1 - inner**2 / 4)
    # Each of k steps rounds a few times, and a rounding of the angle counts once more in what follows.
    assert np.abs(half_trace - (np.cos(angle) - 0.5 * eps * wh * np.sin(angle) / scale)).max() < 20 * k * EPS
    unstable = np.abs(half_trace) > 1
    assert unstable[eps != 0].any() and not unstable[eps == 0].any()


def test_three_levels_are_stable_where_their_product_says() -> None:
    """The middle force every second of six inner steps: the matrix is the product of its shears and rotations."""
    wh = np.linspace(0.3, 2.8, 26)
    constants = {"fast": wh**2, "slow": 0.05 * wh**2, "slowest": -0.03 * wh**2}
    found = propagators(respa("slowest", respa("slow", verlet("fast"), 2), 3), wh, constants)

    def kick(name: str, t: float) -> Array:
        out = np.tile(np.eye(2), (len(wh), 1, 1))
        out[:, 1, 0] = -t * constants[name] / wh
        return out

    def drift(t: float) -> Array:
        out = np.tile(np.eye(2), (len(wh), 1, 1))
        out[:, 0, 1] = t * wh
        return out

    step = kick("fast", 1 / 12) @ drift(1 / 6) @ kick("fast", 1 / 12)
    pair = kick("slow", 1 / 6) @ step @ step @ kick("slow", 1 / 6)
    expected = kick("slowest", 1 / 2) @ pair @ pair @ pair @ kick("slowest", 1 / 2)
    assert np.abs(found - expected).max() < 200 * EPS


@pytest.mark.parametrize("inner", [baoab, obabo])
@pytest.mark.parametrize("eps", [0.02, -0.02])
def test_a_friction_above_eps_w_closes_the_windows(inner: Callable[[str], Scheme], eps: float) -> None:
    """In its window a mode grows at |eps| w / 2, and a bath damps it at gamma / 2: the window closes at gamma = |eps| w.

    Half the trace is largest at wH = n pi (1 - eps / 2), 1 + (eps n pi)^2 / 8: a step multiplies by 1 + |eps| n pi / 2.
    Both figures have relative corrections of the order of eps, by the shift of the window, and (eps n pi)^2, 0.035;
    friction a tenth above or below decides. It is given in units of 1 / H.
    """
    k = 200
    wh = np.pi * np.concatenate([n + np.linspace(-0.08, 0.08, 161) for n in (1, 2, 3)])
    scheme = respa("slow", inner("fast"), k)
    constants = {"fast": wh**2, "slow": eps * wh**2}

    def largest(friction: float) -> Array:
        found = propagators(scheme, wh, constants, friction)
        return np.abs(np.linalg.eigvals(found)).max(axis=1).reshape(3, -1).max(axis=1)

    without = np.log(largest(0.0))
    np.testing.assert_allclose(without, abs(eps) * np.pi * np.arange(1, 4) / 2, rtol=0.02)
    for n in (1, 2, 3):
        closing = abs(eps) * n * np.pi
        assert largest(1.1 * closing)[n - 1] < 1
        assert largest(0.9 * closing)[n - 1] > 1
