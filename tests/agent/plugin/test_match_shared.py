"""Slots of shared devices as a table, and what whole and shared use of a device mean to each other."""

from dataclasses import dataclass

import pytest

from gpufleet_agent.kube.model import Assignment
from gpufleet_agent.plugin.match import MatchInput, check_allocate, first_fit, match_request
from gpufleet_agent.plugin.types import (
    AdvertisedDevice,
    AllocationRequest,
    AllocationResult,
    ManagedAllocation,
    Rejection,
    RejectionReason,
    UnmanagedAllocation,
)
from gpufleet_agent.podresources.listing import ContainerKey, ListedContainer
from gpufleet_api.names import RESOURCE, SHARED_RESOURCE

A, B, C, D = "GPU-a", "GPU-b", "GPU-c", "GPU-d"
SLOTS = frozenset(f"{uuid}::{number}" for uuid in (A, B, C, D) for number in range(12))


def reserve(pod: str, *devices: str, resource: str = SHARED_RESOURCE) -> Assignment:
    return Assignment(
        pod_uid=f"uid-{pod}",
        namespace="ml",
        pod=pod,
        container="main",
        resource=resource,
        devices=devices,
        workload="serve",
        replica=0,
        replicas=1,
        memory_mib=4000 if resource == SHARED_RESOURCE else None,
        decided_at=f"2026-01-01T00:00:00.{len(pod):06}Z",
    )


def lists(pod: str, *ids: str, resource: str = SHARED_RESOURCE) -> ListedContainer:
    return ListedContainer(ContainerKey("ml", pod, "main"), {resource: frozenset(ids)} if ids else {})


@dataclass(frozen=True)
class Case:
    name: str
    want: AllocationResult | RejectionReason
    """The exact result, or the reason of a rejection."""
    assignments: tuple[Assignment, ...] = ()
    listing: tuple[ListedContainer, ...] = ()
    available: frozenset[str] = SLOTS
    size: int = 1
    must_include: frozenset[str] = frozenset()
    unhealthy: frozenset[str] = frozenset()
    busy: frozenset[str] = frozenset()
    resource: str = SHARED_RESOURCE
    message_has: tuple[str, ...] = ()


ONE, TWO = reserve("one", C), reserve("second", C)
PAIR = reserve("pair", D, B)
WHOLE = reserve("whole", C, resource=RESOURCE)
VENDOR = "nvidia.com/gpu"

