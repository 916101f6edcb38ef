"""The group of commands, which ends a command with exit code 2 and one line on stderr when its input cannot be used."""

from typing import Any

import typer
from typer.core import TyperGroup

from gpufleet_cli.errors import InputError
from gpufleet_cli.exit_codes import BAD_INPUT


class CommandGroup(TyperGroup):
    """Lists the commands in the order of their declaration, and maps InputError to exit code 2."""

    def invoke(self, ctx: Any) -> Any:
        """Runs the chosen command. `ctx` is of the copy of click that typer bundles."""
        try:
            return super().invoke(ctx)
        except InputError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(BAD_INPUT) from error
