"""Devices as the driver publishes them in the node's ResourceSlice. Pure."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gpufleet_agent.devices.base import DeviceInfo, Recovery
from gpufleet_agent.sampling.snapshot import DeviceSnapshot, HealthState
from gpufleet_api.names import FAULT_TAINT, MANAGED_TAINT
from gpufleet_common.device_ids import device_name

MAX_ATTRIBUTE = 64
MAX_TAINT_VALUE = 63

PCI_BUS_ID = "resource.kubernetes.io/pciBusID"
PCIE_ROOT = "resource.kubernetes.io/pcieRoot"
"""Names that all drivers share, so that a claim can ask for a GPU and a network card at the same root."""

_VERSION = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?")

RootLookup = Callable[[str], str | None]
"""Maps a PCI bus ID to its PCIe root, such as `pci0000:00`; None: not known."""


@dataclass(frozen=True, slots=True)
class ClaimableGpu:
    """Properties that decide whether a device can be prepared for a claim."""

    uuid: str
    index: int
    memory_mib: int | None
    """All that claims can have of it together; None: not known."""
    faults: tuple[str, ...] = ()
    """Codes of its faults."""
    may_recover: bool = True
    """Whether its faults may end without an action."""


def usable_memory_mib(device: DeviceSnapshot) -> int | None:
    """Returns the memory that claims can have: the total without what the driver reserves; None if not known."""
    sample = device.sample
    total = device.info.memory_total_mib if sample is None else sample.memory_total_mib
    if total is None:
        return None
    return max(0, total - ((sample.memory_reserved_mib if sample else None) or 0)) or None


def claimable(device: DeviceSnapshot) -> ClaimableGpu:
    reasons = device.health.reasons
    return ClaimableGpu(
        uuid=device.info.uuid,
        index=device.info.index,
        memory_mib=usable_memory_mib(device),
        faults=tuple(reason.code for reason in reasons),
        may_recover=all(reason.recovery is Recovery.AUTOMATIC for reason in reasons),
    )


def slice_device(device: DeviceSnapshot, driver_version: str | None, root: RootLookup) -> dict[str, Any]:
    """Builds the entry of a device.

    Every device allows several allocations, and a claim that asks for no amount of memory gets all of it. So the same
    entry serves claims of whole devices and of shares, and the scheduler itself adds up the memory.
    """
    memory = usable_memory_mib(device)
    entry: dict[str, Any] = {
        "name": device_name(device.info.uuid),
        "attributes": _attributes(device.info, driver_version, root),
        "taints": _taints(device),
    }
    if memory is not None:
        entry["allowMultipleAllocations"] = True
        entry["capacity"] = {
            "memory": {
                "value": f"{memory}Mi",
                "requestPolicy": {"default": f"{memory}Mi", "validRange": {"min": "1Mi", "step": "1Mi"}},
            }
        }
    return entry


def _attributes(info: DeviceInfo, driver_version: str | None, root: RootLookup) -> dict[str, Mapping[str, Any]]:
    bus = info.pci_bus_id
    values: dict[str, Mapping[str, Any] | None] = {
        "uuid": _string(info.uuid),
        "index": {"int": info.index},
        "type": _string("gpu" if info.parent is None else "mig"),
        "productName": _string(info.model),
        "architecture": _string(info.architecture),
        "cudaComputeCapability": _version(info.compute_capability),
        "driverVersion": _version(driver_version),
        "numaNode": None if info.numa_node is None else {"int": info.numa_node},
        "memoryModel": _string(None if info.memory_model is None else info.memory_model.value),
        "migProfile": _string(info.profile),
        "parentUUID": _string(info.parent),
        PCI_BUS_ID: _string(None if bus is None else short_bus_id(bus)),
        PCIE_ROOT: _string(None if bus is None else root(short_bus_id(bus))),
    }
    return {name: value for name, value in values.items() if value is not None}


def short_bus_id(bus_id: str) -> str:
    """Returns a PCI bus ID as Linux writes it: `0000:3b:00.0` for NVML's `00000000:3B:00.0`."""
    domain, _, rest = bus_id.lower().partition(":")
    return f"{domain[-4:]}:{rest}"


def _string(value: str | None) -> Mapping[str, Any] | None:
    return {"string": value[:MAX_ATTRIBUTE]} if value else None


def _version(text: str | None) -> Mapping[str, Any] | None:
    """Returns a version as semver.org defines it, without leading zeros; None if it is not one."""
    found = _VERSION.match(text or "")
    return {"version": ".".join(str(int(part or 0)) for part in found.groups())} if found else None


def _taints(device: DeviceSnapshot) -> list[dict[str, str]]:
    taints = [{"key": MANAGED_TAINT, "effect": "NoSchedule"}]
    if device.health.state is HealthState.UNHEALTHY:
        code = device.health.reasons[0].code if device.health.reasons else "Unknown"
        taints.append({"key": FAULT_TAINT, "value": code[:MAX_TAINT_VALUE], "effect": "NoSchedule"})
    return taints
