"""Where each replica of a workload stands, and which of its pods must go.

Level-triggered: the answer depends on the snapshot alone, never on how it came about, so a restart of the operator or
a lost event between any two steps leads to the same answer a little later.
"""

from collections.abc import Iterable
from datetime import timedelta

from gpufleet_api.telemetry import Assignment
from gpufleet_api.workload import OnDegraded, PlacementState, WorkloadSpec
from gpufleet_common import timestamps
from gpufleet_operator.fleet.device_health import may_release, reported_unhealthy_devices
from gpufleet_operator.ledger.conflicts import Occupancy
from gpufleet_operator.ledger.ledger import Ledger, device_memory_mib
from gpufleet_operator.ledger.verify import rejected_by_kubelet, verify_allocation
from gpufleet_operator.model.objects import Pod, PodPhase, Reservation, Workload
from gpufleet_operator.model.replica import Removal, RemovalReason, Replica, WaitReason, WorkloadReplicas
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.pods.validate import device_container

REFUSED_BY = {
    RemovalReason.UNSCHEDULABLE: "kube-scheduler",
    RemovalReason.REJECTED: "kubelet",
    RemovalReason.MISMATCH: "gpufleet",
}
"""Faults that set the node aside for the replica, and who said no."""


def stand(
    workload: Workload, spec: WorkloadSpec, pods: Iterable[Pod], snapshot: Snapshot, ledger: Ledger
) -> WorkloadReplicas:
    """Judge every replica of a workload whose template is without problems, by the `pods` that it controls."""
    by_index: dict[int | None, list[Pod]] = {}
    for pod in sorted(pods, key=lambda p: (p.created, p.uid)):
        by_index.setdefault(pod.replica, []).append(pod)
    judge = _Judge(workload, spec, snapshot, ledger)
    replicas = tuple(judge.replica(index, by_index.pop(index, [])) for index in range(spec.replicas))
    for strangers in by_index.values():
        judge.drop(strangers, -1, RemovalReason.SURPLUS, "it belongs to no replica of the workload")
    return WorkloadReplicas(workload, spec, replicas, tuple(judge.removals))


