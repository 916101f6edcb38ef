"""Source of the objects of a command: a cluster, chosen by the flags of kubectl, or saved files."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from gpufleet_cli.cluster.connection import Connection
from gpufleet_cli.errors import InputError
from gpufleet_cli.options.completers import complete_context, complete_namespace

CONNECTION_PANEL = "Cluster"


@dataclass(frozen=True, slots=True)
class Target:
    """The cluster of a connection, or saved objects if there are files."""

    connection: Connection = field(default_factory=Connection)
    files: tuple[Path, ...] = ()

    @property
    def saved(self) -> bool:
        return bool(self.files)

    def check_live(self, command: str) -> None:
        """Raises InputError when there are files: `command` needs a cluster."""
        if self.files:
            raise InputError(f"--from may not be given: {command} needs a cluster")


_options = typer.Typer(add_completion=False)


@_options.command()
def _connection(
    *,
    kubeconfig: Annotated[
        str | None,
        typer.Option(
            "--kubeconfig", metavar="FILE", help="Kubeconfig, as for kubectl.", rich_help_panel=CONNECTION_PANEL
        ),
    ] = None,
    context: Annotated[
        str | None,
        typer.Option(
            "--context",
            metavar="NAME",
            help="Context of the kubeconfig.",
            rich_help_panel=CONNECTION_PANEL,
            autocompletion=complete_context,
        ),
    ] = None,
    namespace: Annotated[
        str | None,
        typer.Option(
            "--namespace",
            "-n",
            metavar="NAME",
            help="Namespace; the default is the context's.",
            rich_help_panel=CONNECTION_PANEL,
            autocompletion=complete_namespace,
        ),
    ] = None,
    all_namespaces: Annotated[
        bool,
        typer.Option("--all-namespaces", "-A", metavar="", help="All namespaces.", rich_help_panel=CONNECTION_PANEL),
    ] = False,
    impersonate: Annotated[
        str | None,
        typer.Option("--as", metavar="USER", help="User to impersonate.", rich_help_panel=CONNECTION_PANEL),
    ] = None,
    impersonate_group: Annotated[
        list[str] | None,
        typer.Option(
            "--as-group",
            metavar="GROUP",
            help="Group to impersonate. Repeatable.",
            rich_help_panel=CONNECTION_PANEL,
        ),
    ] = None,
    saved: Annotated[
        list[Path] | None,
        typer.Option(
            "--from",
            metavar="FILE|DIR|-",
            help="Read saved objects instead of a cluster: output of `kubectl get -o yaml` or json, or a folder of "
            "`gpufleet snapshot save`. Repeatable.",
            rich_help_panel=CONNECTION_PANEL,
        ),
    ] = None,
) -> None:
    """Declares the options."""


SAVED = "saved"
NAMES = frozenset({"kubeconfig", "context", "namespace", "all_namespaces", "impersonate", "impersonate_group", SAVED})


def connection_params() -> list[Any]:
    """Returns new options for a command; `take` reads their values."""
    return [param for param in typer.main.get_command(_options).params if param.name in NAMES]


def take(params: dict[str, Any], before: Target) -> Target:
    """Removes the values of the options from `params` and returns them, those of `before` where they are absent."""
    given = {name: params.pop(name, None) for name in NAMES}
    first = before.connection
    connection = Connection(
        kubeconfig=given["kubeconfig"] or first.kubeconfig,
        context=given["context"] or first.context,
        namespace=given["namespace"] or first.namespace,
        all_namespaces=bool(given["all_namespaces"]) or first.all_namespaces,
        user=given["impersonate"] or first.user,
        groups=tuple(given["impersonate_group"] or ()) or first.groups,
    )
    return Target(connection, tuple(given["saved"] or ()) or before.files)
