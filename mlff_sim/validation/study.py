"""From a folder to its assessment: a run, a loose set of runs, or a study that says what it is to be judged by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from mlff_sim.errors import InputError
from mlff_sim.validation.assess import Assessment, Run, assess, load_reference
from mlff_sim.validation.certificate import certify
from mlff_sim.validation.distances import Distribution

Reference = Run | Distribution | None


def _certificate(runs: Mapping[str, Run], against: Reference, drift_limit: float) -> Assessment:
    if against is not None:
        raise InputError("a certificate compares two runs of its own; leave --against out.")
    return certify(runs["fast"], runs["verlet"], drift_limit)


def _plain(runs: Mapping[str, Run], against: Reference, drift_limit: float) -> Assessment:
    return assess(list(runs.values()), against, drift_limit)


QUESTIONS: dict[str, Callable[[Mapping[str, Run], Reference, float], Assessment]] = {
    "certify": _certificate,
}
"""How a study is judged; any other as a loose set of runs."""


def assess_folder(folder: str | Path, against: str | Path | None = None, drift_limit: float = 0.1) -> Assessment:
    """Judge a run folder, a folder of run folders, or a study; see `assess` for the arguments.

    Raises:
        InputError: no finished run there, or a reference that does not fit.
    """
    from mlff_sim.runfolder import find_runs, read_run, read_study

    study = read_study(folder)
    runs = {path.name: read_run(path) for path in find_runs(folder)}
    if missing := [name for name in study.get("runs", {}) if name not in runs]:
        raise InputError(
            f"'{folder}' is an unfinished study without its {' and '.join(missing)}; give the same command again."
        )
    judge = QUESTIONS.get(study.get("question", ""), _plain)
    return judge(runs, load_reference(against) if against else None, drift_limit)
