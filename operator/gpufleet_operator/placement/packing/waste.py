"""What of a node would stay idle: each stream of likely pods is offered to it, and what is left is counted.

This is the worth that Pack goes by. A pod goes where this expected waste grows least, so what is left of each node
stays of use to what is likely to come; CPU and memory beside the devices count as they limit what still fits.
"""

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpufleet_operator.placement.model import PodNeeds
from gpufleet_operator.placement.packing.mix import Mix
from gpufleet_operator.placement.packing.streams import MIB, STREAMS, Streams, streams
from gpufleet_operator.placement.rows import WHOLE

Ints = NDArray[np.int64]

_REFUSES = 1 << 31
"""Free minus wanted wraps around above this where there is too little left."""

_MOST_ROOM = _REFUSES - 1
"""More than any node has."""

_BATCH = 64
"""States that are simulated at once."""

_REMEMBERED = 100_000
"""States whose waste is remembered."""

_RARE = 0.002
"""Shares asked for less often than this part of all shares don't make a rest useful."""

_CPU_STEP, _MEMORY_STEP = 0.4, 0.9
"""Nodes are told apart by CPU and memory in steps of about this part of the mean pod's: far fewer states, and the
same outcome. Finer steps cost time and gain nothing."""


State = tuple[tuple[int, ...], int, int, int]
"""A node as far as its expected waste depends on it, so that nodes alike are valued once: of each device the
thousandths that pods of the mix can fill (descending, without zeros), CPU and memory in steps, class of its model."""


@dataclass(frozen=True, slots=True)
class _Offers:
    """(length, 3, streams): thousandths, CPU, memory; (length, streams, classes): who may take it, None: everyone."""

    wanted: NDArray[np.uint32]
    accepted: NDArray[np.bool_] | None


