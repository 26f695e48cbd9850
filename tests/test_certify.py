"""The certificate on a real molecule: a sound fast run is told from a bad one and from a subtly bad one.

Ethanol with GFN2-xTB. `ethanol-undertrained` (7.4 meV/A on an independent trajectory) and `ethanol-200-frames` (82 meV/A)
are students kept for this. The runs are short, so that what takes long to tell (the drift within 0.1 meV/atom/ps, torsions)
may stay open; nothing may come out wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mlff_sim import RunConfig, run
from mlff_sim.errors import SimulationStopped
from mlff_sim.runfolder import read_run
from mlff_sim.studies import Study, carry_out
from mlff_sim.validation import Assessment, Verdict, assess_folder, certify

pytestmark = pytest.mark.slow
DATA = Path(__file__).parent / "data"
GOOD = "ethanol-gfn2"
BAD, SUBTLE = (str(DATA / f"ethanol-{name}.safetensors") for name in ("200-frames", "undertrained"))


def settings(**more: Any) -> RunConfig:
    common: dict[str, Any] = {"ensemble": "nve", "duration_ps": 2.0, "replicas": 5, "seed": 1, "compile": False}
    return RunConfig("ethanol", "gfn2-xtb", **(common | more))


def fast(student: str, **more: Any) -> RunConfig:
    return settings(student=student, every=1, baseline=False, on_residual="ignore", **more)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good fast run at 6 fs and plain Verlet, at constant energy."""
    good = fast(GOOD, scheme="mollified", k_steps=12)
    return carry_out(
        Study("certify", {"fast": good, "verlet": settings(seed=2)}, 0.5), tmp_path_factory.mktemp("c") / "s"
    )


@pytest.fixture(scope="module")
def against(study: Path) -> Callable[[RunConfig], Assessment]:
    """The certificate of another fast run against the same plain Verlet."""

    def judged(config: RunConfig) -> Assessment:
        folder = study.parent / f"{Path(str(config.student)).stem}-{config.k_steps}"
        with suppress(SimulationStopped):
            run(replace(config, structure=f"{study / 'starts' / 'starts.xyz'}@0:5"), folder)
        return certify(read_run(folder), read_run(study / "verlet"))

    return judged


def test_a_good_run_has_nothing_against_it(study: Path) -> None:
    found = assess_folder(study)
    run = found.runs[0]
    assert Verdict.FAIL not in run.parts.values()
    assert run.parts["differences"] is Verdict.PASS
    control = run.findings["control"]
    assert control.verdict is None and "breaks none" in control.note


def test_a_bad_student_fails(against: Callable[[RunConfig], Assessment]) -> None:
    assert against(fast(BAD, k_steps=12)).verdict is Verdict.FAIL


def test_a_subtly_bad_run_fails(study: Path) -> None:
    """Outer steps of 6 fs under a bath of 1/ps with a student that is 7 meV/A off: for picoseconds the mean temperature
    looks fine, then resonance drives the hydrogens out of what the student knows."""
    folder = study.parent / "subtle"
    config = replace(
        fast(SUBTLE, ensemble="nvt", k_steps=12, friction_per_ps=1.0, duration_ps=20.0), on_residual="stop"
    )
    with suppress(SimulationStopped):
        run(replace(config, structure=f"{study / 'starts' / 'starts.xyz'}@0:5"), folder)
    found = assess_folder(folder)
    assert found.verdict is Verdict.FAIL
    temperatures = found.runs[0].temperatures
    assert temperatures is not None and temperatures.total.verdict is not Verdict.FAIL
