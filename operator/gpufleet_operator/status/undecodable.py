"""The status of a workload that does not parse: what is known without its spec.

Such an object was stored by another version. The stored placements are kept, because the loss of a pod is recognized by
them once the object parses again. The counts are those of the pods that exist.
"""

from gpufleet_api.workload_status import PlacementState, ReplicaPlacement, WorkloadState, WorkloadStatus
from gpufleet_operator.fleet.node_health import unreachable_reason
from gpufleet_operator.model.objects import Pod, PodPhase
from gpufleet_operator.model.replica import ENDED_STATES
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.status.context import StatusContext
from gpufleet_operator.status.placements import joined


def status_without_spec(snapshot: Snapshot, context: StatusContext) -> WorkloadStatus:
    """Returns the stored status with the counts of what exists now."""
    before = context.workload.status or WorkloadStatus()
    pods = {p.replica: _pod(snapshot, p) for p in before.placements}
    placements = [_placement(snapshot, p, pods[p.replica]) for p in before.placements]
    existing = [p for p in placements if pods[p.replica] is not None]
    ready = sum(bool(p.ready) for p in existing)
    succeeded = sum(p.state is PlacementState.SUCCEEDED for p in placements)
    reserved = [r for r in context.reservations.values() if r.assignment.workload_uid == context.workload.uid]
    running = any(pod is not None and pod.phase is PodPhase.RUNNING for pod in pods.values())
    return before.model_copy(
        update={
            "observed_generation": context.workload.generation,
            "state": _state(context, running=running),
            "ready": f"{ready + succeeded}/{len(placements)}" if placements else before.ready,
            "replicas": len(existing),
            "ready_replicas": ready,
            "allocated_replicas": sum(p.state is PlacementState.ALLOCATED for p in existing),
            "updated_replicas": None,
            "gpus": sum(len(r.assignment.devices) for r in reserved),
            "nodes": joined(r.node for r in reserved),
            "placements": placements,
        }
    )


def _pod(snapshot: Snapshot, placement: ReplicaPlacement) -> Pod | None:
    """Returns the pod of a replica that has not ended."""
    pod = snapshot.pods.get(placement.pod_uid or "")
    return None if pod is None or pod.deleting or pod.terminal or placement.state in ENDED_STATES else pod


def _placement(snapshot: Snapshot, stored: ReplicaPlacement, pod: Pod | None) -> ReplicaPlacement:
    if pod is None:
        gone = stored.pod is not None and stored.state not in ENDED_STATES
        return stored.model_copy(update={"ready": None, "message": f"pod {stored.pod} is gone"}) if gone else stored
    responds = pod.node is not None and unreachable_reason(snapshot, pod.node) is None
    return stored.model_copy(update={"ready": (stored.ready and pod.ready and responds) or None})


def _state(context: StatusContext, *, running: bool) -> WorkloadState:
    if context.outcome is not None:
        return WorkloadState.COMPLETE if context.outcome.complete else WorkloadState.FAILED
    return WorkloadState.RUNNING if running else WorkloadState.PENDING
