"""All or nothing: found whenever it exists on small fleets, by exhaustive search; and by cases."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpufleet_api.workload_placement import Strategy, Topology
from gpufleet_operator.placement import Fleet, place
from gpufleet_operator.placement.fleet.nvlink import LinkGraph
from gpufleet_operator.placement.model import NodeState, Request, ScoreWeights, Share
from gpufleet_operator.placement.search.capacity import packed_sets, replica_capacity
from gpufleet_operator.placement.search.query import Query
from gpufleet_testing.hypothesis_profiles import examples
from gpufleet_testing.placement import oracle
from gpufleet_testing.placement.builders import make_device, make_linked_node, make_node, make_request

_SHARES = st.sampled_from([None, None, Share(30_000, 10), Share(20_000, 0), Share(0, 30)])


@examples(30)
@given(data=st.data())
def test_all_replicas_are_placed_exactly_when_that_is_possible(data: st.DataObject) -> None:
    """Gang or not: what is placeable as a whole is placed as a whole, regardless of the strategy's first choice."""
    nodes = tuple(data.draw(st.lists(_small_nodes(), min_size=1, max_size=2, unique_by=lambda n: n.name)))
    replicas = data.draw(st.integers(1, 3))
    excluded = {r: data.draw(st.frozensets(st.sampled_from(["a", "b"]), max_size=1)) for r in range(replicas)}
    share = data.draw(_SHARES)
    request = make_request(
        replicas=replicas,
        count=data.draw(st.integers(1, 3)),
        share=share,
        min_free_memory_mib=data.draw(st.sampled_from([None, None, 40_000])),
        max_utilization_percent=data.draw(st.sampled_from([None, None, 15])),
        topology=data.draw(st.sampled_from(list(Topology))),
        strategy=data.draw(st.sampled_from(list(Strategy))),
        gang=data.draw(st.booleans()),
        excluded_nodes=data.draw(st.sampled_from([{}, excluded])),
    )
    decision = place(Fleet.of(nodes), request)
    together = [{n.name: n} for n in nodes] if request.topology is Topology.SAME_NODE else [{n.name: n for n in nodes}]
    possible = any(_possible(state, request, request.replicas) for state in together)
    assert (not decision.unplaced) == possible
    if request.gang:
        assert bool(decision.picks) == possible


@cache  # hypothesis validates each strategy once
@st.composite
def _small_nodes(draw: st.DrawFn) -> NodeState:
    name = draw(st.sampled_from(["a", "b"]))
    size = draw(st.integers(1, 4))
    pairs = draw(st.lists(st.sampled_from(list(combinations(range(4), 2))), unique=True))
    node = make_linked_node(name, [(x, y) for x, y in pairs if y < size], size)
    devices = [
        make_device(
            d.uuid,
            d.index,
            nvlink_peers=d.nvlink_peers,
            memory_used_mib=draw(st.sampled_from([0, 20_000, 60_000])),
            numa_node=draw(st.sampled_from([0, 1])),
            temperature_celsius=draw(st.sampled_from([30, 60])),
        )
        for d in node.devices
    ]
    made: NodeState = make_node(name, devices, free_pods=draw(st.sampled_from([1, 2, 100])))
    return made


def _possible(state: dict[str, NodeState], request: Request, left: Sequence[int]) -> bool:
    """Every set of every node for every replica, in every combination."""
    if not left:
        return True
    replica, rest = left[0], left[1:]
    for name, node in state.items():
        if oracle.node_rejection(node, request, replica) or oracle.resource_rejection(node, request.pod):
            continue
        passing = [d for d in node.devices if oracle.device_rejection(d, request.devices) is None]
        for chosen in combinations(passing, request.devices.count):
            if not oracle.satisfies(chosen, request.topology):
                continue
            after = {**state, name: oracle.after_pick(node, [d.uuid for d in chosen], request)}
            if _possible(after, request, rest):
                return True
    return False


