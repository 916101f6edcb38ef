"""GPUTelemetry: what one node's GPUs are doing, and which of them the operator has given away.

Two writers, one object: the operator alone writes `spec` (the reservation), the node's agent alone writes
`status`. A spec change raises `metadata.generation` and a status change doesn't, so the operator's
compare-and-swap on the generation never loses to telemetry.
"""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from gpufleet_api.base import ApiModel, Label, Name, Text, Timestamp, Uuid
from gpufleet_api.markers import Cel, ListMap, ListSet
from gpufleet_api.names import ThrottleReason

MAX_DEVICES = 64
"""Most devices of one node."""

MAX_ASSIGNMENTS = 1024
"""Most reservations of one node."""

Percent = Annotated[int, Field(ge=0, le=100)]
MiB = Annotated[int, Field(ge=0, le=2**31 - 1)]
Celsius = Annotated[int, Field(ge=-273, le=1000)]
Megahertz = Annotated[int, Field(ge=0, le=100_000)]
Milliwatts = Annotated[int, Field(ge=0, le=2**31 - 1)]
PromisedMiB = Annotated[int, Field(ge=1, le=2**24)]
PromisedPercent = Annotated[int, Field(ge=1, le=100)]
Items = Annotated[int, Field(ge=0, le=2**53)]
Count = Annotated[int, Field(ge=0, le=2**53)]


class Assignment(ApiModel):
    """One reservation: these devices of this node belong to this container of this pod."""

    rules: ClassVar = (
        Cel(
            "has(self.shardStart) == has(self.shardEnd) && (!has(self.shardStart) || self.shardStart <= self.shardEnd)",
            "shardStart and shardEnd stand together, and shardStart is at most shardEnd",
        ),
        Cel(
            "!has(self.computePercent) || has(self.memoryMiB)",
            "computePercent belongs to shared devices, whose assignment has memoryMiB",
        ),
    )

    pod_uid: Annotated[str, Field(min_length=1, max_length=64)]
    namespace: Label
    pod: Name
    container: Label
    workload: Name
    workload_uid: Annotated[str, Field(min_length=1, max_length=64)]
    replica: Annotated[int, Field(ge=0, le=1023)]
    replicas: Annotated[int, Field(ge=1, le=1024)]
    resource: Annotated[str, Field(min_length=1, max_length=128)]
    devices: Annotated[list[Uuid], Field(min_length=1, max_length=MAX_DEVICES), ListSet()]
    memory_mib: PromisedMiB | None = None
    """Shared devices only: the memory of each device that is promised to the container. Absent: whole devices."""
    compute_percent: PromisedPercent | None = None
    """Shared devices only: the compute of each device that is promised; absent promises none."""
    shard_start: Items | None = None
    shard_end: Items | None = None
    decided_at: Timestamp


class TelemetrySpec(ApiModel):
    """What the operator has reserved on this node. Written by compare-and-swap, always whole."""

    assignments: Annotated[list[Assignment], Field(max_length=MAX_ASSIGNMENTS), ListMap("podUID")] = []


class HealthState(StrEnum):
    """Whether a device can be used. Unhealthy means a fault and nothing else."""

    HEALTHY = "Healthy"
    UNHEALTHY = "Unhealthy"


class Recovery(StrEnum):
    """What ends a fault: nothing needs to be done, the device must be reset, or it must be exchanged."""

    AUTOMATIC = "Automatic"
    RESET = "Reset"
    REPLACEMENT = "Replacement"


class HealthReason(ApiModel):
    """One standing fault, or a warning."""

    code: Annotated[str, Field(min_length=1, max_length=64)]
    """CamelCase, such as `XidError` or `DeviceLost`."""
    message: Text | None = None
    since: Timestamp
    recovery: Recovery | None = None


class DeviceHealth(ApiModel):
    """A device's health with the faults that stand. Warnings are told beside them and make no device unhealthy."""

    state: HealthState
    reasons: Annotated[list[HealthReason], Field(max_length=16), ListMap("code")] = []
    warnings: Annotated[list[HealthReason], Field(max_length=16), ListMap("code")] = []
    since: Timestamp | None = None


class Clocks(ApiModel):
    """Current clocks."""

    sm_mhz: Megahertz | None = None
    memory_mhz: Megahertz | None = None


class Ecc(ApiModel):
    """Memory errors since the driver was loaded or the device was reset."""

    corrected_volatile: Count | None = None
    uncorrected_volatile: Count | None = None


class RowRemap(ApiModel):
    """Replacement of bad rows of memory: one waits for the next reset; one failed, as no spare row is left."""

    pending: bool | None = None
    failed: bool | None = None


class MigMode(StrEnum):
    """Whether a device is divided into instances."""

    ENABLED = "Enabled"
    DISABLED = "Disabled"


class Statistics(ApiModel):
    """Mean, maximum and 95th percentile of one quantity over the window, in that quantity's unit."""

    mean: Annotated[int, Field(ge=-273, le=2**40)]
    max: Annotated[int, Field(ge=-273, le=2**40)]
    p95: Annotated[int, Field(ge=-273, le=2**40)]


