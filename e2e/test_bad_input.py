"""A template that can't be used is a condition that names the field, and never a crash."""

from typing import Any

import pytest

from proof import objects
from support.api import events
from support.fleet import Fleet
from support.manifests import container, gpuworkload, pod_spec
from support.room import Room

GPU = "gpufleet.dev/gpu"
POD = "spec.template.spec"
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


def _limits(amount: str) -> dict[str, Any]:
    return {"resources": {"limits": {GPU: amount}}}


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "node-name": ({"template": pod_spec(nodeName="node-1")}, f"{POD}.nodeName"),
    "own-limit": (
        {"count": 1, "template": pod_spec(container(**_limits("2")))},
        f"{POD}.containers[0].resources.limits[{GPU}]",
    ),
    "unknown-container": ({"devices": {"count": 1, "container": "nobody"}}, "spec.devices.container"),
    "unnamed-container": (
        {"template": pod_spec(container("a"), container("b"))},
        "spec.devices.container",
    ),
    "devices-in-sidecar": (
        {
            "devices": {"count": 1, "container": "main"},
            "template": pod_spec(container(), container("side", **_limits("1"))),
        },
        f"{POD}.containers[1].resources.limits[{GPU}]",
    ),
    "devices-in-init-container": (
        {"template": pod_spec(container(), initContainers=[container("first", **_limits("1"))])},
        f"{POD}.initContainers[0].resources.limits[{GPU}]",
    ),
    "visible-devices": (
        {"template": pod_spec(container(env=[{"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"}]))},
        f"{POD}.containers[0].env[0].name",
    ),
    "gpufleet-env": (
        {"template": pod_spec(container(env=[{"name": "GPUFLEET_SHARD_START", "value": "0"}]))},
        f"{POD}.containers[0].env[0].name",
    ),
    "affinity-of-nothing": (
        {"template": pod_spec(affinity={"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [{}]}}})},
        f"{POD}.affinity.nodeAffinity.{REQUIRED}.nodeSelectorTerms",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_template(case: str, room: Room, fleet: Fleet) -> None:
    """Mechanism: templates are judged before a pod is made from them.

    That the operator goes on is checked at the end of every test (`Room.clear`): its container was never restarted.
    """
    fields, path = BAD[case]
    operator = fleet.operator_pod()["metadata"]["uid"]
    room.apply(gpuworkload(case, **fields))
    message = room.wait_condition(case, "Stalled", "True", "InvalidTemplate")
    print(message)
    assert message.startswith(f"{path}: "), message
    assert objects.condition(room.workload(case), "Ready")["status"] == "False"
    assert not room.every_pod(case), "no pod is made from it"
    assert any(one["reason"] == "InvalidTemplate" for one in fleet.api.list(events(room.namespace)))
    assert fleet.operator_pod()["metadata"]["uid"] == operator


def test_affinity_to_no_node(room: Room, fleet: Fleet) -> None:
    """Mechanism: the template's own affinity is a test like any other; what it rules out is counted."""
    term = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["nowhere"]}]}
    template = pod_spec(affinity={"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [term]}}})
    room.apply(gpuworkload("lonely", template=template))
    print(room.wait_condition("lonely", "Placed", "False", "NoDevices"))
    said = room.workload("lonely")["status"]["explanation"]
    counted = {one["reason"]: (one["devices"], one["nodes"]) for one in said["rejections"]}
    assert counted["NodeAffinityMismatch"] == (24, 2), said


def test_a_pod_that_the_apiserver_refuses(room: Room) -> None:
    """Mechanism: what only the apiserver can judge comes back as its own words, and is tried again later."""
    room.apply(gpuworkload("bad-image", template=pod_spec({"name": "main", "image": ""})))
    message = room.wait_condition("bad-image", "Stalled", "True", "PodCreateFailed")
    print(message)
    assert "spec.containers[0].image" in message, message


def test_a_good_workload_beside_bad_ones(room: Room) -> None:
    """Mechanism: one workload's mistake is its own. The good one is placed although bad ones stand beside it."""
    for case, (fields, _) in BAD.items():
        room.apply(gpuworkload(case, **fields))
    room.apply(gpuworkload("good"))
    room.proven("good")
    for case in BAD:
        room.wait_condition(case, "Stalled", "True", "InvalidTemplate", within=5)
