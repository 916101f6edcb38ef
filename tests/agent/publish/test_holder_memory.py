"""What holders of shared devices use, in the status."""

from gpufleet_agent.devices.base import DeviceInfo
from gpufleet_agent.overuse.memory_windows import ObservedMemory
from gpufleet_agent.podresources.holdings import HoldingContainer
from gpufleet_agent.podresources.listing import ContainerKey
from gpufleet_agent.publish.payload import build_status
from gpufleet_agent.sampling.snapshot import DeviceSnapshot, HealthSnapshot, HealthState, NodeSnapshot
from gpufleet_api.telemetry.gpu_telemetry import TelemetryStatus

NOW = 1_780_000_000.25
DEVICES = tuple(
    DeviceSnapshot(DeviceInfo(f"GPU-{index}", index, "NVIDIA H100"), HealthSnapshot(HealthState.HEALTHY))
    for index in range(2)
)


def test_holder_has_its_memory_on_that_device_only() -> None:
    holder = HoldingContainer(ContainerKey("ml", "a", "main"), "uid-a", shared=True, memory_mib=100)
    status = build_status(
        NodeSnapshot(DEVICES),
        {"GPU-0": (holder,), "GPU-1": (holder,)},
        generation=7,
        observed_at=NOW,
        agent_version="1.2.3",
        memory={("GPU-1", "uid-a"): ObservedMemory(80, 90, NOW - 10)},
    )

    TelemetryStatus.model_validate(status)
    without, found = [one for device in status["devices"] for one in device["allocatedTo"]]
    assert not {"memoryUsedMiB", "memoryUsedMaxMiB", "observedSince"} & without.keys()
    assert (found["memoryUsedMiB"], found["memoryUsedMaxMiB"]) == (80, 90)
    assert found["observedSince"] == "2026-05-28T20:26:30.250000Z"
