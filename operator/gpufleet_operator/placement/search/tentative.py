"""The picks of a decision so far, debited on copies of the touched rows: the fleet stays unchanged."""

import numpy as np

from gpufleet_operator.placement.fleet import encode
from gpufleet_operator.placement.fleet.columns import Columns, RowWindow
from gpufleet_operator.placement.fleet.fleet import Fleet
from gpufleet_operator.placement.model import Pick, Request
from gpufleet_operator.placement.search.score import terms


class TentativePlacement:
    """The picks of one request, each debited before the next."""

    def __init__(self, fleet: Fleet, request: Request) -> None:
        self.fleet, self.request = fleet, request
        self.taken: dict[int, list[tuple[int, ...]]] = {}
        """Per row: the columns of each pick."""
        self._own: dict[int, Columns] = {}

    def window(self, row: int) -> RowWindow:
        """Returns one row including debits."""
        own = self._own.get(row)
        if own is None:
            return RowWindow.row(self.fleet.columns, row)
        return RowWindow(own, slice(0, 1), slice(row, row + 1))

    def take(self, row: int, cells: tuple[int, ...]) -> RowWindow:
        """Debits a pick and returns the updated row."""
        own = self._own.get(row)
        if own is None:
            own = self._own[row] = self.fleet.columns.map(lambda a: np.array(a[row : row + 1]))
        encode.debit(own, 0, cells, self.request.pod, self.request.devices.share)
        self.taken.setdefault(row, []).append(cells)
        return self.window(row)

    def debited(self) -> Fleet:
        """Returns the fleet itself without picks, else a copy with all debits."""
        if not self.taken:
            return self.fleet
        fleet, request = self.fleet.copy(), self.request
        for row, picks in self.taken.items():
            uuids = fleet.uuids(row)
            for cells in picks:
                fleet.hold(fleet.name(row), [uuids[cell] for cell in cells], request.pod, request.devices.share)
        return fleet

    def pick(self, replica: int, row: int, cells: tuple[int, ...]) -> Pick:
        """Returns the pick with its terms. Call it before `take`, so that the terms exclude the pick."""
        uuids = [self.fleet.uuid(row, cell) for cell in cells]
        found = terms(self.window(row), cells, self.request.weights)
        return Pick(replica, self.fleet.name(row), tuple(uuids), found)
