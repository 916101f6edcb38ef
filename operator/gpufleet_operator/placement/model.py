"""The engine's vocabulary: what it is told and what it answers.

Plain frozen dataclasses, so that operator, command line and benchmarks speak to the engine alike. No value here
is a float where Kubernetes has an integer: memory of devices in MiB, of nodes in bytes, CPU in millicores,
power in milliwatts, temperature in degrees Celsius. `None` means that the hardware doesn't report the value.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from gpufleet_api.workload import Strategy, Topology
from gpufleet_common import device_use


class Reason(StrEnum):
    """Why a device can't serve a replica. The first test that fails, in this order, is the one reported."""

    NODE_BACKOFF = "NodeBackoff"
    """kube-scheduler or the kubelet refused this node for this replica lately."""
    NODE_UNSCHEDULABLE = "NodeUnschedulable"
    NODE_SELECTOR = "NodeSelectorMismatch"
    NODE_AFFINITY = "NodeAffinityMismatch"
    TAINT = "TaintNotTolerated"
    TELEMETRY_STALE = "TelemetryStale"
    UNHEALTHY = "DeviceUnhealthy"
    """Told before that the device's own samples are old: a device with a fault often gives none."""
    IN_USE = "DeviceInUse"
    """Reserved or held by another pod."""
    FOREIGN_PROCESS = "ForeignProcess"
    """A process that belongs to no pod of ours is on the device, or may be."""
    NOT_INCLUDED = "NotInIncludeUUIDs"
    EXCLUDED = "InExcludeUUIDs"
    MODEL = "ModelMismatch"
    COMPUTE_CAPABILITY = "ComputeCapabilityTooLow"
    MEASUREMENT_MISSING = "MeasurementMissing"
    """A requirement names a quantity that this device doesn't report."""
    INSUFFICIENT_FREE_MEMORY = "InsufficientFreeMemory"
    COMPUTE = "InsufficientCompute"
    """Shared use only: what is promised or in use leaves less than the share that is asked for."""
    UTILIZATION = "UtilizationTooHigh"
    TEMPERATURE = "TemperatureTooHigh"
    INSUFFICIENT_DEVICES = "InsufficientDevices"
    """The device passes, but its node hasn't enough such devices for one replica."""
    INSUFFICIENT_CPU = "InsufficientCPU"
    INSUFFICIENT_MEMORY = "InsufficientMemory"
    TOO_MANY_PODS = "TooManyPods"
    INSUFFICIENT_EXTENDED_RESOURCE = "InsufficientExtendedResource"
    TOPOLOGY = "TopologyNotSatisfied"
    GANG = "GangIncomplete"
    """The device passes, but not all replicas of the gang could be placed."""


@dataclass(frozen=True, slots=True)
class DeviceState:
    """One device as the fleet snapshot sees it."""

    uuid: str
    index: int
    model: str
    memory_total_mib: int | None
    memory_used_mib: int | None
    utilization_percent: int | None
    temperature_celsius: int | None
    power_milliwatts: int | None = None
    power_limit_milliwatts: int | None = None
    compute_capability: str | None = None
    numa_node: int | None = None
    nvlink_peers: frozenset[str] = frozenset()
    healthy: bool = True
    process_count: int | None = None
    """None: the driver doesn't count them."""
    held: bool = False
    """Reserved or held as a whole: by the ledger or in the kubelet's eyes, by whomever."""
    sharers: int = 0
    """Containers that hold a share of the device. `held` is False then."""
    promised_memory_mib: int = 0
    """Sum of the shares that the sample may already show."""
    promised_compute_percent: int = 0
    in_flight_memory_mib: int = 0
    """Sum of the shares that were picked after the sample was taken, so that it can't show them yet."""
    in_flight_compute_percent: int = 0
    free_slots: int | None = None
    """How many more containers may share the device; None: as many as there is room for."""
    sample_age_seconds: float | None = None
    """Age of the sample at the time of the snapshot; None: never sampled."""
    stale_reason: str | None = None
    """Set when this device's sample may not be used, in words (`its last sample is 370 s old, limit 90 s`)."""

    @property
    def in_use(self) -> bool:
        """Whether the device runs a process, or may run one."""
        return device_use.in_use(self.process_count, self.memory_used_mib)

    @property
    def memory_in_use_mib(self) -> int | None:
        """Promised or observed, whichever is more, plus what is in flight; None when the device doesn't say."""
        if self.memory_used_mib is None:
            return None
        return max(self.promised_memory_mib, self.memory_used_mib) + self.in_flight_memory_mib

    @property
    def memory_free_mib(self) -> int | None:
        """Total minus `memory_in_use_mib`; below 0 when holders take more than there is. None when not known."""
        used, total = self.memory_in_use_mib, self.memory_total_mib
        return None if used is None or total is None else total - used

    @property
    def compute_in_use_percent(self) -> int | None:
        """As `memory_in_use_mib`, of the utilisation."""
        if self.utilization_percent is None:
            return None
        return max(self.promised_compute_percent, self.utilization_percent) + self.in_flight_compute_percent


@dataclass(frozen=True, slots=True)
class Taint:
    """As in v1.Taint."""

    key: str
    effect: str
    value: str = ""

    @property
    def prevents_scheduling(self) -> bool:
        """True for the effects that keep a pod off the node; PreferNoSchedule does not."""
        return self.effect in {"NoSchedule", "NoExecute"}


