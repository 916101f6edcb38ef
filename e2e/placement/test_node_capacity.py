"""A node without free CPU or memory for the pod is not picked, and is picked once it has some."""

from time import monotonic

import pytest

from gpufleet_e2e.proof import objects
from gpufleet_e2e.support.api import NODES, JsonObject, pods
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.manifests import container, gpuworkload, plain_pod, pod_spec
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.sandbox import TestNamespace

SOON_SECONDS = 5
MORE_THAN_HALF = 0.6
"""Ratio of a node's allocatable: only one of two pods that request this much fits."""

RESOURCES = [
    pytest.param("cpu", "InsufficientCPU", "insufficient node CPU", id="cpu"),
    pytest.param("memory", "InsufficientMemory", "insufficient node memory", id="memory"),
]


@pytest.mark.parametrize(("resource", "reason", "words"), RESOURCES)
def test_node_without_capacity_is_not_picked(
    namespace: TestNamespace, fleet: Fleet, resource: str, reason: str, words: str
) -> None:
    """Mechanism: the operator counts requests as kube-scheduler does, so that the scheduler never rejects the pod.

    The best device is on the full node. A workload that may use another node is placed there; one that may not waits
    with a numeric explanation, and is placed soon after capacity is free.
    """
    first, second = fleet.nodes
    best, other = fleet.gpus[first].uuids[0], fleet.gpus[second].uuids[0]
    fleet.gpus[second].report(other, utilization_percent=60)
    eventually(lambda: fleet.check_readings(second, other, utilization_percent=60), within=SOON_SECONDS)
    template = _template(fleet, first, resource)
    _fill(namespace, first, template)
    namespace.apply(
        gpuworkload("anywhere", uuids=(best, other), template=template),
        gpuworkload("here-only", node=first, template=template),
    )
    assert namespace.devices("anywhere") == (other,), "it was placed on the node without capacity"
    message = namespace.wait_condition("here-only", "Placed", "False", "NoDevicesAvailable")
    print(message)
    explanation = namespace.workload("here-only")["status"]["explanation"]
    assert {one["reason"]: one["devices"] for one in explanation["ineligibleDevices"]}[reason] == 16, explanation
    assert words in message
    assert explanation["nearestMiss"]["node"] == first, explanation
    for name in ("anywhere", "here-only"):
        rejections = namespace.workload(name)["status"].get("explanation", {}).get("nodeRejections", [])
        assert not rejections, f"rejected by the scheduler: {rejections}"
    fleet.api.delete(f"{pods(namespace.name)}/full")
    eventually(lambda: _gone(namespace, "full"), within=20)
    began = monotonic()
    namespace.wait_for("here-only", lambda found: objects.is_true(found, "Placed"), SOON_SECONDS)
    print(f"placed {monotonic() - began:.1f} s after capacity is free")
    namespace.verify("anywhere", "here-only")


def _template(fleet: Fleet, node: str, resource: str) -> JsonObject:
    """Builds a pod's spec that requests more than half of the node's allocatable amount of this resource."""
    offered = str(fleet.api.get(f"{NODES}/{node}")["status"]["allocatable"][resource])
    # The kubelet reports CPU in cores or millicores and memory in Ki.
    amount, unit = (offered[:-2], "Ki") if offered.endswith("Ki") else (offered.removesuffix("m"), "m")
    whole = int(amount) * (1000 if resource == "cpu" and not offered.endswith("m") else 1)
    return pod_spec(container(resources={"requests": {resource: f"{int(whole * MORE_THAN_HALF)}{unit}"}}))


def _fill(namespace: TestNamespace, node: str, template: JsonObject) -> None:
    """Runs a pod without devices on the node."""
    pod = plain_pod("full")
    pod["spec"] = {**template, "nodeSelector": {"kubernetes.io/hostname": node}}
    namespace.fleet.api.create(pods(namespace.name), pod)
    namespace.wait_running("full", within=20)


def _gone(namespace: TestNamespace, name: str) -> None:
    assert namespace.fleet.api.find(f"{pods(namespace.name)}/{name}") is None, f"{name} is still there"