CASES = [
    Case("the lowest slot of the device", ManagedAllocation(ONE, (C,), (f"{C}::0",)), (ONE,), (lists("one"),)),
    Case(
        "several devices: one slot of each, in index order",
        ManagedAllocation(PAIR, (B, D), (f"{B}::0", f"{D}::0")),
        (PAIR,),
        (lists("pair"),),
        size=2,
    ),
    Case(
        "the lowest slot that is free, by number and not by letter",
        ManagedAllocation(TWO, (C,), (f"{C}::2",)),
        (ONE, TWO),
        (lists("one", f"{C}::0"), lists("second")),
        available=frozenset({f"{C}::10", f"{C}::2", f"{A}::0"}),
    ),
    Case(
        "other sharers, reserved and listed, are no obstacle",
        ManagedAllocation(TWO, (C,), (f"{C}::1",)),
        (ONE, TWO, reserve("third", C)),
        (lists("one", f"{C}::0"), lists("second")),
        available=SLOTS - {f"{C}::0"},
    ),
    Case(
        "two listed sharers without slots: rejected",
        RejectionReason.AMBIGUOUS_POD,
        (ONE, TWO),
        (lists("one"), lists("second")),
    ),
    Case(
        "whole devices of the same size don't make a second candidate",
        ManagedAllocation(ONE, (C,), (f"{C}::0",)),
        (ONE, reserve("train", A, resource=RESOURCE)),
        (lists("one"), lists("train")),
    ),
    Case(
        "a device that another assignment names as a whole: rejected",
        RejectionReason.RESERVATION_CONFLICT,
        (ONE, WHOLE),
        (lists("one"),),
        message_has=(C, "ml/one/main", "ml/whole/main"),
    ),
    Case(
        "a device that another container holds as a whole: rejected",
        RejectionReason.DEVICE_HELD,
        (ONE,),
        (lists("one"), lists("whole", C, resource=RESOURCE)),
        message_has=("ml/whole/main",),
    ),
    Case(
        "a device that the vendor's plugin gave away: rejected",
        RejectionReason.DEVICE_HELD,
        (ONE,),
        (lists("one"), lists("other", f"{C}::0", resource=VENDOR)),
        message_has=("ml/other/main",),
    ),
    Case(
        "no slot of the device on offer: rejected",
        RejectionReason.DEVICE_UNAVAILABLE,
        (ONE,),
        (lists("one"),),
        available=frozenset(each for each in SLOTS if not each.startswith(C)),
    ),
    Case(
        "an unhealthy device: rejected",
        RejectionReason.DEVICE_UNHEALTHY,
        (ONE,),
        (lists("one"),),
        unhealthy=frozenset({C}),
    ),
    Case(
        "a device that the node lacks: rejected",
        RejectionReason.DEVICE_UNKNOWN,
        (reserve("x", "GPU-x"),),
        (lists("x"),),
    ),
    Case(
        "the slot that the kubelet requires comes before a lower one",
        ManagedAllocation(ONE, (C,), (f"{C}::7",)),
        (ONE,),
        (lists("one"),),
        must_include=frozenset({f"{C}::7"}),
    ),
    Case(
        "two slots of one device: rejected",
        RejectionReason.REQUIRED_DEVICE_UNAVAILABLE,
        (PAIR,),
        (lists("pair"),),
        size=2,
        must_include=frozenset({f"{B}::1", f"{B}::2"}),
        message_has=(f"{B}::2",),
    ),
    Case("an unmanaged pod: the lowest index", UnmanagedAllocation((A,), (f"{A}::0",)), listing=(lists("bare"),)),
    Case(
        "an unmanaged pod prefers the device that is shared already",
        UnmanagedAllocation((C,), (f"{C}::1",)),
        listing=(lists("bare"), lists("other", f"{C}::0")),
        available=SLOTS - {f"{C}::0"},
    ),
    Case(
        "and of those the one with the fewest sharers, reserved ones among them",
        UnmanagedAllocation((D,), (f"{D}::0",)),
        (ONE, TWO, reserve("third", D)),
        (lists("bare"),),
    ),
    Case(
        "and a shared one without a free slot isn't waited for",
        UnmanagedAllocation((A,), (f"{A}::0",)),
        listing=(lists("bare"), lists("other", f"{C}::0")),
        available=frozenset(each for each in SLOTS if not each.startswith(C)),
    ),
    Case(
        "an unmanaged pod's slots lie on different devices",
        UnmanagedAllocation((A, C), (f"{A}::0", f"{C}::1")),
        listing=(lists("bare"), lists("other", f"{C}::0")),
        available=SLOTS - {f"{C}::0"},
        size=2,
    ),
    Case(
        "an unmanaged pod gets no slot of a device that is reserved or held as a whole, or unhealthy",
        UnmanagedAllocation((D,), (f"{D}::0",)),
        (WHOLE,),
        (lists("bare"), lists("train", A, resource=RESOURCE)),
        unhealthy=frozenset({B}),
    ),
    Case(
        "more slots than devices that may be shared: rejected, in numbers",
        RejectionReason.INSUFFICIENT_UNRESERVED_DEVICES,
        (WHOLE,),
        (lists("bare"), lists("train", A, resource=RESOURCE)),
        size=3,
        message_has=("3 unreserved devices requested, 2/4 are available: 2 reserved, held, cordoned or unhealthy",),
    ),
    Case(
        "an unmanaged pod can't be forced onto a device reserved as a whole",
        RejectionReason.REQUIRED_DEVICE_UNAVAILABLE,
        (WHOLE,),
        (lists("bare"),),
        must_include=frozenset({f"{C}::0"}),
    ),
    Case(
        "a whole device that has a sharer: rejected",
        RejectionReason.DEVICE_HELD,
        (WHOLE,),
        (lists("whole"), lists("other", f"{C}::4")),
        available=frozenset({A, B, C, D}),
        resource=RESOURCE,
        message_has=("ml/other/main",),
    ),
    Case(
        "a whole device of which another assignment names a share: rejected",
        RejectionReason.RESERVATION_CONFLICT,
        (WHOLE, ONE),
        (lists("whole"),),
        available=frozenset({A, B, C, D}),
        resource=RESOURCE,
        message_has=("ml/one/main",),
    ),
    Case(
        "an unmanaged pod never gets a device with sharers, reserved or listed",
        UnmanagedAllocation((B,)),
        (ONE,),
        (lists("bare"), lists("other", f"{A}::0")),
        available=frozenset({A, B, C, D}),
        resource=RESOURCE,
    ),
    Case(
        "an unmanaged pod gets no slot of a device on which a process is left",
        UnmanagedAllocation((B,), (f"{B}::0",)),
        listing=(lists("bare"),),
        busy=frozenset({A}),
    ),
    Case(
        "and the message counts the processes when none is left",
        RejectionReason.INSUFFICIENT_UNRESERVED_DEVICES,
        listing=(lists("bare"),),
        busy=frozenset({A, B, C, D}),
        message_has=("0/4 are available: 4 possibly in use by processes",),
    ),
    Case(
        "but on a device with sharers the processes are theirs",
        UnmanagedAllocation((D,), (f"{D}::0",)),
        listing=(lists("bare"), lists("other", f"{D}::4")),
        busy=frozenset({A, B, C, D}),
    ),
    Case(
        "processes of its own init container don't count for slots either",
        UnmanagedAllocation((A,), (f"{A}::0",)),
        listing=(lists("bare"),),
        must_include=frozenset({f"{A}::0"}),
        busy=frozenset({A}),
    ),
]


