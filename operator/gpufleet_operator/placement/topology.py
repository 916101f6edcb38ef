"""Which devices of one node make a replica: the best-connected set, exact while the node is small.

NVLink: every device reaches every other through links inside the set; among such sets the one with the most
direct links wins, then the higher score. NUMA: all devices report the same NUMA node. Otherwise: the highest
scores. Ties go to the lowest device indices.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb

from gpufleet_api.workload import Topology

_EXACT_SETS = 20_000
"""Sets tried one by one; a node with more possible sets grows a set from each device instead."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One device that passed the filters."""

    uuid: str
    index: int
    score: float
    numa_node: int | None
    nvlink_peers: frozenset[str]


def best_set(candidates: Sequence[Candidate], count: int, topology: Topology) -> tuple[Candidate, ...] | None:
    """The `count` devices to take, in index order, or None when the node has no such set."""
    if len(candidates) < count:
        return None
    ranked = sorted(candidates, key=lambda c: (-c.score, c.index))
    if topology is Topology.NVLINK and count > 1:
        return _in_order(_linked(ranked, count))
    if topology is Topology.NUMA:
        return _in_order(_one_numa(ranked, count))
    return _in_order(ranked[:count])


def _in_order(chosen: Iterable[Candidate] | None) -> tuple[Candidate, ...] | None:
    return None if chosen is None else tuple(sorted(chosen, key=lambda c: c.index))


def _one_numa(ranked: Sequence[Candidate], count: int) -> Sequence[Candidate] | None:
    zones: dict[int, list[Candidate]] = {}
    for candidate in ranked:
        if candidate.numa_node is not None:
            zones.setdefault(candidate.numa_node, []).append(candidate)
    fitting = [zone[:count] for zone in zones.values() if len(zone) >= count]
    return max(fitting, key=lambda z: (sum(c.score for c in z), -z[0].index), default=None)


def _linked(ranked: Sequence[Candidate], count: int) -> Sequence[Candidate] | None:
    if comb(len(ranked), count) <= _EXACT_SETS:
        sets: Iterable[Sequence[Candidate]] = combinations(ranked, count)
    else:
        sets = filter(None, (_grow(seed, ranked, count) for seed in ranked))
    return max(filter(_connected, sets), key=_worth, default=None)


def _worth(chosen: Sequence[Candidate]) -> tuple[int, float, list[int]]:
    return _links(chosen), round(sum(c.score for c in chosen), 6), [-i for i in sorted(c.index for c in chosen)]


def _links(chosen: Sequence[Candidate]) -> int:
    return sum(_joined(a, b) for a, b in combinations(chosen, 2))


def _joined(a: Candidate, b: Candidate) -> bool:
    return b.uuid in a.nvlink_peers or a.uuid in b.nvlink_peers


def _connected(chosen: Sequence[Candidate]) -> bool:
    reached, rest = [chosen[0]], list(chosen[1:])
    for here in reached:
        near = [c for c in rest if _joined(here, c)]
        reached.extend(near)
        rest = [c for c in rest if c not in near]
    return not rest


def _grow(seed: Candidate, ranked: Sequence[Candidate], count: int) -> Sequence[Candidate] | None:
    chosen = [seed]
    while len(chosen) < count:
        near = [(sum(_joined(c, o) for o in chosen), c.score, -c.index, c) for c in ranked if c not in chosen]
        links, _, _, best = max(near, key=lambda n: n[:3])
        if not links:
            return None
        chosen.append(best)
    return chosen
