"""Computes the use of the fleet by each namespace over the last hour, for workloads of equal priority.

A device that a pod has counts 1, so that the devices picked in a pass count for the next pick. A device that was freed
within the last hour counts for the part of the hour in which the pod had it. Of a shared device, the larger promised
part counts. After a restart, only the devices of existing pods are known.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from gpufleet_api.names import WHOLE_DEVICE_PERCENT
from gpufleet_api.telemetry.spec import Assignment
from gpufleet_common import timestamps
from gpufleet_operator.ledger.ledger import Ledger
from gpufleet_operator.model.objects import Reservation
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import DeviceUse

WINDOW = timedelta(hours=1)


def update_use(snapshot: Snapshot, previous: Mapping[str, DeviceUse], ledger: Ledger) -> dict[str, DeviceUse]:
    """Returns the use of each pod, updated by the ledger."""
    use = {
        r.assignment.pod_uid: previous.get(r.assignment.pod_uid) or _new(snapshot, r)
        for r in (*ledger.active.values(), *ledger.terminating)
    }
    for uid, one in previous.items():
        if uid not in use:
            until = one.until or snapshot.now
            if snapshot.now < until + WINDOW:
                use[uid] = DeviceUse(one.namespace, one.devices, one.since, until)
    return use


def use_by_namespace(use: Iterable[DeviceUse], now: datetime) -> dict[str, float]:
    """Returns the number of devices that each namespace uses, by the rule above."""
    found: dict[str, float] = {}
    for one in use:
        part = 1.0
        if one.until is not None:
            part = max(timedelta(0), one.until - max(one.since, now - WINDOW)) / WINDOW
        found[one.namespace] = found.get(one.namespace, 0.0) + one.devices * part
    return found


def dominant_share(assignment: Assignment, memory_total_mib: int | None) -> float:
    """Returns the number of devices that an assignment counts for.

    Args:
        assignment: A reservation.
        memory_total_mib: Memory of one of its devices; None: not known.
    """
    count = len(assignment.devices)
    if assignment.memory_mib is None and assignment.compute_percent is None:
        return float(count)
    memory = (assignment.memory_mib or 0) / memory_total_mib if memory_total_mib else 0.0
    return count * max(memory, (assignment.compute_percent or 0) / WHOLE_DEVICE_PERCENT)


def _new(snapshot: Snapshot, reservation: Reservation) -> DeviceUse:
    assignment = reservation.assignment
    telemetry = snapshot.telemetry.get(reservation.node)
    devices = telemetry.status.devices if telemetry is not None and telemetry.status is not None else ()
    total = next((d.memory_total_mib for d in devices if d.uuid in assignment.devices), None)
    since = timestamps.parse(assignment.decided_at)
    return DeviceUse(assignment.namespace, dominant_share(assignment, total), since)
