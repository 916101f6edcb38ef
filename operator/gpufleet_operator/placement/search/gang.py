"""Finds an arrangement of all replicas where taking the best option replica by replica got stuck.

Replicas of one request are alike, so one at a time is enough unless (1) some may not use some nodes, (2) sets must
be joined by NVLink, where a careless set splits the rest, or (3) each needs several shared devices. Those cases are
a matching of replicas to nodes, each node with as many places as it has sets.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from gpufleet_api.workload import Strategy, Topology
from gpufleet_operator.placement.fleet.columns import RowWindow
from gpufleet_operator.placement.fleet.fleet import Fleet
from gpufleet_operator.placement.model import Pick, Request
from gpufleet_operator.placement.search.capacity import packed_sets, replica_capacity, replicas_per_device
from gpufleet_operator.placement.search.node_scores import NodeScores, node_scores
from gpufleet_operator.placement.search.query import Query
from gpufleet_operator.placement.search.tentative import TentativePlacement


def arrange(fleet: Fleet, request: Request, query: Query) -> tuple[Pick, ...] | None:
    """Picks for every replica, in order of replicas, or None when no arrangement was found.

    Where `replica_capacity` isn't exact, an arrangement may be missed.
    """
    several = request.devices.count > 1
    hard = any(request.excluded_nodes.values()) or (
        several and (query.topology is Topology.NVLINK or request.devices.share is not None)
    )
    if not hard:
        return None
    room = replica_capacity(fleet, query, len(request.replicas))
    if query.topology is Topology.SAME_NODE:
        room[room < len(request.replicas)] = 0
        for aside in request.excluded_nodes.values():
            room[[row for row in map(fleet.row, aside) if row is not None]] = 0
        if request.placed_replicas:
            home = fleet.row(sibling_node(request.placed_replicas))
            room[np.arange(len(room)) != (-1 if home is None else home)] = 0
    found = node_scores(fleet, query)
    best_first = [int(row) for row in np.argsort(-found.keys(fleet), kind="stable") if room[row] > 0]
    if sum(int(room[row]) for row in best_first) < len(request.replicas):
        return None
    if query.topology is Topology.SAME_NODE:
        best_first = best_first[:1]
    rows = _match(fleet, request, best_first, {row: int(room[row]) for row in best_first})
    return None if rows is None else _picks(fleet, request, found, rows)


def _match(
    fleet: Fleet, request: Request, best_first: Sequence[int], places: Mapping[int, int]
) -> dict[int, int] | None:
    """Replica -> row, by augmenting paths: a replica may push another on to a row where that one can go."""
    aside = {
        replica: {row for row in map(fleet.row, request.excluded_nodes.get(replica, ())) if row is not None}
        for replica in request.replicas
    }
    on: dict[int, list[int]] = {row: [] for row in best_first}
    at: dict[int, int] = {}

    def settle(replica: int, tried: set[int]) -> bool:
        order = best_first
        if request.strategy is Strategy.SPREAD:
            order = sorted(best_first, key=lambda row: len(on[row]))
        open_rows = [row for row in order if row not in aside[replica] and row not in tried]
        for row in open_rows:
            if len(on[row]) < places[row]:
                on[row].append(replica)
                at[replica] = row
                return True
        for row in open_rows:
            tried.add(row)
            for other in list(on[row]):
                if aside[other] and settle(other, tried):
                    on[row].remove(other)
                    on[row].append(replica)
                    at[replica] = row
                    return True
        return False

    # A replica without limits fits wherever there is a place, so those with limits choose first.
    for replica in sorted(request.replicas, key=lambda r: -len(aside[r])):
        if not settle(replica, set()):
            return None
    return at


def sibling_node(placed_replicas: Mapping[str, int]) -> str:
    """The node where the replicas that are placed already keep the others, with topology SameNode."""
    return max(placed_replicas, key=lambda name: (placed_replicas[name], name))


def _picks(fleet: Fleet, request: Request, found: NodeScores, rows: Mapping[int, int]) -> tuple[Pick, ...] | None:
    draft = TentativePlacement(fleet, request)
    wanted: dict[int, int] = {}
    for row in rows.values():
        wanted[row] = wanted.get(row, 0) + 1
    linked = found.query.topology is Topology.NVLINK and request.devices.count > 1
    joined = {row: list(_linked_sets(draft.window(row), found, fleet, most)) for row, most in wanted.items()}
    picks = []
    for replica in request.replicas:
        row = rows[replica]
        left = joined[row]
        cells = (left.pop(0) if left else None) if linked else _emptiest(fleet, draft.window(row), found, wanted[row])
        if cells is None:
            return None
        picks.append(draft.pick(replica, row, cells))
        draft.take(row, cells)
    return tuple(picks)


def _linked_sets(window: RowWindow, found: NodeScores, fleet: Fleet, most: int) -> Sequence[tuple[int, ...]]:
    if found.query.topology is not Topology.NVLINK:
        return ()
    wiring = found.shape.wirings[int(window.columns.wiring[window.at][0])]
    each = replicas_per_device(window, found.passes(fleet, window), found.query, most)[0, : len(wiring.peers)].tolist()
    sets = packed_sets(wiring, each, found.query.devices.count, most)
    return [tuple(c for c in range(window.columns.width) if bits >> c & 1) for bits in sets]


def _emptiest(fleet: Fleet, window: RowWindow, found: NodeScores, most: int) -> tuple[int, ...] | None:
    """The devices with most room left: with shared devices this leaves the most sets for the rest of the gang."""
    query, count = found.query, found.query.devices.count
    if query.devices.share is None or count <= 1:
        return found.choose(fleet, window)
    each = replicas_per_device(window, found.passes(fleet, window), query, most)[0]
    zones = [each]
    if query.topology is Topology.NUMA:
        numa = window.columns.numa[window.at][0]
        zones = [np.where(numa == zone, each, 0) for zone in np.unique(numa[numa >= 0])]
    sets = [np.argsort(-zone, kind="stable")[:count] for zone in zones if (zone > 0).sum() >= count]
    best = max(sets, key=lambda cells: int(each[cells].sum()), default=None)
    return None if best is None else tuple(sorted(best.tolist()))
