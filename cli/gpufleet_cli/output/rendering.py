"""Prints a result in the format of `--output`."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import typer

from gpufleet_cli.options.choices import OutputFormat
from gpufleet_cli.output.terminal import UNLIMITED, Screen, write_json


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """How a result is printed."""

    format: OutputFormat = OutputFormat.TABLE
    headers: bool = True
    watch: bool = False


@dataclass(frozen=True, slots=True)
class Rendering:
    """A result in all formats."""

    shape: Callable[[], Any]
    """Returns the result for json and yaml."""
    names: Callable[[], Sequence[str]]
    """Returns the result for name."""
    draw: Callable[[Screen, bool], None]
    """Prints the result as a table; the flag is True for all columns."""


def write(rendering: Rendering, output: OutputFormat, *, headers: bool = True, redraw: bool = False) -> None:
    """Prints a result.

    Args:
        rendering: The result.
        output: The format.
        headers: Whether tables have a header and a line of totals.
        redraw: Whether a table replaces what a terminal shows.
    """
    match output:
        case OutputFormat.JSON:
            write_json(rendering.shape())
        case OutputFormat.YAML:
            import yaml  # noqa: PLC0415 - a table needs no YAML

            plain = json.loads(json.dumps(rendering.shape()))  # tuples become lists
            typer.echo(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True), nl=False)
        case OutputFormat.NAME:
            for name in rendering.names():
                typer.echo(name)
        case OutputFormat.WIDE:
            screen = Screen.of(UNLIMITED, headers=headers)
            if redraw:
                screen.clear()
            rendering.draw(screen, True)
        case OutputFormat.TABLE:
            screen = Screen.of(headers=headers)
            if redraw:
                screen.clear()
            rendering.draw(screen, False)
