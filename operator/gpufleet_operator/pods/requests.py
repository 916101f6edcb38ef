"""What a pod asks of its node, read from a pod spec as JSON: kube-scheduler's own arithmetic.

Read without judging (`podrules` judges), so this never raises: anybody's pod comes through here, and none may stop the
operator. What makes no sense counts against the pod: an amount that can't be read is more than any node has, a term
or an expression that can't be read matches no node.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from gpufleet_operator.model.lenient_json import Json, as_list, as_map, maps, text
from gpufleet_operator.placement.model import MatchExpression, NodeSelectorTerm, PodNeeds, Taint, Toleration
from gpufleet_operator.pods.quantities import MOST, milli, whole

_NATIVE = frozenset({"cpu", "memory", "ephemeral-storage", "pods"})


def pod_requests(spec: Json) -> dict[str, int]:
    """Effective requests by resource name: CPU in millicores, the rest in units, each at most `quantities.MOST`.

    As in component-helpers `PodRequests`: app containers and restartable init containers (sidecars) add up; an
    ordinary init container needs its own beside the sidecars started before it; the larger of the two counts,
    unless the pod states its own; overhead comes on top. A container that gives only a limit requests that much.
    """
    total = _sum(_container_requests(c) for c in maps(spec.get("containers")))
    sidecars: dict[str, int] = {}
    init: dict[str, int] = {}
    for container in maps(spec.get("initContainers")):
        asked = _container_requests(container)
        if container.get("restartPolicy") == "Always":
            sidecars = _sum((sidecars, asked))
            init = _max(init, sidecars)
        else:
            init = _max(init, _sum((sidecars, asked)))
    pod_level = as_map(as_map(spec.get("resources")).get("requests"))
    effective = {**_max(_sum((total, sidecars)), init), **_amounts(pod_level)}
    return _sum((effective, _amounts(as_map(spec.get("overhead")))))


def pod_needs(spec: Any, *, node_selector: Mapping[str, str] | None = None, without: Iterable[str] = ()) -> PodNeeds:
    """The engine's view of a pod spec.

    Args:
        spec: v1.PodSpec as JSON; anything else asks for nothing.
        node_selector: labels asked for beside the pod's own.
        without: resources that the engine places itself and doesn't count, such as `gpufleet.dev/gpu`.
    """
    spec = as_map(spec)
    asked = pod_requests(spec)
    skipped = _NATIVE | frozenset(without)
    selector = {str(key): text(value) for key, value in as_map(spec.get("nodeSelector")).items()}
    return PodNeeds(
        cpu_milli=asked.get("cpu", 0),
        memory_bytes=asked.get("memory", 0),
        extended={name: amount for name, amount in asked.items() if name not in skipped and amount},
        node_selector={**selector, **(node_selector or {})},
        affinity_terms=_affinity_terms(spec),
        tolerations=tuple(
            Toleration(
                key=text(t.get("key")),
                operator=text(t.get("operator")) or "Equal",
                value=text(t.get("value")),
                effect=text(t.get("effect")),
            )
            for t in maps(spec.get("tolerations"))
            if t
        ),
    )


def taints(spec: Json) -> tuple[Taint, ...]:
    """The taints of a v1.NodeSpec."""
    return tuple(
        Taint(text(t.get("key")), text(t.get("effect")), text(t.get("value"))) for t in maps(spec.get("taints"))
    )


def allocatable(resources: Json) -> dict[str, int]:
    """What a node offers: CPU in millicores, the rest in units; nothing of what can't be read."""
    return _amounts(resources, unreadable=0)


def _container_requests(container: Json) -> dict[str, int]:
    resources = as_map(container.get("resources"))
    return _amounts({**as_map(resources.get("limits")), **as_map(resources.get("requests"))})


def _amounts(resources: Json, *, unreadable: int = MOST) -> dict[str, int]:
    return {
        str(name): (milli if name == "cpu" else whole)(value, unreadable=unreadable)
        for name, value in resources.items()
    }


def _sum(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for part in parts:
        for name, amount in part.items():
            total[name] = min(MOST, total.get(name, 0) + amount)
    return total


def _max(left: Mapping[str, int], right: Mapping[str, int]) -> dict[str, int]:
    return {name: max(left.get(name, 0), right.get(name, 0)) for name in {**left, **right}}


def _affinity_terms(spec: Json) -> tuple[NodeSelectorTerm, ...] | None:
    node_affinity = as_map(as_map(spec.get("affinity")).get("nodeAffinity"))
    required = node_affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if required is None:
        return None
    return tuple(
        NodeSelectorTerm(_expressions(term.get("matchExpressions")), _expressions(term.get("matchFields")))
        for term in maps(as_map(required).get("nodeSelectorTerms"))
    )


def _expressions(given: Any) -> tuple[MatchExpression, ...]:
    return tuple(
        MatchExpression(text(e.get("key")), text(e.get("operator")), tuple(map(text, as_list(e.get("values")))))
        for e in maps(given)
    )
