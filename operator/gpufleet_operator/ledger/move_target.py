"""Reservations of devices to which a running pod is moved: they exist before the pod is evicted.

Such a reservation has no pod yet. The replica's next pod gets its devices, as during an update, see `ledger.kept`.
"""

from datetime import datetime, timedelta

from gpufleet_api.base import MovedFrom
from gpufleet_api.telemetry.spec import Assignment
from gpufleet_api.workload import WorkloadSpec
from gpufleet_api.workload_placement import Topology
from gpufleet_common import timestamps
from gpufleet_operator.model.objects import DEFAULT_TERMINATION_GRACE_PERIOD_SECONDS, Reservation
from gpufleet_operator.model.snapshot import Snapshot


def never_moved(spec: WorkloadSpec) -> str:
    """Returns why no replica of a workload is ever moved from a full device; empty: replicas are moved."""
    if spec.adopts:
        return "its pods have another owner, whose next pod may be another replica"
    if spec.replicas == 1:
        return ""
    if spec.placement.gang:
        return "a gang is never moved in part, and moving all of it would stop every replica for one device"
    if spec.placement.topology is Topology.SAME_NODE:
        return "topology SameNode keeps its replicas on one node"
    return ""


def move_target(assignment: Assignment, origin: MovedFrom, memory_mib: int) -> Assignment:
    """Returns the reservation of the devices to move to.

    Args:
        assignment: As for the pod that is moved.
        origin: Where it is moved from.
        memory_mib: What the pod uses or was promised, whichever is more.
    """
    changed: Assignment = assignment.model_copy(
        update={
            "pod_uid": _key(origin.pod_uid),
            "memory_mib": memory_mib,
            "demand_mib": None,
            "demand_runs": None,
            "keep_for_successor": True,
            "moved_from": origin,
        }
    )
    return changed


def origin_of(assignment: Assignment) -> MovedFrom | None:
    """Returns the device that the pod leaves; None: the reservation is not for a move."""
    origin = assignment.moved_from
    return origin if origin is not None and assignment.pod_uid == _key(origin.pod_uid) else None


def is_being_replaced(snapshot: Snapshot, origin: MovedFrom) -> bool:
    """Returns True while the evicted pod still exists."""
    pod = snapshot.pods.get(origin.pod_uid)
    return pod is not None and pod.deleting and not pod.terminal


def deadline(snapshot: Snapshot, reservation: Reservation) -> datetime:
    """Returns when the devices are released if no pod got them by then.

    An eviction that a PodDisruptionBudget does not allow is given up after `Limits.successor_limit`. A pod that was
    evicted has its grace period, and its successor the same time again.
    """
    assignment, limit = reservation.assignment, snapshot.limits.successor_limit
    origin = origin_of(assignment)
    pod = None if origin is None else snapshot.pods.get(origin.pod_uid)
    decided_at = timestamps.parse(assignment.decided_at)
    if pod is not None and not pod.deleting and not pod.terminal:
        return decided_at + limit
    return decided_at + 2 * limit + grace_period(assignment)


def grace_period(assignment: Assignment) -> timedelta:
    """Returns the termination grace period of a reservation's pod."""
    seconds = assignment.termination_grace_period_seconds
    return timedelta(seconds=DEFAULT_TERMINATION_GRACE_PERIOD_SECONDS if seconds is None else seconds)


def _key(pod_uid: str) -> str:
    """Returns the key of the reservation among those of the node; no pod has this UID."""
    return f"move-{pod_uid}"[:64]
