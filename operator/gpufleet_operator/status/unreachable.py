"""Replicas on nodes that do not respond: whether their containers run is unknown."""

from gpufleet_api.workload_status import PlacementState
from gpufleet_operator.fleet.node_health import unreachable_reason
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.status.context import StatusContext

_ON_A_NODE = (PlacementState.BOUND, PlacementState.ALLOCATED)


def unreachable_replicas(snapshot: Snapshot, context: StatusContext) -> str:
    """Returns the replicas whose node does not respond, as a message; empty if all respond."""
    found = []
    for replica in context.replicas:
        node = replica.pod.node if replica.pod is not None and replica.state in _ON_A_NODE else None
        if node is not None and (reason := unreachable_reason(snapshot, node)):
            found.append(f"replica {replica.index}: {reason}")
    return "; ".join(found)
