"""Manifests are judged as the apiserver and the operator would judge them."""

import json
from typing import Any

import pytest

from gpufleet_api.crd import WORKLOAD
from gpufleet_cli.input.cel_rules import CHECKS

TEMPLATE = {"containers": [{"name": "main", "image": "example:1"}]}
ZERO = dict.fromkeys(("memory", "utilization", "temperature", "power"), 0)


def _weighted(*weights: int) -> dict[str, Any]:
    return {"items": 5, "mode": "Proportional", "by": "Weights", "weights": list(weights)}


SPECS: list[tuple[dict[str, Any], str]] = [
    ({"replicas": 0}, "spec.replicas: input should be greater than or equal to 1 (got 0)"),
    ({"replicas": "2"}, 'spec.replicas: input should be a valid integer (got "2")'),
    ({"replicas": True}, "spec.replicas: input should be a valid integer (got true)"),
    ({"template": None}, "spec.template: input should be an object (got null)"),
    ({"devices": {"count": 17}}, "spec.devices.count: input should be less than or equal to 16 (got 17)"),
    ({"devices": {"counts": 1}}, "spec.devices.counts: there is no such field (got 1); there is computePercent, con"),
    ({"devices": {"mode": "Shared"}}, "spec.devices.memoryMiB: devices.memoryMiB is required with mode Shared"),
    ({"devices": {"memoryMiB": 9}}, "spec.devices.memoryMiB: devices.memoryMiB belongs to mode Shared"),
    (
        {"devices": {"computePercent": 9}},
        "spec.devices.computePercent: devices.computePercent belongs to mode Shared; leave it out with mode Exclusive",
    ),
    ({"placement": {"strategy": "Fast"}}, "spec.placement.strategy: input should be 'Best', 'Pack' or 'Spread'"),
    ({"placement": {"weights": ZERO}}, "spec.placement.weights: at least one of the weights"),
    (
        {"placement": {"weights": {"memory": 0, "power": -1}}},
        "spec.placement.weights.power: input should be greater than or equal to 0 (got -1)",
    ),
    (
        {"requirements": {"includeUUIDs": ["GPU-1", "GPU-2"], "excludeUUIDs": ["GPU-2"]}},
        "spec.requirements.excludeUUIDs: a UUID may stand in includeUUIDs or in excludeUUIDs, not in both",
    ),
    ({"requirements": {"models": ["A", "A"]}}, 'spec.requirements.models[1]: "A" stands twice'),
    ({"requirements": {"minComputeCapability": "9"}}, "spec.requirements.minComputeCapability: string should match"),
    ({"distribution": {"items": 5}}, "spec.placement.gang: distribution needs placement.gang: true"),
    (
        {"placement": {"gang": True}, "distribution": {"items": 5, "mode": "Uniform", "by": "FreeMemory"}},
        "spec.distribution.by: distribution.by belongs to mode Proportional",
    ),
    (
        {"placement": {"gang": True}, "distribution": {"items": 5, "mode": "Proportional", "by": "Weights"}},
        "spec.distribution.weights: distribution.weights is needed with by: Weights",
    ),
    (
        {"placement": {"gang": True}, "distribution": {"items": 5, "mode": "Proportional", "weights": [1]}},
        "spec.distribution.weights: distribution.weights is needed with by: Weights, and belongs to nothing else",
    ),
    (
        {"placement": {"gang": True}, "distribution": _weighted(0)},
        "spec.distribution.weights: at least one of distribution.weights must be above 0 (got [0])",
    ),
    (
        {"placement": {"gang": True}, "replicas": 2, "distribution": _weighted(3)},
        "spec.distribution.weights: distribution.weights must have one number for each of spec.replicas (got [3])",
    ),
    ({"template": {"spec": {}}}, "spec.template.spec.containers: must name at least one container, is None"),
    ({"template": {"spec": {**TEMPLATE, "nodeName": "n"}}}, "spec.template.spec.nodeName: is 'n'; leave it out"),
    (
        {"template": {"spec": {"containers": [{"name": "main", "resources": {"requests": {"cpu": "1zz"}}}]}}},
        "spec.template.spec.containers[0].resources.requests[cpu]: is '1zz', which is not a resource quantity",
    ),
    ({"template": {"spec": {**TEMPLATE, "tolerations": ["x"]}}}, "spec.template.spec.tolerations[0]: must be a map"),
]


