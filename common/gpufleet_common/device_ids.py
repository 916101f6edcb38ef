"""Names of devices.

In the kubelet's device plugin API, a device ID is the UUID of a whole device, or `<uuid>::<slot>` for a slot of a
shared one. In ResourceSlices and ResourceClaims, a device is named by its UUID as a DNS label.
"""

import re

SEPARATOR = "::"
"""As in the replica IDs of NVIDIA's device plugin. It occurs in no UUID."""


_MAX_NAME = 63


def device_name(uuid: str) -> str:
    """Returns the name of a device in slices and claims: its UUID as a DNS label."""
    return re.sub(r"[^a-z0-9-]", "-", uuid.lower())[:_MAX_NAME].strip("-")


def device_of(device_id: str) -> str:
    """Returns the UUID of a device ID: `GPU-1` for `GPU-1` and for `GPU-1::7`."""
    return device_id.partition(SEPARATOR)[0]


def slot_ids(uuid: str, slots: int) -> tuple[str, ...]:
    """Returns the device IDs of all slots of a shared device, in order."""
    return tuple(f"{uuid}{SEPARATOR}{number}" for number in range(slots))


def slot_order(device_id: str) -> tuple[int, str]:
    """Sort key for the IDs of one device: by slot number; an ID without a number comes first."""
    number = device_id.partition(SEPARATOR)[2]
    return (int(number) if number.isdecimal() else -1), device_id
