"""The number of replicas is changed through the scale subresource: by kubectl, by an autoscaler, and to zero."""

import json
from collections.abc import Mapping

from gpufleet_e2e.proof import objects
from gpufleet_e2e.support.api import JsonObject, pods
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.manifests import gpuworkload
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.sandbox import TestNamespace

AUTOSCALER_SECONDS = 45
"""kube-controller-manager looks at an autoscaler every 15 s."""


def test_kubectl_scales_up_down_and_to_zero(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: the scale subresource; the highest index goes first, and the others keep pods and devices."""
    namespace.apply(gpuworkload("serve", replicas=2, node=fleet.nodes[1]))
    before = _pods_and_devices(namespace)
    _scale(namespace, 3)
    namespace.wait_for("serve", lambda found: found["status"].get("ready") == "3/3", within=30)
    larger = _pods_and_devices(namespace)
    assert sorted(larger) == [0, 1, 2]
    assert {index: larger[index] for index in before} == before

    _scale(namespace, 1)
    eventually(lambda: _has_pods(namespace, 1), within=20)
    eventually(lambda: _holds(namespace, 1), within=45)
    assert _pods_and_devices(namespace) == {0: before[0]}
    scale = _get_scale(namespace)
    assert (scale["spec"]["replicas"], scale["status"]["replicas"]) == (1, 1)
    assert scale["status"]["selector"] == "gpufleet.dev/workload=serve"

    _scale(namespace, 0)
    namespace.wait_condition("serve", "Ready", "True", "NoReplicas")
    eventually(lambda: _has_pods(namespace, 0), within=20)
    eventually(lambda: _holds(namespace, 0), within=45)
    namespace.wait_condition("serve", "Reconciling", "False", "Reconciled")


def test_autoscaler_and_disruption_budget_read_the_scale(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: both controllers find the number of replicas and the pods by the scale subresource."""
    namespace.apply(gpuworkload("serve", replicas=1, node=fleet.nodes[1]))
    base = f"/namespaces/{namespace.name}"
    fleet.api.create(f"/apis/autoscaling/v2{base}/horizontalpodautoscalers", AUTOSCALER)
    fleet.api.create(f"/apis/policy/v1{base}/poddisruptionbudgets", BUDGET)

    # An autoscaler raises the replicas to its minimum without any metric.
    namespace.wait_for("serve", lambda found: found["status"].get("ready") == "2/2", within=AUTOSCALER_SECONDS)
    autoscaler = fleet.api.get(f"/apis/autoscaling/v2{base}/horizontalpodautoscalers/serve")
    conditions = {one["type"]: one["status"] for one in autoscaler["status"]["conditions"]}
    assert conditions["AbleToScale"] == "True", autoscaler["status"]

    def counted() -> None:
        status = fleet.api.get(f"/apis/policy/v1{base}/poddisruptionbudgets/serve")["status"]
        seen = {key: status.get(key) for key in ("expectedPods", "currentHealthy", "desiredHealthy")}
        assert seen == {"expectedPods": 2, "currentHealthy": 2, "desiredHealthy": 1}, status

    eventually(counted, within=20)
    statuses = [_evict(namespace, pod) for pod in namespace.pods("serve")]
    assert statuses == [201, 429], "maxUnavailable 1 permits one eviction"
    namespace.verify("serve")


CPU_TARGET = {"type": "Utilization", "averageUtilization": 50}
AUTOSCALER: JsonObject = {
    "apiVersion": "autoscaling/v2",
    "kind": "HorizontalPodAutoscaler",
    "metadata": {"name": "serve"},
    "spec": {
        "scaleTargetRef": {"apiVersion": "gpufleet.dev/v1alpha1", "kind": "GPUWorkload", "name": "serve"},
        "minReplicas": 2,
        "maxReplicas": 2,
        "metrics": [
            {
                "type": "Resource",
                "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}},
            }
        ],
    },
}
BUDGET: JsonObject = {
    "apiVersion": "policy/v1",
    "kind": "PodDisruptionBudget",
    "metadata": {"name": "serve"},
    "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"gpufleet.dev/workload": "serve"}}},
}


def _evict(namespace: TestNamespace, pod: Mapping[str, JsonObject]) -> int:
    name = pod["metadata"]["name"]
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": namespace.name}}
    return namespace.fleet.api.call("POST", f"{pods(namespace.name)}/{name}/eviction", body).status


def _scale(namespace: TestNamespace, replicas: int) -> None:
    words = ("scale", "gpuworkload/serve", f"--replicas={replicas}", f"--namespace={namespace.name}")
    assert "scaled" in namespace.fleet.cluster.kubectl(*words).stdout


def _get_scale(namespace: TestNamespace) -> JsonObject:
    words = ("get", "gpuworkload", "serve", "--subresource=scale", "--output=json", f"--namespace={namespace.name}")
    return dict(json.loads(namespace.fleet.cluster.kubectl(*words).stdout))


def _pods_and_devices(namespace: TestNamespace) -> dict[int, tuple[str, str, tuple[str, ...]]]:
    """Verifies the workload and returns uid, node and devices by replica."""
    replicas = namespace.verify("serve")["serve"].replicas
    return {one.replica: (one.pod_uid, one.node, one.picked) for one in replicas}


def _has_pods(namespace: TestNamespace, count: int) -> None:
    left = [pod["metadata"]["name"] for pod in namespace.all_pods("serve")]
    assert len(left) == count, f"{left}; {namespace.describe('serve')}"


def _holds(namespace: TestNamespace, count: int) -> None:
    held = namespace.fleet.assignments(namespace.name)
    assert len(held) == count, f"{list(held.values())}"
    assert objects.is_true(namespace.workload("serve"), "Ready"), namespace.describe("serve")
