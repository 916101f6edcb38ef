"""The engine's rules once more, device by device in plain Python, for the array engine to be compared with."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from gpufleet_api.workload_placement import Topology
from gpufleet_operator.placement.model import (
    DeviceNeeds,
    DeviceState,
    FilterReason,
    NodeState,
    PodNeeds,
    Request,
    ScoreWeights,
)
from gpufleet_operator.placement.search import constraints


@dataclass(frozen=True)
class Option:
    """The best set of devices of one node."""

    node: str
    devices: tuple[str, ...]
    score: int


def score(d: DeviceState, w: ScoreWeights) -> int:
    """Returns the weighted score of a device in millionths."""
    total, used = _usable_mib(d), _used_mib(d)
    memory = 500_000 if not total or used is None else max(0, (total - used) * 1_000_000 // total)
    busy = _used_percent(d)
    utilization = 500_000 if busy is None else max(0, 100 - busy) * 10_000
    t = d.temperature_celsius
    temperature = 500_000 if t is None else min(1_000_000, max(0, (90 - t) * 1_000_000 // 60))
    draw, limit = d.power_milliwatts, d.power_limit_milliwatts
    power = 500_000 if draw is None or not limit else max(0, (limit - draw) * 1_000_000 // limit)
    weighted = memory * w.memory + utilization * w.utilization + temperature * w.temperature + power * w.power
    return weighted // (w.memory + w.utilization + w.temperature + w.power)


def device_rejection(d: DeviceState, needs: DeviceNeeds) -> FilterReason | None:
    """Returns the first test of its own that the device fails."""
    shared = bool(d.sharers or d.promised_memory_mib or d.promised_compute_percent or d.in_flight_memory_mib)
    shared = shared or bool(d.in_flight_compute_percent)
    least = needs.min_free_memory_mib
    if needs.share is not None and needs.share.memory_mib:
        least = max(least or 0, needs.share.memory_mib)
    percent = needs.share.compute_percent if needs.share else 0
    used, busy, total = _used_mib(d), _used_percent(d), _usable_mib(d)
    free = None if used is None or total is None else total - used
    wanted, has = needs.min_compute_capability, d.compute_capability
    tests = (
        (d.cordoned is not None, FilterReason.CORDONED),
        (not d.healthy, FilterReason.UNHEALTHY),
        (d.sample_age_seconds is None, FilterReason.TELEMETRY_STALE),
        (d.held or (shared and needs.share is None), FilterReason.IN_USE),
        (needs.share is not None and d.free_slots == 0, FilterReason.IN_USE),
        (_has_process(d) and not d.held and not shared, FilterReason.FOREIGN_PROCESS),
        (bool(needs.include_uuids) and d.uuid not in needs.include_uuids, FilterReason.NOT_INCLUDED),
        (d.uuid in needs.exclude_uuids, FilterReason.EXCLUDED),
        (bool(needs.models) and d.model not in needs.models, FilterReason.MODEL),
        (wanted is not None and has is None, FilterReason.MEASUREMENT_MISSING),
        (wanted is not None and has is not None and _version(has) < _version(wanted), FilterReason.COMPUTE_CAPABILITY),
        (least is not None and free is None, FilterReason.MEASUREMENT_MISSING),
        (least is not None and (free or 0) < least, FilterReason.INSUFFICIENT_FREE_MEMORY),
        (percent and busy is None, FilterReason.MEASUREMENT_MISSING),
        (percent and (busy or 0) + percent > 100, FilterReason.COMPUTE),
        *_limit(needs.max_utilization_percent, busy, FilterReason.UTILIZATION),
        *_limit(needs.max_temperature_celsius, d.temperature_celsius, FilterReason.TEMPERATURE),
    )
    return next((reason for failed, reason in tests if failed), None)


def node_rejection(n: NodeState, r: Request, replica: int) -> FilterReason | None:
    """Returns the first test that the node fails regardless of its devices."""
    if n.name in r.excluded_nodes.get(replica, frozenset()):
        return FilterReason.NODE_BACKOFF
    return constraints.rejection(n, r.pod) or (FilterReason.TELEMETRY_STALE if n.stale_reason else None)


def resource_rejection(n: NodeState, pod: PodNeeds) -> FilterReason | None:
    """Returns what the node has too little of for one more pod."""
    if n.free_cpu_milli < pod.cpu_milli:
        return FilterReason.INSUFFICIENT_CPU
    if n.free_memory_bytes < pod.memory_bytes:
        return FilterReason.INSUFFICIENT_MEMORY
    if n.free_pods < 1:
        return FilterReason.TOO_MANY_PODS
    short = any(n.free_extended.get(name, 0) < amount for name, amount in pod.extended.items())
    return FilterReason.INSUFFICIENT_EXTENDED_RESOURCE if short else None


def satisfies(chosen: Sequence[DeviceState], topology: Topology) -> bool:
    """True when the topology allows this set."""
    if len(chosen) < 2 or topology in (Topology.NONE, Topology.SAME_NODE):
        return True
    if topology is Topology.NUMA:
        return chosen[0].numa_node is not None and len({d.numa_node for d in chosen}) == 1
    reached, rest = [chosen[0]], list(chosen[1:])
    for here in reached:
        near = [d for d in rest if _linked(here, d)]
        reached.extend(near)
        rest = [d for d in rest if not _linked(here, d)]
    return not rest


def option(n: NodeState, r: Request, replica: int) -> Option | None:
    """Returns the set that this node gives: the most links, then the highest score, then the lowest indices."""
    if node_rejection(n, r, replica) or resource_rejection(n, r.pod):
        return None
    passing = sorted((d for d in n.devices if not device_rejection(d, r.devices)), key=lambda d: d.index)
    scores = {d.uuid: score(d, r.weights) for d in passing}
    best: tuple[tuple[int, int], tuple[DeviceState, ...]] | None = None
    for chosen in combinations(passing, r.devices.count):
        if not satisfies(chosen, r.topology):
            continue
        links = sum(_linked(a, b) for a, b in combinations(chosen, 2)) if r.topology is Topology.NVLINK else 0
        worth = (links, sum(scores[d.uuid] for d in chosen))
        if best is None or worth > best[0]:
            best = (worth, chosen)
    return Option(n.name, tuple(d.uuid for d in best[1]), best[0][1]) if best else None


def options(state: Mapping[str, NodeState], r: Request, replica: int) -> list[Option]:
    """Returns the option of each node that has one, by name."""
    return [found for name in sorted(state) if (found := option(state[name], r, replica))]


def after_pick(n: NodeState, uuids: Collection[str], r: Request) -> NodeState:
    """Returns the node after a pick, independently of the engine's own accounting."""
    share = r.devices.share
    devices = []
    for d in n.devices:
        if d.uuid not in uuids:
            devices.append(d)
        elif share is None:
            devices.append(replace(d, held=True))
        else:
            devices.append(
                replace(
                    d,
                    sharers=d.sharers + 1,
                    free_slots=None if d.free_slots is None else d.free_slots - 1,
                    in_flight_memory_mib=d.in_flight_memory_mib + share.memory_mib,
                    in_flight_compute_percent=d.in_flight_compute_percent + share.compute_percent,
                )
            )
    return replace(
        n,
        devices=tuple(devices),
        free_cpu_milli=n.free_cpu_milli - r.pod.cpu_milli,
        free_memory_bytes=n.free_memory_bytes - r.pod.memory_bytes,
        free_pods=n.free_pods - 1,
        free_extended={k: v - r.pod.extended.get(k, 0) for k, v in n.free_extended.items()},
    )


