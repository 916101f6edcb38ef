"""A status as the agent writes it, with a device that has faults."""

from typing import Any

from gpufleet_agent.devices.base import DeviceInfo, Recovery, Sample
from gpufleet_agent.publish.payload import build_status
from gpufleet_agent.sampling.snapshot import DeviceSnapshot, HealthReason, HealthSnapshot, HealthState, NodeSnapshot

NOW = 1_780_000_000.25
INFO = DeviceInfo("GPU-0", 0, "NVIDIA H100", "Hopper", "9.0", "0000:1B:00.0", 1, ("GPU-1",), 80_000)
SICK = HealthSnapshot(
    HealthState.UNHEALTHY,
    (
        HealthReason("DeviceLost", "gone", NOW - 50, Recovery.RESET),
        HealthReason("XidError", "XID 79: gone", NOW - 60, Recovery.RESET),
    ),
    NOW - 60,
    (HealthReason("RowRemapPending", "later", NOW - 30, Recovery.RESET, fault=False),),
)


def written(**fields: object) -> dict[str, Any]:
    """The status of a node with one device, as the agent writes it."""
    device = DeviceSnapshot(INFO, SICK, Sample(uuid="GPU-0", taken_at=NOW, utilization_percent=1), 1.0)
    snapshot = NodeSnapshot(devices=(device,), driver_version="580.1", sample_age_seconds=1.0)
    usual: dict[str, Any] = {"generation": 1, "observed_at": NOW, "agent_version": "1", "boot_id": "boot-1"}
    return build_status(snapshot, {}, **{**usual, **fields})
