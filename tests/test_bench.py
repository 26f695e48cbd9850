"""`mlff-sim bench`: what it measures, what it writes, and what it refuses before minutes are spent."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

NETWORKS = """
import torch
from test_graph import Pairs

class Nan(Pairs):
    def forward(self, *inputs):
        return super().forward(*inputs) / 0 * 0

nan = Nan
"""


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlff_sim.benchmark.BLOCK_S", 0.0)
    monkeypatch.setattr("mlff_sim.benchmark.BLOCKS", 2)


def test_the_command(quick: None, cli: Callable[..., Any], tmp_path: Path) -> None:
    """Four rungs for each number of structures; quiet in a pipe; two files, of which the page needs no network."""
    out = tmp_path / "made" / "bench"
    done = cli("bench", "module:test_graph:Pairs", "ethanol", "--batch", "2", "--out", out)
    assert done.code == 0 and done.err == "" and "Fastest within 1 meV/A" in done.out
    assert sorted(p.name for p in out.iterdir()) == ["bench.html", "bench.json"]
    told = json.loads((out / "bench.json").read_text())
    assert [(r["name"], r["batch"]) for r in told["rungs"]][::4] == [("eager", 1), ("eager", 2)]
    for rung in told["rungs"]:
        assert rung["ms"] > 0 and rung["note"] == "" and rung["speedup"] > 0
        assert "bfloat16" in rung["name"] or rung["force_deviation"] < 0.1
    page = (out / "bench.html").read_text()
    assert "default-src 'none'" in page and not re.search(r"<(script|link|img)[^>]*(src|href)=", page)


def test_mistakes_are_told_before_anything_is_measured(
    cli: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlff_sim.benchmark._block", lambda *_: pytest.fail("measured"))
    (tmp_path / "file").touch()
    (tmp_path / "networks.py").write_text(NETWORKS)
    for model, options, words in (
        ("gfn2-xtb", [], "is no torch model"),
        ("module:test_graph:Pairs", ["--batch", "0"], "must be positive"),
        ("module:test_graph:Pairs", ["--batch", "1;4"], "no list of whole numbers"),
        ("module:test_graph:Pairs", ["--out", tmp_path / "file"], "is a file; give a folder"),
        ("module:test_graph:Pairs", ["--out", tmp_path / "file" / "x"], "cannot be written: .*file is no folder"),
        (f"module:{tmp_path / 'networks.py'}:nan", [], "not finite: nothing to compare with"),
    ):
        done = cli("bench", model, "ethanol", *(options if "--out" in options else [*options, "--out", tmp_path / "x"]))
        assert done.code == 2 and re.search(words, done.line), done.line
    assert sorted(p.name for p in tmp_path.iterdir() if p.suffix != ".pyc") == ["file", "networks.py"]
