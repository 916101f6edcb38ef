"""Rejected pods: which nodes are excluded for a replica, and when it is retried.

A node that rejected a replica's pod is excluded for it, for longer with each pod. After several consecutive rejections,
on any nodes, retries are paused: no pod is created for the replica until a node may be tried again. That is a node that
is new or has changed since its rejection, one that was not tried yet after a shorter time, and every node when the
pause ends or the spec changes. Rejections are dropped when a pod has held its devices for a minute: an allocation that
is taken back sooner does not reset the count.
"""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta

from gpufleet_api.workload_status import PlacementState
from gpufleet_common import timestamps
from gpufleet_operator.decide.retries.observed_node import observe_again, observe_node
from gpufleet_operator.model.replica import Removal, RemovalReason, Replica, WorkloadReplicas
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import (
    BACKOFF_RESET,
    Backoff,
    Limits,
    PassState,
    RejectionKey,
    Rejections,
    RetryPause,
)

REJECTION_BASE_SECONDS = 2.0
REJECTION_CAP_SECONDS = 120.0

_GANG = -1
"""Index under which the rejections of a gang are counted."""
_PLUGIN_ERROR = "UnexpectedAdmissionError"
"""The kubelet's reason when the device plugin rejects the pod or does not run, as while the agent restarts."""
_PLUGIN_REJECTIONS = 6
_PLUGIN_PAUSE_SECONDS = 60.0
_UNANSWERED_PAUSE_SECONDS = 120.0
_UNTRIED_PAUSE_SECONDS = 30.0

REJECTED_BY = {
    RemovalReason.UNSCHEDULABLE: "kube-scheduler",
    RemovalReason.NOT_SCHEDULED: "gpufleet",
    RemovalReason.REJECTED: "kubelet",
    RemovalReason.MISMATCH: "gpufleet",
}
"""Removals that exclude the node for the replica, and the component that rejected it."""

_DEPENDS_ON_NODE = (RemovalReason.UNSCHEDULABLE, RemovalReason.REJECTED)
"""Rejections that may not occur again after a change of the node, such as the end of a pod."""


def kept_rejections(snapshot: Snapshot) -> Rejections:
    """Returns the rejections of the previous pass that still count."""
    previous, now = snapshot.previous_state.rejections, snapshot.now
    current = {uid: w.generation for uid, w in snapshot.workloads.items()}
    changed = {
        uid for uid, generation in previous.generations.items() if current.get(uid, generation) != generation
    } | (previous.generations.keys() - current.keys())
    backoffs = {
        key: backoff
        for key, backoff in previous.backoffs.items()
        if key[0] in current and key[0] not in changed and now < backoff.until + BACKOFF_RESET
    }
    for key, backoff in _restored(snapshot).items():
        backoffs.setdefault(key, backoff)
    return Rejections(
        backoffs=backoffs,
        counted_pods=previous.counted_pods & snapshot.pods.keys(),
        pauses={
            key: pause
            for key, pause in previous.pauses.items()
            if key[0] in current and key[0] not in changed and now < pause.until + BACKOFF_RESET
        },
        allocated_since={uid: at for uid, at in previous.allocated_since.items() if uid in snapshot.pods},
        generations=current,
    )


def _restored(snapshot: Snapshot) -> dict[RejectionKey, Backoff]:
    """Reads rejections back from status after a restart, so that the same nodes are not tried again immediately."""
    found: dict[RejectionKey, Backoff] = {}
    for uid, workload in snapshot.workloads.items():
        status = workload.status
        if uid in snapshot.previous_state.restored or status is None or status.explanation is None:
            continue
        for rejection in status.explanation.node_rejections:
            at = min(timestamps.parse(rejection.time), snapshot.now)
            until = at + timedelta(seconds=REJECTION_BASE_SECONDS)
            found[uid, rejection.replica, rejection.node] = Backoff(1, at, until, rejection.message, rejection.by)
    return found


def count_rejections(snapshot: Snapshot, rejections: Rejections, assessed: Iterable[WorkloadReplicas]) -> Rejections:
    """Excludes nodes for the replicas that they rejected, and drops rejections of replicas that hold their devices."""
    now, since = snapshot.now, dict(rejections.allocated_since)
    rejected = {key[0] for key in (*rejections.pauses, *rejections.backoffs)}
    for workload in assessed:
        uid = workload.workload.uid
        for removal in workload.removals:
            if removal.reason in REJECTED_BY and removal.node is not None:
                rejections = _count(snapshot, rejections, uid, removal, removal.node)
        if uid not in rejected:
            continue
        lasting = {r.index for r in workload.replicas if _holds_since(r, since, now, snapshot.limits)}
        if workload.spec.placement.gang and len(lasting) < len(workload.replicas):
            continue
        for index in {_GANG, *lasting}:
            rejections = drop_rejections(rejections, uid, index)
    return replace(rejections, allocated_since=since)


def _holds_since(replica: Replica, since: dict[str, datetime], now: datetime, limits: Limits) -> bool:
    """Returns True when the replica has ended well, or has held its devices for long enough; updates `since`."""
    if replica.pod is not None and replica.state is not PlacementState.ALLOCATED:
        since.pop(replica.pod.uid, None)
    elif replica.pod is not None:
        return now - since.setdefault(replica.pod.uid, now) >= limits.rejections_reset_after
    return replica.state is PlacementState.SUCCEEDED


def _pause_key(snapshot: Snapshot, workload_uid: str, replica: int) -> tuple[str, int]:
    """Returns the key of a replica's retry pause. Replicas of a gang are interchangeable, so they have one."""
    model = snapshot.workloads[workload_uid].model
    return workload_uid, _GANG if model is not None and model.spec.placement.gang else replica


