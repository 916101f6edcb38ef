"""Places the sample arrivals on node states and sums the idle rest, see `fragmentation`.

Vectorized over all samples and a batch of states: Pack spends most of its time here.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpufleet_operator.placement.fleet.columns import Int64s
from gpufleet_operator.placement.packing.sample_arrivals import SAMPLES, ArrivalSamples

_UNDERFLOW = 1 << 31
"""Free minus wanted wraps around to at least this value if too little is free."""

_MAX_AMOUNT = _UNDERFLOW - 1
"""More than any node has."""

_MAX_MEMOIZED = 128
"""Memoized arrivals, about 50 KiB each."""

_FEW_DEVICES = 256
"""Devices of a node: the sum of their rests over all samples, with the column bits, is below 2**32."""

_CPU_STEP, _MEMORY_STEP = 0.4, 0.9
"""CPU and memory are rounded to steps of about this fraction of the mean pod: far
fewer states, same outcome. Finer steps cost time and gain nothing. Doubling the CPU step is a fifth faster, and packs
up to three percentage points less if CPU is exhausted first (shares only)."""

_FAR = 32
"""Amounts above this multiple of the median are mistakes ("1000" for "1000m") and do not make the steps coarser."""

_FINEST = 2
"""Maximum ratio of a step to an exact one, see `_step`."""

State = tuple[tuple[int, ...], int, int, int]
"""The part of a node that its fragmentation depends on: useful
thousandths of each device (descending, without zeros), CPU and memory in steps, class of its GPU model."""


@dataclass(frozen=True, slots=True)
class _Arrivals:
    """The pods of all samples in order."""

    wanted: NDArray[np.uint32]
    """(arrivals, devices + 2, 1, samples): thousandths, equal for each device; CPU, memory."""
    accepted: NDArray[np.bool_] | None
    """(arrivals, samples, classes): accepted model classes; None: all."""


class Simulation:
    """Simulates the samples of one mix."""

    def __init__(self, offered: ArrivalSamples) -> None:
        self.cpu_step = _step(offered.cpu, _CPU_STEP, 1000)
        """Millicores in one step of `State`."""
        self.memory_step = _step(offered.memory, _MEMORY_STEP, 1)
        """MiB."""
        self.max_cpu = int(offered.cpu.sum(axis=0).max())
        """Millicores: more makes no difference."""
        self.max_memory = int(offered.memory.sum(axis=0).max())
        """MiB."""
        self._accepted = offered.accepted
        self._sizes: list[int] = np.unique(np.append(offered.milli, 0)).tolist()
        self._wanted, self._cpu_unit, self._memory_unit = _wanted(offered, self.max_cpu, self.max_memory)
        self._fitting: dict[tuple[int, int], _Arrivals] = {}
        self._memoized: dict[tuple[int, int, int], _Arrivals] = {}

    def run(self, states: Sequence[State]) -> list[tuple[int, int, int]]:
        """Returns for each state the idle thousandths summed over the samples, placing each pod best-fit.

        Also returns the minimum CPU and memory, in steps, with which every sample has the same outcome.
        """
        width = max([1, *[len(state[0]) for state in states]])
        # The low bits hold the column, so that no two devices of a node are equal and the tightest is unique.
        # CPU and memory are two more rows below the devices: one subtraction covers all three.
        bits = max(1, (width - 1).bit_length())
        cpu_step, cpu_unit = self.cpu_step, self._cpu_unit
        memory_step, memory_unit = self.memory_step, self._memory_unit
        none, columns = (0,) * width, range(width)
        start, resource_bins, largest = [], [], 0
        for useful, cpu, memory, _ in states:
            room = cpu * cpu_step // cpu_unit, memory * memory_step // memory_unit
            resource_bins.append(room)
            start += [part << bits | column for part, column in zip(useful + none, columns, strict=False)]
            start += room
            if useful and useful[0] > largest:
                largest = useful[0]
        free = np.empty((width + 2, len(states), SAMPLES), np.uint32)
        free[:] = np.array(start, np.uint32).reshape(len(states), -1).T[:, :, None]
        offers = self._arrivals_for(largest, max(resource_bins)[0], width)
        accepted = None
        if offers.accepted is not None:
            accepted = np.moveaxis(offers.accepted[:, :, [model_class for _, _, _, model_class in states]], 2, 1)
        _place_arrivals(free, offers.wanted, accepted, width)
        # The sum includes the column bits.
        sums = np.uint32 if width <= _FEW_DEVICES else np.uint64
        total = np.add.reduce(free[:width], axis=(0, 2), dtype=sums).tolist()
        numbers = SAMPLES * width * (width - 1) // 2
        least = np.minimum.reduce(free[width:], axis=2).T.tolist()
        found = []
        for value, room, (cpu, memory) in zip(total, resource_bins, least, strict=True):
            cpu_taken, memory_taken = (room[0] - cpu) * cpu_unit, (room[1] - memory) * memory_unit
            found.append((value - numbers >> bits, -(-cpu_taken // cpu_step), -(-memory_taken // memory_step)))
        return found

    def _arrivals_for(self, largest: int, cpu: int, width: int) -> _Arrivals:
        """Returns the pods that may fit on a node with this largest free part and CPU."""
        # Rounded to limit the variants: down to a requested size, and up to a power of two.
        size, room = bisect_right(self._sizes, largest) - 1, cpu.bit_length()
        found = self._memoized.get((size, room, width))
        if found is None:
            fitting = self._fitting.get((size, room))
            if fitting is None:
                if len(self._fitting) >= _MAX_MEMOIZED:
                    self._fitting.clear()
                fitting = self._fitting[size, room] = self._fit(size, room)
            wanted = fitting.wanted.take([0] * width + [1, 2], axis=1)
            wanted[:, :width] <<= np.uint32(max(1, (width - 1).bit_length()))
            if len(self._memoized) >= _MAX_MEMOIZED:
                self._memoized.clear()
            found = self._memoized[size, room, width] = _Arrivals(wanted[:, :, None, :], fitting.accepted)
        return found

    def _fit(self, size: int, room: int) -> _Arrivals:
        """Returns (arrivals, 3, samples), for one device and not shifted yet."""
        fits = (self._wanted[:, 0] <= self._sizes[size]) & (self._wanted[:, 1] < 1 << room)
        length = max(1, int(fits.sum(axis=0).max()))
        order = np.argsort(~fits, axis=0, kind="stable")[:length]
        kept = np.take_along_axis(fits, order, axis=0)
        wanted = np.take_along_axis(self._wanted, order[:, None, :], axis=0)
        # Padding that never fits.
        wanted[:, 1:][np.broadcast_to(~kept[:, None, :], wanted[:, 1:].shape)] = _MAX_AMOUNT
        accepted = np.take_along_axis(self._accepted, order[:, :, None], axis=0)
        return _Arrivals(wanted, None if accepted.all() else accepted)


def _place_arrivals(
    free: NDArray[np.uint32], wanted: NDArray[np.uint32], accepted: NDArray[np.bool_] | None, width: int
) -> None:
    """Places the pods of each sample one after the other; modifies `free`, (devices and resources, states, samples)."""
    left = np.empty_like(free)
    tightest = np.empty(free.shape[1:], np.uint32)
    fits = np.empty(free.shape[1:], np.bool_)
    taken = np.empty(free.shape, np.bool_)
    here = np.empty(free.shape, np.bool_)
    here[width:] = True  # CPU and memory: every pod that fits uses them
    devices, cpu, memory, chosen = left[:width], left[width], left[width + 1], here[:width]
    rejects = np.array(_UNDERFLOW, np.uint32)  # unlike a scalar, an array needs no conversion at each step
    for step, pod in enumerate(wanted):
        np.subtract(free, pod, out=left)
        np.minimum.reduce(devices, axis=0, out=tightest)
        np.equal(devices, tightest, out=chosen)
        np.maximum(tightest, cpu, out=tightest)
        np.maximum(tightest, memory, out=tightest)
        np.less(tightest, rejects, out=fits)
        if accepted is not None:
            np.logical_and(fits, accepted[step], out=fits)
        np.logical_and(here, fits, out=taken)
        np.putmask(free, taken, left)  # twice as fast as copyto


def _wanted(offered: ArrivalSamples, max_cpu: int, max_memory: int) -> tuple[NDArray[np.uint32], int, int]:
    """Returns (arrivals, 3, samples): thousandths of a device, CPU and memory, and the units of the latter two."""
    cpu_unit, memory_unit = max_cpu // (_MAX_AMOUNT - 1) + 1, max_memory // (_MAX_AMOUNT - 1) + 1
    parts = (offered.milli, -(-offered.cpu // cpu_unit), -(-offered.memory // memory_unit))
    return np.stack(parts, axis=1).astype(np.uint32), cpu_unit, memory_unit


def _step(amounts: Int64s, part: float, unit: int) -> int:
    """Returns a power of two of the unit: a step that does not divide the nodes' round sizes undervalues idle nodes.

    If all pods use multiples of a step that is not much finer, that exact step is returned.
    """
    some = amounts[amounts > 0]
    if not len(some):
        return 1
    mean = float(amounts[amounts <= _FAR * np.median(some)].mean())
    step = max(1, round(unit * 2.0 ** round(math.log2(mean * part / unit))))
    common = int(np.gcd.reduce(some))
    return common if common * _FINEST >= step else step
