"""A template that can't be used is a condition that names the field, and never a crash."""

from typing import Any

import pytest

from gpufleet_e2e.proof import objects
from gpufleet_e2e.support.api import events
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.manifests import container, gpuworkload, pod_spec
from gpufleet_e2e.support.sandbox import Room

GPU = "gpufleet.dev/gpu"
POD = "spec.template.spec"
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


def _limits(amount: str) -> dict[str, Any]:
    return {"resources": {"limits": {GPU: amount}}}


def _template(**fields: Any) -> dict[str, Any]:
    return {"template": pod_spec(**fields)}


def _requests(**amounts: Any) -> dict[str, Any]:
    return {"template": pod_spec(container(resources={"requests": amounts}))}


def _terms(*terms: Any) -> dict[str, Any]:
    return _template(affinity={"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": list(terms)}}})


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
    "cpu-of-words": (_requests(cpu="many"), f"{POD}.containers[0].resources.requests[cpu]"),
    "cpu-below-zero": (_requests(cpu="-1"), f"{POD}.containers[0].resources.requests[cpu]"),
    "limits-list": (
        {"template": pod_spec(container(resources={"limits": ["cpu"]}))},
        f"{POD}.containers[0].resources.limits",
    ),
    "overhead-of-words": (_template(overhead={"cpu": "x"}), f"{POD}.overhead[cpu]"),
    "gate-null": (_template(schedulingGates=[None]), f"{POD}.schedulingGates[0]"),
    "gate-text": (_template(schedulingGates=["x"]), f"{POD}.schedulingGates[0]"),
    "gates-text": (_template(schedulingGates="x"), f"{POD}.schedulingGates"),
    "gates-map": (_template(schedulingGates={"name": "x"}), f"{POD}.schedulingGates"),
    "toleration-null": (_template(tolerations=[None]), f"{POD}.tolerations[0]"),
    "affinity-text": (_template(affinity="x"), f"{POD}.affinity"),
    "term-null": (
        _terms(None, {"matchExpressions": [{"key": "a", "operator": "Exists"}]}),
        f"{POD}.affinity.nodeAffinity.{REQUIRED}.nodeSelectorTerms[0]",
    ),
    "expression-without-key": (
        _terms({"matchExpressions": [{"operator": "Exists"}]}),
        f"{POD}.affinity.nodeAffinity.{REQUIRED}.nodeSelectorTerms[0].matchExpressions[0].key",
    ),
    "node-selector-list": (_template(nodeSelector=["a"]), f"{POD}.nodeSelector"),
    "container-text": (_template(containers=["x"]), f"{POD}.containers[0]"),
    "container-null": (_template(containers=[None]), f"{POD}.containers[0]"),
    "container-empty": (_template(containers=[{}]), f"{POD}.containers[0].name"),
    "init-containers-text": (_template(initContainers="x"), f"{POD}.initContainers"),
    "resources-text": ({"template": pod_spec(container(resources="x"))}, f"{POD}.containers[0].resources"),
    "long-container-name": ({"template": pod_spec(container("m" * 64))}, f"{POD}.containers[0].name"),
}
"""Fields of the workload, and how the message begins."""

HUGE: dict[str, dict[str, Any]] = {
    "cpu-8e": _requests(cpu="8E"),
    "cpu-1e9999": _requests(cpu="1e9999"),
    "memory-most": _requests(memory="9223372036854775807"),
    "free-memory-most": {"requirements": {"minFreeMemoryMiB": 2**31 - 1}},
}
"""More than anybody has: pods are made, and wait."""


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


def test_amounts_without_measure(room: Room) -> None:
    """Mechanism: an amount that no node has is an amount like any other; the good one beside them is placed.

    `cpu: null` is 0, as for the apiserver.
    """
    for case, fields in HUGE.items():
        room.apply(gpuworkload(case, **fields))
    room.apply(gpuworkload("nothing", **_requests(cpu=None)))
    room.proven("nothing")
    for case in HUGE:
        print(case, room.wait_condition(case, "Placed", "False", "NoDevices"))


def test_a_pod_that_the_apiserver_refuses(room: Room) -> None:
    """Mechanism: what only the apiserver can judge comes back as its own words, and is tried again later."""
    room.apply(gpuworkload("bad-image", template=pod_spec({"name": "main", "image": ""})))
    message = room.wait_condition("bad-image", "Stalled", "True", "PodCreateFailed")
    print(message)
    assert "spec.containers[0].image" in message, message


def test_a_field_that_nobody_knows(room: Room) -> None:
    """Mechanism: pods are created with strict validation, so that a misspelt field isn't left out in silence."""
    room.apply(gpuworkload("misspelt", template=pod_spec(container(imagge="x"))))
    message = room.wait_condition("misspelt", "Stalled", "True", "PodCreateFailed")
    print(message)
    assert 'unknown field "spec.containers[0].imagge"' in message, message


def test_a_good_workload_beside_bad_ones(room: Room) -> None:
    """Mechanism: one workload's mistake is its own. The good one is placed although bad ones stand beside it."""
    for case, (fields, _) in BAD.items():
        room.apply(gpuworkload(case, **fields))
    room.apply(gpuworkload("good"))
    room.proven("good")
    for case in BAD:
        room.wait_condition(case, "Stalled", "True", "InvalidTemplate", within=5)
