"""For one question: what every node's best set is worth, kept up to date row by row."""

import numpy as np
from numpy.typing import NDArray

from gpufleet_operator.placement.fleet.columns import Mask, RowWindow
from gpufleet_operator.placement.fleet.fleet import Fleet
from gpufleet_operator.placement.search import device_sets, filters
from gpufleet_operator.placement.search.query import Query
from gpufleet_operator.placement.search.score import scores

INFEASIBLE = np.iinfo(np.int64).min
"""The key of a node that can't serve."""

RANK_BITS = 20
SPREAD_PENALTY = np.int64(1) << 46
"""Above every key: what Spread takes off for each replica that a node has already."""


class NodeScores:
    """`keys` orders the nodes: higher is better, ties fall to the first name, NEVER can't serve."""

    def __init__(self, query: Query) -> None:
        self.query = query
        self.passing: Mask = np.zeros((0, 0), np.bool_)
        """(rows, width): devices that may be taken, on nodes that may be used and have room."""
        self.refusals: NDArray[np.uint8] = np.zeros(0, np.uint8)
        """Code of the label or taint test that a node fails."""
        self.shape = device_sets.SetRequirement(query.devices.count, query.topology, ())
        self._able: Mask | None = None
        self._keys: NDArray[np.int64] | None = None
        self._identities = self._version = self._epoch = -1

    def update(self, fleet: Fleet) -> None:
        """Look again at the rows that changed since the last time; what was never asked for isn't kept up."""
        if self._version == fleet.version:
            return
        columns = fleet.ranked()
        if len(self.shape.wirings) != len(fleet.wirings):
            self.shape = device_sets.SetRequirement(self.shape.count, self.shape.topology, tuple(fleet.wirings))
        if self._epoch != fleet.epoch:
            self._keys, self._epoch = None, fleet.epoch
        window = changed_rows(fleet, self._version, len(self.passing))
        self._version = fleet.version
        if window is None:
            self.refusals = filters.node_constraint_codes(fleet, np.arange(columns.rows), self.query)
            self._identities = fleet.identities
            self.passing = self.passes(fleet, RowWindow.of(columns, slice(None)))
            self._able = self._keys = None
            return
        if self._identities != fleet.identities:
            self.refusals[window.at] = filters.node_constraint_codes(
                fleet, np.arange(columns.rows)[window.at], self.query
            )
            self._identities = fleet.identities
        passes = self.passing[window.at] = self.passes(fleet, window)
        if self._able is not None:
            self._able[window.at] = self.is_able(window, passes)
        if self._keys is not None:
            self._keys[window.at] = self.evaluate(window, passes)

    def able(self, fleet: Fleet) -> Mask:
        """(rows,): nodes that have a set of devices that may be taken; after `update`."""
        if self._able is None:
            self._able = self.is_able(RowWindow.of(fleet.columns, slice(None)), self.passing)
        return self._able

    def keys(self, fleet: Fleet) -> NDArray[np.int64]:
        """(rows,): the order of the nodes by the score of their best set; after `update`."""
        if self._keys is None:
            self._keys = self.evaluate(RowWindow.of(fleet.columns, slice(None)), self.passing)
        return self._keys

    def passes(self, fleet: Fleet, window: RowWindow) -> Mask:
        """As `passing`, of rows that may carry debits that the fleet doesn't know."""
        passes = filters.usable(fleet, window, self.query)
        passes &= self._open(window)[:, None]
        return passes

    def now(self, fleet: Fleet, window: RowWindow) -> Mask:
        """As `passes`, from memory where the rows are those of the fleet."""
        return self.passing[window.at] if window.columns is fleet.columns else self.passes(fleet, window)

    def is_able(self, window: RowWindow, passes: Mask) -> Mask:
        """As `able`, of rows of which `passes` may be taken."""
        if self.query.devices.count == 0:
            return self._open(window)
        return device_sets.has_set(window, passes, self.shape)

    def evaluate(self, window: RowWindow, passes: Mask) -> NDArray[np.int64]:
        """The keys of some rows, of which `passes` may be taken."""
        value = device_sets.best_set_scores(window, passes, scores(window, self.query.weights), self.shape)
        keys: NDArray[np.int64] = (value << RANK_BITS) - window.columns.rank[window.at]
        keys[value < 0] = INFEASIBLE
        if self.query.devices.count == 0:
            keys[~self._open(window)] = INFEASIBLE
        return keys

    def choose(self, fleet: Fleet, window: RowWindow) -> tuple[int, ...] | None:
        """The columns to take of a single row."""
        return self.choose_of(window, self.now(fleet, window))

    def choose_of(self, window: RowWindow, passes: Mask) -> tuple[int, ...] | None:
        """The columns to take of a single row, of which `passes` may be taken."""
        return device_sets.choose_set(window, passes, scores(window, self.query.weights), self.shape)

    def _open(self, window: RowWindow) -> Mask:
        """(rows,): nodes that may be used and have room for the pod."""
        node, single = filters.fits_node(window, self.query), window.single
        if single is not None:
            usable = window.columns.fresh[single] and not self.refusals[window.origin_row]
            return node if usable else np.zeros(1, np.bool_)
        node &= window.of_rows(window.columns.fresh)
        node &= self.refusals[window.origin] == 0
        return node


def changed_rows(fleet: Fleet, version: int, rows: int) -> RowWindow | None:
    """The rows that changed since a version; None: so many, or unknown, that all are looked at."""
    columns, changed = fleet.columns, fleet.changes.since(version)
    if changed is None or rows != columns.rows or len(changed) * 4 > rows:
        return None
    return (
        RowWindow.row(columns, changed[0]) if len(changed) == 1 else RowWindow.of(columns, np.array(changed, np.intp))
    )


def node_scores(fleet: Fleet, query: Query) -> NodeScores:
    """The fleet's ranking for this question, up to date."""
    found = fleet.cache.get(NodeScores, query, lambda: NodeScores(query))
    found.update(fleet)
    return found
