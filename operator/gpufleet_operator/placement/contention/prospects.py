"""Finds the devices that a request could use if their holders ended, and when they end."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gpufleet_operator.placement.contention.holder_table import holder_table
from gpufleet_operator.placement.fleet.columns import (
    HELD,
    SHARED,
    UNKNOWN_PERCENT,
    UNKNOWN_USED_MIB,
    UNLIMITED_SLOTS,
    Mask,
    RowWindow,
)
from gpufleet_operator.placement.fleet.fleet import Fleet
from gpufleet_operator.placement.search import filters
from gpufleet_operator.placement.search.node_scores import node_scores
from gpufleet_operator.placement.search.query import Query

Times = NDArray[np.float64]

_NOT_HELD = np.uint8(~(HELD | SHARED) & 0xFF)


@dataclass(frozen=True, slots=True)
class Prospects:
    """(rows, width) arrays for one query."""

    passing: Mask
    """Devices that pass now. The capacity of their node is not considered."""
    possible: Mask
    """Devices that would pass if all pods that hold them ended."""
    ends: Times
    """When the last of these pods ends, as in `HolderTable.ends`."""


def prospects(fleet: Fleet, query: Query) -> Prospects:
    """Returns what a query could use."""
    columns = fleet.ranked()
    ends = holder_table(fleet).ends
    held = ends > 0
    open_rows = columns.fresh & (node_scores(fleet, query).rejections == 0)
    emptied = replace(
        columns,
        state=np.where(held, columns.state & _NOT_HELD, columns.state),
        used_mib=np.where(held & (columns.used_mib != UNKNOWN_USED_MIB), 0, columns.used_mib),
        compute=np.where(held & (columns.compute != UNKNOWN_PERCENT), 0, columns.compute),
        share_slots=np.where(held, UNLIMITED_SLOTS, columns.share_slots),
    )
    everything = slice(None)
    passing = filters.usable(fleet, RowWindow.of(columns, everything), query) & open_rows[:, None]
    possible = filters.usable(fleet, RowWindow.of(emptied, everything), query) & open_rows[:, None]
    return Prospects(passing, possible, ends)
