"""For one question: what it would cost to serve it on each node, as growth of waste and as places lost."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpufleet_operator.placement.columns import SHARED, Mask, Window
from gpufleet_operator.placement.fleet import Fleet
from gpufleet_operator.placement.model import Share
from gpufleet_operator.placement.packing.landscape import Landscape, States
from gpufleet_operator.placement.ranking import NEVER, Ranking
from gpufleet_operator.placement.rows import WHOLE

Ints = NDArray[np.int64]

BESIDE, IDLE = 0, 1
"""The two ways to serve a replica: beside others on shared devices, or on idle devices."""

NO = np.int64(2**40)
"""Growth of waste of a way that isn't open: above every growth that is."""


@dataclass(slots=True)
class Outlay:
    """(rows, 2): by way."""

    growth: Ints
    lost: NDArray[np.intp]
    """Which places are lost, as a row of `Losses.table`."""
    cells: NDArray[np.int16]
    """(rows,): the device to take for BESIDE, when one is asked for."""

    def copy(self) -> "Outlay":
        """An independent one."""
        return Outlay(self.growth.copy(), self.lost.copy(), self.cells.copy())


class Losses:
    """The different combinations of places that can be lost: few, though there are many nodes."""

    def __init__(self, types: int) -> None:
        self._codes: dict[bytes, int] = {np.zeros(types, np.int16).tobytes(): 0}
        self._types = types
        self._table: NDArray[np.int16] = np.zeros((0, types), np.int16)

    @property
    def table(self) -> NDArray[np.int16]:
        """(combinations, types)."""
        if len(self._table) != len(self._codes):
            rows = np.frombuffer(b"".join(self._codes), np.int16)
            self._table = rows.reshape(len(self._codes), self._types)
        return self._table

    def codes(self, lost: NDArray[np.int16]) -> NDArray[np.intp]:
        """(states, types) -> a row of the table for each state."""
        codes = np.zeros(len(lost), np.intp)
        losing = np.flatnonzero(lost.any(axis=1))
        if len(losing):
            size, raw = self._types * lost.itemsize, lost[losing].tobytes()
            known = self._codes
            codes[losing] = [known.setdefault(raw[i : i + size], len(known)) for i in range(0, len(raw), size)]
        return codes


class Outlays:
    """The outlay of every row, kept up to date."""

    def __init__(self, base: Landscape) -> None:
        self._base = base
        self.losses = Losses(len(base.slots.types))
        self.all = _nothing(0)
        self._version = -1

    def update(self, fleet: Fleet, ranking: Ranking) -> None:
        """Look again at the rows that changed since the last time."""
        if self._version == fleet.version:
            return
        columns = fleet.columns
        changed = fleet.changes.since(self._version)
        if changed is None or len(self.all.cells) != columns.rows:
            self.all = _nothing(columns.rows)
            at = np.arange(columns.rows)
        else:
            at = np.array(changed, np.intp)
            self.all.growth[at] = NO
        at = at[ranking.keys[at] != NEVER]
        if len(at):
            window = Window.of(columns, at)
            now = self._base.waste[at], self._base.places[at]
            found = self.outlay(ranking, window, ranking.passing[at], now)
            self.all.growth[at], self.all.lost[at], self.all.cells[at] = found.growth, found.lost, found.cells
        self._version = fleet.version

    def outlay(self, ranking: Ranking, window: Window, passing: Mask, now: tuple[Ints, NDArray[np.int16]]) -> Outlay:
        """The outlay of some rows that can all serve the question.

        Args:
            ranking: of the question.
            window: the rows.
            passing: (rows, width), the devices that may be taken.
            now: (rows,) expected waste and (rows, types) places as they are.
        """
        base, pod = self._base, ranking.query.pod
        waste, places = now
        before = base.states(window.columns, window.at)
        room = States(before.free, before.cpu - pod.cpu_milli, before.memory - pod.memory_bytes, before.kind)
        rows, ways, cells, after = _candidates(room, ranking, window, passing)
        growth = base.expected_waste(after) - waste[rows]
        lost = self.losses.codes(places[rows] - base.count_places(after))
        # Of several shared devices of a node the one that wastes least, of equals the first: so write it last.
        order = np.lexsort((-cells, -growth))
        rows, ways = rows[order], ways[order]
        found = _nothing(len(before.cpu))
        found.growth[rows, ways] = growth[order]
        found.lost[rows, ways] = lost[order]
        beside = ways == BESIDE
        found.cells[rows[beside]] = cells[order][beside]
        return found


