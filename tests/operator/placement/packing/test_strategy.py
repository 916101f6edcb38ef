"""Strategy Pack keeps devices whole, and an incrementally updated fleet has the costs of a new one."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpufleet_api.workload_placement import Strategy, Topology
from gpufleet_operator.placement import Fleet, place
from gpufleet_operator.placement.fleet.encode import DEVICE_MILLI
from gpufleet_operator.placement.model import NodeState, Request, Share
from gpufleet_operator.placement.packing import Mix, PodType, fragmentation
from gpufleet_operator.placement.packing.fleet_state import PackingState, _rule
from gpufleet_testing.hypothesis_profiles import examples
from gpufleet_testing.placement import oracle
from gpufleet_testing.placement.builders import make_device, make_linked_node, make_node, make_request

GIB = 2**30
MIX = Mix.of(
    {
        PodType(4_000, 8 * GIB, 1): 6,
        PodType(2_000, 4 * GIB, 1, 500): 2,
        PodType(1_000, GIB, 1, 250): 2,
        PodType(32_000, 64 * GIB, 8): 1,
    }
)


def cost(nodes: list[NodeState], after: list[NodeState]) -> float:
    """Growth of waste plus the price of lost places, from the definitions."""
    before, then = PackingState(MIX), PackingState(MIX)
    before.update(Fleet.of(nodes))
    then.update(Fleet.of(after))
    stranded = before.total - then.total
    growth = int(then.nodes.fragmentation.sum()) - int(before.nodes.fragmentation.sum())
    return growth + float(np.rint(stranded @ before.prices(before.total)))


@examples(20)
@given(data=st.data())
def test_the_pick_is_the_cheapest_of_all_options(data: st.DataObject) -> None:
    nodes = [data.draw(_nodes(name)) for name in data.draw(st.permutations(["a", "b", "c"]))]
    share = data.draw(st.sampled_from([None, Share(20_000, 0), Share(40_000, 10)]))
    request = make_request(
        count=1 if share else data.draw(st.sampled_from([1, 2])),
        share=share,
        cpu_milli=data.draw(st.sampled_from([0, 4_000])),
        strategy=Strategy.PACK,
    )
    fleet = Fleet.of(nodes)
    picks = place(fleet, request, MIX).picks
    options = {}
    for node in nodes:
        if oracle.resource_rejection(node, request.pod):
            continue
        passing = [d.uuid for d in node.devices if oracle.device_rejection(d, request.devices) is None]
        sets = [[uuid] for uuid in passing] if request.devices.count == 1 else [passing[: request.devices.count]]
        for chosen in sets:
            if len(chosen) == request.devices.count:
                after = [oracle.after_pick(n, chosen, request) if n is node else n for n in nodes]
                options[node.name, tuple(chosen)] = cost(nodes, after)
    assert bool(picks) == bool(options)
    if picks:
        pick = picks[0]
        after = [oracle.after_pick(n, pick.devices, request) if n.name == pick.node else n for n in nodes]
        assert cost(nodes, after) == min(options.values())


@cache  # hypothesis validates each strategy once
@st.composite
def _nodes(draw: st.DrawFn, name: str) -> NodeState:
    devices = []
    for i in range(draw(st.integers(1, 4))):
        promised = draw(st.sampled_from([0, 0, 20_000, 40_000]))
        held = draw(st.sampled_from([False, False, True])) and not promised
        devices.append(
            make_device(f"GPU-{name}-{i}", i, sharers=bool(promised), promised_memory_mib=promised, held=held)
        )
    made: NodeState = make_node(name, devices, free_cpu_milli=draw(st.sampled_from([3_000, 16_000, 64_000])))
    return made


def test_whole_nodes_stay_whole_for_those_who_need_them() -> None:
    fleet = Fleet.of([make_node("a", 8), make_node("b", 8), make_node("c", 8)])
    request = make_request(cpu_milli=4_000, memory_bytes=8 * GIB, strategy=Strategy.PACK)
    used = set()
    for _ in range(8):
        pick = place(fleet, request, MIX).picks[0]
        fleet.hold(pick.node, pick.devices, request.pod)
        used.add(pick.node)
    assert len(used) == 1


def test_a_share_goes_beside_another_where_it_fits_exactly() -> None:
    fleet = Fleet.of([make_node("a", 2), make_node("b", 2)])
    half = make_request(share=Share(40_000, 0), strategy=Strategy.PACK)
    first = place(fleet, half, MIX).picks[0]
    fleet.hold(first.node, first.devices, half.pod, half.devices.share)
    second = place(fleet, half, MIX).picks[0]
    assert (second.node, second.devices) == (first.node, first.devices)


def test_cpu_beside_the_devices_is_kept_for_them() -> None:
    """A pod without devices goes where no device waits for the CPU."""
    full = make_node("b", [make_device("GPU-b", 0, held=True)], free_cpu_milli=8_000)
    idle = make_node("a", 1, free_cpu_milli=8_000)
    request = make_request(count=0, cpu_milli=6_000, strategy=Strategy.PACK)
    assert place(Fleet.of([idle, full]), request, MIX).picks[0].node == "b"


def test_a_device_without_cpu_enough_for_anybody_is_worth_nothing() -> None:
    """A pod without devices goes beside it, and not where a pod of the only kind there is just fits."""
    mix = Mix.of({PodType(8_000, GIB, 1): 1})
    fleet = Fleet.of([make_node("a", 1, free_cpu_milli=8_000), make_node("b", 1, free_cpu_milli=7_900)])
    request = make_request(count=0, cpu_milli=1_000, strategy=Strategy.PACK)
    assert place(fleet, request, mix).picks[0].node == "b"


def test_pod_without_devices_needs_none_despite_a_share() -> None:
    """Also where no device may be taken, or there is none at all."""
    nodes = [make_node("a", [make_device("GPU-a", 0, held=True)]), make_node("b", []), make_node("c", 2)]
    for node in nodes:
        request = make_request(count=0, share=Share(20_000, 10), cpu_milli=1_000, strategy=Strategy.PACK)
        (pick,) = place(Fleet.of([node]), request, MIX).picks
        assert (pick.node, pick.devices) == (node.name, ())
    plain = make_request(count=0, cpu_milli=1_000, strategy=Strategy.PACK)
    assert place(Fleet.of(nodes), request, MIX).picks == place(Fleet.of(nodes), plain, MIX).picks


def test_several_replicas_count_for_each_other() -> None:
    """The same picks as one request after the other, each debited."""
    nodes = [make_node(name, 4, free_cpu_milli=20_000) for name in "abc"]
    for share in (None, Share(20_000, 10)):
        at_once = make_request(replicas=6, cpu_milli=4_000, share=share, strategy=Strategy.PACK)
        one = make_request(cpu_milli=4_000, share=share, strategy=Strategy.PACK)
        fleet, picks = Fleet.of(nodes), []
        for _ in range(6):
            pick = place(fleet, one, MIX).picks[0]
            fleet.hold(pick.node, pick.devices, one.pod, share)
            picks.append((pick.node, pick.devices))
        assert [(p.node, p.devices) for p in place(Fleet.of(nodes), at_once, MIX).picks] == picks


def test_topology_holds_under_pack() -> None:
    node = make_linked_node("a", [(0, 1), (2, 3), (3, 4), (2, 4)], 5)
    request = make_request(count=3, topology=Topology.NVLINK, strategy=Strategy.PACK)
    assert place(Fleet.of([node]), request, MIX).picks[0].devices == ("GPU-a-2", "GPU-a-3", "GPU-a-4")


def test_the_price_of_places_rises_as_they_get_few() -> None:
    found = PackingState(MIX)
    found.update(Fleet.of([make_node(name, 8) for name in "abcd"]))
    assert found.total.tolist() == [4]
    few, many = found.prices(np.array([1])), found.prices(np.array([4]))
    assert few[0] == 4 * many[0] > 0


def test_free_thousandths_follow_what_is_promised() -> None:
    devices = [
        make_device("GPU-0", 0),
        make_device("GPU-1", 1, sharers=1, promised_memory_mib=20_000, promised_compute_percent=10),
        make_device("GPU-2", 2, sharers=1, promised_memory_mib=0, promised_compute_percent=60),
        make_device("GPU-3", 3, held=True),
        make_device("GPU-4", 4, healthy=False),
    ]
    fleet = Fleet.of([make_node("a", devices)])
    assert fleet.columns.free_milli[0, :5].tolist() == [DEVICE_MILLI, 750, 400, 0, 0]


def test_fleet_continues_when_state_numbers_were_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same picks whether all is forgotten before each decision or nothing ever."""
    nodes = [make_node(name, 3, free_cpu_milli=20_000) for name in "abc"]
    asked = [
        make_request(share=share, cpu_milli=2_000, strategy=Strategy.PACK) for share in (None, Share(20_000, 0)) * 4
    ]

    def picks() -> list[tuple[str, ...]]:
        fleet, found = Fleet.of(nodes), []
        for request in asked:
            pick = place(fleet, request, MIX).picks[0]
            fleet.hold(pick.node, pick.devices, request.pod, request.devices.share)
            found.append(pick.devices)
        return found

    expected, generation = picks(), _rule(MIX).generation
    monkeypatch.setattr(fragmentation, "_MAX_STATES", 0)
    assert picks() == expected
    assert _rule(MIX).generation > generation


def test_full_fleet_is_explained() -> None:
    request: Request = make_request(strategy=Strategy.PACK)
    decision = place(Fleet.of([make_node("a", [make_device("GPU-a", 0, held=True)])]), request, MIX)
    assert decision.diagnosis is not None


def test_model_named_by_multi_gpu_pods_only_has_its_own_capacity() -> None:
    """Whether the fleet has that model or not. Nobody else in the mix names any."""
    mix = Mix.of({PodType(1_000, GIB, 1): 3, PodType(1_000, GIB, 2, models=frozenset({"H100", "unheard of"})): 1})
    models = {"a": "L4", "b": "H100"}
    nodes = [make_node(n, [make_device(f"{n}-{i}", i, model=model) for i in range(2)]) for n, model in models.items()]
    landscape = PackingState(mix)
    landscape.update(Fleet.of(nodes))

    assert landscape.total.tolist() == [1], "one place, on the node of that model"
    (pick,) = place(Fleet.of(nodes), make_request(strategy=Strategy.PACK), mix).picks
    assert pick.node == "a", "the last place of those who need two of that model is left"
