"""How many replicas of one request each node could take at once."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gpufleet_api.workload import Topology
from gpufleet_operator.placement.columns import Columns, Mask
from gpufleet_operator.placement.fleet import Fleet
from gpufleet_operator.placement.model import Share
from gpufleet_operator.placement.query import Query
from gpufleet_operator.placement.ranking import ranking
from gpufleet_operator.placement.wiring import Wiring, connected_sets

_SEARCH = 200_000
"""Steps of the search for disjoint sets of one node, after which the best so far stands."""


def capacity(fleet: Fleet, query: Query, most: int) -> NDArray[np.int64]:
    """(rows,): replicas that fit side by side on each node, at most `most`.

    Exact, but for nodes with so many devices that not every NVLink set of them can be tried.
    """
    columns = fleet.ranked()
    found = ranking(fleet, query)
    passes = found.passing
    count, share = query.devices.count, query.devices.share
    room = np.where(passes.any(axis=1) | (count == 0), _room(columns, query, most), 0)
    if count == 0:
        return np.where(columns.fresh & (found.refusals == 0), np.clip(room, 0, most), 0)
    if query.topology is Topology.NVLINK and count > 1:
        return np.minimum(room, _linked(columns, passes, count, room, found.shape.wirings))
    if query.topology is Topology.NUMA and count > 1:
        zones = np.unique(columns.numa[passes & (columns.numa >= 0)])
        slots = _slots(columns, passes, share, most)
        each = [_rounds(np.where(columns.numa == zone, slots, 0), count, most) for zone in zones]
        total: NDArray[np.int64] = np.sum(each, axis=0, dtype=np.int64) if each else np.zeros(len(room), np.int64)
        return np.minimum(room, total)
    return np.minimum(room, _rounds(_slots(columns, passes, share, most), count, most))


def disjoint_sets(wiring: Wiring, passing: int, count: int, most: int) -> tuple[int, ...]:
    """Up to `most` connected sets of `count` columns that share no column, as bits; as many as there can be."""
    sets = connected_sets(wiring, count)
    if sets is None:
        return ()
    order = np.argsort(-sets.links, kind="stable")
    usable = [int(bits) for bits in sets.bits[order] if int(bits) & ~passing == 0]
    best: tuple[int, ...] = ()
    steps = 0

    def search(chosen: tuple[int, ...], free: int, candidates: list[int]) -> None:
        nonlocal best, steps
        steps += 1
        if len(chosen) > len(best):
            best = chosen
        goal = min(most, len(chosen) + free.bit_count() // count)
        for position, bits in enumerate(candidates):
            if goal <= len(best) or steps > _SEARCH:
                return
            rest = [b for b in candidates[position + 1 :] if not b & bits]
            search((*chosen, bits), free & ~bits, rest)

    search((), passing, usable)
    return best


def _room(columns: Columns, query: Query, most: int) -> NDArray[np.int64]:
    """Replicas that the node has CPU, memory, pods and other resources for."""
    pod = query.pod
    room = np.minimum(columns.pods, most)
    for free, amount in ((columns.cpu, pod.cpu_milli), (columns.memory, pod.memory_bytes)):
        if amount > 0:
            room = np.minimum(room, free // amount)
    for name, amount in pod.extended.items():
        if amount > 0:
            room = np.minimum(room, columns.extended[name] // amount if name in columns.extended else 0)
    return np.maximum(room, 0)


def _slots(columns: Columns, passes: Mask, share: Share | None, most: int) -> NDArray[np.int64]:
    """(rows, width): replicas that each device could serve."""
    slots = np.where(passes, most if share is not None else 1, 0).astype(np.int64)
    if share is not None and share.memory_mib:
        slots = np.minimum(slots, (columns.total_mib - columns.used_mib) // share.memory_mib)
    if share is not None and share.compute_percent:
        slots = np.minimum(slots, (100 - columns.compute) // share.compute_percent)
    return np.where(passes, slots, 0)


def _rounds(slots: NDArray[np.int64], count: int, most: int) -> NDArray[np.int64]:
    """The most replicas of `count` different devices each: r of them fit when sum(min(slots, r)) >= r * count."""
    if count == 1:
        total: NDArray[np.int64] = np.minimum(slots.sum(axis=1), most)
        return total
    rounds = np.zeros(len(slots), np.int64)
    for replicas in range(1, most + 1):
        fits: Mask = np.minimum(slots, replicas).sum(axis=1) >= replicas * count
        if not fits.any():
            break
        rounds[fits] = replicas
    return rounds


def _linked(
    columns: Columns, passes: Mask, count: int, room: NDArray[np.int64], wirings: Sequence[Wiring]
) -> NDArray[np.int64]:
    found = np.zeros(len(passes), np.int64)
    known: dict[tuple[int, int, int], int] = {}
    for row in np.flatnonzero((passes.sum(axis=1) >= count) & (room > 0)):
        passing = sum(1 << int(c) for c in np.flatnonzero(passes[row]))
        key = (int(columns.wiring[row]), passing, int(room[row]))
        if key not in known:
            wiring = wirings[key[0]]
            known[key] = len(disjoint_sets(wiring, passing, count, key[2]))
            if not known[key] and connected_sets(wiring, count) is None:
                known[key] = 1  # too many sets to search: one is known to fit, more may
        found[row] = known[key]
    return found