class _Judge:
    """Collects removals while it looks at one replica after the other."""

    def __init__(self, workload: Workload, spec: WorkloadSpec, snapshot: Snapshot, ledger: Ledger) -> None:
        self.workload = workload
        self.spec = spec
        self.snapshot = snapshot
        self.ledger = ledger
        self.removals: list[Removal] = []

    def replica(self, index: int, pods: list[Pod]) -> Replica:
        """One replica from its pods, oldest first. A pod that is being deleted no longer stands for it."""
        present = [p for p in pods if not p.deleting]
        live = [p for p in present if not p.terminal]
        succeeded = next((p for p in present if p.phase is PodPhase.SUCCEEDED), None)
        if succeeded is not None or self.workload.done(index):
            self.drop(live, index, RemovalReason.SURPLUS, "the replica has succeeded already")
            return Replica(index, PlacementState.SUCCEEDED, pod=succeeded)
        if self.spec.suspend:
            self.drop(live, index, RemovalReason.SUSPENDED, "spec.suspend is true")
            return Replica(index, PlacementState.PENDING, message="suspended")
        failed = self._failed(index, [p for p in present if p.phase is PodPhase.FAILED])
        if live:
            live.sort(key=lambda p: (bool(p.gates), p.uid not in self.ledger.live, p.created, p.uid))
            self.drop(live[1:], index, RemovalReason.SURPLUS, f"{live[0].name} stands for the replica")
            return self._gated(index, live[0]) if live[0].gates else self._released(index, live[0])
        return failed or Replica(index, PlacementState.PENDING, WaitReason.POD, message="its pod is being made")

    def drop(self, pods: list[Pod], index: int, fault: RemovalReason, message: str, node: str | None = None) -> None:
        """Have pods deleted, unless that is under way."""
        self.removals += [Removal(p, index, fault, message, node) for p in pods if not p.deleting]

    def _failed(self, index: int, pods: list[Pod]) -> Replica | None:
        """Pods that the cluster ended are replaced; one that the application ended stays, as restartPolicy says."""
        result = None
        for pod in pods:
            words = ": ".join(part for part in (pod.reason, pod.message) if part) or "the pod failed"
            if rejected_by_kubelet(pod):
                self.drop([pod], index, RemovalReason.REJECTED, words, pod.node)
                result = result or Replica(index, PlacementState.REJECTED, pod=pod, message=words)
            elif pod.disrupted:
                self.drop([pod], index, RemovalReason.DISRUPTED, words)
                result = result or Replica(index, PlacementState.PENDING, pod=pod, message=words)
            else:
                result = Replica(index, PlacementState.FAILED, pod=pod, message=words)
        return result

    def _gated(self, index: int, pod: Pod) -> Replica:
        entry = self.ledger.live.get(pod.uid)
        if not pod.only_our_gate:
            others = ", ".join(pod.gates)
            return Replica(
                index,
                PlacementState.PENDING,
                WaitReason.GATES,
                pod,
                entry,
                message=f"other scheduling gates stand: {others}",
            )
        if entry is not None and may_release(self.snapshot, entry):
            return Replica(index, PlacementState.RESERVED, pod=pod, entry=entry)
        return Replica(index, PlacementState.PENDING, WaitReason.DEVICES, pod, entry)

    def _released(self, index: int, pod: Pod) -> Replica:
        entry, recovered = self.ledger.live.get(pod.uid), False
        if entry is None:
            entry, recovered = self._recover(index, pod), True
        if entry is None:
            return self._without_reservation(index, pod)
        if pod.node is None:
            return self._unbound(index, pod, entry, recovered=recovered)
        if pod.uid in self.ledger.conflicted:
            return self._mismatch(index, pod, entry, "an older reservation names the same devices")
        verdict = verify_allocation(self.snapshot, pod, entry.node, entry.assignment)
        if verdict.state is PlacementState.MISMATCH:
            return self._mismatch(index, pod, entry, verdict.message)
        record = self.workload.recorded.get(index)
        confirmed = verdict.state is PlacementState.CONFIRMED or (
            # A verdict stands while the witnesses are away (older kubelets have only the agent).
            record is not None and record.pod_uid == pod.uid and record.state is PlacementState.CONFIRMED
        )
        state = PlacementState.CONFIRMED if confirmed else PlacementState.BOUND
        message = self._degraded(index, pod, entry)
        return Replica(index, state, pod=pod, entry=entry, recovered=recovered, message=message)

    def _degraded(self, index: int, pod: Pod, entry: Reservation) -> str:
        """Have a pod replaced whose device is faulty, if that is wanted and the fault stands for long enough."""
        since = self.snapshot.memory.degraded_since.get(pod.uid)
        if since is None or self.spec.placement.on_degraded is not OnDegraded.REPLACE:
            return ""
        if self.snapshot.now - since < self.snapshot.limits.degraded_grace:
            return ""
        faulty = ", ".join(reported_unhealthy_devices(self.snapshot.telemetry[entry.node], entry.assignment))
        message = f"unhealthy: {faulty}; the pod is being replaced"
        self.drop([pod], index, RemovalReason.DEGRADED, message)
        return message

    def _mismatch(self, index: int, pod: Pod, entry: Reservation | None, message: str) -> Replica:
        self.drop([pod], index, RemovalReason.MISMATCH, message, pod.place)
        return Replica(index, PlacementState.MISMATCH, pod=pod, entry=entry, message=message)

    def _unbound(self, index: int, pod: Pod, entry: Reservation, *, recovered: bool) -> Replica:
        message = ""
        if entry.node not in self.snapshot.nodes:
            self.drop([pod], index, RemovalReason.NODE_GONE, f"node {entry.node} is gone")
        elif pod.unschedulable is not None:
            message = f"kube-scheduler refuses {entry.node}: {pod.unschedulable}"
            since = self.snapshot.memory.refused_since.get(pod.uid)
            if since is not None and self.snapshot.now - since >= grace(self.snapshot, entry.node):
                self.drop([pod], index, RemovalReason.UNSCHEDULABLE, pod.unschedulable, entry.node)
        return Replica(index, PlacementState.RESERVED, pod=pod, entry=entry, recovered=recovered, message=message)

    def _without_reservation(self, index: int, pod: Pod) -> Replica:
        place = pod.place
        telemetry = self.snapshot.telemetry.get(place) if place else None
        record = self.workload.recorded.get(index)
        ours = record is not None and record.pod_uid == pod.uid and record.node == place
        if ours and place is not None and (telemetry is None or telemetry.deleting):
            # The Node was deleted and took its GPUTelemetry along; when the agent makes a new one, the reservation
            # is written again. Until then nothing can be proved, and the pod is left alone.
            message = f"the GPUTelemetry of {place} is gone"
            state = PlacementState.BOUND if pod.node else PlacementState.RESERVED
            return Replica(index, state, pod=pod, message=message)
        return self._mismatch(index, pod, None, "the pod was released without a reservation")

    def _recover(self, index: int, pod: Pod) -> Reservation | None:
        """A released pod's reservation from status, when the node's object was made anew and the devices are free."""
        record, place = self.workload.recorded.get(index), pod.place
        if record is None or place is None or record.pod_uid != pod.uid or record.node != place or not record.devices:
            return None
        telemetry = self.snapshot.telemetry.get(place)
        if telemetry is None or telemetry.deleting:
            return None
        assignment = Assignment(
            pod_uid=pod.uid,
            namespace=pod.namespace,
            pod=pod.name,
            container=device_container(self.spec),
            workload=self.workload.name,
            workload_uid=self.workload.uid,
            replica=index,
            replicas=self.spec.replicas,
            resource=self.snapshot.limits.resources.asked(self.spec.devices),
            devices=list(record.devices),
            memory_mib=self.spec.devices.memory_mib,
            compute_percent=self.spec.devices.compute_percent,
            shard_start=record.shard_start,
            shard_end=record.shard_end,
            decided_at=timestamps.micros(self.snapshot.now),
        )
        claims = Occupancy(device_memory_mib(self.snapshot))
        for other in (*self.ledger.live.values(), *self.ledger.terminating):
            claims.add(other.node, other.assignment)
        return None if claims.clashes(place, assignment) else Reservation(place, assignment)


def grace(snapshot: Snapshot, node: str) -> timedelta:
    """How long kube-scheduler's refusal must stand.

    Longer while the node is settling: the kubelet publishes allocatable up to ten seconds after the plugin told it
    of a device, and not at all while the agent is away.
    """
    telemetry, v1node = snapshot.telemetry.get(node), snapshot.nodes.get(node)
    if telemetry is None or telemetry.status is None or v1node is None or snapshot.stale_reason(node) is not None:
        return snapshot.limits.settling_grace
    resources, devices = snapshot.limits.resources, telemetry.status.devices
    usable = sum(device.offered for device in devices)
    settled = all(v1node.allocatable.get(name, 0) == resources.offered(name, usable) for name in resources.names)
    return snapshot.limits.unschedulable_grace if settled else snapshot.limits.settling_grace
