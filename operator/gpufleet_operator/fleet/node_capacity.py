"""What a node has left for another pod: allocatable minus every request bound or promised there.

Counted as kube-scheduler does, from the pods' requests, because the kubelet publishes allocatable only every ten
seconds and says nothing of what is on its way.
"""

from collections import Counter
from collections.abc import Mapping

from gpufleet_operator.fleet.engine_input import NodeInfo
from gpufleet_operator.ledger.ledger import Ledger
from gpufleet_operator.model.objects import Node
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.placement.model import PodNeeds
from gpufleet_operator.pods.requests import NATIVE_RESOURCES

Usage = Mapping[str, Mapping[str, int]]
"""Per node: summed requests (CPU in millicores, the rest in units), and the number of pods under `pods`."""


def requested_per_node(snapshot: Snapshot, ledger: Ledger) -> Usage:
    """Everybody's requests per node: others' as they are bound, ours also while they are only reserved."""
    total: dict[str, Counter[str]] = {name: Counter(amounts) for name, amounts in snapshot.foreign_requests.items()}
    for uid, pod in snapshot.pods.items():
        entry = ledger.live.get(uid)
        place = pod.place or (entry.node if entry else None)
        if place is not None and not pod.terminal:
            total.setdefault(place, Counter()).update(requests(pod.needs))
    return total


def node_info(node: Node, used: Mapping[str, int]) -> NodeInfo:
    """The node's labels, taints and room."""
    free = {name: amount - used.get(name, 0) for name, amount in node.allocatable.items()}
    return NodeInfo(
        labels=node.labels,
        taints=node.taints,
        unschedulable=node.unschedulable,
        free_cpu_milli=free.get("cpu", 0),
        free_memory_bytes=free.get("memory", 0),
        free_pods=free.get("pods", 0),
        free_extended={name: amount for name, amount in free.items() if name not in NATIVE_RESOURCES},
    )


def requests(needs: PodNeeds) -> dict[str, int]:
    """A pod's needs as an amount per resource."""
    return {"cpu": needs.cpu_milli, "memory": needs.memory_bytes, "pods": 1, **needs.extended}
