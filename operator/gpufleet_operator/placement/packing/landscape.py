"""The fleet as Pack sees it under one mix: each node's expected waste and places, kept up to date row by row."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from gpufleet_operator.placement.columns import Columns
from gpufleet_operator.placement.fleet import Fleet
from gpufleet_operator.placement.packing.mix import Mix
from gpufleet_operator.placement.packing.slots import Slots
from gpufleet_operator.placement.packing.streams import STREAMS
from gpufleet_operator.placement.packing.waste import Waste
from gpufleet_operator.placement.rows import WHOLE

Ints = NDArray[np.int64]

_KEPT = 4
"""Mixes whose landscapes a fleet keeps."""

_REMEMBERED = 100_000
"""Nodes that were seen, in whatever state."""


@dataclass(slots=True)
class Site:
    """One node. Not changed: another takes its place."""

    alike: int
    """The same for nodes whose devices and room are the same."""
    useful: tuple[int, ...]
    """See State."""
    lost: int
    """Thousandths of its devices that nobody can fill."""
    idle: int
    """Idle devices, which are the first ones of `useful`."""
    cpu: int
    memory: int
    kind: int
    waste: int
    """Expected, of all of its devices, in the unit of Waste."""
    places: NDArray[np.int16]
    """By type, see Slots."""


class Landscape:
    """`sites` and `places` are per row; `total` are the places of the whole fleet."""

    def __init__(self, mix: Mix) -> None:
        self.mix = mix
        self.rule = _rule(mix)
        self.slots = Slots(mix, self.rule.classes)
        self.sites: list[Site] = []
        self.alike: Ints = np.zeros(0, np.int64)
        self.places: NDArray[np.int16] = np.zeros((0, len(self.slots.types)), np.int16)
        self.total: Ints = np.zeros(len(self.slots.types), np.int64)
        self._none: NDArray[np.int16] = np.zeros(len(self.slots.types), np.int16)
        self.devices = 0
        self._kinds: list[int] = []
        self._looks: dict[tuple[object, ...], Site] = {}
        self._seen = 0
        self._version = -1

    def update(self, fleet: Fleet) -> None:
        """Look again at the rows that changed since the last time."""
        if self._version == fleet.version:
            return
        columns = fleet.columns
        changed = fleet.changes.since(self._version)
        if len(self._kinds) != len(fleet.models):
            self._kinds = [self.rule.classes.get(model, 0) for model in fleet.models]
        if changed is None or len(self.sites) != columns.rows:
            self.sites = [self.site(columns, row) for row in range(columns.rows)]
            self.alike = np.array([site.alike for site in self.sites], np.int64)
            self.places = np.array([site.places for site in self.sites]).reshape(columns.rows, -1)
            self.places[~columns.fresh] = 0
            self.total = self.places.sum(axis=0, dtype=np.int64)
        else:
            for row in changed:
                site = self.sites[row] = self.site(columns, row)
                self.alike[row] = site.alike
                places = site.places if columns.fresh[row] else 0
                self.total += places - self.places[row]
                self.places[row] = places
        self.devices = len(fleet.where)
        self._version = fleet.version

    def site(self, columns: Columns, row: int) -> Site:
        """One row as it is."""
        free = columns.free_milli[row].tolist()
        cpu, memory = int(columns.cpu[row]), int(columns.memory[row])
        kind = self._kinds[columns.model[row, 0]] if self._kinds else 0
        looks = (tuple(free), cpu, memory, kind, columns.state[row].tobytes(), columns.total_mib[row].tobytes())
        known = self._looks.get(looks)
        if known is not None:
            return known
        useful, lost = self.rule.split(free)
        waste = lost * STREAMS + self.rule.of([(useful, *self.rule.steps(cpu, memory), kind)])[0]
        self._seen += 1
        idle = free.count(WHOLE)
        places = self.slots.count([(idle, cpu, memory)], [kind])[0] if idle > 1 else self._none
        site = Site(self._seen, useful, lost, idle, cpu, memory, kind, waste, places)
        if len(self._looks) > _REMEMBERED:
            self._looks.clear()
        self._looks[looks] = site
        return site

    def prices(self, total: Ints) -> NDArray[np.float64]:
        """See Slots."""
        return self.slots.prices(total, self.devices)


@lru_cache(maxsize=2)
def _rule(mix: Mix) -> Waste:
    """Kept beyond the fleet: the operator makes a new one for every pass, and the nodes are mostly as they were."""
    return Waste(mix)


def landscape(fleet: Fleet, mix: Mix) -> Landscape:
    """The fleet's landscape under this mix, up to date."""
    # It holds its mix, so that the mix's id can't become another's while it is kept.
    found = fleet.cache.get(Landscape, id(mix), lambda: Landscape(mix), _KEPT)
    found.update(fleet)
    return found
