"""Manifests are rejected as by the apiserver and the operator."""

import json
from typing import Any

import pytest

from gpufleet_api.crd import WORKLOAD
from gpufleet_cli.input.cel_rules import CHECKS
from gpufleet_testing.cli.files import ObjectFiles, gpu_workload, idle_node
from gpufleet_testing.cli.runner import run_cli

TEMPLATE = {"restartPolicy": "Always", "containers": [{"name": "main", "image": "example:1"}]}
ZERO = dict.fromkeys(("memory", "utilization", "temperature", "power"), 0)


def _weighted(*weights: int) -> dict[str, Any]:
    return {"items": 5, "mode": "Proportional", "by": "Weights", "weights": list(weights)}


SPECS: list[tuple[dict[str, Any], str]] = [
    ({"replicas": -1}, "spec.replicas: Invalid value: -1: must be greater than or equal to 0"),
    ({"replicas": "2"}, 'spec.replicas: Invalid value: "2": must be an integer'),
    ({"replicas": True}, "spec.replicas: Invalid value: true: must be an integer"),
    (
        {"template": None, "replicas": 2},
        "spec.replicas: Invalid value: 2: without spec.template: must be at least 1 when placement.gang is true",
    ),
    (
        {"devices": {"count": 2, "containers": [{"name": "main", "count": 1}]}},
        "spec.devices.count: Invalid value: 2: must be the sum of the counts in devices.containers",
    ),
    ({"devices": {"count": 17}}, "spec.devices.count: Invalid value: 17: must be less than or equal to 16"),
    ({"devices": {"counts": 1}}, 'unknown field "spec.devices.counts": known fields: computePercent, con'),
    (
        {"devices": {"mode": "Shared"}},
        "spec.devices.memoryMiB: Required value: must be set when devices.mode is",
    ),
    ({"devices": {"memoryMiB": 9}}, "spec.devices.memoryMiB: Forbidden: may not be set when devices.mode is Exclusive"),
    (
        {"devices": {"computePercent": 9}},
        "spec.devices.computePercent: Forbidden: may not be set when devices.mode is Exclusive",
    ),
    (
        {"placement": {"strategy": "Fast"}},
        'spec.placement.strategy: Unsupported value: "Fast": supported values: "Best"',
    ),
    ({"placement": {"weights": ZERO}}, 'spec.placement.weights: Invalid value: {"memory": 0, '),
    (
        {"placement": {"weights": {"memory": 0, "power": -1}}},
        "spec.placement.weights.power: Invalid value: -1: must be greater than or equal to 0",
    ),
    (
        {"requirements": {"includeUUIDs": ["GPU-1", "GPU-2"], "excludeUUIDs": ["GPU-2"]}},
        'spec.requirements.excludeUUIDs: Invalid value: ["GPU-2"]: must not contain a UUID that is also in',
    ),
    ({"requirements": {"models": ["A", "A"]}}, 'spec.requirements.models[1]: Duplicate value: "A"'),
    (
        {"requirements": {"minComputeCapability": "9"}},
        'spec.requirements.minComputeCapability: Invalid value: "9": must match the',
    ),
    (
        {"distribution": {"items": 5}},
        "spec.placement.gang: Invalid value: false: must be true when",
    ),
    (
        {"placement": {"gang": True}, "distribution": {"items": 5, "mode": "Uniform", "by": "FreeMemory"}},
        "spec.distribution.by: Forbidden: may not be set when distribution.mode is Uniform",
    ),
    (
        {"placement": {"gang": True}, "distribution": {"items": 5, "mode": "Proportional", "by": "Weights"}},
        "spec.distribution.weights: Invalid value: null: must be set when distribution.by is Weights",
    ),
    (
        {"placement": {"gang": True}, "distribution": {"items": 5, "mode": "Proportional", "weights": [1]}},
        "spec.distribution.weights: Invalid value: [1]: must be set when distribution.by is Weights, and may not",
    ),
    (
        {"placement": {"gang": True}, "distribution": _weighted(0)},
        "spec.distribution.weights: Invalid value: [0]: must contain a number greater than 0",
    ),
    (
        {"placement": {"gang": True}, "replicas": 2, "distribution": _weighted(3)},
        "spec.distribution.weights: Invalid value: [3]: must have spec.replicas items",
    ),
    (
        {"template": {"spec": {"restartPolicy": "Never"}}},
        "spec.template.spec.containers: Required value: must have at least one container",
    ),
    (
        {"template": {"spec": {"containers": [{"name": "main"}]}}},
        "spec.template.spec.restartPolicy: Required value: must be one of Never, OnFailure (for workloads",
    ),
    (
        {"template": {"spec": {**TEMPLATE, "restartPolicy": "Sometimes"}}},
        'spec.template.spec.restartPolicy: Unsupported value: "Sometimes": supported values: "Always", "OnFailure"',
    ),
    (
        {"template": {"spec": {**TEMPLATE, "containers": [{"name": "a", "env": [{"name": "A", "value": 1}]}]}}},
        "spec.template.spec.containers[0].env[0].value: Invalid value: 1: must be of type string",
    ),
    (
        {"template": {"spec": {**TEMPLATE, "nodeName": "n"}}},
        "spec.template.spec.nodeName: Forbidden: the node is selected by the operator",
    ),
    (
        {"template": {"spec": {**TEMPLATE, "containers": [{"name": "a", "resources": {"requests": {"cpu": "1zz"}}}]}}},
        'spec.template.spec.containers[0].resources.requests[cpu]: Invalid value: "1zz": must be a resource quantity',
    ),
    (
        {"template": {"spec": {**TEMPLATE, "tolerations": ["x"]}}},
        'spec.template.spec.tolerations[0]: Invalid value: "x": must be an object',
    ),
    (
        {"placement": {"onPressure": "Move"}},
        "spec.placement.onPressure: Forbidden: may not be Move unless devices.mode is Shared",
    ),
    (
        {"placement": {"onPressure": "Move"}, "devices": {"mode": "Shared", "memoryMiB": 1}, "template": None},
        "spec.placement.onPressure: Forbidden: may not be Move without spec.template",
    ),
    (
        {"placement": {"reclaim": "Used"}},
        "spec.placement.reclaim: Forbidden: may not be set when devices.mode is Exclusive",
    ),
    (
        {"placement": {"demand": "Learned"}},
        "spec.placement.demand: Forbidden: may not be Learned when devices.mode is Exclusive",
    ),
]


