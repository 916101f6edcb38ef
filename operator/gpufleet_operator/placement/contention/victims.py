"""Finds the cheapest pods of a node whose eviction lets one replica fit."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, combinations

import numpy as np

from gpufleet_operator.placement.contention.holder_table import NOT_EVICTABLE, holder_table
from gpufleet_operator.placement.contention.prospects import prospects
from gpufleet_operator.placement.contention.removal import without
from gpufleet_operator.placement.fleet.columns import count_true
from gpufleet_operator.placement.fleet.fleet import Fleet
from gpufleet_operator.placement.model import HolderPod, NodeState, Request
from gpufleet_operator.placement.place import place
from gpufleet_operator.placement.search.query import Query, query_key

_MAX_EXACT_UNITS = 10
"""With more units on a node than this, pods are reprieved greedily instead of trying all sets."""

_MAX_NODES = 256
"""Maximum number of nodes that are tried, in the order of a lower bound of the cost of their victims."""

_MAX_NODES_AFTER_FIRST = 8
"""Maximum number of further nodes that are tried after victims were found."""

Cost = tuple[int, int, int, int]
"""Highest priority, number of pods, sum of priorities, number of devices."""


@dataclass(frozen=True, slots=True)
class Victim:
    """A pod to evict."""

    node: str
    holder: HolderPod


@dataclass(frozen=True, slots=True)
class VictimUnit:
    """Pods that are evicted together: a gang, or one pod."""

    name: str
    victims: tuple[Victim, ...]
    cost: Cost

    def on(self, node: str) -> Iterator[HolderPod]:
        return (victim.holder for victim in self.victims if victim.node == node)


@dataclass(frozen=True, slots=True)
class Eviction:
    """The units to evict for one replica, and the node on which it then fits."""

    cost: Cost
    node: str
    units: tuple[VictimUnit, ...]


def cost_of(units: Iterable[VictimUnit]) -> Cost:
    costs = [unit.cost for unit in units]
    return max(c[0] for c in costs), sum(c[1] for c in costs), sum(c[2] for c in costs), sum(c[3] for c in costs)


@dataclass(frozen=True, slots=True)
class EvictionTerms:
    """Which pods may be evicted."""

    priority: int
    """Only pods with a lower priority may be evicted."""
    now: float
    """Seconds since the epoch."""
    blocked: frozenset[str] = frozenset()
    """UIDs of pods that may not be evicted, because an eviction of them failed recently."""

    def allow(self, holder: HolderPod) -> bool:
        allowed = holder.evictable and holder.priority < self.priority and holder.protected_until <= self.now
        return allowed and holder.uid not in self.blocked


class VictimSearch:
    """Searches victims for one replica at a time.

    Args:
        plan: The fleet without the victims so far; the caller changes it.
        terms: Conditions for evicting a pod.
    """

    def __init__(self, plan: Fleet, terms: EvictionTerms) -> None:
        self._plan, self._terms = plan, terms

    def more_pods_than(self, number: int) -> bool:
        """Returns True when pods of lower priority have more devices than this."""
        table = holder_table(self._plan)
        return int(((table.ends > 0) & (table.priority < self._terms.priority)).sum()) > number

    def units(self, nodes: Iterable[str]) -> tuple[VictimUnit, ...]:
        """Returns the units on some nodes of which every pod may be evicted, cheapest first."""
        table, keys = holder_table(self._plan), set()
        found: dict[str, list[Victim]] = {}
        for node in nodes:
            for holder in self._plan.nodes[node].holders:
                if holder.group:
                    keys.add(holder.group)
                else:
                    found[f"{holder.uid}/{holder.name}"] = [Victim(node, holder)]
        for group in keys:
            found[group] = [
                Victim(node, holder)
                for node in sorted(table.groups[group])
                for holder in self._plan.nodes[node].holders
                if holder.group == group
            ]
        units = []
        for victims in found.values():
            staying = [victim for victim in victims if not victim.holder.leaving]
            if staying and all(self._terms.allow(victim.holder) for victim in staying):
                units.append(_unit(staying))
        return tuple(sorted(units, key=lambda unit: (unit.cost, unit.name)))

    def remove(self, unit: VictimUnit) -> None:
        """Removes the pods of a unit from the plan."""
        for node in sorted({victim.node for victim in unit.victims}):
            self._plan.put(without(self._plan.nodes[node], tuple(unit.on(node))))

    def cheapest(self, single: Request) -> Eviction | None:
        """Returns the cheapest eviction that lets the replica fit; None if none does.

        Of the nodes, those with the lowest bound are tried first. Once victims are found, a limited number of nodes is
        compared with them.
        """
        best: Eviction | None = None
        compared = 0
        for bound, node in self._bounds(single):
            if best is not None and ((bound, node) >= (best.cost, best.node) or compared >= _MAX_NODES_AFTER_FIRST):
                break
            compared += best is not None
            found = self._on_node(node, single)
            if found is not None and (best is None or (found.cost, found.node) < (best.cost, best.node)):
                best = found
        return best

    def _bounds(self, single: Request) -> list[tuple[Cost, str]]:
        """Returns nodes by a lower bound of the cost of their victims, as many as are tried at most."""
        plan, count = self._plan, single.devices.count
        query = plan.memo.get(Query, query_key(single), lambda: Query.of(single))
        found, table = prospects(plan, query), holder_table(plan)
        may_go = (table.ends > 0) & (table.priority < self._terms.priority) & (table.protected <= self._terms.now)
        missing = count - count_true(found.passing).astype(np.int64)
        gained = np.where((missing > 0)[:, None], found.possible & ~found.passing & may_go, may_go)
        need = np.maximum(missing, 1)
        enough = (count_true(gained) >= need) & (count_true(found.possible) >= count)
        for name in chain.from_iterable(single.excluded_nodes.values()):
            if (row := plan.row(name)) is not None:
                enough[row] = False
        rows = np.flatnonzero(enough)
        if not len(rows):
            return []
        priorities = np.sort(np.where(gained[rows], table.priority[rows], NOT_EVICTABLE), axis=1)
        last = (need[rows] - 1)[:, None]
        limit = np.take_along_axis(priorities, last, axis=1)[:, 0]
        largest = np.max(np.where(gained[rows], table.size[rows], 1), axis=1)
        number = -(-need[rows] // largest)
        sums = np.cumsum(np.where(priorities == NOT_EVICTABLE, 0, priorities), axis=1)
        least = np.where(
            largest == 1, np.take_along_axis(sums, last, axis=1)[:, 0], np.minimum(priorities[:, 0], 0) * number
        )
        order = np.lexsort((plan.ranked().rank[rows], need[rows], least, number, limit))[:_MAX_NODES]
        bounds = zip(*(each[order].tolist() for each in (limit, number, least, need[rows])), strict=True)
        return [(bound, plan.name(row)) for bound, row in zip(bounds, rows[order].tolist(), strict=True)]

    def _on_node(self, node: str, single: Request) -> Eviction | None:
        state, units = self._plan.nodes[node], self.units((node,))
        if not units or not self._fits(state, units, single):
            return None
        if len(units) > _MAX_EXACT_UNITS:
            chosen = self._reprieved(state, units, single)
            return Eviction(cost_of(chosen), node, chosen)
        sets = chain.from_iterable(combinations(units, size) for size in range(1, len(units) + 1))
        priced = sorted(((cost_of(chosen), [u.name for u in chosen], chosen) for chosen in sets), key=lambda p: p[:2])
        return next((Eviction(cost, node, c) for cost, _, c in priced if self._fits(state, c, single)), None)

    def _reprieved(self, node: NodeState, units: Sequence[VictimUnit], single: Request) -> tuple[VictimUnit, ...]:
        """Reprieves the most important pods as long as the rest is enough."""
        going = list(units)
        for unit in sorted(units, key=lambda unit: (unit.cost, unit.name), reverse=True):
            rest = [other for other in going if other is not unit]
            if rest and self._fits(node, rest, single):
                going = rest
        return tuple(going)

    def _fits(self, node: NodeState, units: Sequence[VictimUnit], single: Request) -> bool:
        gone = tuple(chain.from_iterable(unit.on(node.name) for unit in units))
        freed = sum(1 for holder in gone for _ in holder.devices)
        free = sum(1 for d in node.devices if not d.held and (not d.sharers or single.devices.share is not None))
        if free + freed < single.devices.count:
            return False
        alone = Fleet.of([without(node, gone)], self._plan.earmarks)
        return bool(place(alone, single, explain=False).picks)


def _unit(victims: Sequence[Victim]) -> VictimUnit:
    priorities = [victim.holder.priority for victim in victims]
    devices = sum(len(victim.holder.devices) for victim in victims)
    cost = max(priorities), len(victims), sum(priorities), devices
    return VictimUnit(min(victim.holder.name for victim in victims), tuple(victims), cost)
