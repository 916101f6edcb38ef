"""ResourceClaims that the operator creates, reduced to the fields that decisions need."""

from dataclasses import dataclass

PodKey = tuple[str, str]
"""Namespace and uid of a pod. Users can write the uid of any pod as the owner of a claim in their own namespace."""


@dataclass(frozen=True, slots=True)
class ClaimRequest:
    """One entry of `spec.devices.requests`."""

    name: str
    expression: str
    """CEL expression that selects the devices."""
    count: int = 1
    memory_mib: int | None = None
    """Memory that is requested of each device; None: the whole device."""


@dataclass(frozen=True, slots=True)
class DeviceAllocation:
    """One entry of `status.allocation.devices.results`."""

    driver: str
    pool: str
    """Name of the node, in the pools of this driver."""
    device: str


@dataclass(frozen=True, slots=True)
class ResourceClaim:
    """A ResourceClaim with the workload label."""

    uid: str
    namespace: str
    name: str
    resource_version: str
    pod_uid: str = ""
    """UID of the pod that owns it; empty: no pod does."""
    deleting: bool = False
    requests: tuple[ClaimRequest, ...] = ()
    allocated: tuple[DeviceAllocation, ...] | None = None
    """Devices that kube-scheduler has allocated; None: none yet."""

    @property
    def pod_key(self) -> PodKey:
        return self.namespace, self.pod_uid


@dataclass(frozen=True, slots=True)
class ClaimReference:
    """How a pod refers to the claim with its devices."""

    name: str
    """Name of the ResourceClaim; empty: the pod names a template."""
    containers: tuple[str, ...] = ()
    """Names of the sidecars and app containers that use it, in the order in which they start.

    An init container that ends before the others start may use it as well: it has the devices before them.
    """
    template: str = ""
    """Name of the ResourceClaimTemplate; empty: the pod names a claim."""
