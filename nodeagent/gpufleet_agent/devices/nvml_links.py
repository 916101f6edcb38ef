"""Which devices reach each other by NVLink. Asked once a minute: dozens of calls a device."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pynvml

from gpufleet_agent.devices.base import DeviceInfo
from gpufleet_agent.devices.nvml_codes import NEVER_SUPPORTED

_SWITCH = "switch"
_NO_MORE = frozenset({pynvml.NVML_ERROR_INVALID_ARGUMENT, *NEVER_SUPPORTED})
"""No NVLink, or no more links."""
_HOPELESS = frozenset(
    {pynvml.NVML_ERROR_UNINITIALIZED, pynvml.NVML_ERROR_DRIVER_NOT_LOADED, pynvml.NVML_ERROR_GPU_IS_LOST}
)
"""No link will tell anything. The device's reads will say why."""


def far_ends(handle: Any, before: frozenset[str] = frozenset()) -> frozenset[str]:
    """PCI bus IDs of what the device's active links lead to; any NVSwitch is the same one.

    Args:
        handle: The device.
        before: What was found the last time. It counts still when a link doesn't tell, for it may be one of these.
    """
    ends: set[str] = set()
    untold = False
    for link in range(pynvml.NVML_NVLINK_MAX_LINKS):
        try:
            if not pynvml.nvmlDeviceGetNvLinkState(handle, link):
                continue
            if pynvml.nvmlDeviceGetNvLinkRemoteDeviceType(handle, link) == pynvml.NVML_NVLINK_DEVICE_TYPE_SWITCH:
                ends.add(_SWITCH)
            else:
                ends.add(pynvml.nvmlDeviceGetNvLinkRemotePciInfo(handle, link).busId)
        except pynvml.NVMLError as error:
            if error.value in _NO_MORE:
                break
            untold = True
            if error.value in _HOPELESS:
                break
    return frozenset(ends) | (before if untold else frozenset())


def with_peers(devices: Sequence[tuple[DeviceInfo, frozenset[str]]]) -> Iterator[DeviceInfo]:
    """The devices with their peers: those at the far end of a link, and behind the switches those that are, too.

    Args:
        devices: Each with its far ends.
    """
    for info, ends in devices:
        yield replace(
            info,
            nvlink_peers=tuple(
                sorted(
                    other.uuid
                    for other, others_ends in devices
                    if other.uuid != info.uuid and (other.pci_bus_id in ends or _SWITCH in ends & others_ends)
                )
            ),
        )
