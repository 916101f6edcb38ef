"""Collects the statuses that differ from the stored ones."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import TypeVar

from gpufleet_api.workload_status import MAX_EARMARK_NODES, EarmarkStatus, PlacementState
from gpufleet_common import timestamps
from gpufleet_operator.decide.assessment.workload_guard import WorkloadGuard
from gpufleet_operator.decide.plan import Plan
from gpufleet_operator.decide.retries.pause_rules import pause_key
from gpufleet_operator.ledger.kept import key_of
from gpufleet_operator.ledger.ledger import Ledger
from gpufleet_operator.model.actions import WriteStatus, create_key, service_key, status_key
from gpufleet_operator.model.objects import Reservation
from gpufleet_operator.model.replica import WorkloadReplicas
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import Backoff, Limits, PassState, Rejections
from gpufleet_operator.placement.model import Terms
from gpufleet_operator.status import build
from gpufleet_operator.status.context import StatusContext

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class CollectedStatuses:
    """The statuses to write, and the queue of later ones: see `PassState.status_queue`."""

    to_write: tuple[WriteStatus, ...]
    queue: Mapping[str, datetime]


def collect_statuses(
    snapshot: Snapshot,
    state: PassState,
    rejections: Rejections,
    assessed: Sequence[WorkloadReplicas],
    plan: Plan,
    *,
    guard: WorkloadGuard,
) -> CollectedStatuses:
    """Returns the statuses to write, without those that are backing off.

    Args:
        snapshot: The cluster.
        state: That of this pass.
        rejections: Including those of this pass.
        assessed: The workloads that parse.
        plan: The devices picked in this pass.
        guard: Has the workloads on which the pass failed.
    """
    assessed_by_uid = {a.workload.uid: a for a in assessed}
    scores = _scores(state, plan.ledger)
    rejected: dict[str, dict[tuple[int, str], Backoff]] = {}
    holding = {(a.workload.uid, r.index) for a in assessed for r in a.replicas if r.state is PlacementState.ALLOCATED}
    for (uid, index, node), backoff in rejections.backoffs.items():
        if (uid, index) in holding:
            continue  # kept in case that the allocation is taken back, but there is nothing to explain
        rejected.setdefault(uid, {})[index, node] = backoff
    kept = _kept(plan.ledger)
    writes: list[WriteStatus] = []
    for uid, workload in snapshot.workloads.items():
        if workload.deleting or state.is_backing_off(status_key(uid), snapshot.now):
            continue
        check, assessed_one = snapshot.templates.get(uid), assessed_by_uid.get(uid)
        replicas = assessed_one.replicas if assessed_one is not None else ()
        context = StatusContext(
            workload=workload,
            assessed=assessed_one,
            template_errors=check.errors if check else (),
            create_error=_rejection(state, create_key(uid)),
            service_error=_rejection(state, service_key(uid)),
            reservations=plan.ledger.active,
            kept=kept.get(uid, {}),
            picked=scores.get(uid, {}),
            diagnosis=plan.unplaced.get(uid),
            earmark=_earmark(plan, uid),
            rejections=rejected.get(uid, {}),
            pauses={r.index: p for r in replicas if (p := rejections.pauses.get(pause_key(snapshot, uid, r.index)))},
            last_written=state.status_written.get(uid),
            internal_error=guard.errors.get(uid, ""),
        )
        write = guard.call(uid, partial(build.write, snapshot, context))
        if write is None and uid in guard.errors and not context.internal_error:
            known = replace(context, assessed=None, internal_error=guard.errors[uid])
            write = guard.call(uid, partial(build.write, snapshot, known))
        if write is not None:
            writes.append(write)
    return _within_budget(snapshot, state, writes)


def _scores(state: PassState, ledger: Ledger) -> dict[str, dict[int, Terms]]:
    """Returns the scores that no stored status shows yet, by workload uid and replica."""
    found: dict[str, dict[int, Terms]] = {}
    for pod_uid, picked in state.picked.items():
        reservation, assignment = ledger.active.get(pod_uid), picked.reservation.assignment
        if reservation is not None and reservation.assignment.devices == assignment.devices:
            found.setdefault(assignment.workload_uid, {})[assignment.replica] = picked.terms
    return found


def sent_now(writes: Iterable[WriteStatus], limits: Limits) -> Sequence[WriteStatus]:
    """Returns the statuses that count in the budget of a pass: those that are not held back."""
    return [write for write in writes if not (write.progress and limits.holds_statuses)]


def first_sendable(snapshot: Snapshot, statuses: Iterable[T], namespace_of: Callable[[T], str]) -> Iterator[T]:
    """Yields the first statuses that a pass can send: within its budget, and the room of each namespace."""
    left, room = snapshot.status_budget, dict(snapshot.status_room)
    for status in statuses:
        if left <= 0:
            return
        namespace = namespace_of(status)
        if room.get(namespace, 1) <= 0:
            continue
        if namespace in room:
            room[namespace] -= 1
        left -= 1
        yield status


def _within_budget(snapshot: Snapshot, state: PassState, writes: Sequence[WriteStatus]) -> CollectedStatuses:
    """Returns the statuses that the pass may write, the longest waiting first, and those that are held back anyway."""
    waits = {write.workload_uid: state.status_queue.get(write.workload_uid, snapshot.now) for write in writes}
    in_order = sorted(writes, key=lambda write: waits[write.workload_uid])
    counted = sent_now(in_order, snapshot.limits)
    sent = {write.workload_uid for write in first_sendable(snapshot, counted, lambda write: write.namespace)}
    later = [write for write in counted if write.workload_uid not in sent]
    waiting = {write.workload_uid for write in later}
    now = tuple(write for write in in_order if write.workload_uid not in waiting)
    return CollectedStatuses(now, {write.workload_uid: waits[write.workload_uid] for write in later})


def _kept(ledger: Ledger) -> dict[str, dict[int, Reservation]]:
    """Returns the reservations that are kept for the next pod of a replica, by workload uid and replica."""
    found: dict[str, dict[int, Reservation]] = {}
    for reservation in ledger.occupying:
        if reservation.assignment.keep_for_successor:
            uid, index = key_of(reservation)
            found.setdefault(uid, {})[index] = reservation
    return found


def _rejection(state: PassState, key: str) -> str:
    """Returns the apiserver's error for the writes of a key; empty: it has not rejected the last one."""
    backoff = state.rejection(key)
    return backoff.message if backoff is not None else ""


def _earmark(plan: Plan, uid: str) -> EarmarkStatus | None:
    earmark = plan.earmarks.get(uid)
    if earmark is None:
        return None
    return EarmarkStatus(
        since=timestamps.seconds(earmark.since),
        devices=earmark.number,
        devices_in_use=earmark.in_use,
        nodes=sorted(earmark.devices)[:MAX_EARMARK_NODES],
    )
