"""Reads rejections back from status after a restart of the operator, so that it does not begin to count again."""

from datetime import datetime, timedelta

from gpufleet_api.workload_status import NodeRejection, ReplicaPlacement
from gpufleet_common import timestamps
from gpufleet_operator.decide.retries.causes import node_properties
from gpufleet_operator.decide.retries.observed_node import NodeObserver
from gpufleet_operator.decide.retries.pause_rules import first_paused, pause_key, rejection_message, retry_from
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import (
    BACKOFF_RESET,
    Backoff,
    NodeProperty,
    RejectionKey,
    Rejections,
    RetryPause,
)

REJECTION_BASE_SECONDS = 2.0
_NAMING = ("kube-scheduler", "kubelet")
"""Components whose messages name what the rejection depends on."""


def restored(snapshot: Snapshot) -> Rejections:
    """Returns the rejections in the status of workloads that are new to this process.

    The nodes that rejected are observed now: a change while no operator ran is not noticed before the pause ends.
    """
    backoffs: dict[RejectionKey, Backoff] = {}
    pauses: dict[tuple[str, int], RetryPause] = {}
    counted: set[str] = set()
    observer = NodeObserver(snapshot)
    for uid, workload in snapshot.workloads.items():
        status = workload.status
        if uid in snapshot.previous_state.restored or status is None:
            continue
        counted |= {p.pod_uid for p in status.placements if p.removal and p.pod_uid}
        if status.observed_generation != workload.generation:
            continue  # a changed spec ends the pause
        rejections = status.explanation.node_rejections if status.explanation else []
        for rejection in rejections:
            backoffs[uid, rejection.replica, rejection.node] = _backoff(rejection, snapshot.now)
        for placement in status.placements:
            key = pause_key(snapshot, uid, placement.replica)
            # All replicas of a gang have the same pause: restoring it reads the pods of each node.
            if key not in pauses and (pause := _pause(observer, key, placement, rejections)) is not None:
                pauses[key] = pause
    return Rejections(backoffs, frozenset(counted), pauses)


def _backoff(rejection: NodeRejection, now: datetime) -> Backoff:
    at = min(timestamps.parse(rejection.time), now)
    return Backoff(1, at, at + timedelta(seconds=REJECTION_BASE_SECONDS), rejection.message, rejection.by)


def _pause(
    observer: NodeObserver, key: tuple[str, int], placement: ReplicaPlacement, rejections: list[NodeRejection]
) -> RetryPause | None:
    snapshot = observer.snapshot
    if not placement.rejections or placement.last_rejection_time is None or placement.retry_time is None:
        return None
    at, until = timestamps.parse(placement.last_rejection_time), timestamps.parse(placement.retry_time)
    at, count = min(at, snapshot.now), placement.rejections
    if snapshot.now >= until + BACKOFF_RESET:
        return None
    uid = key[0]
    mine = [r for r in rejections if pause_key(snapshot, uid, r.replica) == key]
    properties = {r.node: node_properties(r.message) if r.by in _NAMING else frozenset[NodeProperty]() for r in mine}
    last = max(mine, key=lambda r: r.time, default=None)
    depends_on = properties[last.node] if last is not None else frozenset[NodeProperty]()
    # The status does not have the times of the rejections before the last one: they count as late as they may be.
    earlier = (at,) * min(count - 1, snapshot.limits.rejection_limit - 1)
    excess = count - first_paused(snapshot.limits, depends_on, plugin=False)
    return RetryPause(
        count=count,
        at=at,
        earlier=earlier,
        retry_from=retry_from(snapshot.limits, excess, (*earlier, at), until),
        until=until,
        message=_message(last),
        depends_on=depends_on,
        rejected_on={node: observer.observe(node, uid, found) for node, found in properties.items()},
        nodes=observer.names,
    )


def _message(last: NodeRejection | None) -> str:
    if last is None:
        return "pods were rejected"
    return rejection_message(last.by, last.node, last.message)
