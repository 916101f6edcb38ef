"""GPUWorkload: what a user asks for, and what became of it.

Conditions follow kstatus, so that `kubectl wait`, Argo CD and Flux understand them: Ready, Reconciling, Stalled,
beside our own Placed and Degraded.
"""

from enum import StrEnum
from typing import Annotated, Any, ClassVar

from pydantic import Field

from gpufleet_api.base import ApiModel, Label, Name, Text, Timestamp, Uuid
from gpufleet_api.markers import Cel, FreeForm, ListMap, ListSet
from gpufleet_api.pod_template import POD_TEMPLATE
from gpufleet_api.telemetry import Celsius, Items, MiB, ObjectMeta, Percent, PromisedMiB, PromisedPercent

MAX_REPLICAS = 1024
MAX_DEVICES_PER_REPLICA = 16
MAX_NAME = 50
"""Longest name of a workload: a pod's name adds the replica and a suffix, and must fit into 63 characters."""


class Strategy(StrEnum):
    """How to choose among the devices that pass."""

    BEST = "Best"
    """The devices with the highest score by live telemetry."""
    PACK = "Pack"
    """Keep the fleet usable for what is likely to come: fill nodes that are in use already."""
    SPREAD = "Spread"
    """As few replicas per node as can be, the best devices of each node."""


class Topology(StrEnum):
    """How the devices of one replica must be connected."""

    NONE = "None"
    SAME_NODE = "SameNode"
    """All replicas on one node."""
    NVLINK = "NVLink"
    """The devices of one replica are all joined by NVLink."""
    NUMA = "NUMA"
    """The devices of one replica hang on one NUMA node."""


class DeviceMode(StrEnum):
    """How a container holds its devices."""

    EXCLUSIVE = "Exclusive"
    """As a whole: nobody else is on them."""
    SHARED = "Shared"
    """A part of each, beside others' parts."""


class Devices(ApiModel):
    """What each replica gets."""

    rules: ClassVar = (
        Cel(
            "self.mode != 'Shared' || has(self.memoryMiB)",
            "devices.memoryMiB is required with mode Shared: the memory of each device that a replica is promised",
            reason="FieldValueRequired",
            field_path=".memoryMiB",
        ),
        Cel(
            "self.mode == 'Shared' || !has(self.memoryMiB)",
            "devices.memoryMiB belongs to mode Shared; a whole device's memory is asked for by"
            " requirements.minFreeMemoryMiB",
            field_path=".memoryMiB",
        ),
        Cel(
            "self.mode == 'Shared' || !has(self.computePercent)",
            "devices.computePercent belongs to mode Shared; leave it out with mode Exclusive",
            field_path=".computePercent",
        ),
    )

    count: Annotated[int, Field(ge=1, le=MAX_DEVICES_PER_REPLICA)] = 1
    """Devices for each replica, all of one node."""
    mode: DeviceMode = DeviceMode.EXCLUSIVE
    """Exclusive: whole devices, with nobody else on them. Shared: a part of each, beside others' parts."""
    memory_mib: PromisedMiB | None = None
    """Shared only: memory of each device that a replica is promised, in MiB. All promises together never exceed the
    device; a container that takes more than it was promised isn't stopped from it."""
    compute_percent: PromisedPercent | None = None
    """Shared only: compute of each device that a replica is promised, in percent. Absent promises none."""
    container: Label | None = None
    """The app container that gets them; needed only when the template has more than one."""


class Requirements(ApiModel):
    """What a device must satisfy at the moment of the decision. An absent measurement fails its test."""

    rules: ClassVar = (
        Cel(
            "!has(self.includeUUIDs) || !has(self.excludeUUIDs)"
            " || !self.includeUUIDs.exists(u, u in self.excludeUUIDs)",
            "a UUID may stand in includeUUIDs or in excludeUUIDs, not in both",
            field_path=".excludeUUIDs",
        ),
    )

    min_free_memory_mib: MiB | None = None
    """Memory that must be free on each device, in MiB."""
    max_utilization_percent: Percent | None = None
    """Highest compute utilization of a device, in percent."""
    max_temperature_celsius: Celsius | None = None
    """Highest temperature of a device, in degrees Celsius."""
    models: Annotated[list[Annotated[str, Field(min_length=1, max_length=96)]], Field(max_length=16), ListSet()] = []
    """Accepted models, as NVML names them; empty accepts all."""
    min_compute_capability: Annotated[str, Field(max_length=8, pattern=r"^[0-9]+\.[0-9]+$")] | None = None
    """Lowest CUDA compute capability, such as `8.0`."""
    include_uuids: Annotated[list[Uuid], Field(max_length=64), ListSet()] = []
    """Only these devices; empty accepts all."""
    exclude_uuids: Annotated[list[Uuid], Field(max_length=64), ListSet()] = []
    """None of these devices."""
    node_selector: Annotated[dict[str, Annotated[str, Field(max_length=63)]], Field(max_length=16)] = {}
    """Labels that the node must have."""


