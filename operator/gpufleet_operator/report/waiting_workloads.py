"""Lists the workloads that wait for devices, since when and why, by their stored conditions."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from gpufleet_api.condition import ConditionStatus
from gpufleet_common import timestamps
from gpufleet_operator.model.objects import Workload
from gpufleet_operator.model.snapshot import Snapshot

_ENDED = ("Complete", "Failed", "Suspended")
"""Conditions of which one is True for workloads that do not wait."""


@dataclass(frozen=True, slots=True)
class WaitingWorkload:
    """A workload with a replica that has no devices."""

    namespace: str
    name: str
    reason: str
    """Of its condition Ready."""
    since: datetime


def waiting_workloads(snapshot: Snapshot) -> Iterator[WaitingWorkload]:
    """Yields the workloads that wait, in no order."""
    for workload in tuple(snapshot.workloads.values()):
        if not workload.deleting and (found := _waiting(workload)) is not None:
            yield found


def _waiting(workload: Workload) -> WaitingWorkload | None:
    conditions = {c.type: c for c in workload.status.conditions} if workload.status else {}
    placed = conditions.get("Placed")
    if placed is None:
        return WaitingWorkload(workload.namespace, workload.name, "Pending", workload.created)
    ended = any(conditions[kind].status is ConditionStatus.TRUE for kind in _ENDED if kind in conditions)
    if ended or placed.status is ConditionStatus.TRUE:
        return None
    reason = conditions.get("Ready", placed).reason
    return WaitingWorkload(workload.namespace, workload.name, reason, timestamps.parse(placed.last_transition_time))
