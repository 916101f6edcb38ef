"""Signatures of `gpufleet snapshot save` and `show`."""

from pathlib import Path
from typing import Annotated

import typer


def save(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.")],
    *,
    no_logs: Annotated[bool, typer.Option("--no-logs", metavar="", help="Save no logs.")] = False,
) -> None:
    """Save telemetry, nodes, pods, workloads, events, versions and logs, for a bug report or for --from.

    Values of environment variables, commands of containers and annotations of others are left out. Secrets and
    ConfigMaps are not read.
    """
    from gpufleet_cli.commands.live import snapshot  # noqa: PLC0415 - keeps --help fast

    snapshot.save(ctx.obj, folder, with_logs=not no_logs)


def show(folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder of snapshot save.")]) -> None:
    """Show what a snapshot has: versions, GPUs, and workloads that are not Ready."""
    from gpufleet_cli.commands.live import snapshot  # noqa: PLC0415 - keeps --help fast

    snapshot.show(folder)
