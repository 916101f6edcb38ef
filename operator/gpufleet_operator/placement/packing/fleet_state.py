"""The fleet as Pack sees it under one mix: each node's expected waste and places, kept up to date row by row."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from gpufleet_operator.placement.fleet.columns import Columns
from gpufleet_operator.placement.fleet.encode import DEVICE_MILLI
from gpufleet_operator.placement.fleet.fleet import Fleet
from gpufleet_operator.placement.packing.fragmentation import Fragmentation
from gpufleet_operator.placement.packing.mix import Mix
from gpufleet_operator.placement.packing.multi_gpu_capacity import MultiGpuCapacity
from gpufleet_operator.placement.packing.node_batch import NodeBatch
from gpufleet_operator.placement.packing.sample_arrivals import SAMPLES

Ints = NDArray[np.int64]

_KEPT = 4
"""Mixes whose landscapes a fleet keeps."""

_REMEMBERED = 100_000
"""Nodes that were seen, in whatever state."""


class PackingState:
    """`sites` are per row; `places` too, but without those of nodes that may not be used; `total` is their sum."""

    def __init__(self, mix: Mix) -> None:
        self.mix = mix
        self.rule = _rule(mix)
        self.slots = MultiGpuCapacity(mix, self.rule.classes)
        self.sites = NodeBatch.joined((), len(self.slots.types))
        self.places = self.sites.places
        self.total: Ints = np.zeros(len(self.slots.types), np.int64)
        self.devices = 0
        self._none = np.zeros((1, len(self.slots.types)), np.int16)
        self._kinds: list[int] = []
        self._looks: dict[tuple[object, ...], NodeBatch] = {}
        self._seen = 0
        self._version = self._generation = -1

    def update(self, fleet: Fleet) -> None:
        """Look again at the rows that changed since the last time."""
        self.rule.tidy()
        if self._generation != self.rule.generation:
            self._version, self._generation = -1, self.rule.generation
            self._looks.clear()
        if self._version == fleet.version:
            return
        columns = fleet.columns
        changed = fleet.changes.since(self._version)
        if len(self._kinds) != len(fleet.models):
            self._kinds = [self.rule.classes.get(model, 0) for model in fleet.models]
        if changed is None or self._version < 0 or len(self.places) != columns.rows:
            self.sites = NodeBatch.joined(
                [self.site(columns, row) for row in range(columns.rows)], len(self.slots.types)
            )
            self.places = self.sites.places.copy()
            self.places[~columns.fresh] = 0
            self.total = self.places.sum(axis=0, dtype=np.int64)
        else:
            for row in changed:
                site = self.site(columns, row)
                self.sites.put(row, site)
                places = site.places[0] if columns.fresh[row] else 0
                self.total += places - self.places[row]
                self.places[row] = places
        self.devices = len(fleet.where)
        self._version = fleet.version

    def site(self, columns: Columns, row: int) -> NodeBatch:
        """One row as it is."""
        free = columns.free_milli[row].tolist()
        cpu, memory = int(columns.cpu[row]), int(columns.memory[row])
        kind = self._kinds[columns.model[row, 0]] if self._kinds else 0
        looks = (tuple(free), cpu, memory, kind, columns.state[row].tobytes(), columns.total_mib[row].tobytes())
        known = self._looks.get(looks)
        if known is not None:
            return known
        useful, lost = self.rule.split(free)
        idle = free.count(DEVICE_MILLI)
        self._seen += 1
        waste = lost * SAMPLES + self.rule.of_one(useful, kind, cpu, memory)
        values = np.array([self._seen, useful, lost, idle, cpu, memory, kind, waste], np.int64)[:, None]
        site = NodeBatch(values, self._none)
        if idle > 1:
            site.places = self.slots.count(site.idle[None], site)[0]
        if len(self._looks) > _REMEMBERED:
            self._looks.clear()
        self._looks[looks] = site
        return site

    def prices(self, total: Ints) -> NDArray[np.float64]:
        """See MultiGpuCapacity."""
        return self.slots.prices(total, self.devices)


@lru_cache(maxsize=2)
def _rule(mix: Mix) -> Fragmentation:
    """Kept beyond the fleet: the operator makes a new one for every pass, and the nodes are mostly as they were."""
    return Fragmentation(mix)


def packing_state(fleet: Fleet, mix: Mix) -> PackingState:
    """The fleet's landscape under this mix, up to date."""
    # It holds its mix, so that the mix's id can't become another's while it is kept.
    found = fleet.cache.get(PackingState, id(mix), lambda: PackingState(mix), _KEPT)
    found.update(fleet)
    return found
