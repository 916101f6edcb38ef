"""Selects the pods that may be moved from a device that runs out of memory, and their order."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from gpufleet_api.telemetry.device import Device
from gpufleet_api.workload_placement import OnPressure
from gpufleet_api.workload_status import PlacementState
from gpufleet_common import timestamps
from gpufleet_operator.decide.pressure.observe import is_due
from gpufleet_operator.ledger.device_usage import holder_of, usable_mib
from gpufleet_operator.ledger.kept import key_of
from gpufleet_operator.ledger.ledger import Ledger
from gpufleet_operator.ledger.move_target import never_moved
from gpufleet_operator.ledger.own_use import most_used_mib
from gpufleet_operator.model.demands.promise import shares_its_promise
from gpufleet_operator.model.objects import Pod, Reservation
from gpufleet_operator.model.replica import Replica, WorkloadReplicas
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import PassState

MAX_TRIED = 3
"""Maximum number of pods of one device that a pass tries to move."""
MIN_PERCENT = 2
"""Minimum use of the device's memory: a pod that uses less would not relieve it."""


class MoveReason(StrEnum):
    """Why this pod is moved and no other."""

    OVERUSE = "Overuse"
    """It uses more than it was promised."""
    RECLAIM = "Reclaim"
    """It uses memory that others got because of `reclaim: Used`."""


class _RunningPod(NamedTuple):
    """A pod that may be moved, whatever it uses."""

    workload: WorkloadReplicas
    replica: Replica
    pod: Pod
    reservation: Reservation


@dataclass(frozen=True, slots=True)
class MovablePod:
    """A pod that may be moved."""

    workload: WorkloadReplicas
    replica: Replica
    pod: Pod
    reservation: Reservation
    used_mib: int
    """Memory of this device that it uses at present."""
    used_max_mib: int
    """Most memory of this device that it used."""
    used_anywhere_mib: int
    """Most memory that it used of any of its devices."""

    @property
    def promised_mib(self) -> int:
        return self.reservation.assignment.memory_mib or 0

    @property
    def excess_mib(self) -> int:
        """Largest use minus the promise."""
        return self.used_max_mib - self.promised_mib

    @property
    def needed_mib(self) -> int:
        """Larger of the largest use of any device and the promise: what each of its next devices must have free."""
        return max(self.used_anywhere_mib, self.promised_mib)

    @property
    def reason(self) -> MoveReason:
        return MoveReason.OVERUSE if self.excess_mib > 0 else MoveReason.RECLAIM


@dataclass(frozen=True, slots=True)
class PressedDevice:
    """A device from which a pod is to be moved now."""

    node: str
    device: Device
    pods: tuple[MovablePod, ...]
    """At most `MAX_TRIED`, those that exceed their promise most first."""

    @property
    def used_percent(self) -> float:
        return 100 * (self.device.memory_used_mib or 0) / max(1, usable_mib(self.device))


def pressed_devices(
    snapshot: Snapshot, state: PassState, ledger: Ledger, assessed: Sequence[WorkloadReplicas]
) -> list[PressedDevice]:
    """Returns the devices from which a pod is to be moved now, by node and UUID, also those without a movable pod."""
    due = {
        (node, uuid)
        for node, devices in state.pressure.items()
        for uuid, pressure in devices.items()
        if is_due(snapshot, node, uuid, pressure)
    }
    if not due:
        return []
    moving = {key_of(reservation) for reservation in ledger.kept}
    running = [pod for workload in assessed for pod in _running(snapshot, workload, moving)]
    found = []
    for node, uuid in sorted(due):
        status = snapshot.telemetry[node].status
        device = next((d for d in status.devices if d.uuid == uuid), None) if status else None
        if status is None or device is None:
            continue
        here = [pod for pod in running if pod.reservation.node == node and uuid in pod.reservation.assignment.devices]
        movable = sorted(filter(None, (_movable(pod, device, status.devices) for pod in here)), key=_order)
        found.append(PressedDevice(node, device, tuple(movable[:MAX_TRIED])))
    return found


def _order(pod: MovablePod) -> tuple[int, str]:
    return -pod.excess_mib, pod.pod.uid


def _running(snapshot: Snapshot, workload: WorkloadReplicas, moving: set[tuple[str, int]]) -> Iterator[_RunningPod]:
    spec = workload.spec
    placement = spec.placement
    if placement.on_pressure is not OnPressure.MOVE or never_moved(spec) or workload.outcome is not None:
        return
    removed = {removal.pod.uid for removal in workload.removals}
    for replica in workload.replicas:
        pod, reservation = replica.pod, replica.reservation
        if pod is None or reservation is None or reservation.assignment.memory_mib is None:
            continue
        if replica.state is not PlacementState.ALLOCATED or replica.outdated or replica.removal:
            continue
        if pod.deleting or pod.uid in removed or (workload.workload.uid, replica.index) in moving:
            continue
        if _moved_recently(snapshot, reservation):
            continue
        yield _RunningPod(workload, replica, pod, reservation)


def _moved_recently(snapshot: Snapshot, reservation: Reservation) -> bool:
    """Returns True for some time after the pod got these devices by a move."""
    assignment = reservation.assignment
    moved = assignment.moved_from is not None
    return moved and snapshot.now - timestamps.parse(assignment.decided_at) < snapshot.limits.replica_rest


def _movable(pod: _RunningPod, device: Device, devices: Sequence[Device]) -> MovablePod | None:
    """Returns the pod with what it uses of the device; None: it is not moved."""
    assignment = pod.reservation.assignment
    holder = holder_of(device, assignment)
    used_max = None if holder is None else most_used_mib(holder)
    if holder is None or used_max is None or 100 * used_max <= MIN_PERCENT * usable_mib(device):
        return None
    others = (holder_of(each, assignment) for each in devices if each.uuid in assignment.devices)
    most = max((most_used_mib(one) or 0 for one in others if one is not None), default=0)
    now = used_max if holder.memory_used_mib is None else holder.memory_used_mib
    movable = MovablePod(*pod, now, used_max, max(used_max, most))
    return movable if movable.excess_mib > 0 or shares_its_promise(assignment) else None
