"""All or nothing: finds an arrangement of a whole gang where taking the best option replica by replica got stuck.

Replicas of one request are alike, so one at a time is enough unless (1) some may not use some nodes, (2) sets must
be joined by NVLink, where a careless set splits the rest, or (3) each needs several shared devices. Those cases are
a matching of replicas to nodes, each node with as many places as it has sets.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from gpufleet_api.workload import Strategy, Topology
from gpufleet_operator.placement.capacity import capacity, disjoint_sets
from gpufleet_operator.placement.columns import Window
from gpufleet_operator.placement.draft import Draft
from gpufleet_operator.placement.fleet import Fleet
from gpufleet_operator.placement.model import Pick, Request
from gpufleet_operator.placement.query import Query
from gpufleet_operator.placement.ranking import Ranking, ranking


def arrange(fleet: Fleet, request: Request, query: Query) -> tuple[Pick, ...] | None:
    """Picks for every replica, in order of replicas, or None when no arrangement was found.

    With shared devices joined by NVLink, and on nodes with too many NVLink sets to try, an arrangement may be missed.
    """
    several = request.devices.count > 1
    hard = any(request.set_aside.values()) or (
        several and (query.topology is Topology.NVLINK or request.devices.share is not None)
    )
    if not hard:
        return None
    room = capacity(fleet, query, len(request.replicas))
    if query.topology is Topology.SAME_NODE:
        room[room < len(request.replicas)] = 0
        only = [fleet.row(name) for name in request.siblings]
        if only:
            room[np.setdiff1d(np.arange(len(room)), [row for row in only if row is not None])] = 0
    found = ranking(fleet, query)
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
        replica: {row for row in map(fleet.row, request.set_aside.get(replica, ())) if row is not None}
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


def _picks(fleet: Fleet, request: Request, found: Ranking, rows: Mapping[int, int]) -> tuple[Pick, ...] | None:
    draft = Draft(fleet, request)
    wanted: dict[int, int] = {}
    for row in rows.values():
        wanted[row] = wanted.get(row, 0) + 1
    linked = found.query.topology is Topology.NVLINK and request.devices.count > 1
    joined = {row: list(_linked_sets(draft.window(row), found, fleet, most)) for row, most in wanted.items()}
    picks = []
    for replica in request.replicas:
        row = rows[replica]
        left = joined[row]
        cells = (left.pop(0) if left else None) if linked else _emptiest(fleet, draft.window(row), found)
        if cells is None:
            return None
        picks.append(draft.pick(replica, row, cells))
        draft.take(row, cells)
    return tuple(picks)


def _linked_sets(window: Window, found: Ranking, fleet: Fleet, most: int) -> Sequence[tuple[int, ...]]:
    if found.query.topology is not Topology.NVLINK:
        return ()
    passes = found.passes(fleet, window)[0]
    passing = sum(1 << int(c) for c in np.flatnonzero(passes))
    sets = disjoint_sets(
        found.shape.wirings[int(window.columns.wiring[window.at][0])], passing, found.query.devices.count, most
    )
    return [tuple(c for c in range(window.columns.width) if bits >> c & 1) for bits in sets]


def _emptiest(fleet: Fleet, window: Window, found: Ranking) -> tuple[int, ...] | None:
    """The devices with most room left: with shared devices this leaves the most sets for the rest of the gang."""
    share, count = found.query.devices.share, found.query.devices.count
    if share is None or count <= 1 or found.query.topology is Topology.NUMA:
        return found.choose(fleet, window)
    cells = np.flatnonzero(found.passes(fleet, window)[0])
    if len(cells) < count:
        return None
    columns, at = window.columns, window.at
    memory = (columns.total_mib[at] - columns.used_mib[at])[0, cells] // max(1, share.memory_mib)
    compute = (100 - columns.compute[at])[0, cells] // max(1, share.compute_percent)
    slots = memory if not share.compute_percent else compute if not share.memory_mib else np.minimum(memory, compute)
    return tuple(sorted(cells[np.argsort(-slots, kind="stable")[:count]].tolist()))
