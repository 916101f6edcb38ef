"""Evidence before any comparison: frozen values that tests can write by hand."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

Shard = tuple[int, int]
"""Start and end of a contiguous range of items, without the end."""


class Source(StrEnum):
    """A source of a container's devices; the value is its display name."""

    STATUS = "status.placements"
    """The GPUWorkload's status: the operator's pick."""
    RESERVATION = "spec.assignments"
    """The GPUTelemetry's spec: the operator's reservation."""
    ANNOTATION = "pod annotation"
    ENVIRONMENT = "container env"
    """NVIDIA_VISIBLE_DEVICES of the container's first process, by exec."""
    POD_RESOURCES = "PodResources"
    """The kubelet's PodResources socket."""
    POD_STATUS = "allocatedResourcesStatus"
    """The pod status, written by the kubelet."""
    CLAIM = "ResourceClaim"
    """The allocation in the status of the pod's claim, written by kube-scheduler. Only of pods that have a claim."""


@dataclass(frozen=True, slots=True)
class Statement:
    """One source's answer on one container: sorted device UUIDs, or None with the reason."""

    devices: tuple[str, ...] | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class ShardEvidence:
    """One replica's shard by source; None means no answer."""

    status: Shard | None = None
    environment: Shard | None = None
    log: Shard | None = None
    """From the line that the container printed."""
    log_line: str = ""


@dataclass(frozen=True, slots=True)
class ReplicaEvidence:
    """One replica: its pod and its devices by source."""

    replica: int
    state: str
    pod: str
    pod_uid: str
    node: str
    container: str
    says: Mapping[Source, Statement]
    shard: ShardEvidence = ShardEvidence()
    promised_mib: Mapping[Source, int | None] = field(default_factory=dict)
    """Memory of each device by reservation and by the container's environment; None means whole devices."""
    score: Mapping[str, int] = field(default_factory=dict)
    """Score terms of the status, in thousandths."""

    @property
    def picked(self) -> tuple[str, ...]:
        """The devices that the workload's status names."""
        statement = self.says.get(Source.STATUS)
        return statement.devices or () if statement else ()


@dataclass(frozen=True, slots=True)
class WorkloadEvidence:
    """The spec and the replicas of one GPUWorkload."""

    namespace: str
    name: str
    replicas_wanted: int
    devices_per_replica: int
    replicas: tuple[ReplicaEvidence, ...]
    items: int | None = None
    unassigned_items: int = 0
    memory_mib: int | None = None
    """Memory of each device with mode Shared; None means whole devices."""
    reclaims: bool = False
    """Others may get the promised memory that it does not use."""
    open_ended: bool = False
    """Its pods have other owners, and their number is not fixed: replicas may have any index."""
    stray_pods: tuple[str, ...] = ()
    """Live pods of the workload that its status does not name."""

    @property
    def title(self) -> str:
        """The workload as namespace/name."""
        return f"{self.namespace}/{self.name}"

    @property
    def sources(self) -> tuple[Source, ...]:
        """The sources that were read for any replica."""
        return tuple(source for source in Source if any(source in replica.says for replica in self.replicas))


@dataclass(frozen=True, slots=True)
class Gpu:
    """A device as reported by its node's GPUTelemetry. None means not reported."""

    node: str
    index: int
    uuid: str
    model: str
    healthy: bool
    memory_total_mib: int | None = None
    memory_used_mib: int | None = None
    utilization_percent: int | None = None
    temperature_celsius: int | None = None
    power_milliwatts: int | None = None
    memory_reserved_mib: int | None = None

    @property
    def memory_usable_mib(self) -> int | None:
        """Total minus the memory that the driver reserves; None if unknown."""
        return None if self.memory_total_mib is None else self.memory_total_mib - (self.memory_reserved_mib or 0)


@dataclass(frozen=True, slots=True)
class Holding:
    """The devices of one resource that a kubelet reports for a container, sorted.

    A shared device is a slot, `<uuid>::<number>`.
    """

    node: str
    namespace: str
    pod: str
    container: str
    resource: str
    """An extended resource, or a DRA driver, whose name has no slash."""
    devices: tuple[str, ...]

    @property
    def holder(self) -> str:
        """The container. Of a claim the pod: the kubelet lists all devices for each container that uses one of them."""
        pod = f"{self.namespace}/{self.pod}"
        return f"{pod}/{self.container}" if "/" in self.resource else pod


@dataclass(frozen=True, slots=True)
class FleetEvidence:
    """All GPUs by telemetry and all holdings by the kubelets, read at about the same time."""

    gpus: tuple[Gpu, ...]
    holdings: tuple[Holding, ...]

    def gpu(self, uuid: str) -> Gpu | None:
        """Returns the device of this UUID."""
        return next((gpu for gpu in self.gpus if gpu.uuid == uuid), None)

    def holders(self, uuid: str) -> tuple[Holding, ...]:
        """Returns the holdings of this device or one of its slots."""
        return tuple(one for one in self.holdings if uuid in {d.partition("::")[0] for d in one.devices})

    def holder(self, uuid: str) -> Holding | None:
        """Returns the first holding of this device."""
        return next(iter(self.holders(uuid)), None)
