"""Requests for the containers of one pod: the kubelet admits them in the order in which they start."""

from gpufleet_agent.plugin.match import MatchInput, match_request
from gpufleet_agent.plugin.types import (
    AdvertisedDevice,
    AllocationRequest,
    AllocationResult,
    ManagedAllocation,
    Rejection,
    RejectionReason,
)
from gpufleet_agent.podresources.listing import ListedContainer
from gpufleet_api.names import RESOURCE
from gpufleet_testing.agent.objects import assignment, listed

UUIDS = ("GPU-a", "GPU-b", "GPU-c")
SERVER = assignment("both", "GPU-a", container="server", order=0)
MAIN = assignment("both", "GPU-b", container="main", order=1)
OTHER = assignment("other", "GPU-c")


def match(*listing: ListedContainer) -> AllocationResult:
    """The answer to a request for one device; `MAIN`, `SERVER` and `OTHER` are reserved, in this order."""
    devices = tuple(AdvertisedDevice(uuid, index, healthy=True) for index, uuid in enumerate(UUIDS))
    inputs = MatchInput(RESOURCE, devices, (MAIN, SERVER, OTHER), listing)
    return match_request(AllocationRequest(frozenset(UUIDS), 1, frozenset()), inputs)


def test_container_that_starts_first_is_admitted_first() -> None:
    found = match(listed("both"), listed("both", container="server"))

    assert found == ManagedAllocation(SERVER, ("GPU-a",))


def test_next_container_gets_its_own_devices() -> None:
    found = match(listed("both"), listed("both", "GPU-a", container="server"))

    assert found == ManagedAllocation(MAIN, ("GPU-b",))


def test_containers_of_two_pods_are_ambiguous() -> None:
    found = match(listed("both"), listed("both", container="server"), listed("other"))

    assert isinstance(found, Rejection)
    assert found.reason is RejectionReason.AMBIGUOUS_POD
    assert "2 containers match the request: ml/both/server, ml/other/main" in found.message
