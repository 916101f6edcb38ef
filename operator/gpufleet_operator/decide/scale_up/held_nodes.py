"""Decides which nodes cluster-autoscaler must not remove: those with devices for pods that are not bound yet."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from gpufleet_operator.model.objects import Node, Pod


@dataclass(frozen=True, slots=True)
class NodeMarks:
    """Names of nodes."""

    to_set: tuple[str, ...] = ()
    to_remove: tuple[str, ...] = ()


def node_marks(
    nodes: Iterable[Node], pods: Mapping[str, Pod], reserved: Mapping[str, Collection[str]], refused: Collection[str]
) -> NodeMarks:
    """Returns the annotations to write.

    Args:
        nodes: All nodes.
        pods: Pods with the workload label, by uid.
        reserved: Uid of a pod -> nodes that store a reservation for it.
        refused: Nodes on which another client has set the annotation to another value.
    """
    awaited = {
        name
        for uid, names in reserved.items()
        if (pod := pods.get(uid)) is not None and pod.node is None and not pod.terminal and not pod.deleting
        for name in names
    }
    known = {node.name: node for node in nodes}
    return NodeMarks(
        to_set=tuple(sorted(n for n in awaited & known.keys() if not known[n].scale_down_held and n not in refused)),
        to_remove=tuple(sorted(n for n, node in known.items() if node.scale_down_held and n not in awaited)),
    )
