"""Collects the writes to pods and reservations of a pass, without those that are backing off."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import TypeVar

from gpufleet_common import timestamps
from gpufleet_operator.decide.adoption.job_tracking import uncount
from gpufleet_operator.decide.adoption.replacement import restored_finalizers
from gpufleet_operator.decide.assessment.workload_guard import WorkloadGuard
from gpufleet_operator.decide.claims.claim_writes import ClaimWrites, Released, collect_claims
from gpufleet_operator.decide.claims.transports import transport_of_new_pod
from gpufleet_operator.decide.drain import collect_evictions
from gpufleet_operator.decide.gang_creation import Creations
from gpufleet_operator.decide.lifecycle.removals import may_evict
from gpufleet_operator.decide.plan import Plan
from gpufleet_operator.decide.pressure.evictions import collect_moves
from gpufleet_operator.decide.queue.unplaced import has_started, is_in_flight
from gpufleet_operator.ledger.ledger import Ledger
from gpufleet_operator.model.actions import CreatePod, DeletePod, EvictPod, ReleasePod, Reserve, RestoreFinalizer
from gpufleet_operator.model.claims.claim_actions import CreateClaim, DeleteClaim
from gpufleet_operator.model.objects import Reservation
from gpufleet_operator.model.replica import (
    WITHOUT_USABLE_POD,
    RemovalMethod,
    RemovalReason,
    WaitReason,
    WorkloadReplicas,
)
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import PassState
from gpufleet_operator.pods import build, release

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Writes:
    """Everything but the statuses."""

    creates: tuple[CreatePod, ...]
    deletes: tuple[DeletePod, ...]
    evictions: tuple[EvictPod, ...]
    restores: tuple[RestoreFinalizer, ...]
    reserves: tuple[Reserve, ...]
    claims: tuple[CreateClaim, ...]
    deleted_claims: tuple[DeleteClaim, ...]
    releases: tuple[ReleasePod, ...]
    evicted: Mapping[str, RemovalReason] = field(default_factory=dict)
    """Uids of the pods to evict, also of those that are not evicted yet, and why."""


def collect_writes(
    snapshot: Snapshot,
    state: PassState,
    assessed: Sequence[WorkloadReplicas],
    plan: Plan,
    creations: Creations,
    *,
    guard: WorkloadGuard,
) -> Writes:
    """Returns the writes of all workloads and nodes.

    Args:
        snapshot: The cluster.
        state: That of this pass.
        assessed: The workloads that parse.
        plan: The devices picked in this pass.
        creations: The workloads whose pods are created.
        guard: Gets the workloads on which the pass fails.
    """
    by_uid = {a.workload.uid: a for a in assessed}

    def is_due(key: str) -> bool:
        return not state.is_backing_off(key, snapshot.now)

    reserves = tuple(r for r in _reserves(snapshot, plan.ledger) if is_due(r.key))
    unwritten = _unwritten(snapshot, plan.ledger, reserves)
    ready = {
        w.workload.uid: guard.call(w.workload.uid, partial(_ready, w, plan, unwritten, state)) or () for w in assessed
    }
    claims = collect_claims(snapshot, state, assessed, plan.ledger, ready, guard=guard)
    released = (_all(guard, w.workload.uid, partial(_releases, w, ready[w.workload.uid], claims)) for w in assessed)
    releases = tuple(r for each in released for r in each if is_due(r.key))
    proofs = tuple(p for p in _proofs(snapshot, releases, reserves) if is_due(p.key))
    written = {r.node for r in (*reserves, *proofs)}
    deletes = tuple(chain.from_iterable(guard.workloads(_deletes, assessed)))
    evictions = _evictions(snapshot, plan, deletes, guard)
    due = [uid for uid in creations.due if uid in by_uid]
    created = (_all(guard, uid, partial(_creates, snapshot, state, by_uid[uid], creations)) for uid in due)
    return Writes(
        creates=tuple(chain.from_iterable(created)),
        deletes=tuple(d for d in deletes if is_due(d.key)),
        evictions=tuple(e for e in evictions if is_due(e.key) and _may_evict(by_uid, guard, e)),
        restores=tuple(r for r in restored_finalizers(assessed, guard) if is_due(r.key)),
        reserves=(*reserves, *proofs),
        claims=tuple(c for c in claims.creates if c.after <= written),
        deleted_claims=claims.deletes,
        releases=tuple(r for r in releases if r.after <= written),
        evicted={e.uid: e.reason for e in evictions},
    )


def _all(guard: WorkloadGuard, workload_uid: str, function: Callable[[], Iterable[T]]) -> Sequence[T]:
    """Returns what the function yields; nothing after an exception."""
    return guard.call(workload_uid, lambda: tuple(function())) or ()


def _creates(
    snapshot: Snapshot, state: PassState, assessed: WorkloadReplicas, creations: Creations
) -> Iterable[CreatePod]:
    workload = assessed.workload
    for replica in assessed.replicas:
        if replica.wait_reason is WaitReason.POD and not replica.retry_paused:
            name = state.pending_creates.get((workload.uid, replica.index)) or build.pod_name(
                workload.name, replica.index, f"{snapshot.name_seed}/{workload.uid}"
            )
            limits = snapshot.limits
            body = build.build(
                workload,
                assessed.spec,
                replica.index,
                name,
                limits.resources,
                attempt=replica.attempt,
                policy=limits.pod_policy,
                transport=transport_of_new_pod(snapshot, state, workload, replica.index, creations.transports),
            )
            gang = assessed.spec.placement.gang
            yield CreatePod(workload.uid, workload.namespace, name, replica.index, body, gang=gang)


def _may_evict(by_uid: Mapping[str, WorkloadReplicas], guard: WorkloadGuard, eviction: EvictPod) -> bool:
    """Returns False also if nothing is known of the workload because of an exception: it may need a record."""
    assessed = by_uid.get(eviction.workload_uid)
    if assessed is None and eviction.workload_uid in guard.errors:
        return False
    return may_evict(assessed, eviction.uid)


def _deletes(assessed: WorkloadReplicas) -> Sequence[DeletePod]:
    found: list[DeletePod] = []
    for removal in assessed.removals:
        if removal.deferred:
            continue
        pod, workload = removal.pod, assessed.workload
        if removal.method in (RemovalMethod.NONE, RemovalMethod.REPLACE_CLAIM):
            continue
        found.append(
            DeletePod(
                workload_uid=workload.uid,
                workload=workload.name,
                namespace=pod.namespace,
                name=pod.name,
                uid=pod.uid,
                resource_version=pod.resource_version,
                reason=removal.reason,
                message=removal.message,
                patch=uncount(pod, removal.reason) if removal.method is RemovalMethod.DELETE_UNCOUNTED else (),
            )
        )
    return found


def _evictions(
    snapshot: Snapshot, plan: Plan, deletes: Iterable[DeletePod], guard: WorkloadGuard
) -> Sequence[EvictPod]:
    """Returns the pods to evict, without those that are deleted; a pod with several reasons has the first one."""
    deleted = {delete.uid for delete in deletes}
    found: dict[str, EvictPod] = {}
    drained, moved = collect_evictions(snapshot, plan.ledger, guard), collect_moves(snapshot, plan.ledger, guard)
    for group in (drained, plan.preemptions, moved):
        settled = deleted | found.keys()
        found |= {eviction.uid: eviction for eviction in group if eviction.uid not in settled}
    return tuple(found.values())


def _reserves(snapshot: Snapshot, ledger: Ledger) -> Iterable[Reserve]:
    """Yields one write per node whose assignments change."""
    wanted: dict[str, dict[str, Reservation]] = {name: {} for name in snapshot.telemetry}
    for reservation in ledger.occupying:
        wanted.setdefault(reservation.node, {})[reservation.assignment.pod_uid] = reservation
    for name, telemetry in snapshot.telemetry.items():
        stored = {a.pod_uid: a for a in telemetry.assignments}
        target = {uid: r.assignment for uid, r in wanted[name].items()}
        if telemetry.deleting or target == stored:
            continue
        kept = [a for uid, a in stored.items() if target.get(uid) == a]
        added = [a for uid, a in target.items() if stored.get(uid) != a]
        yield Reserve(
            node=name,
            uid=telemetry.uid,
            generation=telemetry.generation,
            assignments=(*kept, *added),
            added=tuple(a.pod_uid for a in added),
            removed=tuple(uid for uid in stored if uid not in target),
            replaced=tuple(a.pod_uid for a in added if a.pod_uid in stored),
        )


def _unwritten(snapshot: Snapshot, ledger: Ledger, reserves: Sequence[Reserve]) -> frozenset[str]:
    """Returns the pods whose reservation is neither stored nor written by this pass: the node's write backs off."""
    added = {(r.node, uid) for r in reserves for uid in r.added}
    stored = {(name, a.pod_uid): a for name, t in snapshot.telemetry.items() for a in t.assignments}
    return frozenset(
        uid
        for uid, r in ledger.active.items()
        if (r.node, uid) not in added and stored.get((r.node, uid)) != r.assignment
    )


