"""One device in the status of a GPUTelemetry: what it is, what it measures, its health, and its holders."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from gpufleet_api.base import ApiModel, Label, Name, Text, Timestamp, Uuid
from gpufleet_api.markers import EMPTY, ListMap, ListSet
from gpufleet_api.names import MAX_DEVICES, MemoryModel, ThrottleReason
from gpufleet_api.telemetry.value_types import (
    Celsius,
    Count,
    Megahertz,
    MiB,
    Milliwatts,
    Percent,
    PromisedMiB,
    PromisedPercent,
)


class HealthState(StrEnum):
    """Whether a device has a fault."""

    HEALTHY = "Healthy"
    UNHEALTHY = "Unhealthy"


class Recovery(StrEnum):
    """What ends a fault or warning: nothing, a reset of the device, a reboot of the node, or another device."""

    AUTOMATIC = "Automatic"
    RESET = "Reset"
    REBOOT = "Reboot"
    REPLACEMENT = "Replacement"


class HealthReason(ApiModel):
    """One fault or warning of a device."""

    code: Annotated[str, Field(min_length=1, max_length=64)]
    """CamelCase reason, such as XidError or DeviceLost."""
    message: Text | None = None
    """Details of the fault or warning, for people."""
    since: Timestamp
    """Time at which the fault or warning was first seen, by the node's clock."""
    recovery: Recovery | None = None
    """What ends the fault or warning. Automatic: it ends by itself. Reset: the device, the driver or the node must be
    reset. Reboot: the node must be rebooted. Replacement: the device must be replaced or repaired."""


class HealthStatus(ApiModel):
    """Health of a device, with its current faults and warnings."""

    state: HealthState
    """Unhealthy while the device has a fault, else Healthy. No new pod is placed on an Unhealthy device."""
    reasons: Annotated[list[HealthReason], Field(max_length=16), ListMap("code")] = EMPTY
    """Current faults."""
    warnings: Annotated[list[HealthReason], Field(max_length=16), ListMap("code")] = EMPTY
    """Current warnings. A warning does not make a device Unhealthy."""
    since: Timestamp | None = None
    """Time at which `state` last changed."""


class Clocks(ApiModel):
    """Current clock frequencies, in MHz."""

    sm_mhz: Megahertz | None = None
    """Frequency of the streaming multiprocessors, in MHz."""
    memory_mhz: Megahertz | None = None
    """Frequency of the memory, in MHz."""


class Ecc(ApiModel):
    """ECC memory errors since the driver was loaded or the device was reset."""

    corrected_volatile: Count | None = None
    """Corrected errors."""
    uncorrected_volatile: Count | None = None
    """Uncorrected errors."""


class RowRemap(ApiModel):
    """Remapping of faulty memory rows to spare ones."""

    pending: bool | None = None
    """True when a row will be remapped at the next reset."""
    failed: bool | None = None
    """True when a row could not be remapped because no spare row is left."""


class MigMode(StrEnum):
    """Whether a device is partitioned by MIG."""

    ENABLED = "Enabled"
    DISABLED = "Disabled"


class Statistics(ApiModel):
    """Statistics of one quantity over the window, in the unit of that quantity."""

    mean: Annotated[int, Field(ge=-273, le=2**40)]
    """Arithmetic mean."""
    max: Annotated[int, Field(ge=-273, le=2**40)]
    """Maximum."""
    p95: Annotated[int, Field(ge=-273, le=2**40)]
    """95th percentile."""


class WindowStatistics(ApiModel):
    """Statistics over the recent samples of a device. A quantity that no sample has is absent."""

    samples: Annotated[int, Field(ge=1, le=100_000)]
    """Number of samples in the window."""
    seconds: Annotated[int, Field(ge=0, le=86_400)]
    """Time between the first and the last sample of the window, in seconds."""
    utilization_percent: Statistics | None = None
    """Compute utilization, in percent."""
    memory_used_mib: Statistics | None = None
    """Memory in use, in MiB."""
    temperature_celsius: Statistics | None = None
    """Temperature of the GPU, in degrees Celsius."""
    power_milliwatts: Statistics | None = None
    """Power draw, in milliwatts."""


class MemoryOveruse(ApiModel):
    """Use of more device memory than was promised. It is reported, not prevented."""

    memory_used_mib: MiB
    """Memory of the device that the container uses, in MiB, as of about the last heartbeat."""
    since: Timestamp
    """Time at which the overuse was first seen."""


