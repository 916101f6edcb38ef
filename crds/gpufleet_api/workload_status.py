"""Status of a GPUWorkload: conditions, placements, and why replicas are not placed.

The conditions Ready, Reconciling and Stalled follow kstatus, so that `kubectl wait`, Argo CD and Flux understand them.
Complete, Failed and Suspended have the meaning that they have for a Job. Allocated, Placed and Degraded are gpufleet's
own.
"""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from gpufleet_api.base import ApiModel, Name, Text, Timestamp, Uuid
from gpufleet_api.condition import Condition
from gpufleet_api.markers import EMPTY, ListAtomic, ListMap, ListSet
from gpufleet_api.names import MAX_DEVICES_PER_REPLICA, MAX_REPLICAS
from gpufleet_api.telemetry.value_types import Count, Items, PromisedMiB


class WorkloadState(StrEnum):
    """Summary of a workload, for people and for the column STATUS."""

    PENDING = "Pending"
    """No replica runs."""
    RUNNING = "Running"
    """At least one replica runs."""
    COMPLETE = "Complete"
    FAILED = "Failed"
    SUSPENDED = "Suspended"
    SCALED_TO_ZERO = "ScaledToZero"
    IDLE = "Idle"
    """Without a template: there is no pod to place, and none runs."""


class PlacementState(StrEnum):
    """Lifecycle state of a replica."""

    PENDING = "Pending"
    """No devices are reserved yet. The pod, if it exists, has the scheduling gate."""
    RESERVED = "Reserved"
    """Devices are reserved; the pod is not bound to its node yet."""
    BOUND = "Bound"
    """The pod is bound to its node; the kubelet has not reported its devices yet."""
    ALLOCATED = "Allocated"
    """The kubelet reports that the container holds exactly the reserved devices."""
    MISMATCH = "Mismatch"
    """The kubelet reports that the container holds other devices. The pod is being replaced."""
    REJECTED = "Rejected"
    """The kubelet rejected the pod, which never ran. The pod is being replaced."""
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    UNKNOWN = "Unknown"
    """The pod no longer exists, and how it ended was not seen. A workload that completes does not run again."""


class ScoreTerms(ApiModel):
    """Score of the devices and its terms, 0 to 1000 each (1000 is best), as means over the replica's devices."""

    total: Annotated[int, Field(ge=0, le=1000)]
    """Weighted mean of the terms, in thousandths."""
    memory: Annotated[int, Field(ge=0, le=1000)] | None = None
    """Free memory, in thousandths of the total."""
    utilization: Annotated[int, Field(ge=0, le=1000)] | None = None
    """Unused compute, in thousandths."""
    temperature: Annotated[int, Field(ge=0, le=1000)] | None = None
    """1000 at 30 degrees Celsius or less, 0 at 90 or more."""
    power: Annotated[int, Field(ge=0, le=1000)] | None = None
    """Power headroom, in thousandths of the power limit."""


class ReplicaPlacement(ApiModel):
    """Pod, node, devices and shard of one replica."""

    replica: Annotated[int, Field(ge=0, le=MAX_REPLICAS - 1)]
    """Index of the replica, from 0."""
    state: PlacementState
    """Pending: no devices are reserved. Reserved: devices are reserved. Bound: the pod is bound to its node. Allocated:
    the kubelet reports exactly the reserved devices. Mismatch: the kubelet reports other devices, the pod is being
    replaced. Rejected: the kubelet rejected the pod, which is being replaced. Succeeded and Failed: the pod ended."""
    attempt: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    """Number of the attempt, from 0, as in GPUFLEET_ATTEMPT. Absent means 0."""
    failures: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    """Number of failures of the replica. Absent means 0."""
    rejections: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    """Number of consecutive rejected pods; of a gang, of all its replicas. Absent means 0."""
    last_rejection_time: Timestamp | None = None
    """Time of the last of these rejections."""
    retry_time: Timestamp | None = None
    """Time from which on all nodes are tried again after these rejections."""
    ready: bool | None = None
    """True when the pod is Ready and holds its devices."""
    removal: Annotated[str, Field(max_length=64)] | None = None
    """Reason for which the operator removes the pod, as in its event. The end of the pod is not a loss of the replica.
    """
    pod: Name | None = None
    """Name of the pod."""
    pod_uid: Annotated[str, Field(max_length=64)] | None = None
    """UID of the pod."""
    node: Name | None = None
    """Node of the reserved devices."""
    devices: Annotated[list[Uuid], Field(max_length=MAX_DEVICES_PER_REPLICA), ListSet()] = EMPTY
    """UUIDs of the reserved devices."""
    demand_mib: PromisedMiB | None = None
    """Memory of each device with which the replica is placed instead of its promise, in MiB (placement.demand)."""
    demand_runs: Count | None = None
    """Number of earlier runs from which `demandMiB` was learned."""
    shard_start: Items | None = None
    """First item of the replica's shard."""
    shard_end: Items | None = None
    """Item after the last one of the replica's shard."""
    score: ScoreTerms | None = None
    message: Text | None = None
    """Details of the state, for people."""


class IneligibleDevices(ApiModel):
    """Number of devices that fail one filter first."""

    reason: Annotated[str, Field(min_length=1, max_length=64)]
    """First filter that the devices fail, such as InsufficientFreeMemory."""
    devices: Annotated[int, Field(ge=0, le=2**31)]
    """Number of devices."""
    nodes: Annotated[int, Field(ge=0, le=2**31)]
    """Number of nodes that have such devices."""


