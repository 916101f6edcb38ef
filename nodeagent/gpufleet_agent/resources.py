"""Extended resources of the node: whole devices, slots of shared devices, and MIG partitions."""

from dataclasses import dataclass
from enum import StrEnum

from gpufleet_common.device_ids import slot_ids


class MigStrategy(StrEnum):
    """How a GPU in MIG mode is advertised. Names as in NVIDIA's device plugin."""

    NONE = "none"
    """As one device."""
    SINGLE = "single"
    """Each partition as a device like any other."""
    MIXED = "mixed"
    """Each MIG profile under its own resource."""


def partition_resource(resource: str, profile: str) -> str:
    """Returns the resource of a MIG profile: `nvidia.com/mig-1g.10gb.me` for `nvidia.com/gpu` and `1g.10gb+me`."""
    return f"{resource.partition('/')[0]}/mig-{profile.replace('+', '.')}"


@dataclass(frozen=True, slots=True)
class Served:
    """A resource as its plugin serves it."""

    resource: str
    slots: int = 0
    """Slots of each device; 0: the resource is of whole devices."""
    profile: str | None = None
    """MIG profile of its devices; None: devices without a resource for their profile."""

    def ids(self, uuid: str) -> tuple[str, ...]:
        """Returns the device IDs by which a device is advertised."""
        return slot_ids(uuid, self.slots) if self.slots else (uuid,)
