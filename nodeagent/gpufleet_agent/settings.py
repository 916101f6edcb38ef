"""What can be set, with defaults that are safe to run with."""

import argparse
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpufleet_agent.logs import FORMATS, LEVELS
from gpufleet_agent.plugin.allocator import Handover
from gpufleet_agent.plugin.inject.strategies import InjectionSettings, Strategy
from gpufleet_agent.resources import MigStrategy, Served, partition_resource
from gpufleet_api.names import RESOURCE, SHARED_RESOURCE, SHARED_SLOTS

MAX_SLOTS = 64
"""As many holders of one device as the status has room for."""
MAX_RECORD_MIB = 2**20
MAX_SAMPLE_SECONDS, MAX_WINDOW_SECONDS, MAX_HEARTBEAT_SECONDS = 60.0, 3600.0, 600.0
"""The chart allows no more, either: a sample's age and a window are of the present, and a silent node isn't used."""
_MIN_SECONDS = 0.01

_LABEL = "[a-z0-9]([a-z0-9-]*[a-z0-9])?"
_RESOURCE = re.compile(rf"{_LABEL}([.]{_LABEL})*/[A-Za-z0-9]([A-Za-z0-9._-]{{0,61}}[A-Za-z0-9])?")
"""A domain has no underscore, so no two resources share the file name of a socket."""
_RESOURCE_LENGTH = 128
_CDI_KIND = re.compile(r"[A-Za-z]([A-Za-z0-9._-]*[A-Za-z0-9])?/[A-Za-z]([A-Za-z0-9_-]*[A-Za-z0-9])?")
"""As of CDI 0.5.0: a dot in the class came later, and a runtime drops a file with a kind that it doesn't know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The command line, checked."""

    node_name: str
    """Name of the Node object, and so of the GPUTelemetry object."""
    own_pod: tuple[str, str] | None = None
    """Namespace and name of the pod that the agent runs in; None: in none."""
    resource: str = RESOURCE
    """Extended resource to serve. A cluster that retires its vendor's plugin sets that one's name."""
    shared_resource: str = SHARED_RESOURCE
    """Extended resource of shared use; empty: no device is shared."""
    shared_slots: int = SHARED_SLOTS
    """Slots of each device: how many containers may share it."""
    sample_seconds: float = 1.0
    """Time between two samples of a device."""
    window_seconds: float = 60.0
    """How far back a device's mean, maximum and 95th percentile reach."""
    heartbeat_seconds: float = 30.0
    """Longest time between two writes of the status. The operator takes a node for stale after three."""
    device_plugin_dir: Path = Path("/var/lib/kubelet/device-plugins")
    """The kubelet's directory, with its kubelet.sock. Another one only where the kubelet's root is elsewhere."""
    pod_resources_socket: Path = Path("/var/lib/kubelet/pod-resources/kubelet.sock")
    """The kubelet's list of who holds what."""
    state_dir: Path | None = Path("/var/lib/gpufleet")
    """Where faults that are told once outlive the agent; None: nowhere but in the status."""
    listen_host: str = "0.0.0.0"  # noqa: S104 - Prometheus and the kubelet's probes come from outside the pod
    listen_port: int = 9400
    """Where /metrics, /healthz and /readyz are served."""
    mig_strategy: MigStrategy = MigStrategy.NONE
    """What becomes of a GPU that is divided by MIG."""
    injection: InjectionSettings = field(default_factory=InjectionSettings)
    """How devices get into containers."""
    log_level: str = "info"
    log_format: str = "json"
    recording: Path | None = None
    """The file that is played in place of a driver; None: the hardware is NVML's."""
    record: Path | None = None
    """Where to write down what the hardware says; None: nowhere."""
    record_max_mib: int = 1024
    """How large that file may become."""
    handover: Handover = Handover.ASKING
    """For diagnosis only: `first-fit` guesses which pod asks, and gets it wrong under load."""

    @property
    def served(self) -> tuple[Served, ...]:
        """The resources to serve."""
        shared = (Served(self.shared_resource, self.shared_slots),) if self.shared_resource else ()
        return (Served(self.resource), *shared)


DEFAULTS = Settings(node_name="")


