"""Invariants of device matching: a model of the kubelet drives `match_request` and `check_allocate` at random."""

from collections.abc import Sequence

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
from gpufleet_api.names import RESOURCE
from gpufleet_testing.hypothesis_profiles import examples

UUIDS = tuple(f"GPU-{index}" for index in range(8))


def reserve(index: int, devices: Sequence[str]) -> Assignment:
    return Assignment(
        pod_uid=f"uid-{index}",
        namespace="ml",
        pod=f"managed-{index}",
        container="main",
        resource=RESOURCE,
        devices=tuple(devices),
        workload="w",
        replica=0,
        replicas=1,
    )


@st.composite
def ledgers(draw: st.DrawFn) -> tuple[Assignment, ...]:
    """Reservations that share no device, as compare-and-swap guarantees."""
    shuffled = draw(st.permutations(UUIDS))
    sizes = draw(st.lists(st.integers(1, 3), max_size=5))
    ledger, start = [], 0
    for index, size in enumerate(sizes):
        if start + size > len(shuffled):
            break
        ledger.append(reserve(index, shuffled[start : start + size]))
        start += size
    return tuple(ledger)


Arrival = tuple[str, int]
"""`("managed", i)`: the pod of assignment i. `("bare", n)`: an unmanaged pod that asks for n. `("gone", k)`: the
k-th admitted container ends."""


arrivals = st.lists(
    st.one_of(
        st.tuples(st.just("managed"), st.integers(0, 4)),
        st.tuples(st.just("bare"), st.integers(1, 4)),
        st.tuples(st.just("gone"), st.integers(0, 9)),
    ),
    max_size=20,
)


class ModelKubelet:
    """Admits one container after the other, as the device manager does."""

    def __init__(self, ledger: tuple[Assignment, ...], unhealthy: frozenset[str]) -> None:
        self.ledger = ledger
        self.devices = tuple(AdvertisedDevice(uuid, i, uuid not in unhealthy) for i, uuid in enumerate(UUIDS))
        self.held: dict[ContainerKey, frozenset[str]] = {}

    def listing(self, asking: ContainerKey) -> Listing:
        held = tuple(ListedContainer(key, {RESOURCE: uuids}) for key, uuids in self.held.items())
        return (*held, ListedContainer(asking))

    def admit(self, key: ContainerKey, size: int) -> ManagedAllocation | UnmanagedAllocation | Rejection | None:
        """None: the kubelet itself has too few devices to offer and never asks."""
        in_use = frozenset[str]().union(*self.held.values())
        available = frozenset(device.uuid for device in self.devices if device.healthy) - in_use
        if len(available) < size:
            return None
        situation = MatchInput(RESOURCE, self.devices, self.ledger, self.listing(key))
        answered = match_request(AllocationRequest(available, size), situation)
        asked = sorted(available)[:size] if isinstance(answered, Rejection) else answered.devices
        result = check_allocate(answered, frozenset(asked))
        if not isinstance(result, Rejection):
            self.held[key] = frozenset(result.devices)
        return result


@examples(40)
@given(ledger=ledgers(), steps=arrivals, unhealthy=st.frozensets(st.sampled_from(UUIDS), max_size=3))
def test_no_device_is_given_twice_and_reserved_ones_only_to_their_pod(
    ledger: tuple[Assignment, ...], steps: list[Arrival], unhealthy: frozenset[str]
) -> None:
    kubelet = ModelKubelet(ledger, unhealthy)
    reserved = {uuid: key_of(assignment) for assignment in ledger for uuid in assignment.devices}
    for number, (kind, value) in enumerate(steps):
        if kind == "gone":
            for key in list(kubelet.held)[value : value + 1]:
                del kubelet.held[key]
            continue
        if kind == "managed":
            if value >= len(ledger) or key_of(ledger[value]) in kubelet.held:
                continue
            assignment = ledger[value]
            result = kubelet.admit(key_of(assignment), len(assignment.devices))
            if not unhealthy & set(assignment.devices):
                assert isinstance(result, ManagedAllocation), "nothing prevents a healthy reservation"
            if isinstance(result, ManagedAllocation):
                assert set(result.devices) == set(assignment.devices)
            assert not isinstance(result, UnmanagedAllocation)
        else:
            result = kubelet.admit(ContainerKey("ml", f"bare-{number}", "main"), value)
            assert not isinstance(result, ManagedAllocation)
            if isinstance(result, UnmanagedAllocation):
                assert not reserved.keys() & set(result.devices)
                assert len(result.devices) == value
        given_out = [uuid for uuids in kubelet.held.values() for uuid in uuids]
        assert len(given_out) == len(set(given_out))
        assert not unhealthy & set(given_out)
        for key, uuids in kubelet.held.items():
            assert all(reserved.get(uuid, key) == key for uuid in uuids)


asks = st.builds(
    lambda available, forced, size: AllocationRequest(available | forced, size, forced),
    st.frozensets(st.sampled_from((*UUIDS, "GPU-stranger"))),
    st.frozensets(st.sampled_from(UUIDS), max_size=2),
    st.integers(1, 8),
)


@examples(40)
@given(
    ledger=ledgers(),
    ask=asks,
    waiting=st.frozensets(st.integers(0, 4)),
    holders=st.dictionaries(st.integers(0, 4), st.frozensets(st.sampled_from(UUIDS), min_size=1, max_size=2)),
)
def test_an_answer_is_always_offered_known_and_of_the_size_asked_for(
    ledger: tuple[Assignment, ...], ask: AllocationRequest, waiting: frozenset[int], holders: dict[int, frozenset[str]]
) -> None:
    devices = tuple(AdvertisedDevice(uuid, index, healthy=True) for index, uuid in enumerate(UUIDS))
    listing = (
        *(ListedContainer(ContainerKey("ml", f"managed-{index}", "main")) for index in waiting),
        *(ListedContainer(ContainerKey("ml", f"held-{i}", "main"), {RESOURCE: held}) for i, held in holders.items()),
    )
    answer = match_request(ask, MatchInput(RESOURCE, devices, ledger, listing))
    if isinstance(answer, Rejection):
        assert answer.message
        return
    assert len(answer.devices) == len(set(answer.devices)) == ask.size
    assert set(answer.devices) <= ask.available & set(UUIDS)
    assert ask.must_include <= set(answer.devices)
    if isinstance(answer, ManagedAllocation):
        assert set(answer.devices) == set(answer.assignment.devices)
