"""Builders of the engine's input with everything usual filled in, so that a test states what matters to it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypedDict, Unpack

from gpufleet_api.names import MemoryModel
from gpufleet_api.workload_placement import Strategy, Topology
from gpufleet_operator.placement.model import (
    DeviceNeeds,
    DeviceState,
    DomainRule,
    HolderPod,
    NodeState,
    PodNeeds,
    Request,
    ScoreWeights,
    Share,
    Taint,
)
from gpufleet_operator.placement.node_rules import NodeSelectorTerm, Toleration

GIB = 2**30


class DeviceFields(TypedDict, total=False):
    model: str
    memory_total_mib: int | None
    memory_used_mib: int | None
    memory_reserved_mib: int | None
    memory_model: MemoryModel | None
    utilization_percent: int | None
    temperature_celsius: int | None
    power_milliwatts: int | None
    power_limit_milliwatts: int | None
    compute_capability: str | None
    numa_node: int | None
    nvlink_peers: tuple[str, ...]
    healthy: bool
    cordoned: str | None
    process_count: int | None
    held: bool
    sharers: int
    promised_memory_mib: int
    promised_compute_percent: int
    reclaimed_memory_mib: int
    in_flight_memory_mib: int
    in_flight_compute_percent: int
    free_slots: int | None
    sample_age_seconds: float | None
    stale_reason: str | None


class NodeFields(TypedDict, total=False):
    labels: Mapping[str, str]
    taints: tuple[Taint, ...]
    unschedulable: bool
    free_cpu_milli: int
    free_memory_bytes: int
    free_pods: int
    free_extended: Mapping[str, int]
    stale_reason: str | None
    holders: tuple[HolderPod, ...]


class DeviceNeedsFields(TypedDict, total=False):
    share: Share | None
    min_free_memory_mib: int | None
    max_utilization_percent: int | None
    max_temperature_celsius: int | None
    models: frozenset[str]
    min_compute_capability: str | None
    include_uuids: frozenset[str]
    exclude_uuids: frozenset[str]


class PodNeedsFields(TypedDict, total=False):
    cpu_milli: int
    memory_bytes: int
    extended: Mapping[str, int]
    node_selector: Mapping[str, str]
    affinity_terms: tuple[NodeSelectorTerm, ...] | None
    tolerations: tuple[Toleration, ...]


class RequestFields(DeviceNeedsFields, PodNeedsFields, total=False):
    strategy: Strategy
    topology: Topology
    weights: ScoreWeights
    gang: bool
    excluded_nodes: Mapping[int, frozenset[str]]
    placed_replicas: Mapping[str, int]
    rules: tuple[DomainRule, ...]
    priority: int
    may_preempt: bool


def make_device(uuid: str = "GPU-0", index: int = 0, **fields: Unpack[DeviceFields]) -> DeviceState:
    """Builds a healthy idle device of 80,000 MiB that reports every measurement."""
    return replace(_IDLE_DEVICE, uuid=uuid, index=index, **fields)


_IDLE_DEVICE = DeviceState(
    "GPU-0",
    0,
    "H100",
    memory_total_mib=80_000,
    memory_used_mib=0,
    utilization_percent=0,
    temperature_celsius=40,
    power_milliwatts=70_000,
    power_limit_milliwatts=700_000,
    compute_capability="9.0",
    numa_node=0,
    process_count=0,
    sample_age_seconds=1.0,
)


def make_node(
    name: str = "node-1", devices: int | Sequence[DeviceState] = 8, **fields: Unpack[NodeFields]
) -> NodeState:
    """Builds a node with free resources; a number of devices gives that many, `GPU-<node>-<index>`."""
    if isinstance(devices, int):
        devices = [make_device(f"GPU-{name}-{i}", i) for i in range(devices)]
    usual = NodeState(name, tuple(devices), free_cpu_milli=64_000, free_memory_bytes=512 * GIB, free_pods=110)
    return replace(usual, **fields)


def make_request(replicas: int = 1, count: int = 1, **fields: Unpack[RequestFields]) -> Request:
    """Builds a request; fields of DeviceNeeds and PodNeeds are given directly."""
    needs = {name: value for name, value in fields.items() if name in DeviceNeeds.__dataclass_fields__}
    pod = {name: value for name, value in fields.items() if name in PodNeeds.__dataclass_fields__}
    rest = {name: value for name, value in fields.items() if name not in needs | pod}
    devices = DeviceNeeds(count=count, **needs)  # type: ignore[arg-type]  # RequestFields has their types
    return Request("ml/train", tuple(range(replicas)), devices, PodNeeds(**pod), **rest)  # type: ignore[arg-type]  # as above


def make_linked_node(
    name: str, links: Sequence[tuple[int, int]], devices: int, **fields: Unpack[DeviceFields]
) -> NodeState:
    """Builds a node whose devices have these NVLink links, given as pairs of device indices."""
    peers: dict[int, set[int]] = {i: set() for i in range(devices)}
    for a, b in links:
        peers[a].add(b)
        peers[b].add(a)
    made = [make_device(f"GPU-{name}-{i}", i, **fields) for i in range(devices)]
    return make_node(
        name, [replace(d, nvlink_peers=tuple(f"GPU-{name}-{p}" for p in sorted(peers[d.index]))) for d in made]
    )
