"""How fast a model is on a structure, rung by rung: as it is, compiled, with 16-bit products, alone and in batches."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlff_sim.acceleration import Acceleration, Execution
from mlff_sim.errors import InputError
from mlff_sim.forces import Array, Evaluation, ForceProvider
from mlff_sim.models.registry import bind
from mlff_sim.progress import Progress, Silent

if TYPE_CHECKING:
    from ase import Atoms

DISPLACEMENT_A = 0.02
"""Random displacement between the frames of a batch."""
BLOCK_S, BLOCKS = 0.2, 9
"""Each rung is called for at least so long in a block; blocks of all rungs alternate so many times."""


@dataclass(frozen=True)
class Rung:
    """One way to evaluate, measured.

    Attributes:
        name: "eager", "compile", "bfloat16" or "compile + bfloat16" (or float16).
        batch: structures in a call.
        ms: milliseconds per structure, median over blocks.
        quartiles: ms, 25 and 75 % of the blocks.
        speedup: over the eager model with one structure in a call.
        memory_MB: what a call adds to the process, or to the GPU, at its peak; None where it cannot be seen.
        start_s: seconds before the first answer: tracing, compiling, the gate.
        energy_deviation: meV/atom, largest deviation from the eager model over the frames.
        force_deviation: meV/A, largest of all components.
        force_error: root mean square deviation of forces over their root mean square, in percent.
        note: why it is not available, or empty.
    """

    name: str
    batch: int
    ms: float | None = None
    quartiles: tuple[float, float] | None = None
    speedup: float | None = None
    memory_MB: float | None = None
    start_s: float | None = None
    energy_deviation: float | None = None
    force_deviation: float | None = None
    force_error: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Ladder:
    """All rungs of one model on one structure.

    Attributes:
        model, formula, n_atoms, periodic: what was measured.
        device, dtype, autocast: how.
        threads: of PyTorch.
        rungs: eager with one structure first.
    """

    model: str
    formula: str
    n_atoms: int
    periodic: bool
    device: str
    dtype: str
    autocast: str
    threads: int
    rungs: tuple[Rung, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def ladder(
    model: Any,
    atoms: Atoms,
    batches: Sequence[int] = (1, 4, 8, 16),
    *,
    device: str = "auto",
    dtype: str = "float32",
    autocast: str = "bfloat16",
    progress: Progress | None = None,
) -> Ladder:
    """Measure all rungs, alternating between them in one process.

    Args:
        model: as for `MLFFCalculator`; a torch model.
        atoms: the structure.
        batches: structures in a call; 1 is always measured, as the baseline.
        device: "auto", "cpu", "cuda".
        dtype: "float32" or "float64", of networks whose file does not say.
        autocast: "bfloat16" or "float16".
        progress: told about every rung.

    Raises:
        InputError: the model has nothing to accelerate, or gives no finite forces to compare with, or a batch is no
            positive number.
    """
    if any(b < 1 for b in batches):
        raise InputError(f"batches {list(batches)} must be positive, e.g. 1,4,8,16.")
    import torch

    progress = progress or Silent()
    sizes = sorted({1, *batches})
    x, cell = _frames(atoms, max(sizes)), atoms.cell.array if atoms.pbc.any() else None
    ways: dict[str, dict[str, Any]] = {
        "eager": {"compile": False},
        "compile": {"compile": True},
        autocast: {"compile": False, "autocast": autocast},
        f"compile + {autocast}": {"compile": True, "autocast": autocast},
    }
    wide: dict[str, Any] = {"gate_energy_meV_per_atom": 1e9, "gate_force_meV_per_A": 1e9}  # measured here, not judged
    providers: dict[str, ForceProvider] = {}
    for name, way in ways.items():
        providers[name] = bind(model, atoms, Execution(device, dtype, Acceleration(**way, **wide)))
    first = providers["eager"]
    if not hasattr(first, "report"):
        raise InputError(f"'{first.name}' is no torch model: there is nothing to accelerate and compare.")
    right = [first(y, cell) if cell is not None else first(y) for y in x]
    if not all(np.isfinite(r.forces).all() and np.isfinite(r.energy) for r in right):
        raise InputError(f"'{first.name}' gives energies or forces here that are not finite: nothing to compare with.")
    made: list[tuple[str, int, dict[str, Any]]] = []
    for k, (name, batch) in enumerate((n, b) for b in sizes for n in ways):
        progress.update(k, 2 * len(sizes) * len(ways), f"starting {name}, {batch} a call")
        made.append((name, batch, _started(providers[name], x[:batch], cell, right)))
    times: dict[tuple[str, int], list[float]] = {(n, b): [] for n, b, facts in made if not facts.get("note")}
    for block in range(BLOCKS):
        progress.update((1 + block / BLOCKS) * len(made), 2 * len(made), "measuring")
        for name, batch in times:
            times[name, batch].append(_block(providers[name], x[:batch], cell))
    base = float(np.median(times["eager", 1]))
    rungs = []
    for name, batch, facts in made:
        if (name, batch) in times:
            ms = times[name, batch]
            facts["ms"], facts["speedup"] = float(np.median(ms)), base / float(np.median(ms))
            facts["quartiles"] = (float(np.quantile(ms, 0.25)), float(np.quantile(ms, 0.75)))
        rungs.append(Rung(name, batch, **facts))
    return Ladder(
        model=model if isinstance(model, str) else first.name,
        formula=atoms.get_chemical_formula("hill"),
        n_atoms=len(atoms),
        periodic=bool(atoms.pbc.any()),
        device=str(getattr(first, "device", "cpu")),
        dtype=first.dtype,
        autocast=autocast,
        threads=torch.get_num_threads(),
        rungs=tuple(rungs),
    )


def _frames(atoms: Atoms, count: int) -> Array:
    moves = np.random.default_rng(0).standard_normal((count, len(atoms), 3))
    x: Array = atoms.get_positions() + DISPLACEMENT_A * moves
    return x


def _call(provider: ForceProvider, x: Array, cell: Array | None) -> Evaluation:
    """One structure as MD would ask for it, several as a batch."""
    given = x[0] if len(x) == 1 else x
    return provider(given) if cell is None else provider(given, cell)


def _started(provider: ForceProvider, x: Array, cell: Array | None, right: list[Evaluation]) -> dict[str, Any]:
    """First calls: what they cost, and how far the answers are off."""
    if len(x) > 1 and not provider.batched:
        return {"note": "takes one structure a call"}
    start = time.perf_counter()
    _call(provider, x, cell)
    seconds = time.perf_counter() - start
    report = provider.report()  # type: ignore[attr-defined]
    report = report.get("batches", {}).get(len(x), report)  # calls on several structures may have graphs of their own
    wanted = provider.function.acceleration  # type: ignore[attr-defined]
    if (wanted.compile or wanted.autocast) and not (report["compiled"] or report["autocast"]):
        return {"note": report["because"]}
    memory, answer = _memory_MB(provider, x, cell)
    energy, forces = np.atleast_1d(answer.energy), answer.forces.reshape(x.shape)
    e = np.array([float(r.energy) for r in right[: len(x)]])
    f = np.stack([r.forces for r in right[: len(x)]])
    size = max(float((f**2).mean()), float(np.finfo(np.float64).tiny))
    return {
        "start_s": seconds,
        "memory_MB": memory,
        "energy_deviation": 1e3 * float(np.abs(energy - e).max()) / x.shape[1],
        "force_deviation": 1e3 * float(np.abs(forces - f).max()),
        "force_error": 100 * float(np.sqrt(((forces - f) ** 2).mean() / size)),
    }


def _block(provider: ForceProvider, x: Array, cell: Array | None) -> float:
    """Milliseconds per structure."""
    calls, start = 0, time.perf_counter()
    while calls < 2 or time.perf_counter() - start < BLOCK_S:
        _call(provider, x, cell)
        calls += 1
    return 1e3 * (time.perf_counter() - start) / (calls * len(x))


def _memory_MB(provider: ForceProvider, x: Array, cell: Array | None) -> tuple[float | None, Evaluation]:
    """What a call takes at its peak above what is there before and after, and its answer."""
    import torch

    device = getattr(provider, "device", torch.device("cpu"))
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = float(torch.cuda.memory_allocated(device))
        answer = _call(provider, x, cell)
        return (torch.cuda.max_memory_allocated(device) - before) / 1e6, answer
    try:
        Path("/proc/self/clear_refs").write_text("5")  # Linux: start the peak anew
        before = _status_kB("VmRSS")
        answer = _call(provider, x, cell)
        return max(0.0, (_status_kB("VmHWM") - before) / 1e3), answer
    except (OSError, KeyError):
        return None, _call(provider, x, cell)


def _status_kB(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(dict(line.split(":", 1) for line in lines)[name].split()[0])
