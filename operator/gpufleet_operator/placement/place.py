"""One request in, one decision out: filter, score, select, replica by replica on a copy of the fleet."""

from dataclasses import dataclass
from typing import assert_never

from gpufleet_api.workload import Strategy, Topology
from gpufleet_operator.placement import filters
from gpufleet_operator.placement.errors import InvalidRequestError
from gpufleet_operator.placement.explain import explain
from gpufleet_operator.placement.fleet import Fleet
from gpufleet_operator.placement.model import Decision, NodeState, Pick, Request
from gpufleet_operator.placement.score import check_weights, mean, score
from gpufleet_operator.placement.topology import Candidate, best_set


@dataclass(frozen=True, slots=True)
class _Option:
    """One node that could take the replica: the devices it would give, and how many more it could."""

    pick: Pick
    eligible: int


def place(fleet: Fleet, request: Request) -> Decision:
    """Choose node and devices for every replica of the request. The fleet is not changed.

    A gang gets all of its replicas or none. Equal options are decided by node name, then device index.

    Raises:
        InvalidRequestError: the request contradicts itself.
    """
    _check(request)
    plan = fleet.copy()
    nodes = _allowed_nodes(plan, request)
    siblings = dict(request.siblings)
    picks: list[Pick] = []
    for replica in request.replicas:
        pick = _choose(plan, request, replica, nodes, siblings)
        if pick is None:
            continue
        plan.hold(pick.node, pick.devices, request.pod)
        siblings[pick.node] = siblings.get(pick.node, 0) + 1
        picks.append(pick)
        if request.topology is Topology.SAME_NODE:
            nodes = (pick.node,)
    placed = {p.replica for p in picks}
    unplaced = tuple(r for r in request.replicas if r not in placed)
    if not unplaced:
        return Decision(tuple(picks))
    if request.gang:
        return Decision((), request.replicas, explain(fleet, request, unplaced[0], tuple(picks)))
    return Decision(tuple(picks), unplaced, explain(plan, request, unplaced[0], tuple(picks)))


def _check(request: Request) -> None:
    if request.devices.count < 1:
        raise InvalidRequestError(f"{request.name}: devices.count is {request.devices.count}, must be 1 or more")
    if len(set(request.replicas)) != len(request.replicas):
        raise InvalidRequestError(f"{request.name}: a replica stands twice in {request.replicas}")
    if both := request.devices.include_uuids & request.devices.exclude_uuids:
        raise InvalidRequestError(f"{request.name}: {min(both)} is both included and excluded")
    check_weights(request.weights)


def _allowed_nodes(plan: Fleet, request: Request) -> tuple[str, ...]:
    """All nodes, by name; with SameNode the one that has siblings, or else the one that can take the most replicas."""
    names = tuple(sorted(plan.nodes))
    if request.topology is not Topology.SAME_NODE:
        return names
    if request.siblings:
        return (max(request.siblings, key=lambda n: (request.siblings[n], n)),)
    room = {name: _room_for(plan.nodes[name], request) for name in names}
    most = max(room.values(), default=0)
    return tuple(name for name in names if room[name] == most)


def _room_for(node: NodeState, request: Request) -> int:
    """How many replicas of the request, at most all of them, the node could take by itself."""
    alone = Fleet.of([node])
    for taken, replica in enumerate(request.replicas):
        option = _option(alone.nodes[node.name], request, replica)
        if option is None:
            return taken
        alone.hold(node.name, option.pick.devices, request.pod)
    return len(request.replicas)


def _choose(
    plan: Fleet, request: Request, replica: int, nodes: tuple[str, ...], siblings: dict[str, int]
) -> Pick | None:
    options = [o for name in nodes if name in plan.nodes and (o := _option(plan.nodes[name], request, replica))]
    if not options:
        return None

    def rank(option: _Option) -> tuple[float, ...]:
        """Lower is better; `min` keeps the first of equals, and `nodes` is in order of name."""
        match request.strategy:
            case Strategy.BEST:
                return (-option.pick.terms.total,)
            case Strategy.PACK:
                return (option.eligible, -option.pick.terms.total)
            case Strategy.SPREAD:
                return (siblings.get(option.pick.node, 0), -option.pick.terms.total)
            case _:
                assert_never(request.strategy)

    return min(options, key=rank).pick


def _option(node: NodeState, request: Request, replica: int) -> _Option | None:
    aside = request.set_aside.get(replica, frozenset())
    if filters.refuse_node(node, request.pod, aside) or filters.refuse_room(node, request.pod):
        return None
    passed = [d for d in node.devices if filters.refuse_device(d, request.devices) is None]
    terms = {d.uuid: score(d, request.weights) for d in passed}
    candidates = [Candidate(d.uuid, d.index, terms[d.uuid].total, d.numa_node, d.nvlink_peers) for d in passed]
    chosen = best_set(candidates, request.devices.count, request.topology)
    if chosen is None:
        return None
    uuids = tuple(c.uuid for c in chosen)
    return _Option(Pick(replica, node.name, uuids, mean([terms[u] for u in uuids])), len(candidates))
