"""Rules of retry pauses: how long they are, and which nodes are tried before their end.

No more than three pods in a row are created without a pause. During a pause nothing is tried for a minute, doubled with
each further rejection. After that, nodes are tried that are new, or that have changed in a property that the rejection
named; if it named any, nodes that were not tried yet as well.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta

from gpufleet_operator.decide.retries.causes import node_properties
from gpufleet_operator.decide.retries.observed_node import observe_again, observe_node
from gpufleet_operator.model.replica import Removal, RemovalReason
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import Limits, NodeProperty, PassState, RetryPause

GANG = -1
"""Index under which the rejections of a gang are counted."""
PLUGIN_ERROR = "UnexpectedAdmissionError"
"""The kubelet's reason when the device plugin rejects the pod or does not run, as while the agent restarts."""

_BURST = timedelta(seconds=5)
"""Within it, an absent plugin rejects all pods of a gang that a node admits: one try."""
_UNANSWERED_PAUSE_SECONDS = 120.0
_RETRY_SECONDS = 60.0
_DEPEND_ON_NODE = (RemovalReason.UNSCHEDULABLE, RemovalReason.REJECTED)
"""Removals whose message may name what the rejection depends on."""


def pause_key(snapshot: Snapshot, workload_uid: str, replica: int) -> tuple[str, int]:
    """Returns the key of a replica's retry pause. Replicas of a gang are interchangeable, so they have one."""
    model = snapshot.workloads[workload_uid].model
    return workload_uid, GANG if model is not None and model.spec.placement.gang else replica


def next_pause(
    snapshot: Snapshot, key: tuple[str, int], previous: RetryPause | None, removal: Removal, node: str, *, by: str
) -> RetryPause:
    """Returns the pause after another rejected pod.

    Args:
        snapshot: The cluster.
        key: That of the replica: see `pause_key`.
        previous: That of the rejections before.
        removal: Of the rejected pod.
        node: The node on which it was rejected.
        by: The component that rejected it.
    """
    now, count = snapshot.now, 1
    if previous is not None:
        count = previous.count + (0 if _same_burst(snapshot, key, previous, removal) else 1)
    depends_on = node_properties(removal.message) if removal.reason in _DEPEND_ON_NODE else frozenset[NodeProperty]()
    until = now + timedelta(seconds=_pause_seconds(removal, count, snapshot.limits))
    observed = observe_node(snapshot, node, removal.pod.workload_uid, depends_on)
    return RetryPause(
        count=count,
        at=now,
        retry_from=retry_from(snapshot.limits, count, now, until),
        until=until,
        message=rejection_message(by, node, removal.message),
        depends_on=depends_on,
        rejected_on={**(previous.rejected_on if previous else {}), node: observed},
        nodes=frozenset(snapshot.nodes),
    )


def by_plugin(removal: Removal) -> bool:
    """Returns whether the kubelet rejected the pod because of its device plugin."""
    return removal.reason is RemovalReason.REJECTED and removal.pod.reason == PLUGIN_ERROR


def _same_burst(snapshot: Snapshot, key: tuple[str, int], previous: RetryPause, removal: Removal) -> bool:
    return key[1] == GANG and by_plugin(removal) and snapshot.now - previous.at < _BURST


def rejection_message(by: str, node: str, message: str) -> str:
    """Returns the message of a rejection with its component and node; gpufleet's own have what is needed."""
    return message if by == "gpufleet" else f"{by} rejected the pod on node {node}: {message}"


def retry_from(limits: Limits, count: int, at: datetime, until: datetime) -> datetime:
    """Returns from when on a node may be tried during a pause.

    Args:
        limits: How many rejections there are without a pause.
        count: Number of rejections.
        at: Time of the last one.
        until: End of the pause.
    """
    excess = count - limits.rejection_limit
    if excess < 0:
        return until
    return min(until, at + timedelta(seconds=_RETRY_SECONDS * 2 ** min(excess, 30)))


def active_pause(snapshot: Snapshot, state: PassState, workload_uid: str, replica: int) -> RetryPause | None:
    """Returns the pause during which no pod is created for the replica; None: some node may be tried."""
    pause = current_pause(snapshot, state, workload_uid, replica)
    return pause if pause is not None and not _retry_nodes(snapshot, state, workload_uid, replica, pause) else None


def current_pause(snapshot: Snapshot, state: PassState, workload_uid: str, replica: int) -> RetryPause | None:
    """Returns the pause that has not ended, though some nodes may be tried."""
    pause = state.rejections.pauses.get(pause_key(snapshot, workload_uid, replica))
    return pause if pause is not None and snapshot.now < pause.until else None


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
        pause = current_pause(snapshot, state, workload_uid, index)
        if pause is not None:
            excluded[index] |= snapshot.nodes.keys() - _retry_nodes(snapshot, state, workload_uid, index, pause)
    return {index: frozenset(nodes) for index, nodes in excluded.items()}


def _pause_seconds(removal: Removal, count: int, limits: Limits) -> float:
    """Returns for how many seconds nodes that did not change are skipped."""
    longest = limits.max_retry_pause.total_seconds()
    if removal.reason is RemovalReason.NOT_SCHEDULED:
        return float(min(longest, _UNANSWERED_PAUSE_SECONDS * 2 ** min(count - 1, 30)))
    return longest if count >= limits.rejection_limit else 0.0


def _retry_nodes(
    snapshot: Snapshot, state: PassState, workload_uid: str, replica: int, pause: RetryPause
) -> frozenset[str]:
    """Returns the nodes that may be tried during a pause."""
    if snapshot.now < pause.retry_from:
        return frozenset()
    backoffs = state.rejections.backoffs
    changed = {
        node
        for node, before in pause.rejected_on.items()
        if node in snapshot.nodes and before.may_have_improved(observe_again(snapshot, node, before))
    }
    others = snapshot.nodes.keys() - (pause.rejected_on.keys() if pause.depends_on else pause.nodes)
    allowed = changed | (others & snapshot.telemetry.keys())
    waiting = {n for n in allowed if (b := backoffs.get((workload_uid, replica, n))) and snapshot.now < b.until}
    return frozenset(allowed - waiting)
