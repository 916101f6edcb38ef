"""A workload of a higher PriorityClass gets devices of a lower one, as PodDisruptionBudgets and its policy allow."""

from collections.abc import Iterator
from typing import Any

import pytest

from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.manifests import gpuworkload, pod_spec
from gpufleet_e2e.support.sandbox import READY_SECONDS, TestNamespace

FREE_SECONDS = 90
"""After an eviction, a device is free once its agent reports so, and the pod that waits for it is started."""
CLASSES = "/apis/scheduling.k8s.io/v1/priorityclasses"
HIGH, POLITE = "gpufleet-test-high", "gpufleet-test-polite"
BUDGET = {
    "apiVersion": "policy/v1",
    "kind": "PodDisruptionBudget",
    "metadata": {"name": "serves"},
    "spec": {"minAvailable": 2, "selector": {"matchLabels": {"app": "serves"}}},
}


@pytest.fixture
def classes(fleet: Fleet) -> Iterator[None]:
    """Two PriorityClasses of a value above that of other pods; one never preempts."""
    for name, policy in ((HIGH, "PreemptLowerPriority"), (POLITE, "Never")):
        body = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}}
        fleet.api.create(CLASSES, {**body, "value": 1000, "preemptionPolicy": policy})
    yield
    for name in (HIGH, POLITE):
        fleet.api.delete(f"{CLASSES}/{name}")


@pytest.mark.usefixtures("classes")
def test_high_priority_gets_the_device_of_one_low_pod(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: of two pods of equal priority the one with fewer devices is evicted, by the eviction API."""
    node = fleet.nodes[1]
    serves: dict[str, Any] = {"node": node, "labels": {"app": "serves"}}
    namespace.apply(gpuworkload("big", count=len(fleet.gpus[node].uuids) - 1, **serves))
    namespace.apply(gpuworkload("low", **serves))
    namespace.verify("big", "low")
    big, low = (namespace.pod(name)["metadata"]["uid"] for name in ("big", "low"))
    budgets = f"/apis/policy/v1/namespaces/{namespace.name}/poddisruptionbudgets"
    fleet.api.create(budgets, BUDGET)

    namespace.apply(_of_class("polite", POLITE, node))
    namespace.wait_rejected("polite", "DeviceInUse", len(fleet.gpus[node].uuids), within=READY_SECONDS)
    namespace.delete("polite")
    assert namespace.pod("low")["metadata"]["uid"] == low, "preemptionPolicy Never evicts no pod"

    namespace.apply(_of_class("high", HIGH, node))
    print(namespace.event("low", "EvictionBlocked"))
    assert namespace.pod("low")["metadata"]["uid"] == low, "the budget holds the eviction"
    fleet.api.delete(f"{budgets}/serves")
    namespace.verify("high", within=FREE_SECONDS)
    assert namespace.pod("big")["metadata"]["uid"] == big
    assert f"preempted by GPUWorkload {namespace.name}/high" in str(namespace.event("low", "Preempted"))
    print(namespace.event("high", "Preempting"))

    namespace.delete("high")
    namespace.verify("low", within=FREE_SECONDS)
    assert namespace.workload("low")["status"].get("failed", 0) == 0, "an eviction is no failure"


def _of_class(name: str, priority_class: str, node: str) -> dict[str, Any]:
    return gpuworkload(name, node=node, template=pod_spec(priorityClassName=priority_class))
