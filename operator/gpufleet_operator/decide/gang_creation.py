"""Creates the pods of a gang together or not at all, oldest gang first.

A gated pod counts against the quota of its namespace. If the apiserver rejects one pod of a gang, the others are
deleted, so that they use no quota while the gang waits.
"""

import heapq
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from types import MappingProxyType
from typing import NamedTuple

from gpufleet_api.names import Transport
from gpufleet_operator.decide.assessment.workload_guard import WorkloadGuard
from gpufleet_operator.decide.queue.order import precedence
from gpufleet_operator.decide.queue.unplaced import has_started
from gpufleet_operator.ledger.kept import ReplicaKey
from gpufleet_operator.model.actions import create_key, subject_of
from gpufleet_operator.model.create_errors import CreateError, classify
from gpufleet_operator.model.objects import ResourceQuota, Workload
from gpufleet_operator.model.replica import Removal, RemovalReason, Replica, WaitReason, WorkloadReplicas
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import Backoff, PassState, QueuedCreation
from gpufleet_operator.pods.quota import has_more_room, room

_OWN_PODS_COUNT = timedelta(seconds=10)
"""How long deleted pods of a gang may still count against a quota: kube-controller-manager recalculates it later."""


def retry_when_freed(snapshot: Snapshot, state: PassState) -> PassState:
    """Ends the backoff of workloads that wait for quota, as soon as a quota of their namespace has more room.

    The end of a pod does not mean more room: the quota is recalculated later. Room from its own pods does not count.
    """
    workloads = snapshot.workloads.items()
    waiting = {uid: workload for uid, workload in workloads if _quota_backoff(state, uid) is not None}
    if not waiting:
        kept = state.quota_room or state.quota_tried
        return replace(state, quota_room={}, quota_tried={}) if kept else state
    quotas: dict[str, list[ResourceQuota]] = {workload.namespace: [] for workload in waiting.values()}
    for quota in snapshot.quotas.values():
        if quota.namespace in quotas:
            quotas[quota.namespace].append(quota)
    now_left = {name: room(found) for name, found in quotas.items()}
    freed = {name for name, left in now_left.items() if has_more_room(state.quota_room.get(name, {}), left)}
    gated = {pod.workload_uid for pod in snapshot.pods.values() if pod.gates and pod.workload_uid in waiting}
    tried = {uid: at for uid, at in state.quota_tried.items() if uid in waiting}
    tried |= {uid: snapshot.now for uid in gated if _is_gang(waiting[uid])}
    backoffs = dict(state.write_backoffs)
    for uid, workload in waiting.items():
        gave_back = uid in tried and snapshot.now - tried[uid] < _OWN_PODS_COUNT
        if workload.namespace in freed and not gave_back:
            key = create_key(uid)
            backoffs[key] = replace(backoffs[key], count=0, until=snapshot.now)
    return replace(state, write_backoffs=backoffs, quota_room=now_left, quota_tried=tried)


@dataclass(frozen=True, slots=True)
class Creations:
    """UIDs of the workloads whose missing pods are created now, in order, and of those that wait for another gang."""

    due: tuple[str, ...]
    held: frozenset[str]
    queued: Mapping[str, QueuedCreation] = field(default_factory=dict)
    """Creations that are left to a later pass, because of the limit."""
    elsewhere: frozenset[str] = frozenset()
    """UIDs of workloads outside of the region whose pods must be created now."""
    transports: Mapping[ReplicaKey, Transport] = field(default_factory=dict)
    """Transports of the nodes that the pods would be placed on, as far as known."""


def due_creations(
    snapshot: Snapshot,
    state: PassState,
    assessed: Sequence[WorkloadReplicas],
    elsewhere: Mapping[str, QueuedCreation] = MappingProxyType({}),
    *,
    guard: WorkloadGuard,
) -> Creations:
    """Returns the workloads whose missing pods are created now.

    Apart from gangs, a pass takes the first workloads of each namespace, by priority and age: others would only be
    decided on again. It takes fewer while pods of the namespace have devices and wait for their release.

    A gang that waits for quota is tried before each younger one of its namespace, even if its own backoff is not over.
    While the creation of one gang has no response, no other gang of its namespace is tried: it would take the quota of
    the first one.

    Args:
        snapshot: The cluster.
        state: That of this pass.
        assessed: The workloads that parse.
        elsewhere: Those of earlier passes that this one does not look at.
        guard: Gets the workloads on which this fails.
    """
    in_flight = _gangs_in_flight(snapshot, state)
    found = guard.workloads(partial(_incomplete, snapshot, state), assessed)
    missing = sorted((one for one in found if one is not None), key=lambda one: one.creation.order)
    due: list[str] = []
    held: set[str] = set()
    later_gangs: set[str] = set()
    for each in reversed(missing):
        uid, namespace = each.uid, each.creation.namespace
        forced = each.gang and namespace in later_gangs and each.waits_for_quota
        if each.gang and (each.due or forced) and in_flight.get(namespace, set()) - {uid}:
            held.add(uid)
        elif each.due or forced:
            due.append(uid)
        if each.due and each.gang:
            later_gangs.add(namespace)
    due.reverse()
    by_uid = {each.uid: each for each in missing}
    ready = {uid: by_uid[uid].creation for uid in due if not by_uid[uid].gang}
    first = first_creations({**elsewhere, **ready}, snapshot.limits.max_creates, state)
    queued = {uid: one for uid, one in ready.items() if uid not in first}
    now = tuple(uid for uid in due if uid not in queued)
    return Creations(now, frozenset(held), queued, elsewhere=frozenset(first - ready.keys()))


