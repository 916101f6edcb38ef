"""Assesses one pod of a workload: what it waits for, which devices it has, and whether it must be replaced.

Level-triggered: the result depends on the snapshot and the state only, not on past events. A restart of the operator or
a lost event between any two steps leads to the same result, a little later.
"""

from collections.abc import Iterable
from datetime import timedelta

from gpufleet_api.names import SCHEDULING_GATE
from gpufleet_api.workload import WorkloadSpec
from gpufleet_api.workload_placement import OnDegraded
from gpufleet_api.workload_status import PlacementState
from gpufleet_operator.decide.adoption.settled_nodes import unsettled_reason
from gpufleet_operator.decide.assignment import new_assignment
from gpufleet_operator.decide.claims.claim_state import claim_rejection, waiting_for_claim
from gpufleet_operator.decide.claims.reassignment import may_be_reassigned, unusable_reason
from gpufleet_operator.decide.kueue.admission import may_have_devices
from gpufleet_operator.decide.shards import range_of
from gpufleet_operator.fleet.device_health import may_release, reported_unhealthy_devices
from gpufleet_operator.ledger.ledger import Ledger
from gpufleet_operator.ledger.verify import verify_allocation
from gpufleet_operator.model.objects import Pod, Reservation, Workload
from gpufleet_operator.model.pod_state.device_containers import of_pod
from gpufleet_operator.model.replica import Removal, RemovalMethod, RemovalReason, Replica, WaitReason
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import PassState


