"""What an earlier process of this node's agent knew of the devices, so that a restart forgets no fault that stands."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from gpufleet_agent.devices.base import DeviceInfo
from gpufleet_agent.sampling.view import HealthView


@dataclass(frozen=True, slots=True)
class PastDevice:
    """One device as it was reported last."""

    info: DeviceInfo
    health: HealthView


_NONE: Mapping[str, PastDevice] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Past:
    """The last report of the same boot of this node."""

    reported: float
    """When it was made, in seconds since the epoch by the node's clock."""
    driver_version: str | None = None
    devices: Mapping[str, PastDevice] = field(default_factory=lambda: _NONE)
    """By UUID."""


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """Somebody vouches for devices: what happened to them before `until` no longer counts."""

    until: float
    """Seconds since the epoch, by the node's clock."""
    uuid: str | None = None
    """None: all devices of the node."""

    def covers(self, uuid: str) -> bool:
        """Whether it is about this device."""
        return self.uuid in {None, uuid}
