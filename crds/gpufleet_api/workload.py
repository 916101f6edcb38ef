"""GPUWorkload: a user's request for devices. Its status is in `workload_status`."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, ClassVar

from pydantic import Field

from gpufleet_api.base import ApiModel, ContainerDevices, Label, ObjectMeta, Uuid
from gpufleet_api.markers import EMPTY, EMPTY_MAP, Cel, FreeForm, ListMap, ListSet
from gpufleet_api.names import MAX_DEVICES_PER_REPLICA, MAX_REPLICAS
from gpufleet_api.pod_template import POD_TEMPLATE
from gpufleet_api.telemetry.value_types import Celsius, MiB, Percent, PromisedMiB, PromisedPercent
from gpufleet_api.workload_placement import Placement
from gpufleet_api.workload_policies import Network, RunPolicy, UpdateStrategy
from gpufleet_api.workload_status import WorkloadStatus

MAX_NAME = 50
"""Longest name of a workload: a pod's name adds the replica and a suffix, and must fit into 63 characters."""

_FORBIDDEN = "FieldValueForbidden"
_REQUIRED = "FieldValueRequired"


class DeviceMode(StrEnum):
    """How a container holds its devices."""

    EXCLUSIVE = "Exclusive"
    """Whole devices."""
    SHARED = "Shared"
    """A share of each device."""


class Devices(ApiModel):
    """Devices of each replica."""

    rules: ClassVar = (
        Cel(
            "self.mode != 'Shared' || has(self.memoryMiB)",
            "must be set when devices.mode is Shared",
            reason=_REQUIRED,
            field_path=".memoryMiB",
        ),
        Cel(
            "self.mode == 'Shared' || !has(self.memoryMiB)",
            "may not be set when devices.mode is Exclusive; use requirements.minFreeMemoryMiB to require free memory",
            reason=_FORBIDDEN,
            field_path=".memoryMiB",
        ),
        Cel(
            "self.mode == 'Shared' || !has(self.computePercent)",
            "may not be set when devices.mode is Exclusive",
            reason=_FORBIDDEN,
            field_path=".computePercent",
        ),
        Cel(
            "!has(self.containers) || size(self.containers) == 0 || !has(self.container)",
            "may not be set when devices.containers is set",
            reason=_FORBIDDEN,
            field_path=".container",
        ),
        Cel(
            "!has(self.containers) || size(self.containers) == 0"
            " || self.containers.map(c, c.count).sum() == self.count",
            "must be the sum of the counts in devices.containers",
            field_path=".count",
        ),
    )

    count: Annotated[int, Field(ge=1, le=MAX_DEVICES_PER_REPLICA)] = 1
    """Number of devices of each replica, 1 to 16, all on one node. Defaults to 1."""
    mode: DeviceMode = DeviceMode.EXCLUSIVE
    """Exclusive: each replica gets whole devices. Shared: each replica gets a share of each device, which other
    containers share with it. Defaults to Exclusive."""
    memory_mib: PromisedMiB | None = None
    """Memory of each device that is promised to a replica, in MiB. Required when mode is Shared, not allowed otherwise.
    The promises on a device never exceed its memory. The limit is not enforced: use beyond it is reported."""
    compute_percent: PromisedPercent | None = None
    """Compute of each device that is promised to a replica, 1 to 100 percent. Allowed only when mode is Shared. Nothing
    is promised when it is absent."""
    container: Label | None = None
    """Name of the container that gets the devices: an app container, or a sidecar. Required when the template has more
    than one app container, unless containers is set."""
    containers: Annotated[list[ContainerDevices], Field(max_length=MAX_DEVICES_PER_REPLICA), ListMap("name")] = EMPTY
    """Containers that get devices, each its own, when there are several. The sum of their counts is count."""


