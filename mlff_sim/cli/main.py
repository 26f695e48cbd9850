"""The command `mlff-sim`: collects the verbs and turns mistakes into one line and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from inspect import cleandoc

import typer
from typer.exceptions import TyperException

from mlff_sim.cli.bench import bench
from mlff_sim.cli.bydefault import ByDefault
from mlff_sim.cli.cadence import cadence
from mlff_sim.cli.certify import certify
from mlff_sim.cli.console import FAIL, USAGE, error_line, quiet_threads
from mlff_sim.cli.demo import demo
from mlff_sim.cli.distill import distill
from mlff_sim.cli.export import export
from mlff_sim.cli.hybrid import hybrid
from mlff_sim.cli.md import md
from mlff_sim.cli.models import models
from mlff_sim.cli.time_study import time_study
from mlff_sim.cli.train_predictor import train_predictor
from mlff_sim.cli.trial import VERBS
from mlff_sim.cli.validate import validate
from mlff_sim.errors import InputError, SimulationStopped

INTERRUPTED = 130
CONTINUED = {
    **dict.fromkeys(("hybrid", "md"), "; the same command with --resume continues."),
    **dict.fromkeys(
        ("distill", "train-predictor", "demo", "certify", "time-study", *(f"validate {t.__name__}" for t in VERBS)),
        "; the same command continues.",
    ),
}
"""What an interrupted verb can do, where it can."""

app = typer.Typer(
    name="mlff-sim",
    help="Molecular dynamics in which a cheap student advances, the expensive teacher corrects, and a report says whether it is the same physics.\n\n"
    "Exit codes: 0 pass, 1 fail or a run that was stopped, 2 a mistake in the input, 3 inconclusive.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _help(verb: Callable[..., int]) -> str:
    """A verb's docstring with its indented examples kept as they are (a line with a backspace, as in click)."""
    paragraphs = cleandoc(verb.__doc__ or "").split("\n\n")
    return "\n\n".join("\b\n" + p if p.startswith("  ") else p for p in paragraphs)


for _verb in (distill, train_predictor, cadence, hybrid, md, certify, time_study, bench, export, models, demo):
    app.command(help=_help(_verb))(_verb)

_judge = typer.Typer(cls=ByDefault, rich_markup_mode=None, help=_help(validate))
_judge.command("files", help=_help(validate))(validate)
for _trial in VERBS:
    _judge.command(_trial.__name__, help=_help(_trial))(_trial)
app.add_typer(_judge, name="validate")


def _version(value: bool) -> None:
    if value:
        from mlff_sim import __version__

        typer.echo(f"mlff-sim {__version__}")
        raise typer.Exit()


@app.callback()
def root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    """Options of the command itself."""


def _named(given: Sequence[str]) -> list[str]:
    """The verb that was given, and that of a group in it."""
    words = [a for a in given if not a.startswith("-")][:2]
    trial = words[:1] == ["validate"] and words[-1] in (t.__name__ for t in VERBS)
    return words if trial else words[:1]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    quiet_threads()
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = app(args=given or ["--help"], standalone_mode=False)
    except TyperException as error:
        error_line(f"{error.format_message()} (see {' '.join(('mlff-sim', *_named(given)))} --help)")
        sys.exit(USAGE)
    except InputError as error:
        error_line(str(error))
        sys.exit(USAGE)
    except SimulationStopped as error:
        error_line(str(error))
        sys.exit(FAIL)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    if code == INTERRUPTED:  # typer itself turns Ctrl-C into this code and says nothing
        error_line(f"interrupted{CONTINUED.get(' '.join(_named(given)), '.')}")
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