@examples(20)
@given(data=st.data())
def test_capacity_is_what_can_be_placed_on_the_node_alone(data: st.DataObject) -> None:
    node = data.draw(_small_nodes())
    request = make_request(
        replicas=6,
        count=data.draw(st.integers(1, 3)),
        share=data.draw(st.sampled_from([None, Share(10_000, 0), Share(0, 30), Share(20_000, 20)])),
        topology=data.draw(st.sampled_from(list(Topology))),
        min_free_memory_mib=data.draw(st.sampled_from([None, 30_000])),
        max_utilization_percent=data.draw(st.sampled_from([None, 40])),
        cpu_milli=data.draw(st.sampled_from([0, 1_000])),
    )
    fleet, query = Fleet.of([node]), Query.of(request)
    found = int(replica_capacity(fleet, query, 6)[0])
    for replicas in range(1, 7):
        gang = replace(request, replicas=tuple(range(replicas)), gang=True)
        assert bool(place(fleet, gang).picks) == (replicas <= found)


def test_gang_that_does_not_fit_reports_how_many_would() -> None:
    fleet = Fleet.of([make_node("a", 4), make_node("b", 4)])
    decision = place(fleet, make_request(replicas=3, count=3, gang=True))
    assert (decision.picks, decision.unplaced) == ((), (0, 1, 2))
    assert decision.diagnosis is not None
    assert "2 of 3 replicas would fit" in decision.diagnosis.message


def test_without_gang_what_fits_is_placed() -> None:
    decision = place(Fleet.of([make_node("a", 4)]), make_request(replicas=3, count=2))
    assert [p.replica for p in decision.picks] == [0, 1]
    assert decision.unplaced == (2,)


@pytest.mark.parametrize(
    ("minimum_mib", "maximum_percent", "replicas"),
    [
        (None, None, 4),
        (40_000, None, 3),
        (60_001, None, 1),
        (None, 20, 3),
        (None, 9, 1),
        (40_000, 10, 2),
    ],
)
def test_share_is_counted_for_the_next_replica(
    minimum_mib: int | None, maximum_percent: int | None, replicas: int
) -> None:
    """80,000 MiB idle, 20,000 MiB and 10 % for each: each one is tested as it is placed, and capacity knows."""
    fleet, share = Fleet.of([make_node("a", 1)]), Share(20_000, 10)
    request = make_request(
        replicas=9, share=share, min_free_memory_mib=minimum_mib, max_utilization_percent=maximum_percent
    )
    assert replica_capacity(fleet, Query.of(request), 9).max() == replicas
    assert len(place(fleet, request).picks) == replicas


@pytest.mark.parametrize("topology", [Topology.NONE, Topology.SAME_NODE, Topology.NUMA, Topology.NVLINK])
@pytest.mark.parametrize("gang", [True, False])
def test_the_roomiest_device_serves_each_replica_of_two_shares(topology: Topology, gang: bool) -> None:
    """The cool pair is taken first, and then the third device, which has room for two, is alone."""
    peers = ("GPU-0", "GPU-1", "GPU-2")
    devices = [
        make_device(f"GPU-{i}", i, temperature_celsius=30, sharers=1, promised_memory_mib=40_000, nvlink_peers=peers)
        for i in range(2)
    ]
    fleet = Fleet.of([make_node("a", [*devices, make_device("GPU-2", 2, temperature_celsius=70, nvlink_peers=peers)])])
    request = make_request(
        replicas=2, count=2, share=Share(40_000, 0), topology=topology, gang=gang, weights=ScoreWeights(0, 0, 1, 0)
    )
    assert place(fleet, replace(request, replicas=(0,))).picks[0].devices == ("GPU-0", "GPU-1")
    assert [p.devices for p in place(fleet, request).picks] == [("GPU-0", "GPU-2"), ("GPU-1", "GPU-2")]


