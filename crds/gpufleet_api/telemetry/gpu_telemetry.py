"""GPUTelemetry: what one node's GPUs measure, which of them are reserved, and which are out of service.

Each field has one writer: the operator writes `spec.assignments` (the reservations) and `status.conditions`,
administrators write `spec.cordoned`, and the node's agent writes the rest of `status`. A change of the spec raises
`metadata.generation` and a change of the status does not, so the operator's compare-and-swap on the generation never
conflicts with telemetry.
"""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from gpufleet_api.base import ApiModel, ContainerDevices, Label, MovedFrom, Name, ObjectMeta, Text, Timestamp, Uuid
from gpufleet_api.condition import Condition
from gpufleet_api.markers import EMPTY, Cel, ListMap, ListSet, NullIsEmpty
from gpufleet_api.names import (
    MAX_ASSIGNMENTS,
    MAX_DEVICES,
    MAX_REPLICAS,
    WHOLE_DEVICE_PERCENT,
    MemoryModel,
    Reclaim,
    TelemetryState,
    ThrottleReason,
    Transport,
)

Percent = Annotated[int, Field(ge=0, le=100)]
MiB = Annotated[int, Field(ge=0, le=2**31 - 1)]
Celsius = Annotated[int, Field(ge=-273, le=1000)]
Megahertz = Annotated[int, Field(ge=0, le=100_000)]
Milliwatts = Annotated[int, Field(ge=0, le=2**31 - 1)]
PromisedMiB = Annotated[int, Field(ge=1, le=2**24)]
PromisedPercent = Annotated[int, Field(ge=1, le=WHOLE_DEVICE_PERCENT)]
Items = Annotated[int, Field(ge=0, le=2**53)]
Count = Annotated[int, Field(ge=0, le=2**53)]


class Assignment(ApiModel):
    """Reservation of devices of this node for the containers of one pod."""

    rules: ClassVar = (
        Cel(
            "has(self.shardStart) == has(self.shardEnd) && (!has(self.shardStart) || self.shardStart <= self.shardEnd)",
            "shardStart and shardEnd must be set together, and shardStart must be less than or equal to shardEnd",
        ),
        Cel("!has(self.computePercent) || has(self.memoryMiB)", "computePercent may not be set without memoryMiB"),
        Cel(
            "!has(self.containers) || self.containers.map(c, c.count).sum() == size(self.devices)",
            "containers must have as many devices together as there are in devices",
        ),
    )

    pod_uid: Annotated[str, Field(min_length=1, max_length=64)]
    """UID of the pod that the devices are reserved for."""
    namespace: Label
    """Namespace of the pod."""
    pod: Name
    """Name of the pod."""
    container: Label
    """Name of the container that gets the devices; the first of several."""
    containers: Annotated[list[ContainerDevices], Field(min_length=1, max_length=16), ListMap("name")] | None = None
    """Containers that get devices, in the order of their start, when there are several: each gets the next devices."""
    workload: Name
    """Name of the GPUWorkload, in the pod's namespace."""
    workload_uid: Annotated[str, Field(min_length=1, max_length=64)]
    """UID of the GPUWorkload."""
    replica: Annotated[int, Field(ge=0, le=MAX_REPLICAS - 1)]
    """Index of the replica, from 0."""
    replicas: Annotated[int, Field(ge=1, le=MAX_REPLICAS)]
    """Number of replicas of the GPUWorkload."""
    resource: Annotated[str, Field(min_length=1, max_length=128)]
    """Extended resource that the container requests, such as `gpufleet.dev/gpu`."""
    devices: Annotated[list[Uuid], Field(min_length=1, max_length=MAX_DEVICES), ListSet()]
    """UUIDs of the reserved devices."""
    memory_mib: PromisedMiB | None = None
    """Memory of each device that is promised to the container, in MiB. Set for shared devices only."""
    compute_percent: PromisedPercent | None = None
    """Compute of each device that is promised to the container, in percent. Set for shared devices only."""
    demand_mib: PromisedMiB | None = None
    """Memory of each device with which the container is placed instead of its promise, in MiB (placement.demand)."""
    demand_runs: Count | None = None
    """Number of earlier runs from which `demandMiB` was learned."""
    shard_start: Items | None = None
    """First item of the replica's shard. Set for workloads with a distribution only."""
    shard_end: Items | None = None
    """Item after the last one of the replica's shard."""
    decided_at: Timestamp
    """Time of the decision, by the operator's clock; of the release if it is not in the same pass."""
    termination_grace_period_seconds: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    """Grace period of the pod, for which its containers may run after a forced deletion. Absent: 30 seconds."""
    reclaim: Reclaim | None = None
    """Used when other pods may get the promised memory that the container does not use. Absent: Never."""
    moved_from: MovedFrom | None = None
    """Set when the devices were picked to relieve a device: for the pod that replaces the evicted one."""
    keep_for_successor: bool | None = None
    """True when the reservation outlives the pod, because the next pod of the replica gets the same devices. Set before
    a pod of an older template is deleted."""


