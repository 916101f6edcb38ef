"""Preemption is a proposal: who would have to go, as few and as unimportant as can be."""

from collections.abc import Collection
from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpufleet_operator.placement import Fleet, place, propose
from gpufleet_operator.placement.contention.removal import without
from gpufleet_operator.placement.model import HolderPod, NodeState, PodNeeds, Request, Share
from gpufleet_testing.hypothesis_profiles import examples
from gpufleet_testing.placement.builders import make_device, make_node, make_request


def crowded(
    name: str, holders: list[tuple[str, int, int]], devices: int = 8, free_cpu_milli: int = 64_000
) -> NodeState:
    """A node whose holders (name, priority, devices) hold its first devices as a whole."""
    made, given_, at = [], [], 0
    for who, priority, count in holders:
        given_.append(
            HolderPod(who, priority, tuple(f"GPU-{name}-{i}" for i in range(at, at + count)), None, PodNeeds(1_000))
        )
        at += count
    for i in range(devices):
        held = i < at
        made.append(
            make_device(f"GPU-{name}-{i}", i, held=held, memory_used_mib=60_000 if held else 0, process_count=int(held))
        )
    return make_node(name, made, holders=tuple(given_), free_cpu_milli=free_cpu_milli)


def victims(fleet: Fleet, request: Request) -> list[str]:
    found = propose(fleet, request)
    return sorted(v.holder.name for v in found.victims) if found else []


def test_the_fewest_of_the_least_important_go() -> None:
    fleet = Fleet.of([crowded("a", [("low-1", 0, 2), ("low-2", 0, 2), ("low-4", 0, 4)])])
    assert victims(fleet, make_request(count=4, priority=10)) == ["low-4"]
    assert victims(fleet, make_request(count=2, priority=10)) in (["low-1"], ["low-2"], ["low-4"])
    assert victims(fleet, make_request(count=6, priority=10)) in (["low-1", "low-4"], ["low-2", "low-4"])


def test_among_equal_pods_the_one_with_fewest_devices_goes() -> None:
    fleet = Fleet.of([crowded("a", [("a-big", 0, 4)], devices=4), crowded("b", [("b-small", 0, 1)], devices=1)])

    assert victims(fleet, make_request(count=1, priority=10)) == ["b-small"]


def test_two_unimportant_ones_go_before_one_important_one() -> None:
    fleet = Fleet.of([crowded("a", [("x", 1, 4), ("y", 1, 4)]), crowded("b", [("z", 5, 8)])])
    assert victims(fleet, make_request(count=8, priority=10)) == ["x", "y"]


def test_pods_of_equal_or_higher_priority_stay() -> None:
    fleet = Fleet.of([crowded("a", [("equal", 10, 4), ("higher", 11, 4)])])
    assert propose(fleet, make_request(count=1, priority=10)) is None


def test_class_that_never_preempts_proposes_no_pod() -> None:
    fleet = Fleet.of([crowded("a", [("low", 0, 8)])])
    assert propose(fleet, make_request(count=1, priority=10, may_preempt=False)) is None
    assert victims(fleet, make_request(count=1, priority=10)) == ["low"]


def test_no_pod_is_proposed_where_there_is_room() -> None:
    fleet = Fleet.of([crowded("a", [("low", 0, 8)]), make_node("b", 8)])
    assert propose(fleet, make_request(count=8, priority=10)) is None


def test_no_pod_is_proposed_if_it_does_not_help() -> None:
    fleet = Fleet.of([crowded("a", [("low", 0, 8)])])
    assert propose(fleet, make_request(count=9, priority=10)) is None
    assert propose(fleet, make_request(count=1, priority=10, models=frozenset({"A100"}))) is None


def test_cpu_comes_back_with_its_holder() -> None:
    node = crowded("a", [("low", 0, 1)], free_cpu_milli=0)
    assert victims(Fleet.of([node]), make_request(count=1, priority=10, cpu_milli=1_000)) == ["low"]
    assert propose(Fleet.of([node]), make_request(count=1, priority=10, cpu_milli=1_001)) is None


def test_a_gang_is_proposed_as_a_whole_or_not_at_all() -> None:
    nodes = [crowded("a", [("a-low", 0, 8)]), crowded("b", [("b-low", 0, 8)])]
    found = propose(Fleet.of(nodes), make_request(replicas=2, count=8, priority=1, gang=True))
    assert found is not None
    assert sorted(v.holder.name for v in found.victims) == ["a-low", "b-low"]
    assert sorted(p.node for p in found.picks) == ["a", "b"]
    assert propose(Fleet.of(nodes), make_request(replicas=3, count=8, priority=1, gang=True)) is None


