"""The Lease of an agent, whose renewals confirm its last report."""

from dataclasses import dataclass, replace
from datetime import datetime

from gpufleet_operator.model.objects import Telemetry


@dataclass(frozen=True, slots=True)
class AgentLease:
    """A coordination.k8s.io/v1 Lease of an agent."""

    uid: str
    name: str
    """Of the node."""
    resource_version: str
    observed_at: str
    """`status.observedAt` of the report that it confirms; empty: of none."""
    renewed_at: datetime | None
    """The apiserver's time of the agent's last write; None: by another client only."""


def confirmed(telemetry: Telemetry, lease: AgentLease | None) -> Telemetry:
    """Returns the GPUTelemetry as confirmed by the agent's Lease; the same object if the Lease adds nothing.

    A Lease that names another report confirms nothing: the report that it names may not be watched yet.
    """
    if lease is None or lease.renewed_at is None or telemetry.status is None:
        return telemetry
    if lease.observed_at != telemetry.status.observed_at:
        return telemetry
    if telemetry.confirmed_at is not None and lease.renewed_at <= telemetry.confirmed_at:
        return telemetry
    return replace(telemetry, confirmed_at=lease.renewed_at)
