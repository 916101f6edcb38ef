"""Offers every stream of likely pods to nodes as they could be, and sums what stays idle: see `waste`.

All streams and a batch of states at once, in arrays: this is where Pack spends most of its time.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpufleet_operator.placement.packing.sample_arrivals import SAMPLES, ArrivalSamples

Ints = NDArray[np.int64]

_REFUSES = 1 << 31
"""Free minus wanted wraps around above this where there is too little left."""

_MOST_ROOM = _REFUSES - 1
"""More than any node has."""

_KEPT = 128
"""Offers that are kept, of some 50 KiB each."""

_FEW_DEVICES = 256
"""Of a node: what is left of them in all streams, with their columns' bits, is below 2**32."""

_CPU_STEP, _MEMORY_STEP = 0.4, 0.9
"""Nodes are told apart by CPU and memory in steps of about this part of the mean pod's: far fewer states, and the
same outcome. Finer steps cost time and gain nothing. Twice the step for CPU is a fifth faster, and packs up to three
percentage points less where CPU is what runs out first (shares alone)."""

_FAR = 32
"""Amounts above so many times the median are slips ("1000" for "1000m"), and don't make the steps coarser."""

_FINEST = 2
"""How many exact steps may stand for one such step: see `_step`."""

State = tuple[tuple[int, ...], int, int, int]
"""A node as far as its expected waste depends on it, so that nodes alike are valued once: of each device the
thousandths that pods of the mix can fill (descending, without zeros), CPU and memory in steps, class of its model."""


@dataclass(frozen=True, slots=True)
class _Offers:
    """Pod by pod what the streams offer."""

    wanted: NDArray[np.uint32]
    """(length, devices + 2, 1, streams): thousandths, for each device alike; CPU, memory."""
    accepted: NDArray[np.bool_] | None
    """(length, streams, classes): who may take it; None: everyone."""


