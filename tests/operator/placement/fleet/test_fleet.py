"""Incremental updates give the same fleet as a full snapshot, and nothing is dropped silently."""

from collections.abc import Callable
from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpufleet_api.workload_placement import Strategy
from gpufleet_operator.placement import Fleet, aggregate, place, rank_devices
from gpufleet_operator.placement.errors import InvalidFleetError
from gpufleet_operator.placement.model import NodeState, PodNeeds, Share
from gpufleet_testing.hypothesis_profiles import examples
from gpufleet_testing.placement import generators
from gpufleet_testing.placement.builders import make_device, make_node, make_request


@examples(30)
@given(data=st.data())
def test_decisions_after_any_history_equal_those_of_a_new_fleet(data: st.DataObject) -> None:
    """Puts, removals, holds and decisions in between (which fill the caches) leave no trace."""
    fleet = Fleet()
    asked = data.draw(st.lists(generators.requests(), min_size=1, max_size=3))
    for _ in range(data.draw(st.integers(1, 8))):
        match data.draw(st.sampled_from(["put", "remove", "hold", "place"])):
            case "put":
                fleet.put(data.draw(generators.nodes(data.draw(st.sampled_from(["n0", "n1", "n2"])))))
            case "remove":
                fleet.remove(data.draw(st.sampled_from(["n0", "n1", "n2"])))
            case "hold":
                request = data.draw(st.sampled_from(asked))
                for pick in place(fleet, request).picks:
                    fleet.hold(pick.node, pick.devices, request.pod, request.devices.share)
            case _:
                place(fleet, data.draw(st.sampled_from(asked)))
                aggregate(fleet)
                if fleet.where:
                    rank_devices(fleet)
    anew = Fleet.of(fleet.nodes.values())
    for request in asked:
        assert place(fleet, request) == place(anew, request)
    assert aggregate(fleet) == aggregate(anew)
    if anew.where:
        assert list(rank_devices(fleet)) == list(rank_devices(anew))


@pytest.mark.parametrize(
    "change",
    [{"unschedulable": True}, {"not_ready": "has not renewed its lease"}, {"labels": {"zone": "b"}}],
    ids=lambda change: next(iter(change)),
)
def test_node_that_is_rejected_as_a_whole_and_returns_is_judged_again(change: dict[str, Any]) -> None:
    before = make_node("node-1", labels={"zone": "a"})
    fleet, request = Fleet.of([before]), make_request(node_selector={"zone": "a"})
    assert place(fleet, request).picks

    fleet.put(replace(before, **change))
    assert not place(fleet, request).picks
    fleet.put(before)
    assert place(fleet, request).picks


@examples(30)
@given(data=st.data())
def test_hold_and_release_are_each_others_opposite(data: st.DataObject) -> None:
    fleet, request = Fleet.of(data.draw(generators.fleets())), data.draw(generators.requests())
    before = dict(fleet.nodes)
    picks = place(fleet, request).picks
    for pick in picks:
        fleet.hold(pick.node, pick.devices, request.pod, request.devices.share)
    for pick in reversed(picks):
        fleet.release(pick.node, pick.devices, request.pod, request.devices.share)
    zeros = {name: _with_zeros(node, request.pod) for name, node in before.items()}
    assert {name: _with_zeros(node, request.pod) for name, node in fleet.nodes.items()} == zeros


def _with_zeros(node: NodeState, pod: PodNeeds) -> NodeState:
    return replace(node, free_extended={**dict.fromkeys(pod.extended, 0), **node.free_extended})


def test_a_hold_debits_the_devices_and_the_room() -> None:
    fleet = Fleet.of([make_node("a", 2, free_extended={"x.dev/nic": 2})])
    fleet.hold("a", ["GPU-a-1"], PodNeeds(1_000, 5, {"x.dev/nic": 1}))
    node = fleet.nodes["a"]
    assert [d.held for d in node.devices] == [False, True]
    assert (node.free_cpu_milli, node.free_memory_bytes, node.free_pods) == (63_000, 512 * 2**30 - 5, 109)
    assert node.free_extended == {"x.dev/nic": 1}


def test_a_shared_hold_is_in_flight_until_the_next_sample() -> None:
    fleet = Fleet.of([make_node("a", 1)])
    fleet.hold("a", ["GPU-a-0"], share=Share(10_000, 30))
    device = fleet.nodes["a"].devices[0]
    assert (device.sharers, device.in_flight_memory_mib, device.in_flight_compute_percent) == (1, 10_000, 30)
    assert (device.memory_free_mib, device.compute_in_use_percent) == (70_000, 30)
    fleet.release("a", ["GPU-a-0"], share=Share(10_000, 30))
    assert fleet.nodes["a"] == replace(make_node("a", 1), free_pods=110)


def test_released_share_is_subtracted_from_in_flight_before_promised() -> None:
    promised = make_device("GPU-0", 0, sharers=2, promised_memory_mib=30_000, in_flight_memory_mib=10_000)
    fleet = Fleet.of([make_node("a", [promised])])
    fleet.release("a", ["GPU-0"], share=Share(15_000, 0))
    left = fleet.nodes["a"].devices[0]
    assert (left.sharers, left.in_flight_memory_mib, left.promised_memory_mib) == (1, 0, 25_000)


def test_a_copy_goes_its_own_way() -> None:
    fleet = Fleet.of([make_node("a", 2)])
    copy = fleet.copy()
    copy.hold("a", ["GPU-a-0"])
    copy.put(make_node("b", 1))
    assert not fleet.nodes["a"].devices[0].held
    assert "b" not in fleet.nodes
    assert copy.version > fleet.version


