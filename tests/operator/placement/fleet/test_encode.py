"""Numbers at the edge of what the arrays hold: counted, rejected by name, never wrapped around."""

from dataclasses import replace
from typing import Any

import pytest

from gpufleet_api.workload_placement import Strategy
from gpufleet_operator.placement import Fleet, place
from gpufleet_operator.placement.errors import InvalidRequestError
from gpufleet_operator.placement.model import DeviceNeeds, FilterReason, PodNeeds, Share
from gpufleet_testing.placement.builders import NodeFields, make_device, make_node, make_request

FULL = -(2**70)
"""What is left on a node where several pods ask for more than any node has."""


@pytest.mark.parametrize("strategy", list(Strategy))
def test_room_below_every_number_is_no_room(strategy: Strategy) -> None:
    crowded: NodeFields = {"free_cpu_milli": FULL, "free_memory_bytes": FULL, "free_extended": {"x": FULL}}
    fleet = Fleet.of([make_node("a", 2, **crowded), make_node("b", 2)])
    ask = replace(make_request(4, strategy=strategy), pod=PodNeeds(cpu_milli=1, memory_bytes=1))

    decision = place(fleet, ask)

    assert {pick.node for pick in decision.picks} == {"b"}
    assert len(decision.picks) == 2


@pytest.mark.parametrize("strategy", list(Strategy))
def test_request_larger_than_any_node_is_explained_with_numbers(strategy: Strategy) -> None:
    fleet = Fleet.of([make_node("a", 2, free_cpu_milli=FULL), make_node("b", 2)])

    decision = place(fleet, replace(make_request(strategy=strategy), pod=PodNeeds(cpu_milli=2**62)))

    assert decision.diagnosis is not None
    assert decision.diagnosis.nearest is not None
    assert (decision.diagnosis.nearest.node, decision.diagnosis.nearest.reason) == ("b", FilterReason.INSUFFICIENT_CPU)


def test_debits_pile_up_without_turning_over() -> None:
    fleet = Fleet.of([make_node("a", 8)])
    for index in range(8):
        fleet.hold("a", [fleet.uuids(0)[index]], PodNeeds(2**62, 2**62, {"x": 2**62}))

    assert place(fleet, make_request()).picks == ()
    assert int(fleet.columns.cpu[0]) < 0
    assert int(fleet.columns.memory[0]) < 0


def test_memory_is_compared_beyond_31_bits() -> None:
    """The closest of those that lack it, although the difference to what they have doesn't fit into the array."""
    full = make_device("GPU-full", 0, memory_total_mib=10, memory_used_mib=10, in_flight_memory_mib=2**29)
    free = make_device("GPU-free", 1, memory_total_mib=100, memory_used_mib=10)

    decision = place(
        Fleet.of([make_node("a", [full, free])]), make_request(share=Share(1), min_free_memory_mib=2**31 - 1)
    )

    assert decision.diagnosis is not None
    assert decision.diagnosis.nearest is not None
    assert decision.diagnosis.nearest.device == "GPU-free"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"devices": DeviceNeeds(min_free_memory_mib=2**31)}, "min_free_memory_mib is 2147483648, must be 2147483647"),
        (
            {"devices": DeviceNeeds(share=Share(2**31))},
            "memoryMiB of a share is 2147483648, must be 2147483647 or less",
        ),
        (
            {"pod": PodNeeds(cpu_milli=2**62 + 1)},
            "cpu_milli is 4611686018427387905, must be 4611686018427387904 or less",
        ),
        ({"pod": PodNeeds(memory_bytes=2**63)}, "memory_bytes is 9223372036854775808"),
        ({"pod": PodNeeds(extended={"x": 2**64})}, "x is 18446744073709551616"),
    ],
)
def test_what_can_not_be_compared_is_rejected_by_name(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        place(Fleet.of([make_node("a", 1)]), replace(make_request(), **fields))
