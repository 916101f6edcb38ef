"""Passes the devices of a replica on to its next pod during a rolling update.

A marked reservation (see `rollout`) outlives its pod. No other pod gets the devices, and the successor is not placed by
the engine. When nothing uses the devices, one write replaces the predecessor's reservation by one of the successor.
The members of a gang that is not running get theirs in one pass.

The devices are released, and the successor is placed like any other pod, when it cannot use them: one of them is
unhealthy, the node does not exist, does not report or rejects the pod, the new template or the changed requirements do
not fit there, or they were unused for `Limits.successor_limit`. Measured values are not checked: the last pod caused
them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from gpufleet_api.workload_status import PlacementState
from gpufleet_operator.decide.assessment.workload_guard import WorkloadGuard
from gpufleet_operator.decide.assignment import new_assignment
from gpufleet_operator.decide.plan import FleetSource
from gpufleet_operator.decide.queue.unplaced import has_started
from gpufleet_operator.decide.rolling.successor_fit import Fit, FitResult, SuccessorFit
from gpufleet_operator.decide.shards import range_of
from gpufleet_operator.ledger.kept import marked, predecessors
from gpufleet_operator.ledger.ledger import Ledger
from gpufleet_operator.ledger.move_target import deadline, is_being_replaced, origin_of
from gpufleet_operator.model.objects import Reservation
from gpufleet_operator.model.replica import Replica, WaitReason, WorkloadReplicas
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import PassState

_NOT_WAITING = (WaitReason.NOTHING, WaitReason.DEVICES)
"""Wait reasons of a replica that has a pod which does not need the kept devices; with another one it has none yet."""


@dataclass(slots=True)
class _Changes:
    """Changes of the kept reservations."""

    passed: list[Reservation] = field(default_factory=list)
    """Of successors."""
    ended: set[str] = field(default_factory=set)
    """Pod uids of predecessors whose devices are passed on or released."""
    expected: dict[str, str] = field(default_factory=dict)
    """Uid of a successor that waits -> node."""

    def add(self, other: "_Changes") -> None:
        self.passed += other.passed
        self.ended |= other.ended
        self.expected |= other.expected


def pass_on(
    snapshot: Snapshot,
    state: PassState,
    ledger: Ledger,
    assessed: Sequence[WorkloadReplicas],
    source: FleetSource,
    *,
    guard: WorkloadGuard,
) -> tuple[Ledger, tuple[WorkloadReplicas, ...]]:
    """Returns the ledger after passing on and releasing devices, and the replicas with what they wait for.

    Devices that are kept for a workload on which this fails stay as they are.
    """
    found = predecessors(snapshot, ledger)
    if not found:
        return ledger, tuple(assessed)
    changes = _Changes(ended={r.assignment.pod_uid for older in found.values() for r in older[1:]})
    newest = {key: reservations[0] for key, reservations in found.items()}
    free = {r.assignment.pod_uid for r in ledger.kept if not _waits_for_eviction(snapshot, r)}
    fit = SuccessorFit(snapshot, state, replace(ledger, kept=()), source)

    def passed_on(workload: WorkloadReplicas) -> WorkloadReplicas:
        mine = {index: r for (uid, index), r in newest.items() if uid == workload.workload.uid}
        return _Passing(fit, workload, mine, free).run(changes) if mine else workload

    result = guard.workloads(passed_on, assessed)
    known = {workload.workload.uid for workload in assessed}
    for (uid, _), reservation in newest.items():
        if uid not in known and _expired(snapshot, state, [reservation], free):
            changes.ended.add(reservation.assignment.pod_uid)
    return _applied(ledger, changes), result


class _Passing:
    """Decides on the kept reservations of one workload."""

    def __init__(
        self, fit: SuccessorFit, assessed: WorkloadReplicas, kept: Mapping[int, Reservation], free: set[str]
    ) -> None:
        self.fit, self.snapshot, self.state = fit, fit.snapshot, fit.state
        self.assessed, self.kept, self.free = assessed, kept, free
        self.together = assessed.spec.placement.gang and not has_started(assessed)

    def run(self, changes: _Changes) -> WorkloadReplicas:
        """Adds to the changes, and returns the replicas. After an exception nothing is changed."""
        mine, before = _Changes(), self.fit.number_held
        try:
            found = self._passed_on(mine)
        except Exception:  # of any kind: the guard leaves this workload out
            self.fit.undo_to(before)
            raise
        changes.add(mine)
        return found

    def _passed_on(self, changes: _Changes) -> WorkloadReplicas:
        waiting = {r.index: r for r in self.assessed.replicas if self._is_waiting(r)}
        fits = self._fits(waiting)
        replicas = []
        for replica in self.assessed.replicas:
            reservation = self.kept.get(replica.index)
            if reservation is None:
                replicas.append(replica)
                continue
            uid = reservation.assignment.pod_uid
            fit = fits.get(replica.index)
            if self._is_moving(replica, reservation):
                if _expired(self.snapshot, self.state, [reservation], self.free):
                    changes.ended.add(uid)
                replicas.append(replica)
                continue
            if fit is None:
                # No successor waits for these devices: its pod does not exist yet, or it has others.
                if replica.wait_reason in _NOT_WAITING or self._is_lost(reservation):
                    changes.ended.add(uid)
                replicas.append(replica)
            elif fit.result is FitResult.FITS and replica.pod is not None:
                passed = self._passed(replica, reservation)
                changes.ended.add(uid)
                changes.passed.append(passed)
                replicas.append(
                    replace(replica, state=PlacementState.RESERVED, wait_reason=WaitReason.NOTHING, reservation=passed)
                )
            elif fit.result is FitResult.RELEASE:
                changes.ended.add(uid)
                replicas.append(replica)
            else:
                if replica.pod is not None and uid in self.free:
                    changes.expected[replica.pod.uid] = reservation.node
                replicas.append(replace(replica, wait_reason=WaitReason.PREDECESSOR, message=fit.message))
        return replace(self.assessed, replicas=tuple(replicas))

    def _is_moving(self, replica: Replica, reservation: Reservation) -> bool:
        """Returns True while the devices are reserved for the successor of an existing pod."""
        origin = origin_of(reservation.assignment)
        return origin is not None and replica.pod is not None and replica.pod.uid == origin.pod_uid

    def _is_waiting(self, replica: Replica) -> bool:
        waits = replica.wait_reason is WaitReason.DEVICES and replica.reservation is None
        return waits and replica.index in self.kept

    def _fits(self, waiting: Mapping[int, Replica]) -> dict[int, Fit]:
        """Returns the result for each waiting successor; the members of a gang get the same one."""
        fits = {index: self._fit_alone(replica) for index, replica in waiting.items()}
        if not self.together:
            return fits
        others = [r for r in self.assessed.replicas if r.index not in waiting]
        unplaced = any(r.wait_reason is WaitReason.DEVICES for r in others)
        lost = any(self._is_lost(r) for r in self.kept.values())
        if unplaced or lost or any(f.result is FitResult.RELEASE for f in fits.values()):
            self.fit.undo(fits.values())
            return dict.fromkeys(fits, Fit(FitResult.RELEASE))
        incomplete = any(r.wait_reason not in _NOT_WAITING for r in others)
        if incomplete or any(f.result is FitResult.WAIT for f in fits.values()):
            self.fit.undo(fits.values())
            message = next((f.message for f in fits.values() if f.message), "waiting for the other pods of the gang")
            return dict.fromkeys(fits, Fit(FitResult.WAIT, message))
        return fits

    def _fit_alone(self, replica: Replica) -> Fit:
        reservation = self.kept[replica.index]
        if self._is_lost(reservation):
            return Fit(FitResult.RELEASE)
        if reservation.assignment.pod_uid not in self.free:
            pod = reservation.assignment.pod
            return Fit(FitResult.WAIT, f"devices on {reservation.node} are kept until pod {pod} has ended")
        return self.fit.check(self.assessed, replica, reservation)

    def _is_lost(self, reservation: Reservation) -> bool:
        if self.snapshot.stale_reason(reservation.node) is not None:
            return True
        group = list(self.kept.values()) if self.together else [reservation]
        return _expired(self.snapshot, self.state, group, self.free)

    def _passed(self, replica: Replica, reservation: Reservation) -> Reservation:
        if replica.pod is None:
            raise TypeError(f"replica {replica.index} has no pod")  # only replicas with a gated pod wait for devices
        old = reservation.assignment
        workload = self.assessed.workload
        assignment = new_assignment(
            self.snapshot, workload, replica.index, replica.pod, devices=old.devices, shard=range_of(old)
        )
        if old.moved_from is not None and origin_of(old) is not None:
            assignment = assignment.model_copy(update={"moved_from": old.moved_from})
        return Reservation(reservation.node, assignment)


def _waits_for_eviction(snapshot: Snapshot, reservation: Reservation) -> bool:
    """Returns True while the evicted predecessor still exists."""
    origin = origin_of(reservation.assignment)
    return origin is not None and is_being_replaced(snapshot, origin)


def _expired(snapshot: Snapshot, state: PassState, group: Sequence[Reservation], free: set[str]) -> bool:
    """Returns True when nothing has used the devices of the group for too long."""
    if any(origin_of(r.assignment) is not None for r in group):
        return any(snapshot.now >= deadline(snapshot, r) for r in group)
    uids = [r.assignment.pod_uid for r in group]
    if not all(uid in free for uid in uids):
        return False
    latest = max(state.kept_since.get(uid, snapshot.now) for uid in uids)
    return snapshot.now - latest >= snapshot.limits.successor_limit


def _applied(ledger: Ledger, changes: _Changes) -> Ledger:
    """Returns the ledger without the ended marks: free devices are released, used ones when their pod has ended."""

    def unmarked(reservation: Reservation) -> Reservation:
        return marked(reservation, keep=False) if reservation.assignment.pod_uid in changes.ended else reservation

    active = {uid: unmarked(r) for uid, r in ledger.active.items()}
    return replace(
        ledger,
        active={**active, **{r.assignment.pod_uid: r for r in changes.passed}},
        terminating=tuple(map(unmarked, ledger.terminating)),
        kept=tuple(r for r in ledger.kept if r.assignment.pod_uid not in changes.ended),
        to_release=(*ledger.to_release, *(r for r in ledger.kept if r.assignment.pod_uid in changes.ended)),
        expected=changes.expected,
    )
