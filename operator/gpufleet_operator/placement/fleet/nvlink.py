"""How the devices of a node are joined by NVLink, by column: many nodes are wired alike, so this is kept once."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpufleet_operator.placement.model import DeviceState

MAX_EXACT_SETS = 20_000
"""More sets than this are not tried one by one: a set is grown from each device instead."""


@dataclass(frozen=True, slots=True)
class LinkGraph:
    """`peers[c]`: the columns that column c is joined to, as bits. A link counts whoever of the two reports it."""

    peers: tuple[int, ...] = ()

    @classmethod
    def of(cls, cells: Sequence[DeviceState]) -> "LinkGraph":
        """From what the devices report, in the order of the columns."""
        column = {d.uuid: c for c, d in enumerate(cells)}
        peers = [0] * len(cells)
        for here, device in enumerate(cells):
            for uuid in device.nvlink_peers:
                there = column.get(uuid)
                if there is not None and there != here:
                    peers[here] |= 1 << there
                    peers[there] |= 1 << here
        return cls(tuple(peers))

    def links(self, chosen: int) -> int:
        """Direct links inside a set of columns."""
        return sum((self.peers[c] & chosen).bit_count() for c in range(len(self.peers)) if chosen >> c & 1) // 2

    def connected(self, chosen: int) -> bool:
        """True when each device of the set reaches every other through links inside it."""
        reached = chosen & -chosen
        while True:
            near = reached
            for c in range(len(self.peers)):
                if reached >> c & 1:
                    near |= self.peers[c] & chosen
            if near == reached:
                return reached == chosen
            reached = near


@dataclass(frozen=True, slots=True)
class ConnectedSets:
    """Every connected set of one size: its columns as bits and as a 0/1 row, and its number of direct links."""

    bits: NDArray[np.int64]
    members: NDArray[np.int64]
    links: NDArray[np.int64]


@lru_cache(maxsize=256)
def connected_sets(wiring: LinkGraph, count: int) -> ConnectedSets | None:
    """All connected sets of `count` columns, the lowest columns first; None: too many to try."""
    width = len(wiring.peers)
    if width > np.iinfo(np.int64).bits - 1 or comb(width, count) > MAX_EXACT_SETS:
        return None
    found = [(sum(1 << c for c in chosen), chosen) for chosen in combinations(range(width), count)]
    found = [(bits, chosen) for bits, chosen in found if wiring.connected(bits)]
    members = np.zeros((len(found), width), np.int64)
    for position, (_, chosen) in enumerate(found):
        members[position, list(chosen)] = 1
    bits = np.array([bits for bits, _ in found], np.int64)
    return ConnectedSets(bits, members, np.array([wiring.links(bits) for bits, _ in found], np.int64))


def grow_set(wiring: LinkGraph, scores: NDArray[Any], passing: Sequence[int], count: int) -> tuple[int, ...] | None:
    """A well-connected set for nodes with too many sets to try: grown from each device, the best one kept.

    Greedy, so it may miss the best set of such a node, but only a node whose passing devices have no connected
    component of `count` gets None.
    """
    best: tuple[tuple[int, int], tuple[int, ...]] | None = None
    for seed in passing:
        chosen = 1 << seed
        while chosen.bit_count() < count:
            near = [c for c in passing if not chosen >> c & 1 and wiring.peers[c] & chosen]
            if not near:
                break
            chosen |= 1 << max(near, key=lambda c: ((wiring.peers[c] & chosen).bit_count(), scores[c], -c))
        if chosen.bit_count() == count:
            columns = tuple(c for c in passing if chosen >> c & 1)
            worth = (wiring.links(chosen), int(sum(scores[c] for c in columns)))
            if best is None or worth > best[0]:
                best = (worth, columns)
    return best[1] if best else None
