"""Cost of placing a query on each node: growth of fragmentation and lost multi-GPU capacity."""

import numpy as np
from numpy.typing import NDArray

from gpufleet_operator.placement.fleet.columns import SHARED, Columns, Int64s
from gpufleet_operator.placement.fleet.encode import DEVICE_MILLI
from gpufleet_operator.placement.model import Share
from gpufleet_operator.placement.packing.fleet_state import PackingState
from gpufleet_operator.placement.packing.node_batch import NodeBatch
from gpufleet_operator.placement.packing.sample_arrivals import SAMPLES
from gpufleet_operator.placement.search.query import Query

ON_SHARED, ON_IDLE = 0, 1
"""The two options of a node: on devices that are already shared, or on idle devices."""

INFEASIBLE_COST = 2**40
"""Growth of an infeasible option: larger than every feasible one."""

INFEASIBLE_ROW: Int64s = np.array((INFEASIBLE_COST, INFEASIBLE_COST, 0, 0, 0), np.int64)[:, None]
"""Values of a row without a feasible option."""


class PlacementCosts:
    """Costs of each row in one array."""

    def __init__(self, values: Int64s) -> None:
        self.values = values
        """(5, rows): growth on shared and on idle devices, lost capacity of both, and the device for ON_SHARED."""

    @classmethod
    def nothing(cls, rows: int) -> "PlacementCosts":
        """Returns costs without a feasible option."""
        return cls(np.repeat(INFEASIBLE_ROW, rows, axis=1))

    @property
    def growth(self) -> Int64s:
        """(2, rows): growth of fragmentation per option."""
        found: Int64s = self.values[:2]
        return found

    @property
    def stranded(self) -> Int64s:
        """(2, rows): lost capacity per option, as a row of `CapacityLosses.table`."""
        found: Int64s = self.values[2:4]
        return found

    @property
    def cells(self) -> Int64s:
        """(rows,): the device for ON_SHARED."""
        found: Int64s = self.values[4]
        return found

    def copy(self) -> "PlacementCosts":
        """Returns an independent copy."""
        return PlacementCosts(self.values.copy())


class CapacityLosses:
    """The distinct combinations of lost capacity: few, although there are many nodes."""

    def __init__(self, types: int) -> None:
        self._codes: dict[bytes, int] = {np.zeros(types, np.int16).tobytes(): 0}
        self._types = types
        self._table: NDArray[np.float64] = np.zeros((0, types))

    @property
    def table(self) -> NDArray[np.float64]:
        """(combinations, types); the first row is all zero."""
        if len(self._table) != len(self._codes):
            found = np.frombuffer(b"".join(self._codes), np.int16)
            self._table = found.reshape(len(self._codes), self._types).astype(np.float64)
        return self._table

    def codes(self, stranded: NDArray[np.int16]) -> Int64s:
        """Returns the row of the table for each combination, (..., types)."""
        size, raw, known = self._types * stranded.itemsize, stranded.tobytes(), self._codes
        if not size:
            return np.zeros(stranded.shape[:-1], np.int64)
        found = [known.setdefault(raw[i : i + size], len(known)) for i in range(0, len(raw), size)]
        return np.array(found, np.int64).reshape(stranded.shape[:-1])


