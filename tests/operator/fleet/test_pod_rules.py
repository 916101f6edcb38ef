"""Which rules the engine gets for a pod, given the pods on the nodes."""

from typing import Any

from gpufleet_operator.fleet.pod_rules import DomainNode, PlacedPod, PlacedPods
from gpufleet_operator.placement.model import FilterReason, PodNeeds, RuleKind, Taint
from gpufleet_operator.pods.traits import bound_traits, pod_traits

HOST, ZONE = "kubernetes.io/hostname", "topology.kubernetes.io/zone"
NODES = tuple(DomainNode(f"node-{n}", {HOST: f"node-{n}", ZONE: zone}) for n, zone in ((1, "a"), (2, "a"), (3, "b")))
CPU_NODE = DomainNode("cpu", {HOST: "cpu", ZONE: "c"}, has_devices=False)
SELECTOR = {"matchLabels": {"app": "x"}}


def term(key: str = HOST, **fields: object) -> dict[str, Any]:
    return {"topologyKey": key, "labelSelector": SELECTOR, **fields}


def affinity(kind: str, *terms: dict[str, Any]) -> dict[str, Any]:
    return {"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": list(terms)}}}


def spread(**fields: object) -> dict[str, Any]:
    one = {"maxSkew": 1, "topologyKey": HOST, "whenUnsatisfiable": "DoNotSchedule", "labelSelector": SELECTOR}
    return {"topologySpreadConstraints": [{**one, **fields}]}


def placed(*pods: tuple[str, dict[str, Any]], nodes: tuple[DomainNode, ...] = NODES, app: str = "x") -> PlacedPods:
    found = PlacedPods(nodes)
    for node, spec in pods:
        found.add(node, bound_traits("ml", {"app": app}, spec))
    return found


def port(number: int, **fields: object) -> dict[str, Any]:
    return {"containers": [{"ports": [{"containerPort": 1, "hostPort": number, **fields}]}]}


def test_pod_without_rules_has_none() -> None:
    assert placed(("node-1", port(80))).rules(pod_traits("ml", {"app": "x"}, {}), PodNeeds()) == ()


def test_node_with_used_host_port_is_rejected() -> None:
    pods = placed(("node-1", port(80)), ("node-2", port(80, protocol="UDP")), ("node-3", port(80, hostIP="10.0.0.1")))
    (rule,) = pods.rules(pod_traits("ml", {}, port(80)), PodNeeds())
    assert (rule.kind, rule.reason, rule.counts_replicas) == (RuleKind.APART, FilterReason.HOST_PORT, True)
    assert rule.counts == {"node-1": 1, "node-3": 1}
    assert rule.message == "host port 80/TCP is in use on the node"


def test_host_network_uses_the_container_ports() -> None:
    spec = {"hostNetwork": True, "containers": [{"ports": [{"containerPort": 9000}]}]}
    (rule,) = placed(("node-2", spec)).rules(pod_traits("ml", {}, spec), PodNeeds())
    assert rule.counts == {"node-2": 1}


def test_anti_affinity_counts_matching_pods_per_domain() -> None:
    pods = placed(("node-1", {}), ("node-2", {}))
    pods.add("node-3", bound_traits("other", {"app": "x"}, {}))
    own = pod_traits("ml", {"app": "y"}, affinity("podAntiAffinity", term(ZONE)))
    (rule,) = pods.rules(own, PodNeeds())
    assert (rule.kind, rule.counts, rule.counts_replicas) == (RuleKind.APART, {"a": 2}, False)


def test_anti_affinity_of_a_placed_pod_closes_its_domain_for_a_matching_pod() -> None:
    pods = placed(("node-1", affinity("podAntiAffinity", term(ZONE))), app="y")
    (rule,) = pods.rules(pod_traits("ml", {"app": "x"}, {}), PodNeeds())
    assert (rule.reason, rule.counts, rule.counts_replicas) == (FilterReason.POD_ANTI_AFFINITY, {"a": 1}, False)
    assert pods.rules(pod_traits("ml", {"app": "z"}, {}), PodNeeds()) == ()
    assert pods.rules(pod_traits("other", {"app": "x"}, {}), PodNeeds()) == ()


def test_affinity_needs_a_pod_that_matches_all_terms() -> None:
    terms = (term(ZONE), term(HOST, labelSelector={"matchExpressions": [{"key": "tier", "operator": "Exists"}]}))
    pods = placed(("node-1", {}))
    pods.add("node-3", bound_traits("ml", {"app": "x", "tier": "db"}, {}))
    zone, host = pods.rules(pod_traits("ml", {}, affinity("podAffinity", *terms)), PodNeeds())
    assert (zone.kind, zone.counts, host.counts) == (RuleKind.TOGETHER, {"b": 1}, {"node-3": 1})


def test_affinity_to_namespaces_by_label_is_left_to_the_scheduler() -> None:
    by_label = term(namespaceSelector={"matchLabels": {"team": "a"}})
    assert placed().rules(pod_traits("ml", {}, affinity("podAffinity", by_label)), PodNeeds()) == ()


