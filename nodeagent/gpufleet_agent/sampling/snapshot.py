"""What is known of a node's devices at one instant: the one thing that plugin, publisher and exporter read.

Immutable, so that it can be handed to any thread, and made from memory, so that asking never touches hardware.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Protocol

from gpufleet_agent.devices.base import DeviceInfo, Recovery, Sample


class HealthState(StrEnum):
    """Whether a device can be used. The words are those of GPUTelemetry."""

    HEALTHY = "Healthy"
    UNHEALTHY = "Unhealthy"


@dataclass(frozen=True, slots=True)
class HealthReason:
    """One standing fault, or a warning."""

    code: str
    """CamelCase; of `sampling.health.ReadFault`, of `sampling.thresholds`, or an event's kind (`XidError`)."""
    message: str
    since: float
    """Seconds since the epoch."""
    recovery: Recovery = Recovery.AUTOMATIC
    fault: bool = True
    """False: told, and no reason to call the device unhealthy."""


@dataclass(frozen=True, slots=True)
class HealthSnapshot:
    """Unhealthy exactly when a reason stands. Reasons in order of their codes."""

    state: HealthState
    reasons: tuple[HealthReason, ...] = ()
    since: float | None = None
    """When `state` last changed, in seconds since the epoch; None: never."""
    warnings: tuple[HealthReason, ...] = ()
    """What is told of the device beside its faults, in order of the codes."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """Of one quantity over the window, in that quantity's unit. `p95` is a value that occurred (nearest rank)."""

    mean: float
    max: int
    p95: int


@dataclass(frozen=True, slots=True)
class WindowStats:
    """A device's recent past. A quantity that no sample carried is None."""

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
    """How often a device reported one code since the sampler started. Counts never fall."""

    kind: str
    code: int
    count: int
    last_at: float
    """Seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class DeviceSnapshot:
    """One device."""

    info: DeviceInfo
    health: HealthSnapshot
    sample: Sample | None = None
    """The last good one, however old; None: there was none yet."""
    sample_age_seconds: float | None = None
    """Age of `sample` at the time of the view, by a clock that never jumps."""
    window: WindowStats | None = None
    """None: no sample within the window."""
    events: tuple[EventCount, ...] = ()


_NONE: Mapping[str, int] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class NodeSnapshot:
    """The node's devices in index order. No devices is a calm state: no GPU, or no driver yet."""

    devices: tuple[DeviceSnapshot, ...] = ()
    driver_version: str | None = None
    sample_time: float | None = None
    """`taken_at` of the newest good sample of any device; None: none yet."""
    sample_age_seconds: float | None = None
    """Age of that sample, by a clock that never jumps."""
    health_version: int = 0
    """Rises with every change of a device's health and of the list of devices. See `Sampler.changed`."""
    unavailable: str | None = None
    """Why the hardware can't be asked at all, in words; None: it can."""
    unlisted: int = 0
    """Devices that the driver counts but can't list, because they didn't answer when it was opened."""
    samples: int = 0
    """Good samples since the start."""
    dropped: Mapping[str, int] = field(default_factory=lambda: _NONE)
    """Samples dropped since the start, by reason: `Invalid` values, and `ReadFailed`."""


class SnapshotSource(Protocol):
    """What the rest of the agent needs of a sampler; `sampling.sampler.Sampler` is the one there is."""

    def snapshot(self) -> NodeSnapshot:
        """What is known now, from memory: microseconds, never blocks. Still answers after close."""

    async def changed(self, seen: int) -> int:
        """Wait until `health_version` differs from `seen`; returns the new one. No change is missed.

        Raises:
            SamplerClosedError: The sampler was closed, before or during the wait.
        """

    async def failed(self) -> Exception:
        """Wait for an error that only a new process can mend (`ProcessMustRestartError`, or a defect)."""
