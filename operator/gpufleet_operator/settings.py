"""The operator's command line."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from gpufleet_api.names import (
    DRA_DRIVER,
    FORBIDDEN_RESOURCES,
    MAX_SHARED_SLOTS,
    NODE_CONDITION,
    RESOURCE,
    SCHEDULERS,
    SHARED_RESOURCE,
    SHARED_SLOTS,
    STALE_AFTER_SECONDS,
    TOLERATED_TAINTS,
    Reclaim,
    Transport,
)
from gpufleet_common.flags import FlagParser, whole_number
from gpufleet_operator.model.extended_resources import Resources
from gpufleet_operator.model.kueue.names import CHECK_CONTROLLER
from gpufleet_operator.model.pod_policy import PodPolicy
from gpufleet_operator.model.state_types import Limits

TRANSPORTS = (*(transport.value for transport in Transport), "PerNode")
"""Values of `--transport`, as in the chart: the transport of all agents, or PerNode."""

_SECONDS = {
    "stale_after": (3600.0, "age from which telemetry is not used"),
    "resync_interval": (3600.0, "maximum time between two reconcile passes"),
    "relist_interval": (86_400.0, "time between two lists that the caches are compared with"),
    "unschedulable_grace": (600.0, "how long kube-scheduler may report a placed pod as unschedulable"),
    "scheduling_timeout": (3600.0, "how long a placed pod may have no response of any scheduler"),
    "max_retry_pause": (86_400.0, "maximum pause after several consecutive rejected pods"),
    "lease_poll_interval": (60.0, "time between two reads of the nodes' leases"),
    "reclaim_after": (86_400.0, "how long a container must be observed before others may get its unused memory"),
    "pressure_sample": (
        600.0,
        "minimum time between two of the four samples after which a pod is moved from a full device",
    ),
    "restart_backoff": (600.0, "time until a failed replica restarts; it doubles with each failure, up to 600 s"),
    "reserve_after": (86_400.0, "how long a workload waits for several devices before devices are earmarked for it"),
}
"""Maximum and description of each duration. The chart's schema has the same limits."""
_MAX_MOVES_PER_HOUR = 100_000
_SWITCH = ("true", "false")


@dataclass(frozen=True, slots=True)
class OperatorSettings:
    """The validated command line."""

    resource: str = RESOURCE
    """Extended resource of a whole device. This and the next two must be those of the agents."""
    shared_resource: str = SHARED_RESOURCE
    """Extended resource of one slot of a shared device; empty: sharing is disabled."""
    shared_slots: int = SHARED_SLOTS
    """Slots of each shared device."""
    transport: str = Transport.DEVICE_PLUGIN
    """Transports of the agents. With DRA or PerNode, the operator creates ResourceClaims."""
    dra_driver: str = DRA_DRIVER
    """DRA driver of the nodes with transport DRA, and name of its DeviceClass."""
    stale_after_seconds: float = STALE_AFTER_SECONDS
    """Age from which telemetry is not used. Set it to three heartbeats of the agent."""
    resync_interval_seconds: float = 10.0
    """Maximum time between two reconcile passes: telemetry becomes stale without an event."""
    relist_interval_seconds: float = 600.0
    """Time between two lists that the caches are compared with."""
    unschedulable_grace_seconds: float = 5.0
    """How long kube-scheduler may report a placed pod as unschedulable before it is placed elsewhere.

    Increase it where kube-scheduler is slow, or where its result changes by itself (autoscaled storage).
    """
    scheduling_timeout_seconds: float = 60.0
    """How long a placed pod may have no response of any scheduler before its devices are released."""
    max_retry_pause_seconds: float = 600.0
    """Longest pause between two retries of a replica whose pods were rejected, while no node changes."""
    lease_poll_interval_seconds: float = 3.0
    """Time between two reads of the nodes' leases."""
    schedulers: tuple[str, ...] = SCHEDULERS
    """Names that `schedulerName` of a template may have."""
    forbidden_resources: tuple[str, ...] = FORBIDDEN_RESOURCES
    """Resources of other device plugins, which templates may not request; `*` matches any characters."""
    tolerate_taints: tuple[str, ...] = TOLERATED_TAINTS
    """Keys of NoSchedule taints that the pods of workloads tolerate."""
    node_conditions: str = "true"
    """Whether Nodes with GPUs get the condition GPUHealthy, which requires the permission to patch their status."""
    default_reclaim: str = Reclaim.NEVER
    """`spec.placement.reclaim` of workloads that don't set it."""
    reclaim_after_seconds: float = 600.0
    """How long a container must be observed before others may get its unused memory."""
    pressure_sample_seconds: float = 20.0
    """Minimum time between two counted samples of a device that runs out of memory."""
    max_moves_per_hour: int = 60
    """Maximum number of pods per hour that are moved from devices that run out of memory."""
    restart_backoff_seconds: float = 10.0
    """Time from the first failure of a replica until it restarts. It doubles with each failure, up to 600 s."""
    leader_election: str = "true"
    """Whether a process decides and writes only while it holds a Lease. Required with more than one."""
    lease_namespace: str = ""
    """Namespace of that Lease and of the agents, whose Leases are read there; empty: that of the pod."""
    reserve_after_seconds: float = 120.0
    """How long the first workload that needs several devices together waits before devices are earmarked for it."""
    fairness: str = "namespace"
    """`namespace`: among workloads of equal priority, those of the namespace that uses the fewest devices come first.
    `none`: the oldest come first."""
    preemption: str = "true"
    """Whether pods are evicted for workloads whose PriorityClass has a higher value."""
    kueue: str = "false"
    """Whether AdmissionChecks of Kueue with controller gpufleet.dev/devices are answered."""
    scale_up: str = "false"
    """Whether placement.scaleUp has an effect: placeholder pods and annotations of nodes for cluster-autoscaler."""
    host: str = "0.0.0.0"  # noqa: S104 - probes and Prometheus come from outside the pod
    port: int = 8080
    log_level: str = "info"
    log_format: str = "json"

    @property
    def watches_claims(self) -> bool:
        """Whether nodes may have transport DRA."""
        return self.transport != Transport.DEVICE_PLUGIN

    def limits(self) -> Limits:
        """Returns the settings that decisions depend on."""
        return Limits(
            resources=Resources(self.resource, self.shared_resource, self.shared_slots),
            claims=self.watches_claims,
            dra_driver=self.dra_driver,
            stale_after=timedelta(seconds=self.stale_after_seconds),
            unschedulable_grace=timedelta(seconds=self.unschedulable_grace_seconds),
            scheduling_timeout=timedelta(seconds=self.scheduling_timeout_seconds),
            max_retry_pause=timedelta(seconds=self.max_retry_pause_seconds),
            pod_policy=PodPolicy(self.forbidden_resources, self.schedulers, self.tolerate_taints),
            default_reclaim=Reclaim(self.default_reclaim),
            pressure_sample_interval=timedelta(seconds=self.pressure_sample_seconds),
            max_moves_per_hour=self.max_moves_per_hour,
            reclaim_after=timedelta(seconds=self.reclaim_after_seconds),
            node_conditions=self.node_conditions == "true",
            restart_base=timedelta(seconds=self.restart_backoff_seconds),
            reserve_after=timedelta(seconds=self.reserve_after_seconds),
            fair_namespaces=self.fairness == "namespace",
            preemption=self.preemption == "true",
            holds_statuses=True,
        )


