"""For one question: what it would cost to serve it on each node, as growth of waste and as places lost."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpufleet_operator.placement.columns import SHARED, Columns
from gpufleet_operator.placement.model import Share
from gpufleet_operator.placement.packing.landscape import Landscape, Site
from gpufleet_operator.placement.packing.streams import STREAMS
from gpufleet_operator.placement.packing.waste import State
from gpufleet_operator.placement.query import Query
from gpufleet_operator.placement.rows import WHOLE, milli

Ints = NDArray[np.int64]

BESIDE, IDLE = 0, 1
"""The two ways to serve a replica: beside others on shared devices, or on idle devices."""

NO_WAY = 2**40
"""Growth of waste of a way that isn't open: above every growth that is."""

Valued = tuple[int, int, int, int, int]
"""Growth beside others, growth on idle devices, the losses of both, and the device for the former."""

CLOSED: Valued = NO_WAY, NO_WAY, 0, 0, 0
"""A row where no way is open."""

CLOSED_COLUMN: Ints = np.array(CLOSED, np.int64)[:, None]

_REMEMBERED = 50_000
"""Nodes that a question was valued on."""

_MOST_BITS = 32
"""Devices of a node whose numbers fit, together with `Site.alike`, into an integer of numpy."""


class Outlay:
    """What serving costs on each row, all in one array: see Valued for its five lines."""

    def __init__(self, values: Ints) -> None:
        self.values = values
        """(5, rows)."""

    @classmethod
    def nothing(cls, rows: int) -> "Outlay":
        """No way is open."""
        return cls(np.repeat(CLOSED_COLUMN, rows, axis=1))

    @property
    def growth(self) -> Ints:
        """(2, rows): by way."""
        found: Ints = self.values[:2]
        return found

    @property
    def lost(self) -> Ints:
        """(2, rows): which places are lost, as a row of `Losses.table`."""
        found: Ints = self.values[2:4]
        return found

    @property
    def cells(self) -> Ints:
        """(rows,): the device to take for BESIDE."""
        found: Ints = self.values[4]
        return found

    def copy(self) -> "Outlay":
        """An independent one."""
        return Outlay(self.values.copy())


class Losses:
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

    def codes(self, lost: NDArray[np.int16]) -> list[int]:
        """(states, types) -> a row of the table for each state."""
        size, raw = self._types * lost.itemsize, lost.tobytes()
        known = self._codes
        return [known.setdefault(raw[i : i + size], len(known)) for i in range(0, len(raw), size)]


Sites = Sequence[tuple[int, Site]]
"""Rows, and the node as it is in each."""


