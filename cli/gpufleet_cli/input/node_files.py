"""Labels, taints and free capacity of each node, computed by the operator's own code."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from gpufleet_cli.errors import InputError
from gpufleet_cli.input.decode import convert
from gpufleet_cli.input.documents import Document
from gpufleet_common.field_errors import duplicate, invalid, required
from gpufleet_operator.cache import decode
from gpufleet_operator.fleet.node_capacity import node_without_devices
from gpufleet_operator.model.objects import BoundPod, Node
from gpufleet_operator.placement.model import NodeState
from gpufleet_operator.pods.quantities import quantity

_ENDED_PHASES = frozenset({"Succeeded", "Failed"})


def load_nodes(nodes: Iterable[Document], pods: Iterable[BoundPod]) -> Mapping[str, NodeState]:
    """Returns labels, taints and free capacity by node: allocatable minus the requests of the pods bound to it.

    Raises:
        InputError: A Node cannot be used, or occurs twice.
    """
    used = _used(pods)
    found: dict[str, NodeState] = {}
    for document in nodes:
        if document.name in found:
            raise InputError(f"{document}: {duplicate('metadata.name', document.name)}")
        if not _object(document, "status").get("allocatable"):
            raise InputError(f"{document}: {required('status.allocatable')}")
        found[document.name] = node_without_devices(convert(document, _node), used.get(document.name, {}))
    return found


def load_pods(pods: Iterable[Document]) -> tuple[BoundPod, ...]:
    """Returns the pods that are bound to a node and have not ended.

    Raises:
        InputError: A Pod cannot be used.
    """
    found = []
    for document in pods:
        phase = _object(document, "status").get("phase")
        if _object(document, "spec").get("nodeName") and phase not in _ENDED_PHASES:
            found.append(convert(document, _pod))
    return tuple(found)


def _used(pods: Iterable[BoundPod]) -> Mapping[str, Counter[str]]:
    used: dict[str, Counter[str]] = {}
    for pod in pods:
        used.setdefault(pod.node, Counter()).update({**pod.requests, "pods": 1})
    return used


def _node(body: Mapping[str, Any]) -> Node:
    _check_quantities((body.get("status") or {}).get("allocatable") or {})
    return decode.node({**body, "metadata": {"uid": "", **body["metadata"]}})


def _pod(body: Mapping[str, Any]) -> BoundPod:
    spec = body["spec"]
    for container in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ())):
        for kind in ("limits", "requests"):
            _check_quantities((container.get("resources") or {}).get(kind) or {})
    return decode.bound_pod({**body, "metadata": {"uid": "", **body["metadata"]}})


def _check_quantities(amounts: Mapping[str, Any]) -> None:
    """Raises ValueError for a malformed quantity; the operator's decoder counts it as a huge one instead."""
    for amount in amounts.values():
        quantity(amount)


def _object(document: Document, field: str) -> Mapping[str, Any]:
    value = document.body.get(field)
    if value is not None and not isinstance(value, dict):
        raise InputError(f"{document}: {invalid(field, value, 'must be an object')}")
    return value or {}
