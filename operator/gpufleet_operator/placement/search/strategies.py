"""Strategies Best and Spread: the order in which nodes are tried.

A selector has one key per row; the highest is picked, ties go to the first node name.
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gpufleet_api.workload_placement import Strategy
from gpufleet_operator.placement.fleet.columns import RowWindow
from gpufleet_operator.placement.fleet.fleet import Fleet
from gpufleet_operator.placement.model import Request
from gpufleet_operator.placement.search.node_scores import INFEASIBLE, SPREAD_PENALTY, NodeScores, node_scores
from gpufleet_operator.placement.search.query import Query


class Selector(Protocol):
    """Chooses among nodes, and among the devices of a node."""

    def keys(self) -> NDArray[np.int64]:
        """Returns (rows,): INFEASIBLE for infeasible nodes. Do not modify it."""

    def cells(self, window: RowWindow) -> tuple[int, ...] | None:
        """Returns the columns to use of one row."""

    def after_pick(self, window: RowWindow) -> None:
        """Accounts for a replica placed on this row, given its current state."""


class ScoreSelector:
    """Best: the set with the highest score. Spread: the same among the nodes with the fewest replicas."""

    def __init__(self, fleet: Fleet, request: Request, query: Query) -> None:
        self._fleet = fleet
        self._scores: NodeScores = node_scores(fleet, query)
        self._keys = self._scores.keys(fleet)
        self._own = False
        self._siblings: dict[int, int] | None = None
        if request.strategy is Strategy.SPREAD:
            placed = ((fleet.row(name), count) for name, count in request.placed_replicas.items())
            self._siblings = {row: count for row, count in placed if row is not None}
            for row in self._siblings:
                self._set(row, int(self._keys[row]))

    def keys(self) -> NDArray[np.int64]:
        return self._keys

    def cells(self, window: RowWindow) -> tuple[int, ...] | None:
        return self._scores.choose(self._fleet, window)

    def after_pick(self, window: RowWindow) -> None:
        row = window.origin_row
        if self._siblings is not None:
            self._siblings[row] = self._siblings.get(row, 0) + 1
        self._set(row, int(self._scores.evaluate(window, self._scores.passes(self._fleet, window))[0]))

    def _set(self, row: int, key: int) -> None:
        if not self._own:
            self._keys, self._own = self._keys.copy(), True
        if key != INFEASIBLE and self._siblings is not None:
            key -= self._siblings.get(row, 0) * int(SPREAD_PENALTY)
        self._keys[row] = key
