"""For one question: what it would cost to serve it on each node, as growth of waste and as places lost."""

import numpy as np
from numpy.typing import NDArray

from gpufleet_operator.placement.fleet.columns import SHARED, Columns
from gpufleet_operator.placement.fleet.encode import DEVICE_MILLI
from gpufleet_operator.placement.model import Share
from gpufleet_operator.placement.packing.fleet_state import PackingState
from gpufleet_operator.placement.packing.node_batch import NodeBatch
from gpufleet_operator.placement.packing.sample_arrivals import SAMPLES
from gpufleet_operator.placement.search.query import Query

Ints = NDArray[np.int64]

ON_SHARED, ON_IDLE = 0, 1
"""The two ways to serve a replica: beside others on shared devices, or on idle devices."""

INFEASIBLE_COST = 2**40
"""Growth of waste of a way that isn't open: above every growth that is."""

INFEASIBLE_ROW: Ints = np.array((INFEASIBLE_COST, INFEASIBLE_COST, 0, 0, 0), np.int64)[:, None]
"""A row where no way is open: see Outlay."""


class PlacementCosts:
    """What serving costs on each row, all in one array."""

    def __init__(self, values: Ints) -> None:
        self.values = values
        """(5, rows): growth beside others and on idle devices, the losses of both, and the device for the former."""

    @classmethod
    def nothing(cls, rows: int) -> "PlacementCosts":
        """No way is open."""
        return cls(np.repeat(INFEASIBLE_ROW, rows, axis=1))

    @property
    def growth(self) -> Ints:
        """(2, rows): by way."""
        found: Ints = self.values[:2]
        return found

    @property
    def lost(self) -> Ints:
        """(2, rows): which places are lost, as a row of `CapacityLosses.table`."""
        found: Ints = self.values[2:4]
        return found

    @property
    def cells(self) -> Ints:
        """(rows,): the device to take for BESIDE."""
        found: Ints = self.values[4]
        return found

    def copy(self) -> "PlacementCosts":
        """An independent one."""
        return PlacementCosts(self.values.copy())


class CapacityLosses:
    """The different combinations of places that can be lost: few, though there are many nodes."""

    def __init__(self, types: int) -> None:
        self._codes: dict[bytes, int] = {np.zeros(types, np.int16).tobytes(): 0}
        self._types = types
        self._table: NDArray[np.float64] = np.zeros((0, types))

    @property
    def table(self) -> NDArray[np.float64]:
        """(combinations, types); the first loses nothing."""
        if len(self._table) != len(self._codes):
            found = np.frombuffer(b"".join(self._codes), np.int16)
            self._table = found.reshape(len(self._codes), self._types).astype(np.float64)
        return self._table

    def codes(self, lost: NDArray[np.int16]) -> Ints:
        """(..., types) -> a row of the table for each."""
        size, raw, known = self._types * lost.itemsize, lost.tobytes(), self._codes
        if not size:
            return np.zeros(lost.shape[:-1], np.int64)
        found = [known.setdefault(raw[i : i + size], len(known)) for i in range(0, len(raw), size)]
        return np.array(found, np.int64).reshape(lost.shape[:-1])


