"""`mlff-sim validate`: judge a run folder, or trajectories made elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mlff_sim.cli.console import VERDICT_CODES, out, writable_folder
from mlff_sim.cli.options import DriftLimit, check_drift_limit, judge, tell
from mlff_sim.errors import InputError


def validate(
    what: Annotated[
        list[Path],
        typer.Argument(
            metavar="DIR | FILES",
            help="Run folder, or a folder of run folders judged as one study; or trajectory files, each a replica of one "
            "run: ASE .traj, extended XYZ, DCD or XTC with a PDB, HDF5 of MDTraj, LAMMPS dump; and OpenMM's CSV.",
        ),
    ],
    against: Annotated[
        Path | None,
        typer.Option(
            "--against",
            metavar="DIR",
            help="Reference: a run folder, a reference file (.npz), or of files a trajectory like them.",
        ),
    ] = None,
    drift_limit: DriftLimit = 0.1,
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
    report: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Of files: where to write. [default: runs/validation]")
    ] = None,
    topology: Annotated[
        Path | None, typer.Option("--topology", metavar="PDB", help="Of files: the atoms of a DCD or XTC.")
    ] = None,
    ensemble: Annotated[
        str | None, typer.Option("--ensemble", metavar="nve|nvt", help="Of files: what they were run as.")
    ] = None,
    temperature_K: Annotated[
        float | None, typer.Option("--temperature-K", help="Of files: of the bath they were run with.")
    ] = None,
    frame_ps: Annotated[
        float | None, typer.Option("--frame-ps", help="Of files: time between frames, where they do not say.")
    ] = None,
    lammps_units: Annotated[
        str | None, typer.Option("--lammps-units", metavar="real|metal", help="Of LAMMPS dumps.")
    ] = None,
    lammps_types: Annotated[
        str | None,
        typer.Option("--lammps-types", metavar="C,H,...", help="Of LAMMPS dumps: elements of types 1, 2, ..."),
    ] = None,
) -> int:
    """Judge a run: energy drift, structure, temperatures by element, break-even. Writes results.json and report.html.

    What cannot be judged from what is there is said. All options: mlff-sim validate files --help. With the name of a
    question, runs a model first and then judges it: mlff-sim validate nve --help. A folder of such a name is ./nve.

    Example:

      mlff-sim validate runs/fast --against runs/teacher

    Example: replicas made by OpenMM at constant energy:

      mlff-sim validate system.pdb a.dcd b.dcd a.csv b.csv --ensemble nve
    """
    check_drift_limit(drift_limit)
    if figures is not None:
        writable_folder(figures, "--figures")
    facts = {
        "--out": report,
        "--topology": topology,
        "--ensemble": ensemble,
        "--temperature-K": temperature_K,
        "--frame-ps": frame_ps,
        "--lammps-units": lammps_units,
        "--lammps-types": lammps_types,
    }
    if len(what) == 1 and not what[0].exists():
        raise InputError(f"'{what[0]}' does not exist; give the folder of a run or study, or trajectory files.")
    if len(what) == 1 and what[0].is_dir():
        folder = what[0]
        if given := [name for name, value in facts.items() if value is not None]:
            raise InputError(f"{' and '.join(given)} is for trajectory files; '{folder}' says itself what it holds.")
        if write_reference is not None:
            if against is not None or figures is not None:
                raise InputError("--write-reference judges nothing; leave --against and --figures out.")
            return _write_reference(folder, write_reference)
        writable_folder(folder, "folder")
        return VERDICT_CODES[judge(folder, against, drift_limit, figures)]
    if write_reference is not None:
        raise InputError("--write-reference is for run folders; trajectory files do not record how they were made.")
    from mlff_sim.trajectory import ReadOptions, read_files
    from mlff_sim.validation import Distribution, Run, assess, load_reference

    types = None if lammps_types is None else [t.strip() for t in lammps_types.split(",")]
    options = ReadOptions(topology, ensemble, temperature_K, frame_ps, lammps_units, types)
    folder = report or Path("runs/validation")
    writable_folder(folder)
    run = read_files(what, options)
    reference: Run | Distribution | None = None
    if against is not None:
        made_elsewhere = against.is_file() and against.suffix != ".npz"
        reference = read_files([against], options) if made_elsewhere else load_reference(against)
    assessment = assess([run], reference, drift_limit)
    return VERDICT_CODES[tell(assessment, folder, figures)]


def _write_reference(folder: Path, file: Path) -> int:
    """Distributions of all runs of a folder, pooled."""
    from mlff_sim.runfolder import find_runs, read_run
    from mlff_sim.validation import reference_of

    reference = reference_of(*(read_run(p) for p in find_runs(folder)))
    reference.save(file)
    out.print(f"{file}: {reference.sampled_ps:.0f} ps, {reference.samples:.0f} effective samples")
    return 0
