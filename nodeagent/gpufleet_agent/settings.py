"""The agent's command line, with defaults that are safe to run with."""

import argparse
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpufleet_agent.devices.xids.policy import XidPolicy, XidWithoutActionPolicy
from gpufleet_agent.metrics.options import HostnameLabel, MetricsOptions, PodLabels
from gpufleet_agent.plugin.allocator import PodMatching
from gpufleet_agent.plugin.inject.strategies import DeviceListStrategy, InjectorSettings
from gpufleet_agent.resources import MigStrategy, Served, partition_resource
from gpufleet_api.names import (
    DRA_DRIVER,
    MAX_SHARED_SLOTS,
    REPORT_SECONDS,
    RESOURCE,
    SHARED_RESOURCE,
    SHARED_SLOTS,
    Transport,
)
from gpufleet_common.flags import FlagParser, invalid, whole_number

MAX_RECORD_MIB = 2**20
MAX_XID = 9999
MAX_SAMPLE_SECONDS, MAX_WINDOW_SECONDS, MAX_HEARTBEAT_SECONDS, MAX_REPORT_SECONDS = 60.0, 3600.0, 600.0, 3600.0
"""The chart's schema has the same limits."""

_CDI_KIND = re.compile(r"[A-Za-z]([A-Za-z0-9._-]*[A-Za-z0-9])?/[A-Za-z]([A-Za-z0-9_-]*[A-Za-z0-9])?")
"""As of CDI 0.5.0: a dot in the class came later, and a runtime ignores a file with a kind that it does not know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """The validated command line."""

    node_name: str
    """Name of the Node object and of the GPUTelemetry object."""
    own_pod: tuple[str, str] | None = None
    """Namespace and name of the agent's pod; None: the agent does not run in a pod."""
    resource: str = RESOURCE
    """Extended resource of a whole device. To replace the vendor's plugin, set its resource name."""
    shared_resource: str = SHARED_RESOURCE
    """Extended resource of one slot of a shared device; empty: sharing is disabled."""
    shared_slots: int = SHARED_SLOTS
    """Slots of each shared device: how many containers may share it."""
    sample_seconds: float = 1.0
    """Time between two samples of a device."""
    window_seconds: float = 60.0
    """Length of the window of each device's mean, maximum and 95th percentile."""
    heartbeat_seconds: float = 30.0
    """Maximum time between two signs of life, status writes or renewals of the Lease. By default the operator considers
    a node stale after three."""
    report_seconds: float = REPORT_SECONDS
    """Time after which an unchanged status is written again; at most `heartbeat_seconds`: at each heartbeat, without a
    Lease."""
    device_plugin_dir: Path = Path("/var/lib/kubelet/device-plugins")
    """The kubelet's device plugin directory, with its kubelet.sock."""
    pod_resources_socket: Path = Path("/var/lib/kubelet/pod-resources/kubelet.sock")
    """Socket of the kubelet's PodResources API."""
    state_dir: Path | None = Path("/var/lib/gpufleet")
    """Directory of the fault file, which survives the agent; None: faults are kept in the status only."""
    listen_host: str = "0.0.0.0"  # noqa: S104 - Prometheus and the kubelet's probes come from outside the pod
    listen_port: int = 9400
    """Address of /metrics, /healthz and /readyz."""
    mig_strategy: MigStrategy = MigStrategy.NONE
    """How a GPU in MIG mode is offered."""
    xids: XidPolicy = field(default_factory=XidPolicy)
    """Which XIDs are faults."""
    injection: InjectorSettings = field(default_factory=InjectorSettings)
    """How devices get into containers."""
    driver_library_root: Path | None = None
    """File system below which the driver's management library is searched; None: the loader finds it."""
    log_level: str = "info"
    log_format: str = "json"
    recording: Path | None = None
    """Recording to play instead of reading NVML; None: read NVML."""
    record: Path | None = None
    """File to record the hardware's readings to; None: record nothing."""
    record_max_mib: int = 1024
    """Size limit of `record`."""
    metrics: MetricsOptions = field(default_factory=MetricsOptions)
    """Labels and choice of the series of devices."""
    transport: Transport = Transport.DEVICE_PLUGIN
    """How devices get into containers."""
    dra_driver: str = DRA_DRIVER
    """DRA driver that gives the devices to claims. With another one than gpufleet's own, the agent only measures."""
    plugins_dir: Path = Path("/var/lib/kubelet/plugins")
    """The kubelet's directory of plugin sockets, for transport DRA."""
    plugins_registry_dir: Path = Path("/var/lib/kubelet/plugins_registry")
    """The kubelet's directory of registration sockets, for transport DRA."""
    pod_matching: PodMatching = PodMatching.POD_RESOURCES
    """For diagnosis only: `first-fit` guesses the pod of a request, which is wrong under load."""

    @property
    def served(self) -> tuple[Served, ...]:
        """The resources to register with the kubelet."""
        shared = (Served(self.shared_resource, self.shared_slots),) if self.shared_resource else ()
        return (Served(self.resource), *shared)