class SampleWindow(ApiModel):
    """The recent past of a device. A quantity that no sample carried is absent."""

    samples: Annotated[int, Field(ge=1, le=100_000)]
    seconds: Annotated[int, Field(ge=0, le=86_400)]
    utilization_percent: Statistics | None = None
    memory_used_mib: Statistics | None = None
    temperature_celsius: Statistics | None = None
    power_milliwatts: Statistics | None = None


class MemoryOveruse(ApiModel):
    """A holder uses more of the device's memory than it was promised. Nothing caps it; `memoryMiB` says the promise."""

    memory_used_mib: MiB
    """As of about the last heartbeat."""
    since: Timestamp


class DeviceHolder(ApiModel):
    """A container that holds the device, says the kubelet. `podUID` is that of the assignment honoured."""

    namespace: Label
    pod: Name
    container: Label
    pod_uid: Annotated[str, Field(max_length=64)] | None = None
    shared: bool | None = None
    """True: it holds a slot of the device, beside others. Otherwise it holds the device as a whole."""
    memory_mib: PromisedMiB | None = None
    """Promised of this device's memory; absent for a slot without assignment."""
    compute_percent: PromisedPercent | None = None
    """Promised of this device's compute."""
    overuse: MemoryOveruse | None = None
    """Present while it lasts."""


class Device(ApiModel):
    """One GPU: identity, the last good sample, its window, its health, its holders.

    A value that the hardware does not report is absent, never 0.
    """

    uuid: Uuid
    index: Annotated[int, Field(ge=0, le=MAX_DEVICES - 1)]
    model: Annotated[str, Field(min_length=1, max_length=96)]
    architecture: Annotated[str, Field(max_length=32)] | None = None
    compute_capability: Annotated[str, Field(max_length=8, pattern=r"^[0-9]+\.[0-9]+$")] | None = None
    pci_bus_id: Annotated[str, Field(max_length=32)] | None = None
    numa_node: Annotated[int, Field(ge=0, le=1023)] | None = None
    nvlink_peers: Annotated[list[Uuid], Field(max_length=MAX_DEVICES), ListSet()] = []
    sample_time: Timestamp | None = None
    memory_total_mib: MiB | None = None
    memory_used_mib: MiB | None = None
    utilization_percent: Percent | None = None
    memory_utilization_percent: Percent | None = None
    temperature_celsius: Celsius | None = None
    memory_temperature_celsius: Celsius | None = None
    power_milliwatts: Milliwatts | None = None
    power_limit_milliwatts: Milliwatts | None = None
    clocks: Clocks | None = None
    throttle_reasons: Annotated[list[ThrottleReason], Field(max_length=16), ListSet()] = []
    ecc: Ecc | None = None
    row_remap: RowRemap | None = None
    page_retirement_pending: bool | None = None
    """A bad page of memory will be retired at the next reset: GPUs before Ampere, which remap no rows."""
    mig_mode: MigMode | None = None
    process_count: Annotated[int, Field(ge=0, le=100_000)] | None = None
    health: DeviceHealth
    withheld: Text | None = None
    """Why no container can be given the device now although it has no fault, such as that its device node is missing.

    The operator picks it for nobody. Who holds it keeps it.
    """
    window: SampleWindow | None = None
    allocated_to: Annotated[list[DeviceHolder], Field(max_length=64), ListMap("namespace", "pod", "container")] = []

    @property
    def offered(self) -> bool:
        """Whether a container can be given the device, as far as its agent knows."""
        return self.health.state is HealthState.HEALTHY and self.withheld is None


class Summary(ApiModel):
    """The node in one line. Means and sums are absent when no device has the value."""

    devices: Annotated[int, Field(ge=0, le=MAX_DEVICES)]
    healthy: Annotated[int, Field(ge=0, le=MAX_DEVICES)]
    allocated: Annotated[int, Field(ge=0, le=MAX_DEVICES)]
    memory_total_mib: MiB | None = None
    memory_used_mib: MiB | None = None
    memory_available_mib: MiB | None = None
    mean_utilization_percent: Percent | None = None
    mean_temperature_celsius: Celsius | None = None
    power_milliwatts: Annotated[int, Field(ge=0, le=2**40)] | None = None


class TelemetryStatus(ApiModel):
    """What the agent saw. `observedAt` is when it wrote this, `sampleTime` when it last read the hardware."""

    assignments_generation: Annotated[int, Field(ge=0, le=2**53)] | None = None
    """The `metadata.generation` whose assignments the agent had read when it wrote this."""
    observed_at: Timestamp
    sample_time: Timestamp | None = None
    agent_version: Annotated[str, Field(max_length=64)]
    driver_version: Annotated[str, Field(max_length=64)] | None = None
    boot_id: Annotated[str, Field(max_length=64)] | None = None
    """Which boot of the node this is about: faults of an earlier one are over."""
    devices: Annotated[list[Device], Field(max_length=MAX_DEVICES), ListMap("uuid")] = []
    summary: Summary


class ObjectMeta(ApiModel):
    """The part of metadata that we read."""

    name: Name
    namespace: Label | None = None
    uid: str | None = None
    generation: int | None = None
    resource_version: str | None = None


class GPUTelemetry(ApiModel):
    """One object per GPU node, named like the node and owned by it."""

    metadata: ObjectMeta
    spec: TelemetrySpec = TelemetrySpec()
    status: TelemetryStatus | None = None