def test_empty_namespace_selector_selects_all_namespaces() -> None:
    pods = placed()
    pods.add("node-2", bound_traits("other", {"app": "x"}, {}))
    (rule,) = pods.rules(pod_traits("ml", {}, affinity("podAntiAffinity", term(namespaceSelector={}))), PodNeeds())
    assert rule.counts == {"node-2": 1}


def test_spread_has_a_domain_per_node_with_devices() -> None:
    traits = bound_traits("ml", {"app": "x"}, {})
    ending = PlacedPod("node-2", traits, deleting=True)
    pods = PlacedPods((*NODES, CPU_NODE), (PlacedPod("node-1", traits), PlacedPod("node-1", traits), ending))
    pods.add("cpu", bound_traits("ml", {"app": "x"}, {}))
    (rule,) = pods.rules(pod_traits("ml", {"app": "x"}, spread(maxSkew=2, minDomains=3)), PodNeeds())
    assert rule.domains == {f"node-{n}": f"node-{n}" for n in (1, 2, 3)}
    assert (rule.counts, rule.counts_replicas, rule.max_skew, rule.min_domains) == ({"node-1": 2}, True, 2, 3)


def test_pods_that_restrict_nothing_are_read_when_a_new_pod_does() -> None:
    """The template of a pod that does not exist yet may have rules, although no pod on the nodes has any."""
    pods = [PlacedPod("node-1", bound_traits("ml", {"app": "x"}, {}))]
    read = iter(pods)
    unread = PlacedPods(NODES, read, restrict=False)
    assert unread.rules(pod_traits("ml", {"app": "x"}, {}), PodNeeds()) == ()
    assert next(read, None) == pods[0], "not read without a need"

    own, again = pod_traits("ml", {"app": "x"}, spread()), PlacedPods(NODES, iter(pods), restrict=False)
    assert again.rules(own, PodNeeds()) == PlacedPods(NODES, pods).rules(own, PodNeeds())
    (rule,) = again.rules(own, PodNeeds())
    assert (len(rule.domains), rule.counts) == (3, {"node-1": 1})


def test_spread_that_ignores_affinity_counts_nodes_without_devices() -> None:
    """kube-scheduler does so as well, although the pod is pinned: with this policy it checks the constraint itself."""
    pods = placed(("cpu", {}), nodes=(*NODES, CPU_NODE))
    own = pod_traits("ml", {"app": "x"}, spread(nodeAffinityPolicy="Ignore"))
    (rule,) = pods.rules(own, PodNeeds(node_selector={ZONE: "a"}))
    assert set(rule.domains) == {"node-1", "node-2", "node-3", "cpu"}
    assert rule.counts == {"cpu": 1}


def test_spread_honors_the_node_selector_and_on_request_taints() -> None:
    tainted = DomainNode("node-4", {HOST: "node-4", ZONE: "a"}, (Taint("k", "NoSchedule"),))
    pods = placed(nodes=(*NODES, tainted))
    (rule,) = pods.rules(pod_traits("ml", {}, spread()), PodNeeds(node_selector={ZONE: "a"}))
    assert set(rule.domains) == {"node-1", "node-2", "node-4"}
    (rule,) = pods.rules(pod_traits("ml", {}, spread(nodeTaintsPolicy="Honor")), PodNeeds(node_selector={ZONE: "a"}))
    assert set(rule.domains) == {"node-1", "node-2"}


def test_spread_leaves_out_nodes_without_one_of_the_keys() -> None:
    both = spread()["topologySpreadConstraints"] + spread(topologyKey="rack")["topologySpreadConstraints"]
    first, _ = placed().rules(pod_traits("ml", {}, {"topologySpreadConstraints": both}), PodNeeds())
    assert first.domains == {}


def test_soft_constraints_are_no_rules() -> None:
    assert placed().rules(pod_traits("ml", {}, spread(whenUnsatisfiable="ScheduleAnyway")), PodNeeds()) == ()


def test_match_label_keys_narrow_the_selector() -> None:
    pods = placed(("node-1", {}))
    pods.add("node-2", bound_traits("ml", {"app": "x", "version": "2"}, {}))
    own = pod_traits("ml", {"app": "x", "version": "2"}, spread(matchLabelKeys=["version"]))
    (rule,) = pods.rules(own, PodNeeds())
    assert rule.counts == {"node-2": 1}


def test_selectors_that_match_nothing_and_everything() -> None:
    pods = placed(("node-1", {}))
    (nothing,) = pods.rules(pod_traits("ml", {}, spread(labelSelector=None)), PodNeeds())
    assert (nothing.counts, nothing.counts_replicas) == ({}, False)
    (everything,) = pods.rules(pod_traits("ml", {}, spread(labelSelector={})), PodNeeds())
    assert (everything.counts, everything.counts_replicas) == ({"node-1": 1}, True)


def test_equal_labels_are_stored_once() -> None:
    first, second = (bound_traits("ml", {"app": "x", "pod-template-hash": "5d"}, {}) for _ in range(2))
    assert first.labels is second.labels


def test_malformed_fields_are_ignored() -> None:
    spec = {
        "containers": [{"ports": [{"hostPort": "http"}, 3]}, None],
        "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [1]}},
        "topologySpreadConstraints": "none",
    }
    traits = pod_traits("ml", ["app"], spec)
    assert (traits.labels, traits.ports, traits.spread) == ({}, (), ())