class CostModel:
    """Computes the costs of one query."""

    def __init__(self, base: PackingState, query: Query) -> None:
        self.losses = CapacityLosses(len(base.multi_gpu.types))
        self._base, self._query = base, query

    def value(self, columns: Columns, rows: NDArray[np.intp], nodes: NodeBatch, passing: NDArray[np.bool_]) -> Int64s:
        """Returns (5, rows) as in PlacementCosts, for feasible rows.

        Args:
            columns: The arrays of the rows.
            rows: The rows.
            nodes: The nodes of the rows.
            passing: (rows, width), devices that pass the filters.
        """
        needs = self._query.devices
        if needs.share is None:
            return self._on_idle(nodes)
        free = columns.free_milli.take(rows, axis=0).astype(np.int64)  # take: half the time of an index
        total = columns.total_mib.take(rows, axis=0).astype(np.int64)
        rests = _rests(free, total, needs.share)
        if needs.count != 1:
            return self._on_several(nodes, free, rests, passing)
        tried = passing & ~_repeated(free, total, passing)
        return self._on_one(nodes, free, rests, tried, (columns.state.take(rows, axis=0) & SHARED) > 0)

    def _on_idle(self, nodes: NodeBatch) -> Int64s:
        """Whole devices, or none. Which idle devices are taken makes no difference."""
        count = self._query.devices.count
        useful = self._base.model.without(nodes.useful, count) if count else nodes.useful
        return self._only(nodes, useful, nodes.stranded, nodes.idle - count)

    def _on_one(
        self, nodes: NodeBatch, free: Int64s, rests: Int64s, tried: NDArray[np.bool_], shared: NDArray[np.bool_]
    ) -> Int64s:
        """A share of one device; arrays are (rows, width): free before and after, and whether it is tried."""
        model, shape = self._base.model, tried.shape
        at = tried.ravel().nonzero()[0]
        row, before, after = at // shape[1], free.take(at), rests.take(at)
        gone, come = model.useful.take(before), model.useful.take(after)
        useful = model.replaced(nodes.useful.take(row), gone, come)
        grown = nodes.stranded.take(row) + (gone - before + after - come)
        grown *= SAMPLES
        grown += model.of(model.keys(useful, nodes.model_class.take(row), self._resource_bins(nodes).take(row)))
        grown -= nodes.fragmentation.take(row)
        costs = np.full((2, *shape), INFEASIBLE_COST)
        way = np.where(shared.take(at), ON_SHARED, ON_IDLE)
        costs.reshape(-1)[way * tried.size + at] = grown
        found = np.empty((5, shape[0]), np.int64)
        np.minimum.reduce(costs, axis=2, out=found[:2])
        stranded = self._lost_capacity(nodes, np.stack((nodes.idle, nodes.idle - 1)))
        stranded[found[:2] == INFEASIBLE_COST] = 0
        found[2:4] = self.losses.codes(stranded)
        found[4] = costs[ON_SHARED].argmin(axis=1)  # the first of equal devices
        return found

    def _on_several(self, nodes: NodeBatch, free: Int64s, rests: Int64s, passing: NDArray[np.bool_]) -> Int64s:
        """Shares of several devices: the fullest ones that pass."""
        fullest = np.argsort(np.where(passing, free, DEVICE_MILLI + 1), axis=1, kind="stable")[
            :, : self._query.devices.count
        ]
        left = free.copy()
        np.put_along_axis(left, fullest, np.take_along_axis(rests, fullest, axis=1), axis=1)
        split = np.array([self._base.model.split(row) for row in left.tolist()], np.int64).reshape(-1, 2)
        return self._only(nodes, split[:, 0], split[:, 1], (left == DEVICE_MILLI).sum(axis=1))

    def _only(self, nodes: NodeBatch, useful: Int64s, stranded: Int64s, idle: Int64s) -> Int64s:
        """Costs of a single option, given the useful, stranded and idle rest of each node."""
        model = self._base.model
        found = np.zeros((5, len(useful)), np.int64)
        found[ON_SHARED] = INFEASIBLE_COST
        grown = stranded * SAMPLES
        grown += model.of(model.keys(useful, nodes.model_class, self._resource_bins(nodes)))
        np.subtract(grown, nodes.fragmentation, out=found[ON_IDLE])
        found[2 + ON_IDLE] = self.losses.codes(self._lost_capacity(nodes, idle[None]))[0]
        return found

    def _resource_bins(self, nodes: NodeBatch) -> Int64s:
        pod = self._query.pod
        return self._base.model.resource_bins(nodes.cpu - pod.cpu_milli, nodes.memory - pod.memory_bytes)

    def _lost_capacity(self, nodes: NodeBatch, idle: Int64s) -> NDArray[np.int16]:
        """Returns (cases, nodes, types): capacity lost on each node if `idle` devices remain idle."""
        if not nodes.capacity.any():
            return np.zeros((*idle.shape, nodes.capacity.shape[1]), np.int16)
        stranded: NDArray[np.int16] = nodes.capacity - self._base.multi_gpu.count(idle, nodes, self._query.pod)
        return stranded


def _rests(free: Int64s, total: Int64s, share: Share) -> Int64s:
    """Returns the free rest of each device; a shared device is never whole, however small the share."""
    by_memory = -(-share.memory_mib * DEVICE_MILLI // np.maximum(total, 1))
    wanted = np.maximum(np.where(total > 0, by_memory, 0), share.compute_percent * (DEVICE_MILLI // 100))
    return np.maximum(np.minimum(free - wanted, DEVICE_MILLI - 1), 0)


def _repeated(free: Int64s, total: Int64s, passing: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Returns (rows, width): an equal passing device precedes it on the node, so it need not be tried."""
    order = np.arange(free.shape[1])
    look = np.where(passing, (free << 32) + total, -2 - order)  # a total is -1 at least
    repeated: NDArray[np.bool_] = (look[:, :, None] == look[:, None, :]).argmax(axis=2) != order
    return repeated
