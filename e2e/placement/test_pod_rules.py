"""Host ports, pod affinity and topology spread are rules of the engine: a pod is never pinned where they are broken."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from gpufleet_e2e.proof.contract import WORKLOAD_LABEL
from gpufleet_e2e.support.api import NODES, Api, JsonObject, pods
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.manifests import container, gpuworkload, plain_pod, pod_spec
from gpufleet_e2e.support.polling import eventually, never
from gpufleet_e2e.support.sandbox import TestNamespace

HOSTNAME = "kubernetes.io/hostname"
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PORT = 18080
GPU_TOLERATION = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
CHURN_SECONDS = 8
"""A pod that kube-scheduler rejects is replaced after five seconds."""


def test_spread_constraint_holds_against_the_strategy(namespace: TestNamespace) -> None:
    """Mechanism: the engine counts the matching pods of each domain. Pack alone would use one node.

    kube-scheduler does not check it: the pin leaves one domain, because `nodeAffinityPolicy` is Honor by default.
    """
    placement = {"strategy": "Pack"}
    namespace.apply(gpuworkload("spread", replicas=4, placement=placement, template=_spread("spread")))
    replicas = namespace.verify("spread")["spread"].replicas
    assert sorted(Counter(replica.node for replica in replicas).values()) == [2, 2]
    for pod in namespace.pods("spread"):
        assert GPU_TOLERATION in pod["spec"]["tolerations"], "as ExtendedResourceToleration adds it"


def test_spread_that_ignores_affinity_is_counted_as_the_scheduler_does(namespace: TestNamespace, fleet: Fleet) -> None:
    """Why pods do not get `nodeAffinityPolicy: Ignore`: then a node without GPUs is a domain that stays empty.

    With a third node, only one replica per node is allowed. Engine and kube-scheduler agree: no pod is rejected.
    """
    with _node_without_devices(fleet.api, f"cpu-{namespace.name[-4:]}"):
        template = _spread("ignore", nodeAffinityPolicy="Ignore")
        namespace.apply(gpuworkload("ignore", replicas=3, placement={"strategy": "Pack"}, template=template))
        message = namespace.wait_condition("ignore", "Placed", "False", "NoDevicesAvailable", within=30)
        assert "24 on a node that does not match the topology spread constraints" in message, message
        _keeps_its_pods(namespace, "ignore", 3)
    namespace.verify("ignore")


def test_replica_without_a_node_of_its_own_waits(namespace: TestNamespace) -> None:
    """Mechanism: required anti-affinity among the replicas. The third is never pinned, so no pod is replaced."""
    namespace.apply(gpuworkload("apart", replicas=3, template=_apart("apart")))
    message = namespace.wait_condition("apart", "Placed", "False", "NoDevicesAvailable")
    print(message)
    assert "24 on a node that does not match the pod anti-affinity" in message
    explanation = namespace.workload("apart")["status"]["explanation"]
    assert explanation["nearestMiss"]["reason"] == "PodAntiAffinityMismatch"
    _keeps_its_pods(namespace, "apart", 3)
    bound = [pod["spec"]["nodeName"] for pod in namespace.pods("apart") if "nodeName" in pod["spec"]]
    assert len(bound) == len(set(bound)) == 2


def test_gang_that_must_be_apart_reserves_nothing(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: rules count for the gang as a whole. Its other pods wait with their gates, and others get the GPUs.

    One gang has pod anti-affinity, the other one a host port.
    """
    port = pod_spec(container(ports=[{"containerPort": PORT, "hostPort": PORT}]))
    templates = {"apart": _apart("apart"), "port": port}
    namespace.apply(*(gpuworkload(n, replicas=3, placement={"gang": True}, template=t) for n, t in templates.items()))
    for name in templates:
        message = namespace.wait_condition(name, "Placed", "False", "NoDevicesAvailable")
        assert "2 of 3 replicas would fit" in message
    namespace.apply(gpuworkload("other", count=16, node=fleet.nodes[0]))
    namespace.verify("other")
    for name in templates:
        assert not [one for one in fleet.assignments(namespace.name).values() if one["workload"] == name]
        assert all(pod["spec"].get("schedulingGates") for pod in namespace.pods(name))


def test_host_port_in_use_is_not_picked(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: the ports of all pods on a node count, also those of pods without a workload."""
    first, second = fleet.nodes
    ports = [{"containerPort": PORT, "hostPort": PORT}]
    blocker = plain_pod("blocker", nodeSelector={HOSTNAME: first})
    blocker["spec"]["containers"] = [container(ports=ports)]
    fleet.api.create(pods(namespace.name), blocker)
    eventually(lambda: _bound(namespace, "blocker"), within=20)
    namespace.apply(gpuworkload("port", replicas=2, template=pod_spec(container(ports=ports))))
    message = namespace.wait_condition("port", "Placed", "False", "NoDevicesAvailable")
    assert "24 on a node whose host port is in use" in message, message
    assert f"host port {PORT}/TCP is in use on the node" in message
    _keeps_its_pods(namespace, "port", 2)
    assert [pod["spec"].get("nodeName") for pod in namespace.pods("port")] in ([second, None], [None, second])
    fleet.api.delete(f"{pods(namespace.name)}/blocker", grace=0)
    namespace.verify("port")


def _spread(name: str, **fields: object) -> JsonObject:
    constraint = {"maxSkew": 1, "topologyKey": HOSTNAME, "whenUnsatisfiable": "DoNotSchedule", **_selecting(name)}
    return pod_spec(topologySpreadConstraints=[{**constraint, **fields}])


def _apart(name: str) -> JsonObject:
    return pod_spec(affinity={"podAntiAffinity": {REQUIRED: [{"topologyKey": HOSTNAME, **_selecting(name)}]}})


def _selecting(name: str) -> JsonObject:
    return {"labelSelector": {"matchLabels": {WORKLOAD_LABEL: name}}}


def _keeps_its_pods(namespace: TestNamespace, name: str, number: int) -> None:
    """Asserts that no pod is replaced for longer than kube-scheduler's verdict takes."""
    seen: set[str] = set()

    def few() -> None:
        seen.update(pod["metadata"]["uid"] for pod in namespace.all_pods(name))
        assert len(seen) <= number, f"{len(seen)} pods of {name}"

    never(few, for_seconds=CHURN_SECONDS)
    assert len(seen) == number
    assert "nodeRejections" not in namespace.workload(name)["status"].get("explanation", {})


def _bound(namespace: TestNamespace, pod: str) -> None:
    assert namespace.fleet.api.get(f"{pods(namespace.name)}/{pod}")["spec"].get("nodeName"), f"{pod} is not bound"


@contextmanager
def _node_without_devices(api: Api, name: str) -> Iterator[None]:
    """Adds a Node object that no kubelet serves and no pod tolerates."""
    taint = {"key": "gpufleet.dev/test", "effect": "NoSchedule"}
    body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {HOSTNAME: name}}}
    api.create(NODES, {**body, "spec": {"unschedulable": True, "taints": [taint]}})
    try:
        yield
    finally:
        api.delete(f"{NODES}/{name}")
