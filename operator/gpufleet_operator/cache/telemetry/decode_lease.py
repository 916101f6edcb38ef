"""Decodes the Leases of agents."""

import sys

from gpufleet_operator.cache.decode import written_at
from gpufleet_operator.model.cluster.agent_lease import AgentLease
from gpufleet_operator.model.cluster.agent_writes import confirmed_report
from gpufleet_operator.model.lenient_json import Json


def agent_lease(body: Json) -> AgentLease:
    """Decodes the Lease of an agent. One with another name is of no node."""
    meta = body["metadata"]
    node, observed_at = confirmed_report(meta)
    return AgentLease(
        uid=meta["uid"],
        name=sys.intern(node),
        resource_version=meta.get("resourceVersion", ""),
        observed_at=observed_at,
        renewed_at=written_at(meta, subresource=None),
    )
