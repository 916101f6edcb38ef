"""An invalid template becomes a condition that names the field, and never a crash."""

from typing import Any

import pytest

from gpufleet_common.deep_documents import accept_deep_documents
from gpufleet_e2e.proof import objects
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.manifests import container, gpuworkload, pod_spec
from gpufleet_e2e.support.sandbox import TestNamespace

GPU = "gpufleet.dev/gpu"
POD = "spec.template.spec"
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


def _limits(amount: str) -> dict[str, Any]:
    return {"resources": {"limits": {GPU: amount}}}


def _template(**fields: object) -> dict[str, Any]:
    return {"template": pod_spec(**fields)}


def _requests(**amounts: object) -> dict[str, Any]:
    return {"template": pod_spec(container(resources={"requests": amounts}))}


def _terms(*terms: object) -> dict[str, Any]:
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
    "requests-text": (
        {"template": pod_spec(container(resources={"requests": "x"}))},
        f"{POD}.containers[0].resources.requests",
    ),
    "container-in-capitals": ({"template": pod_spec(container("Main"))}, f"{POD}.containers[0].name"),
}
"""Fields of the workload, and the prefix of the message."""

HUGE: dict[str, dict[str, Any]] = {
    "cpu-8e": _requests(cpu="8E"),
    "cpu-1e9999": _requests(cpu="1e9999"),
    "memory-most": _requests(memory="9223372036854775807"),
    "free-memory-most": {"requirements": {"minFreeMemoryMiB": 2**31 - 1}},
}
"""More than any node has: pods are created, and wait."""


@pytest.mark.parametrize("case", BAD)
def test_bad_template(case: str, namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: templates are validated before a pod is created from them.

    `TestNamespace.clear` checks after every test that the operator's container was not restarted.
    """
    fields, path = BAD[case]
    operator = fleet.operator_pod()["metadata"]["uid"]
    namespace.apply(gpuworkload(case, **fields))
    message = namespace.wait_condition(case, "Stalled", "True", "InvalidTemplate")
    print(message)
    assert message.startswith(f"{path}: "), message
    assert objects.condition(namespace.workload(case), "Ready")["status"] == "False"
    assert not namespace.all_pods(case), "a pod was created from it"
    namespace.event(case, "InvalidTemplate")
    assert fleet.operator_pod()["metadata"]["uid"] == operator


def test_affinity_matches_no_node(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: the template's own affinity is a filter like any other; the nodes that it excludes are counted."""
    term = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["nowhere"]}]}
    template = pod_spec(affinity={"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [term]}}})
    namespace.apply(gpuworkload("lonely", template=template))
    print(namespace.wait_condition("lonely", "Placed", "False", "NoDevicesAvailable"))
    explanation = namespace.workload("lonely")["status"]["explanation"]
    counted = {one["reason"]: (one["devices"], one["nodes"]) for one in explanation["ineligibleDevices"]}
    assert counted["NodeAffinityMismatch"] == (24, 2), explanation


def test_huge_resource_amounts(namespace: TestNamespace) -> None:
    """Mechanism: an amount that no node has is an amount like any other; a good workload among them is placed.

    `cpu: null` is 0, as for the apiserver.
    """
    for case, fields in HUGE.items():
        namespace.apply(gpuworkload(case, **fields))
    namespace.apply(gpuworkload("nothing", **_requests(cpu=None)))
    namespace.verify("nothing")
    for case in HUGE:
        print(case, namespace.wait_condition(case, "Placed", "False", "NoDevicesAvailable"))


def test_pod_rejected_by_the_apiserver(namespace: TestNamespace) -> None:
    """Mechanism: a rejection by the apiserver is reported with its message, and retried later."""
    namespace.apply(gpuworkload("bad-image", template=pod_spec({"name": "main", "image": ""})))
    message = namespace.wait_condition("bad-image", "Stalled", "True", "PodCreateFailed")
    print(message)
    assert "spec.containers[0].image" in message, message


def test_unknown_field_in_the_template(namespace: TestNamespace) -> None:
    """Mechanism: pods are created with strict validation, so that a misspelled field is not dropped silently."""
    namespace.apply(gpuworkload("misspelled", template=pod_spec(container(imagge="x"))))
    message = namespace.wait_condition("misspelled", "Stalled", "True", "PodCreateFailed")
    print(message)
    assert 'unknown field "spec.containers[0].imagge"' in message, message


def test_good_workload_among_bad_ones(namespace: TestNamespace) -> None:
    """Mechanism: an invalid workload does not affect others. The good one is placed among bad ones."""
    for case, (fields, _) in BAD.items():
        namespace.apply(gpuworkload(case, **fields))
    namespace.apply(gpuworkload("good"))
    namespace.verify("good")
    for case in BAD:
        namespace.wait_condition(case, "Stalled", "True", "InvalidTemplate", within=30)


def test_template_with_thousands_of_levels(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: a document that Python does not parse by default ends no process, and other workloads are placed."""
    accept_deep_documents()  # the test reads the workload as well
    deep: object = 1
    for _ in range(3000):
        deep = [deep]
    operator = fleet.operator_pod()["metadata"]["uid"]
    namespace.apply(gpuworkload("deep", template=pod_spec(volumes=[{"name": "deep", "emptyDir": {"a": deep}}])))
    namespace.apply(gpuworkload("good"))
    namespace.verify("good")
    message = namespace.wait_condition("deep", "Stalled", "True", "PodCreateFailed")
    print(message)
    assert 'unknown field "spec.volumes[0].emptyDir.a"' in message, message
    assert fleet.operator_pod()["metadata"]["uid"] == operator


def test_extreme_templates_stop_no_other_workload(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: pods with an index of thousands of digits are read, and what would slow down passes is rejected."""
    operator = fleet.operator_pod()["metadata"]["uid"]
    indexed = gpuworkload("indexed")
    annotations = {"batch.kubernetes.io/job-completion-index": "1" * 5000}
    indexed["spec"]["template"].setdefault("metadata", {})["annotations"] = annotations
    ports = [{"containerPort": 80, "hostPort": port + 1} for port in range(3000)]
    namespace.apply(indexed)
    namespace.apply(gpuworkload("ports", template=pod_spec(container(ports=ports))))
    lists: list[list[object]] = [[]] * 100_000
    namespace.apply(gpuworkload("lists", template=pod_spec(volumes=[{"name": "x", "emptyDir": lists}])))
    namespace.apply(gpuworkload("good"))
    namespace.verify("good")
    namespace.verify("indexed")
    message = namespace.wait_condition("ports", "Stalled", "True", "InvalidTemplate")
    assert "hostPort: Too many: must have at most 128 items" in message, message
    message = namespace.wait_condition("lists", "Stalled", "True", "InvalidObject")
    assert message == "spec.template: Too many: must have at most 20,000 values", message
    assert fleet.operator_pod()["metadata"]["uid"] == operator