def first_creations(queued: Mapping[str, QueuedCreation], limit: int, state: PassState) -> set[str]:
    """Returns the uids of the workloads whose pods are created first.

    A namespace in which creations are slow or rejected does not hold up the others.

    Args:
        queued: By workload uid.
        limit: Pods to create in one namespace.
        state: Its unsent releases are so many fewer pods to create, but an eighth of the limit in any case. None are
            created in its namespaces with full creations: they would not be sent.
    """
    by_namespace: dict[str, list[str]] = {}
    for uid, one in queued.items():
        if one.namespace not in state.full_creations:
            by_namespace.setdefault(one.namespace, []).append(uid)
    found: set[str] = set()
    for namespace, uids in by_namespace.items():
        pods, most = 0, max(1, limit // 8, limit - state.unsent_releases.get(namespace, 0))
        for uid in heapq.nsmallest(most, uids, key=lambda uid: queued[uid].order):
            if pods >= most:
                break
            found.add(uid)
            pods += queued[uid].pods
    return found


class _Incomplete(NamedTuple):
    """A workload whose missing pods may be created."""

    uid: str
    creation: QueuedCreation
    gang: bool
    due: bool
    """It is not backing off."""
    waits_for_quota: bool


def _incomplete(snapshot: Snapshot, state: PassState, assessed: WorkloadReplicas) -> _Incomplete | None:
    """Returns what decides when the missing pods of a workload are created; None: none is missing."""
    pods = sum(_is_missing(replica) and not replica.retry_paused for replica in assessed.replicas)
    if not pods:
        return None
    workload = assessed.workload
    key = create_key(workload.uid)
    return _Incomplete(
        workload.uid,
        QueuedCreation(workload.namespace, precedence(assessed), pods),
        gang=assessed.spec.placement.gang,
        due=not state.is_backing_off(key, snapshot.now),
        waits_for_quota=key not in state.in_flight and _quota_backoff(state, workload.uid) is not None,
    )


def _gangs_in_flight(snapshot: Snapshot, state: PassState) -> dict[str, set[str]]:
    """Returns the uids of gangs of which a creation has no response, by namespace."""
    found: dict[str, set[str]] = {}
    for key in state.in_flight:
        workload = snapshot.workloads.get(subject_of(key))
        if workload is not None and key == create_key(workload.uid) and _is_gang(workload):
            found.setdefault(workload.namespace, set()).add(workload.uid)
    return found


def remove_incomplete_gangs(
    state: PassState, assessed: Sequence[WorkloadReplicas], due: Collection[str], *, guard: WorkloadGuard
) -> tuple[WorkloadReplicas, ...]:
    """Adds the removal of the pods of gangs whose other pods were rejected and are not about to be created."""
    return guard.workloads(partial(_without_pods, state, due), assessed)


def _without_pods(state: PassState, due: Collection[str], assessed: WorkloadReplicas) -> WorkloadReplicas:
    if assessed.workload.uid in due:
        return assessed
    backoff = state.rejection(create_key(assessed.workload.uid))
    if backoff is None or not assessed.spec.placement.gang or has_started(assessed):
        return assessed
    if not any(_is_missing(replica) for replica in assessed.replicas):
        return assessed
    message = f"the apiserver rejected another pod of the gang: {backoff.message}"
    listed = {removal.pod.uid for removal in assessed.removals}
    added = tuple(
        Removal(replica.pod, replica.index, RemovalReason.INCOMPLETE_GANG, message)
        for replica in assessed.replicas
        if replica.pod is not None and replica.gated and replica.pod.uid not in listed
    )
    return replace(assessed, removals=(*assessed.removals, *added))


def _is_gang(workload: Workload) -> bool:
    return workload.model is not None and workload.model.spec.placement.gang


def _is_missing(replica: Replica) -> bool:
    return replica.wait_reason is WaitReason.POD


def _quota_backoff(state: PassState, workload_uid: str) -> Backoff | None:
    backoff = state.rejection(create_key(workload_uid))
    return backoff if backoff is not None and classify(backoff.message) is CreateError.QUOTA else None
