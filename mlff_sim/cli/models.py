"""`mlff-sim models`: what can be used here."""

from __future__ import annotations

from rich.table import Table

from mlff_sim.cli.console import out


def models() -> int:
    """List what can be used as teacher or student here, what is missing, and how to install it.

    Example:

      mlff-sim models
    """
    from mlff_sim.models.registry import families, usage
    from mlff_sim.models.shipped import students

    table = Table(box=None, pad_edge=False)
    for column in ("name", "role", "what it is", "here"):
        table.add_column(column)
    for key, family in families().items():
        state = "broken" if family.fault else "ready"
        if family.missing:
            state = f"missing {', '.join(family.missing)}: pip install 'mlff-sim[{family.extra}]'"
        table.add_row(usage(key, family), family.role, family.summary, state)
    out.print(table)
    names = ", ".join(students())
    out.print(f"\nShipped students, usable wherever a student file is: {names or 'none'}.")
    return 0
