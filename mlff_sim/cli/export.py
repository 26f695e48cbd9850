"""`mlff-sim export`: a trained model in one file, for programs that know nothing of this package."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mlff_sim.cli.console import PASS, out, writable_file
from mlff_sim.errors import InputError


def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="student:FILE or mace:FILE; see mlff-sim models.")],
    torchscript: Annotated[
        Path, typer.Option("--torchscript", metavar="FILE", help="TorchScript file to write, any suffix.")
    ],
    structure: Annotated[
        str,
        typer.Option(
            "--structure",
            metavar="FILE",
            help="Atoms in the model's order: any format ASE reads, 'smiles:CC(C)CO', 'aspirin', 'ethanol'.",
        ),
    ],
    dtype: Annotated[
        str | None,
        typer.Option("--dtype", metavar="float32|float64", help="Precision of the network. [default: float32]"),
    ] = None,
) -> int:
    """Export a trained model to one TorchScript file.

    The file holds the network, its neighbour list and its units. It is made for the atoms of the structure, in their
    order, and for a periodic box if the structure has one; positions and box may change. Use it as torchscript:FILE,
    with OpenMM's TorchForce, or from any program that runs TorchScript on a CPU: positions and box vectors in nm,
    energy in kJ/mol.

    Example:

      mlff-sim export student:aspirin-gfn2 --structure aspirin --torchscript aspirin.pt
    """
    writable_file(torchscript, "--torchscript")
    from mlff_sim.acceleration import Execution
    from mlff_sim.models.registry import load_model, resolve
    from mlff_sim.models.torchscript_export import export_torchscript
    from mlff_sim.structure import read_structure

    execution = Execution(device="cpu", dtype=dtype or "float32")
    resolve(model)
    atoms = read_structure(structure)
    provider = load_model(model, atoms, execution)
    if dtype and provider.dtype != dtype:
        raise InputError(f"--dtype {dtype}: the model '{model}' is {provider.dtype} by itself; leave it out.")
    record = export_torchscript(provider, torchscript, atoms)
    arguments = "positions, boxvectors" if any(record["pbc"]) else "positions"
    out.print(
        f"{torchscript}: forward({arguments}) in nm to kJ/mol, for {atoms.get_chemical_formula('hill')} in this order, "
        f"{record['dtype']}"
    )
    out.print(
        f"differs from the model itself by at most {record['energy_deviation_meV_per_atom']:.2g} meV/atom and "
        f"{record['force_deviation_meV_per_A']:.2g} meV/A at {record['structures_compared']} structures"
    )
    return PASS
