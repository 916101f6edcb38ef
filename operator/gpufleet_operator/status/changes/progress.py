"""Selects the statuses that may be written some seconds later, or be replaced by a later one."""

from gpufleet_api.condition import ConditionStatus
from gpufleet_api.workload import WorkloadSpec
from gpufleet_api.workload_status import PlacementState, ReplicaPlacement, WorkloadStatus
from gpufleet_operator.model.pod_state.problems import NOT_READY

_STEPS = frozenset({"CreatingPods", "WaitingForDevices", "Binding", "Confirming", NOT_READY})
"""Reasons of Reconciling of a workload on its way to Ready."""
_ABNORMAL = frozenset({"Complete", "Failed", "Suspended", "Degraded", "Stalled"})
_STATES = frozenset({PlacementState.PENDING, PlacementState.RESERVED, PlacementState.BOUND, PlacementState.ALLOCATED})


def is_progress(spec: WorkloadSpec, stored: WorkloadStatus | None, status: WorkloadStatus) -> bool:
    """Returns True for a step between creation and Ready on which nothing depends after a restart.

    Statuses that count something, record why a pod is removed, or require action by a person are excluded. So is every
    status of a workload whose replicas need each other: the loss of a pod is recognized by its stored placement.

    Args:
        spec: Of the workload.
        stored: The status before.
        status: The status after.
    """
    if spec.adopts or spec.placement.gang or spec.run_policy.on_replica_failure is not None:
        return False
    true = {c.type: c.reason for c in status.conditions if c.status is ConditionStatus.TRUE}
    if true.get("Reconciling") not in _STEPS or not _ABNORMAL.isdisjoint(true) or status.explanation is not None:
        return False
    if status.failed or status.restarts or not all(map(_is_plain, status.placements)):
        return False
    return stored is None or _follows(stored, status)


def _is_plain(placement: ReplicaPlacement) -> bool:
    counted = placement.attempt or placement.failures or placement.rejections or placement.removal
    unbound = placement.state is PlacementState.RESERVED and placement.message  # by kube-scheduler, or for a volume
    return placement.state in _STATES and not counted and not unbound


def _follows(stored: WorkloadStatus, status: WorkloadStatus) -> bool:
    """Returns True if no replica, no pod and no readiness is lost by the change."""
    if stored.observed_generation not in (None, status.observed_generation):
        return False
    if any(c.type == "Ready" and c.status is ConditionStatus.TRUE for c in stored.conditions):
        return False
    pods = {placement.replica: placement.pod_uid for placement in status.placements}
    return all(_is_plain(p) and p.pod_uid in (None, pods.get(p.replica)) for p in stored.placements)
