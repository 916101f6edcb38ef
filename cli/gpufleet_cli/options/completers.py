"""Completes names from the cluster that the options before the cursor choose. A cluster that fails gives no names."""

from collections.abc import Callable, Iterable
from typing import Any

import typer

from gpufleet_api.names import TELEMETRY_PLURAL, WORKLOAD_PLURAL

_JSONPATH = "--output=jsonpath={range .items[*]}{.metadata.name}{'\\n'}{end}"
_DEVICES = "--output=jsonpath={range .items[*].status.devices[*]}{.uuid}{'\\n'}{end}"
_DEVICES_AND_NODES = "--output=jsonpath={.items[*].status.devices[*].uuid} {.items[*].metadata.name}"


def complete_context(ctx: typer.Context, incomplete: str) -> list[str]:
    """Contexts of the kubeconfig."""
    return _matching(incomplete, ctx, lambda kubectl, _: kubectl.contexts())


def complete_namespace(ctx: typer.Context, incomplete: str) -> list[str]:
    """Namespaces of the cluster."""
    return _matching(incomplete, ctx, lambda kubectl, _: _get(kubectl, "namespaces"))


def complete_workload(ctx: typer.Context, incomplete: str) -> list[str]:
    """GPUWorkloads of the namespace."""
    return _matching(incomplete, ctx, lambda kubectl, where: _get(kubectl, WORKLOAD_PLURAL, *where))


def complete_workload_or_pod(ctx: typer.Context, incomplete: str) -> list[str]:
    """GPUWorkloads and pods of the namespace."""

    def names(kubectl: Any, where: Iterable[str]) -> list[str]:
        return [*_get(kubectl, WORKLOAD_PLURAL, *where), *_get(kubectl, "pods", *where)]

    return _matching(incomplete, ctx, names)


def complete_node(ctx: typer.Context, incomplete: str) -> list[str]:
    """Nodes with a GPUTelemetry."""
    return _matching(incomplete, ctx, lambda kubectl, _: _get(kubectl, TELEMETRY_PLURAL))


def complete_gpu(ctx: typer.Context, incomplete: str) -> list[str]:
    """UUIDs of GPUs."""
    return _matching(incomplete, ctx, lambda kubectl, _: _get(kubectl, TELEMETRY_PLURAL, output=_DEVICES))


def complete_holder(ctx: typer.Context, incomplete: str) -> list[str]:
    """UUIDs of GPUs, nodes, and pods of the namespace."""
    found = _matching(incomplete, ctx, lambda kubectl, _: _get(kubectl, TELEMETRY_PLURAL, output=_DEVICES_AND_NODES))
    pods = _matching(incomplete, ctx, lambda kubectl, where: _get(kubectl, "pods", *where))
    return [*found, *pods]


def _matching(incomplete: str, ctx: typer.Context, names: Callable[[Any, Iterable[str]], Iterable[str]]) -> list[str]:
    from gpufleet_cli.cluster.kubectl import Kubectl  # noqa: PLC0415 - keeps --help fast
    from gpufleet_cli.errors import ClusterError  # noqa: PLC0415 - as above
    from gpufleet_cli.options.target import Target, take  # noqa: PLC0415 - target imports this module

    before = Target() if ctx.parent is None else take(dict(ctx.parent.params), Target())
    connection = take(dict(ctx.params), before).connection
    where = [f"--namespace={connection.namespace}"] if connection.namespace else []
    try:
        found = names(Kubectl(connection), where)
    except ClusterError:
        return []
    return [name for name in found if name.startswith(incomplete)]


def _get(kubectl: Any, plural: str, *where: str, output: str = _JSONPATH) -> list[str]:
    found: str = kubectl.run("get", plural, *where, output)
    return found.split()
