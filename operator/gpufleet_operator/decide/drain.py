"""Evicts the pods of drained devices. The eviction API honors PodDisruptionBudgets and deletes the pod."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter

from gpufleet_api.telemetry.spec import Assignment, CordonedDevice
from gpufleet_operator.decide.assessment.workload_guard import WorkloadGuard
from gpufleet_operator.fleet import cordons
from gpufleet_operator.ledger.ledger import Ledger
from gpufleet_operator.model.actions import EvictPod
from gpufleet_operator.model.objects import Pod, Telemetry
from gpufleet_operator.model.snapshot import Snapshot


def collect_evictions(snapshot: Snapshot, ledger: Ledger, guard: WorkloadGuard) -> Iterator[EvictPod]:
    """Yields the evictions of pods that have a device which is cordoned with `drain`.

    These are the released pods of GPUWorkloads, and the other pods that the agent reports as holders, as long as their
    controller creates them again elsewhere. The reservation of a gated pod is dropped instead, see
    `device_health.may_release`.

    Args:
        snapshot: The cluster.
        ledger: After this pass.
        guard: Gets the workloads and nodes on which this fails.
    """

    def of_node(telemetry: Telemetry) -> Sequence[EvictPod]:
        drained = cordons.drained(snapshot, telemetry.name)
        if not drained:
            return ()
        found = _Holders(snapshot, ledger, telemetry, drained)
        reserved = guard.each(found.reserved, telemetry.assignments, attrgetter("workload_uid"))
        return (*(one for one in reserved if one is not None), *found.reported())

    for evictions in guard.each(of_node, snapshot.telemetry.values(), attrgetter("name")):
        yield from evictions


@dataclass(frozen=True, slots=True)
class _Holders:
    """The pods that have drained devices of one node."""

    snapshot: Snapshot
    ledger: Ledger
    telemetry: Telemetry
    drained: Mapping[str, CordonedDevice]

    def reserved(self, assignment: Assignment) -> EvictPod | None:
        pod = self.snapshot.pods.get(assignment.pod_uid)
        uuid = next((uuid for uuid in assignment.devices if uuid in self.drained), None)
        if uuid is None or pod is None or pod.uid not in self.ledger.active or not _may_run(pod):
            return None
        return self._eviction(pod, uuid, assignment.workload_uid, assignment.workload)

    def reported(self) -> Iterator[EvictPod]:
        """Yields pods without a reservation; a report may be older than the pod of a name, so it has to be fresh."""
        node, status = self.telemetry.name, self.telemetry.status
        if status is None or self.snapshot.stale_reason(node) is not None:
            return
        holders = {
            (holder.namespace, holder.pod): device.uuid
            for device in status.devices
            if device.uuid in self.drained
            for holder in device.allocated_to
            if holder.pod_uid is None and not holder.terminating
        }
        if not holders:
            return
        for pod in self.snapshot.pods.values():
            uuid = holders.get((pod.namespace, pod.name))
            workload = self.snapshot.workloads.get(pod.workload_uid)
            if uuid is not None and workload is not None and pod.node == node and _may_run(pod):
                yield self._eviction(pod, uuid, workload.uid, workload.name)
        for other in self.snapshot.other_pods.values():
            uuid = holders.get((other.traits.namespace, other.name))
            if uuid is not None and other.node == node and other.movable and not other.deleting:
                yield EvictPod("", "", other.traits.namespace, other.name, other.uid, self._message(uuid))

    def _eviction(self, pod: Pod, uuid: str, workload_uid: str, workload: str) -> EvictPod:
        return EvictPod(workload_uid, workload, pod.namespace, pod.name, pod.uid, self._message(uuid))

    def _message(self, uuid: str) -> str:
        return f"device {uuid} {cordons.message(self.drained[uuid])}"


def _may_run(pod: Pod) -> bool:
    return not (pod.gates or pod.deleting or pod.terminal)
