"""Input and output types of the engine.

Frozen dataclasses. No value is a float where Kubernetes has an integer: memory of devices in MiB, of nodes in bytes,
CPU in millicores, power in milliwatts, temperature in degrees Celsius. `None`: the hardware doesn't report the value.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from gpufleet_api.names import MemoryModel
from gpufleet_api.workload_placement import Strategy, Topology
from gpufleet_common import device_use
from gpufleet_operator.placement.node_rules import NodeSelectorTerm, Toleration

MAX_RESOURCE_AMOUNT = 2**62
"""Bound of the free resources of a node and of the requests of a pod, so that their difference fits into 64 bits."""


class FilterReason(StrEnum):
    """Why a device is rejected for a replica. The first filter that fails, in this order, is reported."""

    NODE_BACKOFF = "NodeBackoff"
    """kube-scheduler or the kubelet recently rejected this node for this replica."""
    NODE_NOT_READY = "NodeNotReady"
    """The node is not ready, or its kubelet missed a renewal of its lease."""
    NODE_UNSCHEDULABLE = "NodeUnschedulable"
    NODE_SELECTOR = "NodeSelectorMismatch"
    NODE_AFFINITY = "NodeAffinityMismatch"
    TAINT = "TaintNotTolerated"
    HOST_PORT = "HostPortInUse"
    POD_ANTI_AFFINITY = "PodAntiAffinityMismatch"
    """Required anti-affinity of the pod, or of a pod on the node."""
    POD_AFFINITY = "PodAffinityMismatch"
    TOPOLOGY_SPREAD = "TopologySpreadMismatch"
    """A topology spread constraint with DoNotSchedule."""
    TELEMETRY_STALE = "TelemetryStale"
    CORDONED = "Cordoned"
    """An administrator has taken the device out of service."""
    UNHEALTHY = "DeviceUnhealthy"
    """Reported before a stale sample: a device with a fault often has no samples."""
    IN_USE = "DeviceInUse"
    """Reserved or held by another pod."""
    FOREIGN_PROCESS = "ForeignProcess"
    """The device is used, or possibly used, by a process outside Kubernetes."""
    EARMARKED = "Earmarked"
    NOT_INCLUDED = "NotInIncludeUUIDs"
    EXCLUDED = "InExcludeUUIDs"
    MODEL = "ModelMismatch"
    COMPUTE_CAPABILITY = "ComputeCapabilityTooLow"
    MEASUREMENT_MISSING = "MeasurementMissing"
    """A requirement needs a measurement that the device does not report."""
    INSUFFICIENT_FREE_MEMORY = "InsufficientFreeMemory"
    COMPUTE = "InsufficientCompute"
    """Shared devices only: the free compute is smaller than the requested share."""
    UTILIZATION = "UtilizationTooHigh"
    TEMPERATURE = "TemperatureTooHigh"
    INSUFFICIENT_DEVICES = "InsufficientDevices"
    """The device passes, but its node has too few such devices for one replica."""
    INSUFFICIENT_CPU = "InsufficientCPU"
    INSUFFICIENT_MEMORY = "InsufficientMemory"
    TOO_MANY_PODS = "TooManyPods"
    INSUFFICIENT_EXTENDED_RESOURCE = "InsufficientExtendedResource"
    TOPOLOGY = "TopologyNotSatisfied"
    GANG = "GangIncomplete"
    """The device passes, but not all replicas of the gang could be placed."""


@dataclass(frozen=True, slots=True)
class DeviceState:
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
    nvlink_peers: tuple[str, ...] = ()
    healthy: bool = True
    cordoned: str | None = None
    """Set if the device is out of service (`is cordoned: fan replacement`)."""
    process_count: int | None = None
    """None: the driver doesn't count them."""
    held: bool = False
    """Reserved in the ledger or held according to the kubelet, as a whole."""
    sharers: int = 0
    """Containers that hold a share of the device. `held` is False then."""
    promised_memory_mib: int = 0
    """Sum of the shares that the sample may already include."""
    promised_compute_percent: int = 0
    reclaimed_memory_mib: int = 0
    """By how much the holders count with less than `promised_memory_mib`, because others may get what they don't use.
    Negative if they count with more: they use more than promised."""
    in_flight_memory_mib: int = 0
    """Sum of the shares that were picked after the sample was taken."""
    in_flight_compute_percent: int = 0
    free_slots: int | None = None
    """Free share slots; None: no limit."""
    sample_age_seconds: float | None = None
    """Age of the sample at the time of the snapshot; None: never sampled."""
    stale_reason: str | None = None
    """Set if this device's sample is not usable (`its last sample is 370 s old, limit 90 s`)."""
    memory_reserved_mib: int | None = None
    """Reserved by the driver, in addition to `memory_used_mib`; None: not reported."""
    memory_model: MemoryModel | None = None
    """None: the memory is the device's own."""

    @property
    def in_use(self) -> bool:
        """Whether the device runs a process, or may run one."""
        return device_use.in_use(
            self.process_count, self.memory_used_mib, self.utilization_percent, own_memory=self.memory_model is None
        )

    @property
    def memory_usable_mib(self) -> int | None:
        """Total minus the memory that the driver reserves: what promises can add up to. None if unknown."""
        total = self.memory_total_mib
        return None if total is None else max(0, total - (self.memory_reserved_mib or 0))

    @property
    def memory_in_use_mib(self) -> int | None:
        """The larger of counted and observed memory plus the memory in flight; None if not reported.

        Memory that is a NUMA node can stay in use after its processes have ended: the operating system frees it on
        demand. Without processes it does not count.
        """
        if self.memory_used_mib is None:
            return None
        freed = self.memory_model is MemoryModel.NUMA and self.process_count == 0
        observed = 0 if freed else self.memory_used_mib
        return max(self.counted_memory_mib, observed) + self.in_flight_memory_mib

    @property
    def counted_memory_mib(self) -> int:
        """Memory that the holders count with: their promises minus the reclaimed part."""
        return max(0, self.promised_memory_mib - self.reclaimed_memory_mib)

    @property
    def memory_free_mib(self) -> int | None:
        """`memory_usable_mib` minus `memory_in_use_mib`, negative if overcommitted; None if unknown."""
        used, usable = self.memory_in_use_mib, self.memory_usable_mib
        return None if used is None or usable is None else usable - used

    @property
    def compute_in_use_percent(self) -> int | None:
        """As `memory_in_use_mib`, for utilization."""
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
    """A part of a device that one container gets of each of its shared devices."""

    memory_mib: int = 0
    compute_percent: int = 0


