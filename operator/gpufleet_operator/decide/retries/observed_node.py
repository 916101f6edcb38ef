"""Observes the state of a node on which the rejection of a pod may depend."""

from collections.abc import Iterable, Mapping
from functools import cached_property

from gpufleet_operator.model.objects import PodPhase
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import NodeProperty, ObservedNode


class NodeObserver:
    """Observes the nodes of one snapshot. Its pods are read once, however many rejections there are.

    Args:
        snapshot: The cluster.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot

    @cached_property
    def names(self) -> frozenset[str]:
        """Returns the names of all nodes: one set for all rejections, as each keeps it for minutes."""
        return frozenset(self.snapshot.nodes)

    def observe(self, name: str, workload_uid: str, depends_on: frozenset[NodeProperty]) -> ObservedNode:
        """Returns the current state of a node, without the pods of one workload."""
        others = (uid for uid, owner in self._running.get(name, ()) if owner != workload_uid)
        return _observe(self.snapshot, name, others, depends_on)

    @cached_property
    def _running(self) -> Mapping[str, list[tuple[str, str]]]:
        """Returns uid and uid of the workload of the running pods, by node."""
        found: dict[str, list[tuple[str, str]]] = {}
        for uid, pod in self.snapshot.pods.items():
            if pod.node is not None and pod.phase is PodPhase.RUNNING:
                found.setdefault(pod.node, []).append((uid, pod.workload_uid))
        return found


def observe_again(snapshot: Snapshot, name: str, before: ObservedNode) -> ObservedNode:
    """Returns the current state of a node, with only those pods that ran before."""
    return _observe(snapshot, name, before.running, before.depends_on)


def _observe(snapshot: Snapshot, name: str, pods: Iterable[str], depends_on: frozenset[NodeProperty]) -> ObservedNode:
    node, telemetry = snapshot.nodes.get(name), snapshot.telemetry.get(name)
    status = telemetry.status if telemetry else None
    return ObservedNode(
        depends_on=depends_on,
        uid=node.uid if node else "",
        labels=node.labels if node else {},
        taints=(node.taints, node.unschedulable, node.not_ready) if node else (),
        allocatable=node.allocatable if node else {},
        offered=frozenset(d.uuid for d in status.devices if d.offered) if status else frozenset(),
        requested=dict(snapshot.other_requests.get(name, {})),
        running=frozenset(uid for uid in pods if _runs(snapshot, uid, name)),
    )


def _runs(snapshot: Snapshot, uid: str, node: str) -> bool:
    pod = snapshot.pods.get(uid)
    return pod is not None and pod.node == node and pod.phase is PodPhase.RUNNING
