"""Refused pods: which nodes are excluded for a replica, and when it is tried again.

A node that refused a replica's pod is excluded for it, for longer with each pod. Several refusals in a row, on whatever
nodes, put the replica on hold: no pod is made for it until a node may be tried again. That is a node that is new or has
changed since its refusal, one that was not tried yet after a shorter time, and every node when the hold or the spec
ends. Refusals are forgotten when a pod has held its devices for a minute: an allocation that is taken back sooner
proves nothing.
"""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta

from gpufleet_api.workload_status import PlacementState
from gpufleet_common import timestamps
from gpufleet_operator.decide.retries.node_evidence import evidence_again, node_evidence
from gpufleet_operator.model.replica import Removal, RemovalReason, Replica, WorkloadReplicas
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import BACKOFF_RESET, Backoff, Hold, Limits, PassState, RefusalKey, Refusals

REFUSAL_BASE_SECONDS = 2.0
REFUSAL_CAP_SECONDS = 120.0

_GANG = -1
"""Index of the row of a gang."""
_PLUGIN_ERROR = "UnexpectedAdmissionError"
"""The kubelet's reason when the device plugin is away or refuses: it passes when the agent is back."""
_PLUGIN_REFUSALS = 6
_PLUGIN_HOLD_SECONDS = 60.0
_SILENCE_HOLD_SECONDS = 120.0
_UNTRIED_HOLD_SECONDS = 30.0

REFUSED_BY = {
    RemovalReason.UNSCHEDULABLE: "kube-scheduler",
    RemovalReason.NOT_SCHEDULED: "gpufleet",
    RemovalReason.REJECTED: "kubelet",
    RemovalReason.MISMATCH: "gpufleet",
}
"""Removals that exclude the node for the replica, and the component that refused it."""

_CURED_BY_A_CHANGE = (RemovalReason.UNSCHEDULABLE, RemovalReason.REJECTED)
"""A change of the node, such as the end of a pod, may cure these refusals; of no other is that known."""


def kept_refusals(snapshot: Snapshot) -> Refusals:
    """Returns the refusals of the previous pass that still count."""
    previous, now = snapshot.previous_state.refusals, snapshot.now
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
    return Refusals(
        backoffs=backoffs,
        counted_pods=previous.counted_pods & snapshot.pods.keys(),
        holds={
            key: hold
            for key, hold in previous.holds.items()
            if key[0] in current and key[0] not in changed and now < hold.until + BACKOFF_RESET
        },
        allocated_since={uid: at for uid, at in previous.allocated_since.items() if uid in snapshot.pods},
        generations=current,
    )


def _restored(snapshot: Snapshot) -> dict[RefusalKey, Backoff]:
    """Reads refusals back from status after a restart, so that the same nodes are not tried again immediately."""
    found: dict[RefusalKey, Backoff] = {}
    for uid, workload in snapshot.workloads.items():
        status = workload.status
        if uid in snapshot.previous_state.restored or status is None or status.explanation is None:
            continue
        for refusal in status.explanation.refusals:
            at = min(timestamps.parse(refusal.time), snapshot.now)
            until = at + timedelta(seconds=REFUSAL_BASE_SECONDS)
            found[uid, refusal.replica, refusal.node] = Backoff(1, at, until, refusal.message, refusal.by)
    return found


def count_refusals(snapshot: Snapshot, refusals: Refusals, assessed: Iterable[WorkloadReplicas]) -> Refusals:
    """Excludes nodes for the replicas that they refused, and drops the refusals of replicas that hold their devices."""
    now, since = snapshot.now, dict(refusals.allocated_since)
    refused = {key[0] for key in (*refusals.holds, *refusals.backoffs)}
    for workload in assessed:
        uid = workload.workload.uid
        for removal in workload.removals:
            if removal.reason in REFUSED_BY and removal.node is not None:
                refusals = _count(snapshot, refusals, uid, removal, removal.node)
        if uid not in refused:
            continue
        settled = {r.index for r in workload.replicas if _holds_since(r, since, now, snapshot.limits)}
        if workload.spec.placement.gang and len(settled) < len(workload.replicas):
            continue
        for index in {_GANG, *settled}:
            refusals = drop_refusals(refusals, uid, index)
    return replace(refusals, allocated_since=since)


def _holds_since(replica: Replica, since: dict[str, datetime], now: datetime, limits: Limits) -> bool:
    """Returns True when the replica has ended well, or has held its devices for long enough; updates `since`."""
    if replica.pod is not None and replica.state is not PlacementState.ALLOCATED:
        since.pop(replica.pod.uid, None)
    elif replica.pod is not None:
        return now - since.setdefault(replica.pod.uid, now) >= limits.allocation_settled
    return replica.state is PlacementState.SUCCEEDED


def _row_key(snapshot: Snapshot, workload_uid: str, replica: int) -> tuple[str, int]:
    """Returns the key of a replica's row of refusals. Replicas of a gang are interchangeable, so they have one row."""
    model = snapshot.workloads[workload_uid].model
    return workload_uid, _GANG if model is not None and model.spec.placement.gang else replica


