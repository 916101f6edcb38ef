"""Chooses how to remove a pod of another owner so that the owner creates another one.

A Deployment or StatefulSet replaces a deleted pod within 0.1 s, without a limit. A Job counts each pod that ends
without success, also one that never ran. It does not count a pod that lost its tracking finalizer before it was
deleted. This is done for pods that are not bound to a node, and for no others: a pod that has run must be counted. A
pod without an owner is left alone: nothing would make another one.
"""

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from functools import partial

from gpufleet_operator.decide.adoption.job_tracking import count_again
from gpufleet_operator.decide.assessment.workload_guard import WorkloadGuard
from gpufleet_operator.model.actions import RestoreFinalizer
from gpufleet_operator.model.objects import Pod
from gpufleet_operator.model.pod_state.owner import JOB_TRACKING_FINALIZER
from gpufleet_operator.model.replica import RemovalMethod, RemovalReason, WorkloadReplicas


def with_methods(assessed: WorkloadReplicas) -> WorkloadReplicas:
    """Returns the workload with the method of each removal; unchanged if the operator creates its pods."""
    if not assessed.spec.adopts:
        return assessed
    removals = (
        r if r.method is RemovalMethod.REPLACE_CLAIM else replace(r, method=method_for(r.pod, r.reason))
        for r in assessed.removals
    )
    return replace(assessed, removals=tuple(removals))


def method_for(pod: Pod, reason: RemovalReason) -> RemovalMethod:
    """Returns how a pod with another owner is removed."""
    if pod.owner is None:
        return RemovalMethod.NONE
    if not pod.owner.is_job:
        return RemovalMethod.DELETE
    if pod.terminal:
        return RemovalMethod.NONE  # counted already; it is kept for people, as the Job keeps it
    if pod.node and reason is RemovalReason.NODE_NOT_READY:
        return RemovalMethod.NONE  # it may run; Kubernetes evicts it in a way that a podFailurePolicy can ignore
    return RemovalMethod.DELETE if pod.node else RemovalMethod.DELETE_UNCOUNTED


def restored_finalizers(assessed: Sequence[WorkloadReplicas], guard: WorkloadGuard) -> Iterator[RestoreFinalizer]:
    """Yields the pods of Jobs that lost their finalizer and were not deleted: they may run now, and must be counted.

    Args:
        assessed: With the removals of this pass.
        guard: Gets the workloads on which this fails.
    """
    leaving = {
        removal.pod.uid
        for one in assessed
        for removal in one.removals
        if removal.method is RemovalMethod.DELETE_UNCOUNTED
    }
    for found in guard.workloads(partial(_restored, leaving), assessed):
        yield from found


def _restored(leaving: AbstractSet[str], assessed: WorkloadReplicas) -> Sequence[RestoreFinalizer]:
    found: list[RestoreFinalizer] = []
    for pod in (r.pod for r in assessed.replicas if r.pod is not None):
        ours = pod.replaced and pod.owner is not None and pod.owner.is_job
        if ours and not pod.deleting and pod.uid not in leaving and JOB_TRACKING_FINALIZER not in pod.finalizers:
            found.append(RestoreFinalizer(pod.uid, pod.namespace, pod.name, count_again(pod)))
    return found
