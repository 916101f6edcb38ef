"""The ledger: the reservations of all nodes, sorted by what happens to them next.

It is the union of `spec.assignments` of all GPUTelemetry objects and nothing else, so it is complete after a restart.
The reservation of a deleted pod is not removed immediately: a container may outlive its pod object (forced deletion).
Its devices stay reserved until the agent's report no longer has the pod as a holder, and for some seconds more unless
the kubelet has reported that the pod is terminated. An agent that does not see processes reports what the kubelet
lists, which a pod deleted by force leaves immediately, so the grace period of the pod is added.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

from gpufleet_operator.ledger.conflicts import Occupancy
from gpufleet_operator.ledger.device_usage import device_memory_mib, held_by
from gpufleet_operator.ledger.move_target import grace_period, origin_of
from gpufleet_operator.ledger.verify import rejected_by_kubelet
from gpufleet_operator.model.objects import Pod, PodDeletion, Reservation
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import PassState


@dataclass(frozen=True, slots=True)
class Ledger:
    """All reservations."""

    active: Mapping[str, Reservation] = field(default_factory=dict)
    """By pod uid: the pod exists and may use the devices."""
    terminating: tuple[Reservation, ...] = ()
    """The pod is deleted or terminal, but its containers may still use the devices.

    So may a pod that has a younger reservation on another node, and whose release has no response.
    """
    kept: tuple[Reservation, ...] = ()
    """Nothing uses the devices; they are kept for the next pod of the replica."""
    to_release: tuple[Reservation, ...] = ()
    """Nothing can use the devices; the reservation is to be removed."""
    conflicting: frozenset[str] = frozenset()
    """Uids of released pods with a device that an older reservation has as well, one of the two as a whole.

    Empty unless another client writes assignments.
    """
    expected: Mapping[str, str] = field(default_factory=dict)
    """Uids of gated pods that will run on a node whose devices are kept for them -> node."""
    occupancy: Occupancy = field(default_factory=lambda: Occupancy({}), compare=False, repr=False)
    """Of the reservations as read; a recovery is compared with it."""

    @property
    def occupying(self) -> tuple[Reservation, ...]:
        """The reservations whose devices are not free."""
        return (*self.active.values(), *self.terminating, *self.kept)


def read_ledger(snapshot: Snapshot, state: PassState) -> Ledger:
    """Sorts all reservations of the snapshot; of two for the same device the older one wins."""
    active: dict[str, Reservation] = {}
    terminating: list[Reservation] = []
    kept: list[Reservation] = []
    to_release: list[Reservation] = []
    conflicting: set[str] = set()
    occupancy = Occupancy(device_memory_mib({name: t.status for name, t in snapshot.telemetry.items()}))
    for reservation in sorted(reservations(snapshot), key=_age_order):
        uid = reservation.assignment.pod_uid
        pod = snapshot.pods.get(uid)
        if pod is None or pod.terminal:
            # The target of a move has no pod yet that could use it.
            is_target = origin_of(reservation.assignment) is not None
            if not is_target and not devices_are_free(snapshot, state, reservation, pod):
                terminating.append(reservation)
                occupancy.add(reservation)
            elif _is_kept(snapshot, reservation, pod):
                kept.append(reservation)
                occupancy.add(reservation)
            else:
                to_release.append(reservation)
        elif uid in state.pods_in_flight and pod.node is None:
            # The release, or the annotation with other devices, may be stored already. Until the response, neither of
            # two reservations is removed.
            terminating += _keep_both(active, reservation, pod)
            occupancy.add(reservation)
        elif uid in active or (pod.target_node is not None and pod.target_node != reservation.node):
            # A rollback that was not written: the pod can't run on this node (or has an older reservation).
            to_release.append(reservation)
        elif pod.gates and not (occupancy.fits(reservation) and _is_wanted(snapshot, reservation, pod)):
            to_release.append(reservation)
        else:
            active[uid] = reservation
            if occupancy.conflicts(reservation):
                conflicting.add(uid)
            occupancy.add(reservation)
    return Ledger(
        active, tuple(terminating), tuple(kept), tuple(to_release), frozenset(conflicting), occupancy=occupancy
    )


def _keep_both(active: dict[str, Reservation], reservation: Reservation, pod: Pod) -> list[Reservation]:
    """Makes a reservation the active one if its pod may run on the node, and returns the one that is not."""
    if pod.target_node not in (None, reservation.node):
        return [reservation]
    before = active.get(pod.uid)
    active[pod.uid] = reservation
    return [before] if before is not None else []


def reservations(snapshot: Snapshot) -> Iterator[Reservation]:
    """Yields all reservations as stored."""
    for name, telemetry in snapshot.telemetry.items():
        for assignment in telemetry.assignments:
            yield Reservation(name, assignment)


def is_stored(snapshot: Snapshot, reservation: Reservation) -> bool:
    """Returns True when the GPUTelemetry of the node has exactly this reservation."""
    telemetry = snapshot.telemetry.get(reservation.node)
    return telemetry is not None and reservation.assignment in telemetry.assignments


def without_pods(ledger: Ledger, pod_uids: Collection[str]) -> Ledger:
    """Releases the reservations of gated pods immediately: no kubelet has seen the pods."""
    if not pod_uids:
        return ledger
    dropped = tuple(r for uid, r in ledger.active.items() if uid in pod_uids)
    active = {uid: r for uid, r in ledger.active.items() if uid not in pod_uids}
    return replace(ledger, active=active, to_release=(*ledger.to_release, *dropped))


def with_added(ledger: Ledger, added: Sequence[Reservation]) -> Ledger:
    """Adds reservations of pods that exist."""
    if not added:
        return ledger
    return replace(ledger, active={**ledger.active, **{r.assignment.pod_uid: r for r in added}})


def devices_are_free(snapshot: Snapshot, state: PassState, reservation: Reservation, pod: Pod | None) -> bool:
    """Returns True when nothing on the node can still use the devices of a deleted (None) or terminal pod."""
    uid = reservation.assignment.pod_uid
    if reservation.node not in snapshot.nodes:
        return True
    deletion = snapshot.deleted_pods.get(uid)
    if deletion is PodDeletion.NEVER_BOUND:
        return True
    status = snapshot.telemetry[reservation.node].status
    held = status is not None and bool(held_by(status, reservation.assignment))
    if pod is not None and rejected_by_kubelet(pod) and not held and uid not in state.seen_holding:
        return True  # The kubelet never started it. One that it rejects after its own restart was a holder before.
    if status is None or held or snapshot.stale_reason(reservation.node) is not None:
        return False
    # The report may be older than the pod's end: a pod that was bound, started and force-deleted between two
    # reports was in neither, and an agent without a connection reports neither. `released_since` is set by a
    # report that is later than the time at which this process noticed the pod's end.
    noticed, _ = state.ended.get(uid, (snapshot.now, ""))
    released = state.released_since.get(uid)
    if pod is not None or deletion in (PodDeletion.TERMINATED, PodDeletion.SUCCEEDED):
        # The kubelet itself has reported the end of the containers. The report without the pod may be an earlier one.
        dropped = released is not None or uid in state.seen_holding
        return dropped or snapshot.now - noticed >= snapshot.limits.container_exit_delay
    # Deleted by force, or in a way that this process did not observe.
    return released is not None and snapshot.now - max(released, noticed) >= exit_delay(snapshot, reservation)


def exit_delay(snapshot: Snapshot, reservation: Reservation) -> timedelta:
    """Returns how long a container of a pod deleted by force may run after the first report without it.

    The kubelet removes the pod from its list when it receives the deletion, and grants the containers the grace period
    of the pod's spec. An agent that sees processes keeps the pod in its report until they have ended.
    """
    telemetry = snapshot.telemetry.get(reservation.node)
    if telemetry is not None and telemetry.status is not None and telemetry.status.processes_observed:
        return snapshot.limits.container_exit_delay
    return snapshot.limits.container_exit_delay + grace_period(reservation.assignment)


def _is_wanted(snapshot: Snapshot, reservation: Reservation, pod: Pod) -> bool:
    """Returns False when no workload will release a gated pod: it was deleted, or the pod has lost its owner."""
    workload = snapshot.workloads.get(reservation.assignment.workload_uid)
    if workload is None:
        return False
    adopts = workload.model is not None and workload.model.spec.adopts
    return adopts or workload.model is None or pod.workload_uid == workload.uid


def _is_kept(snapshot: Snapshot, reservation: Reservation, pod: Pod | None) -> bool:
    """Returns True when the devices of a deleted pod are kept for its successor: its replica is still wanted."""
    assignment = reservation.assignment
    workload = snapshot.workloads.get(assignment.workload_uid)
    if not assignment.keep_for_successor or reservation.node not in snapshot.nodes or workload is None:
        return False
    if (pod is not None and not pod.deleting) or workload.deleting or workload.has_succeeded(assignment.replica):
        return False
    spec = workload.model.spec if workload.model else None
    return spec is None or (not spec.suspend and assignment.replica < spec.replicas)


def _age_order(reservation: Reservation) -> tuple[str, str, str]:
    return reservation.assignment.decided_at, reservation.node, reservation.assignment.pod_uid
