"""Whether a node and its kubelet respond: the Node's condition Ready, and the kubelet's Lease."""

from datetime import datetime

from gpufleet_operator.model.snapshot import Snapshot


def unreachable_reason(snapshot: Snapshot, name: str) -> str | None:
    """Returns why a node does not respond: it is not ready, or its lease has expired. None: it responds."""
    node = snapshot.nodes.get(name)
    if node is None:
        return f"node {name} not found"
    if node.not_ready:
        return f"node {name} is not ready: {node.not_ready}"
    expired = snapshot.node_leases.expired_since(name)
    return None if expired is None else _not_renewed(name, expired)


def not_placeable_reason(snapshot: Snapshot, name: str) -> str | None:
    """Returns why no pod is placed on a node now: it does not respond, or its kubelet missed a renewal of its lease."""
    late = snapshot.node_leases.late_since(name)
    return unreachable_reason(snapshot, name) or (None if late is None else _not_renewed(name, late))


def _not_renewed(name: str, since: datetime) -> str:
    return f"kubelet of {name} has not renewed its lease since {since:%Y-%m-%d %H:%M:%S} UTC"