def test_fleet_is_not_modified() -> None:
    fleet = Fleet.of([crowded("a", [("low", 0, 8)])])
    before, version = dict(fleet.nodes), fleet.version
    propose(fleet, make_request(count=8, priority=1))
    assert (dict(fleet.nodes), fleet.version) == (before, version)


def test_a_sharer_gives_back_its_share_only() -> None:
    share = Share(30_000, 30)
    device = make_device(
        "GPU-a",
        0,
        sharers=2,
        promised_memory_mib=60_000,
        promised_compute_percent=60,
        memory_used_mib=50_000,
        utilization_percent=40,
        process_count=2,
    )
    holders = tuple(HolderPod(name, 0, ("GPU-a",), share) for name in ("x", "y"))
    node = make_node("a", [device], holders=holders)
    left = without(node, holders[:1]).devices[0]
    assert (left.sharers, left.promised_memory_mib, left.memory_used_mib) == (1, 30_000, 20_000)
    idle = without(node, holders).devices[0]
    assert (idle.sharers, idle.memory_used_mib, idle.utilization_percent, idle.process_count) == (0, 0, 0, 0)
    assert victims(Fleet.of([node]), make_request(share=Share(40_000, 10), priority=1)) in (["x"], ["y"])
    assert victims(Fleet.of([node]), make_request(priority=1)) == ["x", "y"]


def test_a_share_that_no_sample_shows_yet_comes_back_as_well() -> None:
    low = HolderPod("low", 0, ("GPU-a-0",), Share(30_000, 50), PodNeeds(1_000))
    fleet = Fleet.of([make_node("a", 1, holders=(low,))])
    fleet.hold("a", ["GPU-a-0"], low.pod, low.share)
    assert victims(fleet, make_request(priority=10)) == ["low"]
    left = without(fleet.nodes["a"], [low]).devices[0]
    assert (left.in_flight_memory_mib, left.in_flight_compute_percent, left.sharers) == (0, 0, 0)


def test_released_share_is_subtracted_from_in_flight_before_promised() -> None:
    device = make_device(
        "GPU-a",
        0,
        sharers=2,
        promised_memory_mib=30_000,
        promised_compute_percent=30,
        memory_used_mib=40_000,
        utilization_percent=35,
        in_flight_memory_mib=10_000,
        in_flight_compute_percent=30,
    )
    low = HolderPod("low", 0, ("GPU-a",), Share(15_000, 30))
    left = without(make_node("a", [device], holders=(low,)), [low]).devices[0]
    assert (left.in_flight_memory_mib, left.promised_memory_mib, left.memory_used_mib) == (0, 25_000, 35_000)
    assert (left.in_flight_compute_percent, left.promised_compute_percent, left.utilization_percent) == (0, 30, 35)


@examples(20)
@given(
    holders=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 3)), min_size=1, max_size=4),
    count=st.integers(1, 8),
    priority=st.integers(0, 4),
)
def test_no_other_set_of_victims_is_better(holders: list[tuple[int, int]], count: int, priority: int) -> None:
    named = [(f"h{i}", prio, size) for i, (prio, size) in enumerate(holders)]
    node = crowded("a", named, devices=12)
    request = make_request(count=count, priority=priority)
    found = propose(Fleet.of([node]), request)
    lower = [h for h in node.holders if h.priority < priority]
    helping = [
        gone
        for size in range(len(lower) + 1)
        for gone in combinations(lower, size)
        if place(Fleet.of([without(node, gone)]), request).picks
    ]
    if found is None:
        assert not helping or helping[0] == ()
        return
    best = min((max(h.priority for h in g), len(g), sum(h.priority for h in g)) for g in helping)
    chosen = [v.holder for v in found.victims]
    assert (max(h.priority for h in chosen), len(chosen), sum(h.priority for h in chosen)) == best


def test_one_victim_that_makes_room_for_all_goes_before_two() -> None:
    """Replica by replica the two small ones on the first node would go."""
    nodes = [
        crowded("a", [("a-1", 0, 1), ("a-2", 0, 1)], devices=2),
        crowded("b", [("b", 0, 2)], devices=2),
    ]
    assert victims(Fleet.of(nodes), make_request(replicas=2, priority=1)) == ["b"]
    assert victims(Fleet.of(nodes), make_request(replicas=2, priority=1, gang=True)) == ["b"]


def test_no_pod_is_proposed_if_another_arrangement_fits() -> None:
    """Replica 0 would take the cool device, the only one that replica 1 may use."""
    nodes = [
        crowded("a", [("low", 0, 1)], devices=1),
        make_node("b", [make_device("GPU-b", 0, temperature_celsius=20)]),
        make_node("c", 1),
    ]
    request = make_request(replicas=2, priority=1, excluded_nodes={1: frozenset({"c"})})
    assert propose(Fleet.of(nodes), request) is None


