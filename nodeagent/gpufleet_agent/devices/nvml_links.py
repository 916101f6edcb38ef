"""Finds out which devices are connected by NVLink. Read once a minute: it takes dozens of calls per device."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pynvml

from gpufleet_agent.devices.base import DeviceInfo
from gpufleet_agent.devices.nvml_codes import NEVER_SUPPORTED

_SWITCH = "switch"
_NO_MORE = frozenset({pynvml.NVML_ERROR_INVALID_ARGUMENT, *NEVER_SUPPORTED})
"""No NVLink, or no further links."""
_GONE = frozenset({pynvml.NVML_ERROR_UNINITIALIZED, pynvml.NVML_ERROR_DRIVER_NOT_LOADED, pynvml.NVML_ERROR_GPU_IS_LOST})
"""No link can be read. The device's reads report the reason."""


def far_ends(handle: Any, before: frozenset[str] = frozenset()) -> frozenset[str]:
    """Returns the PCI bus IDs at the far ends of the device's active links; all NVSwitches count as one.

    Args:
        handle: The device.
        before: The previous result. It is included if a link cannot be read, as the link may lead to one of these.
    """
    ends: set[str] = set()
    unreadable = False
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
            unreadable = True
            if error.value in _GONE:
                break
    return frozenset(ends) | (before if unreadable else frozenset())


def with_peers(devices: Sequence[tuple[DeviceInfo, frozenset[str]]]) -> Iterator[DeviceInfo]:
    """Returns the devices with their peers: those at the far end of a link, or behind the same switches.

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