def _nothing(rows: int) -> Outlay:
    return Outlay(np.full((rows, 2), NO), np.zeros((rows, 2), np.intp), np.zeros(rows, np.int16))


def _candidates(
    room: States, ranking: Ranking, window: Window, passing: Mask
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp], States]:
    needs, found = ranking.query.devices, _Candidates(room)
    if needs.share is None:
        found.whole(room.free, passing, needs.count)
        return found.stacked()
    wanted = _milli(needs.share, window)
    if needs.count == 1:
        shared = passing & ((window.columns.state[window.at] & SHARED) != 0)
        found.each_shared(room.free, shared, wanted)
        found.first_idle(room.free, passing & ~shared, wanted)
    else:
        found.tightest(room.free, passing, wanted, needs.count)
    return found.stacked()


class _Candidates:
    """Collects states that serving the question would lead to, to value them all at once."""

    def __init__(self, room: States) -> None:
        self._room = room
        self._rows: list[NDArray[np.intp]] = []
        self._ways: list[int] = []
        self._cells: list[NDArray[np.intp]] = []
        self._free: list[NDArray[np.int16]] = []

    def whole(self, free: NDArray[np.int16], passing: Mask, count: int) -> None:
        """`count` idle devices; which ones makes no difference to the state."""
        after = free.copy()
        after[passing & (np.cumsum(passing, axis=1) <= count)] = 0
        self._add(np.arange(len(free)), IDLE, np.zeros(len(free), np.intp), after)

    def each_shared(self, free: NDArray[np.int16], shared: Mask, wanted: Ints) -> None:
        """One candidate for each shared device."""
        rows, cells = np.nonzero(shared)
        after = free[rows]
        each = np.arange(len(rows))
        after[each, cells] = np.maximum(after[each, cells] - wanted[rows, cells], 0)
        self._add(rows, BESIDE, cells, after)

    def first_idle(self, free: NDArray[np.int16], idle: Mask, wanted: Ints) -> None:
        """The first idle device."""
        rows = np.flatnonzero(idle.any(axis=1))
        cells = idle[rows].argmax(axis=1)
        after = free[rows]
        each = np.arange(len(rows))
        after[each, cells] = np.minimum(np.maximum(after[each, cells] - wanted[rows, cells], 0), WHOLE - 1)
        self._add(rows, IDLE, cells, after)

    def tightest(self, free: NDArray[np.int16], passing: Mask, wanted: Ints, count: int) -> None:
        """The `count` devices with least left, shared ones before idle ones."""
        order = np.argsort(np.where(passing, free, np.int16(WHOLE + 1)), axis=1, kind="stable")[:, :count]
        rows, after = np.arange(len(free)), free.copy()
        left = np.take_along_axis(free - wanted, order, axis=1)
        np.put_along_axis(after, order, np.clip(left, 0, WHOLE - 1).astype(np.int16), axis=1)
        self._add(rows, IDLE, np.zeros(len(rows), np.intp), after)

    def stacked(self) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp], States]:
        """(row, way, cell) and state of every candidate."""
        rows, room = np.concatenate(self._rows), self._room
        ways = np.repeat(np.array(self._ways, np.intp), [len(r) for r in self._rows])
        after = States(np.concatenate(self._free), room.cpu[rows], room.memory[rows], room.kind[rows])
        return rows, ways, np.concatenate(self._cells), after

    def _add(self, rows: NDArray[np.intp], way: int, cells: NDArray[np.intp], free: NDArray[np.int16]) -> None:
        self._rows.append(rows)
        self._ways.append(way)
        self._cells.append(cells)
        self._free.append(free)


def _milli(share: Share, window: Window) -> Ints:
    """(rows, width): the larger part of each device that the share is, in thousandths, rounded up."""
    total = np.maximum(window.columns.total_mib[window.at], 1)
    wanted: Ints = np.maximum(-(-np.int64(share.memory_mib) * WHOLE // total), share.compute_percent * 10)
    return wanted
