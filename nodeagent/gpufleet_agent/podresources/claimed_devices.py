"""Maps devices that containers hold by ResourceClaims to UUIDs, so that they count as held like all others.

A DRA driver names its devices as it likes. Their UUIDs are an attribute in the driver's ResourceSlices; without them, a
CDI device name may contain the UUID.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace

import structlog

from gpufleet_agent.kube.api import KubeError
from gpufleet_agent.kube.resource_slices import ClaimableDevice
from gpufleet_agent.podresources.listing import SHARED_BY_CLAIM, ClaimedDevice, ContainerKey, ListedContainer, Listing
from gpufleet_api.names import DRA_DRIVER

log = structlog.get_logger(__name__)

RETRY_SECONDS = 30.0
"""Time between two reads of slices that lack a claimed device, or fail."""

_UUID = re.compile(r"(?:GPU|MIG)-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class OwnClaim:
    """Devices that the agent itself has prepared for a claim."""

    pod_uids: Mapping[str, str]
    """UIDs of the claim's pods, by name."""
    devices: Mapping[str, str]
    """UUIDs by name of the device."""
    shared: frozenset[str] = frozenset()
    """UUIDs of which the claim has a share."""
    requests: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Requests of the claim by name of the device. One that is for a container has the name of the container."""


def _no_claims() -> Mapping[tuple[str, str], OwnClaim]:
    return {}


class ClaimedDevices:
    """The UUIDs of claimed devices, as far as they are known.

    Args:
        read: Reads the node's ResourceSlices; raises KubeError.
        clock: Returns monotonic seconds.
    """

    def __init__(
        self, read: Callable[[], Awaitable[Mapping[ClaimableDevice, frozenset[str]]]], clock: Callable[[], float]
    ) -> None:
        self._read = read
        self._clock = clock
        self._own = _no_claims
        self._uuids: Mapping[ClaimableDevice, frozenset[str]] = {}
        self._claimed: frozenset[ClaimableDevice] = frozenset()
        """In the last list."""
        self._read_for: frozenset[ClaimableDevice] = frozenset()
        """Claimed devices at the last read: a new one may have got another UUID since."""
        self._read_at: float | None = None

    def use(self, own: Callable[[], Mapping[tuple[str, str], OwnClaim]]) -> None:
        """Sets the source of the claims that the agent itself has prepared, by namespace and name, without I/O."""
        self._own = own

    def resolve(self, listing: Listing) -> Listing:
        """Returns the list with claimed devices under their driver's name instead of a resource. From memory."""
        own = self._own()
        self._claimed = frozenset(
            claimed.name for listed in listing for claimed in listed.claimed if _own_uuid(claimed, own) is None
        )
        containers = frozenset(listed.key for listed in listing if listed.claimed)
        return tuple(self._resolve(listed, own, containers) if listed.claimed else listed for listed in listing)

    async def refresh(self) -> bool:
        """Reads the slices if the last list has a claimed device that needs it; returns whether it did.

        A failed read is repeated after `RETRY_SECONDS`, and the names in CDI are used until then.
        """
        new = self._claimed - self._read_for
        missing = self._claimed - self._uuids.keys()
        recent = self._read_at is not None and self._clock() - self._read_at < RETRY_SECONDS
        if not new and (recent or not missing):
            return False
        self._read_at, self._read_for = self._clock(), self._claimed
        try:
            self._uuids = await self._read()
        except KubeError as error:
            log.warning("ResourceSlices not read", error=str(error))
            return False
        return True

    def _resolve(
        self,
        listed: ListedContainer,
        own: Mapping[tuple[str, str], OwnClaim],
        containers: AbstractSet[ContainerKey],
    ) -> ListedContainer:
        devices, pod_uid = dict(listed.devices), listed.pod_uid
        for claimed in listed.claimed:
            resource = claimed.name[0]
            uuid = _own_uuid(claimed, own)
            if uuid is not None and _belongs_to_others(claimed, own[claimed.claim], listed.key, containers):
                continue
            if uuid is not None:
                claim = own[claimed.claim]
                pod_uid = pod_uid or claim.pod_uids.get(listed.key.pod)
                uuids = frozenset({uuid})
                resource = SHARED_BY_CLAIM if uuid in claim.shared else resource
            else:
                uuids = self._uuids.get(claimed.name) or _named_in(claimed)
            if uuids:
                devices[resource] = devices.get(resource, frozenset()) | uuids
        return replace(listed, devices=devices, pod_uid=pod_uid)


def _own_uuid(claimed: ClaimedDevice, own: Mapping[tuple[str, str], OwnClaim]) -> str | None:
    """Returns the UUID of a device that the agent itself has prepared."""
    driver, _, name = claimed.name
    claim = own.get(claimed.claim)
    return claim.devices.get(name) if claim is not None and driver == DRA_DRIVER else None


def _belongs_to_others(
    claimed: ClaimedDevice, claim: OwnClaim, key: ContainerKey, containers: AbstractSet[ContainerKey]
) -> bool:
    """Returns True for a device that other containers of the pod have by requests of their names.

    The kubelet lists all devices of a claim for each container that uses one of its requests.
    """
    requests = claim.requests.get(claimed.name[2], frozenset())
    if not requests or key.container in requests:
        return False
    return all(replace(key, container=request) in containers for request in requests)


def _named_in(claimed: ClaimedDevice) -> frozenset[str]:
    return frozenset(found for name in claimed.cdi_names for found in _UUID.findall(name))
