"""Rules on the pods in a node's topology domain: each pick keeps them, and as many replicas are placed as can be."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpufleet_api.workload_placement import Strategy
from gpufleet_operator.placement import Fleet, place
from gpufleet_operator.placement.model import Decision, DomainRule, FilterReason, NodeState, RuleKind
from gpufleet_testing.hypothesis_profiles import examples
from gpufleet_testing.placement.builders import make_device, make_node, make_request

NODES = ("node-1", "node-2", "node-3", "node-4")
ZONES = {"node-1": "a", "node-2": "a", "node-3": "b", "node-4": "b"}
HOSTS = {name: name for name in NODES}


def fleet(*devices: int) -> Fleet:
    return Fleet.of([make_node(name, count) for name, count in zip(NODES, devices, strict=False)])


def rule(kind: RuleKind, domains: dict[str, str], reason: FilterReason = FilterReason.POD_ANTI_AFFINITY) -> DomainRule:
    return DomainRule(kind, reason, "the rule rejects it", domains, counts_replicas=True)


def per_node(decision: Decision) -> dict[str, int]:
    return dict(Counter(pick.node for pick in decision.picks))


@pytest.mark.parametrize("strategy", Strategy)
def test_replicas_apart_get_a_node_each(strategy: Strategy) -> None:
    request = make_request(3, strategy=strategy, rules=(rule(RuleKind.APART, HOSTS),))
    decision = place(fleet(8, 8), request)
    assert per_node(decision) == {"node-1": 1, "node-2": 1}
    assert decision.unplaced == (2,)
    assert decision.diagnosis is not None
    assert decision.diagnosis.message == (
        "0/16 GPUs are available: 16 on a node that does not match the pod anti-affinity. Each of 3 replicas requests "
        "1 GPU. 2 of 3 replicas placed. Closest is node-1/GPU-node-1-0: the rule rejects it."
    )


def test_gang_that_must_be_apart_holds_nothing_on_too_few_nodes() -> None:
    decision = place(fleet(8, 8), make_request(3, gang=True, rules=(rule(RuleKind.APART, HOSTS),)))
    assert decision.picks == ()
    assert decision.diagnosis is not None
    assert [(r.reason, r.devices) for r in decision.diagnosis.rejected] == [(FilterReason.POD_ANTI_AFFINITY, 16)]
    assert "2 of 3 replicas would fit" in decision.diagnosis.message


@pytest.mark.parametrize("strategy", Strategy)
def test_spread_keeps_the_skew_with_every_strategy(strategy: Strategy) -> None:
    spread = rule(RuleKind.SPREAD, HOSTS, FilterReason.TOPOLOGY_SPREAD)
    decision = place(fleet(8, 8, 8, 8), make_request(8, strategy=strategy, rules=(spread,)))
    assert per_node(decision) == dict.fromkeys(NODES, 2)


def test_spread_counts_a_full_domain() -> None:
    spread = rule(RuleKind.SPREAD, HOSTS, FilterReason.TOPOLOGY_SPREAD)
    decision = place(fleet(8, 1, 8, 8), make_request(8, rules=(spread,)))
    assert per_node(decision) == {"node-1": 2, "node-2": 1, "node-3": 2, "node-4": 2}
    assert decision.diagnosis is not None
    assert FilterReason.TOPOLOGY_SPREAD in {r.reason for r in decision.diagnosis.rejected}


def test_spread_with_too_few_domains_takes_zero_as_the_lowest_count() -> None:
    spread = replace(rule(RuleKind.SPREAD, ZONES, FilterReason.TOPOLOGY_SPREAD), min_domains=3)
    assert per_node(place(fleet(8, 8, 8, 8), make_request(8, rules=(spread,)))) == {"node-1": 1, "node-3": 1}


def test_spread_rejects_a_node_without_the_key() -> None:
    spread = rule(RuleKind.SPREAD, {"node-2": "a"}, FilterReason.TOPOLOGY_SPREAD)
    spread = replace(spread, outside_message="node has no label rack")
    decision = place(fleet(8, 1), make_request(2, rules=(spread,)))
    assert per_node(decision) == {"node-2": 1}
    assert decision.diagnosis is not None
    assert decision.diagnosis.nearest is not None
    assert decision.diagnosis.nearest.message == "node has no label rack"


def test_replicas_together_go_to_the_domain_where_all_fit() -> None:
    together = rule(RuleKind.TOGETHER, ZONES, FilterReason.POD_AFFINITY)
    decision = place(fleet(3, 0, 2, 2), make_request(4, gang=True, rules=(together,)))
    assert per_node(decision) == {"node-3": 2, "node-4": 2}


def test_together_and_apart_go_to_the_zone_with_enough_nodes() -> None:
    rules = (rule(RuleKind.TOGETHER, ZONES, FilterReason.POD_AFFINITY), rule(RuleKind.APART, HOSTS))
    decision = place(fleet(8, 0, 1, 1), make_request(2, gang=True, rules=rules))
    assert per_node(decision) == {"node-3": 1, "node-4": 1}


def test_affinity_to_other_pods_closes_the_other_domains() -> None:
    together = replace(rule(RuleKind.TOGETHER, ZONES, FilterReason.POD_AFFINITY), counts={"b": 1})
    assert per_node(place(fleet(8, 8, 1, 1), make_request(3, rules=(together,)))) == {"node-3": 1, "node-4": 1}


def test_affinity_that_no_pod_matches_closes_every_node() -> None:
    alone = replace(rule(RuleKind.TOGETHER, ZONES, FilterReason.POD_AFFINITY), counts_replicas=False)
    decision = place(fleet(8, 8), make_request(rules=(alone,)))
    assert decision.diagnosis is not None
    assert [(r.reason, r.devices) for r in decision.diagnosis.rejected] == [(FilterReason.POD_AFFINITY, 16)]


def test_replica_with_excluded_nodes_chooses_first() -> None:
    """Replica 0 would take the only node that replica 1 may use."""
    best = make_node("node-1", [make_device("GPU-1", temperature_celsius=30)])
    nodes = [best, make_node("node-2", [make_device("GPU-2", temperature_celsius=80)])]
    excluded = {1: frozenset({"node-2"})}
    request = make_request(2, gang=True, excluded_nodes=excluded, rules=(rule(RuleKind.APART, HOSTS),))
    assert [(p.replica, p.node) for p in place(Fleet.of(nodes), request).picks] == [(0, "node-2"), (1, "node-1")]


def test_a_rejected_node_does_not_hide_its_own_fault() -> None:
    """A taint is reported before the rule, as kube-scheduler does; devices in use are not."""
    nodes = [make_node("node-1", [make_device(held=True)]), make_node("node-2", 2, unschedulable=True)]
    taken = DomainRule(RuleKind.APART, FilterReason.HOST_PORT, "in use", HOSTS, {"node-1": 1, "node-2": 1})
    diagnosis = place(Fleet.of(nodes), make_request(rules=(taken,))).diagnosis
    assert diagnosis is not None
    reasons = {r.reason: r.devices for r in diagnosis.rejected}
    assert reasons == {FilterReason.NODE_UNSCHEDULABLE: 2, FilterReason.HOST_PORT: 1}


def rules() -> st.SearchStrategy[tuple[DomainRule, ...]]:
    names = st.sampled_from(("a", "b", "c"))
    one = st.builds(
        DomainRule,
        kind=st.sampled_from(RuleKind),
        reason=st.just(FilterReason.TOPOLOGY_SPREAD),
        message=st.just("rejected"),
        domains=st.dictionaries(st.sampled_from(NODES), names),
        counts=st.dictionaries(names, st.integers(0, 2)),
        counts_replicas=st.booleans(),
        max_skew=st.integers(1, 2),
        min_domains=st.integers(1, 3),
    )
    return st.lists(one, min_size=1, max_size=3).map(tuple)


def allows(rule: DomainRule, counts: Counter[str], node: str) -> bool:
    """kube-scheduler's rules, one node at a time."""
    domain = rule.domains.get(node)
    if rule.kind is RuleKind.APART:
        return domain is None or not counts[domain]
    if domain is None:
        return False
    if rule.kind is RuleKind.TOGETHER:
        return counts[domain] > 0 or (rule.counts_replicas and not counts.total())
    names = {*rule.domains.values(), *rule.counts}
    lowest = min(counts[name] for name in names) if len(names) >= rule.min_domains else 0
    return counts[domain] + rule.counts_replicas - lowest <= rule.max_skew


