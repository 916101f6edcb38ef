"""Finds reservations that exclude each other: a device has one whole reservation, or shared ones that fit into it.

Memory that others may get when it is not used (`reclaim: Used`) does not count: how much of it is free depends on
measurements, see `own_use`. A reservation that was made by learned demand counts with that.
"""

from collections.abc import Iterable, Mapping

from gpufleet_api.names import WHOLE_DEVICE_PERCENT
from gpufleet_api.telemetry.spec import Assignment
from gpufleet_operator.model.demands.promise import is_reclaimable, placed_mib
from gpufleet_operator.model.objects import Reservation


class Occupancy:
    """The devices that reservations occupy, added one after the other.

    Args:
        memory_mib: Memory per node and UUID. The memory of a device that is not in it is not limited.
        reservations: Those to begin with.
    """

    def __init__(self, memory_mib: Mapping[tuple[str, str], int], reservations: Iterable[Reservation] = ()) -> None:
        self._memory_mib = memory_mib
        self._whole: set[tuple[str, str]] = set()
        self._promised: dict[tuple[str, str], tuple[int, int]] = {}
        for reservation in reservations:
            self.add(reservation)

    def conflicts(self, reservation: Reservation) -> bool:
        """Returns True when one of its devices is used in the other way: as a whole, or shared."""
        whole = reservation.assignment.memory_mib is None
        return any(d in self._whole or (whole and d in self._promised) for d in _devices(reservation))

    def fits(self, reservation: Reservation) -> bool:
        """Returns True when it does not conflict, and each of its devices has enough left for its promise."""
        assignment = reservation.assignment
        return not self.conflicts(reservation) and all(self._has_left(d, assignment) for d in _devices(reservation))

    def add(self, reservation: Reservation) -> None:
        """Adds a reservation, whether it fits or not."""
        assignment = reservation.assignment
        for device in _devices(reservation):
            if assignment.memory_mib is None:
                self._whole.add(device)
            else:
                memory, compute = self._promised.get(device, (0, 0))
                kept = 0 if is_reclaimable(assignment) else placed_mib(assignment)
                self._promised[device] = memory + kept, compute + (assignment.compute_percent or 0)

    def _has_left(self, device: tuple[str, str], assignment: Assignment) -> bool:
        memory, compute = self._promised.get(device, (0, 0))
        limit = self._memory_mib.get(device)
        if limit is not None and memory + placed_mib(assignment) > limit:
            return False
        return compute + (assignment.compute_percent or 0) <= WHOLE_DEVICE_PERCENT


def _devices(reservation: Reservation) -> list[tuple[str, str]]:
    return [(reservation.node, uuid) for uuid in reservation.assignment.devices]
