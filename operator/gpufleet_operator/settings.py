"""The operator's command line."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from gpufleet_api.names import (
    FORBIDDEN_RESOURCES,
    MAX_SHARED_SLOTS,
    NODE_CONDITION,
    RESOURCE,
    SCHEDULERS,
    SHARED_RESOURCE,
    SHARED_SLOTS,
    STALE_AFTER_SECONDS,
    TOLERATED_TAINTS,
)
from gpufleet_common.flags import FlagParser
from gpufleet_operator.model.extended_resources import Resources
from gpufleet_operator.model.pod_policy import PodPolicy
from gpufleet_operator.model.state_types import Limits

_MAX_SECONDS = {
    "stale_after": 3600.0,
    "resync_interval": 3600.0,
    "relist_interval": 86_400.0,
    "unschedulable_grace": 600.0,
    "lease_poll_interval": 60.0,
    "scheduling_timeout": 3600.0,
    "max_retry_pause": 86_400.0,
    "restart_backoff": 600.0,
}
"""The chart's schema has the same limits."""


@dataclass(frozen=True, slots=True)
class OperatorSettings:
    """The validated command line."""

    resource: str = RESOURCE
    """Extended resource of a whole device. This and the next two must be those of the agents."""
    shared_resource: str = SHARED_RESOURCE
    """Extended resource of one slot of a shared device; empty: sharing is disabled."""
    shared_slots: int = SHARED_SLOTS
    """Slots of each shared device."""
    stale_after_seconds: float = STALE_AFTER_SECONDS
    """Age from which telemetry is not used. Set it to three heartbeats of the agent."""
    resync_interval_seconds: float = 10.0
    """Maximum time between two reconcile passes: telemetry becomes stale without an event."""
    relist_interval_seconds: float = 120.0
    """Time between two lists that the caches are compared with."""
    unschedulable_grace_seconds: float = 5.0
    """How long kube-scheduler may report a placed pod as unschedulable before it is placed elsewhere.

    Increase it where kube-scheduler is slow, or where its result changes by itself (autoscaled storage).
    """
    scheduling_timeout_seconds: float = 60.0
    """How long a placed pod may have no response of any scheduler before its devices are given back."""
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
    restart_backoff_seconds: float = 10.0
    """Time from the first failure of a replica until it restarts. It doubles with each failure, up to 600 s."""
    host: str = "0.0.0.0"  # noqa: S104 - probes and Prometheus come from outside the pod
    port: int = 8080
    log_level: str = "info"
    log_format: str = "json"

    def limits(self) -> Limits:
        """Returns the settings that decisions depend on."""
        return Limits(
            resources=Resources(self.resource, self.shared_resource, self.shared_slots),
            stale_after=timedelta(seconds=self.stale_after_seconds),
            unschedulable_grace=timedelta(seconds=self.unschedulable_grace_seconds),
            scheduling_timeout=timedelta(seconds=self.scheduling_timeout_seconds),
            max_retry_pause=timedelta(seconds=self.max_retry_pause_seconds),
            pod_policy=PodPolicy(self.forbidden_resources, self.schedulers, self.tolerate_taints),
            node_conditions=self.node_conditions == "true",
            restart_base=timedelta(seconds=self.restart_backoff_seconds),
        )


def parse(arguments: Sequence[str] | None = None) -> OperatorSettings:
    """Returns the settings of a command line.

    Args:
        arguments: Without the program's name; None: those of the process.

    Raises:
        SystemExit: Status 2, with a message on stderr: a flag is wrong. Status 0: help was requested.
    """
    default = OperatorSettings()
    parser = FlagParser(
        prog="gpufleet-operator",
        description="Reserves GPUs for GPUWorkloads by live telemetry, and verifies that containers received them.",
    )
    parser.resources(default.resource, default.shared_resource, default.shared_slots, MAX_SHARED_SLOTS)
    for name, description in (
        ("stale_after", "age from which telemetry is not used"),
        ("resync_interval", "maximum time between two reconcile passes"),
        ("relist_interval", "time between two lists that the caches are compared with"),
        ("unschedulable_grace", "how long kube-scheduler may report a placed pod as unschedulable"),
        ("scheduling_timeout", "how long a placed pod may have no response of any scheduler"),
        ("max_retry_pause", "maximum pause after several consecutive rejected pods"),
        ("lease_poll_interval", "time between two reads of the nodes' leases"),
        ("restart_backoff", "time until a failed replica restarts; it doubles with each failure, up to 600 s"),
    ):
        flag = f"--{name.replace('_', '-')}-seconds"
        parser.seconds(flag, getattr(default, f"{name}_seconds"), _MAX_SECONDS[name], description)
    for name, description, text in (
        ("schedulers", "schedulers that a template may name", "NAMES"),
        ("forbidden_resources", "resources of other device plugins that a template may not request", "PATTERNS"),
        ("tolerate_taints", "keys of NoSchedule taints that pods of workloads tolerate", "KEYS"),
    ):
        parser.names(f"--{name.replace('_', '-')}", getattr(default, name), description, text)
    parser.flag(
        "--node-conditions",
        default.node_conditions,
        f"set condition {NODE_CONDITION} on nodes with GPUs",
        choices=("true", "false"),
    )
    parser.process(f"{default.host}:{default.port}", default.log_level, default.log_format)
    options = vars(parser.parse_args(arguments))
    host, port = options.pop("listen")
    if options["resource"] == options["shared_resource"]:
        parser.error(f"--resource and --shared-resource must differ, both are {options['resource']}")
    return OperatorSettings(**options, host=host, port=port)
