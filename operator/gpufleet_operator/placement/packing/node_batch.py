"""A batch of nodes for vectorized evaluation, one column per node."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

_LINES = 8


class NodeBatch:
    """The properties that fragmentation and multi-GPU capacity depend on."""

    __slots__ = ("capacity", "values")

    def __init__(self, values: Ints, capacity: NDArray[np.int16]) -> None:
        self.values = values
        """(8, nodes): the properties below, in their order."""
        self.capacity = capacity
        """(nodes, types): see MultiGpuCapacity."""

    @classmethod
    def joined(cls, nodes: Sequence["NodeBatch"], types: int) -> "NodeBatch":
        """Concatenates batches."""
        values = [np.zeros((_LINES, 0), np.int64), *(node.values for node in nodes)]
        capacity = [np.zeros((0, types), np.int16), *(node.capacity for node in nodes)]
        return cls(np.concatenate(values, axis=1), np.concatenate(capacity))

    def take(self, at: NDArray[np.intp]) -> "NodeBatch":
        """Returns a selection of the nodes."""
        return NodeBatch(self.values.take(at, axis=1), self.capacity.take(at, axis=0))

    def put(self, at: int, node: "NodeBatch") -> None:
        """Replaces the node in a column."""
        self.values[:, at] = node.values[:, 0]
        self.capacity[at] = node.capacity[0]

    @property
    def group(self) -> Ints:
        """Equal for nodes with equal devices and resources."""
        return _line(self.values, 0)

    @property
    def useful(self) -> Ints:
        """See `Fragmentation.split`."""
        return _line(self.values, 1)

    @property
    def stranded(self) -> Ints:
        """Stranded thousandths: no share of the mix can fill them."""
        return _line(self.values, 2)

    @property
    def idle(self) -> Ints:
        """Number of idle devices."""
        return _line(self.values, 3)

    @property
    def cpu(self) -> Ints:
        """Free CPU in millicores."""
        return _line(self.values, 4)

    @property
    def memory(self) -> Ints:
        """Free memory in bytes."""
        return _line(self.values, 5)

    @property
    def model_class(self) -> Ints:
        """Class of the GPU model."""
        return _line(self.values, 6)

    @property
    def fragmentation(self) -> Ints:
        """Expected fragmentation of the node, in the unit of Fragmentation."""
        return _line(self.values, 7)


def _line(values: Ints, at: int) -> Ints:
    found: Ints = values[at]
    return found
