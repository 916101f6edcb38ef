"""Keeps the pods that hold the devices of a fleet as arrays. Only changed rows are updated."""

from math import inf

import numpy as np
from numpy.typing import NDArray

from gpufleet_operator.placement.fleet.columns import HELD, SHARED
from gpufleet_operator.placement.fleet.fleet import Fleet
from gpufleet_operator.placement.model import NodeState
from gpufleet_operator.placement.search.node_scores import changed_rows

NEVER = -1.0
"""In `ends`: no known pod holds the device, so it is not known whether it becomes free."""

NOT_EVICTABLE = np.iinfo(np.int64).max
"""In `priority`: a holder of the device is not evicted."""


class HolderTable:
    """(rows, width) arrays of devices. Several sharers count as one holder that ends last and has the highest priority.

    Use `holder_table`, which keeps it up to date.
    """

    def __init__(self) -> None:
        self.ends: NDArray[np.float64] = np.zeros((0, 0))
        """When the holders end, in seconds since the epoch; 0: no holder; infinite: not known; or NEVER."""
        self.priority: NDArray[np.int64] = np.zeros((0, 0), np.int64)
        """The highest priority of the holders, or NOT_EVICTABLE; undefined for a device without holders."""
        self.protected: NDArray[np.float64] = np.zeros((0, 0))
        """Until when preemption does not evict a holder, in seconds since the epoch."""
        self.size: NDArray[np.int64] = np.zeros((0, 0), np.int64)
        """Number of devices of the largest holder."""
        self.leaving: dict[str, int] = {}
        """Names of nodes with pods that are ending already, and the lowest priority of these."""
        self.groups: dict[str, set[str]] = {}
        """Names of the nodes of each group of pods."""
        self._groups_of: dict[int, tuple[str, frozenset[str]]] = {}
        """By row: the node, and the groups of its pods."""
        self._version = -1

    def copy(self) -> "HolderTable":
        """Returns an independent table, for a copy of the fleet."""
        other = HolderTable()
        for name in ("ends", "priority", "protected", "size"):
            setattr(other, name, getattr(self, name).copy())
        other.leaving = dict(self.leaving)
        other.groups = {group: set(nodes) for group, nodes in self.groups.items()}
        other._groups_of, other._version = dict(self._groups_of), self._version
        return other

    def update(self, fleet: Fleet) -> None:
        """Reads the rows that changed since the last call."""
        if self._version == fleet.version:
            return
        shape = fleet.columns.state.shape
        window = changed_rows(fleet, self._version, len(self.ends)) if self.ends.shape == shape else None
        if window is None:
            self.ends, self.protected = np.zeros(shape), np.zeros(shape)
            self.priority, self.size = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
            self.leaving, self.groups, self._groups_of = {}, {}, {}
        for row in np.arange(fleet.columns.rows)[slice(None) if window is None else window.at].tolist():
            self._read(fleet, row)
        self._version = fleet.version

    def _read(self, fleet: Fleet, row: int) -> None:
        state = fleet.columns.state[row]
        self.ends[row] = np.where(state & (HELD | SHARED), NEVER, 0.0)
        self.priority[row] = np.iinfo(np.int64).min
        self.protected[row], self.size[row] = 0.0, 0
        before, _ = name, groups = self._groups_of.pop(row, ("", frozenset()))
        self.leaving.pop(before, None)
        for group in groups:
            self.groups[group].discard(name)
        node = fleet.undebited(row)
        if node is not None and node.holders:
            self._read_holders(fleet, row, node)

    def _read_holders(self, fleet: Fleet, row: int, node: NodeState) -> None:
        ends, where = self.ends[row], fleet.where
        for holder in node.holders:
            end = inf if holder.ends_at is None else max(holder.ends_at, 1.0)
            priority = holder.priority if holder.evictable and not holder.leaving else NOT_EVICTABLE
            for uuid in holder.devices:
                at = where.get(uuid)
                if at is None or at[0] != row:
                    continue
                cell = at[1]
                ends[cell] = max(ends[cell], end)
                self.priority[row, cell] = max(int(self.priority[row, cell]), priority)
                self.protected[row, cell] = max(float(self.protected[row, cell]), holder.protected_until)
                self.size[row, cell] = max(int(self.size[row, cell]), len(holder.devices))
        if leaving := [holder.priority for holder in node.holders if holder.leaving]:
            self.leaving[node.name] = min(leaving)
        groups = frozenset(holder.group for holder in node.holders if holder.group)
        self._groups_of[row] = node.name, groups
        for group in groups:
            self.groups.setdefault(group, set()).add(node.name)


def holder_table(fleet: Fleet) -> HolderTable:
    """Returns the up-to-date table of a fleet."""
    table = fleet.memo.get(HolderTable, (), HolderTable)
    table.update(fleet)
    return table


def copy_with_table(fleet: Fleet) -> Fleet:
    """Returns a copy of a fleet that has its table already."""
    table, plan = holder_table(fleet), fleet.copy()
    plan.memo.get(HolderTable, (), table.copy)
    return plan


def lowest_priority(fleet: Fleet) -> int | None:
    """Returns the lowest priority of the pods that may be evicted or are ending already; None: there is none.

    A pod that is ending counts until its devices are free: they are earmarked for the waiting workload, so that the
    pod's successor does not get them first.
    """
    table = holder_table(fleet)
    found = table.priority[(table.ends > 0) & (table.priority != NOT_EVICTABLE)]
    lowest = [int(found.min())] if found.size else []
    return min((*lowest, *table.leaving.values()), default=None)
