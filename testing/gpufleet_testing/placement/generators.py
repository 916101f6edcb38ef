"""Hypothesis strategies of fleets and requests.

Values are near each other, so that limits are met, missed by one and tied often. Most devices, nodes and requests
are ordinary, so that many examples place something; the others vary in everything that a filter reads.
Each is decoded from one or two integers, because a draw costs far more than what it decides.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import combinations
from typing import TypeVar

from hypothesis import strategies as st

from gpufleet_api.names import MemoryModel
from gpufleet_api.workload_placement import Strategy, Topology
from gpufleet_operator.placement.model import (
    DeviceNeeds,
    DeviceState,
    NodeState,
    PodNeeds,
    Request,
    ScoreWeights,
    Share,
    Taint,
)
from gpufleet_operator.placement.node_rules import MatchExpression, NodeSelectorTerm, Toleration
from gpufleet_testing.placement.builders import GIB, make_device, make_node

T = TypeVar("T")

NAMES = ("n0", "n1", "n2", "n3")


class Choices:
    """Takes one option after the other out of a number: its digits in a mixed radix. 0 takes every first option."""

    def __init__(self, number: int) -> None:
        self._number = number

    def of(self, *options: T) -> T:
        self._number, at = divmod(self._number, len(options))
        return options[at]

    def one_in(self, number: int) -> bool:
        """True once in `number` times, False for 0."""
        return bool(self.of(*range(number)) == number - 1)


_CHOICES = st.integers(0, 2**22 - 1).map(Choices)
"""About 22 bits: hypothesis draws integers of more than 24 bits mostly small."""


_NONE: frozenset[str] = frozenset()
_IDLE, _SHARED, _ANY = range(3)


def _device(uuid: str, index: int, peers: tuple[str, ...], values: Choices, state: Choices) -> DeviceState:
    total = values.of(80_000, 40_000, None)
    used = None if total is None else values.of(0, 1, total // 2, total, 512, 513, None)
    kind = state.of(_IDLE, _IDLE, _IDLE, _SHARED, _ANY)
    promised = in_flight = Share()
    if kind != _IDLE:
        promised = state.of(Share(10_000, 10), Share(30_000, 50), Share())
        in_flight = state.of(Share(), Share(), Share(10_000, 40))
    device = make_device(
        uuid,
        index,
        model=values.of("H100", "A100"),
        memory_total_mib=total,
        memory_used_mib=used,
        memory_reserved_mib=values.of(None, None, 600),
        memory_model=values.of(None, None, None, MemoryModel.NUMA, MemoryModel.UNIFIED),
        utilization_percent=values.of(0, 10, 50, 51, 100, None),
        temperature_celsius=values.of(20, 40, 60, 61, 95, None),
        power_milliwatts=values.of(0, 350_000, None),
        compute_capability=values.of("9.0", "8.0", "10.0", None),
        numa_node=values.of(0, 1, None),
        nvlink_peers=peers,
        process_count=0,
        sharers=(promised != Share()) + (in_flight != Share()),
        promised_memory_mib=promised.memory_mib,
        promised_compute_percent=promised.compute_percent,
        reclaimed_memory_mib=state.of(0, 0, 5_000, -5_000) if promised.memory_mib else 0,
        in_flight_memory_mib=in_flight.memory_mib,
        in_flight_compute_percent=in_flight.compute_percent,
        free_slots=state.of(None, 1, 15) if kind != _IDLE else None,
    )
    return _defective(device, state) if kind == _ANY else device


def _defective(device: DeviceState, state: Choices) -> DeviceState:
    return replace(
        device,
        healthy=not state.one_in(3),
        process_count=state.of(0, None, 2),
        held=state.one_in(3),
        free_slots=state.of(None, 0, 1),
        sample_age_seconds=state.of(1.0, 1.0, None),
        cordoned=state.of(None, None, "is cordoned: fan"),
    )


@cache  # hypothesis validates each strategy once
@st.composite
def nodes(draw: st.DrawFn, name: str = "n0", most_devices: int = 5) -> NodeState:
    """A node of up to `most_devices` devices."""
    size = draw(st.integers(1, most_devices)) - draw(_CHOICES).one_in(8)
    uuids = [f"GPU-{name}-{i}" for i in range(size)]
    facts = draw(_CHOICES)
    links = list(combinations(range(size), 2))
    linked = facts.of(-1, draw(st.integers(0, 2 ** len(links) - 1)) if links else 0)
    peers: list[set[str]] = [set() for _ in uuids]
    for bit, (a, b) in enumerate(links):
        if linked >> bit & 1:
            peers[a].add(uuids[b])  # either device may report the link
            if (a + b) % 2:
                peers[b].add(uuids[a])
    devices = [_device(u, i, tuple(sorted(peers[i])), draw(_CHOICES), draw(_CHOICES)) for i, u in enumerate(uuids)]
    labels = facts.of({"zone": "a"}, {"zone": "b", "gpus": "8"}, {})
    extended = facts.of({"x.dev/nic": 4}, {"x.dev/nic": 1}, {})
    if not facts.one_in(3):
        pods = facts.of(110, 3, 1)
        return make_node(name, devices, labels=labels, free_pods=pods, free_extended=extended)
    return make_node(
        name,
        devices,
        labels=labels,
        taints=facts.of((), (), (Taint("team", "NoSchedule", "x"),), (Taint("t", "PreferNoSchedule"),)),
        unschedulable=facts.one_in(4),
        free_cpu_milli=facts.of(64_000, 8_000, 1_000, 0),
        free_memory_bytes=facts.of(64 * GIB, GIB, 0),
        free_pods=facts.of(110, 3, 1, 0),
        free_extended=extended,
        stale_reason=facts.of(None, None, None, "telemetry is 94 s old, limit 90 s"),
    )


@cache  # hypothesis validates each strategy once
@st.composite
def fleets(draw: st.DrawFn, most_nodes: int = 4, most_devices: int = 5) -> tuple[NodeState, ...]:
    """Up to `most_nodes` nodes in any order of names."""
    names = draw(st.permutations(NAMES[: draw(st.integers(1, most_nodes))]))
    return tuple(draw(nodes(name, most_devices)) for name in names)


def _needs(shape: Choices, demands: Choices) -> DeviceNeeds:
    count = shape.of(1, 1, 2, 3)
    share = shape.of(None, None, None, Share(10_000, 10), Share(40_000, 50), Share(0, 50), Share(10_000, 0))
    if not shape.one_in(3):
        return DeviceNeeds(count, share)
    return DeviceNeeds(
        count,
        share,
        min_free_memory_mib=demands.of(None, None, 1, 40_000, 79_999, 80_000),
        max_utilization_percent=demands.of(None, None, None, 50, 99, 0),
        max_temperature_celsius=demands.of(None, None, None, 60, 90, 30),
        models=demands.of(_NONE, _NONE, _NONE, frozenset({"H100"}), frozenset({"A100", "none"})),
        min_compute_capability=demands.of(None, None, None, "8.0", "9.0", "10.0"),
        include_uuids=demands.of(_NONE, _NONE, _NONE, frozenset({"GPU-n0-0", "GPU-n0-1", "GPU-n1-1", "GPU-x"})),
        exclude_uuids=demands.of(_NONE, frozenset({"GPU-n0-2", "GPU-n1-0", "GPU-y"})),
    )


def _pod(demands: Choices) -> PodNeeds:
    if not demands.one_in(3):
        return PodNeeds(demands.of(0, 1_000))
    return PodNeeds(
        cpu_milli=demands.of(0, 1_000, 4_000),
        memory_bytes=demands.of(0, GIB),
        extended=demands.of({}, {"x.dev/nic": 1}, {}, {"y.dev/none": 1}),
        node_selector=demands.of({}, {}, {"zone": "a"}),
        affinity_terms=demands.of(
            None, None, None, None, (NodeSelectorTerm((MatchExpression("gpus", "Gt", ("4",)),)),), ()
        ),
        tolerations=demands.of((), (Toleration(operator="Exists"),)),
    )


@cache  # hypothesis validates each strategy once
@st.composite
def requests(
    draw: st.DrawFn,
    *,
    strategies: Sequence[Strategy] = tuple(Strategy),
    topologies: Sequence[Topology] = tuple(Topology),
) -> Request:
    """A request of up to four replicas."""
    shape, limits = draw(_CHOICES), draw(_CHOICES)
    replicas = draw(st.integers(1, 4))
    backoff = range(replicas) if limits.one_in(3) else ()
    aside = {r: frozenset(limits.of((), (), ("n0",), ("n1", "n2"))) for r in backoff}
    return Request(
        "ml/train",
        tuple(range(replicas)),
        _needs(shape, draw(_CHOICES)),
        _pod(draw(_CHOICES)),
        shape.of(*strategies),
        shape.of(*topologies),
        shape.of(ScoreWeights(), ScoreWeights(1, 0, 0, 0), ScoreWeights(1, 1, 1, 1)),
        shape.one_in(2),
        {replica: names for replica, names in aside.items() if names},
        limits.of({}, {}, {"n0": 2}, {"n1": 1, "gone": 1}),
    )
