"""For one question: what every node's best set is worth, kept up to date row by row."""

import numpy as np
from numpy.typing import NDArray

from gpufleet_operator.placement import filters, sets
from gpufleet_operator.placement.columns import Mask, Rows, Window
from gpufleet_operator.placement.fleet import Fleet
from gpufleet_operator.placement.query import Query
from gpufleet_operator.placement.score import scores

NEVER = np.iinfo(np.int64).min
"""The key of a node that can't serve."""

_RANK_BITS = 20
SIBLING = np.int64(1) << 46
"""Above every key: what Spread takes off for each replica that a node has already."""

_KEPT = 1024
"""Questions whose rankings a fleet keeps."""


class Ranking:
    """`keys` orders the nodes: higher is better, ties fall to the first name, NEVER can't serve."""

    def __init__(self, query: Query) -> None:
        self.query = query
        self.keys: NDArray[np.int64] = np.zeros(0, np.int64)
        self.passing: Mask = np.zeros((0, 0), np.bool_)
        """(rows, width): devices that may be taken, on nodes that may be used and have room."""
        self.refusals: NDArray[np.uint8] = np.zeros(0, np.uint8)
        """Code of the label or taint test that a node fails."""
        self.shape = sets.Shape(query.devices.count, query.topology, ())
        self._identity: NDArray[np.int64] = np.zeros(0, np.int64)
        self._version = self._epoch = -1

    def update(self, fleet: Fleet) -> None:
        """Look again at the rows that changed since the last time."""
        if self._version == fleet.version:
            return
        columns = fleet.ranked()
        if len(self.shape.wirings) != len(fleet.wirings):
            self.shape = sets.Shape(self.shape.count, self.shape.topology, tuple(fleet.wirings))
        changed = fleet.changes.since(self._version) if self._epoch == fleet.epoch else None
        if changed is None or len(changed) * 4 > columns.rows:
            everything = Window.of(columns, slice(None))
            self.refusals = filters.constraint_codes(fleet, np.arange(columns.rows), self.query)
            self._identity = columns.identity.copy()
            self.passing = self.passes(fleet, everything)
            self.keys = self.evaluate(everything, self.passing)
        else:
            one = len(changed) == 1
            window = Window.row(columns, changed[0]) if one else Window.of(columns, np.array(changed, np.intp))
            self._refuse(fleet, window.at)
            passes = self.passing[window.at] = self.passes(fleet, window)
            self.keys[window.at] = self.evaluate(window, passes)
        self._version, self._epoch = fleet.version, fleet.epoch

    def passes(self, fleet: Fleet, window: Window) -> Mask:
        """As `passing`, of rows that may carry debits that the fleet doesn't know."""
        passes = filters.usable(fleet, window, self.query)
        passes &= self._open(window)[:, None]
        return passes

    def evaluate(self, window: Window, passes: Mask) -> NDArray[np.int64]:
        """The keys of some rows, of which `passes` may be taken."""
        value = sets.worth(window, passes, scores(window, self.query.weights), self.shape)
        keys: NDArray[np.int64] = (value << _RANK_BITS) - window.columns.rank[window.at]
        keys[value < 0] = NEVER
        if self.query.devices.count == 0:
            keys[~self._open(window)] = NEVER
        return keys

    def choose(self, fleet: Fleet, window: Window) -> tuple[int, ...] | None:
        """The columns to take of a single row."""
        known = window.columns is fleet.columns
        return self.choose_of(window, self.passing[window.at] if known else self.passes(fleet, window))

    def choose_of(self, window: Window, passes: Mask) -> tuple[int, ...] | None:
        """The columns to take of a single row, of which `passes` may be taken."""
        return sets.choose(window, passes, scores(window, self.query.weights), self.shape)

    def _open(self, window: Window) -> Mask:
        """(rows,): nodes that may be used and have room for the pod."""
        node = filters.has_room(window, self.query)
        node &= window.columns.fresh[window.at]
        node &= self.refusals[window.origin] == 0
        return node

    def _refuse(self, fleet: Fleet, at: Rows) -> None:
        identity = fleet.columns.identity
        moved = identity[at] != self._identity[at]
        if moved.any():
            rows = np.arange(len(identity))[at][moved]
            self.refusals[rows] = filters.constraint_codes(fleet, rows, self.query)
            self._identity[rows] = identity[rows]


def ranking(fleet: Fleet, query: Query) -> Ranking:
    """The fleet's ranking for this question, up to date."""
    key = ("ranking", query.key)
    found = fleet.cache.pop(key, None)
    if found is None:
        found = Ranking(query)
        while len(fleet.cache) >= _KEPT:
            fleet.cache.pop(next(iter(fleet.cache)))  # the one that was asked longest ago
    fleet.cache[key] = found
    found.update(fleet)
    if not isinstance(found, Ranking):
        raise TypeError(f"{key} is no ranking")
    return found