@pytest.mark.parametrize(("spec", "message"), SPECS, ids=[json.dumps(case[0]) for case in SPECS])
def test_invalid_spec_is_bad_input(spec: dict[str, Any], message: str, files: ObjectFiles) -> None:
    fleet = files.write(idle_node("node-1", 1))
    manifest = files.write(gpu_workload("first"), gpu_workload("second", **spec))
    done = run_cli("simulate", "-f", manifest, "--from", fleet)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"error: {manifest}, document 2: GPUWorkload second: {message}")
    assert done.err.count("\n") == 1


def test_further_problems_are_counted(files: ObjectFiles) -> None:
    manifest = files.write(gpu_workload(replicas=-1, devices={"count": 0}))
    done = run_cli("simulate", "-f", manifest, "--from", files.write(idle_node("node-1")))
    assert done.err.endswith("0 (and 1 more)\n")


@pytest.mark.parametrize("name", ["Train", "-train", "train_1", "t" * 51])
def test_invalid_name_is_bad_input(name: str, files: ObjectFiles) -> None:
    done = run_cli("simulate", "-f", files.write(gpu_workload(name)), "--from", files.write(idle_node("node-1")))
    assert done.code == 2
    assert f"GPUWorkload {name}: metadata.name: " in done.err


def test_other_version_and_duplicates_are_bad_input(files: ObjectFiles) -> None:
    fleet = files.write(idle_node("node-1"))
    newer = {**gpu_workload(), "apiVersion": "gpufleet.dev/v2"}
    done = run_cli("simulate", "-f", files.write(newer), "--from", fleet)
    assert done.code == 2
    assert (
        'GPUWorkload train: apiVersion: Unsupported value: "gpufleet.dev/v2": supported values: gpufleet.dev/v1alpha1'
        in done.err
    )
    one = files.write(gpu_workload())
    done = run_cli("simulate", "-f", one, "-f", files.write(gpu_workload()), "--from", fleet)
    assert done.code == 2
    assert f'metadata.name: Duplicate value: "default/train" (see {one})' in done.err
    elsewhere = gpu_workload()
    elsewhere["metadata"]["namespace"] = "ml"
    assert run_cli("simulate", "-f", one, "-f", files.write(elsewhere), "--from", fleet).code == 0


def test_every_cel_rule_for_new_objects_is_checked() -> None:
    def rules(schema: object) -> set[str]:
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


def test_resource_option_names_the_extended_resource(files: ObjectFiles) -> None:
    container = {"name": "main", "resources": {"limits": {"nvidia.com/gpu": 1}}}
    manifest = files.write(gpu_workload(template={"spec": {**TEMPLATE, "containers": [container]}}))
    fleet = files.write(idle_node("node-1"))
    nodes = files.write(
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": "node-1"},
            "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"}},
        }
    )
    foreign = run_cli("simulate", "-f", manifest, "--from", fleet, "--from", nodes)
    assert foreign.code == 2
    assert "resources.limits[nvidia.com/gpu]: Forbidden: matches nvidia.com/* of --forbidden-resources" in foreign.err
    arguments = ["--from", fleet, "--from", nodes, "--resource", "nvidia.com/gpu"]
    assert run_cli("simulate", "-f", manifest, *arguments).code == 0


def test_options_of_the_operator_permit_what_its_cluster_has(files: ObjectFiles) -> None:
    template = {"spec": {**TEMPLATE, "schedulerName": "volcano"}}
    manifest, fleet = files.write(gpu_workload(template=template)), files.write(idle_node("node-1"))
    rejected = run_cli("simulate", "-f", manifest, "--from", fleet)
    assert rejected.code == 2
    assert 'schedulerName: Unsupported value: "volcano": supported values: default-scheduler' in rejected.err
    assert run_cli("simulate", "-f", manifest, "--from", fleet, "--schedulers", "default-scheduler,volcano").code == 0