def _proofs(snapshot: Snapshot, releases: Sequence[ReleasePod], reserves: Sequence[Reserve]) -> Iterable[Reserve]:
    """Yields a write for each node whose reservations were stored earlier and are released now.

    The snapshot may be behind: another operator may have replaced the assignments, or the object may have been deleted
    with its Node and created again. The write compares uid and generation, so a release proves its reservation. It
    dates the reservation anew, which raises the generation: an earlier decision of another operator to withdraw the
    reservation is then rejected.
    """
    now, released = timestamps.micros(snapshot.now), {r.pod_uid for r in releases}
    for node in sorted({n for r in releases for n in r.after} - {r.node for r in reserves}):
        telemetry = snapshot.telemetry.get(node)
        if telemetry is not None and not telemetry.deleting:
            assignments = tuple(
                a.model_copy(update={"decided_at": now}) if a.pod_uid in released else a for a in telemetry.assignments
            )
            yield Reserve(node, telemetry.uid, telemetry.generation, assignments=assignments)


def _ready(assessed: WorkloadReplicas, plan: Plan, unwritten: frozenset[str], state: PassState) -> Sequence[Released]:
    """Returns the pods to release, or to reassign, that have their devices; of a gang, all pods or none."""
    ready: list[Released] = []
    for replica in assessed.replicas:
        reservation = plan.ledger.active.get(replica.pod.uid) if replica.pod else None
        waits = replica.wait_reason in WITHOUT_USABLE_POD
        if replica.pod and replica.may_be_placed and reservation and not waits:
            ready.append((replica.pod, reservation))
    gang = assessed.spec.placement.gang
    # Devices may be reserved before Kueue removes its gate from each of the pods, one after the other.
    admitted = [(pod, reservation) for pod, reservation in ready if pod.only_operator_gate or not pod.gates]
    if gang and len(admitted) < len(ready):
        return ()
    ready = admitted
    if gang and is_in_flight(assessed, state.pods_in_flight):
        return ()
    if gang and any(pod.uid in unwritten for pod, _ in ready):
        return ()
    if gang and not has_started(assessed) and any(r.wait_reason is WaitReason.PREDECESSOR for r in assessed.replicas):
        return ()
    return tuple((pod, reservation) for pod, reservation in ready if pod.uid not in unwritten)


def _releases(assessed: WorkloadReplicas, ready: Sequence[Released], claims: ClaimWrites) -> Iterable[ReleasePod]:
    """Yields the release of each of these pods whose claim exists or is created; of a gang, of all pods or none."""
    gang = assessed.spec.placement.gang
    if gang and any(pod.uid in claims.blocked for pod, _ in ready):
        return
    nodes = frozenset(r.node for _, r in ready)
    claimed = claims.created & {pod.uid for pod, _ in ready}
    for pod, reservation in ready:
        if pod.uid in claims.blocked:
            continue
        yield ReleasePod(
            workload_uid=assessed.workload.uid,
            pod_uid=pod.uid,
            namespace=pod.namespace,
            name=pod.name,
            node=reservation.node,
            patch=(release.release if pod.gates else release.reassign)(pod, reservation.node, reservation.assignment),
            after=nodes if gang else frozenset({reservation.node}),
            after_claims=claimed if gang else claimed & {pod.uid},
            together=gang and not has_started(assessed),
        )
