"""The device IDs by which the kubelet knows devices: UUIDs of whole ones, slots of shared ones.

To the kubelet a slot is a device of a second resource; to everybody else it is a share of the device that it names.
"""

from dataclasses import dataclass
from enum import StrEnum

SLOT_MARK = "::"
"""Between a slot's device and number, as NVIDIA's plugin names its replicas; no UUID has it."""


def device_of(device_id: str) -> str:
    """UUID of the device that a device ID stands for: `GPU-1` for `GPU-1` and for `GPU-1::7`."""
    return device_id.partition(SLOT_MARK)[0]


def slot_order(device_id: str) -> tuple[int, str]:
    """Sorts the device IDs of one device: by slot number, the ID of a whole device first."""
    number = device_id.partition(SLOT_MARK)[2]
    return (int(number) if number.isdecimal() else -1), device_id


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
        return tuple(f"{uuid}{SLOT_MARK}{number}" for number in range(self.slots)) if self.slots else (uuid,)
