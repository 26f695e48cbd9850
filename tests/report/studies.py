"""Small made-up studies with known statistics: independent Gaussian positions and Maxwell-Boltzmann momenta."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mlff_sim.forces import Array
from mlff_sim.state import maxwell_boltzmann

NUMBERS = np.array([6, 6, 8, 1, 1, 1])
MASSES = np.array([12.011, 12.011, 15.999, 1.008, 1.008, 1.008])
START = np.array(
    [[0.0, 0.0, 0.0], [1.51, 0.0, 0.0], [2.05, 1.3, 0.0], [-0.4, 1.02, 0.0], [-0.4, -0.5, 0.9], [1.95, -0.6, 0.8]]
)


@dataclass(frozen=True)
class FakeRun:
    """The attributes of a run folder that the assessment reads."""

    folder: Path
    settings: dict[str, Any]
    time_ps: Array
    conserved: Array
    residual_mae: Array | None
    positions: Array
    momenta: Array
    wall: dict[str, Array] = field(default_factory=dict)
    counts: dict[str, Array] = field(default_factory=dict)

    @property
    def potential_energy(self) -> Array:
        return self.conserved


def make_run(
    ensemble: str = "nvt",
    kind: str = "hybrid",
    *,
    rows: int = 1000,
    replicas: int = 5,
    drift: float = 0.0,
    seed: int = 0,
    **changes: Any,
) -> FakeRun:
    """A run at 300 K whose conserved energy walks up by `drift` meV/atom/ps under white noise of 0.3 meV/atom."""
    rng = np.random.default_rng(seed)
    n = len(NUMBERS)
    time_ps = 0.01 * np.arange(1, rows + 1)
    draws = [maxwell_boltzmann(MASSES, 300.0, rng, remove_com=ensemble == "nve") for _ in range(rows * replicas)]
    momenta = np.array(draws).reshape(rows, replicas, n, 3)
    energy = -4000.0 + 1e-3 * n * (drift * time_ps[:, None] + 0.3 * rng.standard_normal((rows, replicas)))
    hybrid = kind == "hybrid"
    student = {
        "name": "student:ethanol.npz",
        "sha256": "0" * 64,
        "errors": {"force_mae_meV_per_A": 4.6},
        "seconds": {"sampling": 10.0, "teacher": 50.0, "training": 240.0},
    }
    settings: dict[str, Any] = {
        "kind": kind,
        "status": "finished",
        "stop": None,
        "ensemble": ensemble,
        "temperature_K": 300.0,
        "timestep_fs": 0.5,
        "k_steps": 8 if hybrid else 1,
        "outer_step_fs": 4.0 if hybrid else 0.5,
        "friction_per_ps": 1.0,
        "equilibrate_ps": 5.0,
        "replicas": replicas,
        "duration_ps": 0.01 * rows,
        "every": 1,
        "seed": seed,
        "com_removed": ensemble == "nve",
        "structure": {
            "formula": "C2H3O",
            "numbers": NUMBERS.tolist(),
            "masses": MASSES.tolist(),
            "bonds": [[0, 1], [1, 2]],
        },
        "models": {"teacher": {"name": "gfn2-xtb"}, "student": student} if hybrid else {"model": {"name": "gfn2-xtb"}},
        "teacher_calls": 2500 if hybrid else None,
        "timing": {"teacher_ms": 1.0, "student_inner_us": 26.0, "baseline_teacher_ms": 0.85, "predicted_speedup": 5.63}
        if hybrid
        else None,
        "wall_s": {"teacher": 12.0, "student": 2.5, "rest": 0.5, "total": 15.0, "baseline": 8.0},
        "versions": {"python": "3.11", "mlff-sim": "0.1.0"},
        "hardware": {"cpu": "some processor", "cores": 2},
        **changes,
    }
    wall = (
        {"block_hybrid_s_per_ps": rng.normal(0.3, 0.01, 10), "block_baseline_s_per_ps": rng.normal(1.7, 0.05, 6)}
        if hybrid
        else {}
    )
    return FakeRun(
        folder=Path("study") / f"{kind}-{ensemble}",
        settings=settings,
        time_ps=time_ps,
        conserved=energy,
        residual_mae=np.abs(rng.normal(5e-3, 5e-4, (rows, replicas))) if hybrid else None,
        positions=START + 0.04 * rng.standard_normal((rows, replicas, n, 3)),
        momenta=momenta,
        wall=wall,
    )
