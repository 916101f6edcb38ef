"""Computes how many replicas of a request fit on each node together."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from gpufleet_api.names import WHOLE_DEVICE_PERCENT
from gpufleet_api.workload_placement import Topology
from gpufleet_operator.placement.fleet.columns import Columns, Mask, RowWindow
from gpufleet_operator.placement.fleet.fleet import Fleet
from gpufleet_operator.placement.fleet.nvlink import LinkGraph, connected_sets
from gpufleet_operator.placement.search.node_scores import node_scores
from gpufleet_operator.placement.search.query import Query

_MAX_STATES = 20_000
"""Search states per node, after which the best result so far is used."""

_MAX_SEARCHED_SETS = 64
"""With more sets per node than this, sets are taken greedily, emptiest devices first, without a search."""

Counts = NDArray[np.int64]


def replica_capacity(fleet: Fleet, query: Query, most: int) -> Counts:
    """Returns (rows,): replicas that fit together on each node, at most `most`.

    Exact except for nodes with too many devices to try every NVLink set, and for more than 64 NVLink sets of shared
    devices on a node.
    """
    columns = fleet.ranked()
    found = node_scores(fleet, query)
    passes, count = found.passing, query.devices.count
    free_pods = np.where(passes.any(axis=1) | (count == 0), _pods_that_fit(columns, query, most), 0)
    if count == 0:
        return np.where(columns.fresh & (found.rejections == 0), np.clip(free_pods, 0, most), 0)
    each = replicas_per_device(RowWindow.of(columns, slice(None)), passes, query, most)
    if query.topology is Topology.NVLINK and count > 1:
        return np.minimum(free_pods, _linked(columns, each, count, free_pods, found.shape.link_graphs))
    if query.topology is Topology.NUMA and count > 1:
        zones = np.unique(columns.numa[passes & (columns.numa >= 0)])
        by_zone = [_disjoint_sets(np.where(columns.numa == zone, each, 0), count, most) for zone in zones]
        total: Counts = np.sum(by_zone, axis=0, dtype=np.int64) if by_zone else np.zeros(len(free_pods), np.int64)
        return np.minimum(free_pods, total)
    return np.minimum(free_pods, _disjoint_sets(each, count, most))


def replicas_per_device(window: RowWindow, passes: Mask, query: Query, most: int) -> Counts:
    """Returns (rows, width): replicas that fit on each device one after the other, at most `most`.

    Args:
        window: The rows.
        passes: (rows, width), the devices that pass now.
        query: The query. Each placed share reduces what the next one finds.
        most: Upper limit.
    """
    share, needs = query.devices.share, query.devices
    if share is None:
        return passes.astype(np.int64)
    columns, at = window.columns, window.at
    found = np.minimum(columns.share_slots[at].astype(np.int64), most)
    if share.memory_mib and query.min_free_mib is not None:
        free = columns.total_mib[at].astype(np.int64) - columns.used_mib[at]
        found = np.minimum(found, (free - query.min_free_mib) // share.memory_mib + 1)
    if share.compute_percent:
        limit = WHOLE_DEVICE_PERCENT - share.compute_percent
        if needs.max_utilization_percent is not None:
            limit = min(limit, needs.max_utilization_percent)
        found = np.minimum(found, (limit - columns.compute[at].astype(np.int64)) // share.compute_percent + 1)
    return np.where(passes, found, 0)


def packed_sets(link_graph: LinkGraph, slots_: Sequence[int], count: int, most: int) -> tuple[int, ...]:
    """Returns up to `most` connected sets of `count` columns as bits; column c is in at most `slots_[c]` of them.

    The number of sets is maximal: greedy, emptiest columns first, then by search if that is not enough.
    """
    sets = connected_sets(link_graph, count)
    if sets is None:
        return ()
    order = np.argsort(-sets.links, kind="stable")
    candidates = [(int(bits), _columns(int(bits))) for bits in sets.bits[order]]
    taken = _emptiest_first(candidates, list(slots_), most)
    if len(taken) >= _bound(slots_, count, most) or min(most, max(slots_, default=0)) > _MAX_SEARCHED_SETS:
        return taken
    return _searched(candidates, slots_, count, most, taken)


def _emptiest_first(candidates: Iterable[tuple[int, tuple[int, ...]]], left: list[int], most: int) -> tuple[int, ...]:
    found: list[int] = []
    open_ = list(candidates)
    while len(found) < most:
        open_ = [(bits, columns) for bits, columns in open_ if all(left[c] for c in columns)]
        if not open_:
            break
        bits, columns = max(open_, key=lambda s: sum(left[c] for c in s[1]))
        found.append(bits)
        for column in columns:
            left[column] -= 1
    return tuple(found)


def _searched(
    candidates: Sequence[tuple[int, tuple[int, ...]]],
    slots_: Sequence[int],
    count: int,
    most: int,
    best: tuple[int, ...],
) -> tuple[int, ...]:
    seen: set[tuple[int, ...]] = set()  # the rest determines how many were taken, so each state is visited once

    def search(chosen: tuple[int, ...], left: tuple[int, ...]) -> None:
        nonlocal best
        if left in seen or len(seen) >= _MAX_STATES:
            return
        seen.add(left)
        if len(chosen) > len(best):
            best = chosen
        goal = len(chosen) + _bound(left, count, most - len(chosen))
        for bits, columns in candidates:
            if goal <= len(best):
                return
            if all(left[c] for c in columns):
                search((*chosen, bits), tuple(n - (bits >> c & 1) for c, n in enumerate(left)))

    search((), tuple(slots_))
    return best


def _bound(left: Sequence[int], count: int, most: int) -> int:
    """Returns the maximum number of sets if all columns were connected, as `_disjoint_sets`."""
    sets = 0
    while sets < most and sum(min(n, sets + 1) for n in left) >= (sets + 1) * count:
        sets += 1
    return sets


def _columns(bits: int) -> tuple[int, ...]:
    return tuple(c for c in range(bits.bit_length()) if bits >> c & 1)


def _pods_that_fit(columns: Columns, query: Query, most: int) -> Counts:
    """Returns (rows,): replicas that fit by CPU, memory, pods and extended resources."""
    pod = query.pod
    free_pods = np.minimum(columns.pods, most)
    for free, amount in ((columns.cpu, pod.cpu_milli), (columns.memory, pod.memory_bytes)):
        if amount > 0:
            free_pods = np.minimum(free_pods, free // amount)
    for name, amount in pod.extended.items():
        if amount > 0:
            free_pods = np.minimum(free_pods, columns.extended[name] // amount if name in columns.extended else 0)
    return np.maximum(free_pods, 0)


def _disjoint_sets(each: Counts, count: int, most: int) -> Counts:
    """Returns the maximum replicas of `count` distinct devices each: r fit if sum(min(slots, r)) >= r * count."""
    if count == 1:
        total: Counts = np.minimum(each.sum(axis=1), most)
        return total
    rounds = np.zeros(len(each), np.int64)
    for replicas in range(1, most + 1):
        fits: Mask = np.minimum(each, replicas).sum(axis=1) >= replicas * count
        if not fits.any():
            break
        rounds[fits] = replicas
    return rounds


def _linked(columns: Columns, each: Counts, count: int, free_pods: Counts, link_graphs: Sequence[LinkGraph]) -> Counts:
    found = np.zeros(len(each), np.int64)
    known: dict[tuple[int, tuple[int, ...], int], int] = {}
    for row in np.flatnonzero(((each > 0).sum(axis=1) >= count) & (free_pods > 0)):
        key = (int(columns.link_graph[row]), tuple(each[row].tolist()), int(free_pods[row]))
        if key not in known:
            link_graph = link_graphs[key[0]]
            left = key[1][: len(link_graph.peers)]
            known[key] = len(packed_sets(link_graph, left, count, key[2]))
            if not known[key] and connected_sets(link_graph, count) is None:
                known[key] = 1  # too many sets to search: one is known to fit, maybe more
        found[row] = known[key]
    return found