class DeviceHolder(ApiModel):
    """A container that holds the device, as reported by the kubelet's PodResources API."""

    namespace: Label
    """Namespace of the pod."""
    pod: Name
    """Name of the pod."""
    container: Label
    """Name of the container."""
    pod_uid: Annotated[str, Field(max_length=64)] | None = None
    """UID of the pod whose assignment was honored. Absent without an assignment, unless the container terminates."""
    shared: bool | None = None
    """True when the container holds a share slot of the device, absent when it holds the whole device."""
    memory_mib: PromisedMiB | None = None
    """Memory of the device that is promised to the container, in MiB. Absent for a share slot without assignment."""
    compute_percent: PromisedPercent | None = None
    """Compute of the device that is promised to the container, in percent."""
    utilization_percent: Percent | None = None
    """Compute utilization of the device by the container's processes, in percent."""
    memory_used_mib: MiB | None = None
    """Memory of the device that the container uses, in MiB. Shared devices only."""
    memory_used_max_mib: MiB | None = None
    """Most memory of it that the container used in ten minutes, or since `observedSince` if later, in MiB."""
    observed_since: Timestamp | None = None
    """Time from which the agent has observed the container's memory without interruption."""
    terminating: bool | None = None
    """True when the kubelet no longer lists the pod, as after a forced deletion, but a process of it still runs."""
    overuse: MemoryOveruse | None = None
    """Set while the container uses more of the device's memory than it was promised."""


class Device(ApiModel):
    """One GPU or MIG partition. A value that the hardware does not report is absent, never 0."""

    uuid: Uuid
    """UUID of the device, such as GPU-8f4c... or MIG-..."""
    index: Annotated[int, Field(ge=0, le=MAX_DEVICES - 1)]
    """NVML index of the device on the node."""
    model: Annotated[str, Field(min_length=1, max_length=96)]
    """Product name as reported by NVML, such as NVIDIA H100 80GB HBM3."""
    architecture: Annotated[str, Field(max_length=32)] | None = None
    """Architecture, such as Hopper."""
    compute_capability: Annotated[str, Field(max_length=8, pattern=r"^[0-9]+\.[0-9]+$")] | None = None
    """CUDA compute capability, such as 9.0."""
    pci_bus_id: Annotated[str, Field(max_length=32)] | None = None
    """PCI bus ID, such as 00000000:3B:00.0."""
    numa_node: Annotated[int, Field(ge=0, le=1023)] | None = None
    """NUMA node that the device is attached to."""
    nvlink_peers: Annotated[list[Uuid], Field(max_length=MAX_DEVICES), ListSet()] = EMPTY
    """UUIDs of the devices that are connected to this one by NVLink."""
    sample_time: Timestamp | None = None
    """Time of the sample below, by the node's clock."""
    memory_total_mib: MiB | None = None
    """Total memory, in MiB."""
    memory_used_mib: MiB | None = None
    """Memory in use, in MiB, without the memory that the driver reserves."""
    memory_reserved_mib: MiB | None = None
    """Memory that the driver reserves, in MiB. Free memory is the total minus the memory in use and reserved."""
    memory_model: MemoryModel | None = None
    """Unified: the device uses node memory, and the memory values above are those of the node. NUMA: the operating
    system manages the device's memory as a NUMA node. Absent: the memory is the device's own."""
    utilization_percent: Percent | None = None
    """Compute utilization, in percent."""
    memory_utilization_percent: Percent | None = None
    """Utilization of the memory bandwidth, in percent."""
    temperature_celsius: Celsius | None = None
    """Temperature of the GPU, in degrees Celsius."""
    memory_temperature_celsius: Celsius | None = None
    """Temperature of the memory, in degrees Celsius."""
    power_milliwatts: Milliwatts | None = None
    """Power draw, in milliwatts."""
    power_limit_milliwatts: Milliwatts | None = None
    """Enforced power limit, in milliwatts."""
    clocks: Clocks | None = None
    throttle_reasons: Annotated[list[ThrottleReason], Field(max_length=16), ListSet()] = EMPTY
    """Reasons for which the device runs below its clocks. Idleness is not listed."""
    ecc: Ecc | None = None
    row_remap: RowRemap | None = None
    page_retirement_pending: bool | None = None
    """True when a faulty memory page will be retired at the next reset. GPUs before Ampere, which remap no rows."""
    mig_mode: MigMode | None = None
    """Whether the GPU is partitioned by MIG."""
    process_count: Annotated[int, Field(ge=0, le=100_000)] | None = None
    """Number of processes on the device, inside and outside of containers."""
    health: HealthStatus
    withheld: Text | None = None
    """Why the device cannot be given to a container although it has no fault, such as a missing device node. No new
    pod is placed on it; a container that holds it keeps it."""
    window: WindowStatistics | None = None
    allocated_to: Annotated[list[DeviceHolder], Field(max_length=64), ListMap("namespace", "pod", "container")] = EMPTY
    """Containers that hold the device."""

    @property
    def offered(self) -> bool:
        """True when a container can be given the device, as far as its agent knows."""
        return self.health.state is HealthState.HEALTHY and self.withheld is None
