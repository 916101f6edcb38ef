"""The events of a change of status."""

from collections.abc import Mapping

from gpufleet_api.condition import Condition, ConditionStatus
from gpufleet_api.workload_status import WorkloadStatus
from gpufleet_operator.model.actions import Event

_WARNING_TYPES = frozenset({"Stalled", "Degraded"})
"""Conditions that are abnormal when True."""

_REPORTED_TYPES = frozenset({"Placed", "Complete"})
"""Without Ready, which is in the condition: its event would be one more request for each starting workload."""


def events(stored: WorkloadStatus | None, status: WorkloadStatus) -> tuple[Event, ...]:
    """Returns an event for each condition that became Placed, Complete or abnormal, and for new attempts."""
    before: Mapping[str, Condition] = {c.type: c for c in stored.conditions} if stored else {}
    found = _restart_events(stored, status)
    for condition in status.conditions:
        old = before.get(condition.type)
        if old is not None and (old.status, old.reason) == (condition.status, condition.reason):
            continue
        true = condition.status is ConditionStatus.TRUE
        no_devices = condition.type == "Placed" and condition.reason == "NoDevicesAvailable"
        warning = (condition.type in _WARNING_TYPES and true) or no_devices
        if warning or (condition.type in _REPORTED_TYPES and true):
            found.append(Event(condition.reason, condition.message, warning=warning))
    return tuple(found)


def _restart_events(stored: WorkloadStatus | None, status: WorkloadStatus) -> list[Event]:
    """Returns one event for all replicas that start the same attempt for the same reason."""
    before = {p.replica: p.attempt or 0 for p in stored.placements} if stored else {}
    started: dict[str, list[int]] = {}
    for placement in status.placements:
        attempt = placement.attempt or 0
        if attempt > before.get(placement.replica, attempt):
            started.setdefault(f"attempt {attempt}: {placement.message}", []).append(placement.replica)
    return [
        Event(
            "Restarting",
            f"replica{'s' if len(indices) > 1 else ''} {', '.join(map(str, indices))}, {note}",
            warning=True,
        )
        for note, indices in started.items()
    ]
