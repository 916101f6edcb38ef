"""Signatures of `gpufleet version` and `completion`."""

from typing import Annotated, TypeAlias

import typer

from gpufleet_cli.options.choices import Shell
from gpufleet_cli.options.parsers import choice
from gpufleet_cli.options.target import Target, take


def version(
    ctx: typer.Context,
    *,
    client: Annotated[
        bool, typer.Option("--client", metavar="", help="Print only the version of this program.")
    ] = False,
) -> None:
    """Print the versions of this program, and of operator, agents and Kubernetes."""
    from gpufleet_cli.commands.live.versions import versions  # noqa: PLC0415 - keeps --help fast

    target: Target = ctx.obj
    versions(target, client_only=client or target.saved)


def completion(
    shell: Annotated[
        Shell, typer.Argument(metavar="SHELL", parser=choice("SHELL", Shell), help=f"{', '.join(Shell)}.")
    ],
) -> None:
    """Print the script that completes commands, options, and names from the cluster.

    For kubectl gpufleet, completion works as soon as kubectl_complete-gpufleet is in PATH, where the package puts it.
    """
    from gpufleet_cli.options.completion import script  # noqa: PLC0415 - keeps --help fast

    typer.echo(script(shell))


def print_version(ctx: typer.Context, requested: bool) -> None:
    """Prints the versions of program and cluster and ends the command, when it is requested."""
    if requested and not ctx.resilient_parsing:
        from gpufleet_cli.commands.live.versions import versions  # noqa: PLC0415 - keeps --help fast

        versions(take(dict(ctx.params), Target()), client_only=False)
        raise typer.Exit


Version: TypeAlias = Annotated[
    bool,
    typer.Option("--version", metavar="", callback=print_version, help="Print the versions of program and cluster."),
]
