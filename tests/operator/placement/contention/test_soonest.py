"""The devices that a request which waits will get soonest, and what an earmark does."""

from collections.abc import Sequence

import pytest

from gpufleet_api.workload_placement import Topology
from gpufleet_operator.placement import Fleet, place
from gpufleet_operator.placement.contention.soonest import soonest
from gpufleet_operator.placement.model import HolderPod, NodeState, PodNeeds
from gpufleet_testing.placement.builders import make_device, make_node, make_request

UNKNOWN = None


def held_node(name: str, ends: Sequence[float | None], devices: int = 8, **fields: int) -> NodeState:
    """A node of whose devices the first ones are held, each by a pod that ends then."""
    made = [make_device(f"GPU-{name}-{i}", i, held=i < len(ends)) for i in range(devices)]
    holders = tuple(
        HolderPod(f"ml/{name}-{i}", 0, (f"GPU-{name}-{i}",), None, PodNeeds(1_000), ends_at=end)
        for i, end in enumerate(ends)
    )
    return make_node(name, made, holders=holders, **fields)  # type: ignore[arg-type] # capacities are ints


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ({"a": [UNKNOWN] * 5, "b": [UNKNOWN] * 2, "c": [UNKNOWN] * 3}, "b"),
        ({"a": [UNKNOWN], "b": [500.0] * 8}, "b"),
        ({"a": [900.0] * 8, "b": [500.0] * 8, "c": [700.0]}, "b"),
        ({"a": [500.0] * 4, "b": [500.0] * 2}, "b"),
    ],
    ids=["fewest in use", "known ends first", "earliest end", "fewest in use among equals"],
)
def test_node_that_is_free_soonest_is_chosen(nodes: dict[str, list[float | None]], expected: str) -> None:
    found = soonest(Fleet.of(held_node(name, ends) for name, ends in nodes.items()), make_request(count=8))

    assert found is not None
    assert list(found.devices) == [expected]
    assert found.in_use == len(nodes[expected])


def test_time_is_the_end_of_the_last_pod_or_not_known() -> None:
    known = soonest(Fleet.of([held_node("a", [300.0, 500.0])]), make_request(count=8))
    unknown = soonest(Fleet.of([held_node("a", [300.0, UNKNOWN])]), make_request(count=8))

    assert known is not None
    assert unknown is not None
    assert (known.free_at, unknown.free_at) == (500.0, None)


def test_devices_that_are_free_come_first_on_a_node() -> None:
    found = soonest(Fleet.of([held_node("a", [900.0, 300.0, UNKNOWN], devices=4)]), make_request(count=2))

    assert found is not None
    assert found.devices == {"a": ("GPU-a-1", "GPU-a-3")}


def test_gang_gets_devices_of_as_many_nodes_as_it_needs() -> None:
    fleet = Fleet.of(held_node(name, [UNKNOWN] * held) for name, held in (("a", 1), ("b", 5), ("c", 2)))

    found = soonest(fleet, make_request(replicas=2, count=8, gang=True))

    assert found is not None
    assert set(found.devices) == {"a", "c"}
    assert found.in_use == 3


def test_same_node_gang_gets_one_node() -> None:
    fleet = Fleet.of(held_node(name, [UNKNOWN] * held) for name, held in (("a", 1), ("b", 5)))

    found = soonest(fleet, make_request(replicas=2, count=4, gang=True, topology=Topology.SAME_NODE))

    assert found is not None
    assert set(found.devices) == {"a"}


@pytest.mark.parametrize(
    "node",
    [
        make_node("a", [make_device(f"GPU-a-{i}", i, held=i < 7) for i in range(8)]),
        held_node("a", [UNKNOWN] * 2, devices=4),
        held_node("a", [UNKNOWN] * 8, free_cpu_milli=-60_000),
    ],
    ids=["held by unknown pods", "too few devices", "too little CPU"],
)
def test_request_that_other_pods_leave_no_room_for_gets_none(node: NodeState) -> None:
    assert soonest(Fleet.of([node]), make_request(count=8, cpu_milli=1_000)) is None


def test_second_request_gets_other_devices() -> None:
    fleet = Fleet.of([held_node("a", [UNKNOWN]), held_node("b", [UNKNOWN] * 2)])
    first = soonest(fleet, make_request(count=8))
    assert first is not None
    fleet.earmark(first.devices["a"], "ml/first")

    second = soonest(fleet, make_request(count=8))

    assert second is not None
    assert list(second.devices) == ["b"]
    fleet.earmark(second.devices["b"], "ml/second")
    assert soonest(fleet, make_request(count=8)) is None


def test_earmarked_device_is_no_ones_until_it_is_cleared() -> None:
    fleet = Fleet.of([make_node("a", 2)])
    fleet.earmark(["GPU-a-0", "GPU-gone"], "ml/big since 10:00")

    assert place(fleet, make_request()).picks[0].devices == ("GPU-a-1",)
    diagnosis = place(fleet, make_request(count=2)).diagnosis
    assert diagnosis is not None
    assert "1 earmarked" in diagnosis.message
    fleet.put(make_node("a", 2))
    assert not place(fleet, make_request(count=2)).picks, "an update of the node keeps the earmark"

    assert fleet.clear_earmarks() == {"GPU-a-0": "ml/big since 10:00", "GPU-gone": "ml/big since 10:00"}
    assert len(place(fleet, make_request(count=2)).picks) == 1


def test_closest_device_names_for_whom_it_is_earmarked() -> None:
    fleet = Fleet.of([make_node("a", 1)])
    fleet.earmark(["GPU-a-0"], "ml/big since 10:00")

    diagnosis = place(fleet, make_request()).diagnosis

    assert diagnosis is not None
    assert diagnosis.nearest is not None
    assert diagnosis.nearest.message == "is earmarked for ml/big since 10:00"
