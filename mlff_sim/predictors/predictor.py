"""A predictor bound to a molecule and a macro-step: a state and random numbers in, the state a macro-step later out."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mlff_sim.forces import Array
from mlff_sim.models.compiled import quiet
from mlff_sim.models.flatgraph import compiled, flattened, fold_constants, lower_products
from mlff_sim.predictors.network import REFERENCE_K, Molecule, PredictorNet, advanced
from mlff_sim.state import State
from mlff_sim.units import FS, KB

GATE = 1e-4
"""Largest deviation of the compiled form from the eager one, in A and thermal units of momentum: rounding of float32."""
AMP_GATE = 0.05
"""The same with products in bfloat16, well below the spread of what may happen."""


class Jump(nn.Module):
    """Positions, momenta and noise in, positions and momenta out; for one molecule and macro-step."""

    def __init__(self, network: PredictorNet, molecule: Molecule, stride: int, time: float) -> None:
        """Bind."""
        super().__init__()
        self.network, self.molecule, self.stride, self.time = network, molecule, stride, time

    def forward(self, x: Tensor, p: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """See `advanced`."""
        return advanced(self.network, self.molecule, self.stride, self.time, x, p, noise)


class Predictor:
    """Draws where replicas of a molecule may be a macro-step later.

    Args:
        network: trained.
        record: what its file says about it.
        numbers: atomic numbers, (n,).
        masses: u, (n,).
        bonds: pairs of bonded atoms.
        steps: baseline steps of the macro-step, one of `record["macro_steps"]`.
        compile: compile it at the first call for each number of replicas.
        amp: products of matrices in bfloat16; needs `compile`'s tracing, not its compiler.

    Attributes:
        noise: random vectors of an atom in a draw.
        calls, seconds: draws of one replica, and wall time in all calls.
        report: what engaged, or why not.
    """

    def __init__(
        self,
        network: PredictorNet,
        record: Mapping[str, Any],
        numbers: NDArray[np.int64],
        masses: Array,
        bonds: Sequence[tuple[int, int]],
        steps: int,
        *,
        compile: bool = False,
        amp: bool = False,
    ) -> None:
        """Bind; nothing is compiled yet."""
        self.record, self.steps, self.compile, self.amp = dict(record), steps, compile, amp
        self.noise = network.architecture.noise
        stride = list(record["macro_steps"]).index(steps)
        molecule = Molecule(numbers, masses, bonds)
        network = network.eval().requires_grad_(False)
        self.jump = Jump(network, molecule, stride, steps * float(record["timestep_fs"]) * FS)
        self.calls, self.seconds = 0, 0.0
        self.report = "engaged" if compile or amp else "compile = False"
        self._ready: dict[int, Any] = {}

    def __call__(self, state: State, noise: Array) -> State:
        """The state a macro-step later.

        Args:
            state: of R replicas.
            noise: normal random numbers, shape (R, n, `noise`, 3).
        """
        inputs = (
            torch.from_numpy(np.ascontiguousarray(state.positions)),
            torch.from_numpy(np.ascontiguousarray(state.momenta)),
            torch.from_numpy(np.ascontiguousarray(noise, dtype=np.float32)),
        )
        replicas = len(state.positions)
        # Some of the replicas, in a draw that is repeated, take the graph of all; its other rows are idle.
        size = min((n for n in self._ready if n >= replicas), default=replicas)
        if size > replicas:
            rows = torch.arange(size) % replicas
            inputs = (inputs[0][rows], inputs[1][rows], inputs[2][rows])
        elif size not in self._ready:
            self._ready[size] = self._prepared(inputs)
        begun = time.perf_counter()
        with torch.no_grad():
            x, p = self._ready[size](*inputs)
        self.seconds += time.perf_counter() - begun
        self.calls += replicas
        return State(x[:replicas].numpy(), p[:replicas].numpy())

    def draw(self, state: State, streams: Sequence[np.random.Generator]) -> State:
        """The same with a random stream for each replica."""
        shape = (state.positions.shape[1], self.noise, 3)
        return self(state, np.stack([s.standard_normal(shape) for s in streams]))

    def _prepared(self, inputs: tuple[Tensor, Tensor, Tensor]) -> Any:
        """The compiled form for such inputs if it passes the gate, or the module."""
        if not (self.compile or self.amp):
            return self.jump
        try:
            with quiet(), torch.no_grad():
                flat = flattened(self.jump, inputs)
                if self.amp:
                    lower_products(flat, torch.bfloat16)
                fold_constants(flat)
                fast: Any = flat
                if self.compile:
                    with torch.inference_mode():
                        fast = compiled(flat, inputs, {"size_asserts": False})
                right, found = self.jump(*inputs), fast(*inputs)
            unit = torch.sqrt(self.jump.molecule.masses * KB * REFERENCE_K)[:, None]
            off = max(float((right[0] - found[0]).abs().max()), float(((right[1] - found[1]) / unit).abs().max()))
            limit = AMP_GATE if self.amp else GATE
            if off <= limit:
                return fast
            self.report = f"it differs from the eager network by {off:.2g}, and {limit:g} is allowed"
        except Exception as error:  # whatever a compiler fails with, the network still works
            self.report = f"compilation failed ({type(error).__name__}: {error})".split("\n")[0]
        warnings.warn(f"the predictor runs without acceleration: {self.report}.", stacklevel=4)
        return self.jump
