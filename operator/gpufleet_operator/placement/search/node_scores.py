"""Scores of every node's best device set for one query, updated row by row."""

import numpy as np
from numpy.typing import NDArray

from gpufleet_operator.placement.fleet.columns import Mask, RowWindow
from gpufleet_operator.placement.fleet.fleet import Fleet
from gpufleet_operator.placement.search import device_sets, filters
from gpufleet_operator.placement.search.query import Query
from gpufleet_operator.placement.search.score import scores

INFEASIBLE = np.iinfo(np.int64).min
"""Key of a node that cannot be used."""

RANK_BITS = 20
"""Low bits of a key: the rank of the node's name, which breaks ties."""

SPREAD_PENALTY = np.int64(1) << 46
"""Larger than every key: subtracted by Spread per replica on the node."""


class NodeScores:
    """`keys` orders the nodes: higher is better, ties go to the first name, INFEASIBLE cannot be used."""

    def __init__(self, query: Query) -> None:
        self.query = query
        self.passing: Mask = np.zeros((0, 0), np.bool_)
        """(rows, width): devices that pass, on nodes that pass and have free resources."""
        self.rejections: NDArray[np.uint8] = np.zeros(0, np.uint8)
        """Code of the label or taint filter that a node fails."""
        self.shape = device_sets.SetRequirement(query.devices.count, query.topology, ())
        self._feasible: Mask | None = None
        self._keys: NDArray[np.int64] | None = None
        self._identities = self._version = self._name_epoch = -1

    def update(self, fleet: Fleet) -> None:
        """Updates the rows that changed since the last call; results never read are not updated."""
        if self._version == fleet.version:
            return
        columns = fleet.ranked()
        if len(self.shape.link_graphs) != len(fleet.link_graphs):
            self.shape = device_sets.SetRequirement(self.shape.count, self.shape.topology, tuple(fleet.link_graphs))
        if self._name_epoch != fleet.name_epoch:
            self._keys, self._name_epoch = None, fleet.name_epoch
        window = changed_rows(fleet, self._version, len(self.passing))
        self._version = fleet.version
        if window is None:
            self.rejections = filters.node_constraint_codes(fleet, np.arange(columns.rows), self.query)
            self._identities = fleet.identities
            self.passing = self.passes(fleet, RowWindow.of(columns, slice(None)))
            self._feasible = self._keys = None
            return
        if self._identities != fleet.identities:
            self.rejections[window.at] = filters.node_constraint_codes(
                fleet, np.arange(columns.rows)[window.at], self.query
            )
            self._identities = fleet.identities
        passes = self.passing[window.at] = self.passes(fleet, window)
        if self._feasible is not None:
            self._feasible[window.at] = self.is_feasible(window, passes)
        if self._keys is not None:
            self._keys[window.at] = self.evaluate(window, passes)

    def feasible(self, fleet: Fleet) -> Mask:
        """Returns (rows,): nodes with a set of passing devices. Call `update` first."""
        if self._feasible is None:
            self._feasible = self.is_feasible(RowWindow.of(fleet.columns, slice(None)), self.passing)
        return self._feasible

    def keys(self, fleet: Fleet) -> NDArray[np.int64]:
        """Returns (rows,): keys by the score of the best set. Call `update` first."""
        if self._keys is None:
            self._keys = self.evaluate(RowWindow.of(fleet.columns, slice(None)), self.passing)
        return self._keys

    def passes(self, fleet: Fleet, window: RowWindow) -> Mask:
        """As `passing`, for rows that may have debits unknown to the fleet."""
        passes = filters.usable(fleet, window, self.query)
        passes &= self._open(window)[:, None]
        return passes

    def current_passing(self, fleet: Fleet, window: RowWindow) -> Mask:
        """As `passes`, memoized if the rows are the fleet's."""
        return self.passing[window.at] if window.columns is fleet.columns else self.passes(fleet, window)

    def is_feasible(self, window: RowWindow, passes: Mask) -> Mask:
        """As `feasible`, for rows whose passing devices are given."""
        if self.query.devices.count == 0:
            return self._open(window)
        return device_sets.has_set(window, passes, self.shape)

    def evaluate(self, window: RowWindow, passes: Mask) -> NDArray[np.int64]:
        """Returns the keys of rows whose passing devices are given."""
        value = device_sets.best_set_scores(window, passes, scores(window, self.query.weights), self.shape)
        keys: NDArray[np.int64] = (value << RANK_BITS) - window.columns.rank[window.at]
        keys[value < 0] = INFEASIBLE
        if self.query.devices.count == 0:
            keys[~self._open(window)] = INFEASIBLE
        return keys

    def choose(self, fleet: Fleet, window: RowWindow) -> tuple[int, ...] | None:
        """Returns the columns to use of a single row."""
        return self.choose_among(window, self.current_passing(fleet, window))

    def choose_among(self, window: RowWindow, passes: Mask) -> tuple[int, ...] | None:
        """Returns the columns to use of a single row among the passing ones."""
        return device_sets.choose_set(window, passes, scores(window, self.query.weights), self.shape)

    def _open(self, window: RowWindow) -> Mask:
        """Returns (rows,): nodes that pass their filters and fit the pod."""
        node, single = filters.fits_node(window, self.query), window.single
        if single is not None:
            usable = window.columns.fresh[single] and not self.rejections[window.origin_row]
            return node if usable else np.zeros(1, np.bool_)
        node &= window.take_rows(window.columns.fresh)
        node &= self.rejections[window.origin] == 0
        return node


def changed_rows(fleet: Fleet, version: int, rows: int) -> RowWindow | None:
    """Returns the rows that changed since a version; None if all rows must be read."""
    columns, changed = fleet.columns, fleet.changes.since(version)
    if changed is None or rows != columns.rows or len(changed) * 4 > rows:
        return None
    return (
        RowWindow.row(columns, changed[0]) if len(changed) == 1 else RowWindow.of(columns, np.array(changed, np.intp))
    )


def node_scores(fleet: Fleet, query: Query) -> NodeScores:
    """Returns the fleet's up-to-date scores for this query."""
    found = fleet.memo.get(NodeScores, query, lambda: NodeScores(query))
    found.update(fleet)
    return found
