"""The kubelet's PodResources list as plain data."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from gpufleet_agent.kube.resource_slices import ClaimableDevice
from gpufleet_agent.proto import podresources_pb2 as pb
from gpufleet_api.names import DRA_DRIVER

SHARED_BY_CLAIM = f"{DRA_DRIVER}/shared"
"""Takes the place of a resource: shares of devices that containers have by claims of the agent's own driver."""


@dataclass(frozen=True, slots=True)
class ContainerKey:
    """Names a container as PodResources does: the kubelet's list has no pod UIDs."""

    namespace: str
    pod: str
    container: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.pod}/{self.container}"


@dataclass(frozen=True, slots=True)
class ClaimedDevice:
    """A device that a container has by a ResourceClaim."""

    name: ClaimableDevice
    cdi_names: tuple[str, ...] = ()
    claim: tuple[str, str] = ("", "")
    """Namespace and name of the claim."""


@dataclass(frozen=True, slots=True)
class ListedContainer:
    """A container in the list, with or without devices."""

    key: ContainerKey
    devices: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Device IDs by resource. A resource without devices is missing."""
    claimed: tuple[ClaimedDevice, ...] = ()
    """Devices of ResourceClaims, which `claimed_devices` adds to `devices`."""
    pod_uid: str | None = None
    """None: unknown. The kubelet's list does not have it; `terminating_pods` adds it to containers with devices."""
    terminating: bool = False
    """The kubelet no longer lists it, but a process of its pod runs."""

    def of(self, resource: str) -> frozenset[str]:
        """Returns the device IDs of one resource."""
        return self.devices.get(resource, frozenset())


Listing = tuple[ListedContainer, ...]


def reserved_as(resource: str) -> str:
    """Returns the resource of the reservation of devices that are listed under `resource`."""
    return DRA_DRIVER if resource == SHARED_BY_CLAIM else resource


def parse_listing(response: pb.ListPodResourcesResponse) -> Listing:
    """Returns all containers of all active pods, in the kubelet's order."""
    return tuple(
        ListedContainer(
            ContainerKey(pod.namespace, pod.name, container.name),
            _by_resource(container.devices),
            tuple(_claimed(container.dynamic_resources)),
        )
        for pod in response.pod_resources
        for container in pod.containers
    )


def _claimed(claims: Iterable[pb.DynamicResource]) -> Iterator[ClaimedDevice]:
    for claim in claims:
        for device in claim.claim_resources:
            name = device.driver_name, device.pool_name, device.device_name
            cdi_names = tuple(cdi.name for cdi in device.cdi_devices)
            yield ClaimedDevice(name, cdi_names, (claim.claim_namespace, claim.claim_name))


def _by_resource(entries: Iterable[pb.ContainerDevices]) -> dict[str, frozenset[str]]:
    # One entry per device or one per NUMA node: both occur, so entries of one resource are merged.
    devices: dict[str, frozenset[str]] = {}
    for entry in entries:
        if entry.device_ids:
            devices[entry.resource_name] = devices.get(entry.resource_name, frozenset()).union(entry.device_ids)
    return devices
