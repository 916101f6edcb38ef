"""Pack as a selector: the node, and the way, that cost the fleet least of what is likely to come."""

import numpy as np
from numpy.typing import NDArray

from gpufleet_api.workload import Topology
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
from gpufleet_operator.placement.search.node_scores import INFEASIBLE, NodeScores, node_scores
from gpufleet_operator.placement.search.query import Query

_RANK_BITS = 20


class MemoizedCosts:
    """The outlay of every row for one question under one mix, kept up to date."""

    def __init__(self, base: PackingState, query: Query) -> None:
        self.valuer = CostModel(base, query)
        self.all = PlacementCosts.nothing(0)
        self._base = base
        self._version = -1

    def update(self, fleet: Fleet, found: NodeScores) -> None:
        """Look again at the rows that changed since the last time."""
        if self._version == fleet.version:
            return
        columns, base = fleet.columns, self._base
        changed = fleet.changes.since(self._version)
        if changed is None or self.all.values.shape[1] != columns.rows:
            self.all = PlacementCosts.nothing(columns.rows)
            every = found.able(fleet).nonzero()[0]
            if len(every):
                first, alike = _alike(base.sites.alike[every], found.passing[every])
                self.all.values[:, every] = self._value(columns, every[first], found)[:, alike]
        elif changed:
            at = np.array(changed, np.intp)
            rows = at[found.able(fleet).take(at)]
            if len(rows) < len(at):
                self.all.values[:, at] = INFEASIBLE_ROW
            if len(rows):
                self.all.values[:, rows] = self._value(columns, rows, found)
        self._version = fleet.version

    def _value(self, columns: Columns, rows: NDArray[np.intp], found: NodeScores) -> NDArray[np.int64]:
        return self.valuer.value(columns, rows, self._base.sites.take(rows), found.passing.take(rows, axis=0))


def _alike(sites: NDArray[np.int64], passing: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The first of each group of rows that are alike, and the group of each row."""
    together = np.concatenate((sites[:, None].view(np.uint8), np.packbits(passing, axis=1)), axis=1)
    whole = np.ascontiguousarray(together).view(np.dtype((np.void, together.shape[1])))[:, 0]
    _, first, group = np.unique(whole, return_index=True, return_inverse=True)
    return first, group


class PackSelector:
    """See Selector. Cost = growth of expected waste + price of the places lost; ties fall to the first node."""

    def __init__(self, fleet: Fleet, query: Query, mix: Mix) -> None:
        self._fleet = fleet
        self._ranking: NodeScores = node_scores(fleet, query)
        self._base: PackingState = packing_state(fleet, mix)
        outlays = fleet.cache.get(MemoizedCosts, (id(mix), query), lambda: MemoizedCosts(self._base, query))
        outlays.update(fleet, self._ranking)
        self._valuer, self._outlay = outlays.valuer, outlays.all
        self._places, self._total = self._base.places, self._base.total
        self._own = False
        self._cost = self._outlay.growth

    def keys(self) -> NDArray[np.int64]:
        """See Selector."""
        cost = self._outlay.growth
        if len(self._total):
            prices = np.rint(self._valuer.losses.table @ self._base.prices(self._total)).astype(np.int64)
            cost = prices.take(self._outlay.lost)
            cost += self._outlay.growth
        self._cost = cost
        keys: NDArray[np.int64] = np.minimum(cost[ON_SHARED], cost[ON_IDLE])
        closed = keys >= INFEASIBLE_COST
        keys <<= _RANK_BITS
        keys += self._fleet.columns.rank
        np.negative(keys, out=keys)
        np.putmask(keys, closed, INFEASIBLE)
        return keys

    def cells(self, window: RowWindow) -> tuple[int, ...] | None:
        """See Selector."""
        needs, row = self._ranking.query.devices, window.origin_row
        if needs.share is not None and needs.count == 1 and self._cost[ON_SHARED, row] <= self._cost[ON_IDLE, row]:
            return (int(self._outlay.cells[row]),)
        passes = self._ranking.now(self._fleet, window)
        free = window.columns.free_milli[window.at]
        if needs.share is not None and needs.count == 1:
            passes = passes & (free == DEVICE_MILLI)
        elif needs.share is not None and self._ranking.query.topology in {Topology.NONE, Topology.SAME_NODE}:
            order = np.argsort(np.where(passes, free, np.int16(DEVICE_MILLI + 1))[0], kind="stable")[: needs.count]
            return tuple(sorted(order.tolist()))
        return self._ranking.choose_of(window, passes)

    def debited(self, window: RowWindow) -> None:
        """See Selector."""
        row, base = window.origin_row, self._base
        if not self._own:
            self._outlay, self._own = self._outlay.copy(), True
            self._places, self._total = self._places.copy(), self._total.copy()
        site = base.site(window.columns, 0)
        self._total += site.places[0] - self._places[row]
        self._places[row] = site.places[0]
        passing = self._ranking.passes(self._fleet, window)
        self._outlay.values[:, [row]] = INFEASIBLE_ROW
        if self._ranking.is_able(window, passing)[0]:
            value = self._valuer.value(window.columns, np.zeros(1, np.intp), site, passing)
            self._outlay.values[:, [row]] = value
