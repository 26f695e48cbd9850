"""results.json is what its published schema says, for every kind of run, and the schema notices what is wrong."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

import jsonschema
import numpy as np
import pytest
from studies import make_run

from mlff_sim.report import results
from mlff_sim.validation import assess, certify

SCHEMA = json.loads(resources.files("mlff_sim.report").joinpath("results.schema.json").read_text())


def found(*runs: Any, **more: Any) -> dict[str, Any]:
    content = results(assess(runs, **more))
    return dict(json.loads(json.dumps(content, allow_nan=False)))


def pair() -> tuple[Any, Any]:
    fast, slow = (make_run("nve", kind, seed=s, teacher="gfn2-xtb") for s, kind in enumerate(("hybrid", "md")))
    slow.positions[0] = fast.positions[0]
    return fast, slow


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize(
    "content",
    [
        found(make_run("nvt"), make_run("nve")),
        found(make_run("nve", "md")),
        found(make_run("nvt", rows=1)),
        found(make_run("nvt", status="running")),
        found(make_run("nvt", seed=3), against=make_run("nvt", "md", rows=3000)),
    ],
    ids=["study", "plain", "one frame", "unfinished", "with a reference"],
)
def test_results_follow_it(content: dict[str, Any]) -> None:
    jsonschema.validate(content, SCHEMA, cls=jsonschema.Draft202012Validator)


def test_a_certificate_follows_it() -> None:
    content = json.loads(json.dumps(results(certify(*pair())), allow_nan=False))
    jsonschema.validate(content, SCHEMA, cls=jsonschema.Draft202012Validator)
    assert {"differences", "control"} <= set(content["runs"][0]["findings"])


@pytest.mark.parametrize(
    "change",
    [{"verdict": "good"}, {"speedup": {}}, {"runs": []}, {"nve": {"slope_meV_per_atom_ps": "small"}}, {"version": 2}],
)
def test_it_notices_what_is_wrong(change: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(found(make_run("nvt"), make_run("nve")) | change, SCHEMA)


def test_every_promised_number_is_described_or_plain() -> None:
    """A field of results.json that the schema does not know would be one nobody has promised."""
    content = found(make_run("nvt"), make_run("nve"))
    assert set(content) == set(SCHEMA["properties"])
    for part in ("speedup", "nve", "rdf", "temperature_K", "timing"):
        if content[part] is not None:
            assert set(content[part]) == set(SCHEMA["properties"][part]["properties"]), part
    assert np.isfinite(content["nve"]["slope_meV_per_atom_ps"])
