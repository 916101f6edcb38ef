"""What an earlier process of this node's agent knew of the devices, so that a restart forgets no fault that stands."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from gpufleet_agent.devices.base import DeviceInfo
from gpufleet_agent.sampling.snapshot import HealthSnapshot


@dataclass(frozen=True, slots=True)
class SavedDevice:
    """One device as it was reported last."""

    info: DeviceInfo
    health: HealthSnapshot
    last: Mapping[str, float] = field(default_factory=lambda: _NEVER)
    """By code of an event that stands: when it came last, in seconds since the epoch. Else: when it was reported."""


_NEVER: Mapping[str, float] = MappingProxyType({})
_NOTHING: Mapping[str, frozenset[str]] = MappingProxyType({})
_NONE: Mapping[str, SavedDevice] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class SavedState:
    """The last report of the same boot of this node."""

    reported_at: float
    """When it was made, in seconds since the epoch by the node's clock."""
    driver_version: str | None = None
    devices: Mapping[str, SavedDevice] = field(default_factory=lambda: _NONE)
    """By UUID."""
    cleared: Mapping[str, frozenset[str]] = field(default_factory=lambda: _NOTHING)
    """By UUID: codes of faults that were taken over before, and that this newer report says have ended."""


@dataclass(frozen=True, slots=True)
class FaultAcknowledgment:
    """Somebody vouches for devices: what happened to them before `until` no longer counts."""

    until: float
    """Seconds since the epoch, by the node's clock."""
    uuid: str | None = None
    """None: all devices of the node."""

    def covers(self, uuid: str) -> bool:
        """Whether it is about this device."""
        return self.uuid in {None, uuid}


_NO_MARKS: Mapping[FaultAcknowledgment, float] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What an agent keeps on its node for the one after it: what the status doesn't tell, or may not have told yet."""

    past: SavedState
    """Faults that are told once, alone; when it was kept is its `reported`."""
    acknowledged: Mapping[FaultAcknowledgment, float] = field(default_factory=lambda: _NO_MARKS)
    """Those that were seen, each with the time up to which it counted, in seconds since the epoch."""
    reports: frozenset[float] = frozenset()
    """`reported` of statuses that this is certainly later than, whatever the node's clock did in between."""
