"""Expected fragmentation of a node: the GPU capacity left idle after sample arrivals are placed on it.

Strategy Pack places a pod where the fragmentation grows least, so that the rest of each node stays usable for expected
pods (Weng et al., Beware of Fragmentation, ATC 2023). CPU and memory count because they limit which pods fit.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from gpufleet_common.units import BYTES_PER_MIB
from gpufleet_operator.placement.fleet.columns import Int64s
from gpufleet_operator.placement.fleet.encode import DEVICE_MILLI
from gpufleet_operator.placement.packing.mix import Mix
from gpufleet_operator.placement.packing.sample_arrivals import sample_arrivals
from gpufleet_operator.placement.packing.simulation import Simulation, State

_BATCH = 64
"""States per simulation."""

_MAX_STATES = 100_000
"""Memoized states and numbered tuples of useful parts."""

_MIN_SHARE_FRACTION = 0.002
"""A rest of a device is useful if it fits shares that make up at least this fraction of all shares."""

_PART_BITS = 10
"""Bits of a part of a device in thousandths."""


class Fragmentation:
    """Expected fragmentation of node states under one mix, in thousandths of a device times SAMPLES, memoized.

    States are numbers, so that arrays can hold many of them: the useful parts of a node's devices have a number
    (`split`), its CPU and memory have one (`resource_bins`), and both with the class of its GPU model form a key
    (`keys`), whose fragmentation is computed by `of`. Numbers and keys are valid until `generation` changes.
    """

    def __init__(self, mix: Mix) -> None:
        offered = sample_arrivals(mix)
        self.classes = offered.classes
        self.useful = np.array(_useful_rests(mix), np.int64)
        """By free thousandths of a device: the most of them that shares of the mix can fill."""
        self.generation = 0
        """Increases when numbers and keys become invalid."""
        self._useful: list[int] = self.useful.tolist()
        self._simulation = simulation = Simulation(offered)
        self._model_classes = max(self.classes.values(), default=0) + 1
        self._memory_step = simulation.memory_step * BYTES_PER_MIB
        self._most_memory = simulation.max_memory * BYTES_PER_MIB
        self._memories = simulation.max_memory // simulation.memory_step + 1
        self._resource_bins = (simulation.max_cpu // simulation.cpu_step + 1) * self._memories
        self._known: dict[int, int] = {}
        self._ranges: dict[int, list[tuple[int, int, int, int, int]]] = {}
        """By useful parts and class of model: minimum and maximum CPU and memory in steps, and the fragmentation of
        all nodes between: with fewer resources than a simulated node, but not fewer than were taken there."""
        self._numbers: dict[tuple[int, ...], int] = {}
        self._tuples: list[tuple[int, ...]] = []
        self._without: dict[int, dict[int, int]] = {}
        self._replaced: dict[int, int] = {}

    def evict(self) -> None:
        """Discards all numbers if there are too many. Only between decisions: existing numbers become invalid."""
        if len(self._tuples) > _MAX_STATES:
            for kept in (self._known, self._ranges, self._numbers, self._without, self._replaced):
                kept.clear()
            self._tuples.clear()
            self.generation += 1

    def split(self, free: Iterable[int]) -> tuple[int, int]:
        """Returns the number of the useful parts of devices with these free thousandths, and the stranded rest."""
        useful, stranded = [], 0
        for milli in free:
            if milli:
                part = self._useful[milli]
                stranded += milli - part
                if part:
                    useful.append(part)
        useful.sort(reverse=True)
        return self._number(tuple(useful)), stranded

    def without(self, numbers: Int64s, count: int) -> Int64s:
        """Returns the numbers without the largest `count` devices."""
        known = self._without.setdefault(count, {})
        wanted = numbers.tolist()
        found = list(map(known.get, wanted))
        if None in found:
            for number in wanted:
                if number not in known:
                    known[number] = self._number(self._tuples[number][count:])
            found = [known[number] for number in wanted]
        return np.array(found, np.int64)

    def replaced(self, numbers: Int64s, gone: Int64s, come: Int64s) -> Int64s:
        """Returns the numbers with the useful part `come` (0: none) in place of `gone`."""
        known = self._replaced
        wanted: list[int] = ((numbers << 2 * _PART_BITS) | (gone << _PART_BITS) | come).tolist()
        found = list(map(known.get, wanted))
        if None in found:
            if len(known) > _MAX_STATES:
                known.clear()
            for key in wanted:
                if key not in known:
                    known[key] = self._replace(key)
            found = [known[key] for key in wanted]
        return np.array(found, np.int64)

    def resource_bins(self, cpu: Int64s, memory: Int64s) -> Int64s:
        """Returns the number of the bin of CPU (millicores) and memory (bytes)."""
        simulation = self._simulation
        cpu_step, memory_step = simulation.cpu_step, self._memory_step
        cpus = np.maximum(np.minimum(cpu, simulation.max_cpu), 0) // cpu_step
        found: Int64s = np.maximum(np.minimum(memory, self._most_memory), 0) // memory_step
        cpus *= self._memories
        found += cpus
        return found

    def keys(self, numbers: Int64s, model_classes: Int64s, resource_bins: Int64s) -> Int64s:
        found = numbers * self._model_classes
        found += model_classes
        found *= self._resource_bins
        found += resource_bins
        return found

    def of_one(self, number: int, model_class: int, cpu: int, memory: int) -> int:
        """As `of` for a single state, in plain integers, which is many times as fast."""
        simulation = self._simulation
        cpu_step, memory_step = simulation.cpu_step, self._memory_step
        cpus = max(min(cpu, simulation.max_cpu), 0) // cpu_step
        memories = max(min(memory, self._most_memory), 0) // memory_step
        key = (number * self._model_classes + model_class) * self._resource_bins + cpus * self._memories + memories
        found = self._known.get(key)
        return int(self.of(np.array([key]))[0]) if found is None else found

    def of(self, keys: Int64s) -> Int64s:
        """Returns the expected fragmentation of each state."""
        known = self._known
        wanted: list[int] = keys.tolist()
        found = list(map(known.get, wanted))
        if None in found:
            new = [key for key, value in zip(wanted, found, strict=True) if value is None]
            if len(known) > _MAX_STATES:
                known.clear()
                self._ranges.clear()
                new = wanted
            self._learn(dict.fromkeys(new))
            found = [known[key] for key in wanted]
        return np.array(found, np.int64)

    def _learn(self, keys: Iterable[int]) -> None:
        known, ranges, every, model_classes, memories = (
            self._known,
            self._ranges,
            self._resource_bins,
            self._model_classes,
            self._memories,
        )
        unknown = []
        for key in keys:
            group, room = divmod(key, every)
            cpu, memory = divmod(room, memories)
            for least_cpu, max_cpu, least_memory, max_memory, value in ranges.get(group, ()):
                if least_cpu <= cpu <= max_cpu and least_memory <= memory <= max_memory:
                    known[key] = value
                    break
            else:
                unknown.append((key, (self._tuples[group // model_classes], cpu, memory, group % model_classes)))
        for first in range(0, len(unknown), _BATCH):
            self._simulate(unknown[first : first + _BATCH])

    def _simulate(self, unknown: Sequence[tuple[int, State]]) -> None:
        found = self._simulation.run([state for _, state in unknown])
        for (key, (_, cpu, memory, _)), (value, least_cpu, least_memory) in zip(unknown, found, strict=True):
            self._known[key] = value
            range_ = (least_cpu, cpu, least_memory, memory, value)
            self._ranges.setdefault(key // self._resource_bins, []).append(range_)

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
    for pod_type, part in zip(mix.types, mix.parts, strict=True):
        if pod_type.devices and pod_type.milli < DEVICE_MILLI:
            shares[pod_type.milli] = shares.get(pod_type.milli, 0.0) + part
    least = _MIN_SHARE_FRACTION * sum(shares.values())
    asked = [milli for milli, part in shares.items() if part >= least]
    reachable = np.zeros(DEVICE_MILLI + 1, np.bool_)
    reachable[0] = True
    for size in range(1, DEVICE_MILLI + 1):
        reachable[size] = any(size >= milli and reachable[size - milli] for milli in asked)
    useful: list[int] = np.maximum.accumulate(np.where(reachable, np.arange(DEVICE_MILLI + 1), 0)).tolist()
    return (*useful[:DEVICE_MILLI], DEVICE_MILLI)
