"""Table of matches: what the kubelet lists and offers, what is reserved, and the expected result."""

from dataclasses import dataclass, field, replace

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
from gpufleet_api.names import RESOURCE
from gpufleet_testing.agent.objects import listed

A, B, C, D = "GPU-a", "GPU-b", "GPU-c", "GPU-d"
ALL = frozenset({A, B, C, D})


def reserve(pod: str, *devices: str, **fields: object) -> Assignment:
    usual: dict[str, object] = {
        "pod_uid": f"uid-{pod}",
        "namespace": "ml",
        "pod": pod,
        "container": "main",
        "resource": RESOURCE,
        "devices": devices,
        "workload": "train",
        "replica": 0,
        "replicas": 1,
        "decided_at": "2026-01-01T00:00:00.000000Z",
    }
    return Assignment(**{**usual, **fields})  # type: ignore[arg-type] # the fields of a builder


def lists(pod: str, *devices: str, resource: str = RESOURCE, container: str = "main") -> ListedContainer:
    return ListedContainer(ContainerKey("ml", pod, container), {resource: frozenset(devices)} if devices else {})


def runs(pod: str, *devices: str) -> ListedContainer:
    """A container that the kubelet does not list with these devices any more, but whose pod has a process."""
    return replace(lists(pod, *devices), pod_uid=f"uid-{pod}", terminating=True)


@dataclass(frozen=True)
class Case:
    name: str
    want: AllocationResult | RejectionReason
    """The exact result, or the reason of a rejection."""
    assignments: tuple[Assignment, ...] = ()
    listing: tuple[ListedContainer, ...] = ()
    available: frozenset[str] = ALL
    size: int = 1
    must_include: frozenset[str] = frozenset()
    unhealthy: frozenset[str] = frozenset()
    busy: frozenset[str] = frozenset()
    """On which a process is left."""
    cordoned: frozenset[str] = frozenset()
    known: tuple[str, ...] = (A, B, C, D)
    message_has: tuple[str, ...] = field(default=())


ONE = reserve("one", C)
TWO = reserve("two", A)
PAIR = reserve("pair", D, B)

