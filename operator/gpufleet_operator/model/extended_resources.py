"""The two extended resources that pods request: whole devices, and share slots of shared devices."""

from dataclasses import dataclass
from typing import Final

from gpufleet_api.names import RESOURCE, SHARED_RESOURCE, SHARED_SLOTS
from gpufleet_api.workload import DeviceMode, Devices


@dataclass(frozen=True, slots=True)
class Resources:
    """Names and slots of the extended resources; agent and operator need the same settings."""

    whole: str = RESOURCE
    shared: str = SHARED_RESOURCE
    """Empty: devices are not shared."""
    slots: int = SHARED_SLOTS
    """Maximum number of containers that share one device."""

    @property
    def names(self) -> tuple[str, ...]:
        """The resources that the device plugin offers."""
        return (self.whole, self.shared) if self.shared else (self.whole,)

    def name_for(self, devices: Devices) -> str:
        """Returns the resource that a container with these devices requests."""
        return self.shared if devices.mode is DeviceMode.SHARED else self.whole

    def offered(self, resource: str, healthy: int) -> int:
        """Returns how many of a resource a node with this many healthy devices offers."""
        return healthy * self.slots if resource == self.shared else healthy


DEFAULTS: Final = Resources()