def parse(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> Settings:
    """Read the command line.

    Raises:
        SystemExit: It is wrong (status 2, with a message on stderr), or asked for help (status 0).
    """
    parser = _parser(environment)
    options = vars(parser.parse_args(arguments))
    if not options["node_name"]:
        parser.error("--node-name is missing, and NODE_NAME is not set")
    _check_together(parser, options)
    if (options.pop("hardware") == "recorded") != (options["recording"] is not None):
        parser.error("--hardware recorded and --recording go together")
    options["injection"] = InjectionSettings(
        strategies=options.pop("device_list_strategy"),
        **{name: options.pop(name) for name in ("pass_device_specs", "driver_root", "cdi_root", "cdi_kind")},
    )
    options["own_pod"] = _own_pod(environment)
    host, port = options.pop("listen")
    handover = Handover(options.pop("handover"))
    options["mig_strategy"] = MigStrategy(options["mig_strategy"])
    return Settings(listen_host=host, listen_port=port, handover=handover, **options)


def _check_together(parser: argparse.ArgumentParser, options: Mapping[str, Any]) -> None:
    """End with a message where flags that are right by themselves don't go together."""
    resource, shared = options["resource"], options["shared_resource"]
    if shared == resource:
        parser.error("--shared-resource and --resource name the same resource")
    partitions = partition_resource(resource, "")
    if options["mig_strategy"] == MigStrategy.MIXED:
        for flag, name in (("--resource", resource), ("--shared-resource", shared)):
            if name.startswith(partitions):
                parser.error(f"{flag} {name} is named as partitions are with --mig-strategy mixed ({partitions}...)")
    state_dir, plugins = options["state_dir"], options["device_plugin_dir"]
    if state_dir is not None and plugins in (state_dir, *state_dir.parents):
        parser.error(f"--state-dir {state_dir} is in --device-plugin-dir, which the kubelet empties when it starts")
    if options["window_seconds"] < 2 * options["sample_seconds"]:
        parser.error("--window-seconds must be at least twice --sample-seconds: one sample is no window")


def _parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gpufleet-agent",
        description="Measures this node's GPUs, publishes them as GPUTelemetry, and serves them to the kubelet.",
    )

    def add(flag: str, default: object, description: str, **how: Any) -> None:
        parser.add_argument(flag, default=default, help=f"{description} (default: %(default)s)", **how)

    def add_seconds(flag: str, default: float, most: float, description: str) -> None:
        add(flag, default, f"{description}, at most {most:g}", type=_seconds(most), metavar="S")

    add("--node-name", environment.get("NODE_NAME", ""), "name of the Node, from $NODE_NAME", metavar="NAME")
    add("--resource", DEFAULTS.resource, "extended resource to serve", type=_resource, metavar="NAME")
    add(
        "--shared-resource",
        DEFAULTS.shared_resource,
        "extended resource of shared use, one slot of one device; empty: no sharing",
        type=_optional_resource,
        metavar="NAME",
    )
    add(
        "--shared-slots",
        DEFAULTS.shared_slots,
        "containers that may share a device",
        type=_whole(MAX_SLOTS),
        metavar="N",
    )
    add_seconds("--sample-seconds", DEFAULTS.sample_seconds, MAX_SAMPLE_SECONDS, "between two samples of a device")
    add_seconds("--window-seconds", DEFAULTS.window_seconds, MAX_WINDOW_SECONDS, "window of mean, maximum and p95")
    add_seconds(
        "--heartbeat-seconds",
        DEFAULTS.heartbeat_seconds,
        MAX_HEARTBEAT_SECONDS,
        "longest time between two status writes",
    )
    add("--device-plugin-dir", DEFAULTS.device_plugin_dir, "the kubelet's plugin sockets", type=Path, metavar="DIR")
    add(
        "--pod-resources-socket",
        DEFAULTS.pod_resources_socket,
        "the kubelet's PodResources socket",
        type=Path,
        metavar="PATH",
    )
    add(
        "--state-dir",
        DEFAULTS.state_dir,
        "where faults are kept for the agent's restart; empty: in the status alone",
        type=_state_dir,
        metavar="DIR",
    )
    add(
        "--mig-strategy",
        DEFAULTS.mig_strategy.value,
        "a GPU divided by MIG: one device, its partitions under the resource, or under one for each kind",
        choices=[strategy.value for strategy in MigStrategy],
    )
    _add_injection(add)
    _add_hardware(parser)
    listen = f"{DEFAULTS.listen_host}:{DEFAULTS.listen_port}"
    add("--listen", listen, "where /metrics, /healthz and /readyz are", type=_address, metavar="HOST:PORT")
    add("--log-level", DEFAULTS.log_level, "least severe event that is logged", choices=LEVELS)
    add("--log-format", DEFAULTS.log_format, "how events are written to stderr", choices=FORMATS)
    # Diagnosis of the hand-over, not for use: left out of the help on purpose.
    handovers = [kind.value for kind in Handover]
    parser.add_argument("--handover", default=DEFAULTS.handover.value, choices=handovers, help=argparse.SUPPRESS)
    return parser