def _count(snapshot: Snapshot, refusals: Refusals, uid: str, removal: Removal, node: str) -> Refusals:
    pod = removal.pod
    if pod.uid in refusals.counted_pods:
        return refusals  # counted in an earlier pass; the pod is not deleted yet
    by = REFUSED_BY[removal.reason]
    refusals = add_refusal(
        refusals, (uid, removal.replica, node), pod.uid, snapshot.now, message=removal.message, by=by
    )
    key = _row_key(snapshot, uid, removal.replica)
    previous = refusals.holds.get(key)
    count = previous.count + 1 if previous else 1
    seconds, untried_seconds = _hold_seconds(removal, count, snapshot.limits)
    evidence = node_evidence(snapshot, node, uid) if removal.reason in _CURED_BY_A_CHANGE else None
    hold = Hold(
        count=count,
        until=snapshot.now + timedelta(seconds=seconds),
        untried_until=snapshot.now + timedelta(seconds=untried_seconds),
        message=removal.message if by == "gpufleet" else f"{by} refused {node}: {removal.message}",
        evidence={**(previous.evidence if previous else {}), node: evidence},
        nodes=frozenset(snapshot.nodes),
    )
    return replace(refusals, holds={**refusals.holds, key: hold})


def _hold_seconds(removal: Removal, count: int, limits: Limits) -> tuple[float, float]:
    """Returns how long the nodes that refused, and those that were not tried, are not tried after `count` refusals."""
    longest = limits.refusal_hold.total_seconds()

    def doubled(base: float, row: int) -> float:
        return 0.0 if row < 0 else min(longest, base * 2 ** min(row, 30))

    if removal.reason is RemovalReason.NOT_SCHEDULED:
        seconds = doubled(_SILENCE_HOLD_SECONDS, count - 1)
        return seconds, seconds
    if removal.reason is RemovalReason.REJECTED and removal.pod.reason == _PLUGIN_ERROR:
        seconds = doubled(_PLUGIN_HOLD_SECONDS, count - _PLUGIN_REFUSALS)
        return seconds, seconds
    row = count - limits.refusal_limit
    return (longest if row >= 0 else 0.0), doubled(_UNTRIED_HOLD_SECONDS, row)


def add_refusal(refusals: Refusals, key: RefusalKey, pod_uid: str, now: datetime, *, message: str, by: str) -> Refusals:
    """Excludes a node for one replica, for longer with each pod of it that the node refuses."""
    backoff = Backoff.following(
        refusals.backoffs.get(key), now, base=REFUSAL_BASE_SECONDS, cap=REFUSAL_CAP_SECONDS, message=message, by=by
    )
    return replace(
        refusals, backoffs={**refusals.backoffs, key: backoff}, counted_pods=refusals.counted_pods | {pod_uid}
    )


def drop_refusals(refusals: Refusals, workload_uid: str, replica: int) -> Refusals:
    key = (workload_uid, replica)
    if key not in refusals.holds and not any(k[:2] == key for k in refusals.backoffs):
        return refusals
    kept = {k: b for k, b in refusals.backoffs.items() if k[:2] != key}
    return replace(refusals, backoffs=kept, holds={k: h for k, h in refusals.holds.items() if k != key})


def active_hold(snapshot: Snapshot, state: PassState, workload_uid: str, replica: int) -> Hold | None:
    """Returns the hold during which no pod is made for the replica; None: it may be tried, on some node."""
    hold = state.refusals.holds.get(_row_key(snapshot, workload_uid, replica))
    if hold is None or snapshot.now >= hold.until or _retry_nodes(snapshot, state, workload_uid, replica, hold):
        return None
    return hold


def excluded_nodes(
    snapshot: Snapshot, state: PassState, workload_uid: str, replicas: Iterable[int]
) -> dict[int, frozenset[str]]:
    """Returns per replica the nodes that are not tried now."""
    wanted = set(replicas)
    excluded: dict[int, set[str]] = {index: set() for index in wanted}
    for (uid, index, node), backoff in state.refusals.backoffs.items():
        if uid == workload_uid and index in wanted and snapshot.now < backoff.until:
            excluded[index].add(node)
    for index in wanted:
        hold = state.refusals.holds.get(_row_key(snapshot, workload_uid, index))
        if hold is not None and snapshot.now < hold.until:
            excluded[index] |= snapshot.nodes.keys() - _retry_nodes(snapshot, state, workload_uid, index, hold)
    return {index: frozenset(nodes) for index, nodes in excluded.items()}


def _retry_nodes(snapshot: Snapshot, state: PassState, workload_uid: str, replica: int, hold: Hold) -> frozenset[str]:
    """Returns the nodes that may be tried during a hold."""
    backoffs = state.refusals.backoffs
    changed = {
        node
        for node, before in hold.evidence.items()
        if before and node in snapshot.nodes and before.may_have_improved(evidence_again(snapshot, node, before))
    }
    late = snapshot.now >= hold.untried_until
    others = snapshot.nodes.keys() - (hold.evidence.keys() if late else hold.nodes)
    allowed = changed | (others & snapshot.telemetry.keys())
    waiting = {n for n in allowed if (b := backoffs.get((workload_uid, replica, n))) and snapshot.now < b.until}
    return frozenset(allowed - waiting)
