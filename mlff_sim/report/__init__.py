"""An assessment as a terminal table, as `results.json` and as one self-contained HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlff_sim.report.html import render
from mlff_sim.report.results import results, write_results, write_text
from mlff_sim.report.row import Row
from mlff_sim.report.text import headline, print_table, rows
from mlff_sim.validation import Assessment, assess_folder

__all__ = ["Row", "headline", "print_table", "results", "rows", "validate", "write_report"]


def write_report(assessment: Assessment, folder: Path) -> dict[str, Any]:
    """Write `results.json` and `report.html` into `folder` (made if missing), each whole or not at all.

    Returns:
        What `results.json` holds.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    content = results(assessment)
    write_text(folder / "report.html", render(assessment))
    write_results(content, folder / "results.json")
    return content


def validate(folder: str | Path, against: str | Path | None = None, drift_limit: float = 0.1) -> dict[str, Any]:
    """Judge a run folder, or a folder of run folders as one study, and write the report into it.

    Args:
        folder: what `mlff-sim hybrid` or `md` left behind.
        against: reference for the structure: a run folder of the teacher alone, or a stored distribution.
        drift_limit: meV/atom/ps, the NVE drift allowed.

    Returns:
        What `results.json` holds.

    Raises:
        InputError: no run there, or a reference that does not fit.
    """
    return write_report(assess_folder(folder, against, drift_limit), Path(folder))
