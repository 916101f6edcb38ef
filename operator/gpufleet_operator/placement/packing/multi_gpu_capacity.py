"""Protects the capacity for pods that need several whole devices.

The price of capacity for a pod type is the type's fraction of the demand for devices divided by the fraction of the
fleet that this capacity is: a rare type with much capacity costs almost nothing, scarce capacity is expensive before it
is gone.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from gpufleet_operator.placement.fleet.columns import Int64s
from gpufleet_operator.placement.fleet.encode import DEVICE_MILLI
from gpufleet_operator.placement.model import PodNeeds
from gpufleet_operator.placement.packing.mix import Mix
from gpufleet_operator.placement.packing.node_batch import NodeBatch
from gpufleet_operator.placement.packing.sample_arrivals import SAMPLES

_WEIGHT = 0.05
"""Weight of lost capacity against fragmentation. Larger values protect capacity earlier, smaller ones pack tighter."""

_MAX_TYPES = 32
"""Protected types: those with the largest demand for devices."""


class MultiGpuCapacity:
    """Capacity per node and protected type: how many pods of the type fit on the node."""

    def __init__(self, mix: Mix, classes: Mapping[str, int]) -> None:
        demand = {t: p * t.devices * t.milli for t, p in zip(mix.types, mix.parts, strict=True)}
        several = [t for t in mix.types if t.devices > 1 and t.milli == DEVICE_MILLI]
        self.types = sorted(several, key=lambda t: -demand[t])[:_MAX_TYPES]
        model_classes = max(classes.values(), default=0) + 1
        takes = [(t.devices, max(1, t.cpu_milli), max(1, t.memory_bytes)) for t in self.types]
        self._takes = np.array(takes, np.float64).reshape(-1, 3).T[:, None, None, :].copy()
        """(3, 1, 1, types)."""
        self._accepted = np.zeros((model_classes, len(self.types)), np.bool_)
        for column, pod_type in enumerate(self.types):
            named = {classes[model] for model in pod_type.models}
            self._accepted[:, column] = [not pod_type.models or k in named for k in range(model_classes)]
        self._all_accepted = bool(self._accepted.all())
        self._demand = np.array([demand[t] for t in self.types]) * _WEIGHT * SAMPLES

    def count(self, idle: Int64s, nodes: NodeBatch, pod: PodNeeds | None = None) -> NDArray[np.int16]:
        """Returns (cases, nodes, types): pods of each type that fit in addition to `pod` with these idle devices.

        Args:
            idle: Idle devices, (cases, nodes).
            nodes: The nodes.
            pod: A pod whose CPU and memory are subtracted first.
        """
        # Quotients of integers below 2**53 are exact after rounding down; the smallest is the number of pods that fit.
        room = np.empty((3, *idle.shape, 1))
        room[0, :, :, 0] = idle
        room[1, :, :, 0] = nodes.cpu if pod is None else nodes.cpu - pod.cpu_milli
        room[2, :, :, 0] = nodes.memory if pod is None else nodes.memory - pod.memory_bytes
        capacity = np.minimum.reduce(room / self._takes)
        found: NDArray[np.int16] = np.maximum(capacity, 0, out=capacity).astype(np.int16)
        if not self._all_accepted:
            found *= self._accepted[nodes.model_class]
        return found

    def prices(self, capacity: Int64s, devices: int) -> NDArray[np.float64]:
        """Returns (types,): the price of capacity for one pod in the unit of Fragmentation."""
        return self._demand * devices / np.maximum(capacity, 1)
