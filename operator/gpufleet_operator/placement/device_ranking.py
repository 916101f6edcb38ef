"""Ranks single devices by score, for `gpufleet rank` and for callers that pick devices themselves.

Scores are memoized per weights and recomputed only for changed rows.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray

from gpufleet_operator.placement.errors import InvalidFleetError, InvalidRequestError
from gpufleet_operator.placement.fleet.columns import Mask, RowWindow
from gpufleet_operator.placement.fleet.fleet import Fleet
from gpufleet_operator.placement.model import DeviceNeeds, Request, ScoreWeights, Share, Terms
from gpufleet_operator.placement.search import filters
from gpufleet_operator.placement.search.query import Query
from gpufleet_operator.placement.search.score import check_weights, scores, terms


@dataclass(frozen=True, slots=True)
class RankedDevice:
    """A device and its score terms."""

    node: str
    device: str
    terms: Terms


class DeviceRanking(Sequence[RankedDevice]):
    """Devices, best first. Entries are read from the fleet on access; once the fleet changes, access raises."""

    def __init__(self, fleet: Fleet, weights: ScoreWeights, rows: NDArray[np.intp], cells: NDArray[np.intp]) -> None:
        self._fleet, self._weights, self._version = fleet, weights, fleet.version
        self._rows, self._cells = rows, cells

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, at: int) -> RankedDevice: ...

    @overload
    def __getitem__(self, at: slice) -> "DeviceRanking": ...

    def __getitem__(self, at: int | slice) -> "RankedDevice | DeviceRanking":
        if isinstance(at, slice):
            return DeviceRanking(self._fleet, self._weights, self._rows[at], self._cells[at])
        if self._fleet.version != self._version:
            raise InvalidFleetError(f"the fleet changed since it was ranked at version {self._version}")
        return _ranked(self._fleet, int(self._rows[at]), int(self._cells[at]), self._weights)


def rank_devices(
    fleet: Fleet,
    *,
    weights: ScoreWeights | None = None,
    min_free_memory_mib: int | None = None,
    among: Collection[str] | None = None,
    share: Share | None = None,
) -> DeviceRanking:
    """Returns the usable devices, best first; ties go to the first node name, then the lowest device index.

    Args:
        fleet: The fleet.
        weights: Weights of the score terms; None: the defaults.
        min_free_memory_mib: Devices with less free memory, or that do not report it, are excluded.
        among: UUIDs to choose from; None: all devices.
        share: The share needed of each device; None: the whole device.

    Raises:
        InvalidFleetError: the fleet has no device, or `among` names one that it doesn't have.
        InvalidRequestError: the weights, or a negative minimum.
    """
    weights = weights or ScoreWeights()
    columns, wanted = fleet.ranked(), _wanted(fleet, weights, min_free_memory_mib, among, share)
    rows, cells = np.nonzero(wanted)
    order = np.lexsort((cells, columns.rank[rows], -_scores(fleet, weights)[rows, cells]))
    return DeviceRanking(fleet, weights, rows[order], cells[order])


def select_best_device(
    fleet: Fleet,
    *,
    weights: ScoreWeights | None = None,
    min_free_memory_mib: int | None = None,
    among: Collection[str] | None = None,
    share: Share | None = None,
) -> RankedDevice | None:
    """Returns the first of `rank_devices`, or None, without ranking the rest. Raises as `rank_devices` does."""
    weights = weights or ScoreWeights()
    columns, wanted = fleet.ranked(), _wanted(fleet, weights, min_free_memory_mib, among, share)
    if not wanted.any():
        return None
    masked = np.where(wanted, _scores(fleet, weights), -1)
    rows, cells = np.nonzero(masked == masked.max())
    first = np.lexsort((cells, columns.rank[rows]))[0]
    return _ranked(fleet, int(rows[first]), int(cells[first]), weights)


def _wanted(
    fleet: Fleet,
    weights: ScoreWeights,
    min_free_memory_mib: int | None,
    among: Collection[str] | None,
    share: Share | None,
) -> Mask:
    check_weights(weights)
    columns = fleet.columns
    if not fleet.where:
        raise InvalidFleetError("the fleet has no device")
    if min_free_memory_mib is not None and min_free_memory_mib < 0:
        raise InvalidRequestError(f"min_free_memory_mib is {min_free_memory_mib}, must be 0 or more")
    needs = DeviceNeeds(min_free_memory_mib=min_free_memory_mib, share=share)
    query = Query.of(Request("rank", (0,), needs))
    wanted: Mask = filters.usable(fleet, RowWindow.of(columns, slice(None)), query) & columns.fresh[:, None]
    if among is not None:
        unknown = sorted(uuid for uuid in among if uuid not in fleet.where)
        if unknown:
            raise InvalidFleetError(f"device {unknown[0]} is not in the fleet")
        wanted &= filters.device_mask(fleet, among)
    return wanted


def _ranked(fleet: Fleet, row: int, cell: int, weights: ScoreWeights) -> RankedDevice:
    window = RowWindow.row(fleet.columns, row)
    return RankedDevice(fleet.name(row), fleet.uuids(row)[cell], terms(window, (cell,), weights))


def _scores(fleet: Fleet, weights: ScoreWeights) -> NDArray[np.int64]:
    return fleet.memo.get(_Scores, weights, lambda: _Scores(weights)).update(fleet)


class _Scores:
    def __init__(self, weights: ScoreWeights) -> None:
        self._weights = weights
        self._values: NDArray[np.int64] = np.zeros((0, 0), np.int64)
        self._version = -1

    def update(self, fleet: Fleet) -> NDArray[np.int64]:
        """Returns the scores, (rows, width)."""
        if self._version != fleet.version:
            columns = fleet.columns
            changed = fleet.changes.since(self._version)
            if changed is None or self._values.shape != columns.state.shape:
                self._values = scores(RowWindow.of(columns, slice(None)), self._weights)
            else:
                at = np.array(changed, np.intp)
                self._values[at] = scores(RowWindow.of(columns, at), self._weights)
            self._version = fleet.version
        return self._values
