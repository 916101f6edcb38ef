"""A device that a container has by a ResourceClaim is held like any other."""

import asyncio
from collections.abc import Mapping

from gpufleet_agent.kube.api import KubeError
from gpufleet_agent.kube.resource_slices import ClaimableDevice
from gpufleet_agent.plugin.match import MatchInput, match_request
from gpufleet_agent.plugin.types import AdvertisedDevice, AllocationRequest, Rejection, RejectionReason
from gpufleet_agent.podresources.claimed_devices import RETRY_SECONDS, ClaimedDevices, OwnClaim
from gpufleet_agent.podresources.holdings import HoldingContainer, holders_of
from gpufleet_agent.podresources.listing import ClaimedDevice, ContainerKey, ListedContainer, Listing
from gpufleet_api.names import DRA_DRIVER, RESOURCE, SHARED_RESOURCE
from gpufleet_testing.agent.objects import assignment, listed

DRIVER = "gpu.nvidia.com"
UUID = "GPU-6f2c1de4-0000-4000-8000-0000000000ab"
FIRST: ClaimableDevice = (DRIVER, "node-1", "gpu-0")
SECOND: ClaimableDevice = (DRIVER, "node-1", "gpu-1")
KEY = ContainerKey("ml", "by-claim", "main")


def claimed(*devices: ClaimedDevice) -> Listing:
    return (ListedContainer(KEY, {"example.com/nic": frozenset({"eth1"})}, devices),)


class Slices:
    """The node's ResourceSlices."""

    def __init__(self) -> None:
        self.now = 100.0
        self.reads = 0
        self.uuids: Mapping[ClaimableDevice, frozenset[str]] = {FIRST: frozenset({UUID})}
        self.error: KubeError | None = None
        self.claims = ClaimedDevices(self.read, lambda: self.now)

    async def read(self) -> Mapping[ClaimableDevice, frozenset[str]]:
        self.reads += 1
        if self.error is not None:
            raise self.error
        return self.uuids

    def resolve(self, *devices: ClaimedDevice) -> frozenset[str]:
        """Resolves a list twice, with a refresh in between, as the poller does."""
        self.claims.resolve(claimed(*devices))
        asyncio.run(self.claims.refresh())
        (container,) = self.claims.resolve(claimed(*devices))
        assert container.of("example.com/nic") == {"eth1"}
        return container.of(DRIVER)


def test_uuid_is_the_attribute_in_the_slice_rather_than_the_cdi_name() -> None:
    misleading = ClaimedDevice(FIRST, ("nvidia.com/gpu=GPU-00000000-0000-4000-8000-000000000000",))
    assert Slices().resolve(misleading) == {UUID}


def test_uuid_is_in_the_cdi_name_where_no_slice_has_it() -> None:
    slices = Slices()
    slices.error = KubeError("apiserver: 404")
    assert slices.resolve(ClaimedDevice(SECOND, (f"nvidia.com/gpu={UUID}",))) == {UUID}
    assert slices.resolve(ClaimedDevice(SECOND, ("k8s.gpu.nvidia.com/claim=5-gpu-1",))) == frozenset()


def test_slices_are_read_for_new_devices_and_seldom_for_unknown_ones() -> None:
    slices = Slices()
    for _ in range(3):
        slices.resolve(ClaimedDevice(FIRST))
    assert slices.reads == 1
    for _ in range(3):
        assert slices.resolve(ClaimedDevice(FIRST), ClaimedDevice(SECOND)) == {UUID}
    assert slices.reads == 2
    slices.now += RETRY_SECONDS
    slices.uuids = {**slices.uuids, SECOND: frozenset({"GPU-1"})}
    assert slices.resolve(ClaimedDevice(FIRST), ClaimedDevice(SECOND)) == {UUID, "GPU-1"}
    assert slices.reads == 3


def test_lists_without_claims_never_read_slices() -> None:
    slices = Slices()
    listing = (listed("bare", "GPU-0"),)
    assert slices.claims.resolve(listing) == listing
    assert asyncio.run(slices.claims.refresh()) is False
    assert slices.reads == 0


def test_claimed_device_has_a_holder_in_the_status_and_is_not_allocated() -> None:
    slices = Slices()
    slices.resolve(ClaimedDevice(FIRST))
    listing = (*slices.claims.resolve(claimed(ClaimedDevice(FIRST))), listed("train-0"))
    assert holders_of(listing, SHARED_RESOURCE, {}, [])[UUID] == (HoldingContainer(KEY),)
    inputs = MatchInput(
        RESOURCE, (AdvertisedDevice(UUID, 0, healthy=True),), (assignment("train-0", UUID),), listing, SHARED_RESOURCE
    )
    result = match_request(AllocationRequest(frozenset({UUID}), 1, frozenset()), inputs)
    assert isinstance(result, Rejection)
    assert result.reason is RejectionReason.DEVICE_HELD
    assert "ml/by-claim/main" in result.message


OWN = ClaimedDevice((DRA_DRIVER, "node-1", "gpu-1"), claim=("ml", "train"))


def own(*shared: str) -> ClaimedDevices:
    """The devices of a node whose agent has prepared the claim `ml/train` of `by-claim`."""
    made = Slices().claims
    prepared = OwnClaim({"by-claim": "uid-1"}, {"gpu-1": "GPU-1"}, frozenset(shared))
    made.use(lambda: {("ml", "train"): prepared})
    return made


def test_device_that_the_agent_itself_prepared_needs_no_slice() -> None:
    claims = own()
    (container,) = claims.resolve(claimed(OWN))
    assert container.of(DRA_DRIVER) == {"GPU-1"}
    assert container.pod_uid == "uid-1"
    assert asyncio.run(claims.refresh()) is False


def test_share_by_claim_makes_a_shared_holder_with_its_reservation() -> None:
    reserved = assignment("by-claim", "GPU-1", resource=DRA_DRIVER, memory_mib=500, pod_uid="uid-1")
    listing = own("GPU-1").resolve(claimed(OWN))
    (holder,) = holders_of(listing, SHARED_RESOURCE, {}, [reserved])["GPU-1"]
    assert (holder.shared, holder.memory_mib, holder.pod_uid) == (True, 500, "uid-1")
    (unreserved,) = holders_of(listing, SHARED_RESOURCE, {}, [])["GPU-1"]
    assert (unreserved.shared, unreserved.memory_mib) == (True, None)


def test_container_has_the_devices_of_the_request_of_its_name() -> None:
    """The kubelet lists all devices of the claim for both containers."""
    devices = [ClaimedDevice((DRA_DRIVER, "node-1", f"gpu-{n}"), claim=("ml", "train")) for n in range(3)]
    names = {f"gpu-{n}": f"GPU-{n}" for n in range(3)}
    requests = {"gpu-0": frozenset({"main"}), "gpu-1": frozenset({"side"}), "gpu-2": frozenset({"gone"})}
    claims = Slices().claims
    claims.use(lambda: {("ml", "train"): OwnClaim({"by-claim": "uid-1"}, names, requests=requests)})
    listing = tuple(
        ListedContainer(ContainerKey("ml", "by-claim", name), {}, tuple(devices)) for name in ("main", "side")
    )
    found = {container.key.container: container.of(DRA_DRIVER) for container in claims.resolve(listing)}
    # No container of the pod has the name of the last request, so it may be any container's.
    assert found == {"main": {"GPU-0", "GPU-2"}, "side": {"GPU-1", "GPU-2"}}