@dataclass(frozen=True, slots=True)
class PodNeeds:
    """Requests and scheduling constraints of a replica's pod other than devices, as kube-scheduler counts them."""

    cpu_milli: int = 0
    memory_bytes: int = 0
    extended: Mapping[str, int] = field(default_factory=dict)
    node_selector: Mapping[str, str] = field(default_factory=dict)
    affinity_terms: tuple[NodeSelectorTerm, ...] | None = None
    """Required node affinity, OR-ed; None: no required affinity."""
    tolerations: tuple[Toleration, ...] = ()


@dataclass(frozen=True, slots=True)
class HolderPod:
    """A pod that holds devices, and the resources that its end frees."""

    name: str
    """namespace/name."""
    priority: int
    devices: tuple[str, ...]
    share: Share | None = None
    """Its share of each device; None: whole devices."""
    pod: PodNeeds = PodNeeds()
    uid: str = ""
    group: str = ""
    """Pods of one group are evicted together; empty: the pod alone."""
    evictable: bool = True
    """Preemption may evict it."""
    protected_until: float = 0.0
    """Seconds since the epoch until which preemption does not evict it."""
    ends_at: float | None = None
    """Seconds since the epoch at which it ends at the latest; None: not known."""
    leaving: bool = False
    """It is ending already."""


@dataclass(frozen=True, slots=True)
class NodeState:
    """State of one node as kube-scheduler sees it, with its devices."""

    name: str
    devices: tuple[DeviceState, ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()
    unschedulable: bool = False
    not_ready: str | None = None
    """Set if no pod is placed on the node now, because it or its kubelet does not respond."""
    free_cpu_milli: int = 0
    """Allocatable minus the requests of every pod bound or pinned here."""
    free_memory_bytes: int = 0
    free_pods: int = 0
    free_extended: Mapping[str, int] = field(default_factory=dict)
    """Other extended resources, by name."""
    stale_reason: str | None = None
    """Set if this node's telemetry is not usable (`telemetry is 94 s old, limit 90 s`)."""
    holders: tuple[HolderPod, ...] = ()
    """Pods with a reservation of devices."""


@dataclass(frozen=True, slots=True)
class DeviceNeeds:
    """Devices of a replica: their number and requirements."""

    count: int = 1
    """Devices per replica. 0 places a pod without devices; only the benchmarks do."""
    share: Share | None = None
    """None: whole devices. Otherwise the part needed of each shared device."""
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


class RuleKind(StrEnum):
    """How a `DomainRule` limits the domains of a replica."""

    APART = "Apart"
    """Only domains without a counted pod; a node outside of all domains passes."""
    TOGETHER = "Together"
    """Only domains with a counted pod, or any domain for the first replica if replicas count."""
    SPREAD = "Spread"
    """Only domains whose count exceeds the lowest one by at most `max_skew`, the replica included."""


@dataclass(frozen=True, slots=True)
class DomainRule:
    """A rule on the pods in a node's topology domain, such as its zone or the node itself."""

    kind: RuleKind
    reason: FilterReason
    message: str
    """Unmet rule, as a message about the rejected node."""
    domains: Mapping[str, str]
    """Domain by node name."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Counted pods per domain, before the replicas of the request are placed."""
    counts_replicas: bool = False
    """True if placed replicas of the request count as well."""
    max_skew: int = 1
    min_domains: int = 1
    """SPREAD: with fewer domains, the lowest count is taken as 0."""
    outside_message: str = ""
    """As `message`, for a node that is in no domain."""


@dataclass(frozen=True, slots=True)
class Request:
    """The replicas of a workload to place."""

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
    """Placed replicas of this workload per node, used by Spread and SameNode."""
    rules: tuple[DomainRule, ...] = ()
    """Rules on the pods in the domain of a node; all must pass."""
    priority: int = 0
    """Priority of the pod's priority class, resolved at admission."""
    may_preempt: bool = True
    """False if its class has preemptionPolicy Never: no victims are proposed."""


@dataclass(frozen=True, slots=True)
class Terms:
    """Score terms of a pick, each in 0..1: the mean over its devices; None if not reported."""

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
    """Devices and nodes rejected for one reason."""

    reason: FilterReason
    devices: int
    nodes: int


@dataclass(frozen=True, slots=True)
class ClosestDevice:
    """The device closest to passing, and what it lacks."""

    node: str
    device: str | None
    reason: FilterReason
    message: str


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Why replicas could not be placed."""

    message: str
    """The request, the rejected devices by reason and the closest device as text."""
    considered: int
    eligible: int
    rejected: tuple[ReasonCount, ...] = ()
    nearest: ClosestDevice | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """The result of a Request. `diagnosis` is set if replicas are unplaced and `explain` was not False."""

    picks: tuple[Pick, ...]
    unplaced: tuple[int, ...] = ()
    diagnosis: Diagnosis | None = None
