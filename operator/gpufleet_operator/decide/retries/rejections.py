"""Rejected pods: which nodes are excluded for a replica, and when it is retried.

A node that rejected a replica's pod is excluded for it, for longer with each pod. After several consecutive rejections,
on any nodes, retries are paused, as `pause_rules` has it. Rejections are dropped when the spec changes, and when a pod
has held its devices for a minute: an allocation that is taken back sooner does not reset the count. The counts are in
the status, from where `restored` reads them after a restart.
"""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from gpufleet_api.workload_status import PlacementState
from gpufleet_operator.decide.assessment.workload_guard import WorkloadGuard
from gpufleet_operator.decide.retries.observed_node import NodeObserver
from gpufleet_operator.decide.retries.pause_rules import GANG, by_plugin, next_pause, pause_key
from gpufleet_operator.decide.retries.restored import REJECTION_BASE_SECONDS, restored
from gpufleet_operator.fleet import rejecting_nodes
from gpufleet_operator.model.replica import Removal, RemovalReason, Replica, WorkloadReplicas
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import (
    BACKOFF_RESET,
    Backoff,
    Limits,
    RejectionKey,
    RejectionOnNode,
    Rejections,
)

REJECTION_CAP_SECONDS = 120.0
PLUGIN_BASE_SECONDS = 15.0
"""After an error of the device plugin: an agent that restarts is back by the second or third pod."""

REJECTED_BY = {
    RemovalReason.UNSCHEDULABLE: "kube-scheduler",
    RemovalReason.NOT_SCHEDULED: "gpufleet",
    RemovalReason.REJECTED: "kubelet",
    RemovalReason.MISMATCH: "gpufleet",
}
"""Removals that exclude the node for the replica, and the component that rejected it."""


def _is_of_the_node(removal: Removal) -> bool:
    """Returns True for a removal that counts against the node: others are caused by the requests of the pod."""
    return removal.reason is RemovalReason.MISMATCH or by_plugin(removal)


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
    pauses = {
        key: pause
        for key, pause in previous.pauses.items()
        if key[0] in current and key[0] not in changed and now < pause.until + BACKOFF_RESET
    }
    stored = restored(snapshot)
    return Rejections(
        backoffs={**stored.backoffs, **backoffs},
        counted_pods=(previous.counted_pods | stored.counted_pods) & snapshot.pods.keys(),
        pauses={**stored.pauses, **pauses},
        allocated_since={uid: at for uid, at in previous.allocated_since.items() if uid in snapshot.pods},
        generations=current,
        by_node={n: found for n, found in rejecting_nodes.kept(previous.by_node, now).items() if n in snapshot.nodes},
    )


def count_rejections(
    snapshot: Snapshot, rejections: Rejections, assessed: Iterable[WorkloadReplicas], *, guard: WorkloadGuard
) -> Rejections:
    """Excludes nodes for the replicas that they rejected, and drops rejections of replicas that hold their devices."""
    now, since, observer = snapshot.now, dict(rejections.allocated_since), NodeObserver(snapshot)
    rejected = {key[0] for key in (*rejections.pauses, *rejections.backoffs)}
    counted = rejections

    def add(workload: WorkloadReplicas) -> None:
        """After an exception, the rejections of a workload are as before."""
        nonlocal counted
        uid, after = workload.workload.uid, counted
        if again := _countable_again(workload) & after.counted_pods:
            after = replace(after, counted_pods=after.counted_pods - again)
        for removal in workload.removals:
            if removal.reason in REJECTED_BY and removal.node is not None:
                after = _count(observer, after, uid, removal, removal.node)
        after = _without_accepting_nodes(after, workload.replicas)
        if uid in rejected:
            lasting = {r.index for r in workload.replicas if _holds_since(r, since, now, snapshot.limits)}
            if not workload.spec.placement.gang or len(lasting) == len(workload.replicas):
                for index in {GANG, *lasting}:
                    after = drop_rejections(after, uid, index)
        counted = after

    guard.workloads(add, assessed)
    return replace(counted, allocated_since=since)


def _countable_again(workload: WorkloadReplicas) -> frozenset[str]:
    """Returns the uids of the pods that got other devices after a rejection, and can be rejected with these."""
    rejected = {removal.pod.uid for removal in workload.removals}
    pods = (r.pod for r in workload.replicas if r.pod is not None and not r.reassigned)
    return frozenset(p.uid for p in pods if p.follows_claim and p.uid not in rejected and not p.deleting)


def _without_accepting_nodes(rejections: Rejections, replicas: Iterable[Replica]) -> Rejections:
    """Drops the rejections of nodes that gave a later pod its devices."""
    if not rejections.by_node:
        return rejections
    held = (r.pod for r in replicas if r.pod is not None and r.state is PlacementState.ALLOCATED)
    accepting = {p.node for p in held if (mine := rejections.by_node.get(p.node or "")) and p.created > mine[-1].at}
    if not accepting:
        return rejections
    return replace(rejections, by_node={n: found for n, found in rejections.by_node.items() if n not in accepting})


def _holds_since(replica: Replica, since: dict[str, datetime], now: datetime, limits: Limits) -> bool:
    """Returns True when the replica has ended well, or has held its devices for long enough; updates `since`."""
    if replica.pod is not None and replica.state is not PlacementState.ALLOCATED:
        since.pop(replica.pod.uid, None)
    elif replica.pod is not None:
        return now - since.setdefault(replica.pod.uid, now) >= limits.rejections_reset_after
    return replica.state is PlacementState.SUCCEEDED


def _count(observer: NodeObserver, rejections: Rejections, uid: str, removal: Removal, node: str) -> Rejections:
    snapshot, pod = observer.snapshot, removal.pod
    if pod.uid in rejections.counted_pods:
        return rejections  # counted in an earlier pass; the pod is not deleted yet
    by = REJECTED_BY[removal.reason]
    base = PLUGIN_BASE_SECONDS if by_plugin(removal) else REJECTION_BASE_SECONDS
    rejections = add_rejection(
        rejections, (uid, removal.replica, node), pod.uid, snapshot.now, message=removal.message, by=by, base=base
    )
    if _is_of_the_node(removal):
        added = RejectionOnNode(uid, snapshot.now, removal.message)
        rejections = replace(rejections, by_node=rejecting_nodes.with_rejection(rejections.by_node, node, added))
    key = pause_key(snapshot, uid, removal.replica)
    pause = next_pause(observer, key, rejections.pauses.get(key), removal, node, by=by)
    return replace(rejections, pauses={**rejections.pauses, key: pause})


def add_rejection(
    rejections: Rejections,
    key: RejectionKey,
    pod_uid: str,
    now: datetime,
    *,
    message: str,
    by: str,
    base: float = REJECTION_BASE_SECONDS,
) -> Rejections:
    """Excludes a node for one replica for `base` seconds, doubled with each further pod of it that the node rejects."""
    backoff = Backoff.following(
        rejections.backoffs.get(key),
        now,
        base=base,
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
