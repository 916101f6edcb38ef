"""`--without` and `--free`: the fleet as it would be if a node or GPU were away, or nobody held it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from gpufleet_cli.errors import InputError
from gpufleet_operator.placement import Fleet
from gpufleet_operator.placement.model import DeviceState


@dataclass(frozen=True, slots=True)
class Edits:
    """What is to be taken away from a fleet, and from its holders."""

    without: Sequence[str] = ()
    """Names of nodes, or UUIDs."""
    free: Sequence[str] = ()
    """UUIDs."""

    def __bool__(self) -> bool:
        return bool(self.without or self.free)

    def apply(self, fleet: Fleet) -> None:
        """Edit the fleet in place.

        Raises:
            InputError: something named isn't in the fleet.
        """
        for uuid in self.free:
            _change(fleet, "--free", uuid, [_freed(_device(fleet, "--free", uuid))])
        for name in self.without:
            if name in fleet.nodes:
                fleet.remove(name)
            else:
                _change(fleet, "--without", name, [])


def _change(fleet: Fleet, option: str, uuid: str, instead: list[DeviceState]) -> None:
    """Put another device, or none, in the place of one."""
    _device(fleet, option, uuid)
    node = fleet.state(fleet.where[uuid][0])
    fleet.put(replace(node, devices=(*(d for d in node.devices if d.uuid != uuid), *instead)))


def _device(fleet: Fleet, option: str, uuid: str) -> DeviceState:
    if uuid not in fleet.where:
        raise InputError(f"{option} {uuid}: the fleet has no such {'node or GPU' if option == '--without' else 'GPU'}")
    row, column = fleet.where[uuid]
    return fleet.cells(row)[column]


def _freed(device: DeviceState) -> DeviceState:
    """Nobody is on it: what is in use was the holders'."""
    return replace(
        device,
        held=False,
        sharers=0,
        promised_memory_mib=0,
        promised_compute_percent=0,
        in_flight_memory_mib=0,
        in_flight_compute_percent=0,
        free_slots=None if device.free_slots is None else device.free_slots + device.sharers,
        memory_used_mib=None if device.memory_used_mib is None else 0,
        utilization_percent=None if device.utilization_percent is None else 0,
        process_count=0,  # even where they aren't counted: the question has it so
    )
