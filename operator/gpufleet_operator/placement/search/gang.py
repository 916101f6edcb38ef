"""Arranges all replicas if placing them one by one left some unplaced.

Replicas of a request are equal, so one at a time is enough unless (1) some nodes are excluded for some replicas, (2)
sets must be connected by NVLink, where a poor choice splits the rest, or (3) each replica needs several shared devices.
Those cases are a bipartite matching of replicas to nodes, where the capacity of a node is its number of sets.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from gpufleet_api.workload_placement import Strategy, Topology
from gpufleet_operator.placement.fleet.columns import RowWindow
from gpufleet_operator.placement.fleet.fleet import Fleet
from gpufleet_operator.placement.model import Pick, Request
from gpufleet_operator.placement.search.capacity import packed_sets, replica_capacity, replicas_per_device
from gpufleet_operator.placement.search.node_scores import NodeScores, node_scores
from gpufleet_operator.placement.search.query import Query
from gpufleet_operator.placement.search.tentative import TentativePlacement


def arrange(fleet: Fleet, request: Request, query: Query) -> tuple[Pick, ...] | None:
    """Returns picks for every replica, or None if no arrangement was found.

    May miss an arrangement if `replica_capacity` is not exact.
    """
    several = request.devices.count > 1
    hard = any(request.excluded_nodes.values()) or (
        several and (query.topology is Topology.NVLINK or request.devices.share is not None)
    )
    if not hard:
        return None
    capacities = replica_capacity(fleet, query, len(request.replicas))
    if query.topology is Topology.SAME_NODE:
        capacities[capacities < len(request.replicas)] = 0
        for aside in request.excluded_nodes.values():
            capacities[[row for row in map(fleet.row, aside) if row is not None]] = 0
        if request.placed_replicas:
            home = fleet.row(sibling_node(request.placed_replicas))
            capacities[np.arange(len(capacities)) != (-1 if home is None else home)] = 0
    found = node_scores(fleet, query)
    best_first = [int(row) for row in np.argsort(-found.keys(fleet), kind="stable") if capacities[row] > 0]
    if sum(int(capacities[row]) for row in best_first) < len(request.replicas):
        return None
    if query.topology is Topology.SAME_NODE:
        best_first = best_first[:1]
    rows = _match(fleet, request, best_first, {row: int(capacities[row]) for row in best_first})
    return None if rows is None else _picks(fleet, request, found, rows)


def _match(
    fleet: Fleet, request: Request, best_first: Sequence[int], capacities: Mapping[int, int]
) -> dict[int, int] | None:
    """Returns replica -> row by augmenting paths: a replica may move another one to a different feasible row."""
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
            if len(on[row]) < capacities[row]:
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

    # A replica without excluded nodes fits wherever there is capacity, so the others choose first.
    for replica in sorted(request.replicas, key=lambda r: -len(aside[r])):
        if not settle(replica, set()):
            return None
    return at


def sibling_node(placed_replicas: Mapping[str, int]) -> str:
    """Returns the node with the most placed replicas, which SameNode requires for the others."""
    return max(placed_replicas, key=lambda name: (placed_replicas[name], name))


def _picks(fleet: Fleet, request: Request, found: NodeScores, rows: Mapping[int, int]) -> tuple[Pick, ...] | None:
    tentative = TentativePlacement(fleet, request)
    wanted: dict[int, int] = {}
    for row in rows.values():
        wanted[row] = wanted.get(row, 0) + 1
    linked = found.query.topology is Topology.NVLINK and request.devices.count > 1
    joined = {row: list(_linked_sets(tentative.window(row), found, fleet, most)) for row, most in wanted.items()}
    picks = []
    for replica in request.replicas:
        row = rows[replica]
        left = joined[row]
        cells = (
            (left.pop(0) if left else None) if linked else _emptiest(fleet, tentative.window(row), found, wanted[row])
        )
        if cells is None:
            return None
        picks.append(tentative.pick(replica, row, cells))
        tentative.take(row, cells)
    return tuple(picks)


def _linked_sets(window: RowWindow, found: NodeScores, fleet: Fleet, most: int) -> Sequence[tuple[int, ...]]:
    if found.query.topology is not Topology.NVLINK:
        return ()
    link_graph = found.shape.link_graphs[int(window.columns.link_graph[window.at][0])]
    each = replicas_per_device(window, found.passes(fleet, window), found.query, most)[
        0, : len(link_graph.peers)
    ].tolist()
    sets = packed_sets(link_graph, each, found.query.devices.count, most)
    return [tuple(c for c in range(window.columns.width) if bits >> c & 1) for bits in sets]


def _emptiest(fleet: Fleet, window: RowWindow, found: NodeScores, most: int) -> tuple[int, ...] | None:
    """Returns the emptiest devices: for shared devices this leaves the most sets for the rest of the gang."""
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
