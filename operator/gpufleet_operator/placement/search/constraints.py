"""Filters on the node as a whole: readiness, and kube-scheduler's filters of selector, affinity, taints and cordon.

Pure predicates over one node that depend on the node and the request, not on measurements.
"""

from collections.abc import Iterable, Mapping

from gpufleet_operator.placement.model import FilterReason, NodeState, PodNeeds, Taint
from gpufleet_operator.placement.node_rules import MatchExpression, NodeSelectorTerm, Toleration

_UNSCHEDULABLE = Taint(key="node.kubernetes.io/unschedulable", effect="NoSchedule")


def rejection(node: NodeState, pod: PodNeeds) -> FilterReason | None:
    """Returns the first of these filters that the node fails for the pod."""
    if node.not_ready:
        return FilterReason.NODE_NOT_READY
    if node.unschedulable and not tolerated(_UNSCHEDULABLE, pod.tolerations):
        return FilterReason.NODE_UNSCHEDULABLE
    if any(node.labels.get(key) != value for key, value in pod.node_selector.items()):
        return FilterReason.NODE_SELECTOR
    if pod.affinity_terms is not None and not any(_term_matches(t, node) for t in pod.affinity_terms):
        return FilterReason.NODE_AFFINITY
    if untolerated(node.taints, pod.tolerations) is not None:
        return FilterReason.TAINT
    return None


def selected(name: str, labels: Mapping[str, str], pod: PodNeeds) -> bool:
    """True if node selector and required node affinity of the pod match the node."""
    node = NodeState(name, (), labels=labels)
    if any(labels.get(key) != value for key, value in pod.node_selector.items()):
        return False
    return pod.affinity_terms is None or any(_term_matches(t, node) for t in pod.affinity_terms)


def untolerated(taints: Iterable[Taint], tolerations: Iterable[Toleration]) -> Taint | None:
    """Returns the first taint that the pod does not tolerate; PreferNoSchedule is ignored."""
    tolerations = tuple(tolerations)
    return next((t for t in taints if t.prevents_scheduling and not tolerated(t, tolerations)), None)


def tolerated(taint: Taint, tolerations: Iterable[Toleration]) -> bool:
    """True if a toleration matches the taint, as v1.Toleration.ToleratesTaint."""
    return any(_covers(toleration, taint) for toleration in tolerations)


def _covers(toleration: Toleration, taint: Taint) -> bool:
    if toleration.effect and toleration.effect != taint.effect:
        return False
    if toleration.operator == "Exists":
        return toleration.key in ("", taint.key)
    return toleration.operator in ("", "Equal") and (toleration.key, toleration.value) == (taint.key, taint.value)


def _term_matches(term: NodeSelectorTerm, node: NodeState) -> bool:
    if not term.expressions and not term.fields:
        return False
    return all(matches(e, node.labels) for e in term.expressions) and all(
        matches(f, {"metadata.name": node.name}) for f in term.fields
    )


def matches(expression: MatchExpression, labels: Mapping[str, str]) -> bool:
    """Evaluates a v1.NodeSelectorRequirement. An unknown operator matches nothing."""
    value = labels.get(expression.key)
    match expression.operator:
        case "In":
            return value in expression.values
        case "NotIn":
            return value not in expression.values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt":
            return _compare(value, expression.values) > 0
        case "Lt":
            return _compare(value, expression.values) < 0
        case _:
            return False


def _compare(value: str | None, bounds: tuple[str, ...]) -> int:
    """Returns the sign of value - bound; 0 if either is not an integer, which matches neither Gt nor Lt."""
    try:
        left, right = int(value or ""), int(bounds[0])
    except (ValueError, IndexError):
        return 0
    return (left > right) - (left < right)
