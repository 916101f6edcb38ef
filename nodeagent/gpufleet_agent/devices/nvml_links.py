"""Which devices reach each other by NVLink. Asked once per opening: dozens of calls a device."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pynvml

from gpufleet_agent.devices.base import DeviceInfo

_SWITCH = "switch"


def far_ends(handle: Any) -> frozenset[str]:
    """PCI bus IDs of what the device's active links lead to; any NVSwitch is the same one."""
    ends = set()
    for link in range(pynvml.NVML_NVLINK_MAX_LINKS):
        try:
            if not pynvml.nvmlDeviceGetNvLinkState(handle, link):
                continue
            if pynvml.nvmlDeviceGetNvLinkRemoteDeviceType(handle, link) == pynvml.NVML_NVLINK_DEVICE_TYPE_SWITCH:
                ends.add(_SWITCH)
            else:
                ends.add(pynvml.nvmlDeviceGetNvLinkRemotePciInfo(handle, link).busId)
        except pynvml.NVMLError:
            # No NVLink, or no more links. Or the device is lost: then its reads will say so.
            break
    return frozenset(ends)


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
