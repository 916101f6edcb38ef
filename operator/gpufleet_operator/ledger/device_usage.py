"""How each device is used, and how much of it is promised: the ledger and the kubelet's word joined, for the engine."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from gpufleet_api.telemetry import Assignment, Device, DeviceHolder
from gpufleet_common import timestamps
from gpufleet_operator.ledger.holders import is_holder

_WHOLE_PERCENT = 100


@dataclass(frozen=True, slots=True)
class Use:
    """The fields of the engine's DeviceState that tell of holders."""

    held: bool = False
    sharers: int = 0
    promised_memory_mib: int = 0
    promised_compute_percent: int = 0
    in_flight_memory_mib: int = 0
    in_flight_compute_percent: int = 0


def by_device(assignments: Iterable[Assignment]) -> dict[str, list[Assignment]]:
    """A node's reservations by the devices that they name."""
    found: dict[str, list[Assignment]] = {}
    for assignment in assignments:
        for uuid in assignment.devices:
            found.setdefault(uuid, []).append(assignment)
    return found


def use_of(device: Device, reserved: Sequence[Assignment], sampled_at: datetime | None) -> Use:
    """One device's use.

    A device is held as a whole when a reservation or a holder says so. A holder that goes with a reservation is the
    same container; one without holds a slot that nothing is promised of, or what an earlier reservation promised.

    Args:
        device: as the agent reports it.
        reserved: the reservations that name it.
        sampled_at: when it was measured, by the clock that reservations are dated by; what was decided later is in
            flight, because the sample can't show it. None: never.
    """
    strangers = [h for h in device.allocated_to if not any(is_holder(h, a) for a in reserved)]
    sharers = [h for h in strangers if h.shared or h.memory_mib is not None]
    whole = any(a.memory_mib is None for a in reserved) or len(sharers) < len(strangers)
    if whole:
        return Use(held=True)
    in_flight = [a for a in reserved if sampled_at is None or timestamps.parse(a.decided_at) > sampled_at]
    settled: list[Assignment | DeviceHolder] = [*sharers, *(a for a in reserved if a not in in_flight)]
    return Use(
        sharers=len(reserved) + len(sharers),
        promised_memory_mib=sum(one.memory_mib or 0 for one in settled),
        promised_compute_percent=sum(one.compute_percent or 0 for one in settled),
        in_flight_memory_mib=sum(a.memory_mib or 0 for a in in_flight),
        in_flight_compute_percent=sum(a.compute_percent or 0 for a in in_flight),
    )


class Claims:
    """Reservations taken in one after the other: does another one still fit beside them?

    A device is claimed as a whole by one, or in parts by several whose promises fit into it.

    Args:
        memory: per node and device, its memory in MiB as far as it is reported.
    """

    def __init__(self, memory: Mapping[tuple[str, str], int]) -> None:
        self._memory = memory
        self._whole: set[tuple[str, str]] = set()
        self._promised: dict[tuple[str, str], tuple[int, int]] = {}

    def clashes(self, node: str, assignment: Assignment) -> bool:
        """True when it wants a device as a whole that others have, or a part of one that another has as a whole."""
        devices = [(node, uuid) for uuid in assignment.devices]
        whole = assignment.memory_mib is None
        return any(d in self._whole or (whole and d in self._promised) for d in devices)

    def fits(self, node: str, assignment: Assignment) -> bool:
        """True when it doesn't clash, and what is promised fits into the devices as well."""
        return not self.clashes(node, assignment) and all(
            self._has_room((node, uuid), assignment) for uuid in assignment.devices
        )

    def add(self, node: str, assignment: Assignment) -> None:
        """Take one in, whether it fits or not."""
        for uuid in assignment.devices:
            if assignment.memory_mib is None:
                self._whole.add((node, uuid))
            else:
                memory, compute = self._promised.get((node, uuid), (0, 0))
                self._promised[node, uuid] = (
                    memory + assignment.memory_mib,
                    compute + (assignment.compute_percent or 0),
                )

    def _has_room(self, device: tuple[str, str], assignment: Assignment) -> bool:
        memory, compute = self._promised.get(device, (0, 0))
        most = self._memory.get(device)
        if most is not None and memory + (assignment.memory_mib or 0) > most:
            return False
        return compute + (assignment.compute_percent or 0) <= _WHOLE_PERCENT