class Valuer:
    """Values one question on any rows; what it found for one node holds for every node alike."""

    def __init__(self, base: Landscape, query: Query) -> None:
        self.losses = Losses(len(base.slots.types))
        self._base, self._query = base, query
        self._known: dict[int, int] = {}
        """Node and devices that may be taken -> a column of `_table`."""
        self._table: Ints = np.zeros((len(CLOSED), 64), np.int64)
        self._powers: NDArray[Any] = np.zeros(0, np.int64)
        self._rests: dict[tuple[int, int], int] = {}
        """Thousandths free and memory of a device -> thousandths free once it is shared by one more."""

    def value(
        self,
        columns: Columns,
        rows: NDArray[np.intp],
        alike: Ints,
        sites: Sequence[Site],
        passing: NDArray[np.bool_],
    ) -> Ints:
        """(5, rows): as Valued, of rows that can all serve the question.

        Args:
            columns: the arrays that the rows are in.
            rows: which of them.
            alike: of each, see Site.
            sites: all nodes of the arrays as they are.
            passing: (rows, width), devices that may be taken.
        """
        known, keys = self._known, self._keys(alike, passing)
        found = list(map(known.get, keys))
        if None in found:
            if len(known) > _REMEMBERED:
                known.clear()
            new = {key: at for at, key in enumerate(keys) if key not in known}
            at = list(new.values())
            chosen = rows[at].tolist()
            valued = self._evaluate(columns, chosen, [sites[row] for row in chosen], passing[at].tolist())
            first, end = len(known), len(known) + len(new)
            while end > self._table.shape[1]:
                self._table = np.concatenate((self._table, np.zeros_like(self._table)), axis=1)
            self._table[:, first:end] = np.array(valued, np.int64).T
            known.update(zip(new, range(first, end), strict=True))
            found = [known[key] for key in keys]
        return self._table.take(found, axis=1)  # type: ignore[arg-type]  # none of them is None any more

    def _keys(self, alike: Ints, passing: NDArray[np.bool_]) -> list[int]:
        width = passing.shape[1]
        if len(self._powers) != width + 1:
            # Numbers of Python where numpy's are too short.
            self._powers = np.array([1 << bit for bit in range(width + 1)], np.int64 if width <= _MOST_BITS else object)
        keys: list[int] = (passing @ self._powers[:-1] + alike * self._powers[-1]).tolist()
        return keys

    def _evaluate(
        self, columns: Columns, rows: Sequence[int], sites: Sequence[Site], opens: Sequence[Sequence[bool]]
    ) -> Sequence[Sequence[int]]:
        needs = self._query.devices
        if needs.share is None:
            return self._on_idle(sites)
        if needs.count == 1:
            return self._on_one(columns, rows, sites, opens, needs.share)
        return self._on_several(columns, rows, sites, opens, needs.share)

    def _on_idle(self, sites: Sequence[Site]) -> Sequence[Sequence[int]]:
        """Whole devices, or none. Which of the idle ones are taken makes no difference to what is left."""
        count = self._query.devices.count
        values = self._base.rule.of(
            [(site.useful[count:], *room, site.kind) for site, room in zip(sites, self._rooms(sites), strict=True)]
        )
        lost = self._lost(sites, [site.idle - count for site in sites])
        return [
            (NO_WAY, site.lost * STREAMS + value - site.waste, 0, code, 0)
            for site, value, code in zip(sites, values, lost, strict=True)
        ]

    def _on_one(
        self,
        columns: Columns,
        rows: Sequence[int],
        sites: Sequence[Site],
        opens: Sequence[Sequence[bool]],
        share: Share,
    ) -> Sequence[Sequence[int]]:
        """A part of one device: each device that has another part free is tried, shared ones and idle ones."""
        replaced, rests = self._base.rule.replaced, self._rests
        frees, totals = columns.free_milli[rows].tolist(), columns.total_mib[rows].tolist()
        besides = (columns.state[rows] & SHARED).tolist()
        tries: list[tuple[int, int, int, int]] = []  # position, way, device, growth without what is left useful
        states: list[State] = []
        for position, (site, room) in enumerate(zip(sites, self._rooms(sites), strict=True)):
            seen = set()
            free, total, beside = frees[position], totals[position], besides[position]
            for cell, is_open in enumerate(opens[position]):
                if not is_open or (look := (free[cell], total[cell])) in seen:
                    continue
                seen.add(look)  # of equal devices the first one stands
                rest = rests.get(look)
                if rest is None:
                    rest = rests[look] = _less(free[cell], milli(share, total[cell]))
                useful, more = replaced(site.useful, look[0], rest)
                grown = (site.lost + more) * STREAMS - site.waste
                tries.append((position, BESIDE if beside[cell] else IDLE, cell, grown))
                states.append((useful, *room, site.kind))
        best = [list(CLOSED) for _ in sites]
        for (position, way, cell, grown), value in zip(tries, self._base.rule.of(states), strict=True):
            mine = best[position]
            if grown + value < mine[way]:
                mine[way] = grown + value
                if way == BESIDE:
                    mine[4] = cell
        ways = [
            (position, way)
            for position, mine in enumerate(best)
            if sites[position].idle > 1
            for way in (BESIDE, IDLE)
            if mine[way] != NO_WAY
        ]
        left = [sites[position].idle - (way == IDLE) for position, way in ways]
        for (position, way), code in zip(ways, self._lost([sites[p] for p, _ in ways], left), strict=True):
            best[position][2 + way] = code
        return best

    def _on_several(
        self,
        columns: Columns,
        rows: Sequence[int],
        sites: Sequence[Site],
        opens: Sequence[Sequence[bool]],
        share: Share,
    ) -> Sequence[Sequence[int]]:
        """Parts of several devices at once: of the fullest that will do."""
        count, rule = self._query.devices.count, self._base.rule
        left: list[tuple[int, int]] = []  # lost, idle
        states: list[State] = []
        for row, site, is_open, room in zip(rows, sites, opens, self._rooms(sites), strict=True):
            free, total = columns.free_milli[row].tolist(), columns.total_mib[row].tolist()
            able = [cell for cell, yes in enumerate(is_open) if yes]
            for cell in sorted(able, key=lambda c: (free[c], c))[:count]:
                free[cell] = _less(free[cell], milli(share, total[cell]))
            useful, lost = rule.split(free)
            left.append((lost, free.count(WHOLE)))
            states.append((useful, *room, site.kind))
        codes = self._lost(sites, [idle for _, idle in left])
        return [
            (NO_WAY, lost * STREAMS + value - site.waste, 0, code, 0)
            for site, (lost, _), value, code in zip(sites, left, rule.of(states), codes, strict=True)
        ]

    def _rooms(self, sites: Sequence[Site]) -> list[tuple[int, int]]:
        return self._base.rule.rooms([(site.cpu, site.memory) for site in sites], self._query.pod)

    def _lost(self, sites: Sequence[Site], idle: Sequence[int]) -> list[int]:
        """Codes of the places lost on each site when so many idle devices remain."""
        codes = [0] * len(sites)
        some = [at for at, site in enumerate(sites) if site.idle > 1]
        if not some or not self._base.slots.types:
            return codes
        pod, chosen = self._query.pod, [sites[at] for at in some]
        lost = np.concatenate([site.places for site in chosen]).reshape(len(some), -1)
        cpu, memory = pod.cpu_milli, pod.memory_bytes
        rooms = [(idle[at], site.cpu - cpu, site.memory - memory) for at, site in zip(some, chosen, strict=True)]
        lost -= self._base.slots.count(rooms, [site.kind for site in chosen])
        for at, code in zip(some, self.losses.codes(lost), strict=True):
            codes[at] = code
        return codes


def _less(free: int, wanted: int) -> int:
    """What is left of a device; one that is shared is never whole again, however small the share."""
    return max(0, min(free - wanted, WHOLE - 1))
