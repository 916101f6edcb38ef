"""Which devices reach each other by NVLink. Asked once per opening: dozens of calls."""

from collections.abc import Sequence
from typing import Any

import pynvml

_SWITCH = "switch"


def peers_of_all(devices: Sequence[tuple[str, str | None, Any]]) -> dict[str, tuple[str, ...]]:
    """The peers of each device, sorted.

    Devices that are linked to the node's NVSwitches reach one another through them.

    Args:
        devices: UUID, PCI bus ID and handle of each.
    """
    by_bus_id = {bus_id: uuid for uuid, bus_id, _ in devices if bus_id is not None}
    ends = {uuid: _far_ends(handle) for uuid, _, handle in devices}
    on_switch = {uuid for uuid, far_ends in ends.items() if _SWITCH in far_ends}
    peers = {}
    for uuid, far_ends in ends.items():
        direct = {by_bus_id[end] for end in far_ends if end in by_bus_id}
        reached = direct | (on_switch if uuid in on_switch else set())
        peers[uuid] = tuple(sorted(reached - {uuid}))
    return peers


def _far_ends(handle: Any) -> set[str]:
    """Bus IDs of what the device's active links lead to, and `_SWITCH` for any NVSwitch."""
    far_ends = set()
    for link in range(pynvml.NVML_NVLINK_MAX_LINKS):
        try:
            if not pynvml.nvmlDeviceGetNvLinkState(handle, link):
                continue
            if pynvml.nvmlDeviceGetNvLinkRemoteDeviceType(handle, link) == pynvml.NVML_NVLINK_DEVICE_TYPE_SWITCH:
                far_ends.add(_SWITCH)
            else:
                far_ends.add(pynvml.nvmlDeviceGetNvLinkRemotePciInfo(handle, link).busId)
        except pynvml.NVMLError:
            # No NVLink, or no more links. Or the device is lost: then its reads will say so.
            break
    return far_ends
