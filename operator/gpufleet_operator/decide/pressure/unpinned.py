"""A released pod without the pin to its node, as its successor will be."""

from dataclasses import replace

from gpufleet_operator.model.objects import Pod
from gpufleet_operator.placement.node_rules import MatchExpression, NodeSelectorTerm


def unpinned(pod: Pod) -> Pod:
    """Returns the pod with the node affinity that it had before its release, see `pods.release`."""
    terms = pod.needs.affinity_terms
    if pod.pinned is None or terms is None:
        return pod
    pin = MatchExpression("metadata.name", "In", (pod.pinned,))
    left = tuple(_without(term, pin) for term in terms)
    # A term that only had the pin was added with it: nothing was required before.
    added = any(old != new and not (new.expressions or new.fields) for old, new in zip(terms, left, strict=True))
    return replace(pod, needs=replace(pod.needs, affinity_terms=None if added else left))


def _without(term: NodeSelectorTerm, pin: MatchExpression) -> NodeSelectorTerm:
    fields = list(term.fields)
    if pin in fields:
        fields.remove(pin)
    return replace(term, fields=tuple(fields))