@dataclass(frozen=True, slots=True)
class Share:
    """A part of a device: what one container is promised of each of its shared devices."""

    memory_mib: int = 0
    compute_percent: int = 0


@dataclass(frozen=True, slots=True)
class MatchExpression:
    """As in v1.NodeSelectorRequirement."""

    key: str
    operator: str
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeSelectorTerm:
    """As in v1.NodeSelectorTerm: all expressions and fields must match. An empty term matches nothing."""

    expressions: tuple[MatchExpression, ...] = ()
    fields: tuple[MatchExpression, ...] = ()


@dataclass(frozen=True, slots=True)
class Toleration:
    """As in v1.Toleration."""

    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""


@dataclass(frozen=True, slots=True)
class PodNeeds:
    """What one replica's pod asks of its node beside the devices, as kube-scheduler counts it."""

    cpu_milli: int = 0
    memory_bytes: int = 0
    extended: Mapping[str, int] = field(default_factory=dict)
    node_selector: Mapping[str, str] = field(default_factory=dict)
    affinity_terms: tuple[NodeSelectorTerm, ...] | None = None
    """Required node affinity, OR-ed; None: no required affinity."""
    tolerations: tuple[Toleration, ...] = ()


@dataclass(frozen=True, slots=True)
class PotentialVictim:
    """A pod that holds devices of a node: what would come back if it went. Only preemption looks at holders."""

    name: str
    """namespace/name."""
    priority: int
    devices: tuple[str, ...]
    share: Share | None = None
    """What it is promised of each; None: it holds them as a whole."""
    pod: PodNeeds = PodNeeds()


@dataclass(frozen=True, slots=True)
class NodeState:
    """One node: what kube-scheduler would see, and its devices."""

    name: str
    devices: tuple[DeviceState, ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()
    unschedulable: bool = False
    free_cpu_milli: int = 0
    """Allocatable minus the requests of every pod bound or pinned here."""
    free_memory_bytes: int = 0
    free_pods: int = 0
    free_extended: Mapping[str, int] = field(default_factory=dict)
    """Other extended resources, by name."""
    stale_reason: str | None = None
    """Set when this node's telemetry may not be used, in words (`telemetry is 94 s old, limit 90 s`)."""
    holders: tuple[PotentialVictim, ...] = ()
    """Pods that might be asked to go; who isn't listed stays."""


@dataclass(frozen=True, slots=True)
class DeviceNeeds:
    """What each device must satisfy, and how many of them make a replica."""

    count: int = 1
    """Devices of one replica. 0 places a pod without devices, which only the benchmarks ask for."""
    share: Share | None = None
    """None: whole devices, held by nobody else. Otherwise a part of each, beside others' parts."""
    min_free_memory_mib: int | None = None
    max_utilization_percent: int | None = None
    max_temperature_celsius: int | None = None
    models: frozenset[str] = frozenset()
    min_compute_capability: str | None = None
    include_uuids: frozenset[str] = frozenset()
    exclude_uuids: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class ScoreWeights:
    """Relative weights of the score's terms."""

    memory: int = 40
    utilization: int = 30
    temperature: int = 20
    power: int = 10


@dataclass(frozen=True, slots=True)
class Request:
    """One workload's replicas that wait for devices."""

    name: str
    """namespace/name, for messages."""
    replicas: tuple[int, ...]
    """Indices still to place, in order."""
    devices: DeviceNeeds = DeviceNeeds()
    pod: PodNeeds = PodNeeds()
    strategy: Strategy = Strategy.BEST
    topology: Topology = Topology.NONE
    weights: ScoreWeights = ScoreWeights()
    gang: bool = False
    excluded_nodes: Mapping[int, frozenset[str]] = field(default_factory=dict)
    """Per replica: nodes not to use for now."""
    placed_replicas: Mapping[str, int] = field(default_factory=dict)
    """Replicas of this workload already placed, per node: Spread and SameNode go by them."""
    priority: int = 0
    """As admission resolved it from the pod's priority class."""
    may_preempt: bool = True
    """False: its class says preemptionPolicy Never, so nobody is proposed as a victim for it."""


@dataclass(frozen=True, slots=True)
class Terms:
    """Why a pick: each term in 0..1, mean over its devices; None where the hardware has no such value."""

    total: float
    memory: float | None = None
    utilization: float | None = None
    temperature: float | None = None
    power: float | None = None


@dataclass(frozen=True, slots=True)
class Pick:
    """The devices of one replica: all on one node, in index order."""

    replica: int
    node: str
    devices: tuple[str, ...]
    terms: Terms


@dataclass(frozen=True, slots=True)
class ReasonCount:
    """How many devices, on how many nodes, failed one test."""

    reason: Reason
    devices: int
    nodes: int


@dataclass(frozen=True, slots=True)
class ClosestDevice:
    """What came closest, and what it lacks, in words with numbers."""

    node: str
    device: str | None
    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Why some replicas could not be placed."""

    message: str
    """For people, with numbers: what was asked, how many devices failed which test, and the nearest miss."""
    considered: int
    eligible: int
    rejected: tuple[ReasonCount, ...] = ()
    nearest: ClosestDevice | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer to one Request. `diagnosis` is set exactly when `unplaced` isn't empty and reasons were asked for."""

    picks: tuple[Pick, ...]
    unplaced: tuple[int, ...] = ()
    diagnosis: Diagnosis | None = None
