"""The ladder of accelerations: what was not accelerated is not shown as if it were."""

from __future__ import annotations

from typing import Any

import pytest
from ase import Atoms
from test_graph import Pairs

from mlff_sim import benchmark
from mlff_sim.benchmark import ladder
from mlff_sim.models import compiled as compiled_module


@pytest.fixture(autouse=True)
def shortly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "BLOCK_S", 0.0)
    monkeypatch.setattr(benchmark, "BLOCKS", 1)


@pytest.mark.filterwarnings("ignore:.*runs without acceleration")
def test_a_batch_that_does_not_compile_is_not_available(ethanol: Atoms, monkeypatch: pytest.MonkeyPatch) -> None:
    """The graph for one structure is made, the one for two fails: no speed is given for it."""

    def only_alone(flat: Any, inputs: Any, options: Any) -> Any:
        if len(inputs[0]) > len(ethanol):
            raise RuntimeError("too large")
        return flat

    monkeypatch.setattr(compiled_module, "compiled", only_alone)
    rungs = {(r.name, r.batch): r for r in ladder(Pairs(), ethanol, (1, 2), device="cpu").rungs}
    assert rungs["compile", 1].ms is not None and rungs["eager", 2].ms is not None
    assert rungs["compile", 2].ms is None and "too large" in rungs["compile", 2].note


def test_without_forces_there_is_no_error_of_forces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_module, "compiled", lambda flat, inputs, options: flat)
    rungs = ladder(Pairs(), Atoms("H", [[0, 0, 0]]), (1,), device="cpu").rungs
    assert all(r.force_error == 0.0 and r.force_deviation == 0.0 for r in rungs)
