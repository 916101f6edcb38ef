"""Builders, generated fleets and requests, and an oracle: the engine's rules once more, device by device in plain
Python, for the array engine to be held against."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import strategies as st

from gpufleet_api.workload import Strategy, Topology
from gpufleet_operator.placement import Fleet
from gpufleet_operator.placement.model import (
    DeviceNeeds,
    DeviceState,
    MatchExpression,
    NodeSelectorTerm,
    NodeState,
    PodNeeds,
    Reason,
    Request,
    ScoreWeights,
    Share,
    Taint,
    Toleration,
)
from gpufleet_operator.placement.search import constraints

GIB = 2**30
WIRED = Topology.NVLINK


def device(uuid: str = "GPU-0", index: int = 0, **fields: Any) -> DeviceState:
    """A healthy idle device of 80,000 MiB that reports everything."""
    usual: dict[str, Any] = {
        "model": "H100",
        "memory_total_mib": 80_000,
        "memory_used_mib": 0,
        "utilization_percent": 0,
        "temperature_celsius": 40,
        "power_milliwatts": 70_000,
        "power_limit_milliwatts": 700_000,
        "compute_capability": "9.0",
        "numa_node": 0,
        "process_count": 0,
        "sample_age_seconds": 1.0,
    }
    return DeviceState(uuid=uuid, index=index, **{**usual, **fields})


def node(name: str = "node-1", devices: int | Sequence[DeviceState] = 8, **fields: Any) -> NodeState:
    """A node with room; a number of devices makes that many, `GPU-<node>-<index>`."""
    if isinstance(devices, int):
        devices = [device(f"GPU-{name}-{i}", i) for i in range(devices)]
    usual: dict[str, Any] = {"free_cpu_milli": 64_000, "free_memory_bytes": 512 * GIB, "free_pods": 110}
    return NodeState(name, tuple(devices), **{**usual, **fields})


def request(replicas: int = 1, count: int = 1, **fields: Any) -> Request:
    """A request; fields of DeviceNeeds and PodNeeds may be given directly."""
    needs = {k: fields.pop(k) for k in list(fields) if k in DeviceNeeds.__dataclass_fields__}
    pod = {k: fields.pop(k) for k in list(fields) if k in PodNeeds.__dataclass_fields__}
    return Request("ml/train", tuple(range(replicas)), DeviceNeeds(count=count, **needs), PodNeeds(**pod), **fields)


def wired(name: str, pairs: Sequence[tuple[int, int]], devices: int, **fields: Any) -> NodeState:
    """A node whose devices are joined by NVLink as the pairs say."""
    peers: dict[int, set[int]] = {i: set() for i in range(devices)}
    for a, b in pairs:
        peers[a].add(b)
        peers[b].add(a)
    made = [
        device(f"GPU-{name}-{i}", i, nvlink_peers=frozenset(f"GPU-{name}-{p}" for p in peers[i]), **fields)
        for i in range(devices)
    ]
    return node(name, made)


@pytest.fixture(scope="session")
def make() -> SimpleNamespace:
    """`make.node("a", 4)` and the like."""
    return SimpleNamespace(device=device, node=node, request=request, wired=wired, fleet=Fleet.of)


# Generated input: values near each other, so that limits are met, missed by one and tied often.
_MAYBE_PERCENT = st.none() | st.sampled_from([0, 10, 50, 51, 100])
_SHARE = st.builds(Share, st.sampled_from([0, 10_000, 40_000]), st.sampled_from([10, 50]))


@st.composite
def devices(draw: st.DrawFn, uuid: str, index: int, peers: frozenset[str]) -> DeviceState:
    total = draw(st.none() | st.sampled_from([40_000, 80_000]))
    used = None if total is None else draw(st.none() | st.sampled_from([0, 1, 512, 513, total // 2, total]))
    promised = draw(st.sampled_from([None, None, Share(10_000, 10), Share(30_000, 50)]))
    in_flight = draw(st.sampled_from([None, None, None, Share(10_000, 40)]))
    return device(
        uuid,
        index,
        model=draw(st.sampled_from(["H100", "A100"])),
        memory_total_mib=total,
        memory_used_mib=used,
        utilization_percent=draw(_MAYBE_PERCENT),
        temperature_celsius=draw(st.none() | st.sampled_from([20, 40, 60, 61, 95])),
        power_milliwatts=draw(st.none() | st.sampled_from([0, 350_000])),
        compute_capability=draw(st.none() | st.sampled_from(["8.0", "9.0", "10.0"])),
        numa_node=draw(st.none() | st.sampled_from([0, 1])),
        nvlink_peers=peers,
        healthy=draw(st.sampled_from([True, True, True, False])),
        process_count=draw(st.sampled_from([0, 0, 0, None, 2])),
        held=draw(st.sampled_from([False, False, True])),
        sharers=bool(promised) + bool(in_flight),
        free_slots=draw(st.sampled_from([None, None, 0, 1, 15])),
        promised_memory_mib=promised.memory_mib if promised else 0,
        promised_compute_percent=promised.compute_percent if promised else 0,
        in_flight_memory_mib=in_flight.memory_mib if in_flight else 0,
        in_flight_compute_percent=in_flight.compute_percent if in_flight else 0,
        sample_age_seconds=draw(st.sampled_from([1.0, 1.0, 1.0, None])),
    )


@st.composite
def nodes(draw: st.DrawFn, name: str = "n", most: int = 5) -> NodeState:
    size = draw(st.integers(0, most))
    uuids = [f"GPU-{name}-{i}" for i in range(size)]
    every = draw(st.booleans())
    made = []
    for index, uuid in enumerate(uuids):
        others = [u for u in uuids if u != uuid]
        peers = frozenset(others) if every else draw(st.frozensets(st.sampled_from(others))) if others else frozenset()
        made.append(draw(devices(uuid, index, peers)))
    return node(
        name,
        made,
        labels=draw(st.sampled_from([{}, {"zone": "a"}, {"zone": "b", "gpus": "8"}])),
        taints=draw(st.sampled_from([(), (), (Taint("team", "NoSchedule", "x"),), (Taint("t", "PreferNoSchedule"),)])),
        unschedulable=draw(st.sampled_from([False, False, False, True])),
        free_cpu_milli=draw(st.sampled_from([0, 1_000, 8_000, 64_000])),
        free_memory_bytes=draw(st.sampled_from([0, GIB, 64 * GIB])),
        free_pods=draw(st.sampled_from([0, 1, 3, 110])),
        free_extended=draw(st.sampled_from([{}, {"x.dev/nic": 1}, {"x.dev/nic": 4}])),
        stale_reason=draw(st.sampled_from([None, None, None, "telemetry is 94 s old, limit 90 s"])),
    )


@st.composite
def fleets(draw: st.DrawFn, most_nodes: int = 4, most_devices: int = 5) -> tuple[NodeState, ...]:
    names = draw(st.permutations([f"n{i}" for i in range(draw(st.integers(1, most_nodes)))]))
    return tuple(draw(nodes(name, most_devices)) for name in names)


@st.composite
def requests(draw: st.DrawFn, *, strategies: Sequence[Strategy] = tuple(Strategy)) -> Request:
    replicas = draw(st.integers(1, 4))
    needs = DeviceNeeds(
        count=draw(st.sampled_from([1, 1, 2, 3])),
        share=draw(st.none() | st.none() | _SHARE),
        min_free_memory_mib=draw(st.none() | st.sampled_from([1, 40_000, 79_999, 80_000])),
        max_utilization_percent=draw(st.none() | st.sampled_from([0, 50, 99])),
        max_temperature_celsius=draw(st.none() | st.sampled_from([30, 60, 90])),
        models=draw(st.sampled_from([frozenset(), frozenset(), frozenset({"H100"}), frozenset({"none"})])),
        min_compute_capability=draw(st.none() | st.sampled_from(["8.0", "9.0", "10.0"])),
        include_uuids=draw(st.sampled_from([frozenset(), frozenset(), frozenset({"GPU-n0-0", "GPU-n1-1", "GPU-x"})])),
        exclude_uuids=draw(st.sampled_from([frozenset(), frozenset(), frozenset({"GPU-n0-1", "GPU-y"})])),
    )
    pod = PodNeeds(
        cpu_milli=draw(st.sampled_from([0, 1_000, 4_000])),
        memory_bytes=draw(st.sampled_from([0, GIB])),
        extended=draw(st.sampled_from([{}, {}, {"x.dev/nic": 1}, {"y.dev/none": 1}])),
        node_selector=draw(st.sampled_from([{}, {}, {"zone": "a"}])),
        affinity_terms=draw(
            st.sampled_from([None, None, (NodeSelectorTerm((MatchExpression("gpus", "Gt", ("4",)),)),), ()])
        ),
        tolerations=draw(st.sampled_from([(), (), (Toleration(operator="Exists"),)])),
    )
    weights = draw(st.sampled_from([ScoreWeights(), ScoreWeights(1, 0, 0, 0), ScoreWeights(1, 1, 1, 1)]))
    names = [f"n{i}" for i in range(4)]
    aside = {r: draw(st.frozensets(st.sampled_from(names), max_size=2)) for r in range(replicas) if draw(st.booleans())}
    return Request(
        "ml/train",
        tuple(range(replicas)),
        needs,
        pod,
        draw(st.sampled_from(list(strategies))),
        draw(st.sampled_from(list(Topology))),
        weights,
        draw(st.booleans()),
        aside,
        draw(st.sampled_from([{}, {}, {"n0": 2}, {"n1": 1, "gone": 1}])),
    )


@pytest.fixture(scope="session")
def gen() -> SimpleNamespace:
    """Hypothesis strategies."""
    return SimpleNamespace(nodes=nodes, fleets=fleets, requests=requests)


@dataclass(frozen=True)
class Option:
    node: str
    devices: tuple[str, ...]
    score: int


class Oracle:
    """Slow and plain: every device, every set, one after the other."""

    def score(self, d: DeviceState, w: ScoreWeights) -> int:
        total, used = d.memory_total_mib, _in_use(d)[0]
        memory = 500_000 if not total or used is None else max(0, (total - used) * 1_000_000 // total)
        busy = _in_use(d)[1]
        utilization = 500_000 if busy is None else max(0, 100 - busy) * 10_000
        t = d.temperature_celsius
        temperature = 500_000 if t is None else min(1_000_000, max(0, (90 - t) * 1_000_000 // 60))
        draw, limit = d.power_milliwatts, d.power_limit_milliwatts
        power = 500_000 if draw is None or not limit else max(0, (limit - draw) * 1_000_000 // limit)
        weighted = memory * w.memory + utilization * w.utilization + temperature * w.temperature + power * w.power
        return weighted // (w.memory + w.utilization + w.temperature + w.power)

    def refuse_device(self, d: DeviceState, needs: DeviceNeeds) -> Reason | None:
        shared = bool(d.sharers or d.promised_memory_mib or d.promised_compute_percent or d.in_flight_memory_mib)
        shared = shared or bool(d.in_flight_compute_percent)
        least = needs.min_free_memory_mib
        if needs.share is not None and needs.share.memory_mib:
            least = max(least or 0, needs.share.memory_mib)
        percent = needs.share.compute_percent if needs.share else 0
        (used, busy), total = _in_use(d), d.memory_total_mib
        free = None if used is None or total is None else total - used
        wanted, has = needs.min_compute_capability, d.compute_capability
        tests = (
            (not d.healthy, Reason.UNHEALTHY),
            (d.sample_age_seconds is None, Reason.TELEMETRY_STALE),
            (d.held or (shared and needs.share is None), Reason.IN_USE),
            (needs.share is not None and d.free_slots == 0, Reason.IN_USE),
            (_busy(d) and not d.held and not shared, Reason.FOREIGN_PROCESS),
            (bool(needs.include_uuids) and d.uuid not in needs.include_uuids, Reason.NOT_INCLUDED),
            (d.uuid in needs.exclude_uuids, Reason.EXCLUDED),
            (bool(needs.models) and d.model not in needs.models, Reason.MODEL),
            (wanted is not None and has is None, Reason.MEASUREMENT_MISSING),
            (wanted is not None and has is not None and _version(has) < _version(wanted), Reason.COMPUTE_CAPABILITY),
            (least is not None and free is None, Reason.MEASUREMENT_MISSING),
            (least is not None and (free or 0) < least, Reason.FREE_MEMORY),
            (percent and busy is None, Reason.MEASUREMENT_MISSING),
            (percent and (busy or 0) + percent > 100, Reason.COMPUTE),
            *_limit(needs.max_utilization_percent, busy, Reason.UTILIZATION),
            *_limit(needs.max_temperature_celsius, d.temperature_celsius, Reason.TEMPERATURE),
        )
        return next((reason for failed, reason in tests if failed), None)

    def refuse_node(self, n: NodeState, r: Request, replica: int) -> Reason | None:
        if n.name in r.set_aside.get(replica, frozenset()):
            return Reason.NODE_SET_ASIDE
        return constraints.refusal(n, r.pod) or (Reason.TELEMETRY_STALE if n.stale_reason else None)

    def refuse_room(self, n: NodeState, pod: PodNeeds) -> Reason | None:
        if n.free_cpu_milli < pod.cpu_milli:
            return Reason.NODE_CPU
        if n.free_memory_bytes < pod.memory_bytes:
            return Reason.NODE_MEMORY
        if n.free_pods < 1:
            return Reason.NODE_PODS
        short = any(n.free_extended.get(name, 0) < amount for name, amount in pod.extended.items())
        return Reason.NODE_RESOURCE if short else None

    def joined(self, chosen: Sequence[DeviceState], topology: Topology) -> bool:
        """True when the topology allows this set."""
        return _joined(chosen, topology)

    def option(self, n: NodeState, r: Request, replica: int) -> Option | None:
        """The set that this node would give."""
        if self.refuse_node(n, r, replica) or self.refuse_room(n, r.pod):
            return None
        passing = sorted((d for d in n.devices if not self.refuse_device(d, r.devices)), key=lambda d: d.index)
        best: tuple[tuple[int, int], tuple[DeviceState, ...]] | None = None
        for chosen in combinations(passing, r.devices.count):
            links = _links(chosen) if r.topology is WIRED else 0
            if not _joined(chosen, r.topology):
                continue
            worth = (links, sum(self.score(d, r.weights) for d in chosen))
            if best is None or worth > best[0]:
                best = (worth, chosen)
        return Option(n.name, tuple(d.uuid for d in best[1]), best[0][1]) if best else None

    def options(self, state: Mapping[str, NodeState], r: Request, replica: int) -> list[Option]:
        return [o for name in sorted(state) if (o := self.option(state[name], r, replica))]


def _busy(d: DeviceState) -> bool:
    """Processes are on it, or nothing speaks against it: not counted, and more memory in use than an idle one has."""
    used = 513 if d.memory_used_mib is None else d.memory_used_mib
    return d.process_count > 0 if d.process_count is not None else used > 512


def _in_use(d: DeviceState) -> tuple[int | None, int | None]:
    """Memory and compute: promised or observed, whichever is more, and what is in flight on top."""
    used, busy = d.memory_used_mib, d.utilization_percent
    memory = None if used is None else max(used, d.promised_memory_mib) + d.in_flight_memory_mib
    return memory, None if busy is None else max(busy, d.promised_compute_percent) + d.in_flight_compute_percent


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def _limit(limit: int | None, value: int | None, reason: Reason) -> tuple[tuple[bool, Reason], ...]:
    missing = (limit is not None and value is None, Reason.MEASUREMENT_MISSING)
    return (missing, (limit is not None and value is not None and value > limit, reason))


def _links(chosen: Sequence[DeviceState]) -> int:
    return sum(b.uuid in a.nvlink_peers or a.uuid in b.nvlink_peers for a, b in combinations(chosen, 2))


def _joined(chosen: Sequence[DeviceState], topology: Topology) -> bool:
    if len(chosen) < 2 or topology in (Topology.NONE, Topology.SAME_NODE):
        return True
    if topology is Topology.NUMA:
        return chosen[0].numa_node is not None and len({d.numa_node for d in chosen}) == 1
    reached, rest = [chosen[0]], list(chosen[1:])
    for here in reached:
        near = [d for d in rest if d.uuid in here.nvlink_peers or here.uuid in d.nvlink_peers]
        reached.extend(near)
        rest = [d for d in rest if d not in near]
    return not rest


@pytest.fixture(scope="session")
def oracle() -> Oracle:
    return Oracle()


@pytest.fixture(scope="session")
def taken() -> Any:
    """Debits a pick on a node state, independently of the engine's own debits."""

    def debit(n: NodeState, uuids: Sequence[str], r: Request) -> NodeState:
        share = r.devices.share
        made = []
        for d in n.devices:
            if d.uuid not in uuids:
                made.append(d)
            elif share is None:
                made.append(replace(d, held=True))
            else:
                memory = d.in_flight_memory_mib + share.memory_mib
                compute = d.in_flight_compute_percent + share.compute_percent
                more: dict[str, Any] = {"in_flight_memory_mib": memory, "in_flight_compute_percent": compute}
                slots = None if d.free_slots is None else d.free_slots - 1
                made.append(replace(d, sharers=d.sharers + 1, free_slots=slots, **more))
        extended = {k: v - r.pod.extended.get(k, 0) for k, v in n.free_extended.items()}
        return replace(
            n,
            devices=tuple(made),
            free_cpu_milli=n.free_cpu_milli - r.pod.cpu_milli,
            free_memory_bytes=n.free_memory_bytes - r.pod.memory_bytes,
            free_pods=n.free_pods - 1,
            free_extended=extended,
        )

    return debit
