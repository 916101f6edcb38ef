"""kube-scheduler or the kubelet rejects a pod: its devices are freed and the replica is retried."""

from gpufleet_e2e.support.api import JsonObject, pods
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.install import BY_HAND
from gpufleet_e2e.support.manifests import gpuworkload, plain_pod, pod_spec
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.sandbox import TestNamespace

HOSTNAME = "kubernetes.io/hostname"


def test_kube_scheduler_rejects_the_pinned_pod(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: after a grace period, the scheduler's PodScheduled condition on a pinned pod excludes the node.

    Its anti-affinity matches a pod on the node with the best device. It selects namespaces by label, which only
    kube-scheduler knows.
    """
    first, second = fleet.nodes
    best, other = fleet.gpus[first].uuids[0], fleet.gpus[second].uuids[0]
    fleet.gpus[second].report(other, utilization_percent=60)
    eventually(lambda: fleet.check_readings(second, other, utilization_percent=60), within=30)
    _block(namespace, first)
    namespace.apply(gpuworkload("apart", uuids=(best, other), template=_apart_from_blocker(namespace)))
    # The status with the rejection may be skipped: the next pod is placed at once.
    namespace.wait_for("apart", lambda found: [one.get("rejections") for one in _placements(found)] == [1], 20)
    assert namespace.devices("apart") == (other,), "it was not placed on the other node"
    assert "anti-affinity rules" in namespace.event("apart", "Unschedulable")
    assert _holders(fleet, best) == [], "the devices of the first attempt are still reserved"


def test_kube_scheduler_rejects_every_node(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: as above, without another node. It waits with the scheduler's message, then is placed."""
    node = fleet.nodes[1]
    _block(namespace, node)
    namespace.apply(gpuworkload("apart", node=node, template=_apart_from_blocker(namespace)))
    rejected = namespace.wait_for("apart", lambda found: bool(_rejections(found)), 20)
    (rejection,) = _rejections(rejected)
    assert (rejection["by"], rejection["node"]) == ("kube-scheduler", node)
    assert "anti-affinity rules" in rejection["message"], rejection
    message = rejected["status"]["explanation"]["message"]
    print(message)
    assert rejection["message"] in message, "the explanation does not contain the scheduler's message"
    fleet.api.delete(f"{pods(namespace.name)}/blocker", grace=0)
    namespace.verify("apart")


def test_kubelet_rejects_the_pod(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: the plugin rejects a reserved device that is unhealthy, the kubelet fails the pod, it is replaced.

    Only the test binds these pods, so the device becomes unhealthy exactly between release and admission.
    """
    first, second = fleet.nodes
    lost, good = fleet.gpus[first].uuids[0], fleet.gpus[second].uuids[0]
    fleet.gpus[second].report(good, utilization_percent=60)
    eventually(lambda: fleet.check_readings(second, good, utilization_percent=60), within=30)
    namespace.apply(gpuworkload("retry", uuids=(lost, good), template=pod_spec(schedulerName=BY_HAND)))
    before = eventually(lambda: _released(namespace, "retry"), within=15)
    assert namespace.reservation("retry")["devices"] == [lost]
    fleet.gpus[first].lose(lost)
    eventually(lambda: _offers(fleet, first, 15), within=20)
    _bind(namespace, before, first)
    after = eventually(lambda: _released(namespace, "retry", not_uid=before["metadata"]["uid"]), within=20)
    message = namespace.event("retry", "KubeletRejected")
    print(message)
    assert "UnexpectedAdmissionError" in message
    assert lost in message
    assert namespace.reservation("retry")["devices"] == [good]
    _bind(namespace, after, second)
    assert namespace.devices("retry") == (good,)


def test_pod_admitted_while_the_plugin_restarts(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: as above for the plugin itself.

    The kubelet may reject a pod that it admits while no plugin listens. The pod is replaced until it runs.
    """
    node = fleet.nodes[1]
    namespace.apply(gpuworkload("early", count=4, node=node, template=pod_spec(schedulerName=BY_HAND)))
    pod = eventually(lambda: _released(namespace, "early"), within=15)
    fleet.node(node).run(["kill", "-KILL", str(fleet.agent_process(node))])
    _bind(namespace, pod, node)

    def ready() -> None:
        # Rejected pods are followed by new ones, which also have to be bound.
        for one in namespace.pods("early"):
            if not one["spec"].get("schedulingGates") and not one["spec"].get("nodeName"):
                _bind(namespace, one, node)
        namespace.wait_ready("early", within=1)

    eventually(ready, within=60)
    namespace.verify("early")


def _block(namespace: TestNamespace, node: str) -> None:
    """Runs the pod that `_apart_from_blocker` may not share a node with."""
    blocker = plain_pod("blocker", labels={"app": "blocker"}, nodeSelector={HOSTNAME: node})
    namespace.fleet.api.create(pods(namespace.name), blocker)
    namespace.wait_running("blocker", within=20)


def _apart_from_blocker(namespace: TestNamespace) -> JsonObject:
    term = {
        "topologyKey": HOSTNAME,
        "labelSelector": {"matchLabels": {"app": "blocker"}},
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace.name}},
    }
    return pod_spec(affinity={"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}})


def _placements(workload: JsonObject) -> list[JsonObject]:
    return list(workload.get("status", {}).get("placements", []))


def _rejections(workload: JsonObject) -> list[JsonObject]:
    return list(workload.get("status", {}).get("explanation", {}).get("nodeRejections", []))


def _released(namespace: TestNamespace, name: str, not_uid: str = "") -> JsonObject:
    pod = namespace.pod(name)
    assert pod["metadata"]["uid"] != not_uid, "the old pod still exists"
    assert not pod["spec"].get("schedulingGates"), f"still gated; {namespace.describe(name)}"
    return pod


def _bind(namespace: TestNamespace, pod: JsonObject, node: str) -> None:
    """Binds a pod, as kube-scheduler does."""
    name = pod["metadata"]["name"]
    target = {"apiVersion": "v1", "kind": "Node", "name": node}
    binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": target}
    namespace.fleet.api.create(f"{pods(namespace.name)}/{name}/binding", binding)


def _offers(fleet: Fleet, node: str, count: int) -> None:
    assert fleet.allocatable(node) == count, f"{node} offers {fleet.allocatable(node)}"


def _holders(fleet: Fleet, uuid: str) -> list[str]:
    return [one["pod"] for one in fleet.assignments().values() if uuid in one["devices"]]
