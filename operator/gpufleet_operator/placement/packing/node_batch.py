"""Nodes as Pack looks at them, many at once: one column each."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

_LINES = 8


class NodeBatch:
    """Some nodes: all that their expected waste and their places depend on."""

    __slots__ = ("places", "values")

    def __init__(self, values: Ints, places: NDArray[np.int16]) -> None:
        self.values = values
        """(8, nodes): the properties below, in their order."""
        self.places = places
        """(nodes, types): see Slots."""

    @classmethod
    def joined(cls, sites: Sequence["NodeBatch"], types: int) -> "NodeBatch":
        """These, one beside the other."""
        values = [np.zeros((_LINES, 0), np.int64), *(site.values for site in sites)]
        places = [np.zeros((0, types), np.int16), *(site.places for site in sites)]
        return cls(np.concatenate(values, axis=1), np.concatenate(places))

    def take(self, at: NDArray[np.intp]) -> "NodeBatch":
        """Some of them."""
        return NodeBatch(self.values.take(at, axis=1), self.places.take(at, axis=0))

    def put(self, at: int, site: "NodeBatch") -> None:
        """Another node in this column."""
        self.values[:, at] = site.values[:, 0]
        self.places[at] = site.places[0]

    @property
    def alike(self) -> Ints:
        """The same for nodes whose devices and room are the same."""
        return _line(self.values, 0)

    @property
    def useful(self) -> Ints:
        """See Waste.split."""
        return _line(self.values, 1)

    @property
    def lost(self) -> Ints:
        """Thousandths of the node's devices that nobody can fill."""
        return _line(self.values, 2)

    @property
    def idle(self) -> Ints:
        """How many of its devices are."""
        return _line(self.values, 3)

    @property
    def cpu(self) -> Ints:
        """Room beside the devices, millicores."""
        return _line(self.values, 4)

    @property
    def memory(self) -> Ints:
        """The same in bytes."""
        return _line(self.values, 5)

    @property
    def kind(self) -> Ints:
        """Class of the devices' model."""
        return _line(self.values, 6)

    @property
    def waste(self) -> Ints:
        """Expected, of all of its devices, in the unit of Waste."""
        return _line(self.values, 7)


def _line(values: Ints, at: int) -> Ints:
    found: Ints = values[at]
    return found