def _count(snapshot: Snapshot, rejections: Rejections, uid: str, removal: Removal, node: str) -> Rejections:
    pod = removal.pod
    if pod.uid in rejections.counted_pods:
        return rejections  # counted in an earlier pass; the pod is not deleted yet
    by = REJECTED_BY[removal.reason]
    rejections = add_rejection(
        rejections, (uid, removal.replica, node), pod.uid, snapshot.now, message=removal.message, by=by
    )
    key = _pause_key(snapshot, uid, removal.replica)
    previous = rejections.pauses.get(key)
    count = previous.count + 1 if previous else 1
    seconds, untried_seconds = _pause_seconds(removal, count, snapshot.limits)
    observed = observe_node(snapshot, node, uid) if removal.reason in _DEPENDS_ON_NODE else None
    pause = RetryPause(
        count=count,
        until=snapshot.now + timedelta(seconds=seconds),
        untried_until=snapshot.now + timedelta(seconds=untried_seconds),
        message=removal.message if by == "gpufleet" else f"{by} rejected the pod on node {node}: {removal.message}",
        rejected_on={**(previous.rejected_on if previous else {}), node: observed},
        nodes=frozenset(snapshot.nodes),
    )
    return replace(rejections, pauses={**rejections.pauses, key: pause})


def _pause_seconds(removal: Removal, count: int, limits: Limits) -> tuple[float, float]:
    """Returns for how many seconds nodes that rejected a pod, and nodes that were not tried, are skipped."""
    longest = limits.max_retry_pause.total_seconds()

    def doubled(base: float, times: int) -> float:
        return 0.0 if times < 0 else min(longest, base * 2 ** min(times, 30))

    if removal.reason is RemovalReason.NOT_SCHEDULED:
        seconds = doubled(_UNANSWERED_PAUSE_SECONDS, count - 1)
        return seconds, seconds
    if removal.reason is RemovalReason.REJECTED and removal.pod.reason == _PLUGIN_ERROR:
        seconds = doubled(_PLUGIN_PAUSE_SECONDS, count - _PLUGIN_REJECTIONS)
        return seconds, seconds
    excess = count - limits.rejection_limit
    return (longest if excess >= 0 else 0.0), doubled(_UNTRIED_PAUSE_SECONDS, excess)


def add_rejection(
    rejections: Rejections, key: RejectionKey, pod_uid: str, now: datetime, *, message: str, by: str
) -> Rejections:
    """Excludes a node for one replica, for longer with each pod of it that the node rejects."""
    backoff = Backoff.following(
        rejections.backoffs.get(key),
        now,
        base=REJECTION_BASE_SECONDS,
        cap=REJECTION_CAP_SECONDS,
        message=message,
        by=by,
    )
    return replace(
        rejections, backoffs={**rejections.backoffs, key: backoff}, counted_pods=rejections.counted_pods | {pod_uid}
    )


def drop_rejections(rejections: Rejections, workload_uid: str, replica: int) -> Rejections:
    key = (workload_uid, replica)
    if key not in rejections.pauses and not any(k[:2] == key for k in rejections.backoffs):
        return rejections
    kept = {k: b for k, b in rejections.backoffs.items() if k[:2] != key}
    return replace(rejections, backoffs=kept, pauses={k: p for k, p in rejections.pauses.items() if k != key})


def active_pause(snapshot: Snapshot, state: PassState, workload_uid: str, replica: int) -> RetryPause | None:
    """Returns the pause during which no pod is created for the replica; None: some node may be tried."""
    pause = state.rejections.pauses.get(_pause_key(snapshot, workload_uid, replica))
    if pause is None or snapshot.now >= pause.until or _retry_nodes(snapshot, state, workload_uid, replica, pause):
        return None
    return pause


def excluded_nodes(
    snapshot: Snapshot, state: PassState, workload_uid: str, replicas: Iterable[int]
) -> dict[int, frozenset[str]]:
    """Returns per replica the nodes that are not tried now."""
    wanted = set(replicas)
    excluded: dict[int, set[str]] = {index: set() for index in wanted}
    for (uid, index, node), backoff in state.rejections.backoffs.items():
        if uid == workload_uid and index in wanted and snapshot.now < backoff.until:
            excluded[index].add(node)
    for index in wanted:
        pause = state.rejections.pauses.get(_pause_key(snapshot, workload_uid, index))
        if pause is not None and snapshot.now < pause.until:
            excluded[index] |= snapshot.nodes.keys() - _retry_nodes(snapshot, state, workload_uid, index, pause)
    return {index: frozenset(nodes) for index, nodes in excluded.items()}


def _retry_nodes(
    snapshot: Snapshot, state: PassState, workload_uid: str, replica: int, pause: RetryPause
) -> frozenset[str]:
    """Returns the nodes that may be tried during a pause."""
    backoffs = state.rejections.backoffs
    changed = {
        node
        for node, before in pause.rejected_on.items()
        if before and node in snapshot.nodes and before.may_have_improved(observe_again(snapshot, node, before))
    }
    late = snapshot.now >= pause.untried_until
    others = snapshot.nodes.keys() - (pause.rejected_on.keys() if late else pause.nodes)
    allowed = changed | (others & snapshot.telemetry.keys())
    waiting = {n for n in allowed if (b := backoffs.get((workload_uid, replica, n))) and snapshot.now < b.until}
    return frozenset(allowed - waiting)
