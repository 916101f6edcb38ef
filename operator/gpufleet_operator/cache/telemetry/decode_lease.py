"""Decodes the Leases of agents."""

import sys

from gpufleet_api.names import AGENT_FIELD_MANAGER, AGENT_LEASE_PREFIX, OBSERVED_AT_ANNOTATION
from gpufleet_operator.cache.decode import managed_at
from gpufleet_operator.model.cluster.agent_lease import AgentLease
from gpufleet_operator.model.lenient_json import Json, as_map, text


def agent_lease(body: Json) -> AgentLease:
    """Decodes the Lease of an agent. One with another name is of no node."""
    meta = body["metadata"]
    name = text(meta.get("name"))
    return AgentLease(
        uid=meta["uid"],
        name=sys.intern(name.removeprefix(AGENT_LEASE_PREFIX)) if name.startswith(AGENT_LEASE_PREFIX) else "",
        resource_version=meta.get("resourceVersion", ""),
        observed_at=text(as_map(meta.get("annotations")).get(OBSERVED_AT_ANNOTATION)),
        renewed_at=managed_at(meta, AGENT_FIELD_MANAGER),
    )
