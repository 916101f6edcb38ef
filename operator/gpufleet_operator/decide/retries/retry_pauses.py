"""Applies retry pauses: no pod is created for a replica that was rejected several times.

A gang that has such a member cannot become complete and its other members would keep devices without a use, so all of
its pods are deleted.
"""

from dataclasses import replace

from gpufleet_common import timestamps
from gpufleet_operator.decide.lifecycle.attempts import needs_all_replicas
from gpufleet_operator.decide.retries.rejections import active_pause
from gpufleet_operator.model.replica import Removal, RemovalReason, Replica, WaitReason, WorkloadReplicas
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import PassState, RetryPause


def apply_retry_pauses(snapshot: Snapshot, state: PassState, assessed: WorkloadReplicas) -> WorkloadReplicas:
    """Marks the replicas whose retries are paused, and adds the removals of a gang with such a replica."""
    uid, gang = assessed.workload.uid, assessed.spec.placement.gang
    pauses = {r.index: pause for r in assessed.replicas if (pause := active_pause(snapshot, state, uid, r.index))}
    if not pauses or assessed.spec.adopts:  # the nodes are excluded, and the owner creates the pods
        return assessed
    if not gang:
        return replace(assessed, replicas=tuple(_paused(r, pauses.get(r.index)) for r in assessed.replicas))
    pause = next(iter(pauses.values()))  # one count for all replicas
    replicas = tuple(_paused(r, pause) for r in assessed.replicas)
    if assessed.spec.suspend or not needs_all_replicas(assessed.spec):
        return replace(assessed, replicas=replicas)
    message = f"{pause.count} consecutive pods of the gang were rejected: {pause.message}"
    leaving = {removal.pod.uid for removal in assessed.removals}
    removals = tuple(
        Removal(r.pod, r.index, RemovalReason.INCOMPLETE_GANG, message)
        for r in assessed.replicas
        if r.pod is not None and not r.pod.terminal and not r.pod.deleting and r.pod.uid not in leaving
    )
    return replace(assessed, replicas=replicas, removals=(*assessed.removals, *removals))


def _paused(replica: Replica, pause: RetryPause | None) -> Replica:
    if pause is None or replica.wait_reason is not WaitReason.POD:
        return replica
    pods = "1 pod" if pause.count == 1 else f"{pause.count} consecutive pods"
    message = f"{pause.message}; {pods} rejected, retrying after {timestamps.seconds(pause.until)}"
    return replace(replica, retry_paused=True, message=message)