Weight = Annotated[int, Field(ge=0, le=100)]


class Weights(ApiModel):
    """How much each term counts in the score of strategy Best. Only their ratio matters."""

    rules: ClassVar = (
        Cel(
            "self.memory + self.utilization + self.temperature + self.power > 0",
            "at least one of the weights memory, utilization, temperature and power must be above 0",
        ),
    )

    memory: Weight = 40
    utilization: Weight = 30
    temperature: Weight = 20
    power: Weight = 10


class OnDegraded(StrEnum):
    """What becomes of a replica when one of its devices turns out to be faulty."""

    IGNORE = "Ignore"
    """Condition Degraded, and nothing else."""
    REPLACE = "Replace"
    """Condition Degraded; then the pod is deleted and placed anew, on devices that are healthy."""


class Placement(ApiModel):
    """How the replicas are placed."""

    strategy: Strategy = Strategy.BEST
    """Best: the devices with the highest score by live telemetry. Pack: fill nodes that are in use already.
    Spread: as few replicas per node as can be, the best devices of each node."""
    topology: Topology = Topology.NONE
    """None; SameNode: all replicas on one node; NVLink: the devices of one replica are all joined by NVLink;
    NUMA: the devices of one replica hang on one NUMA node."""
    weights: Weights = Weights()
    gang: bool = False
    """All replicas at once or none."""
    on_degraded: OnDegraded = OnDegraded.IGNORE
    """When a device of a running replica becomes Unhealthy. Ignore: condition Degraded tells of it, the pod runs on.
    Replace: after some seconds the pod is deleted as well, and placed anew on healthy devices."""


class DistributionMode(StrEnum):
    """How items are divided."""

    UNIFORM = "Uniform"
    PROPORTIONAL = "Proportional"


class CapacityMeasure(StrEnum):
    """What a proportional distribution measures a replica by: the sum over its devices.

    A replica of shared devices has what it is promised of them.
    """

    FREE_MEMORY = "FreeMemory"
    TOTAL_MEMORY = "TotalMemory"
    WEIGHTS = "Weights"
    """The user's own numbers, whatever the devices."""


class Distribution(ApiModel):
    """Divides `items` among the replicas as contiguous ranges, told to each container by its environment."""

    rules: ClassVar = (
        Cel(
            "self.mode != 'Uniform' || !has(self.by)",
            "distribution.by belongs to mode Proportional; leave it out with mode Uniform",
            field_path=".by",
        ),
        Cel(
            "(has(self.by) && self.by == 'Weights') == has(self.weights)",
            "distribution.weights is needed with by: Weights, and belongs to nothing else",
            field_path=".weights",
        ),
        Cel(
            "!has(self.weights) || self.weights.exists(w, w > 0)",
            "at least one of distribution.weights must be above 0",
            field_path=".weights",
        ),
    )

    items: Annotated[int, Field(ge=1, le=2**53)]
    """How many items there are to divide: 0..items-1."""
    mode: DistributionMode = DistributionMode.UNIFORM
    """Uniform: equal shares. Proportional: shares by the capacity of each replica's devices."""
    by: CapacityMeasure | None = None
    """Proportional only; FreeMemory when absent."""
    weights: (
        Annotated[
            list[Annotated[int, Field(ge=0, le=1_000_000)]],
            Field(min_length=1, max_length=MAX_REPLICAS),
        ]
        | None
    ) = None
    """With by: Weights, one number per replica, in order. Only their ratio matters; 0 gets nothing."""
    max_per_replica: Annotated[int, Field(ge=1, le=2**53)] | None = None
    """No replica gets more; what is left over is reported as status.unassignedItems."""


def _immutable(field: str, *, optional: bool = False) -> Cel:
    """`field` of the spec stays what it was; a field without a default must also stay present or absent."""
    same = f"self.{field} == oldSelf.{field}"
    if optional:
        same = f"has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || {same})"
    return Cel(same, f"{field} is immutable: create another GPUWorkload", field_path=f".{field}")


class WorkloadSpec(ApiModel):
    """The request. Only `suspend` may change after creation: pods can't be edited into other devices."""

    rules: ClassVar = (
        _immutable("replicas"),
        _immutable("template"),
        _immutable("devices"),
        _immutable("requirements", optional=True),
        _immutable("placement"),
        _immutable("distribution", optional=True),
        Cel(
            "!has(self.distribution) || !has(self.distribution.weights)"
            " || size(self.distribution.weights) == self.replicas",
            "distribution.weights must have one number for each of spec.replicas",
            field_path=".distribution.weights",
        ),
        Cel(
            "!has(self.distribution) || self.placement.gang",
            "distribution needs placement.gang: true, because the shares depend on all replicas' devices",
            field_path=".placement.gang",
        ),
    )

    replicas: Annotated[int, Field(ge=1, le=MAX_REPLICAS)] = 1
    """Number of pods, each with its own devices."""
    template: Annotated[dict[str, Any], FreeForm(POD_TEMPLATE)]
    """A pod template (metadata.labels, metadata.annotations, spec). The operator adds gate and device request."""
    devices: Devices = Devices()
    requirements: Requirements | None = None
    placement: Placement = Placement()
    distribution: Distribution | None = None
    suspend: bool = False
    """True: the pods are deleted and their devices freed; false again: placed anew."""


