"""Evicts the pods for which other devices are reserved. The eviction API honors PodDisruptionBudgets."""

from collections.abc import Iterator

from gpufleet_api.base import MovedFrom
from gpufleet_api.workload_placement import OnPressure
from gpufleet_operator.ledger.ledger import Ledger, is_stored
from gpufleet_operator.ledger.move_target import origin_of
from gpufleet_operator.model.actions import EvictPod, WorkloadName
from gpufleet_operator.model.replica import RemovalReason
from gpufleet_operator.model.snapshot import Snapshot

_MAX_NEIGHBORS = 16


def collect_moves(snapshot: Snapshot, ledger: Ledger) -> Iterator[EvictPod]:
    """Yields the evictions of pods whose next devices are reserved in the stored objects.

    Args:
        snapshot: The cluster.
        ledger: After this pass.
    """
    for reservation in ledger.kept:
        origin = origin_of(reservation.assignment)
        if origin is None or not is_stored(snapshot, reservation):
            continue
        pod = snapshot.pods.get(origin.pod_uid)
        workload = snapshot.workloads.get(reservation.assignment.workload_uid)
        if pod is None or workload is None or workload.model is None:
            continue
        wanted = workload.model.spec.placement.on_pressure is OnPressure.MOVE
        if wanted and not (pod.gates or pod.deleting or pod.terminal):
            yield EvictPod(
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