def _add_hardware(parser: argparse.ArgumentParser) -> None:
    kinds = ("nvml", "recorded")
    parser.add_argument(
        "--hardware", default=kinds[0], choices=kinds, help="where readings come from (default: %(default)s)"
    )
    parser.add_argument("--recording", type=Path, metavar="FILE", help="the file that `--hardware recorded` plays")
    parser.add_argument("--record", type=Path, metavar="FILE", help="write what the hardware says into a recording")
    most = "the recording ends at this size, and the agent goes on (default: %(default)s)"
    parser.add_argument(
        "--record-max-mib", default=DEFAULTS.record_max_mib, type=_whole(MAX_RECORD_MIB), metavar="MIB", help=most
    )


def _add_injection(add: Callable[..., None]) -> None:
    usual = InjectionSettings()
    add(
        "--device-list-strategy",
        Strategy.ENVVAR.value,
        "how devices get into containers: one or more of envvar, cdi-cri, cdi-annotations, with commas",
        type=_strategies,
        metavar="LIST",
    )
    add("--pass-device-specs", default=False, description="tell the kubelet the device nodes, too", action="store_true")
    add("--driver-root", usual.driver_root, "where the driver's /dev is on the host", type=Path, metavar="DIR")
    add("--cdi-root", usual.cdi_root, "where the CDI file is written", type=Path, metavar="DIR")
    add(
        "--cdi-kind",
        usual.cdi_kind,
        "vendor and class of CDI names; one that isn't ours: somebody else writes the file, with UUIDs for names",
        type=_cdi_kind,
        metavar="KIND",
    )


def _own_pod(environment: Mapping[str, str]) -> tuple[str, str] | None:
    namespace, name = environment.get("POD_NAMESPACE", ""), environment.get("POD_NAME", "")
    return (namespace, name) if namespace and name else None


def _strategies(text: str) -> frozenset[Strategy]:
    try:
        return frozenset(map(Strategy, text.split(",")))
    except ValueError as error:
        known = ", ".join(Strategy)
        raise argparse.ArgumentTypeError(f"{text} is not a list of {known}") from error


def _seconds(most: float) -> Callable[[str], float]:
    def seconds_of(text: str) -> float:
        try:
            seconds = float(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text} is not a number of seconds") from error
        if not _MIN_SECONDS <= seconds <= most:  # also refuses NaN
            raise argparse.ArgumentTypeError(f"{text} is not between {_MIN_SECONDS} and {most:g} seconds")
        return seconds

    return seconds_of


def _resource(text: str) -> str:
    if not _RESOURCE.fullmatch(text) or len(text) > _RESOURCE_LENGTH:
        raise argparse.ArgumentTypeError(f"{text} is not of the form domain/name, as extended resources are")
    if text.startswith("requests.") or "kubernetes.io/" in text:
        raise argparse.ArgumentTypeError(f"{text} is a name that Kubernetes keeps for itself")
    return text


def _optional_resource(text: str) -> str:
    return _resource(text) if text else ""


def _cdi_kind(text: str) -> str:
    if not _CDI_KIND.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text} is not of the form vendor/class, as CDI has it")
    return text


def _state_dir(text: str) -> Path | None:
    if not text:
        return None
    # Anywhere else than on the host it would be gone with the container.
    if not Path(text).is_absolute() or ".." in Path(text).parts:
        raise argparse.ArgumentTypeError(f"{text} is not an absolute path (without `..`), nor empty")
    return Path(text)


def _whole(most: int) -> Callable[[str], int]:
    def whole_of(text: str) -> int:
        try:
            number = int(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text} is not a whole number") from error
        if not 1 <= number <= most:
            raise argparse.ArgumentTypeError(f"{text} is not between 1 and {most}")
        return number

    return whole_of


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65_535:  # noqa: PLR2004 - the largest port
        raise argparse.ArgumentTypeError(f"{text} is not of the form host:port")
    return host.strip("[]"), int(port)
