"""One self-contained HTML page: plotly.js is in the file, and its content policy lets no request leave it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from mlff_sim.report.figures import figures
from mlff_sim.report.parts import SECTIONS
from mlff_sim.report.results import SHORT, strict
from mlff_sim.report.text import grouped, headline, remarks, tally
from mlff_sim.simulation.dissection import told
from mlff_sim.validation import Assessment, RunAssessment


def render(assessment: Assessment) -> str:
    """The page as text."""
    plots = figures(assessment)
    title, sentence = headline(assessment)
    formula = str(assessment.main.settings["structure"].get("formula") or "")
    return page(
        "report.html.j2",
        plots,
        verdict=assessment.verdict.value,
        title=title,
        sentence=sentence,
        formula=formula,
        table=grouped(assessment),
        tally=tally(assessment),
        notes=remarks(assessment),
        sections=[(key, *SECTIONS[key], len(plots[key])) for key in SECTIONS if plots[key]],
        runs=[_provenance(r) for r in assessment.runs],
    )


def page(template: str, plots: Mapping[str, Sequence[Any]], **content: Any) -> str:
    """A template of this package filled in; places of class "plot" show `plots` by section and index."""
    import jinja2
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    def source(name: str) -> str:
        return resources.files("mlff_sim.report").joinpath("templates", name).read_text(encoding="utf-8")

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(source),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    # "<" cannot end the script element early when it is written as an escape.
    data = json.dumps(strict(plots), allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return environment.get_template(template).render(plotly=Markup(get_plotlyjs()), data=Markup(data), **content)


def _provenance(run: RunAssessment) -> dict[str, Any]:
    """What the end of the page says about a run."""
    s = run.settings
    facts: dict[str, Any] = {key.replace("_", " "): s.get(key) for key in SHORT if s.get(key) is not None}
    facts["equilibration left out"] = f"{run.cut_ps:g} ps" if run.cut_ps else None
    for name, model in (s.get("models") or {}).items():
        facts[name] = ", ".join(str(model[k]) for k in ("name", "version", "sha256") if model.get(k)) or None
    facts |= {f"version of {k}": v for k, v in (s.get("versions") or {}).items()}
    facts |= {k: v for k, v in (s.get("hardware") or {}).items()}
    return {
        "name": run.name,
        "stopped": told(s["stop"], s["dissection"]) if s.get("stop") and s.get("dissection") else None,
        "facts": {k: v for k, v in facts.items() if v is not None and v != {}},
        "json": json.dumps(strict(s), indent=1),
    }
