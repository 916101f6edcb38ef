"""The two extended resources by which pods ask for devices: one for whole devices, one for slots of shared ones."""

from dataclasses import dataclass
from typing import Final

from gpufleet_api.names import RESOURCE, SHARED_RESOURCE, SHARED_SLOTS
from gpufleet_api.workload import DeviceMode, Devices


@dataclass(frozen=True, slots=True)
class Resources:
    """As agent and operator are configured alike."""

    whole: str = RESOURCE
    shared: str = SHARED_RESOURCE
    """Empty: devices are never shared."""
    slots: int = SHARED_SLOTS
    """Most containers that share one device."""

    @property
    def names(self) -> tuple[str, ...]:
        """All that is ours to give."""
        return (self.whole, self.shared) if self.shared else (self.whole,)

    def asked(self, devices: Devices) -> str:
        """What a container with these devices asks for."""
        return self.shared if devices.mode is DeviceMode.SHARED else self.whole

    def offered(self, resource: str, healthy: int) -> int:
        """How many of a resource a node with so many healthy devices offers."""
        return healthy * self.slots if resource == self.shared else healthy


DEFAULTS: Final = Resources()
