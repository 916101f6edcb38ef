"""Places one request: filter, score and select, replica by replica."""

from collections.abc import Iterable
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from gpufleet_api.workload_placement import Strategy, Topology
from gpufleet_operator.placement.explain.diagnosis import diagnose
from gpufleet_operator.placement.fleet.fleet import Fleet
from gpufleet_operator.placement.model import Decision, Pick, Request
from gpufleet_operator.placement.packing.mix import PRIOR, Mix
from gpufleet_operator.placement.packing.strategy import PackSelector
from gpufleet_operator.placement.search.capacity import replica_capacity
from gpufleet_operator.placement.search.gang import arrange, sibling_node
from gpufleet_operator.placement.search.node_scores import INFEASIBLE
from gpufleet_operator.placement.search.query import Query, check_request, query_key
from gpufleet_operator.placement.search.strategies import ScoreSelector, Selector
from gpufleet_operator.placement.search.tentative import TentativePlacement


class _QueryState:
    """Skips a query that no node can serve until resources are released."""

    infeasible_since_release = -1
    """`Fleet.releases` when the query was found infeasible; -1: never."""


def place(fleet: Fleet, request: Request, mix: Mix = PRIOR, *, explain: bool = True) -> Decision:
    """Chooses a node and devices for every replica of the request. The fleet is not changed.

    Each replica gets the best remaining node. If a replica stays unplaced, the replicas are rearranged so that all are
    placed, if possible. A gang is placed completely or not at all. Ties go to the first node name, then the
    lowest device index.

    Args:
        fleet: The fleet to place on.
        request: The replicas to place.
        mix: The requests that are expected; only strategy Pack uses it.
        explain: False skips the diagnosis, for callers that place thousands of requests and do not read it.

    Raises:
        InvalidRequestError: The request contradicts itself.
    """
    check_request(request)
    query = fleet.memo.get(Query, query_key(request), lambda: Query.of(request))
    tentative, state = TentativePlacement(fleet, request), fleet.memo.get(_QueryState, query, _QueryState)
    picks: tuple[Pick, ...] = ()
    unplaced = request.replicas
    if state.infeasible_since_release != fleet.releases:
        selector = _selector(fleet, request, query, mix)
        picks, unplaced = _fill(tentative, selector, _allowed(fleet, request, query), state)
    if not unplaced:
        return Decision(picks)
    rearranged = arrange(fleet, request, query)
    if rearranged is not None:
        return Decision(rearranged)
    explained = TentativePlacement(fleet, request) if request.gang else tentative
    diagnosis = diagnose(explained, query, unplaced[0], len(picks)) if explain else None
    return Decision((), request.replicas, diagnosis) if request.gang else Decision(picks, unplaced, diagnosis)


def _selector(fleet: Fleet, request: Request, query: Query, mix: Mix) -> Selector:
    match request.strategy:
        case Strategy.BEST | Strategy.SPREAD:
            return ScoreSelector(fleet, request, query)
        case Strategy.PACK:
            return PackSelector(fleet, query, mix)
        case _:
            assert_never(request.strategy)


def _fill(
    tentative: TentativePlacement, selector: Selector, allowed: NDArray[np.intp] | None, state: _QueryState
) -> tuple[tuple[Pick, ...], tuple[int, ...]]:
    """Assigns each replica the best remaining node; returns picks and unplaced replicas."""
    request = tentative.request
    picks: list[Pick] = []
    unplaced: list[int] = []
    for replica in request.replicas:
        keys, aside = selector.keys(), _rows(tentative.fleet, request.excluded_nodes.get(replica, ()))
        row = _best(keys, allowed, aside)
        if row is None and allowed is None and not aside and not tentative.taken:
            state.infeasible_since_release = tentative.fleet.releases
        cells = None if row is None else selector.cells(tentative.window(row))
        if row is None or cells is None:
            unplaced.append(replica)
            continue
        picks.append(tentative.pick(replica, row, cells))
        if len(request.replicas) > 1:
            selector.after_pick(tentative.take(row, cells))
            if request.topology is Topology.SAME_NODE:
                allowed = np.array([row])
    return tuple(picks), tuple(unplaced)


def _best(keys: NDArray[np.int64], allowed: NDArray[np.intp] | None, aside: list[int]) -> int | None:
    if allowed is not None:
        only = np.full(len(keys), INFEASIBLE, np.int64)
        only[allowed] = keys[allowed]
        keys = only
    if aside:
        keys = keys.copy() if allowed is None else keys
        keys[aside] = INFEASIBLE
    row = int(keys.argmax())
    return None if keys[row] == INFEASIBLE else row


def _rows(fleet: Fleet, names: Iterable[str]) -> list[int]:
    return [row for row in map(fleet.row, names) if row is not None]


def _allowed(fleet: Fleet, request: Request, query: Query) -> NDArray[np.intp] | None:
    """Returns allowed rows, None: all. SameNode: where replicas are placed, else where the most replicas fit."""
    if request.topology is not Topology.SAME_NODE:
        return None
    if request.placed_replicas:
        return np.array(_rows(fleet, [sibling_node(request.placed_replicas)]), np.intp)
    room = replica_capacity(fleet, query, len(request.replicas))
    for aside in request.excluded_nodes.values():
        room[_rows(fleet, aside)] = 0
    return np.flatnonzero(room == room.max())