CASES = [
    Case(
        "after a lost checkpoint the running pod is no candidate, the new one gets its own",
        ManagedAllocation(ONE, (C,)),
        (ONE, TWO),
        (lists("one"), lists("two"), runs("two", A)),
    ),
    Case(
        "after a lost checkpoint a pod without a reservation gets none of the running pod's devices",
        UnmanagedAllocation((B,)),
        (TWO,),
        (lists("bare"), lists("two"), runs("two", A)),
    ),
    Case(
        "a process of an earlier pod of the name does not exclude its successor",
        ManagedAllocation(ONE, (C,)),
        (ONE,),
        (lists("one"), replace(runs("one", A), pod_uid="uid-earlier")),
    ),
    Case(
        "the listed pod without devices gets exactly its own", ManagedAllocation(ONE, (C,)), (ONE, TWO), (lists("one"),)
    ),
    Case(
        "the older assignment of equal size doesn't win when the younger pod asks",
        ManagedAllocation(TWO, (A,)),
        (ONE, TWO),
        (lists("two"), lists("other")),
    ),
    Case(
        "a pod that has its devices doesn't match, the other pod does",
        ManagedAllocation(TWO, (A,)),
        (ONE, TWO),
        (lists("one", C), lists("two")),
        available=ALL - {C},
    ),
    Case("several devices come in index order", ManagedAllocation(PAIR, (B, D)), (PAIR,), (lists("pair"),), size=2),
    Case(
        "an assignment of another size is not the one that asks",
        UnmanagedAllocation((A,)),
        (PAIR,),
        (lists("pair"),),
        size=1,
    ),
    Case(
        "an assignment of another resource is not the one that asks",
        UnmanagedAllocation((A,)),
        (reserve("one", C, resource="example.com/gpu"),),
        (lists("one"),),
    ),
    Case(
        "devices of another resource don't count as having been served",
        ManagedAllocation(ONE, (C,)),
        (ONE,),
        (lists("one", "nic-0", resource="example.com/nic"),),
    ),
    Case(
        "the same container name in another pod does not match",
        UnmanagedAllocation((A,)),
        (ONE,),
        (lists("stranger"),),
    ),
    Case(
        "a sidecar of the assigned pod is not the assigned container",
        UnmanagedAllocation((A,)),
        (ONE,),
        (lists("one", container="sidecar"),),
    ),
    Case(
        "two listed containers with open assignments of this size: rejected, both named",
        RejectionReason.AMBIGUOUS_POD,
        (ONE, TWO),
        (lists("one"), lists("two")),
        message_has=("ml/one/main", "ml/two/main"),
    ),
    Case(
        "two assignments for one container: rejected",
        RejectionReason.AMBIGUOUS_POD,
        (ONE, reserve("one", B, pod_uid="uid-earlier-one")),
        (lists("one"),),
    ),
    Case(
        "a device that two assignments name: rejected, both named",
        RejectionReason.RESERVATION_CONFLICT,
        (ONE, reserve("pair", C, D)),
        (lists("one"),),
        message_has=(C, "ml/one/main", "ml/pair/main"),
    ),
    Case(
        "a device that another pod still holds: rejected, the holder named",
        RejectionReason.DEVICE_HELD,
        (ONE,),
        (lists("one"), lists("terminating", C)),
        message_has=("ml/terminating/main",),
    ),
    Case(
        "a device that another plugin gave to the same container: rejected, the resource named",
        RejectionReason.DEVICE_HELD,
        (ONE,),
        (ListedContainer(ContainerKey("ml", "one", "main"), {"acme.dev/gpu": frozenset({C})}),),
        message_has=("already allocated to this container as acme.dev/gpu",),
    ),
    Case(
        "a device that the kubelet doesn't offer: rejected",
        RejectionReason.DEVICE_UNAVAILABLE,
        (ONE,),
        (lists("one"),),
        available=ALL - {C},
    ),
    Case(
        "an unhealthy device: rejected",
        RejectionReason.DEVICE_UNHEALTHY,
        (ONE,),
        (lists("one"),),
        unhealthy=frozenset({C}),
    ),
    Case(
        "a device that the node lacks: rejected", RejectionReason.DEVICE_UNKNOWN, (ONE,), (lists("one"),), known=(A, B)
    ),
    Case(
        "the kubelet requires a device of the assignment: given",
        ManagedAllocation(PAIR, (B, D)),
        (PAIR,),
        (lists("pair"),),
        size=2,
        must_include=frozenset({B}),
    ),
    Case(
        "the kubelet requires a device outside the assignment: rejected",
        RejectionReason.REQUIRED_DEVICE_UNAVAILABLE,
        (ONE,),
        (lists("one"),),
        must_include=frozenset({A}),
        message_has=(A,),
    ),
    Case(
        "a pod without an assignment gets the lowest unreserved",
        UnmanagedAllocation((B,)),
        (TWO, ONE),
        (lists("bare"),),
    ),
    Case("an empty list and no reservations: an unmanaged pod", UnmanagedAllocation((A, B)), size=2),
    Case(
        "an unmanaged pod gets neither a held nor an unhealthy device",
        UnmanagedAllocation((D,)),
        (TWO,),
        (lists("bare"), lists("holder", B)),
        unhealthy=frozenset({C}),
    ),
    Case(
        "an unmanaged pod gets no device that the plugin doesn't know",
        UnmanagedAllocation((B,)),
        available=frozenset({"GPU-stranger", B}),
    ),
    Case(
        "an unmanaged pod is rejected rather than given reserved devices, in numbers",
        RejectionReason.INSUFFICIENT_UNRESERVED_DEVICES,
        (PAIR, TWO),
        (lists("bare"),),
        size=2,
        message_has=("2 unreserved devices requested, 1/4 are available: 3 reserved, held, cordoned or unhealthy",),
    ),
    Case(
        "an unmanaged pod keeps what its init container had",
        UnmanagedAllocation((A, D)),
        must_include=frozenset({D}),
        size=2,
    ),
    Case(
        "an unmanaged pod can't be forced onto a reserved device",
        RejectionReason.REQUIRED_DEVICE_UNAVAILABLE,
        (ONE,),
        (lists("bare"),),
        must_include=frozenset({C}),
    ),
    Case(
        "an unmanaged pod can't be forced onto an unhealthy device",
        RejectionReason.REQUIRED_DEVICE_UNAVAILABLE,
        must_include=frozenset({C}),
        unhealthy=frozenset({C}),
    ),
    Case(
        "an unmanaged pod gets no device on which a process is left",
        UnmanagedAllocation((B, D)),
        busy=frozenset({A, C}),
        size=2,
    ),
    Case(
        "and the message counts the processes when too few are left",
        RejectionReason.INSUFFICIENT_UNRESERVED_DEVICES,
        listing=(lists("bare"), lists("holder", B)),
        busy=frozenset({A, B, C}),
        size=2,
        message_has=("2 unreserved devices requested, 1/4 are available", "2 possibly in use by processes"),
    ),
    Case(
        "processes of its own init container don't count",
        UnmanagedAllocation((A,)),
        busy=frozenset({A}),
        must_include=frozenset({A}),
    ),
    Case(
        "processes do not prevent a reservation: the last ones may have ended since they were counted",
        ManagedAllocation(ONE, (C,)),
        (ONE,),
        (lists("one"),),
        busy=frozenset({C}),
    ),
    Case(
        "a pod without a reservation gets no device that is out of service",
        UnmanagedAllocation((C,)),
        cordoned=frozenset({A, B}),
    ),
    Case(
        "a reservation that was decided before the device was cordoned is honored",
        ManagedAllocation(ONE, (C,)),
        (ONE,),
        (lists("one"),),
        cordoned=ALL,
    ),
    Case(
        "with everything reserved nothing is left to unmanaged pods",
        RejectionReason.INSUFFICIENT_UNRESERVED_DEVICES,
        (reserve("x", *ALL),),
    ),
]


