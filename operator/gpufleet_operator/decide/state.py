"""Builds the state of the next pass: backoffs, rejections, and the begin of observed conditions."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from gpufleet_api.telemetry.spec import Assignment
from gpufleet_common import timestamps
from gpufleet_operator.decide.claims.transports import next_transports
from gpufleet_operator.decide.plan import Plan
from gpufleet_operator.decide.pressure.observe import observe_pressure
from gpufleet_operator.decide.reports import CollectedReports
from gpufleet_operator.decide.retries.rejections import kept_rejections
from gpufleet_operator.decide.services import next_restored
from gpufleet_operator.decide.statuses import CollectedStatuses
from gpufleet_operator.decide.writes import Writes
from gpufleet_operator.fleet.device_health import reported_unhealthy_devices
from gpufleet_operator.ledger.device_usage import held_by
from gpufleet_operator.ledger.ledger import reservations
from gpufleet_operator.model.actions import Action, RestoreService, WriteStatus
from gpufleet_operator.model.objects import Pod, Reservation, Telemetry
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import BACKOFF_RESET, Backoff, PassState, Rejections

WRITE_BASE_SECONDS = 0.5
WRITE_CAP_SECONDS = 60.0
MOVES_PERIOD = timedelta(hours=1)


def advance(snapshot: Snapshot) -> PassState:
    """Returns the state of this pass: the previous one, updated by the snapshot, without deleted objects."""
    previous, now = snapshot.previous_state, snapshot.now
    observed = {r.assignment.pod_uid: _observe(snapshot, r) for r in _target_last(snapshot)}
    ended = {uid: previous.ended.get(uid, (now, o.report)) for uid, o in observed.items() if o.pod_has_ended}
    return replace(
        previous,
        rejections=kept_rejections(snapshot),
        write_backoffs={key: b for key, b in previous.write_backoffs.items() if now < b.until + BACKOFF_RESET},
        pending_creates={key: name for key, name in previous.pending_creates.items() if key[0] in snapshot.workloads},
        unschedulable_since={
            # What kube-scheduler reported before the pod was reassigned is about other devices.
            uid: max(previous.unschedulable_since.get(uid, now), _decided_at(observed.get(uid), now))
            for uid, pod in snapshot.pods.items()
            if is_unschedulable(pod)
        },
        unanswered_since={
            uid: previous.unanswered_since.get(uid) or _released_at(snapshot, pod, observed.get(uid))
            for uid, pod in snapshot.pods.items()
            if is_unanswered(pod)
        },
        first_generation={
            uid: before
            if (before := previous.first_generation.get(uid)) is not None and before[0] == o.telemetry.name
            else (o.telemetry.name, o.telemetry.generation)  # new, or the pod got devices of another node
            for uid, o in observed.items()
        },
        seen_holding=frozenset(uid for uid, o in observed.items() if o.holds or uid in previous.seen_holding),
        ended=ended,
        # Only a report from after the end of a pod shows that it holds nothing. While the pod ran, one report may have
        # missed it (of an agent that had just started), and that report may still be the latest.
        released_since={
            uid: previous.released_since.get(uid, now)
            for uid, (_, report) in ended.items()
            if observed[uid].telemetry.status is not None and not observed[uid].holds and observed[uid].report != report
        },
        without_devices={
            uid: previous.without_devices.get(uid, o.report)
            for uid, o in observed.items()
            if o.container_runs and not o.listed
        },
        unhealthy_since={
            uid: previous.unhealthy_since.get(uid, now)
            for uid, o in observed.items()
            if snapshot.stale_reason(o.telemetry.name) is None
            and reported_unhealthy_devices(o.telemetry, o.reservation.assignment)
        },
        status_written={k: v for k, v in previous.status_written.items() if k in snapshot.workloads},
        picked={
            uid: picked
            for uid, picked in previous.picked.items()
            if uid in snapshot.pods and not _has_stored_score(snapshot, picked.reservation.assignment)
        },
        pressure=observe_pressure(snapshot),
        moves={uid: at for uid, at in previous.moves.items() if now - at < MOVES_PERIOD},
        restored=frozenset(snapshot.workloads),
    )


def _has_stored_score(snapshot: Snapshot, assignment: Assignment) -> bool:
    """Returns whether the status shows the score of a pod; also True if the workload does not exist."""
    workload = snapshot.workloads.get(assignment.workload_uid)
    stored = workload.stored_placements.get(assignment.replica) if workload is not None else None
    return workload is None or (
        stored is not None and stored.pod_uid == assignment.pod_uid and stored.score is not None
    )


def _target_last(snapshot: Snapshot) -> list[Reservation]:
    """Returns all reservations. Of two of one pod, the ledger drops the one that the pod was not released to."""

    def is_of_target(reservation: Reservation) -> bool:
        pod = snapshot.pods.get(reservation.assignment.pod_uid)
        return pod is not None and pod.target_node == reservation.node

    return sorted(reservations(snapshot), key=is_of_target)


def _released_at(snapshot: Snapshot, pod: Pod, observed: "_Observation | None") -> datetime:
    """Returns since when a pod waits that was not seen so before: now, or before a restart when it got its devices."""
    if observed is None or pod.workload_uid in snapshot.previous_state.restored:
        return snapshot.now
    return _decided_at(observed, snapshot.now)


def _decided_at(observed: "_Observation | None", now: datetime) -> datetime:
    """Returns when the devices of a pod were picked; the year 1 without a reservation."""
    if observed is None:
        return datetime.min.replace(tzinfo=UTC)
    return min(now, timestamps.parse(observed.reservation.assignment.decided_at))


def is_unanswered(pod: Pod) -> bool:
    """Returns True for a released, unbound pod on which no scheduler has reported anything."""
    return _is_unbound(pod) and pod.unschedulable is None


def with_picks(state: PassState, plan: Plan) -> PassState:
    """Returns the state with the devices that the pass picked."""
    if not plan.picked:
        return state
    picked = {one.reservation.assignment.pod_uid: one for one in plan.picked.values()}
    return replace(state, picked={**state.picked, **picked})


def next_state(
    snapshot: Snapshot,
    state: PassState,
    *,
    rejections: Rejections,
    plan: Plan,
    writes: Writes,
    restored_services: Sequence[RestoreService],
    statuses: CollectedStatuses,
    reports: CollectedReports,
) -> PassState:
    """Returns the state for the next pass: that of this pass, with what it decided.

    Args:
        snapshot: Its time and templates.
        state: That of this pass.
        rejections: Including those of this pass.
        plan: Its ledger, and the replicas that get a pod for another transport.
        writes: Of pods and reservations.
        restored_services: The Services to restore.
        statuses: The statuses to write.
        reports: The reports to write.
    """
    creates = {(c.workload_uid, c.replica): c.name for c in writes.creates}
    return replace(
        state,
        rejections=rejections,
        templates=snapshot.templates,
        pending_creates={**state.pending_creates, **creates},
        transports=next_transports(snapshot, state, plan.switched),
        kept_since={
            r.assignment.pod_uid: state.kept_since.get(r.assignment.pod_uid, snapshot.now) for r in plan.ledger.kept
        },
        preempting=plan.preempting,
        status_written={**state.status_written, **{w.workload_uid: snapshot.now for w in statuses.to_write}},
        status_queue=statuses.queue,
        pressure=plan.moves.pressure_after(state, snapshot.now),
        moves=plan.moves.moves_after(state, snapshot.now),
        services_restored=next_restored(snapshot, state, restored_services),
        reported=reports.reported,
        up_to_date_nodes=reports.up_to_date_nodes,
    )


@dataclass(frozen=True, slots=True)
class _Observation:
    """One reservation, its pod, and the agent's report on it."""

    reservation: Reservation
    telemetry: Telemetry
    pod: Pod | None
    report: str
    """`observedAt`; empty without a report."""
    holds: bool
    """The report has the pod as a holder."""
    listed: bool
    """The kubelet lists devices for the pod, according to the report."""
    container_runs: bool
    """The container was running already at the time of the report."""

    @property
    def pod_has_ended(self) -> bool:
        return self.pod is None or self.pod.terminal


