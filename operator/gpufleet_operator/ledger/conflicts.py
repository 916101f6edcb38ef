"""Which reservations of a device exclude each other."""

from collections.abc import Mapping

from gpufleet_api.names import WHOLE_DEVICE_PERCENT
from gpufleet_api.telemetry import Assignment


class Occupancy:
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
        return compute + (assignment.compute_percent or 0) <= WHOLE_DEVICE_PERCENT