class Simulation:
    """Of one mix's streams."""

    def __init__(self, offered: ArrivalSamples) -> None:
        self.cpu_step = _step(offered.cpu, _CPU_STEP, 1000)
        """Millicores in one step of `State`."""
        self.memory_step = _step(offered.memory, _MEMORY_STEP, 1)
        """MiB."""
        self.most_cpu = int(offered.cpu.sum(axis=0).max())
        """Millicores: more makes no difference."""
        self.most_memory = int(offered.memory.sum(axis=0).max())
        """MiB."""
        self._accepted = offered.accepted
        self._sizes: list[int] = np.unique(np.append(offered.milli, 0)).tolist()
        self._wanted, self._cpu_unit, self._memory_unit = _wanted(offered, self.most_cpu, self.most_memory)
        self._fitting: dict[tuple[int, int], _Offers] = {}
        self._offers: dict[tuple[int, int, int], _Offers] = {}

    def run(self, states: Sequence[State]) -> list[tuple[int, int, int]]:
        """For each state: what stays idle, in thousandths of a device, summed over the streams.

        Beside it the least CPU and memory, in steps, with which every stream would have gone the same way. Pods go to
        the device where they fit best.
        """
        width = max([1, *[len(state[0]) for state in states]])
        # The low bits hold the device's column, so that no two devices of a node are equal and the tightest is one.
        # CPU and memory are two more rows below the devices: one subtraction asks for all three.
        bits = max(1, (width - 1).bit_length())
        cpu_step, cpu_unit = self.cpu_step, self._cpu_unit
        memory_step, memory_unit = self.memory_step, self._memory_unit
        none, columns = (0,) * width, range(width)
        start, rooms, largest = [], [], 0
        for useful, cpu, memory, _ in states:
            room = cpu * cpu_step // cpu_unit, memory * memory_step // memory_unit
            rooms.append(room)
            start += [part << bits | column for part, column in zip(useful + none, columns, strict=False)]
            start += room
            if useful and useful[0] > largest:
                largest = useful[0]
        free = np.empty((width + 2, len(states), SAMPLES), np.uint32)
        free[:] = np.array(start, np.uint32).reshape(len(states), -1).T[:, :, None]
        offers = self._offers_for(largest, max(rooms)[0], width)
        accepted = None
        if offers.accepted is not None:
            accepted = np.moveaxis(offers.accepted[:, :, [kind for _, _, _, kind in states]], 2, 1)
        _offer(free, offers.wanted, accepted, width)
        # All columns' numbers are in this sum, too.
        sums = np.uint32 if width <= _FEW_DEVICES else np.uint64
        total = np.add.reduce(free[:width], axis=(0, 2), dtype=sums).tolist()
        numbers = SAMPLES * width * (width - 1) // 2
        least = np.minimum.reduce(free[width:], axis=2).T.tolist()
        found = []
        for value, room, (cpu, memory) in zip(total, rooms, least, strict=True):
            cpu_taken, memory_taken = (room[0] - cpu) * cpu_unit, (room[1] - memory) * memory_unit
            found.append((value - numbers >> bits, -(-cpu_taken // cpu_step), -(-memory_taken // memory_step)))
        return found

    def _offers_for(self, largest: int, cpu: int, width: int) -> _Offers:
        """The pods that could fit on a node with this as its largest free part and so much CPU: others pass by."""
        # Rounded, so that there are few: down to what is asked for, and up to a power of two.
        size, room = bisect_right(self._sizes, largest) - 1, cpu.bit_length()
        found = self._offers.get((size, room, width))
        if found is None:
            fitting = self._fitting.get((size, room))
            if fitting is None:
                if len(self._fitting) >= _KEPT:
                    self._fitting.clear()
                fitting = self._fitting[size, room] = self._fit(size, room)
            wanted = fitting.wanted.take([0] * width + [1, 2], axis=1)
            wanted[:, :width] <<= np.uint32(max(1, (width - 1).bit_length()))
            if len(self._offers) >= _KEPT:
                self._offers.clear()
            found = self._offers[size, room, width] = _Offers(wanted[:, :, None, :], fitting.accepted)
        return found

    def _fit(self, size: int, room: int) -> _Offers:
        """For one device, so (length, 3, streams), and not shifted yet."""
        fits = (self._wanted[:, 0] <= self._sizes[size]) & (self._wanted[:, 1] < 1 << room)
        length = max(1, int(fits.sum(axis=0).max()))
        order = np.argsort(~fits, axis=0, kind="stable")[:length]
        kept = np.take_along_axis(fits, order, axis=0)
        wanted = np.take_along_axis(self._wanted, order[:, None, :], axis=0)
        # Filler that never fits.
        wanted[:, 1:][np.broadcast_to(~kept[:, None, :], wanted[:, 1:].shape)] = _MOST_ROOM
        accepted = np.take_along_axis(self._accepted, order[:, :, None], axis=0)
        return _Offers(wanted, None if accepted.all() else accepted)


def _offer(
    free: NDArray[np.uint32], wanted: NDArray[np.uint32], accepted: NDArray[np.bool_] | None, width: int
) -> None:
    """Change `free`, (devices and room, states, streams), by one pod of each stream after the other."""
    left = np.empty_like(free)
    tightest = np.empty(free.shape[1:], np.uint32)
    fits = np.empty(free.shape[1:], np.bool_)
    taken = np.empty(free.shape, np.bool_)
    here = np.empty(free.shape, np.bool_)
    here[width:] = True  # CPU and memory: every pod that fits takes of them
    devices, cpu, memory, chosen = left[:width], left[width], left[width + 1], here[:width]
    refuses = np.array(_REFUSES, np.uint32)  # unlike a scalar, it needs no conversion at each step
    for step, pod in enumerate(wanted):
        np.subtract(free, pod, out=left)
        np.minimum.reduce(devices, axis=0, out=tightest)
        np.equal(devices, tightest, out=chosen)
        np.maximum(tightest, cpu, out=tightest)
        np.maximum(tightest, memory, out=tightest)
        np.less(tightest, refuses, out=fits)
        if accepted is not None:
            np.logical_and(fits, accepted[step], out=fits)
        np.logical_and(here, fits, out=taken)
        np.putmask(free, taken, left)  # twice as fast as copyto


def _wanted(offered: ArrivalSamples, most_cpu: int, most_memory: int) -> tuple[NDArray[np.uint32], int, int]:
    """(length, 3, streams): thousandths of a device, CPU and memory; and the units of the latter, so that they fit."""
    cpu_unit, memory_unit = most_cpu // (_MOST_ROOM - 1) + 1, most_memory // (_MOST_ROOM - 1) + 1
    parts = (offered.milli, -(-offered.cpu // cpu_unit), -(-offered.memory // memory_unit))
    return np.stack(parts, axis=1).astype(np.uint32), cpu_unit, memory_unit


def _step(amounts: Ints, part: float, unit: int) -> int:
    """A power of two of the unit: nodes have round sizes, and a step that doesn't divide them belittles idle ones.

    But where all that pods take are multiples of a step that isn't much finer, that one is exact.
    """
    some = amounts[amounts > 0]
    if not len(some):
        return 1
    mean = float(amounts[amounts <= _FAR * np.median(some)].mean())
    step = max(1, round(unit * 2.0 ** round(math.log2(mean * part / unit))))
    common = int(np.gcd.reduce(some))
    return common if common * _FINEST >= step else step