class Requirements(ApiModel):
    """Conditions that a device must meet when it is chosen. A change applies to replicas that are placed later.

    A device that does not report a required value fails.
    """

    rules: ClassVar = (
        Cel(
            "!has(self.includeUUIDs) || !has(self.excludeUUIDs)"
            " || !self.includeUUIDs.exists(u, u in self.excludeUUIDs)",
            "must not contain a UUID that is also in includeUUIDs",
            field_path=".excludeUUIDs",
        ),
    )

    min_free_memory_mib: MiB | None = None
    """Minimum free memory of each device, in MiB."""
    max_utilization_percent: Percent | None = None
    """Maximum compute utilization of each device, in percent."""
    max_temperature_celsius: Celsius | None = None
    """Maximum temperature of each device, in degrees Celsius."""
    models: Annotated[list[Annotated[str, Field(min_length=1, max_length=96)]], Field(max_length=16), ListSet()] = EMPTY
    """Accepted models, as reported by NVML, such as NVIDIA H100 80GB HBM3. All are accepted when the list is empty."""
    min_compute_capability: Annotated[str, Field(max_length=8, pattern=r"^[0-9]+\.[0-9]+$")] | None = None
    """Minimum CUDA compute capability, such as 8.0."""
    include_uuids: Annotated[list[Uuid], Field(max_length=64), ListSet()] = EMPTY
    """UUIDs of the only devices to choose from. All are considered when the list is empty."""
    exclude_uuids: Annotated[list[Uuid], Field(max_length=64), ListSet()] = EMPTY
    """UUIDs of devices to exclude."""
    node_selector: Annotated[dict[str, Annotated[str, Field(max_length=63)]], Field(max_length=16)] = EMPTY_MAP
    """Labels that the node must have."""


class DistributionMode(StrEnum):
    """How items are divided."""

    UNIFORM = "Uniform"
    PROPORTIONAL = "Proportional"


class CapacityMeasure(StrEnum):
    """Measure of a replica's capacity in a proportional distribution: the sum over its devices.

    For shared devices it is what the replica is promised of them.
    """

    FREE_MEMORY = "FreeMemory"
    TOTAL_MEMORY = "TotalMemory"
    WEIGHTS = "Weights"
    """The numbers in `weights`, independent of the devices."""


class Distribution(ApiModel):
    """Divides items among the replicas as contiguous ranges. Each container gets its range in environment variables."""

    rules: ClassVar = (
        Cel(
            "self.mode != 'Uniform' || !has(self.by)",
            "may not be set when distribution.mode is Uniform",
            reason=_FORBIDDEN,
            field_path=".by",
        ),
        Cel(
            "(has(self.by) && self.by == 'Weights') == has(self.weights)",
            "must be set when distribution.by is Weights, and may not be set otherwise",
            field_path=".weights",
        ),
        Cel(
            "!has(self.weights) || self.weights.exists(w, w > 0)",
            "must contain a number greater than 0",
            field_path=".weights",
        ),
    )

    items: Annotated[int, Field(ge=1, le=2**53)]
    """Number of items to divide. They are numbered from 0."""
    mode: DistributionMode = DistributionMode.UNIFORM
    """Uniform: all replicas get the same number of items. Proportional: each replica gets items in proportion to the
    capacity of its devices. Defaults to Uniform."""
    by: CapacityMeasure | None = None
    """Measure of a replica's capacity, when mode is Proportional: FreeMemory or TotalMemory of its devices, or Weights.
    Defaults to FreeMemory."""
    weights: (
        Annotated[
            list[Annotated[int, Field(ge=0, le=1_000_000)]],
            Field(min_length=1, max_length=MAX_REPLICAS),
        ]
        | None
    ) = None
    """One number per replica, in order, 0 to 1000000 each. Required when by is Weights. Only their ratio matters; a
    replica with 0 gets no items."""
    max_per_replica: Annotated[int, Field(ge=1, le=2**53)] | None = None
    """Maximum number of items of one replica. Items beyond it are counted in status.unassignedItems."""


def _immutable(field: str, *, optional: bool = False) -> Cel:
    """Returns the rule that `field` of the spec cannot change; an optional one cannot be added or removed either."""
    same = f"self.{field} == oldSelf.{field}"
    if optional:
        same = f"has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || {same})"
    return Cel(same, "field is immutable; create another GPUWorkload", field_path=f".{field}")


_OF_THE_OWNER = "may not be set without spec.template: the owner of the pods replaces and ends them"


