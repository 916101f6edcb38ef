"""Ends a command with exit code 2 and one line on stderr when its input can't be used."""

from typing import Any

import typer
from typer.core import TyperGroup

from gpufleet_cli.errors import InputError

BAD_INPUT = 2


class Commands(TyperGroup):
    """The commands in the order of their declaration; InputError never becomes a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command. `ctx` is of the copy of click that typer keeps to itself."""
        try:
            return super().invoke(ctx)
        except InputError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(BAD_INPUT) from error
