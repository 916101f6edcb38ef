"""Detects that no telemetry arrives from any node: the apiserver is unavailable, or the operator lags behind.

It is the same if only one of the watches of GPUTelemetry and of the agents' Leases hangs: most nodes become stale.

This is not a fault of the nodes. Conditions of workloads and nodes are kept for a while, and one metric reports the
outage. Otherwise the begin and the end of an outage would each cause a write for every workload and node.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

GRACE = timedelta(minutes=2)
"""Time for which stale telemetry is not reported. An agent that can write reports or confirms within half a minute."""

_MIN_NODES = 2
_OUTAGE = timedelta(seconds=30)
"""Time without a response after which the apiserver counts as unavailable: agents cannot write either."""


@dataclass(frozen=True, slots=True)
class TelemetryOutage:
    """No telemetry arrives from any node."""

    since: datetime
    """When it was detected, or when the apiserver became available again, whichever is later."""
    read_at: datetime | None
    """When the apiserver last answered."""

    def suppresses_staleness(self, now: datetime) -> bool:
        """Returns True as long as stale telemetry is not reported."""
        away = self.read_at is not None and now - self.read_at > _OUTAGE
        return away or now < self.ends

    @property
    def ends(self) -> datetime:
        return self.since + GRACE


def observe_outage(
    previous: TelemetryOutage | None,
    *,
    newest: datetime | None,
    heard_at: datetime | None = None,
    nodes: int,
    stale_after: timedelta,
    read_at: datetime | None,
    now: datetime,
) -> TelemetryOutage | None:
    """Returns the outage as it is now; None: telemetry arrives.

    Args:
        previous: As of the last call.
        newest: When the newest telemetry of all nodes was written or confirmed; None: there is none.
        heard_at: Until when no change of GPUTelemetry or of an agent's Lease was missed; None: unknown.
        nodes: Number of nodes with telemetry. A single node may be stale by itself.
        stale_after: Age from which telemetry is stale. Every healthy agent writes again within two thirds of it, and
            both watches are heard within half of it.
        read_at: When the apiserver last answered; None: unknown.
        now: The time.
    """
    silent = heard_at is not None and now - heard_at > stale_after / 2
    if nodes < _MIN_NODES or newest is None or (now - newest <= stale_after * 2 / 3 and not silent):
        return None
    if previous is None or _was_unavailable(previous.read_at, read_at):
        return TelemetryOutage(now, read_at)
    return TelemetryOutage(previous.since, read_at)


def _was_unavailable(before: datetime | None, after: datetime | None) -> bool:
    return before is not None and after is not None and after - before > _OUTAGE
