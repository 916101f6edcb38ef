"""Replicas on nodes that do not respond: whether their containers run is unknown."""

from gpufleet_operator.status.context import StatusContext


def unreachable_replicas(context: StatusContext) -> str:
    """Returns the replicas whose node does not respond, as a message; empty if all respond."""
    return "; ".join(f"replica {r.index}: {r.unreachable}" for r in context.replicas if r.unreachable)
