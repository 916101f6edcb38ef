"""The command line."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from gpufleet_api.names import RESOURCE, SHARED_RESOURCE, SHARED_SLOTS
from gpufleet_operator.model.extended_resources import Resources
from gpufleet_operator.model.snapshot import Limits

_MOST_SLOTS = 64
"""As many holders of a device as the API has room for."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be set, with safe defaults."""

    resource: str = RESOURCE
    """Extended resource that stands for one whole device. Must be the agent's, as the next two."""
    shared_resource: str = SHARED_RESOURCE
    """Extended resource that stands for one slot of a shared device. Empty: devices are never shared."""
    shared_slots: int = SHARED_SLOTS
    """Slots of each device."""
    stale_after_seconds: float = 90.0
    """Raise it together with the agent's heartbeat: it should be three of them."""
    sweep_seconds: float = 10.0
    """How often to decide although no event came: telemetry goes stale without one."""
    resync_seconds: float = 120.0
    """How often the caches are compared with complete lists."""
    unschedulable_grace_seconds: float = 5.0
    """Raise it where kube-scheduler is slow, or its verdicts change by themselves (autoscaled storage)."""
    host: str = "0.0.0.0"  # noqa: S104 - probes and Prometheus come from outside of the pod
    port: int = 8080
    log_level: str = "info"
    log_format: str = "json"

    def limits(self) -> Limits:
        """What decisions depend on."""
        return Limits(
            resources=Resources(self.resource, self.shared_resource, self.shared_slots),
            stale_after=timedelta(seconds=self.stale_after_seconds),
            unschedulable_grace=timedelta(seconds=self.unschedulable_grace_seconds),
        )


def parse(arguments: Sequence[str] | None = None) -> Settings:
    """Settings from the command line; exits with status 2 and a message when it can't be understood."""
    default = Settings()
    parser = argparse.ArgumentParser(
        prog="gpufleet-operator",
        description="Reserves exact GPUs for GPUWorkloads by live telemetry, and checks that containers got them.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--resource", type=_resource, default=default.resource, help="extended resource of one device")
    parser.add_argument(
        "--shared-resource",
        type=_shared_resource,
        default=default.shared_resource,
        help="extended resource of one slot of a shared device; empty: never share",
    )
    parser.add_argument(
        "--shared-slots", type=_slots, default=default.shared_slots, metavar="NUMBER", help="slots of each device"
    )
    for flag, value, text in (
        ("--stale-after-seconds", default.stale_after_seconds, "telemetry older than this is not used"),
        ("--sweep-seconds", default.sweep_seconds, "decide at least this often"),
        ("--resync-seconds", default.resync_seconds, "compare the caches with complete lists this often"),
        ("--unschedulable-grace-seconds", default.unschedulable_grace_seconds, "how long kube-scheduler may refuse"),
    ):
        parser.add_argument(flag, type=_positive, default=value, metavar="SECONDS", help=text)
    parser.add_argument(
        "--listen",
        type=_endpoint,
        default=f"{default.host}:{default.port}",
        metavar="HOST:PORT",
        help="serves /metrics, /healthz and /readyz",
    )
    parser.add_argument(
        "--log-level", choices=("debug", "info", "warning", "error"), default=default.log_level, help=" "
    )
    parser.add_argument("--log-format", choices=("json", "console"), default=default.log_format, help=" ")
    found = vars(parser.parse_args(arguments))
    host, port = found.pop("listen")
    if found["resource"] == found["shared_resource"]:
        parser.error(f"--resource and --shared-resource are the same: {found['resource']}")
    return Settings(**found, host=host, port=port)


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} must be above 0")
    return value


def _resource(text: str) -> str:
    domain, slash, name = text.partition("/")
    if not (domain and slash and name):
        raise argparse.ArgumentTypeError(f"{text!r} must be an extended resource such as {RESOURCE}")
    return text


def _shared_resource(text: str) -> str:
    return _resource(text) if text else ""


def _slots(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= _MOST_SLOTS:
        raise argparse.ArgumentTypeError(f"{text!r} must be 1 to {_MOST_SLOTS}")
    return int(text)


def _endpoint(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not port.isdigit() or int(port) > 65535:  # noqa: PLR2004 - the last port
        raise argparse.ArgumentTypeError(f"{text!r} must be HOST:PORT")
    return host.strip("[]"), int(port)
