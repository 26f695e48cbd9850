"""The fast engine: the flows between two slow kicks run as one compiled graph.

Positions and momenta stay float64, the network computes in its own precision (float32). The scheme is the same
tuple the reference executes; only who executes it differs. No autotuning is used: it could pick another kernel
after a restart, and a resumed run would not be the unbroken one.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable
from itertools import groupby
from types import FunctionType

import numpy as np
import torch
from torch import Tensor

from mlff_sim.errors import InputError
from mlff_sim.forces import Array, Evaluation
from mlff_sim.integrators.force_table import MOLLIFIED, ForceTable
from mlff_sim.integrators.isokinetic import THERMOSTATTED, Bounded
from mlff_sim.integrators.mollifier import at_fixed_length
from mlff_sim.integrators.schemes import Bath, Drift, Fade, Flow, Kick, Scale, Scheme
from mlff_sim.integrators.stepper import Langevin, Stepper
from mlff_sim.models.student import Student
from mlff_sim.state import State

PIECE, LONGEST = 16, 40
"""Inner steps compiled as one piece of a longer trajectory, and the longest that is compiled whole."""

Segment = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, ...]]


class FusedStepper(Stepper):
    """A `Stepper` whose flows of one torch student are compiled; everything else is inherited.

    Args:
        scheme, timestep, masses, forces, state, bath: as for `Stepper`.
        fast: name of the force in the table that is a `Student`.
        amp: multiply the hidden layers in bfloat16 (the read-out and all sums stay float32).
        compile: False runs the same graph eagerly (for comparison, and where no compiler is at hand).
    """

    def __init__(
        self,
        scheme: Scheme,
        timestep: float,
        masses: Array,
        forces: ForceTable,
        state: State,
        bath: Langevin | None = None,
        *,
        fast: str = "student",
        compile: bool = True,
        amp: bool = False,
    ) -> None:
        """Split the scheme at its slow kicks; compilation happens at the first step."""
        super().__init__(scheme, timestep, masses, forces, state, bath)
        student = forces.providers[fast]
        assert isinstance(student, Student)
        self.fast, self.student = fast, student
        self.compiled = compile
        student.network.autocast = amp
        self.program: list[tuple[Scheme, Segment | None, int, int]] = []
        compiled: dict[Scheme, Segment] = {}  # with several slow forces the same piece comes back between their kicks
        for is_slow, group in groupby(
            self.scheme, key=lambda item: isinstance(item[0], Kick) and item[0].force != fast
        ):
            flows = tuple(group)
            for piece in [flows] if is_slow else _pieces(flows):
                if is_slow or not any(isinstance(flow, Drift) for flow, _ in piece):
                    self.program.append((piece, None, 0, 0))
                    continue
                if piece not in compiled:
                    compiled[piece] = self._segment(piece)
                baths = sum(isinstance(flow, Bath) for flow, _ in piece)
                self.program.append((piece, compiled[piece], baths, _evaluations(piece)))

    def _segment(self, flows: Scheme) -> Segment:
        network, mass = self.student.network, torch.from_numpy(self.masses)[:, None]
        inverse, root, share = 1.0 / mass, mass.sqrt(), mass / mass.sum()
        still = self.bath is not None and self.bath.remove_com
        mollifier = self.forces.mollifier
        bonds = (torch.from_numpy(mollifier.parent), torch.from_numpy(mollifier.length)) if mollifier else ()
        steps: list[tuple[Flow, float | Tensor, float | Tensor]] = []
        for flow, fraction in flows:
            t = self.timestep * float(fraction)
            if isinstance(flow, Bath) and not isinstance(flow, Fade):
                assert self.bath is not None
                c, s = (v if isinstance(v, float) else torch.from_numpy(v) for v in self.bath.coefficients(t))
                steps.append((flow, c, s))
            else:
                steps.append((flow, t, 0.0))

        bounded = None
        if self.thermostatted:
            assert self.bath is not None
            bounded = Bounded(torch.from_numpy(self.masses), self.bath.kT, float(self.bath.friction), torch)

        def run(x: Tensor, p: Tensor, extension: Tensor, f: Tensor, noise: Tensor) -> tuple[Tensor, ...]:
            heat = torch.zeros(x.shape[0], dtype=x.dtype)
            energy = torch.zeros(x.shape[0], dtype=f.dtype)
            stale, draw = False, 0
            for flow, a, b in steps:
                if isinstance(flow, Kick):
                    if stale:
                        energy, f = network(x)
                        stale = False
                    p = p + a * f.to(p.dtype)
                elif isinstance(flow, THERMOSTATTED):
                    assert bounded is not None and isinstance(a, float)
                    draws = isinstance(flow, Fade)
                    x, new, extension = bounded.act(flow, a, x, p, extension, noise[draw] if draws else None)
                    if isinstance(flow, Scale):
                        heat = heat + bounded.kinetic(new) - bounded.kinetic(p)
                    p, draw, stale = new, draw + draws, stale or isinstance(flow, Drift)
                elif isinstance(flow, Drift):
                    x = x + a * (p * inverse)
                    stale = True
                else:
                    new = a * p + b * (root * noise[draw])
                    if still:
                        new = new - share * new.sum(1, keepdim=True)
                    heat = heat + 0.5 * ((new * new - p * p) * inverse).sum((1, 2))
                    p, draw = new, draw + 1
            # What the slow kick asks for next: the student at A(x).
            return x, p, extension, heat, energy, f, *(network(at_fixed_length(x, *bonds)) if bonds else ())

        # Where nvcc is installed and no GPU is, torch's compiler says so on every start.
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
        return torch.compile(_alone(run), fullgraph=True, dynamic=False) if self.compiled else run

    def step(self) -> None:
        """One outer step."""
        for flows, segment, baths, evaluations in self.program:
            if segment is None:
                for flow, fraction in flows:
                    self.apply(flow, fraction)
            else:
                self._run(segment, baths, evaluations)

    def _run(self, segment: Segment, baths: int, evaluations: int) -> None:
        before = self.forces[self.fast]
        start = time.perf_counter()
        start_x, start_p = self.state.positions, self.state.momenta
        n = start_x.shape[1]
        noise = self.bath.noise(baths, n) if self.bath is not None and baths else np.zeros((0, *start_x.shape))
        dtype = self.student.network.mean.dtype
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's compiler warns about its own internals on first use
            arrays = (start_x, start_p, self.extension, before.forces, noise)
            x, p, extension, f, draws = (torch.from_numpy(array) for array in arrays)
            x, p, extension, heat, *answers = _called(segment, x, p, extension, f.to(dtype), draws)
        self.state = State(x.numpy(), p.numpy())
        if self.thermostatted:
            # Where nothing acts on it the segment hands back its input: a view of a view of ... the first, one deeper at
            # every step, until freeing them overflows the stack.
            self.extension = extension.numpy()
        self.heat = self.heat + heat.numpy()
        self.forces.move(self.state.positions)
        seconds, calls = time.perf_counter() - start, [evaluations * len(x), len(x)]
        names = [self.fast, self.fast + MOLLIFIED]
        for name, energy, forces, n in zip(names, answers[::2], answers[1::2], calls, strict=False):
            answer = Evaluation(energy.double().numpy() + self.student.energy_shift, forces.double().numpy())
            self.forces.put(name, answer, calls=n, seconds=seconds)
            seconds = 0.0


def _called(segment: Segment, *arguments: Tensor) -> tuple[Tensor, ...]:
    """A segment's answer; that it cannot be compiled is no failure of a model, which may be one of a proposal only."""
    try:
        return segment(*arguments)
    except RuntimeError as error:
        from torch._dynamo.exc import TorchDynamoException

        if not isinstance(error, TorchDynamoException):
            raise
        reason = " ".join(str(error).strip().partition("\n\n")[0].split())  # advice follows
        raise InputError(
            f"the student's loop cannot be compiled ({reason}); use --no-compile, compile=False."
        ) from error