class CostModel:
    """Values one question on any rows."""

    def __init__(self, base: PackingState, query: Query) -> None:
        self.losses = CapacityLosses(len(base.slots.types))
        self._base, self._query = base, query

    def value(self, columns: Columns, rows: NDArray[np.intp], sites: NodeBatch, passing: NDArray[np.bool_]) -> Ints:
        """(5, rows): as Outlay, of rows that can all serve the question.

        Args:
            columns: the arrays that the rows are in.
            rows: which of them.
            sites: the nodes in them.
            passing: (rows, width), devices that may be taken.
        """
        needs = self._query.devices
        if needs.share is None:
            return self._on_idle(sites)
        free = columns.free_milli.take(rows, axis=0).astype(np.int64)  # take: half the time of an index
        total = columns.total_mib.take(rows, axis=0).astype(np.int64)
        rests = _rests(free, total, needs.share)
        if needs.count != 1:
            return self._on_several(sites, free, rests, passing)
        tried = passing & ~_repeated(free, total, passing)
        return self._on_one(sites, free, rests, tried, (columns.state.take(rows, axis=0) & SHARED) > 0)

    def _on_idle(self, sites: NodeBatch) -> Ints:
        """Whole devices, or none. Which of the idle ones are taken makes no difference to what is left."""
        count = self._query.devices.count
        useful = self._base.rule.without(sites.useful, count) if count else sites.useful
        return self._only(sites, useful, sites.lost, sites.idle - count)

    def _on_one(
        self, sites: NodeBatch, free: Ints, rests: Ints, tried: NDArray[np.bool_], shared: NDArray[np.bool_]
    ) -> Ints:
        """A part of one device: (rows, width) each, what is free of it before and after, and whether it is tried."""
        rule, shape = self._base.rule, tried.shape
        at = tried.ravel().nonzero()[0]
        row, before, after = at // shape[1], free.take(at), rests.take(at)
        gone, come = rule.useful.take(before), rule.useful.take(after)
        useful = rule.replaced(sites.useful.take(row), gone, come)
        grown = sites.lost.take(row) + (gone - before + after - come)
        grown *= SAMPLES
        grown += rule.of(rule.keys(useful, sites.kind.take(row), self._rooms(sites).take(row)))
        grown -= sites.waste.take(row)
        costs = np.full((2, *shape), INFEASIBLE_COST)
        way = np.where(shared.take(at), ON_SHARED, ON_IDLE)
        costs.reshape(-1)[way * tried.size + at] = grown
        found = np.empty((5, shape[0]), np.int64)
        np.minimum.reduce(costs, axis=2, out=found[:2])
        lost = self._lost(sites, np.stack((sites.idle, sites.idle - 1)))
        lost[found[:2] == INFEASIBLE_COST] = 0
        found[2:4] = self.losses.codes(lost)
        found[4] = costs[ON_SHARED].argmin(axis=1)  # of equal devices the first one stands
        return found

    def _on_several(self, sites: NodeBatch, free: Ints, rests: Ints, passing: NDArray[np.bool_]) -> Ints:
        """Parts of several devices at once: of the fullest that will do."""
        fullest = np.argsort(np.where(passing, free, DEVICE_MILLI + 1), axis=1, kind="stable")[
            :, : self._query.devices.count
        ]
        left = free.copy()
        np.put_along_axis(left, fullest, np.take_along_axis(rests, fullest, axis=1), axis=1)
        split = np.array([self._base.rule.split(row) for row in left.tolist()], np.int64).reshape(-1, 2)
        return self._only(sites, split[:, 0], split[:, 1], (left == DEVICE_MILLI).sum(axis=1))

    def _only(self, sites: NodeBatch, useful: Ints, lost: Ints, idle: Ints) -> Ints:
        """As Outlay where there is one way: with this left useful, lost and idle on each node."""
        rule = self._base.rule
        found = np.zeros((5, len(useful)), np.int64)
        found[ON_SHARED] = INFEASIBLE_COST
        grown = lost * SAMPLES
        grown += rule.of(rule.keys(useful, sites.kind, self._rooms(sites)))
        np.subtract(grown, sites.waste, out=found[ON_IDLE])
        found[2 + ON_IDLE] = self.losses.codes(self._lost(sites, idle[None]))[0]
        return found

    def _rooms(self, sites: NodeBatch) -> Ints:
        pod = self._query.pod
        return self._base.rule.rooms(sites.cpu - pod.cpu_milli, sites.memory - pod.memory_bytes)

    def _lost(self, sites: NodeBatch, idle: Ints) -> NDArray[np.int16]:
        """(cases, nodes, types): places lost on each node when so many idle devices remain, (cases, nodes)."""
        if not sites.places.any():
            return np.zeros((*idle.shape, sites.places.shape[1]), np.int16)
        lost: NDArray[np.int16] = sites.places - self._base.slots.count(idle, sites, self._query.pod)
        return lost


def _rests(free: Ints, total: Ints, share: Share) -> Ints:
    """What is left of each device: see `milli`; one that is shared is never whole again, however small the share."""
    by_memory = -(-share.memory_mib * DEVICE_MILLI // np.maximum(total, 1))
    wanted = np.maximum(np.where(total > 0, by_memory, 0), share.compute_percent * (DEVICE_MILLI // 100))
    return np.maximum(np.minimum(free - wanted, DEVICE_MILLI - 1), 0)


def _repeated(free: Ints, total: Ints, passing: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(rows, width): another one before it on the node may be taken and is its like, so it need not be tried."""
    order = np.arange(free.shape[1])
    look = np.where(passing, (free << 32) + total, -2 - order)  # a total is -1 at least
    repeated: NDArray[np.bool_] = (look[:, :, None] == look[:, None, :]).argmax(axis=2) != order
    return repeated
