"""`--nodes` and `--pods`: labels, taints and room of each node, by the operator's own arithmetic."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from gpufleet_cli.errors import InputError
from gpufleet_cli.input.documents import Document, read, show
from gpufleet_operator.cache import decode
from gpufleet_operator.fleet.engine_input import NodeInfo
from gpufleet_operator.fleet.node_capacity import node_info
from gpufleet_operator.model.objects import BoundPod, Node
from gpufleet_operator.pods.quantities import quantity

T = TypeVar("T")
_OVER = frozenset({"Succeeded", "Failed"})


def node_facts(nodes: Sequence[Path], pods: Sequence[Path]) -> Mapping[str, NodeInfo]:
    """Per node: allocatable minus the requests of the pods that are bound to it.

    Raises:
        InputError: a file can't be used, or a node stands twice.
    """
    used = _used(pods)
    found: dict[str, NodeInfo] = {}
    for document in read(nodes):
        _expect(document, "Node")
        if document.name in found:
            raise InputError(f"{document}: metadata.name: stands twice")
        if not _part(document, "status").get("allocatable"):
            raise InputError(f"{document}: status.allocatable: is missing, so the node's room isn't known")
        found[document.name] = node_info(_read(document, _node), used.get(document.name, {}))
    return found


def _used(pods: Sequence[Path]) -> Mapping[str, Counter[str]]:
    used: dict[str, Counter[str]] = {}
    for document in read(pods):
        _expect(document, "Pod")
        phase = _part(document, "status").get("phase")
        if _part(document, "spec").get("nodeName") and phase not in _OVER:
            pod = _read(document, _pod)
            used.setdefault(pod.node, Counter()).update({**pod.requests, "pods": 1})
    return used


def _node(body: Mapping[str, Any]) -> Node:
    _check((body.get("status") or {}).get("allocatable") or {})
    return decode.node({**body, "metadata": {"uid": "", **body["metadata"]}})


def _pod(body: Mapping[str, Any]) -> BoundPod:
    spec = body["spec"]
    for container in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ())):
        for kind in ("limits", "requests"):
            _check((container.get("resources") or {}).get(kind) or {})
    return decode.bound_pod({**body, "metadata": {"uid": "", **body["metadata"]}})


def _check(amounts: Mapping[str, Any]) -> None:
    """Raises ValueError for what isn't a quantity; the operator, which can't ask anybody, takes it for a huge one."""
    for amount in amounts.values():
        quantity(amount)


def _read(document: Document, function: Callable[[Mapping[str, Any]], T]) -> T:
    try:
        return function(document.body)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        # The operator reads these from an apiserver, which has judged them; a file may hold anything.
        raise InputError(f"{document}: can't be read as a v1.{document.kind}: {error}") from error


def _part(document: Document, field: str) -> Mapping[str, Any]:
    value = document.body.get(field)
    if value is not None and not isinstance(value, dict):
        raise InputError(f"{document}: {field}: must be an object (got {show(value)})")
    return value or {}


def _expect(document: Document, kind: str) -> None:
    if (document.kind, document.api_version) != (kind, "v1"):
        raise InputError(f"{document}: a {kind} of v1 is expected (got {document.kind} of {document.api_version})")
