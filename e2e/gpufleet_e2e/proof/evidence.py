"""What was read, before any judgement: frozen values that tests can write by hand."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

Shard = tuple[int, int]
"""Start and end of a contiguous range of items; the end is not part of it."""


class Source(StrEnum):
    """Who can say which devices a container has. The value is the name that people know it by."""

    STATUS = "status.placements"
    """The GPUWorkload's status: what the operator picked."""
    RESERVATION = "spec.assignments"
    """The GPUTelemetry's spec: what the operator reserved."""
    ANNOTATION = "pod annotation"
    ENVIRONMENT = "container env"
    """NVIDIA_VISIBLE_DEVICES of the container's first process, by `kubectl exec`."""
    POD_RESOURCES = "PodResources"
    """The kubelet, asked on its own socket."""
    POD_STATUS = "allocatedResourcesStatus"
    """The kubelet, in the pod's status."""


@dataclass(frozen=True, slots=True)
class Statement:
    """One source's word on one container: sorted device UUIDs, or None with the reason why there is none."""

    devices: tuple[str, ...] | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class ShardEvidence:
    """Where one replica's share of the items begins and ends, by each that says so; None: says nothing."""

    status: Shard | None = None
    environment: Shard | None = None
    log: Shard | None = None
    """From the line that the container printed."""
    log_line: str = ""


@dataclass(frozen=True, slots=True)
class ReplicaEvidence:
    """One replica: its pod and what each source says about its devices."""

    replica: int
    state: str
    pod: str
    pod_uid: str
    node: str
    container: str
    says: Mapping[Source, Statement]
    shard: ShardEvidence = ShardEvidence()
    promised_mib: Mapping[Source, int | None] = field(default_factory=dict)
    """Memory of each device as promised by the reservation and told to the container; None: whole devices."""
    score: Mapping[str, int] = field(default_factory=dict)
    """Score terms of the status, in thousandths."""

    @property
    def picked(self) -> tuple[str, ...]:
        """The devices that the workload's status names."""
        statement = self.says.get(Source.STATUS)
        return statement.devices or () if statement else ()


@dataclass(frozen=True, slots=True)
class WorkloadEvidence:
    """One GPUWorkload, as its spec asks and as its replicas answer."""

    namespace: str
    name: str
    replicas_wanted: int
    devices_per_replica: int
    replicas: tuple[ReplicaEvidence, ...]
    items: int | None = None
    unassigned_items: int = 0
    memory_mib: int | None = None
    """Of each device, as the spec asks with mode Shared; None: whole devices."""
    stray_pods: tuple[str, ...] = ()
    """Live pods of the workload that its status does not name."""

    @property
    def title(self) -> str:
        """namespace/name."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Gpu:
    """One device as its node's GPUTelemetry shows it. None: not reported."""

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


@dataclass(frozen=True, slots=True)
class Holding:
    """The devices of one resource that one kubelet says one container has, sorted.

    A shared device is named by a slot of it, `<uuid>::<number>`.
    """

    node: str
    namespace: str
    pod: str
    container: str
    resource: str
    devices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FleetEvidence:
    """Every GPU by telemetry and every holding by the kubelets, read at about the same time."""

    gpus: tuple[Gpu, ...]
    holdings: tuple[Holding, ...]

    def gpu(self, uuid: str) -> Gpu | None:
        """The device of this UUID."""
        return next((gpu for gpu in self.gpus if gpu.uuid == uuid), None)

    def holders(self, uuid: str) -> tuple[Holding, ...]:
        """All who have this device, or a slot of it, says the kubelet."""
        return tuple(one for one in self.holdings if uuid in {d.partition("::")[0] for d in one.devices})

    def holder(self, uuid: str) -> Holding | None:
        """Who has this device, says the kubelet; the first of them where it is shared, or wrongly has several."""
        return next(iter(self.holders(uuid)), None)
