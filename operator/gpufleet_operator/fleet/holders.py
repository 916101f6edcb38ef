"""The pods with reservations, as the engine sees them when a workload waits: what their end frees, and when."""

from gpufleet_api.telemetry.spec import Assignment
from gpufleet_api.workload import WorkloadSpec
from gpufleet_api.workload_policies import OnReplicaFailure
from gpufleet_common import timestamps
from gpufleet_operator.ledger.ledger import Ledger
from gpufleet_operator.model.demands.promise import placed_mib
from gpufleet_operator.model.objects import Pod, Workload
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.placement.model import HolderPod, PodNeeds, Share


def holders_by_node(snapshot: Snapshot, ledger: Ledger) -> dict[str, list[HolderPod]]:
    """Returns the pods that hold devices, by node."""
    found: dict[str, list[HolderPod]] = {}
    for reservation in ledger.active.values():
        pod = snapshot.pods[reservation.assignment.pod_uid]
        found.setdefault(reservation.node, []).append(_active(snapshot, reservation.assignment, pod))
    for reservation in ledger.terminating:
        assignment = reservation.assignment
        leaving = _holder(assignment, snapshot.pods.get(assignment.pod_uid), leaving=True)
        found.setdefault(reservation.node, []).append(leaving)
    return found


def _active(snapshot: Snapshot, assignment: Assignment, pod: Pod) -> HolderPod:
    workload = snapshot.workloads.get(assignment.workload_uid)
    spec = workload.model.spec if workload is not None and workload.model is not None else None
    # A gated pod is not running yet. A pod that nothing would create again is for its owner to delete.
    evictable = spec is not None and not pod.gates and bool(pod.workload_uid or pod.owner)
    return _holder(
        assignment,
        pod,
        leaving=pod.deleting,
        evictable=evictable,
        group=assignment.workload_uid if spec is not None and _is_group(spec) else "",
        protected_until=_started_at(assignment, pod) + spec.placement.min_runtime_seconds if spec is not None else 0.0,
        ends_at=_ends_at(assignment, workload, spec) if workload is not None and spec is not None else None,
    )


def _holder(
    assignment: Assignment,
    pod: Pod | None,
    *,
    leaving: bool,
    evictable: bool = False,
    group: str = "",
    protected_until: float = 0.0,
    ends_at: float | None = None,
) -> HolderPod:
    shared = assignment.memory_mib is not None or assignment.compute_percent is not None
    return HolderPod(
        name=f"{assignment.namespace}/{assignment.pod}",
        priority=pod.priority if pod is not None else 0,
        devices=tuple(assignment.devices),
        share=Share(placed_mib(assignment), assignment.compute_percent or 0) if shared else None,
        pod=pod.needs if pod is not None and not pod.terminal else PodNeeds(),
        uid=assignment.pod_uid,
        group=group,
        evictable=evictable,
        protected_until=protected_until,
        ends_at=ends_at,
        leaving=leaving,
    )


def _is_group(spec: WorkloadSpec) -> bool:
    """Returns True when the loss of one replica ends the run of all."""
    return spec.placement.gang or spec.run_policy.on_replica_failure is OnReplicaFailure.RESTART_ALL


def _started_at(assignment: Assignment, pod: Pod) -> float:
    starts = [c.started_at for c in pod.containers if c.started_at is not None]
    return (min(starts) if starts else timestamps.parse(assignment.decided_at)).timestamp()


def _ends_at(assignment: Assignment, workload: Workload, spec: WorkloadSpec) -> float | None:
    seconds = spec.run_policy.active_deadline_seconds
    if seconds is None:
        return None
    started = workload.status.start_time if workload.status is not None else None
    return timestamps.parse(started or assignment.decided_at).timestamp() + seconds
