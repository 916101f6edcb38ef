"""A batch of nodes for vectorized evaluation, one column per node."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gpufleet_operator.placement.fleet.columns import Int64s

_LINES = 8


class NodeBatch:
    """The properties that fragmentation and multi-GPU capacity depend on."""

    __slots__ = ("capacity", "values")

    def __init__(self, values: Int64s, capacity: NDArray[np.int16]) -> None:
        self.values = values
        """(8, nodes): the properties below, in their order."""
        self.capacity = capacity
        """(nodes, types): see MultiGpuCapacity."""

    @classmethod
    def joined(cls, nodes: Sequence["NodeBatch"], types: int) -> "NodeBatch":
        values = [np.zeros((_LINES, 0), np.int64), *(node.values for node in nodes)]
        capacity = [np.zeros((0, types), np.int16), *(node.capacity for node in nodes)]
        return cls(np.concatenate(values, axis=1), np.concatenate(capacity))

    def take(self, at: NDArray[np.intp]) -> "NodeBatch":
        return NodeBatch(self.values.take(at, axis=1), self.capacity.take(at, axis=0))

    def put(self, at: int, node: "NodeBatch") -> None:
        """Replaces the node in a column."""
        self.values[:, at] = node.values[:, 0]
        self.capacity[at] = node.capacity[0]

    @property
    def group(self) -> Int64s:
        """Equal for nodes with equal devices and resources."""
        return _line(self.values, 0)

    @property
    def useful(self) -> Int64s:
        """See `Fragmentation.split`."""
        return _line(self.values, 1)

    @property
    def stranded(self) -> Int64s:
        """Stranded thousandths: no share of the mix can fill them."""
        return _line(self.values, 2)

    @property
    def idle(self) -> Int64s:
        return _line(self.values, 3)

    @property
    def cpu(self) -> Int64s:
        """Free CPU in millicores."""
        return _line(self.values, 4)

    @property
    def memory(self) -> Int64s:
        """Free memory in bytes."""
        return _line(self.values, 5)

    @property
    def model_class(self) -> Int64s:
        return _line(self.values, 6)

    @property
    def fragmentation(self) -> Int64s:
        """Expected fragmentation of the node, in the unit of Fragmentation."""
        return _line(self.values, 7)


def _line(values: Int64s, at: int) -> Int64s:
    found: Int64s = values[at]
    return found
