"""Options that `hybrid` and `md` share, and how a run is carried out and told about."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from mlff_sim.cli.console import FAIL, PASS, out, progress_bar
from mlff_sim.errors import InputError, SimulationStopped
from mlff_sim.simulation import RunConfig
from mlff_sim.simulation.config import GUARDS

if TYPE_CHECKING:
    from mlff_sim.validation import Assessment

Structure = Annotated[
    str,
    typer.Option(
        "--structure",
        metavar="FILE[@INDEX]",
        help="A file in any format ASE reads, 'smiles:CC(C)CO', 'aspirin', 'ethanol'. Velocities in it are kept. A slice (@0:5) gives a frame to each replica.",
    ),
]
Ensemble = Annotated[
    str, typer.Option("--ensemble", metavar="nve|nvt", help="Velocity Verlet inside (nve) or BAOAB Langevin (nvt).")
]
TimestepFs = Annotated[float, typer.Option("--timestep-fs", help="Inner time step.")]
DurationPs = Annotated[float, typer.Option("--duration-ps", help="Length of production.")]
TemperatureK = Annotated[float, typer.Option("--temperature-K", help="Bath, and velocities that are drawn.")]
FrictionPerPs = Annotated[
    str | None,
    typer.Option(
        "--friction-per-ps",
        metavar="G[,EL=G]",
        help="Langevin friction; '5,H=20' gives an element its own. [default: 1; 10 for sinr and regulated, 300 for kstep]",
    ),
]
Integrator = Annotated[
    str,
    typer.Option(
        "--integrator",
        metavar="baoab|obabo",
        help="Langevin splitting: unbiased positions (baoab) or momenta (obabo) in the harmonic limit.",
    ),
]
RemoveCom = Annotated[
    bool, typer.Option("--remove-com", help="Keep the centre of mass at rest: 3 degrees of freedom fewer.")
]
HydrogenMass = Annotated[
    float | None,
    typer.Option(
        "--hydrogen-mass",
        metavar="U",
        help="Mass of hydrogens, taken from the atoms they are bonded to; 3 allows longer steps. Ensembles stay, times do not.",
    ),
]
EquilibratePs = Annotated[float, typer.Option("--equilibrate-ps", help="NVT before production, not recorded.")]
Every = Annotated[
    int | None,
    typer.Option("--every", metavar="FRAMES", help="Outer steps between recorded frames. [default: about 10 fs]"),
]
Replicas = Annotated[
    int | None, typer.Option("--replicas", help="Independent copies. [default: one for each frame given]")
]
Seed = Annotated[int, typer.Option("--seed", help="Of everything random.")]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="Run folder to write.")]
Resume = Annotated[
    bool, typer.Option("--resume", help="Continue the run in --out exactly; start it if there is no checkpoint yet.")
]
Compile = Annotated[bool, typer.Option("--compile/--no-compile", help="Compile the student's inner loop.")]
CompileTeacher = Annotated[
    bool,
    typer.Option(
        "--compile-teacher/--no-compile-teacher",
        help="Compile a teacher that is a graph network (mace:, module:); takes a minute at every start.",
    ),
]
TeacherWorkers = Annotated[
    int,
    typer.Option(
        "--teacher-workers",
        metavar="W",
        help="Processes that evaluate the replicas of a teacher on the CPU side by side; same results for any number.",
    ),
]
Amp = Annotated[bool, typer.Option("--amp", help="bfloat16 products in the student's hidden layers.")]

NoGuard = Annotated[
    list[str] | None,
    typer.Option(
        "--no-guard",
        metavar="|".join(GUARDS),
        help="Switch a guard off, e.g. bonds where some may break; may be repeated.",
    ),
]
EnergyBudget = Annotated[
    float | None,
    typer.Option(
        "--energy-budget-meV",
        help="Stop when the conserved energy has changed by so much per atom. [default: kT/2 in nve, none in nvt]",
    ),
]


OnResidual = Annotated[
    str,
    typer.Option(
        "--on-residual",
        metavar="stop|relabel|ignore",
        help="Where teacher and student differ by more than in training: stop; go on, and keep such frames with the "
        "teacher's answers in relabel.npz; or just go on.",
    ),
]


DriftLimit = Annotated[float, typer.Option("--drift-limit", metavar="MEV", help="NVE drift allowed, meV/atom/ps.")]


def check_drift_limit(limit: float) -> None:
    """Refuse a limit that everything or nothing would pass.

    Raises:
        InputError: no positive number.
    """
    if not 0 < limit < float("inf"):
        raise InputError(f"drift limit {limit:g} meV/atom/ps must be a positive number.")


Number = TypeVar("Number", int, float)


def numbers(text: str, option: str, kind: type[Number], example: str) -> tuple[Number, ...]:
    """A list such as "200,400".

    Raises:
        InputError: anything else.
    """
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError:
        what = "whole numbers" if kind is int else "numbers"
        raise InputError(f"{option} '{text}' is no list of {what}; write for instance {example}.") from None


def friction(text: str | None) -> tuple[float | None, dict[str, float]]:
    """Friction for all, and of elements that have their own, from "5" or "5,H=20,O=2"; None where nothing was said.

    Raises:
        InputError: anything else, or an element twice.
    """
    if text is None:
        return None, {}
    first, *rest = text.split(",")
    try:
        own = {element.strip(): float(value) for element, value in (part.split("=") for part in rest)}
        if len(own) == len(rest):
            return float(first), own
    except ValueError:
        pass
    raise InputError(f"--friction-per-ps '{text}' is no friction; write for instance 5, or 5,H=20.")


def carry_out(config: RunConfig, folder: Path, resume: bool, against: Path | None = None) -> int:
    """Run, validate, write the report, print the table; returns the exit code.

    0 also when there is not enough data for a verdict: the run itself did what was asked. `mlff-sim validate`
    tells the two apart (3).
    """
    from mlff_sim.simulation import Run

    with progress_bar("steps", 0.0 if config.k_steps == "auto" else config.outer_step_fs / 1000) as bar:
        run = Run(config, folder, resume=resume, progress=bar)
        if run.action == "finished":
            out.print(f"{folder} is already finished ({run.status}).")
            return PASS if run.status == "finished" else FAIL
        try:
            run.run()
        except SimulationStopped:
            judge(folder, against)
            raise
    return FAIL if judge(folder, against) == "fail" else PASS


def judge(folder: Path, against: Path | None, drift_limit: float = 0.1, plots: Path | None = None) -> str:
    """Validate a run folder or a study of them, and `tell`."""
    from mlff_sim.validation import assess_folder

    return tell(assess_folder(folder, against, drift_limit), folder, plots)


def tell(assessment: Assessment, folder: Path, plots: Path | None = None) -> str:
    """Write results.json and report.html, and figures if asked for; print the table; returns the verdict."""
    from mlff_sim.report import print_table, write_report

    results = write_report(assessment, folder)
    print_table(assessment, out)
    out.print(f"report:  {folder / 'report.html'}\nresults: {folder / 'results.json'}")
    if plots is not None:
        from mlff_sim.report.figures import figures
        from mlff_sim.report.paper import write_figures

        written = write_figures(figures(assessment), plots)
        out.print(f"figures: {plots} ({len(written)} files)")
    return str(results["verdict"])
