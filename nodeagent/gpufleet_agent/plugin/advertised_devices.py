"""Selects the devices of the node that the plugins advertise."""

from gpufleet_agent.plugin.foreign_processes import in_use
from gpufleet_agent.plugin.types import AdvertisedDevice
from gpufleet_agent.sampling.snapshot import HealthState, SnapshotSource


class AdvertisedDevices:
    """Derives the devices to advertise from the sampler's snapshot.

    Args:
        sampler: The node's devices.
        by_profile: Whether each kind of partition has a resource of its own.
    """

    def __init__(self, sampler: SnapshotSource, *, by_profile: bool) -> None:
        self._sampler = sampler
        self._by_profile = by_profile

    def list(self) -> tuple[AdvertisedDevice, ...]:
        """Returns the devices to advertise, without I/O."""
        return tuple(
            AdvertisedDevice(
                device.info.uuid,
                device.info.index,
                device.health.state is HealthState.HEALTHY,
                profile=device.info.profile if self._by_profile else None,
                in_use=in_use(device.sample, device.info.memory_model),
                nodes=device.info.nodes,
            )
            for device in self._sampler.snapshot().devices
            # A partition without a known profile belongs to no resource, least of all to that of whole GPUs.
            if not (self._by_profile and device.info.parent is not None and device.info.profile is None)
        )
