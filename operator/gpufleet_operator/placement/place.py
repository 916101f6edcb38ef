"""Places one request: filter, score and select, replica by replica."""

from collections.abc import Iterable, Sequence
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from gpufleet_api.workload_placement import Strategy, Topology
from gpufleet_operator.placement.explain.diagnosis import diagnose
from gpufleet_operator.placement.fleet.fleet import Fleet
from gpufleet_operator.placement.model import Decision, Diagnosis, Pick, Request
from gpufleet_operator.placement.packing.mix import PRIOR, Mix
from gpufleet_operator.placement.packing.strategy import PackSelector
from gpufleet_operator.placement.search.capacity import replica_capacity
from gpufleet_operator.placement.search.domain_rules import RuleState
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
    state = fleet.memo.get(_QueryState, query, _QueryState)
    attempt = _Attempt(fleet, request, query)
    if state.infeasible_since_release != fleet.releases:
        attempt.fill(_selector(fleet, request, query, mix), request.replicas)
        if attempt.infeasible:
            state.infeasible_since_release = fleet.releases
    if not attempt.unplaced:
        return Decision(tuple(attempt.picks))
    rearranged = _rearranged(attempt, mix)
    if rearranged is not None:
        return Decision(rearranged)
    diagnosis = attempt.diagnosis() if explain else None
    if request.gang:
        return Decision((), request.replicas, diagnosis)
    return Decision(tuple(attempt.picks), tuple(attempt.unplaced), diagnosis)


def _rearranged(attempt: "_Attempt", mix: Mix) -> tuple[Pick, ...] | None:
    """Returns picks for every replica in another arrangement, or None if none was found."""
    fleet, request, query = attempt.fleet, attempt.request, attempt.query
    if not request.rules:
        return arrange(fleet, request, query)
    if not any(request.excluded_nodes.values()):
        return None
    # The replicas that may use the fewest nodes choose first.
    second = _Attempt(fleet, request, query)
    order = sorted(request.replicas, key=lambda replica: -len(request.excluded_nodes.get(replica, ())))
    second.fill(_selector(fleet, request, query, mix), order)
    by_replica = {pick.replica: pick for pick in second.picks}
    return None if second.unplaced else tuple(by_replica[replica] for replica in request.replicas)


def _selector(fleet: Fleet, request: Request, query: Query, mix: Mix) -> Selector:
    match request.strategy:
        case Strategy.BEST | Strategy.SPREAD:
            return ScoreSelector(fleet, request, query)
        case Strategy.PACK:
            return PackSelector(fleet, query, mix)
        case _:
            assert_never(request.strategy)


class _Attempt:
    """Assigns each replica the best remaining node, in one order."""

    def __init__(self, fleet: Fleet, request: Request, query: Query) -> None:
        self.fleet, self.request, self.query = fleet, request, query
        self.picks: list[Pick] = []
        self.unplaced: list[int] = list(request.replicas)
        self.infeasible = False
        """No node can serve the first replica, regardless of rules and excluded nodes."""
        self._tentative = TentativePlacement(fleet, request)
        self._rules = RuleState(fleet, request.rules) if request.rules else None

    def fill(self, selector: Selector, order: Sequence[int]) -> None:
        """Places the replicas in this order. Call it once."""
        fleet, request, tentative, rules = self.fleet, self.request, self._tentative, self._rules
        allowed = _allowed(fleet, request, self.query, rules)
        self.unplaced = []
        for replica in order:
            keys, excluded = selector.keys(), _rows(fleet, request.excluded_nodes.get(replica, ()))
            if rules is not None:
                excluded += rules.rejected()
            row = _best(keys, allowed, excluded)
            if row is None and allowed is None and not excluded and not tentative.taken:
                self.infeasible = True
            cells = None if row is None else selector.cells(tentative.window(row))
            if row is None or cells is None:
                self.unplaced.append(replica)
                continue
            self.picks.append(tentative.pick(replica, row, cells))
            if len(request.replicas) > 1:
                selector.after_pick(tentative.take(row, cells))
                if rules is not None:
                    rules.add(row)
                if request.topology is Topology.SAME_NODE:
                    allowed = np.array([row])

    def diagnosis(self) -> Diagnosis:
        """Returns why the first unplaced replica is not placed. Of a gang, the picks count for the rules only."""
        explained = TentativePlacement(self.fleet, self.request) if self.request.gang else self._tentative
        return diagnose(explained, self.query, self.unplaced[0], len(self.picks), self._rules)


def _best(keys: NDArray[np.int64], allowed: NDArray[np.intp] | None, excluded: list[int]) -> int | None:
    if allowed is not None:
        only = np.full(len(keys), INFEASIBLE, np.int64)
        only[allowed] = keys[allowed]
        keys = only
    if excluded:
        keys = keys.copy() if allowed is None else keys
        keys[excluded] = INFEASIBLE
    row = int(keys.argmax())
    return None if keys[row] == INFEASIBLE else row


def _rows(fleet: Fleet, names: Iterable[str]) -> list[int]:
    return [row for row in map(fleet.row, names) if row is not None]


def _allowed(fleet: Fleet, request: Request, query: Query, rules: RuleState | None) -> NDArray[np.intp] | None:
    """Returns allowed rows, None: all. SameNode: where replicas are placed, else where the most replicas fit."""
    if request.topology is Topology.SAME_NODE and request.placed_replicas:
        return np.array(_rows(fleet, [sibling_node(request.placed_replicas)]), np.intp)
    if request.topology is not Topology.SAME_NODE and (rules is None or not rules.may_start_anywhere):
        return None
    room = replica_capacity(fleet, query, len(request.replicas))
    for excluded in request.excluded_nodes.values():
        room[_rows(fleet, excluded)] = 0
    if rules is not None:
        room = rules.usable(room)
    if request.topology is not Topology.SAME_NODE:
        return np.flatnonzero(room)
    return np.flatnonzero(room == room.max())