def situation_of(case: Case) -> tuple[AllocationRequest, MatchInput]:
    devices = tuple(
        AdvertisedDevice(uuid, index, uuid not in case.unhealthy, uuid in case.busy)
        for index, uuid in enumerate(case.known)
    )
    return AllocationRequest(case.available, case.size, case.must_include), MatchInput(
        RESOURCE, devices, case.assignments, case.listing, cordoned=case.cordoned
    )


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


@pytest.mark.parametrize(
    ("answered", "asked", "want"),
    [
        pytest.param(
            ManagedAllocation(PAIR, (B, D)), {D, B}, ManagedAllocation(PAIR, (B, D)), id="exactly what was answered"
        ),
        pytest.param(
            UnmanagedAllocation((A,)), {A}, UnmanagedAllocation((A,)), id="exactly what an unmanaged pod was answered"
        ),
        pytest.param(
            ManagedAllocation(PAIR, (B, D)),
            {B, C},
            RejectionReason.PREFERRED_ALLOCATION_IGNORED,
            id="another device than answered",
        ),
        pytest.param(
            ManagedAllocation(PAIR, (B, D)),
            {B},
            RejectionReason.PREFERRED_ALLOCATION_IGNORED,
            id="fewer devices than answered",
        ),
        pytest.param(
            UnmanagedAllocation((A,)),
            {A, B},
            RejectionReason.PREFERRED_ALLOCATION_IGNORED,
            id="more devices than answered",
        ),
        pytest.param(None, {A}, RejectionReason.NO_PREFERRED_ALLOCATION, id="nothing was answered"),
        pytest.param(
            Rejection(RejectionReason.DEVICE_HELD, "held"),
            {A},
            Rejection(RejectionReason.DEVICE_HELD, "held"),
            id="a rejection is carried out",
        ),
    ],
)
def test_allocate_gives_only_what_was_just_answered(
    answered: AllocationResult | None, asked: set[str], want: AllocationResult | RejectionReason
) -> None:
    result = check_allocate(answered, frozenset(asked))
    if isinstance(want, RejectionReason):
        assert isinstance(result, Rejection)
        assert result.reason is want
    else:
        assert result == want


@pytest.mark.parametrize(
    "case", [case for case in CASES if isinstance(case.want, RejectionReason)], ids=lambda case: case.name
)
def test_rejection_names_the_pods_if_they_are_known(case: Case) -> None:
    rejection = match_request(*situation_of(case))
    assert isinstance(rejection, Rejection)
    waiting = {listed.key.pod for listed in case.listing if not listed.of(RESOURCE)}
    reserved = {claim.pod for claim in case.assignments}
    assert {claim.pod for claim in rejection.claims} == waiting & reserved


def test_first_fit_gives_a_pod_the_devices_of_an_older_one() -> None:
    old, young = reserve("old", A), reserve("young", B, decided_at="2026-01-01T00:00:00.000001Z")
    devices = tuple(AdvertisedDevice(uuid, index, healthy=True) for index, uuid in enumerate((A, B, C, D)))
    situation = MatchInput(RESOURCE, devices, (young, old), (listed("young"),))
    assert first_fit(AllocationRequest(ALL, 1), situation, frozenset()) == ManagedAllocation(old, (A,))
    assert match_request(AllocationRequest(ALL, 1), situation) == ManagedAllocation(young, (B,))
    assert first_fit(AllocationRequest(ALL - {A}, 1), situation, frozenset({old.pod_uid})) == ManagedAllocation(
        young, (B,)
    )
    assert first_fit(
        AllocationRequest(ALL, 1), situation, frozenset({old.pod_uid, young.pod_uid})
    ) == UnmanagedAllocation((C,))
