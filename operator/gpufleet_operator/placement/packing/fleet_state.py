"""Fragmentation and multi-GPU capacity of every node under one mix, updated row by row."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from gpufleet_operator.placement.fleet.columns import Columns, Int64s
from gpufleet_operator.placement.fleet.encode import DEVICE_MILLI
from gpufleet_operator.placement.fleet.fleet import Fleet
from gpufleet_operator.placement.packing.fragmentation import Fragmentation
from gpufleet_operator.placement.packing.mix import Mix
from gpufleet_operator.placement.packing.multi_gpu_capacity import MultiGpuCapacity
from gpufleet_operator.placement.packing.node_batch import NodeBatch
from gpufleet_operator.placement.packing.sample_arrivals import SAMPLES

_MAX_MEMOIZED = 4
"""Mixes whose state a fleet keeps."""

_MAX_STATES = 100_000
"""Memoized node states."""


class PackingState:
    """`nodes` and `capacity` are per row; `capacity` is 0 for nodes with stale telemetry; `total` is its sum."""

    def __init__(self, mix: Mix) -> None:
        self.mix = mix
        self.model = _rule(mix)
        self.multi_gpu = MultiGpuCapacity(mix, self.model.classes)
        self.nodes = NodeBatch.joined((), len(self.multi_gpu.types))
        self.capacity = self.nodes.capacity
        self.total: Int64s = np.zeros(len(self.multi_gpu.types), np.int64)
        self.devices = 0
        self._none = np.zeros((1, len(self.multi_gpu.types)), np.int16)
        self._model_classes: list[int] = []
        self._states: dict[tuple[object, ...], NodeBatch] = {}
        self._seen = 0
        self._version = self._generation = -1

    def update(self, fleet: Fleet) -> None:
        """Updates the rows that changed since the last call."""
        self.model.evict()
        if self._generation != self.model.generation:
            self._version, self._generation = -1, self.model.generation
            self._states.clear()
        if self._version == fleet.version:
            return
        columns = fleet.columns
        changed = fleet.changes.since(self._version)
        if len(self._model_classes) != len(fleet.models):
            self._model_classes = [self.model.classes.get(model, 0) for model in fleet.models]
        if changed is None or self._version < 0 or len(self.capacity) != columns.rows:
            self.nodes = NodeBatch.joined(
                [self.node(columns, row) for row in range(columns.rows)], len(self.multi_gpu.types)
            )
            self.capacity = self.nodes.capacity.copy()
            self.capacity[~columns.fresh] = 0
            self.total = self.capacity.sum(axis=0, dtype=np.int64)
        else:
            for row in changed:
                node = self.node(columns, row)
                self.nodes.put(row, node)
                capacity = node.capacity[0] if columns.fresh[row] else 0
                self.total += capacity - self.capacity[row]
                self.capacity[row] = capacity
        self.devices = len(fleet.where)
        self._version = fleet.version

    def node(self, columns: Columns, row: int) -> NodeBatch:
        """Returns the current state of one row."""
        free = columns.free_milli[row].tolist()
        cpu, memory = int(columns.cpu[row]), int(columns.memory[row])
        model_class = self._model_classes[columns.model[row, 0]] if self._model_classes else 0
        key = (tuple(free), cpu, memory, model_class, columns.state[row].tobytes(), columns.total_mib[row].tobytes())
        known = self._states.get(key)
        if known is not None:
            return known
        useful, stranded = self.model.split(free)
        idle = free.count(DEVICE_MILLI)
        self._seen += 1
        fragmentation = stranded * SAMPLES + self.model.of_one(useful, model_class, cpu, memory)
        values = np.array([self._seen, useful, stranded, idle, cpu, memory, model_class, fragmentation], np.int64)[
            :, None
        ]
        node = NodeBatch(values, self._none)
        if idle > 1:
            node.capacity = self.multi_gpu.count(node.idle[None], node)[0]
        if len(self._states) > _MAX_STATES:
            self._states.clear()
        self._states[key] = node
        return node

    def prices(self, total: Int64s) -> NDArray[np.float64]:
        """See MultiGpuCapacity."""
        return self.multi_gpu.prices(total, self.devices)


@lru_cache(maxsize=2)
def _rule(mix: Mix) -> Fragmentation:
    """Outlives the fleet: the operator builds a new fleet in every pass, with mostly unchanged nodes."""
    return Fragmentation(mix)


def packing_state(fleet: Fleet, mix: Mix) -> PackingState:
    """Returns the fleet's up-to-date packing state under this mix."""
    # The value holds its mix, so that the id of the mix is not reused while the value is memoized.
    found = fleet.memo.get(PackingState, id(mix), lambda: PackingState(mix), _MAX_MEMOIZED)
    found.update(fleet)
    return found
