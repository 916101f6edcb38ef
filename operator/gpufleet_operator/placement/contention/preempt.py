"""Finds the cheapest pods of lower priority whose eviction makes a request fit. Proposes only.

Among sets of pods, the one whose highest priority is lowest is chosen, then the smallest, then the one with the lowest
sum of priorities, then the one with the fewest devices, then the first by name. The pods of a gang are evicted
together. Pods that are ending already are waited for instead of evicting others.

Several replicas are considered together if there are few potential victims; with many, one replica after the other, so
the victims are minimal for each of them.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import chain, combinations
from math import comb

from gpufleet_operator.placement.contention.holder_table import copy_with_table, holder_table
from gpufleet_operator.placement.contention.removal import without
from gpufleet_operator.placement.contention.victims import (
    EvictionTerms,
    Victim,
    VictimSearch,
    VictimUnit,
    cost_of,
)
from gpufleet_operator.placement.fleet.fleet import Fleet
from gpufleet_operator.placement.model import Pick, Request
from gpufleet_operator.placement.packing.mix import PRIOR, Mix
from gpufleet_operator.placement.place import place
from gpufleet_operator.placement.place_many import hold

_MAX_JOINT_SETS = 1_000
"""Maximum number of sets of victims across nodes that are tried for several replicas together."""

_MAX_JOINT_PODS = 64
"""Maximum number of devices held by pods of lower priority for which sets of victims across nodes are tried."""


@dataclass(frozen=True, slots=True)
class PreemptionProposal:
    """The victims, and the picks after their eviction. A gang's proposal covers all of its replicas.

    Without victims, the pods that are ending already leave room for these picks.
    """

    victims: tuple[Victim, ...]
    picks: tuple[Pick, ...]


def propose(
    fleet: Fleet, request: Request, mix: Mix = PRIOR, *, now: float = 0.0, blocked: Collection[str] = ()
) -> PreemptionProposal | None:
    """Returns victims for the replicas that do not fit; None if all fit, or no eviction would help.

    The fleet is not changed. Raises as `place` does.

    Args:
        fleet: The fleet.
        request: The replicas.
        mix: As for `place`.
        now: Seconds since the epoch, for pods that are protected until some time.
        blocked: Uids of pods that are not evicted.
    """
    if not request.may_preempt or not place(fleet, request, mix, explain=False).unplaced:
        return None
    plan = copy_with_table(fleet)
    leaving = sorted(holder_table(plan).leaving)
    for name in leaving:
        node = plan.nodes[name]
        plan.put(without(node, [holder for holder in node.holders if holder.leaving]))
    waited_for = None
    if leaving:
        decision = place(plan, request, mix, explain=False)
        waited_for = PreemptionProposal((), decision.picks) if decision.picks else None
        if not decision.unplaced:
            return waited_for
    terms = EvictionTerms(request.priority, now, frozenset(blocked))
    found = _one_by_one(copy_with_table(plan), request, mix, terms)
    if len(request.replicas) > 1:
        found = _together(plan, request, mix, terms, known=found)
    return found if found is not None else waited_for


def _one_by_one(plan: Fleet, request: Request, mix: Mix, terms: EvictionTerms) -> PreemptionProposal | None:
    search = VictimSearch(plan, terms)
    victims: list[Victim] = []
    picks: list[Pick] = []
    placed_replicas = dict(request.placed_replicas)
    for replica in request.replicas:
        excluded = {replica: nodes} if (nodes := request.excluded_nodes.get(replica)) else {}
        single = replace(request, replicas=(replica,), placed_replicas=dict(placed_replicas), excluded_nodes=excluded)
        decision = place(plan, single, mix, explain=False)
        if not decision.picks:
            found = search.cheapest(single)
            if found is None:
                if request.gang:
                    return None
                continue
            for unit in found.units:
                search.remove(unit)
                victims.extend(unit.victims)
            only = frozenset(plan.nodes) - {found.node}
            decision = place(plan, replace(single, excluded_nodes={replica: only}), mix, explain=False)
            if not decision.picks:  # a rule on other nodes is not met
                return None
        hold(plan, request, decision)
        picks.extend(decision.picks)
        placed_replicas[decision.picks[0].node] = placed_replicas.get(decision.picks[0].node, 0) + 1
    return PreemptionProposal(tuple(victims), tuple(picks)) if victims else None


def _together(
    plan: Fleet, request: Request, mix: Mix, terms: EvictionTerms, *, known: PreemptionProposal | None
) -> PreemptionProposal | None:
    """Returns the best victims for as many replicas as possible; `known` if there are too many potential victims."""
    search = VictimSearch(plan, terms)
    if search.more_pods_than(_MAX_JOINT_PODS):
        return known
    units = search.units(plan.nodes)
    most = len(_after(plan, units, request, mix))
    if most <= len(place(plan, request, mix, explain=False).picks):
        return known
    tried = 0
    for limit in sorted({unit.cost[0] for unit in units}):
        pool = [unit for unit in units if unit.cost[0] <= limit]
        if len(_after(plan, pool, request, mix)) < most:
            continue
        for size in range(1, len(pool) + 1):
            tried += comb(len(pool), size)
            if tried > _MAX_JOINT_SETS:
                return known
            sets = combinations(pool, size)
            for gone in sorted(sets, key=lambda s: (cost_of(s), [unit.name for unit in s])):
                picks = _after(plan, gone, request, mix)
                if len(picks) == most:
                    return PreemptionProposal(tuple(chain.from_iterable(unit.victims for unit in gone)), picks)
    return known


def _after(plan: Fleet, gone: Sequence[VictimUnit], request: Request, mix: Mix) -> tuple[Pick, ...]:
    """Returns the picks without these pods; restores the plan."""
    victims = [victim for unit in gone for victim in unit.victims]
    before = {victim.node: plan.nodes[victim.node] for victim in victims}
    for name, node in before.items():
        plan.put(without(node, [v.holder for v in victims if v.node == name]))
    picks = place(plan, request, mix, explain=False).picks
    for node in before.values():
        plan.put(node)
    return picks