def test_every_change_raises_the_version() -> None:
    fleet = Fleet()
    seen = [fleet.version]
    changes: tuple[Callable[[], None], ...] = (
        lambda: fleet.put(make_node("a", 2)),
        lambda: fleet.put(make_node("a", 2)),
        lambda: fleet.hold("a", ["GPU-a-0"]),
        lambda: fleet.release("a", ["GPU-a-0"]),
        lambda: fleet.remove("a"),
    )
    for change in changes:
        change()
        seen.append(fleet.version)
    assert seen == sorted(set(seen))


def test_unregistered_device_is_rejected_by_name() -> None:
    fleet = Fleet.of([make_node("a", 1), make_node("b", 1)])
    for call in (fleet.hold, fleet.release):
        with pytest.raises(InvalidFleetError, match="node a has no device GPU-b-0"):
            call("a", ["GPU-b-0"])
        with pytest.raises(InvalidFleetError, match="node gone is not in the fleet"):
            call("gone", ["GPU-a-0"])


def test_a_device_is_not_held_twice() -> None:
    fleet = Fleet.of([make_node("a", 1)])
    fleet.hold("a", ["GPU-a-0"])
    with pytest.raises(InvalidFleetError, match="GPU-a-0 of node a is already held"):
        fleet.hold("a", ["GPU-a-0"])
    with pytest.raises(InvalidFleetError, match="GPU-a-0 of node a is already held"):
        fleet.hold("a", ["GPU-a-0"], share=Share(1, 1))


def test_what_is_not_held_is_not_released() -> None:
    fleet = Fleet.of([make_node("a", 1)])
    with pytest.raises(InvalidFleetError, match="GPU-a-0 is not held as a whole"):
        fleet.release("a", ["GPU-a-0"])
    with pytest.raises(InvalidFleetError, match="GPU-a-0 has promised less"):
        fleet.release("a", ["GPU-a-0"], share=Share(1, 0))


def test_duplicate_uuid_is_rejected() -> None:
    fleet = Fleet.of([make_node("a", 1)])
    with pytest.raises(InvalidFleetError, match="GPU-a-0 of node b is duplicated on a"):
        fleet.put(make_node("b", [make_device("GPU-a-0", 0)]))
    with pytest.raises(InvalidFleetError, match="GPU-x of node c is duplicated on c"):
        fleet.put(make_node("c", [make_device("GPU-x", 0), make_device("GPU-x", 1)]))
    assert list(fleet.nodes) == ["a"]
    with pytest.raises(InvalidFleetError, match="duplicate node a"):
        Fleet.of([make_node("a", 1), make_node("a", 1)])


def test_a_device_that_left_its_node_may_come_back_on_another() -> None:
    fleet = Fleet.of([make_node("a", [make_device("GPU-x", 0)])])
    fleet.put(make_node("a", 0))
    fleet.put(make_node("b", [make_device("GPU-x", 0)]))
    assert place(fleet, make_request()).picks[0].node == "b"


def test_the_devices_of_a_node_stay_in_the_order_in_which_they_came() -> None:
    devices = [make_device("GPU-2", 2), make_device("GPU-0", 0), make_device("GPU-1", 1)]
    fleet = Fleet.of([make_node("a", devices)])
    fleet.hold("a", ["GPU-0"])
    assert [d.uuid for d in fleet.nodes["a"].devices] == ["GPU-2", "GPU-0", "GPU-1"]
    assert place(fleet, make_request()).picks[0].devices == ("GPU-1",)


def test_a_wider_node_and_many_more_nodes_fit_in() -> None:
    fleet = Fleet.of([make_node("a", 1)])
    fleet.put(make_node("wide", 64))
    for i in range(50):
        fleet.put(make_node(f"n{i:02}", 2))
    assert len(fleet.nodes) == 52
    assert place(fleet, make_request(count=64)).picks[0].node == "wide"
    assert place(fleet, make_request(replicas=2, count=2, strategy=Strategy.SPREAD)).picks[1].node == "n01"


def test_a_device_is_shared_by_no_more_than_its_slots() -> None:
    fleet = Fleet.of([make_node("a", [make_device("GPU-0", 0, free_slots=2), make_device("GPU-1", 1, free_slots=1)])])
    request = make_request(replicas=4, share=Share(1_000, 0))
    for strategy in Strategy:
        decision = place(fleet, replace(request, strategy=strategy))
        assert sorted(p.devices for p in decision.picks) == [("GPU-0",), ("GPU-0",), ("GPU-1",)]
        assert decision.diagnosis is not None
        assert "2 in use" in decision.diagnosis.message
        assert decision.diagnosis.message.endswith("has no free share slot.")
    fleet.hold("a", ["GPU-1"], share=Share(1_000, 0))
    with pytest.raises(InvalidFleetError, match="GPU-1 of node a has no free share slot"):
        fleet.hold("a", ["GPU-1"], share=Share(1_000, 0))
    fleet.release("a", ["GPU-1"], share=Share(1_000, 0))
    assert fleet.nodes["a"].devices[1].free_slots == 1


def test_the_order_in_which_devices_of_one_index_come_decides_nothing() -> None:
    devices = [make_device(f"GPU-{name}", 0) for name in "bac"]
    for order in permutations(devices):
        fleet = Fleet.of([make_node("a", order)])
        assert [r.device for r in rank_devices(fleet)] == ["GPU-a", "GPU-b", "GPU-c"]
        assert place(fleet, make_request(count=2)).picks[0].devices == ("GPU-a", "GPU-b")
        assert fleet.nodes["a"].devices == order
