"""Evicts the pods for which other devices are reserved. The eviction API honors PodDisruptionBudgets."""

from collections.abc import Iterator
from functools import partial
from operator import attrgetter

from gpufleet_api.base import MovedFrom
from gpufleet_api.workload_placement import OnPressure
from gpufleet_operator.decide.assessment.workload_guard import WorkloadGuard
from gpufleet_operator.ledger.ledger import Ledger, is_stored
from gpufleet_operator.ledger.move_target import origin_of
from gpufleet_operator.model.actions import EvictPod, WorkloadName
from gpufleet_operator.model.objects import Reservation
from gpufleet_operator.model.replica import RemovalReason
from gpufleet_operator.model.snapshot import Snapshot

_MAX_NEIGHBORS = 16


def collect_moves(snapshot: Snapshot, ledger: Ledger, guard: WorkloadGuard) -> Iterator[EvictPod]:
    """Returns the evictions of pods whose next devices are reserved in the stored objects.

    Args:
        snapshot: The cluster.
        ledger: After this pass.
        guard: Gets the workloads on which this fails.
    """
    found = guard.each(partial(_move, snapshot), ledger.kept, attrgetter("assignment.workload_uid"))
    return (one for one in found if one is not None)


def _move(snapshot: Snapshot, reservation: Reservation) -> EvictPod | None:
    origin = origin_of(reservation.assignment)
    if origin is None or not is_stored(snapshot, reservation):
        return None
    pod = snapshot.pods.get(origin.pod_uid)
    workload = snapshot.workloads.get(reservation.assignment.workload_uid)
    if pod is None or workload is None or workload.model is None:
        return None
    wanted = workload.model.spec.placement.on_pressure is OnPressure.MOVE
    if not wanted or pod.gates or pod.deleting or pod.terminal:
        return None
    return EvictPod(
        workload.uid,
        workload.name,
        pod.namespace,
        pod.name,
        pod.uid,
        origin.message,
        RemovalReason.MOVED,
        neighbors=tuple(_neighbors(snapshot, origin, workload.uid)),
    )


def _neighbors(snapshot: Snapshot, origin: MovedFrom, moved_uid: str) -> list[WorkloadName]:
    """Returns the other workloads on the device that the pod leaves."""
    telemetry = snapshot.telemetry.get(origin.node)
    found: dict[str, WorkloadName] = {}
    for one in telemetry.assignments if telemetry is not None else ():
        if origin.device in one.devices and one.workload_uid != moved_uid:
            found[one.workload_uid] = WorkloadName(one.namespace, one.workload, one.workload_uid)
    return list(found.values())[:_MAX_NEIGHBORS]