class ConditionStatus(StrEnum):
    """As in metav1.Condition."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(ApiModel):
    """metav1.Condition."""

    type: Annotated[str, Field(min_length=1, max_length=64)]
    status: ConditionStatus
    reason: Annotated[str, Field(min_length=1, max_length=64)]
    message: Annotated[str, Field(max_length=4096)] = ""
    observed_generation: Annotated[int, Field(ge=0, le=2**53)] | None = None
    last_transition_time: Timestamp


class PlacementState(StrEnum):
    """Where a replica stands on the road from request to proof."""

    PENDING = "Pending"
    """Gated: no devices yet."""
    RESERVED = "Reserved"
    """The reservation is written; the pod isn't on its node yet."""
    BOUND = "Bound"
    """kube-scheduler bound the pod to its node; the kubelet hasn't shown its devices yet."""
    CONFIRMED = "Confirmed"
    """The kubelet says that the container holds exactly the reserved devices."""
    MISMATCH = "Mismatch"
    """The kubelet says that it holds others; the pod is being replaced."""
    REJECTED = "Rejected"
    """The kubelet refused the pod, which never ran; it is being replaced."""
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


class ScoreTerms(ApiModel):
    """Why these devices: each term in thousandths (0..1000), mean over the replica's devices."""

    total: Annotated[int, Field(ge=0, le=1000)]
    memory: Annotated[int, Field(ge=0, le=1000)] | None = None
    utilization: Annotated[int, Field(ge=0, le=1000)] | None = None
    temperature: Annotated[int, Field(ge=0, le=1000)] | None = None
    power: Annotated[int, Field(ge=0, le=1000)] | None = None


class ReplicaPlacement(ApiModel):
    """One replica: its pod, its node, its devices and its share."""

    replica: Annotated[int, Field(ge=0, le=MAX_REPLICAS - 1)]
    state: PlacementState
    pod: Name | None = None
    pod_uid: Annotated[str, Field(max_length=64)] | None = None
    node: Name | None = None
    devices: Annotated[list[Uuid], Field(max_length=MAX_DEVICES_PER_REPLICA), ListSet()] = []
    shard_start: Items | None = None
    shard_end: Items | None = None
    score: ScoreTerms | None = None
    message: Text | None = None


class Rejection(ApiModel):
    """How many devices failed one test."""

    reason: Annotated[str, Field(min_length=1, max_length=64)]
    devices: Annotated[int, Field(ge=0, le=2**31)]
    nodes: Annotated[int, Field(ge=0, le=2**31)]


class NearestMiss(ApiModel):
    """What came closest, and what it lacks."""

    node: Name
    device: Uuid | None = None
    reason: Annotated[str, Field(min_length=1, max_length=64)]
    message: Text


class NodeRefusal(ApiModel):
    """A node that kube-scheduler or the kubelet refused for one replica, in its own words."""

    replica: Annotated[int, Field(ge=0, le=MAX_REPLICAS - 1)]
    node: Name
    by: Annotated[str, Field(max_length=32)]
    message: Text
    time: Timestamp


class Explanation(ApiModel):
    """Why the workload waits, in words with numbers and as counts."""

    message: Annotated[str, Field(max_length=4096)]
    devices_considered: Annotated[int, Field(ge=0, le=2**31)]
    devices_eligible: Annotated[int, Field(ge=0, le=2**31)]
    rejections: Annotated[list[Rejection], Field(max_length=32), ListMap("reason")] = []
    nearest_miss: NearestMiss | None = None
    refusals: Annotated[list[NodeRefusal], Field(max_length=32)] = []


class WorkloadStatus(ApiModel):
    """What became of the request. Written by the operator on change."""

    observed_generation: Annotated[int, Field(ge=0, le=2**53)] | None = None
    conditions: Annotated[list[Condition], Field(max_length=16), ListMap("type")] = []
    confirmed: Annotated[str, Field(max_length=16)] | None = None
    """Replicas whose devices the kubelet confirmed, of all: `7/8`."""
    nodes: Annotated[str, Field(max_length=1024)] | None = None
    """Nodes in use, for the table: `node-1,node-2`."""
    placements: Annotated[list[ReplicaPlacement], Field(max_length=MAX_REPLICAS), ListMap("replica")] = []
    unassigned_items: Items | None = None
    explanation: Explanation | None = None


class GPUWorkload(ApiModel):
    """A user's request for devices, and the answer."""

    rules: ClassVar = (
        Cel(
            f"size(self.metadata.name) <= {MAX_NAME}",
            f"metadata.name may have at most {MAX_NAME} characters, because the names of the pods are made from it",
        ),
    )

    metadata: ObjectMeta
    spec: WorkloadSpec
    status: WorkloadStatus | None = None
