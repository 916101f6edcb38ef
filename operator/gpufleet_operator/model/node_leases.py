"""Time of the last renewal of each kubelet's Lease, as observed by the operator.

A renewal is dated when the operator first sees it, by the apiserver's clock: a node's clock does not matter. Time in
which the operator could not read the leases does not count, because kubelets could not renew them either. Of a gap that
is no longer than a lease, as when lists are slow or one in two fails, two poll intervals do count: if none of it did, a
node that is gone would never become late.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

_LATE_FRACTION = 3 / 8
"""15 s of the default lease duration of 40 s."""
_RENEWAL_FRACTION = 0.26
"""Kubelets renew after a quarter of the lease duration, plus up to 4 % of that."""
_RESPONSE_TIME = timedelta(seconds=1)
_OUTAGE = timedelta(seconds=40)
"""A gap between two lists that is longer is an outage of the apiserver."""


@dataclass(frozen=True, slots=True)
class NodeLease:
    """The fields of a coordination.k8s.io/v1 Lease that matter here."""

    renew_time: str
    """By the node's clock; only compared with itself."""
    duration: timedelta


@dataclass(frozen=True, slots=True)
class NodeLeases:
    """All leases of nodes, as of the last complete list."""

    read_at: datetime | None = None
    poll_interval: timedelta = timedelta(seconds=3)
    leases: Mapping[str, NodeLease] = field(default_factory=dict)
    """By node name."""
    renewed_at: Mapping[str, datetime] = field(default_factory=dict)
    """By node name: when the current `renew_time` was first seen."""

    def late_since(self, node: str) -> datetime | None:
        """Returns the last renewal of a kubelet that has missed one; None if it is in time or has no lease."""
        lease = self.leases.get(node)
        return None if lease is None else self._unrenewed_since(node, self._late_after(lease))

    def expired_since(self, node: str) -> datetime | None:
        """Returns the last renewal of a kubelet whose lease has expired; None if it is valid or does not exist."""
        lease = self.leases.get(node)
        return None if lease is None else self._unrenewed_since(node, lease.duration)

    def late_nodes(self) -> frozenset[tuple[str, bool]]:
        """Returns the nodes that are late, and whether their lease has expired.

        Takes milliseconds for thousands of nodes.
        """
        late = (node for node in self.leases if self.late_since(node) is not None)
        return frozenset((node, self.expired_since(node) is not None) for node in late)

    def _unrenewed_since(self, node: str, limit: timedelta) -> datetime | None:
        renewed = self.renewed_at[node]
        return renewed if self.read_at is not None and self.read_at - renewed > limit else None

    def _late_after(self, lease: NodeLease) -> timedelta:
        """Returns the age from which a renewal is missing; the lease of a healthy kubelet never gets so old."""
        usual = lease.duration * _RENEWAL_FRACTION + self.poll_interval + _RESPONSE_TIME
        return max(lease.duration * _LATE_FRACTION, usual)


def observe(previous: NodeLeases, leases: Mapping[str, NodeLease], now: datetime) -> NodeLeases:
    """Returns the leases after a complete list at `now`. A lease that is seen for the first time counts as new."""
    blind = timedelta(0)
    if previous.read_at is not None:
        gap, seen = now - previous.read_at, 2 * previous.poll_interval
        blind = gap if gap > max(_OUTAGE, seen) else max(blind, gap - seen)
    renewed_at: dict[str, datetime] = {}
    for node, lease in leases.items():
        known = previous.leases.get(node)
        same = known is not None and known.renew_time == lease.renew_time
        renewed_at[node] = previous.renewed_at[node] + blind if same else now
    return NodeLeases(now, previous.poll_interval, leases, renewed_at)
