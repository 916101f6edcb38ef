"""What a pod asks of its node, read from a pod spec as JSON: kube-scheduler's own arithmetic."""

from collections.abc import Iterable, Mapping
from typing import Any

from gpufleet_operator.placement.model import MatchExpression, NodeSelectorTerm, PodNeeds, Taint, Toleration
from gpufleet_operator.quantities import milli, whole

Json = Mapping[str, Any]

_NATIVE = frozenset({"cpu", "memory", "ephemeral-storage", "pods"})


def pod_requests(spec: Json) -> dict[str, int]:
    """Effective requests by resource name: CPU in millicores, the rest in units.

    As in component-helpers `PodRequests`: app containers and restartable init containers (sidecars) add up; an
    ordinary init container needs its own beside the sidecars started before it; the larger of the two counts,
    unless the pod states its own; overhead comes on top. A container that gives only a limit requests that much.

    Raises:
        ValueError: a quantity that can't be read.
    """
    total = _sum(_container_requests(c) for c in spec.get("containers") or ())
    sidecars: dict[str, int] = {}
    init: dict[str, int] = {}
    for container in spec.get("initContainers") or ():
        asked = _container_requests(container)
        if container.get("restartPolicy") == "Always":
            sidecars = _sum((sidecars, asked))
            init = _max(init, sidecars)
        else:
            init = _max(init, _sum((sidecars, asked)))
    pod_level = (spec.get("resources") or {}).get("requests") or {}
    effective = {**_max(_sum((total, sidecars)), init), **_amounts(pod_level)}
    return _sum((effective, _amounts(spec.get("overhead") or {})))


def pod_needs(spec: Json, *, node_selector: Mapping[str, str] | None = None, without: Iterable[str] = ()) -> PodNeeds:
    """The engine's view of a pod spec.

    Args:
        spec: v1.PodSpec as JSON.
        node_selector: labels asked for beside the pod's own.
        without: resources that the engine places itself and doesn't count, such as `gpufleet.dev/gpu`.

    Raises:
        ValueError: a quantity that can't be read.
    """
    asked = pod_requests(spec)
    skipped = _NATIVE | frozenset(without)
    return PodNeeds(
        cpu_milli=asked.get("cpu", 0),
        memory_bytes=asked.get("memory", 0),
        extended={name: amount for name, amount in asked.items() if name not in skipped and amount},
        node_selector={**(spec.get("nodeSelector") or {}), **(node_selector or {})},
        affinity_terms=_affinity_terms(spec),
        tolerations=tuple(
            Toleration(
                key=t.get("key") or "",
                operator=t.get("operator") or "Equal",
                value=t.get("value") or "",
                effect=t.get("effect") or "",
            )
            for t in spec.get("tolerations") or ()
        ),
    )


def taints(spec: Json) -> tuple[Taint, ...]:
    """The taints of a v1.NodeSpec."""
    return tuple(Taint(t["key"], t["effect"], t.get("value") or "") for t in spec.get("taints") or ())


def amounts(resources: Json) -> dict[str, int]:
    """A ResourceList: CPU in millicores, the rest in units."""
    return _amounts(resources)


def _container_requests(container: Json) -> dict[str, int]:
    resources = container.get("resources") or {}
    return _amounts({**(resources.get("limits") or {}), **(resources.get("requests") or {})})


def _amounts(resources: Json) -> dict[str, int]:
    return {name: milli(value) if name == "cpu" else whole(value) for name, value in resources.items()}


def _sum(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for part in parts:
        for name, amount in part.items():
            total[name] = total.get(name, 0) + amount
    return total


def _max(left: Mapping[str, int], right: Mapping[str, int]) -> dict[str, int]:
    return {name: max(left.get(name, 0), right.get(name, 0)) for name in {**left, **right}}


def _affinity_terms(spec: Json) -> tuple[NodeSelectorTerm, ...] | None:
    node_affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = node_affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if required is None:
        return None
    return tuple(
        NodeSelectorTerm(_expressions(term.get("matchExpressions")), _expressions(term.get("matchFields")))
        for term in required.get("nodeSelectorTerms") or ()
    )


def _expressions(given: Iterable[Json] | None) -> tuple[MatchExpression, ...]:
    return tuple(MatchExpression(e["key"], e["operator"], tuple(e.get("values") or ())) for e in given or ())
