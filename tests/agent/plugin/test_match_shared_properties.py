"""Invariants of two resources on the same devices: the kubelet keeps no account across them."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from gpufleet_agent.kube.model import Assignment
from gpufleet_agent.plugin.match import MatchInput, check_allocate, key_of, match_request
from gpufleet_agent.plugin.types import (
    AdvertisedDevice,
    AllocationRequest,
    ManagedAllocation,
    Rejection,
    UnmanagedAllocation,
)
from gpufleet_agent.podresources.listing import ContainerKey, ListedContainer, Listing
from gpufleet_agent.resources import Served
from gpufleet_api.names import RESOURCE, SHARED_RESOURCE
from gpufleet_common.device_ids import device_of
from gpufleet_testing.hypothesis_profiles import examples

UUIDS = tuple(f"GPU-{index}" for index in range(5))
SERVED = {RESOURCE: Served(RESOURCE), SHARED_RESOURCE: Served(SHARED_RESOURCE, 3)}


@st.composite
def ledgers(draw: st.DrawFn) -> tuple[Assignment, ...]:
    """Reservations in which a device is named once as a whole, or up to three times as shared."""
    whole = draw(st.frozensets(st.sampled_from(UUIDS)))
    ledger: list[Assignment] = []
    for index in range(draw(st.integers(0, 6))):
        shared = draw(st.booleans())
        free = sorted(set(UUIDS) - whole) if shared else sorted(whole - {u for a in ledger for u in a.devices})
        if not free:
            continue
        devices = draw(st.lists(st.sampled_from(free), min_size=1, max_size=3, unique=True))
        ledger.append(
            Assignment(
                pod_uid=f"uid-{index}",
                namespace="ml",
                pod=f"managed-{index}",
                container="main",
                resource=SHARED_RESOURCE if shared else RESOURCE,
                devices=tuple(devices),
                workload="w",
                replica=0,
                replicas=1,
                memory_mib=1000 if shared else None,
            )
        )
    return tuple(ledger)


Arrival = tuple[str, int, str]

arrivals = st.lists(
    st.one_of(
        st.tuples(st.just("managed"), st.integers(0, 5), st.just("")),
        st.tuples(st.just("bare"), st.integers(1, 3), st.sampled_from(sorted(SERVED))),
        st.tuples(st.just("gone"), st.integers(0, 9), st.just("")),
    ),
    max_size=25,
)


class ModelKubelet:
    """Admits one container after the other and keeps each resource's account by itself."""

    def __init__(self, ledger: tuple[Assignment, ...], unhealthy: frozenset[str]) -> None:
        self.ledger = ledger
        self.devices = tuple(AdvertisedDevice(uuid, i, uuid not in unhealthy) for i, uuid in enumerate(UUIDS))
        self.held: dict[ContainerKey, tuple[str, frozenset[str]]] = {}

    def listing(self, asking: ContainerKey) -> Listing:
        held = tuple(ListedContainer(key, {resource: ids}) for key, (resource, ids) in self.held.items())
        return (*held, ListedContainer(asking))

    def admit(
        self, key: ContainerKey, size: int, resource: str
    ) -> ManagedAllocation | UnmanagedAllocation | Rejection | None:
        """None: the kubelet itself has too few devices to offer and never asks."""
        in_use = {device_id for _, ids in self.held.values() for device_id in ids}
        healthy = (device.uuid for device in self.devices if device.healthy)
        available = frozenset(each for uuid in healthy for each in SERVED[resource].ids(uuid)) - in_use
        if len(available) < size:
            return None
        situation = MatchInput(resource, self.devices, self.ledger, self.listing(key), SHARED_RESOURCE)
        answered = match_request(AllocationRequest(available, size), situation)
        asked = sorted(available)[:size] if isinstance(answered, Rejection) else answered.ids
        result = check_allocate(answered, frozenset(asked))
        if not isinstance(result, Rejection):
            self.held[key] = resource, frozenset(result.ids)
        return result

    def users(self, resource: str) -> list[str]:
        """UUIDs held under a resource, once for each device ID."""
        return [device_of(each) for held, ids in self.held.values() if held == resource for each in ids]


def must_hold(kubelet: ModelKubelet, ledger: tuple[Assignment, ...]) -> None:
    whole, shared = kubelet.users(RESOURCE), kubelet.users(SHARED_RESOURCE)
    assert len(whole) == len(set(whole)), "a whole device was given twice"
    assert not set(whole) & set(shared), "a device is used as a whole and shared"
    for _, ids in kubelet.held.values():
        assert len({device_of(each) for each in ids}) == len(ids), "two slots of one device in one container"
    reserved = {uuid: key_of(a) for a in ledger if a.resource == RESOURCE for uuid in a.devices}
    shares = {uuid for a in ledger if a.resource == SHARED_RESOURCE for uuid in a.devices}
    for key, (resource, ids) in kubelet.held.items():
        for uuid in map(device_of, ids):
            assert reserved.get(uuid, key) == key, "another pod's reserved device"
            assert resource == SHARED_RESOURCE or uuid not in shares, "a device with reserved shares, as a whole"


@examples(40)
@given(ledger=ledgers(), steps=arrivals, unhealthy=st.frozensets(st.sampled_from(UUIDS), max_size=2))
def test_no_device_is_ever_used_as_a_whole_and_shared(
    ledger: tuple[Assignment, ...], steps: list[Arrival], unhealthy: frozenset[str]
) -> None:
    kubelet = ModelKubelet(ledger, unhealthy)
    for number, (kind, value, resource) in enumerate(steps):
        if kind == "gone":
            for key in list(kubelet.held)[value : value + 1]:
                del kubelet.held[key]
        elif kind == "bare":
            result = kubelet.admit(ContainerKey("ml", f"bare-{number}", "main"), value, resource)
            assert not isinstance(result, ManagedAllocation)
        elif value < len(ledger) and key_of(ledger[value]) not in kubelet.held:
            assignment = ledger[value]
            result = kubelet.admit(key_of(assignment), len(assignment.devices), assignment.resource)
            assert not isinstance(result, UnmanagedAllocation)
            if isinstance(result, ManagedAllocation):
                assert set(result.devices) == set(assignment.devices)
                assert list(map(device_of, result.ids)) == list(result.devices)
            elif isinstance(result, Rejection):
                # Reservations agree with each other here, so only a fault or three foreign sharers are in the way.
                crowded = {uuid for uuid in UUIDS if kubelet.users(SHARED_RESOURCE).count(uuid) == 3}
                assert (unhealthy | crowded) & set(assignment.devices), result.message
        must_hold(kubelet, ledger)


@examples(40)
@given(ledger=ledgers(), size=st.integers(1, 3), resource=st.sampled_from(sorted(SERVED)))
def test_unmanaged_allocation_is_independent_of_input_order(
    ledger: tuple[Assignment, ...], size: int, resource: str
) -> None:
    devices = tuple(AdvertisedDevice(uuid, index, healthy=True) for index, uuid in enumerate(UUIDS))
    available = frozenset(each for uuid in UUIDS for each in SERVED[resource].ids(uuid))
    situation = MatchInput(resource, devices, ledger, (), SHARED_RESOURCE)
    mirrored = replace(situation, devices=devices[::-1], assignments=ledger[::-1])
    assert match_request(AllocationRequest(available, size), situation) == match_request(
        AllocationRequest(available, size), mirrored
    )
