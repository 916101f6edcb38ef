"""The fleet as Pack sees it under one mix: each node's expected waste and places, kept up to date row by row."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpufleet_operator.placement.columns import PRESENT, Columns, Rows
from gpufleet_operator.placement.fleet import Fleet
from gpufleet_operator.placement.packing.mix import Mix
from gpufleet_operator.placement.packing.slots import Slots
from gpufleet_operator.placement.packing.waste import Waste
from gpufleet_operator.placement.rows import WHOLE

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class States:
    """Nodes as they are, or as they would be: the first axis of every array is the state."""

    free: NDArray[np.int16]
    cpu: Ints
    memory: Ints
    kind: Ints


class Landscape:
    """`waste` and `places` are per row; `total` are the places of the whole fleet."""

    def __init__(self, mix: Mix) -> None:
        self.rule = Waste(mix)
        self.slots = Slots(mix, self.rule.classes)
        self.waste: Ints = np.zeros(0, np.int64)
        self.places: NDArray[np.int16] = np.zeros((0, 0), np.int16)
        self.total: Ints = np.zeros(0, np.int64)
        self.devices = 0
        self._kinds: Ints = np.zeros(1, np.int64)
        self._version = -1

    def update(self, fleet: Fleet) -> None:
        """Look again at the rows that changed since the last time."""
        if self._version == fleet.version:
            return
        columns = fleet.columns
        changed = fleet.changes.since(self._version)
        if len(self._kinds) != len(fleet.models) + 1:
            self._kinds = np.zeros(len(fleet.models) + 1, np.int64)
            for model, code in fleet.models.items():
                self._kinds[code] = self.rule.classes.get(model, 0)
        if changed is None or len(self.waste) != columns.rows:
            states = self.states(columns, slice(None))
            self.waste = self.expected_waste(states)
            self.places = self.count_places(states) * columns.fresh[:, None]
            self.total = self.places.sum(axis=0, dtype=np.int64)
            self.devices = int(((columns.state & PRESENT) != 0).sum())
        else:
            at = np.array(changed, np.intp)
            states = self.states(columns, at)
            self.waste[at] = self.expected_waste(states)
            places = self.count_places(states) * columns.fresh[at][:, None]
            self.total += (places - self.places[at]).sum(axis=0, dtype=np.int64)
            self.places[at] = places
        self._version = fleet.version

    def states(self, columns: Columns, at: Rows) -> States:
        """Some rows as they are."""
        return States(columns.free_milli[at], columns.cpu[at], columns.memory[at], self._kinds[columns.model[at][:, 0]])

    def expected_waste(self, states: States) -> Ints:
        """See Waste."""
        return self.rule.of(states.free, states.cpu, states.memory, states.kind)

    def count_places(self, states: States) -> NDArray[np.int16]:
        """See Slots."""
        idle = (states.free == WHOLE).sum(axis=1)
        return self.slots.count(idle, states.cpu, states.memory, states.kind)

    def prices(self, total: Ints) -> NDArray[np.float64]:
        """See Slots."""
        return self.slots.prices(total, self.devices)


def landscape(fleet: Fleet, mix: Mix) -> Landscape:
    """The fleet's landscape under this mix, up to date."""
    found = fleet.cache.get(("landscape", id(mix)))
    if not isinstance(found, _Kept) or found.mix is not mix:
        found = fleet.cache["landscape", id(mix)] = _Kept(mix, Landscape(mix))
    found.landscape.update(fleet)
    return found.landscape


@dataclass(frozen=True, slots=True)
class _Kept:
    """Holds the mix beside what was made of it, so that its id can't become another's."""

    mix: Mix
    landscape: Landscape