def _has_process(d: DeviceState) -> bool:
    """A process is on the device, or may be: uncounted, and more memory is used than on an idle one, or it is busy."""
    if d.process_count is not None:
        return d.process_count > 0
    if d.memory_model is not None:
        return d.utilization_percent != 0
    return (513 if d.memory_used_mib is None else d.memory_used_mib) > 512


def _usable_mib(d: DeviceState) -> int | None:
    """What the driver does not reserve."""
    total = d.memory_total_mib
    return None if total is None else max(0, total - (d.memory_reserved_mib or 0))


def _used_mib(d: DeviceState) -> int | None:
    """Promised, without what is reclaimed, or observed, whichever is more, plus what is in flight."""
    used = d.memory_used_mib
    if used is None:
        return None
    left_behind = d.memory_model == "NUMA" and d.process_count == 0
    return max(0 if left_behind else used, d.promised_memory_mib - d.reclaimed_memory_mib) + d.in_flight_memory_mib


def _used_percent(d: DeviceState) -> int | None:
    busy = d.utilization_percent
    return None if busy is None else max(busy, d.promised_compute_percent) + d.in_flight_compute_percent


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def _limit(limit: int | None, value: int | None, reason: FilterReason) -> tuple[tuple[bool, FilterReason], ...]:
    missing = (limit is not None and value is None, FilterReason.MEASUREMENT_MISSING)
    return (missing, (limit is not None and value is not None and value > limit, reason))


def _linked(a: DeviceState, b: DeviceState) -> bool:
    return b.uuid in a.nvlink_peers or a.uuid in b.nvlink_peers
