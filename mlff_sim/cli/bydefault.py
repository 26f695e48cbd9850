"""A group of verbs that is a verb itself."""

from __future__ import annotations

from typing import Any, ClassVar

from typer.core import TyperGroup


class ByDefault(TyperGroup):
    """Arguments that name none of the group's verbs are those of its first: `validate DIR` beside `validate nve`."""

    default: ClassVar[str] = "files"

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the verb in where it was left out."""
        if args and args[0] not in (*self.commands, "--help"):
            args = [self.default, *args]
        return super().parse_args(ctx, args)
