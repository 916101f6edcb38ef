"""Applies holds: no pod is made for a replica that was refused several times, and a gang gives its devices back.

A gang that has a member on hold can't become complete, so its other members would keep devices without a use.
"""

from dataclasses import replace

from gpufleet_common import timestamps
from gpufleet_operator.decide.life.attempts import needs_all_replicas
from gpufleet_operator.decide.retries.refusals import active_hold
from gpufleet_operator.model.replica import Removal, RemovalReason, Replica, WaitReason, WorkloadReplicas
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import Hold, PassState


def apply_holds(snapshot: Snapshot, state: PassState, assessed: WorkloadReplicas) -> WorkloadReplicas:
    """Marks the replicas that are on hold, and adds the removals of a gang with such a replica."""
    uid, gang = assessed.workload.uid, assessed.spec.placement.gang
    holds = {r.index: hold for r in assessed.replicas if (hold := active_hold(snapshot, state, uid, r.index))}
    if not holds or assessed.spec.adopts:  # the nodes are excluded, and the owner makes the pods
        return assessed
    if not gang:
        return replace(assessed, replicas=tuple(_on_hold(r, holds.get(r.index)) for r in assessed.replicas))
    hold = next(iter(holds.values()))  # one row for all replicas
    replicas = tuple(_on_hold(r, hold) for r in assessed.replicas)
    if assessed.spec.suspend or not needs_all_replicas(assessed.spec):
        return replace(assessed, replicas=replicas)
    message = f"{hold.count} pods of the gang were refused in a row: {hold.message}"
    leaving = {removal.pod.uid for removal in assessed.removals}
    given_back = tuple(
        Removal(r.pod, r.index, RemovalReason.INCOMPLETE_GANG, message)
        for r in assessed.replicas
        if r.pod is not None and not r.pod.terminal and not r.pod.deleting and r.pod.uid not in leaving
    )
    return replace(assessed, replicas=replicas, removals=(*assessed.removals, *given_back))


def _on_hold(replica: Replica, hold: Hold | None) -> Replica:
    if hold is None or replica.wait_reason is not WaitReason.POD:
        return replica
    pods = "1 pod" if hold.count == 1 else f"{hold.count} pods in a row"
    message = f"{hold.message}; {pods} refused, next attempt at {timestamps.seconds(hold.until)}"
    return replace(replica, held=True, message=message)
