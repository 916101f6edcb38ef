"""Creates the pods of a gang together or not at all, oldest gang first.

A gated pod counts against the quota of its namespace. If the apiserver rejects one pod of a gang, the others are
deleted, so that they use no quota while the gang waits.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from gpufleet_operator.decide.plan import has_started, precedence
from gpufleet_operator.model.actions import create_key
from gpufleet_operator.model.create_errors import CreateError, classify
from gpufleet_operator.model.replica import Removal, RemovalReason, Replica, WaitReason, WorkloadReplicas
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import Backoff, PassState


def retry_when_freed(snapshot: Snapshot, state: PassState) -> PassState:
    """Ends the backoff of workloads that wait for quota, as soon as a pod in their namespace has ended.

    Their own gated pods do not count: those of a gang are deleted because it waits.
    """
    workloads = snapshot.workloads.items()
    waiting = {uid: workload.namespace for uid, workload in workloads if _quota_backoff(state, uid) is not None}
    namespaces = set(waiting.values())
    counts = Counter(
        pod.namespace
        for pod in snapshot.pods.values()
        if pod.namespace in namespaces and not (pod.gates and pod.workload_uid in waiting) and not pod.terminal
    )
    freed = {name for name in namespaces if counts[name] < state.pods_in_quota.get(name, 0)}
    backoffs = dict(state.write_backoffs)
    for uid, namespace in waiting.items():
        if namespace in freed:
            key = create_key(uid)
            backoffs[key] = replace(backoffs[key], count=0, until=snapshot.now)
    return replace(state, write_backoffs=backoffs, pods_in_quota={name: counts[name] for name in namespaces})


def due_creations(snapshot: Snapshot, state: PassState, assessed: Sequence[WorkloadReplicas]) -> tuple[str, ...]:
    """Returns the uids of the workloads whose missing pods are created now, in order.

    A gang that waits for quota is tried before each younger one of its namespace, even if its own backoff is not over.
    """
    missing = [
        a for a in sorted(assessed, key=precedence) if any(_is_missing(r) and not r.retry_paused for r in a.replicas)
    ]
    due: list[str] = []
    later_gangs: set[str] = set()
    for each in reversed(missing):
        workload, gang = each.workload, each.spec.placement.gang
        own = not state.is_backing_off(create_key(workload.uid), snapshot.now)
        forced = gang and workload.namespace in later_gangs and _quota_backoff(state, workload.uid) is not None
        if own or forced:
            due.append(workload.uid)
        if own and gang:
            later_gangs.add(workload.namespace)
    return tuple(reversed(due))


def remove_incomplete_gangs(
    state: PassState, assessed: Sequence[WorkloadReplicas], due: Sequence[str]
) -> tuple[WorkloadReplicas, ...]:
    """Adds the removal of the pods of gangs whose other pods were rejected and are not created in this pass."""
    return tuple(each if each.workload.uid in due else _without_pods(state, each) for each in assessed)


def _without_pods(state: PassState, assessed: WorkloadReplicas) -> WorkloadReplicas:
    backoff = state.write_backoffs.get(create_key(assessed.workload.uid))
    rejected = backoff is not None and backoff.by == "apiserver"
    if backoff is None or not rejected or not assessed.spec.placement.gang or has_started(assessed):
        return assessed
    if not any(_is_missing(replica) for replica in assessed.replicas):
        return assessed
    message = f"the apiserver rejected another pod of the gang: {backoff.message}"
    listed = {removal.pod.uid for removal in assessed.removals}
    added = tuple(
        Removal(replica.pod, replica.index, RemovalReason.INCOMPLETE_GANG, message)
        for replica in assessed.replicas
        if replica.pod is not None and replica.gated and replica.pod.uid not in listed
    )
    return replace(assessed, removals=(*assessed.removals, *added))


def _is_missing(replica: Replica) -> bool:
    return replica.wait_reason is WaitReason.POD


def _quota_backoff(state: PassState, workload_uid: str) -> Backoff | None:
    backoff = state.write_backoffs.get(create_key(workload_uid))
    if backoff is None or backoff.by != "apiserver":
        return None
    return backoff if classify(backoff.message) is CreateError.QUOTA else None
