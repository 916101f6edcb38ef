"""Finds the times at which a decision changes without a change of the cluster. No watch event reports these times."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import chain
from operator import attrgetter
from types import MappingProxyType

from gpufleet_operator.decide.assessment.pod_assessor import unschedulable_grace
from gpufleet_operator.decide.assessment.workload_guard import WorkloadGuard
from gpufleet_operator.decide.lifecycle.run_policy import expiry, next_moments
from gpufleet_operator.decide.queue.namespace_use import WINDOW
from gpufleet_operator.decide.retries.stuck_pods import scheduling_timeout
from gpufleet_operator.decide.services import RESTORE_INTERVAL
from gpufleet_operator.fleet import cordons, rejecting_nodes
from gpufleet_operator.ledger.ledger import exit_delay, reservations
from gpufleet_operator.ledger.move_target import deadline, origin_of
from gpufleet_operator.model.cluster.changes import Subject, SubjectKind
from gpufleet_operator.model.objects import Workload
from gpufleet_operator.model.replica import WorkloadReplicas
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import BACKOFF_RESET, Limits, PassState, Rejections
from gpufleet_operator.report import gated_pods


def due_moments(
    snapshot: Snapshot,
    state: PassState,
    assessed: Sequence[WorkloadReplicas],
    queue: Mapping[str, datetime] = MappingProxyType({}),
    reports: Mapping[str, datetime] = MappingProxyType({}),
    *,
    guard: WorkloadGuard,
) -> dict[Subject, datetime]:
    """Returns the next time of each object at which its decision may change although the cluster does not.

    Args:
        snapshot: The cluster.
        state: After this pass.
        assessed: The workloads that parse.
        queue: By workload UID: when the earmarks and evictions for a waiting workload change.
        reports: By node: when a message may be written that was held back.
        guard: Gets the workloads on which this fails.
    """
    found: dict[Subject, datetime] = {}
    waits = ((SubjectKind.WORKLOAD, uid, moment) for uid, moment in queue.items())
    messages = ((SubjectKind.NODE, name, moment) for name, moment in reports.items())
    for kind, identity, moment in chain(_moments(snapshot, state, assessed, guard), waits, messages):
        subject = kind, identity
        if moment > snapshot.now and (subject not in found or moment < found[subject]):
            found[subject] = moment
    return found


def _moments(
    snapshot: Snapshot, state: PassState, assessed: Sequence[WorkloadReplicas], guard: WorkloadGuard
) -> Iterator[tuple[SubjectKind, str, datetime]]:
    for uid, end in guard.each(_expiry, snapshot.workloads.values(), attrgetter("uid")):
        if end is not None:
            yield SubjectKind.WORKLOAD, uid, end
    for uid, moments in guard.workloads(_next_moments, assessed):
        for moment in moments:
            yield SubjectKind.WORKLOAD, uid, moment
    for key, backoff in state.write_backoffs.items():
        # Its message is reported until it is dropped.
        yield SubjectKind.KEY, key, backoff.until if backoff.until > snapshot.now else backoff.until + BACKOFF_RESET
    for uid, at in state.services_restored.items():
        yield SubjectKind.WORKLOAD, uid, at + RESTORE_INTERVAL
    for node, cordon_end in cordons.ends(snapshot):
        yield SubjectKind.NODE, node, cordon_end
    yield from _rejection_moments(state.rejections, snapshot.limits)
    yield from _move_moments(snapshot)
    yield from _pod_moments(snapshot, state)
    for uid, use in state.device_use.items():
        if use.until is not None:
            yield SubjectKind.POD, uid, use.until + WINDOW


def _expiry(workload: Workload) -> tuple[str, datetime | None]:
    return workload.uid, None if workload.deleting else expiry(workload)


def _next_moments(assessed: WorkloadReplicas) -> tuple[str, list[datetime]]:
    return assessed.workload.uid, next_moments(assessed)


def _rejection_moments(rejections: Rejections, limits: Limits) -> Iterator[tuple[SubjectKind, str, datetime]]:
    """Yields the ends of exclusions and pauses, and the times at which the status forgets them."""
    for (uid, *_), rejection in rejections.backoffs.items():
        yield SubjectKind.WORKLOAD, uid, rejection.until
        yield SubjectKind.WORKLOAD, uid, rejection.until + BACKOFF_RESET
    for (uid, _), pause in rejections.pauses.items():
        yield SubjectKind.WORKLOAD, uid, pause.retry_from
        yield SubjectKind.WORKLOAD, uid, pause.until
        yield SubjectKind.WORKLOAD, uid, pause.until + BACKOFF_RESET
    for node, found in rejections.by_node.items():
        if (end := rejecting_nodes.until(found)) is not None:
            yield SubjectKind.NODE, node, end
    for uid, since in rejections.allocated_since.items():
        yield SubjectKind.POD, uid, since + limits.rejections_reset_after


def _pod_moments(snapshot: Snapshot, state: PassState) -> Iterator[tuple[SubjectKind, str, datetime]]:
    limits, pod = snapshot.limits, SubjectKind.POD
    for uid, moment in gated_pods.due_times(snapshot, state):
        yield pod, uid, moment
    for uid, since in state.unschedulable_since.items():
        node = snapshot.pods[uid].target_node
        if node is not None:
            yield pod, uid, since + unschedulable_grace(snapshot, node)
    for uid, since in state.unanswered_since.items():
        yield pod, uid, since + scheduling_timeout(snapshot, snapshot.pods[uid])
    for uid, since in state.unhealthy_since.items():
        yield pod, uid, since + limits.degraded_grace
    for uid, since in state.kept_since.items():
        yield pod, uid, since + limits.successor_limit
    if not state.ended:
        return
    by_pod = {reservation.assignment.pod_uid: reservation for reservation in reservations(snapshot)}
    for uid, (noticed, _) in state.ended.items():
        released = max(noticed, state.released_since.get(uid, noticed))
        # A pod whose end the kubelet has reported waits for the first only.
        yield pod, uid, released + limits.container_exit_delay
        yield pod, uid, released + exit_delay(snapshot, by_pod[uid])


def earliest(moments: Mapping[Subject, datetime]) -> datetime | None:
    return min(moments.values(), default=None)


def _move_moments(snapshot: Snapshot) -> Iterator[tuple[SubjectKind, str, datetime]]:
    for reservation in reservations(snapshot):
        if origin_of(reservation.assignment) is not None:
            yield SubjectKind.POD, reservation.assignment.pod_uid, deadline(snapshot, reservation)
