"""Resonance-free sampling: velocities that are bounded, and a thermostat for every degree of freedom.

An impulse of a slow force that comes in step with a fast mode pumps energy into it (resonance). Where no velocity can
grow there is nothing to pump, and outer steps may be long. Both schemes here move the same particle,

    H = U(x) + L kT sum ln cosh eta,   eta = p / (m c),   c = (L kT / m)^1/2,

whose velocity dx/dt = dH/dp = c tanh eta stays below c. H is a sum of U(x) and a function of p, so wherever exp(-H / kT)
is stationary, x has the canonical distribution exp(-U / kT): the only one that counts. Momenta are not Maxwell's, and
time is not physical. L = 1 here, the tightest bound.

To each p belongs a thermostat xi, of mass Q = kT tau^2, which is forgotten at the rate `friction`:

    d eta = xi g(eta) dt,   d xi = tau^-2 (g' - L g tanh eta) dt - friction xi dt + noise.

This keeps exp(-H/kT - Q xi^2 / 2kT) for any g: its flow through (eta, xi) has the divergence
(d/d eta)(rho xi g) + (d/d xi)(rho G / tau^2) = rho xi (g' - L g tanh eta - G) = 0. What is called

- "sinr" has g = tanh. With v = c tanh eta and one more velocity per degree of freedom, v1 = (2 kT / Q)^1/2 sech eta, it is
  the stochastic isokinetic Nose-Hoover equation for L = 1 (Leimkuhler, Margul & Tuckerman, Mol. Phys. 111, 3579 (2013),
  doi:10.1080/00268976.2013.844369; Margul & Tuckerman, J. Chem. Theory Comput. 12, 2170 (2016),
  doi:10.1021/acs.jctc.6b00188): the constraint m v^2 + Q v1^2 / 2 = kT is tanh^2 + sech^2 = 1, xi is their v2, and a kick
  that is a rational function of hyperbolic ones in v and v1 is p += t F here;
- "regulated" has g = eta: Nose-Hoover-Langevin (whose xi has the other sign) for the Hamiltonian above, which is that of
  regulated dynamics (Abreu & Tuckerman, Eur. Phys. J. B 94, 231 (2021), doi:10.1140/epjb/s10051-021-00226-4).

| symbol | variable | shape |
|---|---|---|
| m c | `unit` | (n, 1), (eV u)^1/2 |
| c | `speed` | (n, 1) |
| xi | `extension[0]` | (replicas, n, 3), 1/time |

The thermostats act inside, in the middle of every inner step (XI-RESPA, and the order of BAOAB): their time is that of
fast modes, shorter than the outer steps this is for, and every flow is solved exactly. Outer kicks that come slower than
a mode forgets leave it to the student, to first order in what the student gets wrong: such modes cannot be heated
without end, but they are as good as the student.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mlff_sim.integrators.schemes import Fade, Feel, Flow, Glide, Kick, Scale, Scheme, only, strang
from mlff_sim.units import FS

TAU = 10 * FS
"""Time in which a thermostat reacts: that of the fastest modes."""
L = 1
"""Thermostatting velocities per degree of freedom; <m v^2> = L kT / (L + 1)."""
THERMOSTATTED = (Glide, Feel, Scale, Fade)
"""The flows that belong to bounded velocities."""
LAWS = ("sinr", "regulated")


def isokinetic(force: str, law: str) -> Scheme:
    """One inner step: half kick, half way, thermostats, half way, half kick."""
    thermostats = strang(only(Feel(law)), strang(only(Scale(law)), only(Fade())))
    return strang(only(Kick(force)), strang(only(Glide()), thermostats))


class Bounded:
    """The kinetic energy of bounded velocities and the flows of its thermostats, for NumPy arrays or torch tensors.

    Args:
        masses: u, shape (n,).
        kT: eV.
        friction: rate at which thermostats forget, 1 / internal time.
        lib: numpy or torch, whichever the masses are of.
    """

    def __init__(self, masses: Any, kT: float, friction: float, lib: Any = np) -> None:
        """Work out the units of momentum and velocity."""
        self.kT, self.friction, self.lib = kT, friction, lib
        root = masses[:, None] ** 0.5
        self.unit, self.speed = (L * kT) ** 0.5 * root, (L * kT) ** 0.5 / root

    def start(self, noise: Any) -> Any:
        """Thermostats from their stationary distribution, made of unit normal numbers."""
        return noise / TAU

    def kinetic(self, p: Any) -> Any:
        """L kT sum ln cosh eta, eV, shape (replicas,)."""
        eta = abs(p / self.unit)
        return L * self.kT * (eta + self.lib.log1p(self.lib.exp(-2 * eta)) - math.log(2.0)).sum((1, 2))

    def thermal(self, p: Any) -> Any:
        """Momenta with the sign of p whose square over m is p dK/dp, which is kT on average."""
        eta = p / self.unit
        return self.unit * self.lib.sign(eta) * (eta * self.lib.tanh(eta)) ** 0.5

    def act(self, flow: Flow, t: float, x: Any, p: Any, extension: Any, noise: Any) -> tuple[Any, Any, Any]:
        """Positions, momenta and thermostats after one flow over the time t; a `Fade` wants unit normal noise."""
        lib = self.lib
        if isinstance(flow, Glide):
            return x + t * self.speed * lib.tanh(p / self.unit), p, extension
        if isinstance(flow, Fade):
            c = math.exp(-self.friction * t)
            return x, p, c * extension + (1 - c * c) ** 0.5 / TAU * noise
        eta = p / self.unit
        tanh = lib.tanh(eta)
        if isinstance(flow, Feel):
            excess = (L + 1) * tanh * tanh - 1 if flow.law == "sinr" else L * eta * tanh - 1
            return x, p, extension - t / TAU**2 * excess
        assert isinstance(flow, Scale)
        factor = lib.exp(t * extension[0])
        eta = lib.arcsinh(lib.sinh(eta) * factor) if flow.law == "sinr" else eta * factor
        return x, self.unit * eta, extension
