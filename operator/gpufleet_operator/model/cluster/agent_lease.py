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


def confirmed(telemetry: Telemetry, lease: AgentLease | None, known: Telemetry | None = None) -> Telemetry:
    """Returns the GPUTelemetry as confirmed by the agent's Lease; the same object if nothing confirms it later.

    A Lease that names another report confirms nothing: the report that it names may not be watched yet.

    Args:
        telemetry: The object.
        lease: The Lease as last seen; None: there is none now.
        known: An earlier version of the object. If it has the same report, what confirmed it still counts.
    """
    status = telemetry.status
    if status is None:
        return telemetry
    moments = [telemetry.confirmed_at]
    if lease is not None and lease.observed_at == status.observed_at:
        moments.append(lease.renewed_at)
    if known is not None and known.status is not None and known.status.observed_at == status.observed_at:
        moments.append(known.confirmed_at)
    latest = max((moment for moment in moments if moment is not None), default=None)
    return telemetry if latest == telemetry.confirmed_at else replace(telemetry, confirmed_at=latest)
