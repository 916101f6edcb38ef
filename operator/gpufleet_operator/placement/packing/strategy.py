"""Strategy Pack: selects the node and option with the lowest expected cost."""

import numpy as np
from numpy.typing import NDArray

from gpufleet_api.workload_placement import Topology
from gpufleet_operator.placement.fleet.columns import Columns, RowWindow
from gpufleet_operator.placement.fleet.encode import DEVICE_MILLI
from gpufleet_operator.placement.fleet.fleet import Fleet
from gpufleet_operator.placement.packing.fleet_state import PackingState, packing_state
from gpufleet_operator.placement.packing.mix import Mix
from gpufleet_operator.placement.packing.placement_cost import (
    INFEASIBLE_COST,
    INFEASIBLE_ROW,
    ON_IDLE,
    ON_SHARED,
    CostModel,
    PlacementCosts,
)
from gpufleet_operator.placement.search.node_scores import INFEASIBLE, RANK_BITS, NodeScores, node_scores
from gpufleet_operator.placement.search.query import Query


class MemoizedCosts:
    """The costs of every row for one query under one mix, updated row by row."""

    def __init__(self, base: PackingState, query: Query) -> None:
        self.cost_model = CostModel(base, query)
        self.all = PlacementCosts.nothing(0)
        self._base = base
        self._version = -1

    def update(self, fleet: Fleet, found: NodeScores) -> None:
        """Updates the rows that changed since the last call."""
        if self._version == fleet.version:
            return
        columns, base = fleet.columns, self._base
        changed = fleet.changes.since(self._version)
        if changed is None or self.all.values.shape[1] != columns.rows:
            self.all = PlacementCosts.nothing(columns.rows)
            every = found.feasible(fleet).nonzero()[0]
            if len(every):
                first, group = _alike(base.nodes.group[every], found.passing[every])
                self.all.values[:, every] = self._value(columns, every[first], found)[:, group]
        elif changed:
            at = np.array(changed, np.intp)
            rows = at[found.feasible(fleet).take(at)]
            if len(rows) < len(at):
                self.all.values[:, at] = INFEASIBLE_ROW
            if len(rows):
                self.all.values[:, rows] = self._value(columns, rows, found)
        self._version = fleet.version

    def _value(self, columns: Columns, rows: NDArray[np.intp], found: NodeScores) -> NDArray[np.int64]:
        return self.cost_model.value(columns, rows, self._base.nodes.take(rows), found.passing.take(rows, axis=0))


def _alike(nodes: NDArray[np.int64], passing: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Returns the first row of each group of equal rows, and the group of each row."""
    together = np.concatenate((nodes[:, None].view(np.uint8), np.packbits(passing, axis=1)), axis=1)
    whole = np.ascontiguousarray(together).view(np.dtype((np.void, together.shape[1])))[:, 0]
    _, first, group = np.unique(whole, return_index=True, return_inverse=True)
    return first, group


class PackSelector:
    """Cost = growth of fragmentation + price of the lost multi-GPU capacity; ties go to the first node name."""

    def __init__(self, fleet: Fleet, query: Query, mix: Mix) -> None:
        self._fleet = fleet
        self._scores: NodeScores = node_scores(fleet, query)
        self._base: PackingState = packing_state(fleet, mix)
        costs = fleet.memo.get(MemoizedCosts, (id(mix), query), lambda: MemoizedCosts(self._base, query))
        costs.update(fleet, self._scores)
        self._cost_model, self._costs = costs.cost_model, costs.all
        self._capacity, self._total = self._base.capacity, self._base.total
        self._own = False
        self._cost = self._costs.growth

    def keys(self) -> NDArray[np.int64]:
        cost = self._costs.growth
        if len(self._total):
            with np.errstate(invalid="ignore"):  # see `count_true`; the conversion still reports what is not a number
                exact = self._cost_model.losses.table @ self._base.prices(self._total)
            prices = np.rint(exact).astype(np.int64)
            cost = prices.take(self._costs.stranded)
            cost += self._costs.growth
        self._cost = cost
        keys: NDArray[np.int64] = np.minimum(cost[ON_SHARED], cost[ON_IDLE])
        closed = keys >= INFEASIBLE_COST
        keys <<= RANK_BITS
        keys += self._fleet.columns.rank
        np.negative(keys, out=keys)
        np.putmask(keys, closed, INFEASIBLE)
        return keys

    def cells(self, window: RowWindow) -> tuple[int, ...] | None:
        needs, row = self._scores.query.devices, window.origin_row
        if needs.share is not None and needs.count == 1 and self._cost[ON_SHARED, row] <= self._cost[ON_IDLE, row]:
            return (int(self._costs.cells[row]),)
        passes = self._scores.current_passing(self._fleet, window)
        free = window.columns.free_milli[window.at]
        if needs.share is not None and needs.count == 1:
            passes = passes & (free == DEVICE_MILLI)
        elif needs.share is not None and self._scores.query.topology in {Topology.NONE, Topology.SAME_NODE}:
            order = np.argsort(np.where(passes, free, np.int16(DEVICE_MILLI + 1))[0], kind="stable")[: needs.count]
            return tuple(sorted(order.tolist()))
        return self._scores.choose_among(window, passes)

    def after_pick(self, window: RowWindow) -> None:
        row, base = window.origin_row, self._base
        if not self._own:
            self._costs, self._own = self._costs.copy(), True
            self._capacity, self._total = self._capacity.copy(), self._total.copy()
        node = base.node(window.columns, 0)
        self._total += node.capacity[0] - self._capacity[row]
        self._capacity[row] = node.capacity[0]
        passing = self._scores.passes(self._fleet, window)
        self._costs.values[:, [row]] = INFEASIBLE_ROW
        if self._scores.is_feasible(window, passing)[0]:
            value = self._cost_model.value(window.columns, np.zeros(1, np.intp), node, passing)
            self._costs.values[:, [row]] = value
