"""`mlff-sim validate`: judge a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mlff_sim.cli.console import VERDICT_CODES, out
from mlff_sim.cli.options import judge
from mlff_sim.errors import InputError


def validate(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Run folder, or a folder of run folders judged as one study.")
    ],
    against: Annotated[
        Path | None,
        typer.Option("--against", metavar="DIR", help="Reference: a run folder, or a reference file (.npz)."),
    ] = None,
    drift_limit: Annotated[
        float, typer.Option("--drift-limit", metavar="MEV", help="NVE drift allowed, meV/atom/ps.")
    ] = 0.1,
    figures: Annotated[
        Path | None, typer.Option("--figures", metavar="DIR", help="Write the plots as PDF, too, for a paper.")
    ] = None,
    write_reference: Annotated[
        Path | None,
        typer.Option(
            "--write-reference",
            metavar="FILE",
            help="Save the distributions (of all runs in the folder, pooled) as a reference file instead of judging.",
        ),
    ] = None,
) -> int:
    """Judge a run: energy drift, structure, temperatures by element, break-even. Writes results.json and report.html.

    Example:

      mlff-sim validate runs/fast --against runs/teacher
    """
    if not drift_limit > 0:
        raise InputError(f"drift limit {drift_limit:g} meV/atom/ps must be positive.")
    if write_reference is not None:
        from mlff_sim.runfolder import find_runs, read_run
        from mlff_sim.validation import reference_of

        reference = reference_of(*(read_run(p) for p in find_runs(folder)))
        reference.save(write_reference)
        out.print(f"{write_reference}: {reference.sampled_ps:.0f} ps, {reference.samples:.0f} effective samples")
        return 0
    return VERDICT_CODES[judge(folder, against, drift_limit, figures)]
