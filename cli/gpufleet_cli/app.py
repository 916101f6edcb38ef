"""The commands and their options. What a command does is imported when it runs, so that `--help` is quick."""

from typing import Annotated

import typer

from gpufleet_cli.group import Commands
from gpufleet_cli.options import Format

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Where GPU workloads would go, and why or why not: the operator's engine on a saved fleet, with no cluster.",
)


@app.command()
def distribute(
    items: Annotated[int, typer.Option("--items", metavar="N", help="How many items there are to divide.")],
    capacity: Annotated[list[str], typer.Option("--capacity", metavar="NAME=NUMBER", help="Repeatable.")] = [],
    maximum: Annotated[list[str], typer.Option("--max", metavar="[NAME=]N", help="Repeatable.")] = [],
    output: Annotated[Format, typer.Option("--output", "-o")] = Format.TABLE,
) -> None:
    """Divide a number of items in proportion to capacities."""
    from gpufleet_cli import distribute as run  # noqa: PLC0415 - keeps --help quick
    from gpufleet_cli.output import write_json  # noqa: PLC0415 - as above

    write_json(run.as_json(run.divide(items, run.capacities(capacity), maximum)))


@app.command()
def version() -> None:
    """Print the version."""
    from importlib.metadata import version as installed  # noqa: PLC0415 - keeps --help quick

    typer.echo(f"gpufleet {installed('gpufleet')}")
