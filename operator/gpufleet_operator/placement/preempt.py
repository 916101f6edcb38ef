"""Finds the cheapest lower-priority pods whose removal makes a request fit. Proposes only.

Among sets of pods of lower priority, the one whose highest priority is lowest is chosen, then the smallest, then the
one with the lowest sum of priorities, then the first by name. A victim's observed use is assumed to be freed with it; a
share is first subtracted from what is in flight.

Several replicas are considered together if there are few potential victims; with many, one replica after the other, so
the victims are minimal for each of them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import comb

from gpufleet_operator.placement.fleet.accounting import split_share, without_pod
from gpufleet_operator.placement.fleet.fleet import Fleet
from gpufleet_operator.placement.model import DeviceState, NodeState, Pick, PotentialVictim, Request, Share
from gpufleet_operator.placement.packing.mix import PRIOR, Mix
from gpufleet_operator.placement.place import place
from gpufleet_operator.placement.place_many import hold

_MAX_EXACT_SETS = 2_000
"""With more sets of victims of one size and node than this, pods are reprieved greedily."""

_MAX_JOINT_SETS = 1_000
"""Sets of victims of all nodes that are tried for several replicas together."""


@dataclass(frozen=True, slots=True)
class Victim:
    """A pod to evict."""

    node: str
    holder: PotentialVictim


@dataclass(frozen=True, slots=True)
class PreemptionProposal:
    """The victims, and the picks after their eviction. A gang's proposal covers all of its replicas."""

    victims: tuple[Victim, ...]
    picks: tuple[Pick, ...]


def propose(fleet: Fleet, request: Request, mix: Mix = PRIOR) -> PreemptionProposal | None:
    """Returns victims for the replicas that do not fit; None if no victims are needed or none would help.

    The fleet is not changed. Raises as `place` does.
    """
    if not request.may_preempt or not place(fleet, request, mix, explain=False).unplaced:
        return None
    found = _one_by_one(fleet, request, mix)
    return found if len(request.replicas) == 1 else _together(fleet, request, mix, found)


def _one_by_one(fleet: Fleet, request: Request, mix: Mix) -> PreemptionProposal | None:
    plan = fleet.copy()
    victims: list[Victim] = []
    picks: list[Pick] = []
    placed_replicas = dict(request.placed_replicas)
    for replica in request.replicas:
        single = replace(request, replicas=(replica,), placed_replicas=dict(placed_replicas))
        decision = place(plan, single, mix, explain=False)
        if not decision.picks:
            going = _cheapest(plan, single)
            if going is None:
                if request.gang:
                    return None
                continue
            node, potential_victims = going
            plan.put(without(plan.nodes[node], potential_victims))
            victims.extend(Victim(node, holder) for holder in potential_victims)
            decision = place(plan, replace(single, excluded_nodes={replica: frozenset(plan.nodes) - {node}}), mix)
        hold(plan, request, decision)
        picks.extend(decision.picks)
        placed_replicas[decision.picks[0].node] = placed_replicas.get(decision.picks[0].node, 0) + 1
    return PreemptionProposal(tuple(victims), tuple(picks)) if victims else None


def _together(fleet: Fleet, request: Request, mix: Mix, known: PreemptionProposal | None) -> PreemptionProposal | None:
    """Returns the best victims for as many replicas as possible; `known` if there are too many potential victims."""
    lower = [
        Victim(name, h) for name, n in fleet.nodes.items() for h in n.potential_victims if h.priority < request.priority
    ]
    lower.sort(key=lambda v: (v.holder.priority, v.node, v.holder.name))
    plan = fleet.copy()
    most = len(_after(plan, lower, request, mix))
    if most <= len(place(fleet, request, mix, explain=False).picks):
        return known
    tried = 0
    for limit in sorted({v.holder.priority for v in lower}):
        pool = [v for v in lower if v.holder.priority <= limit]
        if len(_after(plan, pool, request, mix)) < most:
            continue
        for size in range(1, len(pool) + 1):
            tried += comb(len(pool), size)
            if tried > _MAX_JOINT_SETS:
                return known
            sets = combinations(pool, size)
            for gone in sorted(
                sets, key=lambda s: (_cost([v.holder for v in s]), [(v.node, v.holder.name) for v in s])
            ):
                picks = _after(plan, gone, request, mix)
                if len(picks) == most:
                    return PreemptionProposal(gone, picks)
    return known


