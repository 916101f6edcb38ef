"""The device IDs by which the kubelet knows devices: UUIDs of whole ones, slots of shared ones.

To the kubelet a slot is a device of a second resource; to everybody else it is a share of the device that it names.
"""

from dataclasses import dataclass
from enum import StrEnum

from gpufleet_common.device_ids import slot_ids


class MigStrategy(StrEnum):
    """What becomes of a GPU that is divided by MIG. Names as those of NVIDIA's plugin."""

    NONE = "none"
    """It is one device."""
    SINGLE = "single"
    """Each partition is a device like any other."""
    MIXED = "mixed"
    """Each kind of partition has a resource of its own."""


def partition_resource(resource: str, profile: str) -> str:
    """The resource of a kind of partition: `nvidia.com/mig-1g.10gb.me` beside `nvidia.com/gpu` for `1g.10gb+me`."""
    return f"{resource.partition('/')[0]}/mig-{profile.replace('+', '.')}"


@dataclass(frozen=True, slots=True)
class Served:
    """One resource as its plugin serves it."""

    resource: str
    slots: int = 0
    """Slots of each device; 0: the resource stands for whole devices."""
    profile: str | None = None
    """The kind of partition that it stands for; None: devices that have no resource by kind."""

    def ids(self, uuid: str) -> tuple[str, ...]:
        """The device IDs by which a device is offered."""
        return slot_ids(uuid, self.slots) if self.slots else (uuid,)
