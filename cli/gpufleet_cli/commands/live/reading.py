"""Reads what a command needs, from a cluster or from saved objects, and repeats it for `--watch`."""

import time
from collections.abc import Callable, Iterable, Iterator

from gpufleet_api.names import STALE_AFTER_SECONDS
from gpufleet_cli.cluster.kinds import AGENT_LEASES, TELEMETRY, WORKLOAD_PODS, WORKLOADS, ObjectKind
from gpufleet_cli.cluster.kubectl import Kubectl
from gpufleet_cli.cluster.lists import read_lists
from gpufleet_cli.cluster.object_lists import ObjectLists
from gpufleet_cli.options.target import Target
from gpufleet_cli.output.terminal import write_notes
from gpufleet_cli.view.fleet_view import FleetView, fleet_view

WATCH_SECONDS = 2.0


def scope(target: Target) -> str | None:
    """Returns the namespace that the command is about; None: all of them."""
    connection = target.connection
    if connection.all_namespaces or (target.saved and not connection.namespace):
        return None
    return Kubectl(connection).namespace()


def read(
    target: Target,
    required: Iterable[ObjectKind],
    optional: Iterable[ObjectKind] = (),
    namespace: str | None = None,
    *,
    quiet: bool = False,
    stale_after_seconds: float = STALE_AFTER_SECONDS,
) -> ObjectLists:
    """Reads lists. A list that is forbidden gives a note.

    Args:
        target: The cluster or the files.
        required: Kinds without which the command has no result.
        optional: Kinds that may be forbidden or missing.
        namespace: Limits kinds with a namespace to this one.
        quiet: No notes: the caller reports what could not be read.
        stale_after_seconds: Limit for the age of telemetry.

    Raises:
        InputError: A required list cannot be read.
    """
    if target.saved:
        from gpufleet_cli.input.saved_objects import saved_lists  # noqa: PLC0415 - a cluster needs no YAML

        return saved_lists(target.files, required, optional, namespace)
    kubectl = Kubectl(target.connection)
    lists = read_lists(kubectl, required, optional, namespace, stale_after_seconds=stale_after_seconds)
    if not quiet:
        write_notes(_unread(kind, why) for kind, why in lists.unreadable.items())
    return lists


def unconfirmed(lists: ObjectLists) -> Iterator[str]:
    """Yields a note when the Leases of agents could not be read."""
    if AGENT_LEASES in lists.unreadable:
        yield _unread(AGENT_LEASES, lists.unreadable[AGENT_LEASES])


def _unread(kind: ObjectKind, why: str) -> str:
    instead = "; telemetry is as fresh as the operator's condition Fresh says" if kind is AGENT_LEASES else ""
    return f"{kind.plural} not read: {why}{instead}"


def view_of(lists: ObjectLists, pods: ObjectKind = WORKLOAD_PODS) -> FleetView:
    """Builds the view of lists."""
    return fleet_view(lists.of(TELEMETRY), lists.of(WORKLOADS), lists.of(pods), lists.now, lists.renewals)


def repeat(once: Callable[[], None], *, watch: bool) -> None:
    """Runs `once`, with `watch` again and again until it is interrupted."""
    once()
    while watch:
        time.sleep(WATCH_SECONDS)
        once()