class WorkloadSpec(ApiModel):
    """Requested pods and devices. `devices`, `distribution` and `network` cannot be changed after creation."""

    rules: ClassVar = (
        _immutable("devices"),
        _immutable("distribution", optional=True),
        _immutable("network"),
        Cel(
            "!has(self.distribution) || !has(self.distribution.weights)"
            " || size(self.distribution.weights) == self.replicas",
            "must have spec.replicas items",
            field_path=".distribution.weights",
        ),
        Cel(
            "!has(self.distribution) || self.replicas == oldSelf.replicas",
            "field is immutable while spec.distribution is set: running replicas keep their shards;"
            " set spec.suspend to delete all pods",
            reason=_FORBIDDEN,
            field_path=".replicas",
        ),
        Cel(
            "!has(self.distribution) || self.placement.gang",
            "must be true when spec.distribution is set: the shards depend on the devices of all replicas",
            field_path=".placement.gang",
        ),
        Cel(
            "self.placement.onPressure == 'Ignore'"
            " || (self.devices.mode == 'Shared' && self.devices.count == 1 && !self.placement.gang)",
            "may not be Move unless devices.mode is Shared, devices.count is 1 and placement.gang is false",
            reason=_FORBIDDEN,
            field_path=".placement.onPressure",
        ),
        Cel(
            "has(self.template) || self.placement.onPressure == 'Ignore'",
            "may not be Move without spec.template: the owner of the pods creates their successors",
            reason=_FORBIDDEN,
            field_path=".placement.onPressure",
        ),
        Cel(
            "self.devices.mode == 'Shared' || !has(self.placement.reclaim)",
            "may not be set when devices.mode is Exclusive",
            reason=_FORBIDDEN,
            field_path=".placement.reclaim",
        ),
        Cel(
            "self.devices.mode == 'Shared' || self.placement.demand == 'Promised'",
            "may not be Learned when devices.mode is Exclusive",
            reason=_FORBIDDEN,
            field_path=".placement.demand",
        ),
        Cel(
            "has(self.template) == has(oldSelf.template)",
            "may not be added or removed; create another GPUWorkload",
            reason=_FORBIDDEN,
            field_path=".template",
        ),
        Cel(
            "has(self.template) || (self.placement.gang ? self.replicas >= 1 : self.replicas == 1)",
            "without spec.template: must be at least 1 when placement.gang is true, and may not be set otherwise;"
            " scale the owner of the pods",
            field_path=".replicas",
        ),
        Cel(
            "has(self.template) || (self.runPolicy.backoffLimit == 6 && !has(self.runPolicy.activeDeadlineSeconds)"
            " && !has(self.runPolicy.ttlSecondsAfterFinished) && !has(self.runPolicy.onReplicaFailure))",
            _OF_THE_OWNER,
            reason=_FORBIDDEN,
            field_path=".runPolicy",
        ),
        Cel(
            "has(self.template)"
            " || (self.updateStrategy.type == 'RollingUpdate' && self.updateStrategy.maxUnavailable == 1)",
            _OF_THE_OWNER,
            reason=_FORBIDDEN,
            field_path=".updateStrategy",
        ),
    )

    replicas: Annotated[int, Field(ge=0, le=MAX_REPLICAS)] = 1
    """Number of pods, 0 to 1024. Each gets its own devices. 0 removes all pods. Without template, the owner of the pods
    decides how many there are; with placement.gang it is the number of pods that are placed together, at least 1.
    Defaults to 1."""
    template: Annotated[dict[str, Any], FreeForm(POD_TEMPLATE)] | None = None
    """Template of the pods. The operator adds a scheduling gate and the device request to each pod. A change replaces
    the pods according to updateStrategy; their devices stay reserved. Without template, the operator creates no pods:
    it places the pods of the namespace with the label gpufleet.dev/workload, of any owner."""
    devices: Devices = Devices()
    requirements: Requirements | None = None
    placement: Placement = Placement()
    distribution: Distribution | None = None
    run_policy: RunPolicy = RunPolicy()
    update_strategy: UpdateStrategy = UpdateStrategy()
    network: Network = Network()
    suspend: bool = False
    """When true, the pods are deleted and their devices are released. When it becomes false again, the replicas are
    placed again. Without template, pods that wait are not placed as long as it is true, and no pod is deleted. Defaults
    to false."""

    @property
    def adopts(self) -> bool:
        """True without a template: the pods have other owners."""
        return self.template is None

    @property
    def pod_template(self) -> Mapping[str, Any]:
        """The template; empty without one."""
        return self.template or {}

    @property
    def pod_spec(self) -> Mapping[str, Any]:
        """`template.spec`; empty without a template."""
        given = self.pod_template.get("spec")
        # The first test spares the slow one of an abstract class.
        return given if type(given) is dict or isinstance(given, Mapping) else {}


class GPUWorkload(ApiModel):
    """Requests devices for a set of pods and reports where they were placed."""

    rules: ClassVar = (
        Cel(
            f"size(self.metadata.name) <= {MAX_NAME}",
            f"metadata.name may not be more than {MAX_NAME} characters: the names of the pods are built from it",
        ),
    )

    metadata: ObjectMeta
    spec: WorkloadSpec
    status: WorkloadStatus | None = None
