"""Spec of a GPUTelemetry: the reservations of the node's devices, and the devices that are out of service."""

from typing import Annotated, ClassVar

from pydantic import Field

from gpufleet_api.base import ApiModel, ContainerDevices, Label, MovedFrom, Name, Timestamp, Uuid
from gpufleet_api.markers import EMPTY, Cel, ListMap, ListSet, NullIsEmpty
from gpufleet_api.names import MAX_ASSIGNMENTS, MAX_DEVICES, MAX_REPLICAS, Reclaim
from gpufleet_api.telemetry.value_types import Count, Items, PromisedMiB, PromisedPercent


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