class CordonedDevice(ApiModel):
    """A device that is out of service: no new container gets it."""

    uuid: Uuid
    """UUID of the device."""
    reason: Annotated[str, Field(min_length=1, max_length=256)]
    """Why the device is out of service, for people."""
    by: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    """Person or tool that cordoned the device, as stated by the writer. It is not verified."""
    until: Timestamp | None = None
    """Time at which the device returns to service. Absent: when the entry is removed."""
    drain: bool = False
    """True: the pods of GPUWorkloads that hold the device are evicted, subject to PodDisruptionBudgets, and placed
    elsewhere. False: they keep it."""


class TelemetrySpec(ApiModel):
    """Reservations of the node's devices, and devices that are out of service."""

    assignments: Annotated[list[Assignment], Field(max_length=MAX_ASSIGNMENTS), ListMap("podUID")] = EMPTY
    """Reservations, one per pod. The device plugin on the node hands out devices by them. Only the operator, which has
    the verb assign, may write them."""
    cordoned: Annotated[list[CordonedDevice], Field(max_length=MAX_DEVICES), ListMap("uuid"), NullIsEmpty()] = EMPTY
    """Devices that are out of service. Only subjects with the verb cordon may write them."""


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


class Summary(ApiModel):
    """Totals over the node's devices. A total of a quantity that no device reports is absent."""

    state: TelemetryState | None = None
    """Ready: the driver is available. Stale: no device was sampled in the last 90 seconds. NoDriver: the GPU driver is
    not available on the node. When the agent does not run, the last state stays; see `observedAt`."""
    devices: Annotated[int, Field(ge=0, le=MAX_DEVICES)]
    """Number of devices."""
    healthy: Annotated[int, Field(ge=0, le=MAX_DEVICES)]
    """Number of devices without a fault."""
    allocated: Annotated[int, Field(ge=0, le=MAX_DEVICES)]
    """Number of devices that containers hold, as a whole or a share of them."""
    free: Annotated[int, Field(ge=0, le=MAX_DEVICES)] | None = None
    """Number of devices that can be given to a container and that no container holds."""
    memory_total_mib: MiB | None = None
    """Total memory of all devices, in MiB."""
    memory_used_mib: MiB | None = None
    """Memory in use on all devices, in MiB."""
    memory_available_mib: MiB | None = None
    """Memory that is neither in use nor reserved on healthy devices, in MiB."""
    mean_utilization_percent: Percent | None = None
    """Mean compute utilization, in percent."""
    mean_temperature_celsius: Celsius | None = None
    """Mean temperature, in degrees Celsius."""
    power_watts: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    """Power draw of all devices, in watts."""


class TelemetryStatus(ApiModel):
    """Measurements of the node's devices. The node's agent writes it, except for the conditions."""

    assignments_generation: Annotated[int, Field(ge=0, le=2**53)] | None = None
    """The metadata.generation whose assignments the agent had read when it wrote this status."""
    observed_at: Timestamp
    """Time at which the agent wrote this status, by the node's clock."""
    sample_time: Timestamp | None = None
    """Time of the newest sample of any device, by the node's clock."""
    agent_version: Annotated[str, Field(max_length=64)]
    """Version of the agent."""
    driver_version: Annotated[str, Field(max_length=64)] | None = None
    """Version of the GPU driver. Absent while the driver is not available or does not report it."""
    boot_id: Annotated[str, Field(max_length=64)] | None = None
    """Boot ID of the node. Faults reported in an earlier boot are over."""
    transport: Transport | None = None
    """How containers get the devices. DRA: by ResourceClaims, without an extended resource. Absent: DevicePlugin."""
    processes_observed: bool | None = None
    """True when the agent can list the processes of the node: a container is in `allocatedTo` until its pod has no
    process. Absent otherwise: a container of a pod that was deleted by force may run without being listed."""
    devices: Annotated[list[Device], Field(max_length=MAX_DEVICES), ListMap("uuid")] = EMPTY
    """Devices of the node, by NVML index."""
    summary: Summary
    conditions: Annotated[list[Condition], Field(max_length=8), ListMap("type")] = EMPTY
    """Conditions Fresh and Healthy, and Drained while a device is drained. Only the operator writes them."""


class GPUTelemetry(ApiModel):
    """Measurements and reservations of one node's GPUs. The object has the name of its node, which owns it."""

    metadata: ObjectMeta
    spec: TelemetrySpec = TelemetrySpec()
    status: TelemetryStatus | None = None
