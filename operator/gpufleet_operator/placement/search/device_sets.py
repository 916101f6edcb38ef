"""Selects the best-connected set of devices of one node for a replica.

NVLink: every device reaches every other through links inside the set; among such sets the one with the most
direct links wins, then the higher sum of scores. NUMA: all devices report the same NUMA node. Otherwise: the
highest scores. Ties go to the lowest device indices. A single device satisfies every topology.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpufleet_api.workload_placement import Topology
from gpufleet_operator.placement.fleet.columns import Mask, RowWindow, count_true
from gpufleet_operator.placement.fleet.nvlink import LinkGraph, connected_sets, grow_set

NO_SET = -1
"""Score of a node without a set."""

_MAX_CELLS = 1 << 20
"""Maximum cells of a temporary array when NVLink sets of many nodes are compared."""

Scores = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class SetRequirement:
    """Number of devices of a set and how they must be connected."""

    count: int
    topology: Topology
    link_graphs: Sequence[LinkGraph]
    """Indexed by the arrays' `link_graph`."""


def best_set_scores(window: RowWindow, passes: Mask, scores: Scores, shape: SetRequirement) -> NDArray[np.int64]:
    """Returns (rows,): the sum of scores of each row's best set, NO_SET if it has none.

    Args:
        window: The rows; their link graphs and NUMA nodes are read.
        passes: (rows, width), devices that may be used.
        scores: (rows, width), not negative.
        shape: The requirement on the set.
    """
    count, topology = shape.count, shape.topology
    if count == 0:
        return np.zeros(len(passes), np.int64)
    if topology is Topology.NVLINK and count > 1:
        return _linked_worth(window, passes, scores, shape)
    masked = np.where(passes, scores, NO_SET)
    if topology is not Topology.NUMA or count == 1:
        return _top(masked, count)
    best, numa = np.full(len(passes), NO_SET, np.int64), window.columns.numa[window.at]
    for zone in np.unique(numa[passes & (numa >= 0)]):
        np.maximum(best, _top(np.where(numa == zone, masked, NO_SET), count), out=best)
    return best


def has_set(window: RowWindow, passes: Mask, shape: SetRequirement) -> Mask:
    """Returns (rows,): whether the row has a set. Arguments as for `best_set_scores`."""
    if shape.count > 1 and shape.topology in {Topology.NVLINK, Topology.NUMA}:
        return best_set_scores(window, passes, np.zeros(passes.shape, np.int64), shape) >= 0
    enough: Mask = count_true(passes) >= shape.count
    return enough


def choose_set(window: RowWindow, passes: Mask, scores: Scores, shape: SetRequirement) -> tuple[int, ...] | None:
    """Returns the columns of the best set of a single row, ascending; None if it has none.

    Arguments as of `best_set_scores`.
    """
    count, topology = shape.count, shape.topology
    if count == 1:
        alone = np.where(passes[0], scores[0], NO_SET)
        cell = int(alone.argmax())
        return None if alone[cell] == NO_SET else (cell,)
    cells, row = np.flatnonzero(passes[0]), scores[0]
    if len(cells) < count:
        return None
    if topology is Topology.NVLINK and count > 1:
        return _linked_set(shape.link_graphs[int(window.columns.link_graph[window.at][0])], passes[0], row, count)
    if topology is Topology.NUMA and count > 1:
        numa = window.columns.numa[window.at][0]
        cells = cells[numa[cells] >= 0]
        zones = [cells[numa[cells] == zone] for zone in np.unique(numa[cells])]
        sets = [_highest(zone, row, count) for zone in zones if len(zone) >= count]
        return max(sets, key=lambda s: (int(row[list(s)].sum()), [-c for c in s]), default=None)
    return _highest(cells, row, count)


def _top(masked: Scores, count: int) -> NDArray[np.int64]:
    if count == 1:
        best: NDArray[np.int64] = masked.max(axis=1)
        return best
    if count > masked.shape[1]:
        return np.full(len(masked), NO_SET, np.int64)
    highest = np.sort(masked, axis=1)[:, -count:]
    return np.where(highest[:, 0] == NO_SET, NO_SET, highest.sum(axis=1))


def _highest(cells: NDArray[np.intp], row: NDArray[np.int64], count: int) -> tuple[int, ...]:
    if count == 0:
        return ()
    order = np.argsort(-row[cells], kind="stable")[:count]
    return tuple(sorted(cells[order].tolist()))


def _linked_worth(window: RowWindow, passes: Mask, scores: Scores, shape: SetRequirement) -> NDArray[np.int64]:
    count = shape.count
    best = np.full(len(passes), NO_SET, np.int64)
    enough, link_graphs = passes.sum(axis=1) >= count, window.columns.link_graph[window.at]
    for code in np.unique(link_graphs[enough]):
        rows = np.flatnonzero(enough & (link_graphs == code))
        link_graph = shape.link_graphs[int(code)]
        sets = connected_sets(link_graph, count)
        if sets is None:
            for row in rows:
                chosen = grow_set(link_graph, scores[row], np.flatnonzero(passes[row]).tolist(), count)
                best[row] = NO_SET if chosen is None else scores[row][list(chosen)].sum()
            continue
        step = max(1, _MAX_CELLS // max(1, len(sets.bits)))
        for first in range(0, len(rows), step):
            part = rows[first : first + step]
            best[part] = _best_linked(passes[part], scores[part], sets.bits, sets.members, sets.links)[1]
    return best


def _best_linked(
    passes: Mask, scores: Scores, bits: NDArray[np.int64], members: NDArray[np.int64], links: NDArray[np.int64]
) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """Returns per row the position of the best set, and its sum of scores or NO_SET."""
    if not len(bits):
        return np.zeros(len(passes), np.intp), np.full(len(passes), NO_SET, np.int64)
    width = members.shape[1]
    blocked = (~passes[:, :width]).astype(np.int64) @ (np.int64(1) << np.arange(width, dtype=np.int64))
    sums = scores[:, :width] @ members.T
    ranked = np.where((blocked[:, None] & bits) == 0, (links << 32) + sums, NO_SET)
    best = ranked.argmax(axis=1)
    found = ranked[np.arange(len(best)), best] != NO_SET
    return best, np.where(found, sums[np.arange(len(best)), best], NO_SET)


def _linked_set(link_graph: LinkGraph, passes: Mask, row: NDArray[np.int64], count: int) -> tuple[int, ...] | None:
    sets = connected_sets(link_graph, count)
    if sets is None:
        return grow_set(link_graph, row, np.flatnonzero(passes).tolist(), count)
    best, value = _best_linked(passes[None, :], row[None, :], sets.bits, sets.members, sets.links)
    return None if int(value[0]) == NO_SET else tuple(np.flatnonzero(sets.members[int(best[0])]).tolist())
