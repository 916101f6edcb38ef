"""NVLink connections between the devices of a node. Nodes with equal connections share one graph."""

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
"""With more sets than this, a set is grown from each device instead of trying all sets."""


@dataclass(frozen=True, slots=True)
class LinkGraph:
    """`peers[c]`: the columns linked to column c, as bits. A link counts if either device reports it."""

    peers: tuple[int, ...] = ()

    @classmethod
    def of(cls, cells: Sequence[DeviceState]) -> "LinkGraph":
        """Builds the graph from the devices in column order."""
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
        """Returns the number of direct links inside a set of columns."""
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
def connected_sets(link_graph: LinkGraph, count: int) -> ConnectedSets | None:
    """Returns all connected sets of `count` columns, lowest columns first; None if there are too many."""
    width = len(link_graph.peers)
    if width > np.iinfo(np.int64).bits - 1 or comb(width, count) > MAX_EXACT_SETS:
        return None
    found = [(sum(1 << c for c in chosen), chosen) for chosen in combinations(range(width), count)]
    found = [(bits, chosen) for bits, chosen in found if link_graph.connected(bits)]
    members = np.zeros((len(found), width), np.int64)
    for position, (_, chosen) in enumerate(found):
        members[position, list(chosen)] = 1
    bits = np.array([bits for bits, _ in found], np.int64)
    return ConnectedSets(bits, members, np.array([link_graph.links(bits) for bits, _ in found], np.int64))


def grow_set(link_graph: LinkGraph, scores: NDArray[Any], passing: Sequence[int], count: int) -> tuple[int, ...] | None:
    """Returns a well-connected set for nodes with too many sets: grown from each device, best one first.

    Greedy, so it may miss the best set of such a node, but only a node whose passing devices have no connected
    component of `count` gets None.
    """
    best: tuple[tuple[int, int], tuple[int, ...]] | None = None
    for seed in passing:
        chosen = 1 << seed
        while chosen.bit_count() < count:
            near = [c for c in passing if not chosen >> c & 1 and link_graph.peers[c] & chosen]
            if not near:
                break
            chosen |= 1 << max(near, key=lambda c: ((link_graph.peers[c] & chosen).bit_count(), scores[c], -c))
        if chosen.bit_count() == count:
            columns = tuple(c for c in passing if chosen >> c & 1)
            worth = (link_graph.links(chosen), int(sum(scores[c] for c in columns)))
            if best is None or worth > best[0]:
                best = (worth, columns)
    return best[1] if best else None
