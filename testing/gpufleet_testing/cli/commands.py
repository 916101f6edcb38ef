"""The commands of the command line, those of groups with the name of the group."""

from collections.abc import Iterator
from typing import Any, Final

import typer

from gpufleet_cli.app import app


def _names(group: Any, prefix: str = "") -> Iterator[str]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _names(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}"


ALL: Final = tuple(_names(typer.main.get_command(app)))