class PodAssessor:
    """Assesses pods of one workload one after the other, and collects the removals."""

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

    def remove(
        self, pods: Iterable[Pod], index: int, reason: RemovalReason, message: str, node: str | None = None
    ) -> None:
        """Adds pods to the removals, except those that are being deleted already."""
        self.removals += [Removal(p, index, reason, message, node) for p in pods if not p.deleting]

    def gated(self, index: int, pod: Pod) -> Replica:
        reservation = self.ledger.active.get(pod.uid)
        if self.template_errors:
            message = "spec.template is invalid: the pod is not released"
            return Replica(index, PlacementState.PENDING, WaitReason.VALID_TEMPLATE, pod, reservation, message=message)
        if not may_have_devices(pod, self.snapshot.with_quota):
            others = ", ".join(gate for gate in pod.gates if gate != SCHEDULING_GATE)
            message = f"waiting for other scheduling gates: {others}"
            return Replica(index, PlacementState.PENDING, WaitReason.OTHER_GATES, pod, reservation, message=message)
        rejected = claim_rejection(self.snapshot, self.state, pod)
        if rejected:
            return Replica(index, PlacementState.PENDING, WaitReason.CLAIM, pod, reservation, message=rejected)
        if reservation is not None and may_release(self.snapshot, reservation, pod):
            message = "" if pod.only_operator_gate else "waiting for Kueue to admit the pod"
            return Replica(index, PlacementState.RESERVED, pod=pod, reservation=reservation, message=message)
        return Replica(index, PlacementState.PENDING, WaitReason.DEVICES, pod, reservation)

    def released(self, index: int, pod: Pod) -> Replica:
        reservation, recovered = self.ledger.active.get(pod.uid), False
        if may_be_reassigned(self.snapshot, pod):
            replica = self._reassigned(index, pod, reservation)
            if replica is not None:
                return replica
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
        """Removes a pod with an unhealthy device after the grace period, if `onDegraded` is Replace, or if it waits.

        The driver of a claim does not give the device to a pod that has not started. A device plugin fails such a pod.
        """
        since = self.state.unhealthy_since.get(pod.uid)
        waits = pod.device_claim is not None and not pod.has_started
        if since is None or not (waits or self.spec.placement.on_degraded is OnDegraded.REPLACE):
            return ""
        if self.snapshot.now - since < self.snapshot.limits.degraded_grace:
            return ""
        telemetry = self.snapshot.telemetry[reservation.node]
        unhealthy = ", ".join(reported_unhealthy_devices(telemetry, reservation.assignment))
        message = f"replacing pod with unhealthy devices: {unhealthy}"
        self.remove([pod], index, RemovalReason.UNHEALTHY, message)
        return message

    def _mismatch(self, index: int, pod: Pod, reservation: Reservation | None, message: str) -> Replica:
        self.remove([pod], index, RemovalReason.MISMATCH, message, pod.target_node)
        return Replica(index, PlacementState.MISMATCH, pod=pod, reservation=reservation, message=message)

    def _unbound(self, index: int, pod: Pod, reservation: Reservation, *, recovered: bool) -> Replica:
        message, node = "", reservation.node
        if node not in self.snapshot.nodes:
            self.remove([pod], index, RemovalReason.NODE_DELETED, f"node {node} was deleted")
        elif pod.unschedulable is not None:
            message = f"kube-scheduler cannot bind the pod to {node}: {pod.unschedulable}"
            since = self.state.unschedulable_since.get(pod.uid)
            if since is not None and self.snapshot.now - since >= unschedulable_grace(self.snapshot, node):
                self.remove([pod], index, RemovalReason.UNSCHEDULABLE, pod.unschedulable, node)
        elif awaited := waiting_for_claim(self.snapshot, self.state, pod):
            message = awaited
        elif pod.volume_claims:
            listed = ", ".join(f'"{name}"' for name in pod.volume_claims)
            message = f"waiting for {pod.scheduler} to bind the pod and the PersistentVolumeClaims {listed}"
        return Replica(
            index, PlacementState.RESERVED, pod=pod, reservation=reservation, recovered=recovered, message=message
        )

    def _reassigned(self, index: int, pod: Pod, reservation: Reservation | None) -> Replica | None:
        """Assesses a pod that gets other devices, or has none since its own were released; None: it keeps its own."""
        claim = self.snapshot.claim_of(pod)
        if reservation is None:
            if claim is None:
                message = "waiting for other devices: those that were reserved for the pod cannot be used"
                return Replica(index, PlacementState.PENDING, WaitReason.DEVICES, pod, message=message, reassigned=True)
            if self._recover(index, pod) is not None:
                return None
            message = f"ResourceClaim {claim.name} is deleted: no devices are reserved for the pod"
            return Replica(index, PlacementState.PENDING, pod=pod, message=message, reassigned=True)
        reason = unusable_reason(self.snapshot, reservation) or self._rejected_by_scheduler(index, pod, reservation)
        if not reason:
            return None
        if claim is not None:
            return Replica(
                index, PlacementState.RESERVED, pod=pod, reservation=reservation, message=reason, reassigned=True
            )
        return Replica(
            index, PlacementState.PENDING, WaitReason.DEVICES, pod, reservation, message=reason, reassigned=True
        )

    def _rejected_by_scheduler(self, index: int, pod: Pod, reservation: Reservation) -> str:
        """Returns why kube-scheduler rejects the pod for longer than the grace period; empty: it does not."""
        node, since = reservation.node, self.state.unschedulable_since.get(pod.uid)
        if since is None or self.snapshot.now - since < unschedulable_grace(self.snapshot, node):
            return ""
        reason = RemovalReason.UNSCHEDULABLE
        message = pod.unschedulable or ""
        self.removals.append(Removal(pod, index, reason, message, node, method=RemovalMethod.REPLACE_CLAIM))
        return f"kube-scheduler cannot bind the pod to {node}: {message}"

    def _without_reservation(self, index: int, pod: Pod) -> Replica:
        node = pod.target_node
        telemetry = self.snapshot.telemetry.get(node) if node else None
        stored = self.workload.stored_placements.get(index)
        released_by_operator = stored is not None and stored.pod_uid == pod.uid and stored.node == node
        state = PlacementState.BOUND if pod.node else PlacementState.RESERVED
        if released_by_operator and stored is not None and stored.state is PlacementState.ALLOCATED:
            state = stored.state  # it stays confirmed while the sources are unavailable
        if released_by_operator and self._has_unknown_container(pod):
            message = "the reservation cannot be restored: the pod does not say which container has the devices"
            return Replica(index, state, pod=pod, message=message)
        if released_by_operator and node is not None and (telemetry is None or telemetry.deleting):
            # The Node was deleted, and its GPUTelemetry with it. When the agent creates a new one, the reservation is
            # written again. Until then nothing can be verified, and the pod is kept.
            message = f"GPUTelemetry {node} not found"
            return Replica(index, state, pod=pod, message=message)
        return self._mismatch(index, pod, None, "pod was released without a reservation")

    def _has_unknown_container(self, pod: Pod) -> bool:
        """Returns True when only an invalid template, or none, could say which container has the devices."""
        if pod.device_claim is not None and len(pod.device_claim.containers) == 1:
            return False
        if of_pod(pod, self.snapshot.limits.resources.name_for(self.spec.devices)):
            return False
        named = self.spec.devices.container is not None or self.spec.devices.containers
        return self.spec.adopts or (bool(self.template_errors) and not named)

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
        return None if self.ledger.occupancy.conflicts(reservation) else reservation


def unschedulable_grace(snapshot: Snapshot, node: str) -> timedelta:
    """Returns how long kube-scheduler must report a pod pinned to this node as unschedulable before it is replaced.

    It is longer while the node is settling: the kubelet publishes allocatable up to ten seconds after the device
    plugin reported a device, and not at all while the agent is down.
    """
    limits = snapshot.limits
    telemetry, found = snapshot.telemetry.get(node), snapshot.nodes.get(node)
    if telemetry is None or telemetry.status is None or found is None or snapshot.stale_reason(node) is not None:
        return limits.settling_grace
    settled = unsettled_reason(snapshot, node) is None
    return limits.unschedulable_grace if settled else limits.settling_grace
