"""Computes the requirements of a pod from its spec as JSON, by the rules of kube-scheduler.

These functions never raise, because they also process pods of other owners, which must not stop the operator. Invalid
values count against the pod: a malformed quantity exceeds every node, a malformed term or expression matches no node.
`validate` reports such values in templates.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import islice
from typing import Any

from gpufleet_operator.model.lenient_json import Json, as_map, maps, text
from gpufleet_operator.placement.model import PodNeeds, Taint
from gpufleet_operator.placement.node_rules import NodeSelectorTerm, Toleration
from gpufleet_operator.pods.limits.size_limits import MAX_RESOURCES, MAX_RULES, MAX_TOLERATIONS
from gpufleet_operator.pods.node_affinity import node_selector_terms
from gpufleet_operator.pods.quantities import MAX_AMOUNT, milli, whole
from gpufleet_operator.pods.traits import expressions

NATIVE_RESOURCES = frozenset({"cpu", "memory", "ephemeral-storage", "pods"})
"""Resources of Kubernetes itself; all others are extended resources."""

_MAX_SHARED = 4096


def pod_requests(spec: Json) -> dict[str, int]:
    """Returns the effective requests by resource: CPU in millicores, the rest in units, each at most `MAX_AMOUNT`.

    As `PodRequests` of component-helpers: containers and restartable init containers (sidecars) add up; an ordinary
    init container needs its requests in addition to the sidecars started before it; the larger of both sums counts,
    unless the pod has its own requests; overhead is added. A container with only a limit requests that much.
    """
    containers = [container_requests(c) for c in maps(spec.get("containers"))]
    pod_level, overhead = as_map(as_map(spec.get("resources")).get("requests")), as_map(spec.get("overhead"))
    if len(containers) == 1 and not (pod_level or overhead or spec.get("initContainers")):
        return containers[0]  # as below, for most pods
    total = _sum(containers)
    sidecars: dict[str, int] = {}
    init: dict[str, int] = {}
    for container in maps(spec.get("initContainers")):
        asked = container_requests(container)
        if container.get("restartPolicy") == "Always":
            sidecars = _sum((sidecars, asked))
            init = _max(init, sidecars)
        else:
            init = _max(init, _sum((sidecars, asked)))
    effective = {**_max(_sum((total, sidecars)), init), **_amounts(pod_level)}
    return _sum((effective, _amounts(overhead)))


def pod_needs(spec: Any, *, node_selector: Mapping[str, str] | None = None, without: Iterable[str] = ()) -> PodNeeds:
    """Returns the requirements of a pod as the engine takes them.

    Args:
        spec: v1.PodSpec as JSON; anything else has no requirements.
        node_selector: Labels that are required in addition to those of the pod.
        without: Resources that the engine places and therefore does not count, such as `gpufleet.dev/gpu`.
    """
    spec = as_map(spec)
    asked = pod_requests(spec)
    skipped = NATIVE_RESOURCES | frozenset(without)
    selector = {str(key): text(value) for key, value in as_map(spec.get("nodeSelector")).items()}
    return _shared_needs(
        asked.get("cpu", 0),
        asked.get("memory", 0),
        tuple((name, amount) for name, amount in asked.items() if name not in skipped and amount),
        tuple({**selector, **(node_selector or {})}.items()),
        affinity_terms=_affinity_terms(spec),
        tolerations=tuple(
            Toleration(
                key=text(t.get("key")),
                operator=text(t.get("operator")) or "Equal",
                value=text(t.get("value")),
                effect=text(t.get("effect")),
            )
            for t in islice(filter(None, maps(spec.get("tolerations"))), MAX_TOLERATIONS + 1)
        ),
    )


@lru_cache(maxsize=_MAX_SHARED)
def _shared_needs(
    cpu_milli: int,
    memory_bytes: int,
    extended: tuple[tuple[str, int], ...],
    node_selector: tuple[tuple[str, str], ...],
    *,
    affinity_terms: tuple[NodeSelectorTerm, ...] | None,
    tolerations: tuple[Toleration, ...],
) -> PodNeeds:
    """Returns one object for all pods with the same needs."""
    return PodNeeds(cpu_milli, memory_bytes, dict(extended), dict(node_selector), affinity_terms, tolerations)


@lru_cache(maxsize=_MAX_SHARED)
def shared_amounts(pairs: tuple[tuple[str, int], ...]) -> Mapping[str, int]:
    """Returns one map for all pods with the same requests: there are hundreds of thousands of pods."""
    return dict(pairs)


def taints(spec: Json) -> tuple[Taint, ...]:
    return tuple(
        Taint(text(t.get("key")), text(t.get("effect")), text(t.get("value"))) for t in maps(spec.get("taints"))
    )


def allocatable(resources: Json) -> dict[str, int]:
    """Returns a node's allocatable: CPU in millicores, the rest in units; 0 for a malformed quantity."""
    return _amounts(resources, malformed=0)


def container_requests(container: Json) -> dict[str, int]:
    """Returns the requests of one container; what has only a limit requests that much."""
    resources = as_map(container.get("resources"))
    found = {**as_map(resources.get("limits")), **as_map(resources.get("requests"))}
    if len(found) > MAX_RESOURCES:
        found = dict(islice(sorted(found.items(), key=_is_extended), MAX_RESOURCES + 1 + len(NATIVE_RESOURCES)))
    return _amounts(found)


def _is_extended(resource: tuple[str, Any]) -> bool:
    return resource[0] not in NATIVE_RESOURCES


def _amounts(resources: Json, *, malformed: int = MAX_AMOUNT) -> dict[str, int]:
    return {
        str(name): (milli if name == "cpu" else whole)(value, malformed=malformed) for name, value in resources.items()
    }


def _sum(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for part in parts:
        for name, amount in part.items():
            total[name] = min(MAX_AMOUNT, total.get(name, 0) + amount)
    return total


def _max(left: Mapping[str, int], right: Mapping[str, int]) -> dict[str, int]:
    return {name: max(left.get(name, 0), right.get(name, 0)) for name in {**left, **right}}


def _affinity_terms(spec: Json) -> tuple[NodeSelectorTerm, ...] | None:
    terms = node_selector_terms(spec)
    if terms is None:
        return None
    return tuple(
        NodeSelectorTerm(expressions(term.get("matchExpressions")), expressions(term.get("matchFields")))
        for term in terms[: MAX_RULES + 1]
    )
