"""Assesses the replicas of each workload, and finds the pods that must be deleted.

Level-triggered: the result depends on the snapshot and the state only, not on past events. A restart of the operator or
a lost event between any two steps leads to the same result, a little later.
"""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta

from gpufleet_api.names import SCHEDULING_GATE
from gpufleet_api.workload import WorkloadSpec
from gpufleet_api.workload_placement import OnDegraded
from gpufleet_api.workload_status import PlacementState
from gpufleet_common import timestamps
from gpufleet_operator.decide.assignment import new_assignment
from gpufleet_operator.decide.life import attempts
from gpufleet_operator.decide.life.attempts import ReplicaPods
from gpufleet_operator.decide.life.run_policy import apply_run_policy
from gpufleet_operator.decide.shards import range_of
from gpufleet_operator.fleet.device_health import may_release, reported_unhealthy_devices
from gpufleet_operator.fleet.node_health import unreachable_reason
from gpufleet_operator.ledger.ledger import Ledger, occupancy_of
from gpufleet_operator.ledger.verify import nodes_with_device_status, rejected_by_kubelet, verify_allocation
from gpufleet_operator.model.objects import Pod, PodPhase, Reservation, Workload
from gpufleet_operator.model.outcome import Outcome, stored_outcome
from gpufleet_operator.model.pod_state.problems import failure
from gpufleet_operator.model.replica import Removal, RemovalReason, Replica, WaitReason, WorkloadReplicas
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import PassState

_NO_REPLICA = -1
_ON_A_NODE = (PlacementState.BOUND, PlacementState.ALLOCATED)


def assess(snapshot: Snapshot, state: PassState, ledger: Ledger) -> tuple[WorkloadReplicas, ...]:
    """Returns the replicas of every workload that parses and is not being deleted.

    An invalid template (an edit of a workload that runs) only prevents that pods are created or released.

    An owner is in the namespace of its pods. A pod in another namespace that names the workload's uid is forged or a
    mistake. It is ignored, as garbage collection treats its owner as absent.
    """
    pods: dict[tuple[str, str], list[Pod]] = {}
    for pod in snapshot.pods.values():
        pods.setdefault((pod.namespace, pod.workload_uid), []).append(pod)
    assessed: list[WorkloadReplicas] = []
    kubelets = nodes_with_device_status(snapshot)
    for uid, check in snapshot.templates.items():
        workload = snapshot.workloads[uid]
        if workload.model is not None and not workload.deleting:
            owned = pods.get((workload.namespace, uid), ())
            assessor = _ReplicaAssessor(
                workload, workload.model.spec, snapshot, state, ledger, template_errors=check.errors, kubelets=kubelets
            )
            assessed.append(assessor.assess_all(owned))
    return tuple(assessed)