def situation_of(case: Case) -> tuple[AllocationRequest, MatchInput]:
    devices = tuple(
        AdvertisedDevice(uuid, index, uuid not in case.unhealthy, uuid in case.busy)
        for index, uuid in enumerate((A, B, C, D))
    )
    ask = AllocationRequest(case.available, case.size, case.must_include)
    return ask, MatchInput(case.resource, devices, case.assignments, case.listing, SHARED_RESOURCE)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_decide(case: Case) -> None:
    answer = match_request(*situation_of(case))
    if isinstance(case.want, RejectionReason):
        assert isinstance(answer, Rejection)
        assert answer.reason is case.want
        for part in case.message_has:
            assert part in answer.message
    else:
        assert answer == case.want


def test_with_sharing_switched_off_old_shares_count_as_whole_devices() -> None:
    devices = (
        AdvertisedDevice(A, 0, healthy=True),
        AdvertisedDevice(B, 1, healthy=True),
        AdvertisedDevice(C, 2, healthy=True),
    )
    listing = (lists("bare"), lists("other", f"{A}::4"))
    situation = MatchInput(RESOURCE, devices, (ONE,), listing)
    assert match_request(AllocationRequest(frozenset({A, B, C}), 1), situation) == UnmanagedAllocation((B,))


def test_allocate_is_held_to_the_slots_and_not_to_the_devices() -> None:
    answered = ManagedAllocation(ONE, (C,), (f"{C}::0",))
    assert check_allocate(answered, frozenset({f"{C}::0"})) is answered
    other = check_allocate(answered, frozenset({f"{C}::1"}))
    assert isinstance(other, Rejection)
    assert other.reason is RejectionReason.PREFERRED_ALLOCATION_IGNORED


def test_first_fit_guesses_among_sharers_too() -> None:
    devices = (AdvertisedDevice(C, 0, healthy=True),)
    situation = MatchInput(SHARED_RESOURCE, devices, (TWO, ONE), (lists("second"),), SHARED_RESOURCE)
    assert first_fit(AllocationRequest(SLOTS, 1), situation, frozenset()) == ManagedAllocation(ONE, (C,), (f"{C}::0",))
