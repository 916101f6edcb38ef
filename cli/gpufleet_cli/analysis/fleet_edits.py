"""`--without` and `--free`: removes nodes or GPUs from a fleet, or frees GPUs, to answer what-if questions."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from gpufleet_cli.errors import InputError
from gpufleet_operator.placement import Fleet
from gpufleet_operator.placement.model import DeviceState


@dataclass(frozen=True, slots=True)
class FleetEdits:
    """Nodes and devices to remove from a fleet, and devices to free."""

    without: Sequence[str] = ()
    """Names of nodes, or UUIDs."""
    free: Sequence[str] = ()
    """UUIDs."""

    def __bool__(self) -> bool:
        return bool(self.without or self.free)

    def apply(self, fleet: Fleet) -> None:
        """Edits the fleet in place.

        Raises:
            InputError: A named node or GPU is not in the fleet.
        """
        for uuid in self.free:
            _replace(fleet, "--free", uuid, [_freed(_device(fleet, "--free", uuid))])
        for name in self.without:
            if name in fleet.nodes:
                fleet.remove(name)
            else:
                _replace(fleet, "--without", name, [])


def _replace(fleet: Fleet, option: str, uuid: str, by: list[DeviceState]) -> None:
    _device(fleet, option, uuid)
    node = fleet.state(fleet.where[uuid][0])
    fleet.put(replace(node, devices=(*(d for d in node.devices if d.uuid != uuid), *by)))


def _device(fleet: Fleet, option: str, uuid: str) -> DeviceState:
    if uuid not in fleet.where:
        raise InputError(f"{option} {uuid}: no such {'node or GPU' if option == '--without' else 'GPU'} in the fleet")
    row, column = fleet.where[uuid]
    return fleet.cells(row)[column]


def _freed(device: DeviceState) -> DeviceState:
    """Returns the device without holders; the memory and compute in use were the holders'."""
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
        process_count=0,  # known to be free, even where processes are not counted
    )