class _ReplicaAssessor:
    """Assesses the replicas of one workload one after the other, and collects the removals."""

    def __init__(
        self,
        workload: Workload,
        spec: WorkloadSpec,
        snapshot: Snapshot,
        state: PassState,
        ledger: Ledger,
        *,
        template_errors: tuple[str, ...],
        kubelets: frozenset[str],
    ) -> None:
        self.workload = workload
        self.spec = spec
        self.snapshot = snapshot
        self.state = state
        self.ledger = ledger
        self.template_errors = template_errors
        self.kubelets = kubelets
        self.removals: list[Removal] = []

    def assess_all(self, pods: Iterable[Pod]) -> WorkloadReplicas:
        """Returns all replicas, by the pods that the workload controls."""
        outcome = stored_outcome(self.workload)
        if outcome is not None:
            return self._finished(outcome, pods)
        by_index: dict[int | None, list[Pod]] = {}
        for pod in sorted(pods, key=lambda p: (p.created, p.uid)):
            by_index.setdefault(pod.replica, []).append(pod)
        found = tuple(
            attempts.replica_pods(self.workload, self.spec, index, by_index.pop(index, []))
            for index in range(self.spec.replicas)
        )
        for surplus in by_index.values():
            self._remove(surplus, _NO_REPLICA, RemovalReason.SURPLUS, "no replica with this index")
        starts = attempts.next_starts(self.snapshot, self.state, self.workload, self.spec, found)
        replicas = []
        for pods_of in found:
            self._remove(
                pods_of.obsolete, pods_of.index, RemovalReason.RESTARTED, f"attempt {pods_of.attempt} replaces it"
            )
            replica = self._replica(pods_of, starts.get(pods_of.index))
            unreachable = self._unreachable(replica)
            replicas.append(
                replace(
                    replica,
                    attempt=pods_of.attempt,
                    failures=pods_of.failures,
                    ready=replica.ready and not unreachable,
                    unreachable=unreachable,
                )
            )
        assessed = WorkloadReplicas(
            self.workload,
            self.spec,
            tuple(replicas),
            tuple(self.removals),
            template_errors=self.template_errors,
            surplus_pods=sum(map(len, by_index.values())),
        )
        return apply_run_policy(self.snapshot, self.state, self.ledger, assessed, found)

    def _finished(self, outcome: Outcome, pods: Iterable[Pod]) -> WorkloadReplicas:
        """Removes the pods that have not ended; the others are kept for their logs until the workload is deleted."""
        message = "the workload is complete" if outcome.complete else "the workload has failed"
        for pod in pods:
            if not pod.terminal:
                index = _NO_REPLICA if pod.replica is None else pod.replica
                self._remove([pod], index, RemovalReason.FINISHED, message)
        replicas = tuple(
            Replica(
                index,
                placement.state if placement.state is PlacementState.SUCCEEDED else PlacementState.FAILED,
                message=placement.message or "",
                attempt=placement.attempt or 0,
                failures=placement.failures or 0,
            )
            for index, placement in sorted(self.workload.stored_placements.items())
        )
        return WorkloadReplicas(
            self.workload, self.spec, replicas, tuple(self.removals), outcome, template_errors=self.template_errors
        )

    def _replica(self, found: ReplicaPods, start: datetime | None) -> Replica:
        """Assesses one replica by the pods of its attempt, oldest first. One that is being deleted no longer counts."""
        index, present = found.index, [p for p in found.current if not p.deleting]
        active = [p for p in present if not p.terminal]
        succeeded = next((p for p in present if p.phase is PodPhase.SUCCEEDED), None)
        if succeeded is not None or self.workload.has_succeeded(index):
            self._remove(active, index, RemovalReason.SURPLUS, "replica has succeeded")
            return Replica(index, PlacementState.SUCCEEDED, pod=succeeded)
        if self.spec.suspend:
            self._remove(active, index, RemovalReason.SUSPENDED, "spec.suspend is true")
            return Replica(index, PlacementState.PENDING, message="suspended")
        ended = self._ended(index, [p for p in present if p.phase is PodPhase.FAILED])
        if ended is not None and ended.state is PlacementState.FAILED:
            return ended
        if active:
            active.sort(key=lambda p: (bool(p.gates), p.uid not in self.ledger.active, p.created, p.uid))
            self._remove(active[1:], index, RemovalReason.SURPLUS, f"superseded by pod {active[0].name}")
            return self._gated(index, active[0]) if active[0].gates else self._released(index, active[0])
        return ended or self._missing(found, start)

    def _unreachable(self, replica: Replica) -> str:
        """Returns why the node of a bound pod does not respond: its kubelet does not change the pod's conditions."""
        if replica.pod is None or replica.pod.node is None or replica.state not in _ON_A_NODE:
            return ""
        return unreachable_reason(self.snapshot, replica.pod.node) or ""

    def _missing(self, found: ReplicaPods, start: datetime | None) -> Replica:
        if self.template_errors:
            message = "spec.template is invalid: no pod is created"
            return Replica(found.index, PlacementState.PENDING, WaitReason.VALID_TEMPLATE, message=message)
        if start is None or start <= self.snapshot.now:
            return Replica(found.index, PlacementState.PENDING, WaitReason.POD, message="creating pod")
        message = f"attempt {found.attempt} starts at {timestamps.seconds(start)}"
        if found.failed:
            message = f"{failure(found.failed[-1])}; {message}"
        return Replica(
            found.index, PlacementState.PENDING, WaitReason.RESTART_BACKOFF, message=message, starts_at=start
        )

    def _remove(
        self, pods: Iterable[Pod], index: int, reason: RemovalReason, message: str, node: str | None = None
    ) -> None:
        """Adds pods to the removals, except those that are being deleted already."""
        self.removals += [Removal(p, index, reason, message, node) for p in pods if not p.deleting]

    def _ended(self, index: int, pods: list[Pod]) -> Replica | None:
        """Replaces pods that the cluster ended. A pod whose application failed is kept."""
        result = None
        for pod in pods:
            message = failure(pod)
            if rejected_by_kubelet(pod):
                self._remove([pod], index, RemovalReason.REJECTED, message, pod.node)
                result = result or Replica(index, PlacementState.REJECTED, pod=pod, message=message)
            elif attempts.has_failed(pod):
                return Replica(index, PlacementState.FAILED, pod=pod, message=message)
            else:
                self._remove([pod], index, RemovalReason.DISRUPTED, message)
                result = result or Replica(index, PlacementState.PENDING, pod=pod, message=message)
        return result

    def _gated(self, index: int, pod: Pod) -> Replica:
        reservation = self.ledger.active.get(pod.uid)
        if self.template_errors:
            message = "spec.template is invalid: the pod is not released"
            return Replica(index, PlacementState.PENDING, WaitReason.VALID_TEMPLATE, pod, reservation, message=message)
        if not pod.only_operator_gate:
            others = ", ".join(gate for gate in pod.gates if gate != SCHEDULING_GATE)
            message = f"waiting for other scheduling gates: {others}"
            return Replica(index, PlacementState.PENDING, WaitReason.OTHER_GATES, pod, reservation, message=message)
        if reservation is not None and may_release(self.snapshot, reservation):
            return Replica(index, PlacementState.RESERVED, pod=pod, reservation=reservation)
        return Replica(index, PlacementState.PENDING, WaitReason.DEVICES, pod, reservation)

    def _released(self, index: int, pod: Pod) -> Replica:
        reservation, recovered = self.ledger.active.get(pod.uid), False
        if reservation is None:
            reservation, recovered = self._recover(index, pod), True
        if reservation is None:
            return self._without_reservation(index, pod)
        if pod.node is None:
            return self._unbound(index, pod, reservation, recovered=recovered)
        if pod.uid in self.ledger.conflicting:
            return self._mismatch(index, pod, reservation, "an older reservation has the same devices")
        stored = self.workload.stored_placements.get(index)
        before = stored if stored is not None and stored.pod_uid == pod.uid else None
        was_allocated = before is not None and before.state is PlacementState.ALLOCATED
        check = verify_allocation(
            self.snapshot,
            self.state,
            pod,
            reservation,
            was_allocated=was_allocated,
            kubelet_reports=pod.node in self.kubelets,
        )
        if check.state is PlacementState.MISMATCH:
            return self._mismatch(index, pod, reservation, check.message)
        # What the sources confirmed stays confirmed while they are unavailable (older kubelets have only the agent).
        allocated = check.state is PlacementState.ALLOCATED or was_allocated
        unconfirmed = "" if before is not None and before.ready else check.missing
        return Replica(
            index,
            PlacementState.ALLOCATED if allocated else PlacementState.BOUND,
            pod=pod,
            reservation=reservation,
            recovered=recovered,
            message=self._replace_if_unhealthy(index, pod, reservation) or check.message,
            unlisted=check.unlisted,
            ready=allocated and pod.ready and not unconfirmed,
            unconfirmed=unconfirmed,
        )

    def _replace_if_unhealthy(self, index: int, pod: Pod, reservation: Reservation) -> str:
        """Removes a pod with an unhealthy device, if `onDegraded` is Replace and the grace period is over."""
        since = self.state.unhealthy_since.get(pod.uid)
        if since is None or self.spec.placement.on_degraded is not OnDegraded.REPLACE:
            return ""
        if self.snapshot.now - since < self.snapshot.limits.degraded_grace:
            return ""
        telemetry = self.snapshot.telemetry[reservation.node]
        unhealthy = ", ".join(reported_unhealthy_devices(telemetry, reservation.assignment))
        message = f"replacing pod with unhealthy devices: {unhealthy}"
        self._remove([pod], index, RemovalReason.UNHEALTHY, message)
        return message

    def _mismatch(self, index: int, pod: Pod, reservation: Reservation | None, message: str) -> Replica:
        self._remove([pod], index, RemovalReason.MISMATCH, message, pod.target_node)
        return Replica(index, PlacementState.MISMATCH, pod=pod, reservation=reservation, message=message)

    def _unbound(self, index: int, pod: Pod, reservation: Reservation, *, recovered: bool) -> Replica:
        message, node = "", reservation.node
        if node not in self.snapshot.nodes:
            self._remove([pod], index, RemovalReason.NODE_DELETED, f"node {node} was deleted")
        elif pod.unschedulable is not None:
            message = f"kube-scheduler cannot bind the pod to {node}: {pod.unschedulable}"
            since = self.state.unschedulable_since.get(pod.uid)
            if since is not None and self.snapshot.now - since >= unschedulable_grace(self.snapshot, node):
                self._remove([pod], index, RemovalReason.UNSCHEDULABLE, pod.unschedulable, node)
        return Replica(
            index, PlacementState.RESERVED, pod=pod, reservation=reservation, recovered=recovered, message=message
        )

    def _without_reservation(self, index: int, pod: Pod) -> Replica:
        node = pod.target_node
        telemetry = self.snapshot.telemetry.get(node) if node else None
        stored = self.workload.stored_placements.get(index)
        released_by_operator = stored is not None and stored.pod_uid == pod.uid and stored.node == node
        state = PlacementState.BOUND if pod.node else PlacementState.RESERVED
        if released_by_operator and self._has_unknown_container(pod):
            message = "the reservation is restored when the kubelet reports the containers"
            return Replica(index, state, pod=pod, message=message)
        if released_by_operator and node is not None and (telemetry is None or telemetry.deleting):
            # The Node was deleted, and its GPUTelemetry with it. When the agent creates a new one, the reservation is
            # written again. Until then nothing can be verified, and the pod is kept.
            message = f"GPUTelemetry {node} not found"
            return Replica(index, state, pod=pod, message=message)
        return self._mismatch(index, pod, None, "pod was released without a reservation")

    def _has_unknown_container(self, pod: Pod) -> bool:
        """Returns True when only an invalid template could say which container has the devices."""
        return bool(self.template_errors) and self.spec.devices.container is None and not pod.containers

    def _recover(self, index: int, pod: Pod) -> Reservation | None:
        """Restores a released pod's reservation from status, if the node's GPUTelemetry is new and the devices free."""
        stored, node = self.workload.stored_placements.get(index), pod.target_node
        if stored is None or node is None or stored.pod_uid != pod.uid or stored.node != node or not stored.devices:
            return None
        telemetry = self.snapshot.telemetry.get(node)
        if telemetry is None or telemetry.deleting or self._has_unknown_container(pod):
            return None
        assignment = new_assignment(
            self.snapshot, self.workload, index, pod, devices=stored.devices, shard=range_of(stored)
        )
        reservation = Reservation(node, assignment)
        return None if occupancy_of(self.snapshot, self.ledger).conflicts(reservation) else reservation


def unschedulable_grace(snapshot: Snapshot, node: str) -> timedelta:
    """Returns how long kube-scheduler must report a pod pinned to this node as unschedulable before it is replaced.

    It is longer while the node is settling: the kubelet publishes allocatable up to ten seconds after the device
    plugin reported a device, and not at all while the agent is down.
    """
    limits = snapshot.limits
    telemetry, found = snapshot.telemetry.get(node), snapshot.nodes.get(node)
    if telemetry is None or telemetry.status is None or found is None or snapshot.stale_reason(node) is not None:
        return limits.settling_grace
    offered = sum(device.offered for device in telemetry.status.devices)
    settled = all(
        found.allocatable.get(name, 0) == limits.resources.offered(name, offered) for name in limits.resources.names
    )
    return limits.unschedulable_grace if settled else limits.settling_grace