def _alone(function: Segment) -> Segment:
    """A copy with code of its own: torch keeps what it compiled, and a limit of eight, for each code of a process."""
    assert isinstance(function, FunctionType)
    f = function
    copy: Segment = FunctionType(f.__code__.replace(), f.__globals__, f.__name__, f.__defaults__, f.__closure__)
    return copy


def _pieces(flows: Scheme) -> list[Scheme]:
    """A segment as it is, or, if it is long, in pieces that end with kicks and are mostly alike.

    A compiler unrolls all steps of a segment, and takes seconds for each; long trajectories repeat one piece instead.
    """
    if _evaluations(flows) <= LONGEST:
        return [flows]
    units: list[Scheme] = [()]
    for item in flows:
        units[-1] += (item,)
        if isinstance(item[0], Kick):
            units.append(())
    units = [u for u in units if u]
    head = 0 if any(isinstance(flow, Drift) for flow, _ in units[0]) else 1
    pieces = [units[0]] if head else []
    for start in range(head, len(units), PIECE):
        pieces.append(tuple(item for unit in units[start : start + PIECE] for item in unit))
    return pieces


def _evaluations(flows: Scheme) -> int:
    """How often the force is computed anew in a segment: once for each kick that follows a drift."""
    count, stale = 0, False
    for flow, _ in flows:
        if isinstance(flow, Kick):
            count, stale = count + stale, False
        else:
            stale = stale or isinstance(flow, Drift)
    if stale:
        raise ValueError("a compiled segment must end with a kick, so that its force is known at the end.")
    return count
