"""Evicts the pods of drained devices. The eviction API honors PodDisruptionBudgets and deletes the pod."""

from collections.abc import Iterable, Iterator

from gpufleet_operator.fleet import cordons
from gpufleet_operator.ledger.ledger import Ledger
from gpufleet_operator.model.actions import DeletePod, EvictPod
from gpufleet_operator.model.snapshot import Snapshot


def collect_evictions(snapshot: Snapshot, ledger: Ledger, deletes: Iterable[DeletePod]) -> Iterator[EvictPod]:
    """Yields the evictions of released pods with a device that is cordoned with `drain`.

    The reservation of a gated pod is dropped instead, see `device_health.may_release`.

    Args:
        snapshot: The cluster.
        ledger: After this pass.
        deletes: Pods that are deleted for another reason.
    """
    deleted = {delete.uid for delete in deletes}
    for node, telemetry in snapshot.telemetry.items():
        if not telemetry.model.spec.cordoned:
            continue
        drained = {uuid: entry for uuid, entry in cordons.of_node(snapshot, node).items() if entry.drain}
        if not drained:
            continue
        for assignment in telemetry.assignments:
            pod = snapshot.pods.get(assignment.pod_uid)
            uuid = next((uuid for uuid in assignment.devices if uuid in drained), None)
            if uuid is None or pod is None or pod.uid in deleted or pod.uid not in ledger.active:
                continue
            if pod.gates or pod.deleting or pod.terminal:
                continue
            yield EvictPod(
                workload_uid=assignment.workload_uid,
                workload=assignment.workload,
                namespace=pod.namespace,
                name=pod.name,
                uid=pod.uid,
                message=f"device {uuid} {cordons.message(drained[uuid])}",
            )