def test_a_careless_first_set_does_not_split_the_rest() -> None:
    """A chain of four: the pair in the middle has the best scores, and taking it would strand both ends."""
    chain = make_linked_node("a", [(0, 1), (1, 2), (2, 3)], 4)
    warm = [
        make_device(d.uuid, d.index, nvlink_peers=d.nvlink_peers, temperature_celsius=30 if 0 < d.index < 3 else 60)
        for d in chain.devices
    ]
    decision = place(
        Fleet.of([make_node("a", warm)]), make_request(replicas=2, count=2, topology=Topology.NVLINK, gang=True)
    )
    assert sorted(p.devices for p in decision.picks) == [("GPU-a-0", "GPU-a-1"), ("GPU-a-2", "GPU-a-3")]


def test_a_replica_that_may_not_use_the_only_node_left_makes_another_move() -> None:
    best = make_node("a", [make_device("GPU-a", 0, temperature_celsius=20)])
    request = make_request(replicas=2, gang=True, excluded_nodes={1: frozenset({"b"})})
    decision = place(Fleet.of([best, make_node("b", 1)]), request)
    assert [(p.replica, p.node) for p in decision.picks] == [(0, "b"), (1, "a")]


def test_sets_of_a_cube_mesh() -> None:
    """Eight devices as in a hybrid cube mesh: two quads, one link between each pair of opposite corners."""
    quads = [*combinations(range(4), 2), *combinations(range(4, 8), 2), *((i, i + 4) for i in range(4))]
    peers = [0] * 8
    for a, b in quads:
        peers[a] |= 1 << b
        peers[b] |= 1 << a
    link_graph = LinkGraph(tuple(peers))
    every, some, two = [1] * 8, [1, 1, 1, 0, 1, 1, 1, 0], [0, 1, 0, 0, 1, 0, 0, 0]
    assert len(packed_sets(link_graph, every, 2, 8)) == 4
    assert set(packed_sets(link_graph, every, 4, 8)) == {0x0F, 0xF0}
    assert len(packed_sets(link_graph, every, 8, 8)) == 1
    assert len(packed_sets(link_graph, some, 3, 8)) == 2
    assert packed_sets(link_graph, two, 2, 8) == ()
    assert packed_sets(link_graph, [2] * 8, 4, 3) == (0x0F, 0xF0, 0x0F)


@examples(30)
@given(
    pairs=st.lists(st.sampled_from(list(combinations(range(8), 2))), unique=True),
    slots=st.lists(st.integers(0, 2), min_size=8, max_size=8),
    count=st.integers(2, 4),
)
def test_sets_of_eight_devices_are_as_many_as_there_can_be(
    pairs: list[tuple[int, int]], slots: list[int], count: int
) -> None:
    peers = [0] * 8
    for a, b in pairs:
        peers[a] |= 1 << b
        peers[b] |= 1 << a
    link_graph = LinkGraph(tuple(peers))
    found = packed_sets(link_graph, slots, count, 16)
    assert all(bits.bit_count() == count and link_graph.connected(bits) for bits in found)
    assert all(sum(bits >> c & 1 for bits in found) <= slots[c] for c in range(8))
    assert len(found) == _most_sets(link_graph, tuple(slots), count, {})


def _most_sets(link_graph: LinkGraph, left: tuple[int, ...], count: int, known: dict[tuple[int, ...], int]) -> int:
    """By trying everything."""
    if left not in known:
        fitting = [
            chosen
            for chosen in combinations([c for c in range(8) if left[c]], count)
            if link_graph.connected(sum(1 << c for c in chosen))
        ]
        known[left] = max(
            (
                1 + _most_sets(link_graph, tuple(n - (c in chosen) for c, n in enumerate(left)), count, known)
                for chosen in fitting
            ),
            default=0,
        )
    return known[left]


def test_a_large_node_grows_its_sets() -> None:
    ring = [(i, (i + 1) % 32) for i in range(32)]
    decision = place(Fleet.of([make_linked_node("a", ring, 32)]), make_request(count=8, topology=Topology.NVLINK))
    indices = sorted(int(u.rsplit("-", 1)[1]) for u in decision.picks[0].devices)
    assert len(indices) == 8
    assert sum((b - a) % 32 == 1 for a, b in zip(indices, indices[1:] + indices[:1], strict=True)) >= 7
