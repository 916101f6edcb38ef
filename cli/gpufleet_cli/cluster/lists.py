"""Reads lists of a cluster."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from gpufleet_cli.cluster.kinds import ObjectKind
from gpufleet_cli.cluster.kubectl import Kubectl
from gpufleet_cli.cluster.object_lists import ObjectLists
from gpufleet_cli.errors import ClusterError, ForbiddenError, MissingObjectError
from gpufleet_operator.model.lenient_json import Json, as_list, as_map

_PARALLEL = 6


def read_lists(
    kubectl: Kubectl, required: Iterable[ObjectKind], optional: Iterable[ObjectKind] = (), namespace: str | None = None
) -> ObjectLists:
    """Reads lists of a cluster at the same time.

    Args:
        kubectl: The cluster.
        required: Kinds without which the command has no result.
        optional: Kinds that may be forbidden or not exist.
        namespace: Limits kinds with a namespace to this one; None for all.

    Raises:
        ClusterError: A required list cannot be read, or the cluster does not respond.
    """
    needed = tuple(required)
    wanted = (*needed, *optional)
    items: dict[ObjectKind, tuple[Json, ...]] = {}
    unreadable: dict[ObjectKind, str] = {}
    with ThreadPoolExecutor(_PARALLEL) as pool:
        reads = {kind: pool.submit(_read, kubectl, kind, namespace) for kind in wanted}
    for kind, read in reads.items():
        try:
            items[kind] = read.result()
        except (ForbiddenError, MissingObjectError) as error:
            if kind in needed:
                raise
            unreadable[kind] = str(error)
    return ObjectLists(items, datetime.now(UTC), unreadable)


def _read(kubectl: Kubectl, kind: ObjectKind, namespace: str | None) -> tuple[Json, ...]:
    found = as_map(kubectl.get(kind.path(namespace)))
    if not isinstance(found.get("items"), list):
        raise ClusterError(f"{kind.path(namespace)}: the response is not a list")
    # Items of a list of core objects have neither kind nor apiVersion.
    return tuple(
        {"apiVersion": kind.api_version, "kind": kind.kind, **item} for item in map(as_map, as_list(found["items"]))
    )
