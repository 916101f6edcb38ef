"""The state of a node's devices at one moment, as plugin, publisher and exporter read it.

Immutable, so that any thread can use it, and built from the last readings, without a call of the driver.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple, Protocol

from gpufleet_agent.devices.base import DeviceInfo, Recovery, Sample


class HealthState(StrEnum):
    """Values of `health.state` in GPUTelemetry."""

    HEALTHY = "Healthy"
    UNHEALTHY = "Unhealthy"


@dataclass(frozen=True, slots=True)
class HealthReason:
    """An active fault, or a warning."""

    code: str
    """CamelCase; of `sampling.health.ReadFault`, of `sampling.conditions`, or an event's kind (`XidError`)."""
    message: str
    since: float
    """Seconds since the epoch."""
    recovery: Recovery = Recovery.AUTOMATIC
    fault: bool = True
    """False: a warning, which does not make the device unhealthy."""


@dataclass(frozen=True, slots=True)
class HealthSnapshot:
    """Unhealthy exactly if there are reasons. Reasons are sorted by code."""

    state: HealthState
    reasons: tuple[HealthReason, ...] = ()
    since: float | None = None
    """When `state` last changed, in seconds since the epoch; None if never."""
    warnings: tuple[HealthReason, ...] = ()
    """Sorted by code."""


class Statistics(NamedTuple):
    """Statistics of one quantity over the window, in its unit. `p95` is the nearest-rank percentile."""

    mean: float
    max: int
    p95: int


class WindowSummary(NamedTuple):
    """Statistics of a device's recent samples. A quantity that no sample reported is None."""

    samples: int
    """At least 1."""
    seconds: float
    """From the oldest sample in the window to the newest."""
    utilization_percent: Statistics | None = None
    memory_used_mib: Statistics | None = None
    temperature_celsius: Statistics | None = None
    power_milliwatts: Statistics | None = None


@dataclass(frozen=True, slots=True)
class EventCount:
    """How often a device reported one code since the sampler started. Counts never decrease."""

    kind: str
    code: int
    count: int
    last_at: float
    """Seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class DeviceSnapshot:
    info: DeviceInfo
    health: HealthSnapshot
    sample: Sample | None = None
    """The last valid one, however old; None if there was none yet."""
    sample_age_seconds: float | None = None
    """Age of `sample`, by the monotonic clock."""
    window: WindowSummary | None = None
    """None if no sample is within the window."""
    events: tuple[EventCount, ...] = ()


_NONE: Mapping[str, int] = MappingProxyType({})
_NO_VALUES: Mapping[tuple[str, str], int] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class NodeSnapshot:
    """The node's devices, sorted by index. A node without GPU or driver has none."""

    devices: tuple[DeviceSnapshot, ...] = ()
    driver_version: str | None = None
    sample_time: float | None = None
    """`taken_at` of the newest valid sample of any device; None if there was none yet."""
    sample_age_seconds: float | None = None
    """Age of that sample, by the monotonic clock."""
    health_version: int = 0
    """Increases with every change of a device's health or of the list of devices. See `Sampler.changed`."""
    unavailable: str | None = None
    """Why the hardware does not answer at all; None if it does."""
    unlisted: int = 0
    """Devices that the driver counts but that did not answer when it was opened."""
    samples: int = 0
    """Valid samples since the start."""
    dropped: Mapping[str, int] = field(default_factory=lambda: _NONE)
    """Samples dropped since the start, by `InvalidReason` or `ReadFailed`."""
    dropped_values: Mapping[tuple[str, str], int] = field(default_factory=lambda: _NO_VALUES)
    """Values dropped since the start from readings that were kept, by name and `InvalidReason` or `ReadFailed`."""


class SnapshotSource(Protocol):
    """The methods of `sampling.sampler.Sampler` that the rest of the agent uses."""

    def snapshot(self) -> NodeSnapshot:
        """Returns the current state. Takes microseconds, never blocks; works after close."""

    async def changed(self, seen: int) -> int:
        """Waits until `health_version` differs from `seen`; returns the new one. No change is missed.

        Raises:
            SamplerClosedError: The sampler was closed, before or during the wait.
        """

    async def failed(self) -> Exception:
        """Waits for an error that only a new process can recover from: `ProcessMustRestartError`, or a bug."""
