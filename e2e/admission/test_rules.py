"""Rules and bounds of the CRDs on a real apiserver; each rejection names its field."""

import pytest

from gpufleet_e2e.identities import ASSIGNMENT, TELEMETRY, TEMPLATE, WORKLOADS, Client, JsonObject, telemetry, workload


def assignment(**changed: object) -> JsonObject:
    return telemetry(spec={"assignments": [{**ASSIGNMENT, **changed}]})


def with_template(template: object) -> JsonObject:
    return workload(template=template)


def with_containers(*containers: object) -> JsonObject:
    return with_template({"spec": {"restartPolicy": "Never", "containers": list(containers)}})


def weighted(*weights: int) -> JsonObject:
    return {"items": 9, "mode": "Proportional", "by": "Weights", "weights": list(weights)}


# Path, accepted object, rejected object, field of the rejection, part of its message.
RULES: dict[str, tuple[str, JsonObject, JsonObject, str, str]] = {
    "name": (WORKLOADS, workload("n" * 50), workload("n" * 51), "<nil>", "metadata.name may not be more than 50"),
    "include and exclude": (
        WORKLOADS,
        workload(requirements={"includeUUIDs": ["GPU-1"], "excludeUUIDs": ["GPU-2"]}),
        workload(requirements={"includeUUIDs": ["GPU-1", "GPU-2"], "excludeUUIDs": ["GPU-2"]}),
        "spec.requirements.excludeUUIDs",
        "must not contain a UUID that is also in includeUUIDs",
    ),
    "shared memory": (
        WORKLOADS,
        workload(devices={"mode": "Shared", "memoryMiB": 20_000}),
        workload(devices={"mode": "Shared"}),
        "spec.devices.memoryMiB",
        "must be set when devices.mode is Shared",
    ),
    "exclusive memory": (
        WORKLOADS,
        workload(devices={"mode": "Exclusive"}),
        workload(devices={"memoryMiB": 20_000}),
        "spec.devices.memoryMiB",
        "may not be set when devices.mode is Exclusive",
    ),
    "shared compute": (
        WORKLOADS,
        workload(devices={"mode": "Shared", "memoryMiB": 1, "computePercent": 100}),
        workload(devices={"mode": "Shared", "memoryMiB": 1, "computePercent": 101}),
        "spec.devices.computePercent",
        "less than or equal to 100",
    ),
    "exclusive compute": (
        WORKLOADS,
        workload(devices={}),
        workload(devices={"computePercent": 20}),
        "spec.devices.computePercent",
        "may not be set when devices.mode is Exclusive",
    ),
    "mode": (
        WORKLOADS,
        workload(devices={"mode": "Shared", "memoryMiB": 1}),
        workload(devices={"mode": "Timesliced", "memoryMiB": 1}),
        "spec.devices.mode",
        '"Exclusive", "Shared"',
    ),
    "weights": (
        WORKLOADS,
        workload(placement={"weights": {"memory": 0, "utilization": 0, "temperature": 0, "power": 1}}),
        workload(placement={"weights": {"memory": 0, "utilization": 0, "temperature": 0, "power": 0}}),
        "spec.placement.weights",
        "memory, utilization, temperature and power must be greater than 0",
    ),
    "distribution.by": (
        WORKLOADS,
        workload(placement={"gang": True}, distribution={"items": 9, "mode": "Proportional", "by": "TotalMemory"}),
        workload(placement={"gang": True}, distribution={"items": 9, "mode": "Uniform", "by": "TotalMemory"}),
        "spec.distribution.by",
        "may not be set when distribution.mode is Uniform",
    ),
    "weights of the distribution": (
        WORKLOADS,
        workload(placement={"gang": True}, replicas=2, distribution=weighted(1, 0)),
        workload(placement={"gang": True}, replicas=2, distribution={**weighted(1, 1), "by": "FreeMemory"}),
        "spec.distribution.weights",
        "must be set when distribution.by is Weights",
    ),
    "weights all zero": (
        WORKLOADS,
        workload(placement={"gang": True}, distribution=weighted(1)),
        workload(placement={"gang": True}, distribution=weighted(0)),
        "spec.distribution.weights",
        "must contain a number greater than 0",
    ),
    "weights per replica": (
        WORKLOADS,
        workload(placement={"gang": True}, replicas=3, distribution=weighted(1, 2, 3)),
        workload(placement={"gang": True}, replicas=3, distribution=weighted(1, 2)),
        "spec.distribution.weights",
        "must have spec.replicas items",
    ),
    "distribution needs a gang": (
        WORKLOADS,
        workload(placement={"gang": True}, distribution={"items": 9}),
        workload(distribution={"items": 9}),
        "spec.placement.gang",
        "must be true when spec.distribution is set",
    ),
    "shard order": (
        TELEMETRY,
        assignment(shardStart=0, shardEnd=5),
        assignment(shardStart=6, shardEnd=5),
        "spec.assignments[0]",
        "shardStart must be less than or equal to shardEnd",
    ),
    "shard halves": (
        TELEMETRY,
        assignment(),
        assignment(shardStart=0),
        "spec.assignments[0]",
        "shardStart and shardEnd must be set together",
    ),
    "promised compute": (
        TELEMETRY,
        assignment(memoryMiB=1, computePercent=1),
        assignment(computePercent=1),
        "spec.assignments[0]",
        "computePercent may not be set without memoryMiB",
    ),
    "template.spec": (WORKLOADS, workload(), with_template({}), "spec.template.spec", "Required value"),
    "template.spec.containers": (
        WORKLOADS,
        with_template({**TEMPLATE, "metadata": {"labels": {"a": "b"}, "creationTimestamp": None}}),
        with_template({"spec": {"restartPolicy": "Never"}}),
        "spec.template.spec.containers",
        "Required value",
    ),
    "restartPolicy": (
        WORKLOADS,
        with_template({"spec": {**TEMPLATE["spec"], "restartPolicy": "OnFailure"}}),
        with_template({"spec": {"containers": TEMPLATE["spec"]["containers"]}}),
        "spec.template.spec.restartPolicy",
        "must be one of Never, OnFailure (for workloads that complete) or Always (for services)",
    ),
    "a container": (
        WORKLOADS,
        with_containers({"name": "main", "env": None, "command": None, "resources": None, "lifecycle": {}}),
        with_containers("x"),
        "spec.template.spec.containers[0]",
        "must be of type object",
    ),
    "claims of a container": (
        WORKLOADS,
        with_containers({"name": "main", "resources": {"claims": [], "limits": {"cpu": "1"}}}),
        with_containers({"name": "main", "resources": {"claims": [{"name": "gpu"}]}}),
        "spec.template.spec.containers[0].resources.claims",
        "must be empty: devices of claims cannot be reserved; use spec.devices",
    ),
    "resources of a container": (
        WORKLOADS,
        with_containers({"name": "main", "resources": {}}),
        with_containers({"name": "main", "resources": "x"}),
        "spec.template.spec.containers[0].resources",
        "must be of type object",
    ),
    "containers": (
        WORKLOADS,
        with_containers({"name": "a"}, {"name": "b"}),
        with_containers(),
        "spec.template.spec.containers",
        "at least 1 item",
    ),
    "container name": (
        WORKLOADS,
        with_containers({"name": "m" * 63}),
        with_containers({"name": "m" * 64}),
        "spec.template.spec.containers[0].name",
        "may not be more than 63",
    ),
    "container without a name": (
        WORKLOADS,
        with_containers({"name": "main"}),
        with_containers({"image": "x"}),
        "spec.template.spec.containers[0].name",
        "Required value",
    ),
    "one container per name": (
        WORKLOADS,
        with_containers({"name": "a"}, {"name": "b"}),
        with_containers({"name": "a"}, {"name": "a"}),
        "spec.template.spec.containers[1]",
        "Duplicate value",
    ),
    "value of a variable": (
        WORKLOADS,
        with_containers({"name": "a", "env": [{"name": "A", "value": "1"}]}),
        with_containers({"name": "a", "env": [{"name": "A", "value": 1}]}),
        "spec.template.spec.containers[0].env[0].value",
        "must be of type string",
    ),
    "init containers": (
        WORKLOADS,
        with_template({"spec": {**TEMPLATE["spec"], "initContainers": [{"name": "i"}]}}),
        with_template({"spec": {**TEMPLATE["spec"], "initContainers": "x"}}),
        "spec.template.spec.initContainers",
        "must be of type array",
    ),
    "value of restartPolicy": (
        WORKLOADS,
        with_template({"spec": {**TEMPLATE["spec"], "restartPolicy": "Never"}}),
        with_template({"spec": {**TEMPLATE["spec"], "restartPolicy": "Sometimes"}}),
        "spec.template.spec.restartPolicy",
        '"Always", "OnFailure", "Never"',
    ),
    "maxUnavailable": (
        WORKLOADS,
        workload(updateStrategy={"maxUnavailable": "25%"}),
        workload(updateStrategy={"maxUnavailable": "0%"}),
        "spec.updateStrategy.maxUnavailable",
        "should match",
    ),
    "maxUnavailable as a number": (
        WORKLOADS,
        workload(updateStrategy={"maxUnavailable": 2}),
        workload(updateStrategy={"maxUnavailable": 0}),
        "spec.updateStrategy.maxUnavailable",
        "greater than or equal to 1",
    ),
    "onReplicaFailure": (
        WORKLOADS,
        workload(runPolicy={"onReplicaFailure": "RestartAll"}),
        workload(runPolicy={"onReplicaFailure": "Ignore"}),
        "spec.runPolicy.onReplicaFailure",
        '"RestartReplica", "RestartAll", "Fail"',
    ),
    "replicas off": (
        WORKLOADS,
        workload(replicas=0),
        workload(replicas=-1),
        "spec.replicas",
        "greater than or equal to 0",
    ),
    "replicas": (WORKLOADS, workload(replicas=1024), workload(replicas=1025), "spec.replicas", "1024"),
    "count": (WORKLOADS, workload(devices={"count": 1}), workload(devices={"count": 0}), "spec.devices.count", "1"),
    "onPressure": (
        WORKLOADS,
        workload(devices={"mode": "Shared", "memoryMiB": 1000}, placement={"onPressure": "Move"}),
        workload(placement={"onPressure": "Move"}),
        "spec.placement.onPressure",
        "may not be Move unless devices.mode is Shared, devices.count is 1 and placement.gang is false",
    ),
    "reclaim": (
        WORKLOADS,
        workload(devices={"mode": "Shared", "memoryMiB": 1000}, placement={"reclaim": "Used"}),
        workload(devices={"mode": "Shared", "memoryMiB": 1000}, placement={"reclaim": "Always"}),
        "spec.placement.reclaim",
        '"Never", "Used"',
    ),
    "reclaim of whole devices": (
        WORKLOADS,
        workload(devices={"mode": "Shared", "memoryMiB": 1000}, placement={"reclaim": "Never"}),
        workload(placement={"reclaim": "Used"}),
        "spec.placement.reclaim",
        "may not be set when devices.mode is Exclusive",
    ),
    "demand of whole devices": (
        WORKLOADS,
        workload(devices={"mode": "Shared", "memoryMiB": 1000}, placement={"demand": "Learned"}),
        workload(placement={"demand": "Learned"}),
        "spec.placement.demand",
        "may not be Learned when devices.mode is Exclusive",
    ),
    "onDegraded": (
        WORKLOADS,
        workload(placement={"onDegraded": "Replace"}),
        workload(placement={"onDegraded": "Restart"}),
        "spec.placement.onDegraded",
        '"Ignore", "Replace"',
    ),
    "strategy": (
        WORKLOADS,
        workload(placement={"strategy": "Pack"}),
        workload(placement={"strategy": "Fastest"}),
        "spec.placement.strategy",
        '"Best", "Pack", "Spread"',
    ),
    "capability": (
        WORKLOADS,
        workload(requirements={"minComputeCapability": "8.0"}),
        workload(requirements={"minComputeCapability": "8"}),
        "spec.requirements.minComputeCapability",
        "should match",
    ),
    "set": (
        WORKLOADS,
        workload(requirements={"models": ["a", "b"]}),
        workload(requirements={"models": ["a", "a"]}),
        "spec.requirements.models[1]",
        "Duplicate value",
    ),
    "one assignment per pod": (
        TELEMETRY,
        telemetry(spec={"assignments": [ASSIGNMENT, {**ASSIGNMENT, "podUID": "uid-b"}]}),
        telemetry(spec={"assignments": [ASSIGNMENT, ASSIGNMENT]}),
        "spec.assignments[1]",
        "Duplicate value",
    ),
}


@pytest.mark.parametrize("case", RULES)
def test_rule_accepts_and_rejects_by_name(admin: Client, case: str) -> None:
    path, good, bad, field, words = RULES[case]
    accepted = admin.create(path, good)
    assert accepted.allowed, accepted.message
    rejected = admin.create(path, bad)
    assert rejected.status == 422
    assert field in rejected.fields
    assert words in rejected.message
