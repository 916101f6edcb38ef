"""Free capacity of a node: allocatable minus the requests of all pods bound, pinned or reserved there.

It is computed from the pods' requests, as kube-scheduler does: the kubelet publishes allocatable only every ten seconds
and does not count pods that are not bound yet.
"""

from collections import Counter
from collections.abc import Mapping

from gpufleet_operator.ledger.ledger import Ledger
from gpufleet_operator.model.objects import Node
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.placement.model import HolderPod, NodeState, PodNeeds
from gpufleet_operator.pods.requests import NATIVE_RESOURCES

RequestedPerNode = Mapping[str, Mapping[str, int]]
"""Per node: summed requests (CPU in millicores, other resources in units), and the number of pods under `pods`."""


def requested_per_node(snapshot: Snapshot, ledger: Ledger) -> RequestedPerNode:
    """Sums the requests per node: of other pods once they are bound, of workloads' pods once they are reserved."""
    total: dict[str, Counter[str]] = {name: Counter(amounts) for name, amounts in snapshot.other_requests.items()}
    for uid, pod in snapshot.pods.items():
        reservation = ledger.active.get(uid)
        node = pod.target_node or (reservation.node if reservation else ledger.expected.get(uid))
        if node is not None and not pod.terminal:
            total.setdefault(node, Counter()).update(requests(pod.needs))
    return total


def node_without_devices(
    node: Node, requested: Mapping[str, int], not_ready: str | None = None, holders: tuple[HolderPod, ...] = ()
) -> NodeState:
    """Returns a node with its free capacity; `not_ready` is the reason why no pod is placed on it now."""
    free = {name: amount - requested.get(name, 0) for name, amount in node.allocatable.items()}
    return NodeState(
        name=node.name,
        devices=(),
        labels=node.labels,
        taints=node.taints,
        unschedulable=node.unschedulable,
        not_ready=not_ready or node.not_ready or None,
        free_cpu_milli=free.get("cpu", 0),
        free_memory_bytes=free.get("memory", 0),
        free_pods=free.get("pods", 0),
        holders=holders,
        free_extended={name: amount for name, amount in free.items() if name not in NATIVE_RESOURCES},
    )


def requests(needs: PodNeeds) -> dict[str, int]:
    """Returns a pod's needs as an amount per resource."""
    return {"cpu": needs.cpu_milli, "memory": needs.memory_bytes, "pods": 1, **needs.extended}
