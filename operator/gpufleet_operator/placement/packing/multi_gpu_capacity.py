"""What it costs to take one of the last places where a pod that needs several whole devices could go.

The price of a place is that pod's part of the demand for devices, over the part of the fleet that its places are: a
rare pod with plenty of places costs next to nothing, one with few places left is protected before they are gone.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from gpufleet_operator.placement.fleet.encode import DEVICE_MILLI
from gpufleet_operator.placement.model import PodNeeds
from gpufleet_operator.placement.packing.mix import Mix
from gpufleet_operator.placement.packing.node_batch import NodeBatch
from gpufleet_operator.placement.packing.sample_arrivals import SAMPLES

_WEIGHT = 0.05
"""Of a lost place against waste. Larger protects places earlier, smaller packs tighter."""

_MOST_TYPES = 32
"""Types that are protected: those with the largest demand for devices."""

Ints = NDArray[np.int64]


class MultiGpuCapacity:
    """Places per node and type. Types are in the columns."""

    def __init__(self, mix: Mix, classes: Mapping[str, int]) -> None:
        demand = {t: p * t.devices * t.milli for t, p in zip(mix.types, mix.parts, strict=True)}
        several = [t for t in mix.types if t.devices > 1 and t.milli == DEVICE_MILLI]
        self.types = sorted(several, key=lambda t: -demand[t])[:_MOST_TYPES]
        kinds = max(classes.values(), default=0) + 1
        takes = [(t.devices, max(1, t.cpu_milli), max(1, t.memory_bytes)) for t in self.types]
        self._takes = np.array(takes, np.float64).reshape(-1, 3).T[:, None, None, :].copy()
        """(3, 1, 1, types)."""
        self._accepted = np.zeros((kinds, len(self.types)), np.bool_)
        for column, kind in enumerate(self.types):
            named = {classes[model] for model in kind.models}
            self._accepted[:, column] = [not kind.models or k in named for k in range(kinds)]
        self._all_accepted = bool(self._accepted.all())
        self._demand = np.array([demand[t] for t in self.types]) * _WEIGHT * SAMPLES

    def count(self, idle: Ints, sites: NodeBatch, pod: PodNeeds | None = None) -> NDArray[np.int16]:
        """(cases, nodes, types): pods of each type that fit on nodes with so many devices idle, beside one more pod.

        Args:
            idle: (cases, nodes).
            sites: the nodes.
            pod: takes of their CPU and memory.
        """
        # Quotients of whole numbers below 2**53 round down to the right one, and the least of them is what fits.
        room = np.empty((3, *idle.shape, 1))
        room[0, :, :, 0] = idle
        room[1, :, :, 0] = sites.cpu if pod is None else sites.cpu - pod.cpu_milli
        room[2, :, :, 0] = sites.memory if pod is None else sites.memory - pod.memory_bytes
        places = np.minimum.reduce(room / self._takes)
        found: NDArray[np.int16] = np.maximum(places, 0, out=places).astype(np.int16)
        if not self._all_accepted:
            found *= self._accepted[sites.kind]
        return found

    def prices(self, places: Ints, devices: int) -> NDArray[np.float64]:
        """(types,): the price of one place, in the unit of Waste, when the fleet of `devices` has so many."""
        return self._demand * devices / np.maximum(places, 1)
