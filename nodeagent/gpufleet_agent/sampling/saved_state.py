"""State of the devices that is saved for the next process of this node's agent, so that no fault is lost."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from gpufleet_agent.devices.base import DeviceInfo
from gpufleet_agent.sampling.snapshot import HealthSnapshot


@dataclass(frozen=True, slots=True)
class SavedDevice:
    """A device as it was last reported."""

    info: DeviceInfo
    health: HealthSnapshot
    last_seen: Mapping[str, float] = field(default_factory=lambda: _NO_TIMES)
    """When each current event last occurred, by code, in seconds since the epoch. Missing: when it was reported."""


_NO_TIMES: Mapping[str, float] = MappingProxyType({})
_NO_CODES: Mapping[str, frozenset[str]] = MappingProxyType({})
_NO_DEVICES: Mapping[str, SavedDevice] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class SavedState:
    """The last report of the same boot of this node."""

    reported_at: float
    """Time of the report, in seconds since the epoch by the node's clock."""
    driver_version: str | None = None
    devices: Mapping[str, SavedDevice] = field(default_factory=lambda: _NO_DEVICES)
    """By UUID."""
    cleared: Mapping[str, frozenset[str]] = field(default_factory=lambda: _NO_CODES)
    """By UUID: codes of faults that were restored from an older report and have ended according to this one."""


@dataclass(frozen=True, slots=True)
class FaultAcknowledgment:
    """An administrator acknowledged all faults before `until`, which clears them."""

    until: float
    """Seconds since the epoch, by the node's clock."""
    uuid: str | None = None
    """None: all devices of the node."""

    def covers(self, uuid: str) -> bool:
        """Returns whether it applies to this device."""
        return self.uuid in {None, uuid}


_NO_ACKNOWLEDGMENTS: Mapping[FaultAcknowledgment, float] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """State that an agent saves on its node for the next process: what the status lacks, or lacks so far."""

    state: SavedState
    """Only one-time faults, which the driver does not report again; `reported_at` is the time of writing."""
    acknowledgments: Mapping[FaultAcknowledgment, float] = field(default_factory=lambda: _NO_ACKNOWLEDGMENTS)
    """Acknowledgments seen, each with the time up to which it applied, in seconds since the epoch."""
    reports: frozenset[float] = frozenset()
    """`reported_at` of statuses that are certainly older than this, even if the node's clock was set back."""
