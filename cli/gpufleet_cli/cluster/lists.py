"""Reads lists of a cluster."""

from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Final

from gpufleet_api.names import STALE_AFTER_SECONDS
from gpufleet_cli.cluster.kinds import AGENT_LEASES, TELEMETRY, ObjectKind
from gpufleet_cli.cluster.kubectl import Kubectl
from gpufleet_cli.cluster.object_lists import ObjectLists
from gpufleet_cli.errors import ClusterError, ForbiddenError, MissingObjectError
from gpufleet_cli.freshness import Renewals, written_at
from gpufleet_operator.model.lenient_json import Json, as_list, as_map

_PARALLEL = 6
_NAMESPACE: Final = "gpufleet-system"
"""Namespace of the agents in the documents."""


def read_lists(
    kubectl: Kubectl,
    required: Iterable[ObjectKind],
    optional: Iterable[ObjectKind] = (),
    namespace: str | None = None,
    *,
    stale_after_seconds: float | None = None,
) -> ObjectLists:
    """Reads lists of a cluster at the same time.

    Args:
        kubectl: The cluster.
        required: Kinds without which the command has no result.
        optional: Kinds that may be forbidden or not exist.
        namespace: Limits kinds with a namespace to this one; None for all.
        stale_after_seconds: Limit for the age of telemetry. The Leases of agents are read as well if the last write
            of a GPUTelemetry may be older. None: they are not read.

    Raises:
        ClusterError: A required list cannot be read, or the cluster does not respond.
    """
    needed = tuple(required)
    wanted = (*needed, *optional)
    items: dict[ObjectKind, tuple[Json, ...]] = {}
    unreadable: dict[ObjectKind, str] = {}
    with ThreadPoolExecutor(_PARALLEL) as pool:
        reads = {kind: pool.submit(_read, kubectl, kind, namespace) for kind in wanted}
        if stale_after_seconds is not None and TELEMETRY in reads:
            # Submitted after the list that it waits for, so it cannot take the last thread from it.
            reads[AGENT_LEASES] = pool.submit(_confirmations, kubectl, reads[TELEMETRY], stale_after_seconds)
    for kind, read in reads.items():
        try:
            items[kind] = read.result()
        except (ForbiddenError, MissingObjectError) as error:
            if kind in needed:
                raise
            unreadable[kind] = str(error)
    return ObjectLists(items, datetime.now(UTC), unreadable)


def _confirmations(
    kubectl: Kubectl, telemetry: Future[tuple[Json, ...]], stale_after_seconds: float
) -> tuple[Json, ...]:
    """Returns the Leases of agents, if a report may be stale without them when the last list has been read.

    While an agent renews its Lease in the namespace of the documents, Leases elsewhere do not count, because their
    writers need no permission in the namespace of the agents.
    """
    if telemetry.exception() is not None:
        return ()
    limit, now = stale_after_seconds - kubectl.timeout_seconds, datetime.now(UTC)
    written = (written_at(one) for one in telemetry.result())
    if all(moment is None or (now - moment).total_seconds() <= limit for moment in written):
        return ()
    try:
        found = _read(kubectl, AGENT_LEASES, _NAMESPACE)
    except (ForbiddenError, MissingObjectError):
        found = ()
    renewed = max(Renewals.of(found).times.values(), default=None)
    if renewed is not None and (now - renewed).total_seconds() <= STALE_AFTER_SECONDS:
        return found
    try:
        return _read(kubectl, AGENT_LEASES, None)  # the chart may be installed in another namespace
    except ForbiddenError:
        if not found:
            raise
        return found


def _read(kubectl: Kubectl, kind: ObjectKind, namespace: str | None) -> tuple[Json, ...]:
    found = as_map(kubectl.get(kind.path(namespace)))
    if not isinstance(found.get("items"), list):
        raise ClusterError(f"{kind.path(namespace)}: the response is not a list")
    # Items of a list of core objects have neither kind nor apiVersion.
    return tuple(
        {"apiVersion": kind.api_version, "kind": kind.kind, **item} for item in map(as_map, as_list(found["items"]))
    )
