"""Nodes that cannot start a pod at present, as far as that can be foreseen.

A pod that the kubelet rejects counts against its Job, and a pod without an owner is lost. Such a pod is only released
to a node whose kubelet offers what the agent reports: after a restart of the kubelet, and while the agent is away, it
offers nothing.
"""

from gpufleet_api.names import Transport
from gpufleet_operator.model.objects import Pod
from gpufleet_operator.model.snapshot import Snapshot


def needs_settled_node(pod: Pod) -> bool:
    """Returns True for a pod whose rejection has a cost: its Job counts it, or nothing replaces it."""
    return pod.owner is None or pod.owner.is_job


def unsettled_nodes(snapshot: Snapshot) -> dict[str, str]:
    """Returns the nodes on which no such pod is placed now, with the reasons."""
    return {name: reason for name in snapshot.nodes if (reason := unsettled_reason(snapshot, name)) is not None}


def unsettled_reason(snapshot: Snapshot, node: str) -> str | None:
    """Returns why a node may reject a pod that it should admit, as a message; None: nothing is known."""
    telemetry, found = snapshot.telemetry.get(node), snapshot.nodes.get(node)
    if telemetry is None or telemetry.status is None or found is None:
        return None  # no pod is placed there for other reasons
    if telemetry.transport is Transport.DRA:
        return None  # a pod whose claim cannot be prepared waits
    resources = snapshot.limits.resources
    healthy = sum(device.offered for device in telemetry.status.devices)
    for name in resources.names:
        offered, wanted = found.allocatable.get(name, 0), resources.offered(name, healthy)
        if offered != wanted:
            return f"the kubelet on {node} offers {offered} {name}, the agent {wanted}"
    return None