def parse(arguments: Sequence[str] | None = None) -> OperatorSettings:
    """Returns the settings of a command line.

    Args:
        arguments: Without the program's name; None: those of the process.

    Raises:
        SystemExit: Status 2, with a message on stderr: a flag is wrong. Status 0: help was requested.
    """
    parser = _parser(OperatorSettings())
    options = vars(parser.parse_args(arguments))
    host, port = options.pop("listen")
    if options["resource"] == options["shared_resource"]:
        parser.error(f"--resource and --shared-resource must differ, both are {options['resource']}")
    return OperatorSettings(**options, host=host, port=port)


def _parser(default: OperatorSettings) -> FlagParser:
    parser = FlagParser(
        prog="gpufleet-operator",
        description="Reserves GPUs for GPUWorkloads by live telemetry, and verifies that containers received them.",
    )
    parser.resources(default.resource, default.shared_resource, default.shared_slots, MAX_SHARED_SLOTS)
    parser.flag(
        "--transport",
        default.transport,
        "transports of the agents; with DRA and PerNode, ResourceClaims are created",
        choices=TRANSPORTS,
    )
    parser.flag("--dra-driver", default.dra_driver, "DRA driver that serves claims, and name of its DeviceClass")
    for name, (most, description) in _SECONDS.items():
        flag = f"--{name.replace('_', '-')}-seconds"
        parser.seconds(flag, getattr(default, f"{name}_seconds"), most, description)
    for name, description, text in (
        ("schedulers", "schedulers that a template may name", "NAMES"),
        ("forbidden_resources", "resources of other device plugins that a template may not request", "PATTERNS"),
        ("tolerate_taints", "keys of NoSchedule taints that pods of workloads tolerate", "KEYS"),
    ):
        parser.names(f"--{name.replace('_', '-')}", getattr(default, name), description, text)
    _add_policies(parser, default)
    parser.process(f"{default.host}:{default.port}", default.log_level, default.log_format)
    return parser


def _add_policies(parser: FlagParser, default: OperatorSettings) -> None:
    parser.flag(
        "--node-conditions",
        default.node_conditions,
        f"set condition {NODE_CONDITION} on nodes with GPUs",
        choices=_SWITCH,
    )
    parser.flag(
        "--max-moves-per-hour",
        default.max_moves_per_hour,
        "maximum number of pods per hour that are moved from full devices",
        type=whole_number(_MAX_MOVES_PER_HOUR),
        metavar="N",
    )
    parser.flag(
        "--default-reclaim",
        str(default.default_reclaim),
        "spec.placement.reclaim of workloads that do not set it",
        choices=tuple(map(str, Reclaim)),
    )
    parser.flag(
        "--leader-election",
        default.leader_election,
        "decide only while holding a Lease; other replicas are standbys",
        choices=_SWITCH,
    )
    parser.flag(
        "--lease-namespace",
        default.lease_namespace,
        "namespace of the Lease, and of the agents, whose Leases are read there; empty: the pod's namespace",
    )
    parser.flag(
        "--fairness",
        default.fairness,
        "namespace: of workloads of equal priority, those of the namespace that uses the fewest devices come first",
        choices=("namespace", "none"),
    )
    parser.flag(
        "--preemption",
        default.preemption,
        "evict pods for workloads of a PriorityClass with a higher value",
        choices=_SWITCH,
    )
    parser.flag(
        "--scale-up",
        default.scale_up,
        "create placeholder pods, for which autoscalers add nodes, and protect reserved nodes from scale-down",
        choices=_SWITCH,
    )
    parser.flag(
        "--kueue",
        default.kueue,
        f"set the state of Kueue's AdmissionChecks whose controller is {CHECK_CONTROLLER}",
        choices=_SWITCH,
    )