def _observe(snapshot: Snapshot, reservation: Reservation) -> _Observation:
    telemetry = snapshot.telemetry[reservation.node]
    status, pod = telemetry.status, snapshot.pods.get(reservation.assignment.pod_uid)
    report = status.observed_at if status else ""
    holds = status is not None and bool(held_by(status, reservation.assignment))
    return _Observation(
        reservation=reservation,
        telemetry=telemetry,
        pod=pod,
        report=report,
        holds=holds,
        listed=holds and status is not None and bool(held_by(status, reservation.assignment, listed=True)),
        container_runs=pod is not None and _runs(pod, reservation.assignment.container, before=report),
    )


def _runs(pod: Pod, name: str, *, before: str) -> bool:
    """Returns True when the container was started before that report, by the node's own clock, and still runs."""
    container = pod.container(name)
    started = container.started_at if container and container.running and not pod.terminal else None
    return started is not None and before != "" and timestamps.parse(before) >= started


def is_unschedulable(pod: Pod) -> bool:
    """Returns True for a released, unbound pod that kube-scheduler reports as Unschedulable without preempting."""
    return _is_unbound(pod) and pod.unschedulable is not None


def _is_unbound(pod: Pod) -> bool:
    """Returns True for a released pod that is not bound, and for which kube-scheduler preempts no other pods."""
    released = not pod.gates and not pod.terminal and not pod.deleting
    return released and pod.node is None and not pod.nominated


def record_results(state: PassState, results: Iterable[tuple[str, str | None, str]], now: datetime) -> PassState:
    """Records which writes failed (key, message, component) and which succeeded (key, None, "").

    Writes may share a key. If one of them failed, the key failed, once.
    """
    listed = list(results)
    if not listed:
        return state
    failures = {key: (message, by) for key, message, by in listed if message is not None}
    succeeded = {key for key, _, _ in listed} - failures.keys()
    backoffs = {key: b for key, b in state.write_backoffs.items() if key not in succeeded}
    for key, (message, by) in failures.items():
        backoffs[key] = Backoff.following(
            backoffs.get(key), now, base=WRITE_BASE_SECONDS, cap=WRITE_CAP_SECONDS, message=message, by=by
        )
    return replace(state, write_backoffs=backoffs)


def drop_pending_creates(state: PassState, replicas: Iterable[tuple[str, int]]) -> PassState:
    """Drops the names of pods whose creation got a response: the next attempt has a new name."""
    dropped = set(replicas)
    if dropped.isdisjoint(state.pending_creates):
        return state
    return replace(state, pending_creates={k: v for k, v in state.pending_creates.items() if k not in dropped})


def forget_unsent(state: PassState, actions: Iterable[Action]) -> PassState:
    """Drops when the statuses and reports were written that were decided on but not sent."""
    unsent = list(actions)
    if not unsent:
        return state
    workloads = {action.workload_uid for action in unsent if isinstance(action, WriteStatus)}
    reports = {action.key for action in unsent}
    return replace(
        state,
        status_written={uid: at for uid, at in state.status_written.items() if uid not in workloads},
        reported={key: reported for key, reported in state.reported.items() if key not in reports},
    )
