"""`mlff-sim bench`: how fast a model is, and what each acceleration costs in accuracy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from mlff_sim.cli.console import out as console
from mlff_sim.cli.console import progress_bar, writable_folder
from mlff_sim.cli.options import numbers


def bench(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A torch model by name; see mlff-sim models.")],
    structure: Annotated[
        str,
        typer.Argument(
            metavar="STRUCTURE", help="A file in any format ASE reads, 'smiles:CC(C)CO', or 'aspirin', 'ethanol'."
        ),
    ],
    batch: Annotated[str, typer.Option("--batch", metavar="N[,N...]", help="Structures in a call.")] = "1,4,8,16",
    device: Annotated[str, typer.Option("--device", metavar="auto|cpu|cuda", help="Where.")] = "auto",
    dtype: Annotated[str, typer.Option("--dtype", metavar="float32|float64", help="Of the network.")] = "float32",
    autocast: Annotated[
        str, typer.Option("--autocast", metavar="bfloat16|float16", help="Precision of large products in two rungs.")
    ] = "bfloat16",
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for bench.json and bench.html.")] = Path(
        "runs/bench"
    ),
) -> int:
    """Measure a model eager, compiled, with 16-bit products and with both, alone and in batches.

    Every rung is measured in blocks that alternate in one process, with its deviation from the eager model beside it.
    Compiling a large model takes a minute or two for each number of structures.

    Example:

      mlff-sim bench student:aspirin-gfn2 aspirin --batch 1,16
    """
    batches = numbers(batch, "--batch", int, "1,4,8,16")
    writable_folder(out)
    from mlff_sim.benchmark import ladder
    from mlff_sim.models.registry import resolve
    from mlff_sim.report.bench import HEADER, sentence, table, write_bench
    from mlff_sim.structure import read_structure

    resolve(model)
    atoms = read_structure(structure)
    with progress_bar("rungs") as bar:
        result = ladder(model, atoms, batches, device=device, dtype=dtype, autocast=autocast, progress=bar)
    write_bench(result, out)
    shown = Table(box=None, pad_edge=False)
    for k, name in enumerate(HEADER):
        shown.add_column(name, justify="left" if k == 0 else "right")
    for row in table(result):
        shown.add_row(*row)
    console.print(
        f"{result.model}, {result.formula}, {result.n_atoms} atoms, {result.device}, {result.threads} threads"
    )
    console.print(shown)
    console.print(sentence(result))
    console.print(f"report: {out / 'bench.html'}")
    return 0
