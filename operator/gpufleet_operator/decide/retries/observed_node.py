"""Observes the state of a node on which the rejection of a pod may depend."""

from collections.abc import Iterable

from gpufleet_operator.model.objects import PodPhase
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import NodeProperty, ObservedNode


def observe_node(snapshot: Snapshot, name: str, workload_uid: str, depends_on: frozenset[NodeProperty]) -> ObservedNode:
    """Returns the current state of a node, without the pods of one workload."""
    others = (uid for uid, p in snapshot.pods.items() if p.workload_uid != workload_uid)
    return _observe(snapshot, name, others, depends_on)


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
