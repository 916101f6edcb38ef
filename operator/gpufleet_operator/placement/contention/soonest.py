"""Finds the devices that a waiting request will get soonest, by the known ends of their holders."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite

import numpy as np
from numpy.typing import NDArray

from gpufleet_api.workload_placement import Topology
from gpufleet_operator.placement.contention.prospects import Prospects, Times, prospects
from gpufleet_operator.placement.contention.removal import without
from gpufleet_operator.placement.fleet.columns import count_true
from gpufleet_operator.placement.fleet.fleet import Fleet
from gpufleet_operator.placement.model import Pick, Request
from gpufleet_operator.placement.packing.mix import PRIOR, Mix
from gpufleet_operator.placement.place import place
from gpufleet_operator.placement.search.gang import sibling_node
from gpufleet_operator.placement.search.query import Query, check_request, query_key

_MAX_NODES = 256
"""Maximum number of nodes that are tried beyond those that have enough devices."""


@dataclass(frozen=True, slots=True)
class SoonestDevices:
    """The devices that a request will get soonest, and when."""

    devices: Mapping[str, tuple[str, ...]]
    """By node."""
    in_use: int
    """Number of them that pods hold."""
    free_at: float | None
    """When the last of these pods ends at the latest, in seconds since the epoch; None: not known."""


def soonest(fleet: Fleet, request: Request, mix: Mix = PRIOR) -> SoonestDevices | None:
    """Returns devices for all replicas of a request that does not fit now; None if other pods never leave room for it.

    Nodes on which the fewest devices have no known end come first, then those that are free soonest, then those with
    the fewest devices in use. So a node with earmarked devices stays the first one. The fleet is not changed.

    Raises:
        InvalidRequestError: The request contradicts itself.
    """
    check_request(request)
    query = fleet.memo.get(Query, query_key(request), lambda: Query.of(request))
    found = prospects(fleet, query)
    rows, enough = _candidates(fleet, request, found)
    while enough <= len(rows):
        states = (fleet.state(row) for row in rows[:enough].tolist())
        emptied = Fleet.of((without(state, state.holders) for state in states), fleet.earmarks)
        decision = place(emptied, request, mix, explain=False)
        if not decision.unplaced:
            return _chosen(fleet, request, found, decision.picks)
        if enough == len(rows):
            break
        enough = min(2 * enough, len(rows))
    return None


def _candidates(fleet: Fleet, request: Request, found: Prospects) -> tuple[NDArray[np.intp], int]:
    """Returns rows, soonest first, and how many of them have enough devices for all replicas."""
    count, replicas = max(1, request.devices.count), len(request.replicas)
    same_node = request.topology is Topology.SAME_NODE
    needed = count * replicas if same_node else count
    sets = (count_true(found.possible) // needed).astype(np.int64)
    rows = np.flatnonzero(sets)
    if same_node and request.placed_replicas:
        home = fleet.row(sibling_node(request.placed_replicas))
        rows = rows[rows == (-1 if home is None else home)]
    ends = np.sort(np.where(found.possible[rows], found.ends[rows], inf), axis=1)[:, :needed]
    unknown = np.isinf(ends).sum(axis=1)
    latest = np.max(np.where(np.isinf(ends), 0.0, ends), axis=1, initial=0.0)
    in_use = (ends > 0).sum(axis=1)
    order = np.lexsort((fleet.ranked().rank[rows], in_use, latest, unknown))
    rows = rows[order]
    enough = int(np.searchsorted(np.cumsum(sets[rows]), 1 if same_node else replicas)) + 1
    return rows[: enough + _MAX_NODES], enough


def _chosen(fleet: Fleet, request: Request, found: Prospects, picks: Sequence[Pick]) -> SoonestDevices:
    """Returns the devices, on each node the soonest free ones, unless their NVLinks decide."""
    connected = request.topology in (Topology.NVLINK, Topology.NUMA) or request.devices.share is not None
    picked: dict[str, list[str]] = {}
    for pick in picks:
        picked.setdefault(pick.node, []).extend(uuid for uuid in pick.devices if uuid not in picked.get(pick.node, ()))
    devices: dict[str, tuple[str, ...]] = {}
    ends: list[float] = []
    for node, uuids in picked.items():
        row = fleet.row(node)
        if row is None:
            continue
        cells = [fleet.where[uuid][1] for uuid in uuids] if connected else _earliest(found, row, len(uuids))
        devices[node] = tuple(fleet.uuid(row, cell) for cell in cells)
        ends += _of(found.ends, row, cells)
    latest = max(ends, default=0.0)
    return SoonestDevices(devices, sum(end > 0 for end in ends), latest if isfinite(latest) else None)


def _earliest(found: Prospects, row: int, count: int) -> list[int]:
    possible: list[int] = np.flatnonzero(found.possible[row]).tolist()
    return sorted(sorted(possible, key=lambda cell: (found.ends[row, cell], cell))[:count])


def _of(ends: Times, row: int, cells: Sequence[int]) -> list[float]:
    return [float(ends[row, cell]) for cell in cells]
