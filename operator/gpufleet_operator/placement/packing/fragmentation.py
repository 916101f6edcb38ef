"""What of a node would stay idle: each stream of likely pods is offered to it, and what is left is counted.

This is the worth that Pack goes by. A pod goes where this expected waste grows least, so what is left of each node
stays of use to what is likely to come; CPU and memory beside the devices count as they limit what still fits.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from gpufleet_operator.placement.fleet.encode import DEVICE_MILLI
from gpufleet_operator.placement.packing.mix import Mix
from gpufleet_operator.placement.packing.sample_arrivals import MIB, sample_arrivals
from gpufleet_operator.placement.packing.simulation import Simulation, State

Ints = NDArray[np.int64]

_BATCH = 64
"""States that are simulated at once."""

_REMEMBERED = 100_000
"""States whose waste is remembered, and useful parts that have a number."""

_RARE = 0.002
"""Shares asked for less often than this part of all shares don't make a rest useful."""

_PART_BITS = 10
"""Bits of a part of a device in thousandths."""


class Fragmentation:
    """Expected waste of states under one mix, in thousandths of a device times STREAMS; remembered.

    States go by numbers, so that many can be put together in arrays: what is useful of a node's devices has a number
    (see `split`), its CPU and memory together have one (`rooms`), and both of them and the class of its model make a
    key (`keys`), whose waste is asked for (`of`). They hold until `tidy` says otherwise.
    """

    def __init__(self, mix: Mix) -> None:
        offered = sample_arrivals(mix)
        self.classes = offered.classes
        self.useful = np.array(_useful_rests(mix), np.int64)
        """For each free part of a device in thousandths: the most of it that shares of the mix can fill."""
        self.generation = 0
        """Rises when numbers and keys become void."""
        self._useful: list[int] = self.useful.tolist()
        self._simulation = simulation = Simulation(offered)
        self._kinds = max(self.classes.values(), default=0) + 1
        self._memory_step = simulation.memory_step * MIB
        self._most_memory = simulation.most_memory * MIB
        self._memories = simulation.most_memory // simulation.memory_step + 1
        self._rooms = (simulation.most_cpu // simulation.cpu_step + 1) * self._memories
        self._known: dict[int, int] = {}
        self._ranges: dict[int, list[tuple[int, int, int, int, int]]] = {}
        """By useful parts and class of model: least and most CPU, least and most memory, in steps, and the waste of all
        nodes between: with less room than one that is known, but not less than was taken there."""
        self._numbers: dict[tuple[int, ...], int] = {}
        self._tuples: list[tuple[int, ...]] = []
        self._without: dict[int, dict[int, int]] = {}
        self._replaced: dict[int, int] = {}

    def tidy(self) -> None:
        """Forget numbers when there are too many: between decisions, as all that were given out become void."""
        if len(self._tuples) > _REMEMBERED:
            for kept in (self._known, self._ranges, self._numbers, self._without, self._replaced):
                kept.clear()
            self._tuples.clear()
            self.generation += 1

    def split(self, free: Iterable[int]) -> tuple[int, int]:
        """The number of what is useful of devices with so many thousandths free, and how many nobody can fill."""
        useful, lost = [], 0
        for milli in free:
            if milli:
                part = self._useful[milli]
                lost += milli - part
                if part:
                    useful.append(part)
        useful.sort(reverse=True)
        return self._number(tuple(useful)), lost

    def without(self, numbers: Ints, count: int) -> Ints:
        """`split` without the largest `count` devices."""
        known = self._without.setdefault(count, {})
        wanted = numbers.tolist()
        found = list(map(known.get, wanted))
        if None in found:
            for number in wanted:
                if number not in known:
                    known[number] = self._number(self._tuples[number][count:])
            found = [known[number] for number in wanted]
        return np.array(found, np.int64)

    def replaced(self, numbers: Ints, gone: Ints, come: Ints) -> Ints:
        """`split` with the useful part `come` (0: nothing) in place of `gone`."""
        known = self._replaced
        wanted: list[int] = ((numbers << 2 * _PART_BITS) | (gone << _PART_BITS) | come).tolist()
        found = list(map(known.get, wanted))
        if None in found:
            if len(known) > _REMEMBERED:
                known.clear()
            for key in wanted:
                if key not in known:
                    known[key] = self._replace(key)
            found = [known[key] for key in wanted]
        return np.array(found, np.int64)

    def rooms(self, cpu: Ints, memory: Ints) -> Ints:
        """The number of so much CPU (millicores) and memory (bytes), in steps."""
        simulation = self._simulation
        cpu_step, memory_step = simulation.cpu_step, self._memory_step
        cpus = np.maximum(np.minimum(cpu, simulation.most_cpu), 0) // cpu_step
        found: Ints = np.maximum(np.minimum(memory, self._most_memory), 0) // memory_step
        cpus *= self._memories
        found += cpus
        return found

    def keys(self, numbers: Ints, kinds: Ints, rooms: Ints) -> Ints:
        """States."""
        found = numbers * self._kinds
        found += kinds
        found *= self._rooms
        found += rooms
        return found

    def of_one(self, number: int, kind: int, cpu: int, memory: int) -> int:
        """`of` for a single state: the same in plain integers, which is many times as fast."""
        simulation = self._simulation
        cpu_step, memory_step = simulation.cpu_step, self._memory_step
        cpus = max(min(cpu, simulation.most_cpu), 0) // cpu_step
        memories = max(min(memory, self._most_memory), 0) // memory_step
        key = (number * self._kinds + kind) * self._rooms + cpus * self._memories + memories
        found = self._known.get(key)
        return int(self.of(np.array([key]))[0]) if found is None else found

    def of(self, keys: Ints) -> Ints:
        """The expected waste of each state."""
        known = self._known
        wanted: list[int] = keys.tolist()
        found = list(map(known.get, wanted))
        if None in found:
            new = [key for key, value in zip(wanted, found, strict=True) if value is None]
            if len(known) > _REMEMBERED:
                known.clear()
                self._ranges.clear()
                new = wanted
            self._learn(dict.fromkeys(new))
            found = [known[key] for key in wanted]
        return np.array(found, np.int64)

    def _learn(self, keys: Iterable[int]) -> None:
        known, ranges, every, kinds, memories = self._known, self._ranges, self._rooms, self._kinds, self._memories
        unknown = []
        for key in keys:
            group, room = divmod(key, every)
            cpu, memory = divmod(room, memories)
            for least_cpu, most_cpu, least_memory, most_memory, value in ranges.get(group, ()):
                if least_cpu <= cpu <= most_cpu and least_memory <= memory <= most_memory:
                    known[key] = value
                    break
            else:
                unknown.append((key, (self._tuples[group // kinds], cpu, memory, group % kinds)))
        for first in range(0, len(unknown), _BATCH):
            self._simulate(unknown[first : first + _BATCH])

    def _simulate(self, unknown: Sequence[tuple[int, State]]) -> None:
        found = self._simulation.run([state for _, state in unknown])
        for (key, (_, cpu, memory, _)), (value, least_cpu, least_memory) in zip(unknown, found, strict=True):
            self._known[key] = value
            range_ = (least_cpu, cpu, least_memory, memory, value)
            self._ranges.setdefault(key // self._rooms, []).append(range_)

    def _number(self, useful: tuple[int, ...]) -> int:
        found = self._numbers.get(useful)
        if found is None:
            found = self._numbers[useful] = len(self._tuples)
            self._tuples.append(useful)
        return found

    def _replace(self, key: int) -> int:
        gone, come = key >> _PART_BITS & (1 << _PART_BITS) - 1, key & (1 << _PART_BITS) - 1
        left = list(self._tuples[key >> 2 * _PART_BITS])
        if gone:
            left.remove(gone)
        if come:
            left.append(come)
            left.sort(reverse=True)
        return self._number(tuple(left))


def _useful_rests(mix: Mix) -> tuple[int, ...]:
    shares: dict[int, float] = {}
    for kind, part in zip(mix.types, mix.parts, strict=True):
        if kind.devices and kind.milli < DEVICE_MILLI:
            shares[kind.milli] = shares.get(kind.milli, 0.0) + part
    least = _RARE * sum(shares.values())
    asked = [milli for milli, part in shares.items() if part >= least]
    reachable = np.zeros(DEVICE_MILLI + 1, np.bool_)
    reachable[0] = True
    for size in range(1, DEVICE_MILLI + 1):
        reachable[size] = any(size >= milli and reachable[size - milli] for milli in asked)
    useful: list[int] = np.maximum.accumulate(np.where(reachable, np.arange(DEVICE_MILLI + 1), 0)).tolist()
    return (*useful[:DEVICE_MILLI], DEVICE_MILLI)
