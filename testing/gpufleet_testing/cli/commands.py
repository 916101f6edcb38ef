"""The commands of the command line, those of groups with the name of the group."""

from collections.abc import Iterator
from typing import Final

import typer
from typer.core import TyperGroup

from gpufleet_cli.app import app


def _names(group: object, prefix: str = "") -> Iterator[str]:
    assert isinstance(group, TyperGroup)
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from _names(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}"


ALL: Final = tuple(_names(typer.main.get_command(app)))
