"""Computes the length of retry pauses, and the nodes that are tried before their end.

A replica gets at most three pods in ten minutes while they are rejected, whatever changes meanwhile. A rejection that
names a property of nodes leaves the third pod for a change of it: the pause begins with the second. During a pause
nothing is tried for a minute, doubled with each further rejection. After that, nodes are tried that are new, or that
have changed in a property that the rejection named; if it named any, nodes that were not tried yet as well.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from gpufleet_operator.decide.retries.causes import node_properties
from gpufleet_operator.decide.retries.observed_node import NodeObserver, observe_again
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
    observer: NodeObserver, key: tuple[str, int], previous: RetryPause | None, removal: Removal, node: str, *, by: str
) -> RetryPause:
    """Returns the pause after another rejected pod.

    Args:
        observer: Of the cluster.
        key: That of the replica: see `pause_key`.
        previous: That of the rejections before.
        removal: Of the rejected pod.
        node: The node on which it was rejected.
        by: The component that rejected it.
    """
    snapshot = observer.snapshot
    now, limits, count = snapshot.now, snapshot.limits, 1
    if previous is not None:
        count = previous.count + (0 if _same_burst(snapshot, key, previous, removal) else 1)
    times = (*_times(key, previous, removal), now)[-limits.rejection_limit :]
    depends_on = node_properties(removal.message) if removal.reason in _DEPEND_ON_NODE else frozenset[NodeProperty]()
    first = first_paused(limits, depends_on, plugin=by_plugin(removal))
    until = max(now + timedelta(seconds=_pause_seconds(removal, count, first, limits)), _next_of_window(limits, times))
    observed = observer.observe(node, removal.pod.workload_uid, depends_on)
    return RetryPause(
        count=count,
        at=now,
        earlier=times[:-1],
        retry_from=retry_from(limits, count - first, times, until),
        until=until,
        message=rejection_message(by, node, removal.message),
        depends_on=depends_on,
        rejected_on={**(previous.rejected_on if previous else {}), node: observed},
        nodes=observer.names,
    )


def by_plugin(removal: Removal) -> bool:
    """Returns whether the kubelet rejected the pod because of its device plugin."""
    return removal.reason is RemovalReason.REJECTED and removal.pod.reason == PLUGIN_ERROR


def _times(key: tuple[str, int], previous: RetryPause | None, removal: Removal) -> tuple[datetime, ...]:
    """Returns when the earlier tries were rejected. The pods of a gang that were created together are one try."""
    if previous is None:
        return ()
    same_try = key[1] == GANG and removal.pod.created < previous.at
    return previous.earlier if same_try else (*previous.earlier, previous.at)


def _same_burst(snapshot: Snapshot, key: tuple[str, int], previous: RetryPause, removal: Removal) -> bool:
    return key[1] == GANG and by_plugin(removal) and snapshot.now - previous.at < _BURST


def rejection_message(by: str, node: str, message: str) -> str:
    """Returns the message of a rejection with its component and node; gpufleet's own have what is needed."""
    return message if by == "gpufleet" else f"{by} rejected the pod on node {node}: {message}"


def first_paused(limits: Limits, depends_on: frozenset[NodeProperty], *, plugin: bool) -> int:
    """Returns the number of consecutive rejections with which the first pause begins.

    A restarting agent is back by the third pod, and its return is not observable.
    """
    return limits.rejection_limit - 1 if depends_on and not plugin else limits.rejection_limit


def retry_from(limits: Limits, excess: int, times: Sequence[datetime], until: datetime) -> datetime:
    """Returns from when on a node may be tried during a pause.

    Args:
        limits: How many rejections there may be in the time of a pause.
        excess: Number of rejections after that with which the first pause began; negative before.
        times: Of the last rejections, in order.
        until: End of the pause.
    """
    if excess < 0:
        return until
    delay = timedelta(seconds=_RETRY_SECONDS * 2 ** min(excess, 30))
    return min(until, max(times[-1] + delay, _next_of_window(limits, times)))


def _next_of_window(limits: Limits, times: Sequence[datetime]) -> datetime:
    """Returns from when on another pod does not exceed the number of pods in the time of a pause."""
    full = len(times) >= limits.rejection_limit
    return times[-limits.rejection_limit] + limits.max_retry_pause if full else times[-1]


def active_pause(snapshot: Snapshot, state: PassState, workload_uid: str, replica: int) -> RetryPause | None:
    """Returns the pause during which no pod is created for the replica; None: some node may be tried."""
    pause = current_pause(snapshot, state, workload_uid, replica)
    if pause is None:
        return None
    backoffs = state.rejections.backoffs
    waiting = (backoffs.get((workload_uid, replica, node)) for node in _changed_nodes(snapshot, pause))
    return None if any(backoff is None or snapshot.now >= backoff.until for backoff in waiting) else pause


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
    tried: dict[tuple[str, int], frozenset[str]] = {}
    for index in wanted:
        pause, key = current_pause(snapshot, state, workload_uid, index), pause_key(snapshot, workload_uid, index)
        if pause is None:
            continue
        if key not in tried:  # the replicas of a gang have the same pause
            tried[key] = _changed_nodes(snapshot, pause)
        excluded[index] |= snapshot.nodes.keys() - tried[key]
    return {index: frozenset(nodes) for index, nodes in excluded.items()}


def _pause_seconds(removal: Removal, count: int, first: int, limits: Limits) -> float:
    """Returns for how many seconds nodes that did not change are skipped."""
    longest = limits.max_retry_pause.total_seconds()
    if removal.reason is RemovalReason.NOT_SCHEDULED:
        return float(min(longest, _UNANSWERED_PAUSE_SECONDS * 2 ** min(count - 1, 30)))
    return longest if count >= first else 0.0


def _changed_nodes(snapshot: Snapshot, pause: RetryPause) -> frozenset[str]:
    """Returns the nodes that may be tried during a pause, also those that are excluded for a replica."""
    if snapshot.now < pause.retry_from:
        return frozenset()
    changed = {
        node
        for node, before in pause.rejected_on.items()
        if node in snapshot.nodes and before.may_have_improved(observe_again(snapshot, node, before))
    }
    others = snapshot.nodes.keys() - (pause.rejected_on.keys() if pause.depends_on else pause.nodes)
    return frozenset(changed | (others & snapshot.telemetry.keys()))