class NearestMiss(ApiModel):
    """The device or node that comes closest to meeting the request, and what it lacks."""

    node: Name
    """Name of the node."""
    device: Uuid | None = None
    """UUID of the device. Absent when the node as a whole fails."""
    reason: Annotated[str, Field(min_length=1, max_length=64)]
    """Filter that it fails."""
    message: Text
    """Unmet requirement with numbers, for people."""


class NodeRejection(ApiModel):
    """A rejection of a replica's pod on a node."""

    replica: Annotated[int, Field(ge=0, le=MAX_REPLICAS - 1)]
    """Index of the replica."""
    node: Name
    """Node of the devices that were reserved for the pod."""
    by: Annotated[str, Field(max_length=32)]
    """Component that rejected the pod: kube-scheduler, kubelet or gpufleet."""
    message: Text
    """The component's own message."""
    time: Timestamp
    """Time of the rejection."""


MAX_EARMARK_NODES = 64


class EarmarkStatus(ApiModel):
    """Devices that no workload further back in the queue gets."""

    since: Timestamp
    """Time at which the devices were first earmarked for the workload."""
    devices: Annotated[int, Field(ge=1, le=2**31)]
    """Number of earmarked devices."""
    devices_in_use: Annotated[int, Field(ge=0, le=2**31)]
    """Number of them that pods still hold."""
    nodes: Annotated[list[Name], Field(max_length=MAX_EARMARK_NODES), ListSet()] = EMPTY
    """Nodes of the devices."""


class Explanation(ApiModel):
    """Why replicas are not placed."""

    message: Annotated[str, Field(max_length=4096)]
    """Summary with counts, such as 0/16 GPUs are available: 5 in use, 11 insufficient memory."""
    devices_considered: Annotated[int, Field(ge=0, le=2**31)]
    """Number of devices in the fleet."""
    devices_eligible: Annotated[int, Field(ge=0, le=2**31)]
    """Number of devices that pass all filters."""
    ineligible_devices: Annotated[list[IneligibleDevices], Field(max_length=32), ListAtomic()] = EMPTY
    """Number of devices by the first filter that they fail."""
    nearest_miss: NearestMiss | None = None
    earmark: EarmarkStatus | None = None
    node_rejections: Annotated[list[NodeRejection], Field(max_length=32)] = EMPTY
    """Recent rejections of pods by kube-scheduler, kubelets or gpufleet, latest first."""


ReplicaCount = Annotated[int, Field(ge=0, le=MAX_REPLICAS)]


class WorkloadStatus(ApiModel):
    """Placements and conditions. Only the operator writes it."""

    observed_generation: Annotated[int, Field(ge=0, le=2**53)] | None = None
    """The metadata.generation that the status describes."""
    conditions: Annotated[list[Condition], Field(max_length=16), ListMap("type")] = EMPTY
    """Ready, Allocated, Placed, Complete, Failed, Suspended, Degraded, Reconciling and Stalled. Ready, Reconciling and
    Stalled follow kstatus."""
    state: WorkloadState | None = None
    """Summary of the workload. Pending: no replica runs. Running: at least one replica runs. Complete: all replicas
    succeeded. Failed: the workload failed. Suspended: spec.suspend is true. ScaledToZero: spec.replicas is 0. Idle:
    there is no template, and no pod runs or waits."""
    reason: Annotated[str, Field(max_length=64)] | None = None
    """Reason of the state: that of the condition Ready, or of Complete or Suspended, for which Ready is absent."""
    ready: Annotated[str, Field(max_length=16)] | None = None
    """Number of ready replicas, of all replicas, such as 7/8. A replica that succeeded counts as ready."""
    replicas: ReplicaCount | None = None
    """Number of replicas that have a pod."""
    ready_replicas: ReplicaCount | None = None
    """Number of replicas whose pod is Ready and holds its devices."""
    allocated_replicas: ReplicaCount | None = None
    """Number of replicas whose container holds exactly the reserved devices."""
    updated_replicas: ReplicaCount | None = None
    """Number of replicas whose pod has the current template."""
    succeeded: ReplicaCount | None = None
    """Number of replicas that succeeded."""
    failed: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    """Number of failures of all replicas, which runPolicy.backoffLimit limits. Replicas that restart together count
    one."""
    restarts: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    """Number of consecutive starts of all replicas after the loss of one, without failures of the application."""
    restart_time: Timestamp | None = None
    """Time of the last of these starts. The pods of the attempt are created from then on."""
    incomplete_since: Timestamp | None = None
    """Since when some replicas of a gang run without the others, which placement.gangTimeoutSeconds limits."""
    selector: Annotated[str, Field(max_length=256)] | None = None
    """Label selector of the pods, for the scale subresource."""
    start_time: Timestamp | None = None
    """Time at which the workload first had all of its devices. Reset when it is resumed after spec.suspend."""
    completion_time: Timestamp | None = None
    """Time at which the workload became complete or failed."""
    gpus: Annotated[int, Field(ge=0, le=MAX_REPLICAS * MAX_DEVICES_PER_REPLICA)] | None = None
    """Number of devices that are reserved for the replicas."""
    nodes: Annotated[str, Field(max_length=1024)] | None = None
    """Names of the nodes in use, separated by commas."""
    placements: Annotated[list[ReplicaPlacement], Field(max_length=MAX_REPLICAS), ListAtomic()] = EMPTY
    """Pod, node, devices and shard of each replica."""
    unassigned_items: Items | None = None
    """Number of items that no replica gets because of distribution.maxPerReplica."""
    explanation: Explanation | None = None
