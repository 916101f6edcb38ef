"""What of a node would stay idle: each stream of likely pods is offered to it, and what is left is counted.

This is the worth that Pack goes by. A pod goes where this expected waste grows least, so what is left of each node
stays of use to what is likely to come; CPU and memory beside the devices count as they limit what still fits.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpufleet_operator.placement.packing.mix import Mix
from gpufleet_operator.placement.packing.streams import MIB, STREAMS, streams
from gpufleet_operator.placement.rows import WHOLE

Ints = NDArray[np.int64]

_NARROW = 5
"""Bits for the column in 16 bits: up to 32 devices that the mix has a use for."""

_GUARDS = (1 << 30) | (1 << 62)
"""CPU and memory share one integer, each below its guard bit: a guard that is gone after a subtraction says no."""
_MOST_ROOM = (1 << 29) - 1

_BATCH = 64
"""Nodes that are simulated at once."""

_REMEMBERED = 500_000
"""States whose waste is remembered."""

_RARE = 0.002
"""Shares asked for less often than this part of all shares don't make a rest useful."""

_CPU_STEP, _MEMORY_STEP = 0.4, 0.9
"""Nodes are told apart by CPU and memory in steps of about this part of the mean pod's: far fewer states, and the
same outcome. Finer steps cost time and gain nothing."""


class Waste:
    """Expected waste of node states under one mix, in thousandths of a device times STREAMS; remembered."""

    def __init__(self, mix: Mix) -> None:
        offered = streams(mix)
        self.classes = offered.classes
        self._accepted = offered.accepted
        self._picky = bool((~offered.accepted).any())
        self._cpu_step = _step(offered.cpu, _CPU_STEP, 1000)
        self._memory_step = _step(offered.memory, _MEMORY_STEP, 1)
        self._most_cpu = int(offered.cpu.sum(axis=0).max())
        self._most_memory = int(offered.memory.sum(axis=0).max())
        self._cpu_unit = self._most_cpu // _MOST_ROOM + 1
        self._memory_unit = self._most_memory // _MOST_ROOM + 1
        self._room = -(-offered.cpu // self._cpu_unit) | (-(-offered.memory // self._memory_unit) << 32)
        self._milli = offered.milli
        self._useful = _useful_rests(mix)
        self._known: dict[bytes, int] = {}

    def of(self, free: NDArray[np.int16], cpu: Ints, memory: Ints, kind: Ints) -> Ints:
        """The expected waste of each state.

        Args:
            free: (states, width), thousandths that are free of each device, in any order.
            cpu: (states,), millicores.
            memory: (states,), bytes.
            kind: (states,), class of the node's model, see `classes`.
        """
        useful = self._useful[free]
        lost: Ints = (free.astype(np.int64) - useful).sum(axis=1) * STREAMS
        cpu = np.minimum(np.maximum(cpu, 0), self._most_cpu) // self._cpu_step
        memory = np.minimum(np.maximum(memory, 0) // MIB, self._most_memory) // self._memory_step
        states = np.concatenate((-np.sort(-useful, axis=1), cpu[:, None], memory[:, None], kind[:, None]), axis=1)
        return lost + self._look_up(np.ascontiguousarray(states, np.int32))

    def _look_up(self, states: NDArray[np.int32]) -> Ints:
        size, raw = states.shape[1] * states.itemsize, states.tobytes()
        keys = [raw[i : i + size] for i in range(0, len(raw), size)]
        found = list(map(self._known.get, keys))
        if None in found:
            self._learn(states, {key: row for row, key in enumerate(keys) if found[row] is None})
            found = list(map(self._known.get, keys))
        return np.array(found, np.int64)

    def _learn(self, states: NDArray[np.int32], new: Mapping[bytes, int]) -> None:
        if len(self._known) > _REMEMBERED:
            self._known.clear()
        rows = np.fromiter(new.values(), np.intp, len(new))
        width = max(1, int((states[rows, :-3] > 0).sum(axis=1).max()))
        values = [self._simulate(states[rows[first : first + _BATCH]], width) for first in range(0, len(rows), _BATCH)]
        self._known.update(zip(new, np.concatenate(values).tolist(), strict=True))

    def _simulate(self, states: NDArray[np.int32], width: int) -> Ints:
        """Offer every stream to every state, best fit within the node, and sum what stays idle."""
        shape = (width, len(states), STREAMS)
        # The low bits hold the column, so that no two devices of a node are equal and the tightest is one. Free minus
        # wanted wraps around above `fits` where the device has too little left.
        bits, unsigned = (_NARROW, np.uint16) if width <= 1 << _NARROW else (10, np.uint32)
        fitting = unsigned(np.iinfo(unsigned).max // 2)
        columns: NDArray[Any] = np.arange(width, dtype=unsigned)[:, None]
        start: NDArray[Any] = np.left_shift(states[:, :width].T, bits).astype(unsigned) | columns
        free = np.repeat(start[:, :, None], STREAMS, axis=2)
        wanted = (self._milli << bits).astype(unsigned)
        cpu = states[:, -3].astype(np.int64) * self._cpu_step // self._cpu_unit
        memory = states[:, -2].astype(np.int64) * self._memory_step // self._memory_unit
        room = np.repeat((cpu | (memory << 32) | _GUARDS)[:, None], STREAMS, axis=1)
        left, rest, hit = np.empty_like(free), np.empty_like(room), np.empty(shape, np.bool_)
        tightest, fits, other = np.empty(shape[1:], unsigned), np.empty(shape[1:], np.bool_), np.empty_like(room)
        guards = np.int64(_GUARDS)
        for step, milli in enumerate(wanted):
            accepted = self._accepted[step][:, states[:, -1]].T if self._picky else None
            np.subtract(free, milli, out=left)
            np.minimum.reduce(left, axis=0, out=tightest)
            np.subtract(room, self._room[step], out=rest)
            np.bitwise_and(rest, guards, out=other)
            np.equal(other, guards, out=fits)
            fits &= tightest <= fitting
            if accepted is not None:
                fits &= accepted
            np.equal(left, tightest, out=hit)
            hit &= fits
            np.copyto(free, left, where=hit)
            np.copyto(room, rest, where=fits)
        total: Ints = (free >> unsigned(bits)).sum(axis=(0, 2), dtype=np.int64)
        return total


def _step(amounts: Ints, part: float, unit: int) -> int:
    """A power of two of the unit: nodes have round sizes, and a step that doesn't divide them belittles idle ones."""
    mean = float(amounts.mean())
    return max(1, round(unit * 2.0 ** round(math.log2(mean * part / unit)))) if mean > 0 else 1


def _useful_rests(mix: Mix) -> NDArray[np.int32]:
    """For each free part of a device in thousandths: the most of it that shares of the mix can fill."""
    shares: dict[int, float] = {}
    for kind, part in zip(mix.types, mix.parts, strict=True):
        if kind.devices and kind.milli < WHOLE:
            shares[kind.milli] = shares.get(kind.milli, 0.0) + part
    least = _RARE * sum(shares.values())
    asked = [milli for milli, part in shares.items() if part >= least]
    reachable = np.zeros(WHOLE + 1, np.bool_)
    reachable[0] = True
    for size in range(1, WHOLE + 1):
        reachable[size] = any(size >= milli and reachable[size - milli] for milli in asked)
    useful = np.maximum.accumulate(np.where(reachable, np.arange(WHOLE + 1), 0)).astype(np.int32)
    useful[WHOLE] = WHOLE
    return useful