@examples(30)
@given(
    held=st.lists(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 2)), max_size=3), min_size=1, max_size=2),
    wanted=st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(0, 3), st.booleans()),
)
def test_victims_on_several_nodes_are_the_cheapest(
    held: list[list[tuple[int, int]]], wanted: tuple[int, int, int, bool]
) -> None:
    nodes = [
        crowded(name, [(f"{name}-{i}", prio, size) for i, (prio, size) in enumerate(holders)], devices=6)
        for name, holders in zip("ab", held, strict=False)
    ]
    replicas, count, priority, gang = wanted
    request = make_request(replicas=replicas, count=count, priority=priority, gang=gang)
    lower = {h.name: h.priority for n in nodes for h in n.holders if h.priority < priority}
    reached = {
        frozenset(gone): len(place(_left(nodes, gone), request).picks)
        for size in range(len(lower) + 1)
        for gone in combinations(lower, size)
    }
    most = max(reached.values())
    found = propose(Fleet.of(nodes), request)
    if reached[frozenset()] == most:
        assert found is None
        return
    assert found is not None
    chosen = frozenset(v.holder.name for v in found.victims)
    assert len(found.picks) == reached[chosen] == most
    costs = {
        gone: (max(map(lower.__getitem__, gone)), len(gone), sum(map(lower.__getitem__, gone)))
        for gone, picks in reached.items()
        if picks == most
    }
    assert costs[chosen] == min(costs.values())


def _left(nodes: list[NodeState], gone: Collection[str]) -> Fleet:
    return Fleet.of(without(n, [h for h in n.holders if h.name in gone]) for n in nodes)


def one_each(name: str, *holders: HolderPod) -> NodeState:
    """A node with one device for each of these pods."""
    devices = [make_device(f"GPU-{name}-{i}", i, held=True) for i in range(len(holders))]
    placed = tuple(replace(h, devices=(d.uuid,), uid=h.uid or h.name) for h, d in zip(holders, devices, strict=True))
    return make_node(name, devices, holders=placed)


def test_pods_of_a_gang_are_evicted_together() -> None:
    gang = [HolderPod(f"gang-{i}", 0, (), group="uid-gang") for i in range(2)]
    fleet = Fleet.of([one_each("a", gang[0]), one_each("b", gang[1])])

    assert victims(fleet, make_request(priority=1)) == ["gang-0", "gang-1"]
    both = propose(fleet, make_request(replicas=2, priority=1, gang=True))
    assert both is not None
    assert len(both.victims) == 2, "what the first replica needs serves the second one"


def test_single_pod_is_evicted_before_a_gang() -> None:
    gang = [HolderPod(f"gang-{i}", 0, (), group="uid-gang") for i in range(2)]
    fleet = Fleet.of([one_each("a", gang[0]), one_each("b", gang[1]), one_each("c", HolderPod("single", 0, ()))])

    assert victims(fleet, make_request(priority=1)) == ["single"]


@pytest.mark.parametrize(
    "second",
    [
        HolderPod("gang-1", 5, (), group="uid-gang"),
        HolderPod("gang-1", 0, (), group="uid-gang", evictable=False),
        HolderPod("gang-1", 0, (), group="uid-gang", protected_until=101.0),
        HolderPod("gang-1", 0, (), group="uid-gang", uid="blocked"),
    ],
    ids=["not lower", "not evictable", "in its minimum runtime", "blocked by a budget"],
)
def test_gang_with_a_pod_that_stays_is_not_evicted(second: HolderPod) -> None:
    fleet = Fleet.of([one_each("a", HolderPod("gang-0", 0, (), group="uid-gang")), one_each("b", second)])

    assert propose(fleet, make_request(priority=1), now=100.0, blocked={"blocked"}) is None


def test_pod_that_is_ending_is_waited_for() -> None:
    leaving = HolderPod("leaving", 9, (), leaving=True)
    fleet = Fleet.of([one_each("a", HolderPod("low", 0, ())), one_each("b", leaving)])

    found = propose(fleet, make_request(priority=1))

    assert found is not None
    assert found.victims == ()
    assert [pick.node for pick in found.picks] == ["b"]
    assert victims(fleet, make_request(replicas=2, priority=1, gang=True)) == ["low"]


def test_devices_earmarked_for_another_request_are_not_proposed() -> None:
    fleet = Fleet.of([one_each("a", HolderPod("a-low", 0, ())), one_each("b", HolderPod("b-low", 0, ()))])
    fleet.earmark(["GPU-a-0"], "ml/other")

    assert victims(fleet, make_request(priority=1)) == ["b-low"]
    assert propose(fleet, make_request(replicas=2, priority=1, gang=True)) is None