def _after(plan: Fleet, gone: Sequence[Victim], request: Request, mix: Mix) -> tuple[Pick, ...]:
    """Returns the picks without these pods; restores the plan."""
    before = {victim.node: plan.nodes[victim.node] for victim in gone}
    for name, node in before.items():
        plan.put(without(node, [v.holder for v in gone if v.node == name]))
    picks = place(plan, request, mix, explain=False).picks
    for node in before.values():
        plan.put(node)
    return picks


def without(node: NodeState, gone: Sequence[PotentialVictim]) -> NodeState:
    devices = {d.uuid: d for d in node.devices}
    for holder in gone:
        for uuid in holder.devices:
            if uuid in devices:
                devices[uuid] = _released(devices[uuid], holder.share)
        node = without_pod(node, holder.pod)
    kept = tuple(h for h in node.potential_victims if h not in gone)
    return replace(node, devices=tuple(devices[d.uuid] for d in node.devices), potential_victims=kept)


def _released(device: DeviceState, share: Share | None) -> DeviceState:
    if share is None:
        return _idle(replace(device, held=False))
    flying, rest = split_share(device, share)
    used, busy = device.memory_used_mib, device.utilization_percent
    left = replace(
        device,
        sharers=max(0, device.sharers - 1),
        free_slots=None if device.free_slots is None else device.free_slots + 1,
        in_flight_memory_mib=device.in_flight_memory_mib - flying.memory_mib,
        in_flight_compute_percent=device.in_flight_compute_percent - flying.compute_percent,
        promised_memory_mib=max(0, device.promised_memory_mib - rest.memory_mib),
        promised_compute_percent=max(0, device.promised_compute_percent - rest.compute_percent),
        memory_used_mib=None if used is None else max(0, used - rest.memory_mib),
        utilization_percent=None if busy is None else max(0, busy - rest.compute_percent),
    )
    return left if left.sharers else _idle(left)


def _idle(device: DeviceState) -> DeviceState:
    """Without holders, the observed use is assumed to be theirs."""
    return replace(
        device,
        memory_used_mib=None if device.memory_used_mib is None else 0,
        utilization_percent=None if device.utilization_percent is None else 0,
        process_count=None if device.process_count is None else 0,
    )


def _cheapest(plan: Fleet, single: Request) -> tuple[str, tuple[PotentialVictim, ...]] | None:
    best: tuple[tuple[int, int, int, str], tuple[PotentialVictim, ...]] | None = None
    for name in sorted(plan.nodes):
        node = plan.nodes[name]
        lower = [h for h in node.potential_victims if h.priority < single.priority]
        if not lower or (best is not None and min(h.priority for h in lower) > best[0][0]):
            continue
        victims = _victims(node, lower, single)
        if victims is not None:
            cost = (*_cost(victims), name)
            best = min(best, (cost, victims), key=lambda b: b[0]) if best else (cost, victims)
    return None if best is None else (best[0][3], best[1])


def _cost(victims: Sequence[PotentialVictim]) -> tuple[int, int, int]:
    return max(h.priority for h in victims), len(victims), sum(h.priority for h in victims)


def _victims(node: NodeState, lower: Sequence[PotentialVictim], single: Request) -> tuple[PotentialVictim, ...] | None:
    for limit in sorted({h.priority for h in lower}):
        candidates = sorted((h for h in lower if h.priority <= limit), key=lambda h: (h.priority, h.name))
        if not _fits(node, candidates, single):
            continue
        for size in range(1, len(candidates)):
            if comb(len(candidates), size) > _MAX_EXACT_SETS:
                return _reprieved(node, candidates, single)
            fitting = (chosen for chosen in _by_priority(candidates, size) if _fits(node, chosen, single))
            found = next(fitting, None)
            if found is not None:
                return found
        return tuple(candidates)
    return None


def _by_priority(candidates: Sequence[PotentialVictim], size: int) -> Iterator[tuple[PotentialVictim, ...]]:
    """Yields all sets of a size, cheapest first."""
    yield from sorted(combinations(candidates, size), key=lambda c: (_cost(c), [h.name for h in c]))


def _reprieved(node: NodeState, candidates: Sequence[PotentialVictim], single: Request) -> tuple[PotentialVictim, ...]:
    """Reprieves the most important pods as long as the rest is enough."""
    going = list(candidates)
    for holder in reversed(candidates):
        rest = [h for h in going if h is not holder]
        if _fits(node, rest, single):
            going = rest
    return tuple(going)


def _fits(node: NodeState, gone: Sequence[PotentialVictim], single: Request) -> bool:
    return bool(place(Fleet.of([without(node, gone)]), single, explain=False).picks)
