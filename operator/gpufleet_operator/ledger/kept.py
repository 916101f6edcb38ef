"""Reservations that outlive their pod, because the next pod of the replica gets the same devices."""

from collections.abc import Iterable, Iterator

from gpufleet_api.telemetry.spec import Assignment
from gpufleet_operator.ledger.ledger import Ledger
from gpufleet_operator.model.objects import Reservation
from gpufleet_operator.model.snapshot import Snapshot

ReplicaKey = tuple[str, int]
"""Workload uid, replica."""


def key_of(reservation: Reservation) -> ReplicaKey:
    """Returns the replica that a reservation was made for."""
    return reservation.assignment.workload_uid, reservation.assignment.replica


def marked(reservation: Reservation, *, keep: bool) -> Reservation:
    """Returns the reservation with or without the mark that keeps it for the replica's next pod."""
    changed: Assignment = reservation.assignment.model_copy(update={"keep_for_successor": keep or None})
    return Reservation(reservation.node, changed)


def predecessors(snapshot: Snapshot, ledger: Ledger) -> dict[ReplicaKey, list[Reservation]]:
    """Returns the marked reservations whose pod is deleted or being deleted, by replica, the newest first."""
    deleting = (r for uid, r in ledger.active.items() if snapshot.pods[uid].deleting)
    found: dict[ReplicaKey, list[Reservation]] = {}
    for reservation in _marked((*deleting, *ledger.terminating, *ledger.kept)):
        found.setdefault(key_of(reservation), []).append(reservation)
    for reservations in found.values():
        reservations.sort(key=lambda r: (r.assignment.decided_at, r.node), reverse=True)
    return found


def _marked(reservations: Iterable[Reservation]) -> Iterator[Reservation]:
    return (r for r in reservations if r.assignment.keep_for_successor)