class Waste:
    """Expected waste of states under one mix, in thousandths of a device times STREAMS; remembered."""

    def __init__(self, mix: Mix) -> None:
        offered = streams(mix)
        self.classes = offered.classes
        self.useful = _useful_rests(mix)
        """For each free part of a device in thousandths: the most of it that shares of the mix can fill."""
        self._accepted = offered.accepted
        self._sizes: list[int] = np.unique(np.append(offered.milli, 0)).tolist()
        self._cpu_step = _step(offered.cpu, _CPU_STEP, 1000)
        self._memory_step = _step(offered.memory, _MEMORY_STEP, 1)
        self._most_cpu = int(offered.cpu.sum(axis=0).max())
        self._most_memory = int(offered.memory.sum(axis=0).max())
        self._wanted, self._cpu_unit, self._memory_unit = _wanted(offered, self._most_cpu, self._most_memory)
        self._offers: dict[tuple[int, int], _Offers] = {}
        self._known: dict[State, int] = {}
        self._ranges: dict[tuple[tuple[int, ...], int], list[tuple[int, int, int, int, int]]] = {}
        """By useful parts and class of model: from which to which CPU, and memory, the waste is the same."""
        self._replaced: dict[tuple[tuple[int, ...], int, int], tuple[int, ...]] = {}

    def steps(self, cpu: int, memory: int) -> tuple[int, int]:
        """`State.cpu` and `State.memory` of a node with so much CPU (millicores) and memory (bytes) left."""
        return self.rooms([(cpu, memory)], PodNeeds())[0]

    def rooms(self, rooms: Iterable[tuple[int, int]], pod: PodNeeds) -> list[tuple[int, int]]:
        """As `steps`, of nodes with so much CPU and memory less what a pod takes."""
        cpu_taken, memory_taken = pod.cpu_milli, pod.memory_bytes
        most_cpu, cpu_step = self._most_cpu, self._cpu_step
        most_memory, memory_step = self._most_memory * MIB, self._memory_step * MIB
        found = []
        for room in rooms:
            cpu, memory = room[0] - cpu_taken, room[1] - memory_taken
            if cpu > most_cpu:  # noqa: PLR1730 - min() takes three times as long, and this is asked very often
                cpu = most_cpu
            if memory > most_memory:  # noqa: PLR1730 - as above
                memory = most_memory
            found.append((cpu // cpu_step if cpu > 0 else 0, memory // memory_step if memory > 0 else 0))
        return found

    def split(self, free: Iterable[int]) -> tuple[tuple[int, ...], int]:
        """The first part of a State for devices with so many thousandths free, and how many nobody can fill."""
        useful, lost = [], 0
        for milli in free:
            if milli:
                part = self.useful[milli]
                lost += milli - part
                if part:
                    useful.append(part)
        useful.sort(reverse=True)
        return tuple(useful), lost

    def replaced(self, useful: tuple[int, ...], before: int, after: int) -> tuple[tuple[int, ...], int]:
        """A State's first part when one device has `after` free instead of `before`; and what more nobody can fill."""
        part = self.useful
        gone, come = part[before], part[after]
        found = self._replaced.get((useful, gone, come))
        if found is None:
            left = list(useful)
            if gone:
                left.remove(gone)
            if come:
                left.append(come)
                left.sort(reverse=True)
            if len(self._replaced) > _REMEMBERED:
                self._replaced.clear()
            found = self._replaced[useful, gone, come] = tuple(left)
        return found, gone - before + after - come

    def of(self, states: Sequence[State]) -> list[int]:
        """The expected waste of each state."""
        known = self._known
        found = list(map(known.get, states))
        if None not in found:
            return found  # type: ignore[return-value]  # just tested
        new = list(dict.fromkeys(state for state, value in zip(states, found, strict=True) if value is None))
        if len(known) > _REMEMBERED:
            known.clear()
            self._ranges.clear()
            new = list(dict.fromkeys(states))
        for state in new:
            value = self._in_range(state)
            if value is not None:
                known[state] = value
        unknown = [state for state in new if state not in known]
        for first in range(0, len(unknown), _BATCH):
            part = unknown[first : first + _BATCH]
            for state, (value, least_cpu, least_memory) in zip(part, self._simulate(part), strict=True):
                known[state] = value
                useful, cpu, memory, kind = state
                range_ = (least_cpu, cpu, least_memory, memory, value)
                self._ranges.setdefault((useful, kind), []).append(range_)
        return [known[state] for state in states]

    def _in_range(self, state: State) -> int | None:
        """The waste of a state that has less room than one that is known, but not less than was taken there."""
        useful, cpu, memory, kind = state
        for least_cpu, most_cpu, least_memory, most_memory, value in self._ranges.get((useful, kind), ()):
            if least_cpu <= cpu <= most_cpu and least_memory <= memory <= most_memory:
                return value
        return None

    def _simulate(self, states: Sequence[State]) -> list[tuple[int, int, int]]:
        """Offer every stream to every state, best fit within the node, and sum what stays idle.

        Beside it the least CPU and memory, in steps, with which every stream would have gone the same way.
        """
        width = max(1, *[len(state[0]) for state in states])
        # The low bits hold the device's column, so that no two devices of a node are equal and the tightest is one.
        # CPU and memory are two more rows below the devices: one subtraction asks for all three.
        bits = max(1, (width - 1).bit_length())
        cpu_step, cpu_unit = self._cpu_step, self._cpu_unit
        memory_step, memory_unit = self._memory_step, self._memory_unit
        rooms = [(cpu * cpu_step // cpu_unit, memory * memory_step // memory_unit) for _, cpu, memory, _ in states]
        none = (0,) * width
        parts = [(*useful, *none[len(useful) :], *room) for (useful, _, _, _), room in zip(states, rooms, strict=True)]
        start = np.array(parts, np.uint32).T[:, :, None]
        free = np.empty((width + 2, len(states), STREAMS), np.uint32)
        free[:] = start
        free[:width] = (start[:width] << np.uint32(bits)) | np.arange(width, dtype=np.uint32)[:, None, None]
        offers = self._offers_for(max(state[0][:1] or (0,) for state in states)[0], max(rooms)[0])
        wanted = offers.wanted.take([0] * width + [1, 2], axis=1)
        wanted[:, :width] <<= np.uint32(bits)
        kinds = [kind for _, _, _, kind in states]
        accepted = None if offers.accepted is None else np.moveaxis(offers.accepted[:, :, kinds], 2, 1)
        self._offer(free, wanted, accepted, width)
        total = np.add.reduce(free[:width] >> np.uint32(bits)).sum(axis=1).tolist()
        found = []
        least = free[width:].min(axis=2).T.tolist()
        for value, room, (cpu, memory) in zip(total, rooms, least, strict=True):
            cpu_taken, memory_taken = (room[0] - cpu) * cpu_unit, (room[1] - memory) * memory_unit
            found.append((value, -(-cpu_taken // cpu_step), -(-memory_taken // memory_step)))
        return found

    def _offers_for(self, largest: int, cpu: int) -> "_Offers":
        """The pods that could fit on a node with this as its largest free part and so much CPU: others pass by."""
        # Rounded, so that there are few: down to what is asked for, and up to a power of two.
        size, room = bisect_right(self._sizes, largest) - 1, cpu.bit_length()
        found = self._offers.get((size, room))
        if found is None:
            fits = (self._wanted[:, 0] <= self._sizes[size]) & (self._wanted[:, 1] < 1 << room)
            length = max(1, int(fits.sum(axis=0).max()))
            order = np.argsort(~fits, axis=0, kind="stable")[:length]
            kept = np.take_along_axis(fits, order, axis=0)
            wanted = np.take_along_axis(self._wanted, order[:, None, :], axis=0)
            # Filler that never fits.
            wanted[:, 1:][np.broadcast_to(~kept[:, None, :], wanted[:, 1:].shape)] = _MOST_ROOM
            accepted = np.take_along_axis(self._accepted, order[:, :, None], axis=0)
            found = self._offers[size, room] = _Offers(wanted, None if accepted.all() else accepted)
        return found

    @staticmethod
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
        for step, pod in enumerate(wanted[:, :, None, :]):
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


def _wanted(offered: Streams, most_cpu: int, most_memory: int) -> tuple[NDArray[np.uint32], int, int]:
    """(length, 3, streams): thousandths of a device, CPU and memory; and the units of the latter, so that they fit."""
    cpu_unit, memory_unit = most_cpu // (_MOST_ROOM - 1) + 1, most_memory // (_MOST_ROOM - 1) + 1
    parts = (offered.milli, -(-offered.cpu // cpu_unit), -(-offered.memory // memory_unit))
    return np.stack(parts, axis=1).astype(np.uint32), cpu_unit, memory_unit


def _step(amounts: Ints, part: float, unit: int) -> int:
    """A power of two of the unit: nodes have round sizes, and a step that doesn't divide them belittles idle ones."""
    mean = float(amounts.mean())
    return max(1, round(unit * 2.0 ** round(math.log2(mean * part / unit)))) if mean > 0 else 1


def _useful_rests(mix: Mix) -> tuple[int, ...]:
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
    useful: list[int] = np.maximum.accumulate(np.where(reachable, np.arange(WHOLE + 1), 0)).tolist()
    return (*useful[:WHOLE], WHOLE)
