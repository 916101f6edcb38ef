"""For one question: what it would cost to serve it on each node, as growth of waste and as places lost."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpufleet_operator.placement.columns import SHARED, Columns
from gpufleet_operator.placement.packing.landscape import Landscape, Site
from gpufleet_operator.placement.packing.streams import STREAMS
from gpufleet_operator.placement.packing.waste import State
from gpufleet_operator.placement.query import Query
from gpufleet_operator.placement.rows import WHOLE, milli

Ints = NDArray[np.int64]

BESIDE, IDLE = 0, 1
"""The two ways to serve a replica: beside others on shared devices, or on idle devices."""

NO = np.int64(2**40)
"""Growth of waste of a way that isn't open: above every growth that is."""

_REMEMBERED = 50_000
"""Nodes that a question was valued on."""


@dataclass(slots=True)
class Outlay:
    """(2, rows): by way."""

    growth: Ints
    lost: NDArray[np.intp]
    """Which places are lost, as a row of `Losses.table`."""
    cells: NDArray[np.int16]
    """(rows,): the device to take for BESIDE."""

    @classmethod
    def nothing(cls, rows: int) -> "Outlay":
        """No way is open."""
        return cls(np.full((2, rows), NO), np.zeros((2, rows), np.intp), np.zeros(rows, np.int16))

    def write(self, rows: NDArray[np.intp] | Sequence[int], values: NDArray[np.int64]) -> None:
        """Set some rows to what Valuer.value found."""
        self.growth[:, rows], self.lost[:, rows], self.cells[rows] = values[:2], values[2:4], values[4]

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
        """(combinations, types); the first loses nothing."""
        if len(self._table) != len(self._codes):
            found = np.frombuffer(b"".join(self._codes), np.int16)
            self._table = found.reshape(len(self._codes), self._types)
        return self._table

    def codes(self, lost: NDArray[np.int16]) -> list[int]:
        """(states, types) -> a row of the table for each state."""
        size, raw = self._types * lost.itemsize, lost.tobytes()
        known = self._codes
        return [known.setdefault(raw[i : i + size], len(known)) for i in range(0, len(raw), size)]


Valued = tuple[int, int, int, int, int]
"""Growth beside others, growth on idle devices, the losses of both, and the device for the former."""

Candidate = tuple[int, int, tuple[int, ...], int, int]
"""One way to serve: way, device, and what would be left: useful, lost and idle as in Site."""


class Valuer:
    """Values one question on any rows; what it found for one node holds for every node alike."""

    def __init__(self, base: Landscape, query: Query) -> None:
        self.losses = Losses(len(base.slots.types))
        self._base, self._query = base, query
        self._known: dict[tuple[int, bytes], Valued] = {}

    def value(
        self, columns: Columns, rows: Sequence[tuple[int, Site]], passing: NDArray[np.bool_]
    ) -> NDArray[np.int64]:
        """(5, rows): as Valued, of rows that can all serve the question.

        Args:
            columns: the arrays that the rows are in.
            rows: which of them, and the node as it is.
            passing: (rows of `columns`, width), devices that may be taken.
        """
        width, raw = columns.width, passing[[at for at, _ in rows]].tobytes()
        keys = [(site.alike, raw[i * width : (i + 1) * width]) for i, (_, site) in enumerate(rows)]
        known = self._known
        found = list(map(known.get, keys))
        if None in found:
            if len(known) > _REMEMBERED:
                known.clear()
            new = {key: row for key, row in zip(keys, rows, strict=True) if key not in known}
            known.update(zip(new, self._evaluate(columns, list(new.values()), passing), strict=True))
            found = list(map(known.get, keys))
        return np.array(found, np.int64).T

    def _evaluate(self, columns: Columns, rows: Sequence[tuple[int, Site]], passing: NDArray[np.bool_]) -> list[Valued]:
        base, pod = self._base, self._query.pod
        found: list[tuple[int, Candidate]] = []
        states: list[State] = []
        for position, (at, site) in enumerate(rows):
            steps = base.rule.steps(site.cpu - pod.cpu_milli, site.memory - pod.memory_bytes)
            for candidate in self._candidates(site, columns, at, passing):
                found.append((position, candidate))
                states.append((candidate[2], *steps, site.kind))
        values = base.rule.of(states)
        lost = self._lost([(rows[position][1], candidate[4]) for position, candidate in found])
        best: list[list[int]] = [[int(NO), int(NO), 0, 0, 0] for _ in rows]
        for (position, (way, cell, _, rest, _)), value, code in zip(found, values, lost, strict=True):
            growth, mine = rest * STREAMS + value - rows[position][1].waste, best[position]
            if growth < mine[way]:  # of equal devices the first one stands
                mine[way], mine[2 + way] = growth, code
                if way == BESIDE:
                    mine[4] = cell
        return [(b, i, lost_b, lost_i, cell) for b, i, lost_b, lost_i, cell in best]

    def _lost(self, found: Sequence[tuple[Site, int]]) -> list[int]:
        """Codes of the places lost on each site when so many idle devices remain."""
        codes = [0] * len(found)
        some = [at for at, (site, _) in enumerate(found) if site.idle > 1]
        if not some or not self._base.slots.types:
            return codes
        pod, sites = self._query.pod, [found[at] for at in some]
        before = np.array([site.places for site, _ in sites])
        after = self._base.slots.count(
            [(i, s.cpu - pod.cpu_milli, s.memory - pod.memory_bytes, s.kind) for s, i in sites]
        )
        for at, code in zip(some, self.losses.codes(before - after), strict=True):
            codes[at] = code
        return codes

    def _candidates(self, site: Site, columns: Columns, at: int, passing: NDArray[np.bool_]) -> Iterator[Candidate]:
        count, share = self._query.devices.count, self._query.devices.share
        if share is None:
            # Which of the idle devices are taken makes no difference to what is left.
            yield IDLE, 0, site.useful[count:], site.lost, site.idle - count
            return
        free = columns.free_milli[at].tolist()
        open_ = passing[at].nonzero()[0].tolist()
        total = columns.total_mib[at].tolist()
        if count > 1:
            for cell in sorted(open_, key=lambda c: (free[c], c))[:count]:
                free[cell] = _less(free[cell], milli(share, total[cell]))
            yield IDLE, 0, *self._base.rule.split(free), free.count(WHOLE)
            return
        state = columns.state[at].tolist()
        tried: set[tuple[int, int]] = set()
        for cell in open_:
            before, after = free[cell], _less(free[cell], milli(share, total[cell]))
            if (before, after) not in tried:
                tried.add((before, after))
                beside = state[cell] & SHARED
                useful, lost = self._replaced(site, before, after)
                yield BESIDE if beside else IDLE, cell, useful, lost, site.idle - (not beside)

    def _replaced(self, site: Site, before: int, after: int) -> tuple[tuple[int, ...], int]:
        """What is left, useful and lost, when one device has `after` free instead of `before`."""
        part = self._base.rule.useful
        useful, lost = list(site.useful), site.lost + part[before] - before + after - part[after]
        if part[before]:
            useful.remove(part[before])
        if part[after]:
            useful.append(part[after])
            useful.sort(reverse=True)
        return tuple(useful), lost


def _less(free: int, wanted: int) -> int:
    """What is left of a device; one that is shared is never whole again, however small the share."""
    return max(0, min(free - wanted, WHOLE - 1))