@pytest.mark.parametrize(("spec", "message"), SPECS, ids=[json.dumps(case[0]) for case in SPECS])
def test_what_the_apiserver_or_the_operator_would_refuse(
    spec: dict[str, Any], message: str, files: Any, gpufleet: Any
) -> None:
    fleet = files.write(files.idle("node-1", 1))
    manifest = files.write(files.workload("first"), files.workload("second", **spec))
    done = gpufleet("simulate", "-f", manifest, "--fleet", fleet)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"error: {manifest}, document 2: GPUWorkload second: {message}")
    assert done.err.count("\n") == 1


def test_several_problems_are_counted(files: Any, gpufleet: Any) -> None:
    manifest = files.write(files.workload(replicas=0, devices={"count": 0}))
    done = gpufleet("simulate", "-f", manifest, "--fleet", files.write(files.idle("node-1")))
    assert done.err.endswith("(got 0) (and 1 more)\n")


@pytest.mark.parametrize("name", ["Train", "-train", "train_1", "t" * 51])
def test_names_that_are_none(name: str, files: Any, gpufleet: Any) -> None:
    done = gpufleet("simulate", "-f", files.write(files.workload(name)), "--fleet", files.write(files.idle("node-1")))
    assert done.code == 2
    assert f"GPUWorkload {name}: metadata.name: " in done.err


def test_version_and_doubles(files: Any, gpufleet: Any) -> None:
    fleet = files.write(files.idle("node-1"))
    newer = {**files.workload(), "apiVersion": "gpufleet.dev/v2"}
    done = gpufleet("simulate", "-f", files.write(newer), "--fleet", fleet)
    assert done.code == 2
    assert "GPUWorkload train: apiVersion: must be gpufleet.dev/v1alpha1 (got gpufleet.dev/v2)" in done.err
    one = files.write(files.workload())
    done = gpufleet("simulate", "-f", one, "-f", files.write(files.workload()), "--fleet", fleet)
    assert done.code == 2
    assert f"metadata.name: default/train stands twice, also in {one}" in done.err
    elsewhere = files.workload()
    elsewhere["metadata"]["namespace"] = "ml"
    assert gpufleet("simulate", "-f", one, "-f", files.write(elsewhere), "--fleet", fleet).code == 0


def test_every_rule_of_the_api_for_new_objects_is_checked_here() -> None:
    def rules(schema: Any) -> set[str]:
        if isinstance(schema, list):
            return set().union(*map(rules, schema)) if schema else set()
        if not isinstance(schema, dict):
            return set()
        mine = {rule["rule"] for rule in schema.get("x-kubernetes-validations", ())}
        return mine.union(*(rules(value) for key, value in schema.items() if key != "x-kubernetes-validations"))

    (version,) = WORKLOAD.definition()["spec"]["versions"]
    at_creation = {rule for rule in rules(version["schema"]["openAPIV3Schema"]) if "oldSelf" not in rule}
    assert at_creation
    assert {check.rule.rule for check in CHECKS} == at_creation


def test_another_resource_name_can_stand_for_the_devices(files: Any, gpufleet: Any) -> None:
    container = {"name": "main", "resources": {"limits": {"nvidia.com/gpu": 1}}}
    manifest = files.write(files.workload(template={"spec": {"containers": [container]}}))
    fleet = files.write(files.idle("node-1"))
    nodes = files.write(
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": "node-1"},
            "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"}},
        }
    )
    assert gpufleet("simulate", "-f", manifest, "--fleet", fleet, "--nodes", nodes).code == 1
    arguments = ["--fleet", fleet, "--nodes", nodes, "--resource", "nvidia.com/gpu"]
    assert gpufleet("simulate", "-f", manifest, *arguments).code == 0
