"""Removals of pods of workloads that complete, or whose replicas need each other: recorded, then carried out.

Without a record, a pod that the operator deleted or evicted looks like a loss, which starts all replicas again or fails
the workload, or like a pod that may have succeeded. A bound pod of replicas that need each other may have run: the next
attempt of all replicas is recorded, to which the pods do not belong. Another pod is replaced alone: the reason is
recorded in its placement. The pods are deleted in a later pass that reads the record, whether the operator was
restarted in between or not.
"""

from collections.abc import Mapping
from dataclasses import replace

from gpufleet_operator.decide.lifecycle.attempts import is_service, needs_all_replicas
from gpufleet_operator.decide.lifecycle.losses import RELEASED_STATES
from gpufleet_operator.decide.lifecycle.run_policy import restart_group
from gpufleet_operator.model.objects import Workload
from gpufleet_operator.model.replica import Removal, RemovalReason, WorkloadReplicas
from gpufleet_operator.model.snapshot import Snapshot


def restart_without_removed(snapshot: Snapshot, assessed: WorkloadReplicas) -> WorkloadReplicas:
    """Starts all replicas again if the operator removes the bound pod of one of them."""
    if assessed.spec.suspend or not _reacts_to_losses(assessed):
        return assessed
    present = {r.pod.uid for r in assessed.replicas if r.pod is not None}
    bound = [r for r in assessed.removals if r.pod.uid in present and r.pod.node is not None and not r.pod.terminal]
    if not bound:
        return assessed
    restarted = restart_group(snapshot, assessed, f"replica {bound[0].replica}: {bound[0].message}")
    return replace(restarted, removals=tuple(replace(r, deferred=True) if r in bound else r for r in assessed.removals))


def record_removals(assessed: WorkloadReplicas) -> WorkloadReplicas:
    """Defers the deletion of pods that the stored status has as released, until it has the reason or not the pod."""
    if not _needs_record(assessed):
        return assessed
    # A rolled pod is recorded in its reservation: see `rolling.rollout`.
    reasons = {r.pod.uid: str(r.reason) for r in assessed.removals if r.reason is not RemovalReason.OUTDATED}
    unrecorded = {uid for uid in reasons if not is_recorded(assessed.workload, uid)}
    return replace(
        _with_reasons(assessed, reasons),
        removals=tuple(_deferred(r) if r.pod.uid in unrecorded else r for r in assessed.removals),
    )


def record_evictions(assessed: WorkloadReplicas, evicted: Mapping[str, RemovalReason]) -> WorkloadReplicas:
    """Records which pods are evicted, and why.

    Args:
        assessed: One workload.
        evicted: Uids of pods that are evicted as soon as PodDisruptionBudgets and the record allow it, and the reason.
    """
    if not _needs_record(assessed):
        return assessed
    return _with_reasons(assessed, {uid: str(reason) for uid, reason in evicted.items()})


def may_evict(assessed: WorkloadReplicas | None, pod_uid: str) -> bool:
    """Returns True when the eviction of a pod is recorded, or needs no record."""
    return assessed is None or not _needs_record(assessed) or is_recorded(assessed.workload, pod_uid)


def _needs_record(assessed: WorkloadReplicas) -> bool:
    """Returns True also for a workload that completes: a pod that is gone without a record may have succeeded."""
    if assessed.outcome is not None or assessed.spec.adopts:
        return False
    return needs_all_replicas(assessed.spec) or not is_service(assessed.spec)


def _reacts_to_losses(assessed: WorkloadReplicas) -> bool:
    """Returns False also for adopted pods: their owner decides what follows from their end."""
    return assessed.outcome is None and not assessed.spec.adopts and needs_all_replicas(assessed.spec)


def is_recorded(workload: Workload, pod_uid: str) -> bool:
    """Returns True when the end of the pod cannot be taken for a loss, by the stored status."""
    placements = workload.stored_placements.values()
    stored = next((p for p in placements if p.pod_uid == pod_uid and p.state in RELEASED_STATES), None)
    return stored is None or stored.removal is not None


def _with_reasons(assessed: WorkloadReplicas, reasons: dict[str, str]) -> WorkloadReplicas:
    if not reasons:
        return assessed
    replicas = (
        replace(r, removal=reasons[r.pod.uid]) if r.pod is not None and r.pod.uid in reasons else r
        for r in assessed.replicas
    )
    return replace(assessed, replicas=tuple(replicas))


def _deferred(removal: Removal) -> Removal:
    return replace(removal, deferred=True)