@examples(60)
@given(found=rules(), devices=st.lists(st.integers(0, 4), min_size=4, max_size=4), gang=st.booleans())
def test_each_pick_keeps_every_rule(found: tuple[DomainRule, ...], devices: list[int], gang: bool) -> None:
    decision = place(fleet(*devices), make_request(4, gang=gang, rules=found))
    counts = [Counter({name: count for name, count in rule.counts.items() if count}) for rule in found]
    for pick in decision.picks:
        for rule, counted in zip(found, counts, strict=True):
            assert allows(rule, counted, pick.node)
        for rule, counted in zip(found, counts, strict=True):
            if rule.counts_replicas and pick.node in rule.domains:
                counted[rule.domains[pick.node]] += 1
    free = Counter(dict(zip(NODES, devices, strict=True)))
    free.subtract(per_node(decision))
    if decision.unplaced and not gang:
        left = [node for node in NODES if free[node] > 0]
        assert not [n for n in left if all(allows(r, c, n) for r, c in zip(found, counts, strict=True))] or any(
            r.kind is RuleKind.TOGETHER for r in found
        )


def test_rules_leave_the_fleet_unchanged() -> None:
    nodes: list[NodeState] = [make_node(name, 2) for name in NODES]
    made = Fleet.of(nodes)
    place(made, make_request(3, rules=(rule(RuleKind.APART, HOSTS),)))
    assert {**made.nodes} == {node.name: node for node in nodes}
