"""Applies retry pauses: no pod is created for a replica that was rejected several times.

A gang that has such a member cannot become complete and its other members would keep devices and quota without a use,
so all of its pods are deleted.
"""

from dataclasses import replace

from gpufleet_api.workload_status import PlacementState
from gpufleet_common import timestamps
from gpufleet_operator.decide.lifecycle.attempts import needs_all_replicas
from gpufleet_operator.decide.lifecycle.run_policy import next_attempts
from gpufleet_operator.decide.retries.pause_rules import active_pause, current_pause
from gpufleet_operator.decide.retries.retry_fit import RetryFit
from gpufleet_operator.model.replica import Removal, RemovalReason, Replica, WaitReason, WorkloadReplicas
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import PassState, RetryPause

_UNPLACED = (WaitReason.POD, WaitReason.DEVICES)


def apply_retry_pauses(
    snapshot: Snapshot, state: PassState, fit: RetryFit, assessed: WorkloadReplicas
) -> WorkloadReplicas:
    """Marks the replicas whose retries are paused, and adds the removals of a gang with such a replica."""
    uid = assessed.workload.uid
    if assessed.outcome is not None or assessed.spec.suspend or assessed.template_errors:
        return assessed
    pauses = {r.index: pause for r in assessed.replicas if (pause := current_pause(snapshot, state, uid, r.index))}
    if not pauses or assessed.spec.adopts:  # the nodes are excluded, and the owner creates the pods
        return assessed
    blocked = {index for index in pauses if active_pause(snapshot, state, uid, index)}
    if assessed.spec.placement.gang:
        pause = next(iter(pauses.values()))  # one count for all replicas
        return _paused_gang(assessed, pause) if blocked or not _fits(fit, assessed) else assessed
    tried = [r for r in assessed.replicas if r.index in pauses.keys() - blocked and r.wait_reason is WaitReason.POD]
    blocked |= {r.index for r in tried} - fit.placeable(assessed, tried)
    replicas = (_paused(r, pauses[r.index]) if r.index in blocked else r for r in assessed.replicas)
    return replace(assessed, replicas=tuple(replicas))


def _fits(fit: RetryFit, assessed: WorkloadReplicas) -> bool:
    """Returns False when a gang that has no devices yet cannot be placed on the nodes that may be tried."""
    waiting = [r for r in assessed.replicas if r.state is not PlacementState.SUCCEEDED]
    if any(r.wait_reason not in _UNPLACED or r.reservation is not None for r in waiting):
        return True
    return len(fit.placeable(assessed, waiting)) == len(waiting)


def _paused_gang(assessed: WorkloadReplicas, pause: RetryPause) -> WorkloadReplicas:
    released = [r.pod for r in assessed.replicas if r.pod is not None and not r.gated and not r.pod.terminal]
    if not needs_all_replicas(assessed.spec):
        return replace(assessed, replicas=tuple(_paused(r, pause) for r in assessed.replicas))
    if any(pod.created > pause.at for pod in released):
        return assessed  # a retry that was started since
    message = f"{pause.count} consecutive pods of the gang were rejected: {pause.message}"
    if any(pod.node is not None for pod in released):
        # As in `lifecycle.removals`: the pods may have run, and do not belong to the attempt that waits.
        waiting = (replace(r, wait_reason=WaitReason.POD) for r in next_attempts(assessed, message))
        removals = (_deferred(removal) for removal in assessed.removals)
        return replace(assessed, replicas=tuple(_paused(r, pause) for r in waiting), removals=tuple(removals))
    leaving = {removal.pod.uid for removal in assessed.removals}
    given_back = [
        Removal(r.pod, r.index, RemovalReason.INCOMPLETE_GANG, message)
        for r in assessed.replicas
        if r.pod is not None and not r.pod.terminal and not r.pod.deleting and r.pod.uid not in leaving
    ]
    earlier = (
        replace(r, reason=RemovalReason.INCOMPLETE_GANG, message=message) if r.reason is RemovalReason.RESTARTED else r
        for r in assessed.removals
    )
    replicas = tuple(_paused(_without_gated_pod(r), pause) for r in assessed.replicas)
    return replace(assessed, replicas=replicas, removals=(*earlier, *given_back))


def _without_gated_pod(replica: Replica) -> Replica:
    if not replica.gated:
        return replica
    return Replica(
        replica.index,
        PlacementState.PENDING,
        WaitReason.POD,
        attempt=replica.attempt,
        failures=replica.failures,
    )


def _deferred(removal: Removal) -> Removal:
    """Defers the removal of a pod of the current attempt; those of earlier ones are recorded."""
    return removal if removal.reason is RemovalReason.RESTARTED else replace(removal, deferred=True)


def _paused(replica: Replica, pause: RetryPause) -> Replica:
    if replica.wait_reason is not WaitReason.POD:
        return replica
    pods = "1 pod" if pause.count == 1 else f"{pause.count} consecutive pods"
    message = f"{pause.message}; {pods} rejected, retrying after {timestamps.seconds(pause.until)}"
    return replace(replica, retry_paused=True, message=message)
