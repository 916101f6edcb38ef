"""Reads rejections back from status after a restart of the operator, so that it does not begin to count again."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from gpufleet_api.workload_status import NodeRejection, ReplicaPlacement
from gpufleet_common import timestamps
from gpufleet_operator.decide.retries.causes import node_properties
from gpufleet_operator.decide.retries.observed_node import observe_node
from gpufleet_operator.decide.retries.pause_rules import pause_key, rejection_message, retry_from
from gpufleet_operator.model.objects import Workload
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import BACKOFF_RESET, Backoff, NodeProperty, RejectionKey, RetryPause

REJECTION_BASE_SECONDS = 2.0
_NAMING = ("kube-scheduler", "kubelet")
"""Components whose messages name what the rejection depends on."""


@dataclass(frozen=True, slots=True)
class RestoredRejections:
    """What status has about the rejections of workloads that this process has not seen before."""

    backoffs: Mapping[RejectionKey, Backoff] = field(default_factory=dict)
    pauses: Mapping[tuple[str, int], RetryPause] = field(default_factory=dict)
    counted_pods: frozenset[str] = frozenset()


def restored(snapshot: Snapshot) -> RestoredRejections:
    """Returns the rejections in the status of workloads that are new to this process.

    The nodes that rejected are observed now: a change while no operator ran is not noticed before the pause ends.
    """
    backoffs: dict[RejectionKey, Backoff] = {}
    pauses: dict[tuple[str, int], RetryPause] = {}
    counted: set[str] = set()
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
            pause = _pause(snapshot, workload, placement, rejections)
            if pause is not None:
                pauses[pause_key(snapshot, uid, placement.replica)] = pause
    return RestoredRejections(backoffs, pauses, frozenset(counted))


def _backoff(rejection: NodeRejection, now: datetime) -> Backoff:
    at = min(timestamps.parse(rejection.time), now)
    return Backoff(1, at, at + timedelta(seconds=REJECTION_BASE_SECONDS), rejection.message, rejection.by)


def _pause(
    snapshot: Snapshot, workload: Workload, placement: ReplicaPlacement, rejections: list[NodeRejection]
) -> RetryPause | None:
    if not placement.rejections or placement.last_rejection_time is None or placement.retry_time is None:
        return None
    at, until = timestamps.parse(placement.last_rejection_time), timestamps.parse(placement.retry_time)
    at, count = min(at, snapshot.now), placement.rejections
    if snapshot.now >= until + BACKOFF_RESET:
        return None
    key = pause_key(snapshot, workload.uid, placement.replica)
    mine = [r for r in rejections if pause_key(snapshot, workload.uid, r.replica) == key]
    properties = {r.node: node_properties(r.message) if r.by in _NAMING else frozenset[NodeProperty]() for r in mine}
    last = max(mine, key=lambda r: r.time, default=None)
    message = _message(last)
    return RetryPause(
        count=count,
        at=at,
        retry_from=retry_from(snapshot.limits, count, at, until),
        until=until,
        message=message,
        depends_on=properties[last.node] if last is not None else frozenset(),
        rejected_on={node: observe_node(snapshot, node, workload.uid, found) for node, found in properties.items()},
        nodes=frozenset(snapshot.nodes),
    )


def _message(last: NodeRejection | None) -> str:
    if last is None:
        return "pods were rejected"
    return rejection_message(last.by, last.node, last.message)
