"""Pack as a selector: the node, and the way, that cost the fleet least of what is likely to come."""

import numpy as np
from numpy.typing import NDArray

from gpufleet_api.workload import Topology
from gpufleet_operator.placement.columns import Window
from gpufleet_operator.placement.fleet import Fleet
from gpufleet_operator.placement.packing.landscape import Landscape, landscape
from gpufleet_operator.placement.packing.mix import Mix
from gpufleet_operator.placement.packing.outlay import BESIDE, NO, Outlay, Outlays
from gpufleet_operator.placement.query import Query
from gpufleet_operator.placement.ranking import NEVER, Ranking, ranking
from gpufleet_operator.placement.rows import WHOLE

_RANK_BITS = 20


class ByPack:
    """See Selector. Cost = growth of expected waste + price of the places lost; ties fall to the first node."""

    def __init__(self, fleet: Fleet, query: Query, mix: Mix) -> None:
        self._fleet = fleet
        self._ranking: Ranking = ranking(fleet, query)
        self._base: Landscape = landscape(fleet, mix)
        self._outlays = outlays(fleet, query, mix, self._ranking, self._base)
        self._outlay: Outlay = self._outlays.all
        self._places, self._total = self._base.places, self._base.total
        self._own = False
        self._ways: NDArray[np.intp] = np.zeros(0, np.intp)

    def keys(self) -> NDArray[np.int64]:
        """See Selector."""
        cost = self._outlay.growth
        if len(self._total):
            prices = np.rint(self._outlays.losses.table @ self._base.prices(self._total)).astype(np.int64)
            cost = cost + prices[self._outlay.lost]
        self._ways = cost.argmin(axis=1)
        best = np.minimum(cost[:, 0], cost[:, 1])
        keys: NDArray[np.int64] = -(best << _RANK_BITS) - self._fleet.columns.rank
        keys[best >= NO] = NEVER
        return keys

    def cells(self, window: Window) -> tuple[int, ...] | None:
        """See Selector."""
        needs = self._ranking.query.devices
        row = window.origin_row
        if needs.share is not None and needs.count == 1 and self._ways[row] == BESIDE:
            return (int(self._outlay.cells[row]),)
        passes = self._ranking.passes(self._fleet, window)
        free = window.columns.free_milli[window.at]
        if needs.share is not None and needs.count == 1:
            passes = passes & (free == WHOLE)
        elif needs.share is not None and self._ranking.query.topology in {Topology.NONE, Topology.SAME_NODE}:
            order = np.argsort(np.where(passes, free, np.int16(WHOLE + 1))[0], kind="stable")[: needs.count]
            return tuple(sorted(order.tolist()))
        return self._ranking.choose_of(window, passes)

    def debited(self, window: Window) -> None:
        """See Selector."""
        row, base = window.origin_row, self._base
        if not self._own:
            self._outlay, self._own = self._outlay.copy(), True
            self._places, self._total = self._places.copy(), self._total.copy()
        state = base.states(window.columns, window.at)
        places = base.count_places(state)
        self._total += places[0] - self._places[row]
        self._places[row] = places[0]
        passing = self._ranking.passes(self._fleet, window)
        self._outlay.growth[row] = NO
        if self._ranking.evaluate(window, passing)[0] != NEVER:
            now = base.expected_waste(state), places
            found = self._outlays.outlay(self._ranking, window, passing, now)
            self._outlay.growth[row], self._outlay.lost[row] = found.growth[0], found.lost[0]
            self._outlay.cells[row] = found.cells[0]


def outlays(fleet: Fleet, query: Query, mix: Mix, found: Ranking, base: Landscape) -> Outlays:
    """The fleet's outlays for this question under this mix, up to date."""
    key = ("outlays", id(mix), query.key)
    kept = fleet.cache.pop(key, None)
    if not isinstance(kept, Outlays):
        kept = Outlays(base)
    fleet.cache[key] = kept
    kept.update(fleet, found)
    return kept