DEFAULTS = AgentSettings(node_name="")


def parse(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> AgentSettings:
    """Returns the settings of a command line.

    Raises:
        SystemExit: Status 2, with a message on stderr: a flag is wrong. Status 0: help was requested.
    """
    parser = _parser(environment)
    options = vars(parser.parse_args(arguments))
    if not options["node_name"]:
        parser.error("--node-name is required where NODE_NAME is not set")
    _check_together(parser, options)
    if both := options["ignore_xids"] & options["fatal_xids"]:
        parser.error(f"--ignore-xids and --fatal-xids must not both list {', '.join(map(str, sorted(both)))}")
    if (options.pop("hardware") == "recorded") != (options["recording"] is not None):
        parser.error("--hardware recorded and --recording require each other")
    options["injection"] = InjectorSettings(
        strategies=options.pop("device_list_strategy"),
        container_mounts=tuple(options.pop("container_mount") or ()),
        **{name: options.pop(name) for name in ("pass_device_specs", "driver_root", "cdi_root", "cdi_kind")},
    )
    options["own_pod"] = _own_pod(environment)
    options["metrics"] = MetricsOptions(
        pod_labels=PodLabels(options.pop("metrics_pod_labels")),
        dcgm_names=options.pop("metrics_dcgm_names") == "true",
        hostname_label=HostnameLabel(options.pop("metrics_hostname_label")),
    )
    host, port = options.pop("listen")
    pod_matching = PodMatching(options.pop("pod_matching"))
    options["mig_strategy"] = MigStrategy(options["mig_strategy"])
    options["transport"] = Transport(options["transport"])
    options["xids"] = XidPolicy(
        ignored=options.pop("ignore_xids"),
        fatal=options.pop("fatal_xids"),
        unknown=XidWithoutActionPolicy(options.pop("on_xid_without_action")),
    )
    return AgentSettings(listen_host=host, listen_port=port, pod_matching=pod_matching, **options)


def _check_together(parser: argparse.ArgumentParser, options: Mapping[str, Any]) -> None:
    """Rejects flags that are valid by themselves, but not together."""
    resource, shared = options["resource"], options["shared_resource"]
    if shared == resource:
        parser.error(f"--resource and --shared-resource must differ, both are {resource}")
    partitions = partition_resource(resource, "")
    if options["mig_strategy"] == MigStrategy.MIXED:
        for flag, name in (("--resource", resource), ("--shared-resource", shared)):
            if name.startswith(partitions):
                parser.error(f"{flag} {name} must not start with {partitions}, the prefix of --mig-strategy mixed")
    state_dir, plugins = options["state_dir"], options["device_plugin_dir"]
    if state_dir is not None and plugins in (state_dir, *state_dir.parents):
        parser.error(
            f"--state-dir {state_dir} must not be in --device-plugin-dir: the kubelet deletes its files at start"
        )
    if {DeviceListStrategy.ENVVAR, DeviceListStrategy.VOLUME_MOUNTS} <= options["device_list_strategy"]:
        parser.error("--device-list-strategy must not list both envvar and volume-mounts, which set the same variable")
    if options["window_seconds"] < 2 * options["sample_seconds"]:
        parser.error("--window-seconds must be at least twice --sample-seconds")


def _parser(environment: Mapping[str, str]) -> FlagParser:
    parser = FlagParser(
        prog="gpufleet-agent",
        description="Samples the GPUs of this node, publishes them as GPUTelemetry and serves them to the kubelet.",
    )
    parser.flag("--node-name", environment.get("NODE_NAME"), "name of the Node; $NODE_NAME if not set", metavar="NAME")
    parser.resources(DEFAULTS.resource, DEFAULTS.shared_resource, DEFAULTS.shared_slots, MAX_SHARED_SLOTS)
    for flag, default, most, description in (
        ("--sample-seconds", DEFAULTS.sample_seconds, MAX_SAMPLE_SECONDS, "time between two samples of a device"),
        ("--window-seconds", DEFAULTS.window_seconds, MAX_WINDOW_SECONDS, "window of mean, maximum and p95"),
        (
            "--heartbeat-seconds",
            DEFAULTS.heartbeat_seconds,
            MAX_HEARTBEAT_SECONDS,
            "maximum time between renewals of the agent's Lease or status writes",
        ),
        (
            "--report-seconds",
            DEFAULTS.report_seconds,
            MAX_REPORT_SECONDS,
            "time after which an unchanged status is written again; up to --heartbeat-seconds: no Lease is used",
        ),
    ):
        parser.seconds(flag, default, most, description)
    parser.flag(
        "--device-plugin-dir",
        DEFAULTS.device_plugin_dir,
        "the kubelet's device plugin directory",
        type=Path,
        metavar="DIR",
    )
    parser.flag(
        "--pod-resources-socket",
        DEFAULTS.pod_resources_socket,
        "socket of the kubelet's PodResources API",
        type=Path,
        metavar="PATH",
    )
    parser.flag(
        "--state-dir",
        DEFAULTS.state_dir,
        "directory of the fault file; empty: faults are kept in the status only",
        type=_optional_dir,
        metavar="DIR",
    )
    parser.flag(
        "--mig-strategy",
        DEFAULTS.mig_strategy.value,
        "offer a GPU in MIG mode as one device, its partitions as --resource, or as one resource for each profile",
        choices=[strategy.value for strategy in MigStrategy],
    )
    _add_transport(parser)
    _add_health(parser)
    _add_injection(parser)
    _add_hardware(parser)
    _add_metrics(parser)
    parser.process(f"{DEFAULTS.listen_host}:{DEFAULTS.listen_port}", DEFAULTS.log_level, DEFAULTS.log_format)
    # For diagnosis only, so it is not in the help.
    parser.add_argument(
        "--pod-matching",
        default=DEFAULTS.pod_matching.value,
        choices=[h.value for h in PodMatching],
        help=argparse.SUPPRESS,
    )
    return parser


def _add_transport(parser: FlagParser) -> None:
    parser.flag(
        "--transport",
        DEFAULTS.transport.value,
        "serve the devices by a device plugin, or to ResourceClaims (Kubernetes 1.34 or later; shares need 1.36)",
        choices=[transport.value for transport in Transport],
    )
    parser.flag(
        "--dra-driver",
        DEFAULTS.dra_driver,
        "DRA driver of the node, for --transport DRA; the agent only measures if it is not gpufleet's own",
    )
    for flag, default, what in (
        ("--plugins-dir", DEFAULTS.plugins_dir, "plugin sockets"),
        ("--plugins-registry-dir", DEFAULTS.plugins_registry_dir, "registration sockets"),
    ):
        parser.flag(flag, default, f"the kubelet's directory of {what}, for --transport DRA", type=Path, metavar="DIR")


def _add_hardware(parser: FlagParser) -> None:
    kinds = ("nvml", "recorded")
    parser.flag("--hardware", kinds[0], "source of readings", choices=kinds)
    parser.flag("--recording", None, "file that --hardware recorded plays", type=Path, metavar="FILE")
    parser.flag("--record", None, "file to record the hardware's readings to", type=Path, metavar="FILE")
    parser.flag(
        "--record-max-mib",
        DEFAULTS.record_max_mib,
        "size limit of --record; recording stops there, the agent continues",
        type=whole_number(MAX_RECORD_MIB),
        metavar="MIB",
    )


def _add_metrics(parser: FlagParser) -> None:
    default = DEFAULTS.metrics
    parser.flag(
        "--metrics-pod-labels",
        default.pod_labels.value,
        "Exclusive: DCGM's series of a device that is not shared are labeled with its pod; None: none are",
        choices=[labels.value for labels in PodLabels],
    )
    parser.flag(
        "--metrics-dcgm-names",
        "true",
        "export the series with DCGM's names; false next to dcgm-exporter",
        choices=["true", "false"],
    )
    parser.flag(
        "--metrics-hostname-label",
        default.hostname_label.value,
        "label with the node's name in DCGM's series; Hostname for dashboards made before May 2026",
        choices=[label.value for label in HostnameLabel],
    )


def _add_health(parser: FlagParser) -> None:
    for flag, description in (
        ("--ignore-xids", "XIDs that are only counted, as a comma-separated list"),
        (
            "--fatal-xids",
            "XIDs that are faults until the driver needs no recovery or the device is reset, as a comma-separated list",
        ),
    ):
        parser.flag(flag, "", description, type=_xids, metavar="LIST")
    parser.flag(
        "--on-xid-without-action",
        DEFAULTS.xids.unknown.value,
        "how to treat XIDs for which NVIDIA's catalog has no action on the node",
        choices=[choice.value for choice in XidWithoutActionPolicy],
    )


def _add_injection(parser: FlagParser) -> None:
    default = InjectorSettings()
    parser.flag(
        "--device-list-strategy",
        DeviceListStrategy.ENVVAR.value,
        f"how devices get into containers: comma-separated list of {', '.join(DeviceListStrategy)}",
        type=_strategies,
        metavar="LIST",
    )
    parser.flag(
        "--pass-device-specs", default=False, description="also return device files to the kubelet", action="store_true"
    )
    parser.flag("--driver-root", default.driver_root, "host path with the driver's /dev", type=Path, metavar="DIR")
    parser.flag(
        "--driver-library-root",
        DEFAULTS.driver_library_root,
        "file system below which libnvidia-ml.so.1 is searched; empty: by the loader's path",
        type=_optional_dir,
        metavar="DIR",
    )
    parser.flag(
        "--container-mount",
        None,
        "host directory to mount read-only into containers with devices; may be repeated",
        type=_container_mount,
        action="append",
        metavar="HOST:CONTAINER",
    )
    parser.flag("--cdi-root", default.cdi_root, "directory of the CDI file", type=Path, metavar="DIR")
    parser.flag(
        "--cdi-kind",
        default.cdi_kind,
        "vendor and class of CDI device names; with another kind, the CDI file must exist and name devices by UUID",
        type=_cdi_kind,
        metavar="KIND",
    )


def _own_pod(environment: Mapping[str, str]) -> tuple[str, str] | None:
    namespace, name = environment.get("POD_NAMESPACE", ""), environment.get("POD_NAME", "")
    return (namespace, name) if namespace and name else None


def _container_mount(text: str) -> tuple[Path, Path]:
    host, _, path = text.partition(":")
    if not (host.startswith("/") and path.startswith("/")):
        raise invalid(text, "must be two absolute paths separated by a colon")
    return Path(host), Path(path)


def _strategies(text: str) -> frozenset[DeviceListStrategy]:
    try:
        return frozenset(map(DeviceListStrategy, text.split(",")))
    except ValueError as error:
        raise invalid(text, f"must be a comma-separated list of {', '.join(DeviceListStrategy)}") from error


def _xids(text: str) -> frozenset[int]:
    codes = [code.strip() for code in text.split(",") if code.strip()]
    if not all(code.isascii() and code.isdecimal() and 0 < int(code) <= MAX_XID for code in codes):
        raise invalid(text, f"must be a comma-separated list of numbers from 1 to {MAX_XID}")
    return frozenset(map(int, codes))


def _cdi_kind(text: str) -> str:
    if not _CDI_KIND.fullmatch(text):
        raise invalid(text, "must be a CDI kind such as example.com/gpu")
    return text


def _optional_dir(text: str) -> Path | None:
    if not text:
        return None
    # A relative path would be in the container, which does not survive the agent.
    if not Path(text).is_absolute() or ".." in Path(text).parts:
        raise invalid(text, "must be empty or an absolute path without '..'")
    return Path(text)
