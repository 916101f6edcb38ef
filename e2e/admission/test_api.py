"""The CRDs on a real apiserver: every rule accepts and refuses, and what is refused names its field."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from callers import (
    ASSIGNMENT,
    NAMESPACE,
    STATUS,
    TELEMETRY,
    TEMPLATE,
    WORKLOADS,
    Caller,
    JsonObject,
    telemetry,
    workload,
)
from cluster import Cluster, repository_root

EXAMPLES = sorted((repository_root() / "examples").glob("*.yaml"))

HEALTHY = {"state": "Healthy"}


def assignment(**changed: Any) -> JsonObject:
    return telemetry(spec={"assignments": [{**ASSIGNMENT, **changed}]})


def with_template(template: Any) -> JsonObject:
    return workload(template=template)


def weighted(*weights: int) -> JsonObject:
    return {"items": 9, "mode": "Proportional", "by": "Weights", "weights": list(weights)}


# The rule's field or object, what is accepted, what is refused, the field of the refusal, words of its message.
RULES: dict[str, tuple[str, JsonObject, JsonObject, str, str]] = {
    "name": (WORKLOADS, workload("n" * 50), workload("n" * 51), "<nil>", "metadata.name may have at most 50"),
    "include and exclude": (
        WORKLOADS,
        workload(requirements={"includeUUIDs": ["GPU-1"], "excludeUUIDs": ["GPU-2"]}),
        workload(requirements={"includeUUIDs": ["GPU-1", "GPU-2"], "excludeUUIDs": ["GPU-2"]}),
        "spec.requirements.excludeUUIDs",
        "includeUUIDs or in excludeUUIDs",
    ),
    "shared memory": (
        WORKLOADS,
        workload(devices={"mode": "Shared", "memoryMiB": 20_000}),
        workload(devices={"mode": "Shared"}),
        "spec.devices.memoryMiB",
        "devices.memoryMiB is required with mode Shared",
    ),
    "exclusive memory": (
        WORKLOADS,
        workload(devices={"mode": "Exclusive"}),
        workload(devices={"memoryMiB": 20_000}),
        "spec.devices.memoryMiB",
        "devices.memoryMiB belongs to mode Shared",
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
        "devices.computePercent belongs to mode Shared",
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
        "weights memory, utilization, temperature and power must be above 0",
    ),
    "distribution.by": (
        WORKLOADS,
        workload(placement={"gang": True}, distribution={"items": 9, "mode": "Proportional", "by": "TotalMemory"}),
        workload(placement={"gang": True}, distribution={"items": 9, "mode": "Uniform", "by": "TotalMemory"}),
        "spec.distribution.by",
        "distribution.by belongs to mode Proportional",
    ),
    "weights of the distribution": (
        WORKLOADS,
        workload(placement={"gang": True}, replicas=2, distribution=weighted(1, 0)),
        workload(placement={"gang": True}, replicas=2, distribution={**weighted(1, 1), "by": "FreeMemory"}),
        "spec.distribution.weights",
        "distribution.weights is needed with by: Weights",
    ),
    "weights all zero": (
        WORKLOADS,
        workload(placement={"gang": True}, distribution=weighted(1)),
        workload(placement={"gang": True}, distribution=weighted(0)),
        "spec.distribution.weights",
        "at least one of distribution.weights must be above 0",
    ),
    "weights per replica": (
        WORKLOADS,
        workload(placement={"gang": True}, replicas=3, distribution=weighted(1, 2, 3)),
        workload(placement={"gang": True}, replicas=3, distribution=weighted(1, 2)),
        "spec.distribution.weights",
        "one number for each of spec.replicas",
    ),
    "distribution needs a gang": (
        WORKLOADS,
        workload(placement={"gang": True}, distribution={"items": 9}),
        workload(distribution={"items": 9}),
        "spec.placement.gang",
        "distribution needs placement.gang: true",
    ),
    "shard order": (
        TELEMETRY,
        assignment(shardStart=0, shardEnd=5),
        assignment(shardStart=6, shardEnd=5),
        "spec.assignments[0]",
        "shardStart is at most shardEnd",
    ),
    "shard halves": (
        TELEMETRY,
        assignment(),
        assignment(shardStart=0),
        "spec.assignments[0]",
        "shardStart and shardEnd stand together",
    ),
    "promised compute": (
        TELEMETRY,
        assignment(memoryMiB=1, computePercent=1),
        assignment(computePercent=1),
        "spec.assignments[0]",
        "computePercent belongs to shared devices",
    ),
    "template.spec": (WORKLOADS, workload(), with_template({}), "spec.template.spec", "Required value"),
    "template.spec.containers": (
        WORKLOADS,
        with_template({"metadata": {"labels": {"a": "b"}, "creationTimestamp": None}, "spec": {"containers": []}}),
        with_template({"spec": {"restartPolicy": "Never"}}),
        "spec.template.spec.containers",
        "Required value",
    ),
    "replicas": (WORKLOADS, workload(replicas=1024), workload(replicas=1025), "spec.replicas", "1024"),
    "count": (WORKLOADS, workload(devices={"count": 1}), workload(devices={"count": 0}), "spec.devices.count", "1"),
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
def test_rule_accepts_and_refuses_by_name(admin: Caller, case: str) -> None:
    path, good, bad, field, words = RULES[case]
    accepted = admin.create(path, good)
    assert accepted.allowed, accepted.message
    refused = admin.create(path, bad)
    assert refused.status == 422
    assert field in refused.fields
    assert words in refused.message


def test_misspelt_field_is_refused_by_strict_validation(admin: Caller) -> None:
    refused = admin.create(WORKLOADS, workload(placment={"strategy": "Pack"}))
    assert refused.status == 400
    assert 'unknown field "spec.placment"' in refused.message


FULL = workload(
    "immutable",
    replicas=2,
    template={"metadata": {"labels": {"a": "b"}}, "spec": {**TEMPLATE["spec"], "restartPolicy": "Never"}},
    devices={"count": 2, "container": "main"},
    requirements={"minFreeMemoryMiB": 1000, "models": ["m"]},
    placement={"strategy": "Pack", "gang": True},
    distribution={"items": 100},
)

CHANGES: dict[str, tuple[JsonObject, str]] = {
    "replicas": ({"replicas": 3}, "replicas"),
    "a container": ({"template": {"spec": {"containers": [{"name": "other"}]}}}, "template"),
    "another field of the pod spec": ({"template": {"spec": {"hostNetwork": True}}}, "template"),
    "one field of the pod spec for another": (
        {"template": {"spec": {"restartPolicy": None, "hostNetwork": True}}},
        "template",
    ),
    "a label": ({"template": {"metadata": {"labels": {"a": "c"}}}}, "template"),
    "labels for annotations": ({"template": {"metadata": {"labels": None, "annotations": {"a": "b"}}}}, "template"),
    "metadata away": ({"template": {"metadata": None}}, "template"),
    "count": ({"devices": {"count": 1}}, "devices"),
    "container": ({"devices": {"container": "other"}}, "devices"),
    "a requirement": ({"requirements": {"minFreeMemoryMiB": 2}}, "requirements"),
    "requirements away": ({"requirements": None}, "requirements"),
    "strategy": ({"placement": {"strategy": "Best"}}, "placement"),
    "weights": ({"placement": {"weights": {"memory": 1}}}, "placement"),
    "items": ({"distribution": {"items": 99}}, "distribution"),
    "distribution away": ({"distribution": None}, "distribution"),
}


@pytest.fixture(scope="module")
def standing(admin: Caller) -> JsonObject:
    """A suspended workload with every field set, in the cluster."""
    made = admin.create(WORKLOADS, FULL, dry_run=None)
    assert made.allowed, made.message
    return dict(made.body)


@pytest.mark.parametrize("case", CHANGES)
def test_spec_is_immutable(admin: Caller, standing: JsonObject, case: str) -> None:
    change, field = CHANGES[case]
    refused = admin.patch(f"{WORKLOADS}/immutable", {"spec": change})
    assert refused.status == 422
    assert f"spec.{field}" in refused.fields
    assert f"{field} is immutable: create another GPUWorkload" in refused.message


def test_requirements_and_distribution_cant_be_added_either(admin: Caller) -> None:
    made = admin.create(WORKLOADS, workload("bare", placement={"gang": True}), dry_run=None)
    assert made.allowed, made.message
    for change in ({"requirements": {"minFreeMemoryMiB": 1}}, {"distribution": {"items": 9}}):
        refused = admin.patch(f"{WORKLOADS}/bare", {"spec": change})
        assert refused.status == 422
        assert f"{next(iter(change))} is immutable" in refused.message


def test_what_may_change_may_change(admin: Caller, standing: JsonObject) -> None:
    resumed = admin.patch(f"{WORKLOADS}/immutable", {"spec": {"suspend": False}, "metadata": {"labels": {"a": "b"}}})
    assert resumed.allowed, resumed.message
    again = admin.apply(f"{WORKLOADS}/immutable", FULL, manager="gitops")
    assert again.allowed, again.message
    assert again.body["metadata"]["generation"] == standing["metadata"]["generation"]


def test_defaults_are_filled_in(admin: Caller) -> None:
    made = admin.create(WORKLOADS, workload()).body
    assert made["spec"] == {
        "replicas": 1,
        "suspend": True,
        "template": TEMPLATE,
        "devices": {"count": 1, "mode": "Exclusive"},
        "placement": {
            "strategy": "Best",
            "topology": "None",
            "gang": False,
            "onDegraded": "Ignore",
            "weights": {"memory": 40, "utilization": 30, "temperature": 20, "power": 10},
        },
    }
    part = admin.create(WORKLOADS, workload(placement={"weights": {"power": 0}})).body
    assert part["spec"]["placement"]["weights"] == {"memory": 40, "utilization": 30, "temperature": 20, "power": 0}
    assert admin.create(TELEMETRY, telemetry()).body["spec"] == {}


def test_fresh_workload_is_pending_for_kstatus(admin: Caller) -> None:
    (condition,) = admin.create(WORKLOADS, workload()).body["status"]["conditions"]
    assert (condition["type"], condition["status"], condition["reason"]) == ("Ready", "Unknown", "Pending")


def test_unknown_fields_are_pruned_and_the_pod_spec_is_kept(admin: Caller) -> None:
    body = workload(unheardOf=1, template={"spec": {**TEMPLATE["spec"], "unheardOf": {"deep": [1]}}, "unheardOf": 1})
    made = admin.create(WORKLOADS, body, field_validation="Ignore").body
    assert "unheardOf" not in made["spec"]
    assert made["spec"]["template"] == {"spec": {**TEMPLATE["spec"], "unheardOf": {"deep": [1]}}}


def device(uuid: str, index: int, **values: Any) -> JsonObject:
    return {"uuid": uuid, "index": index, "model": "m", "health": HEALTHY, **values}


def status(*devices: JsonObject) -> JsonObject:
    summary = {"devices": 2, "healthy": 2, "allocated": 0, "memoryUsedMiB": 412, "memoryTotalMiB": 81559}
    summary |= {"meanUtilizationPercent": 3, "meanTemperatureCelsius": 41, "powerMilliwatts": 71250}
    return {**STATUS, "devices": list(devices), "summary": summary}


@pytest.fixture
def shown(admin: Caller) -> Iterator[str]:
    """A GPUTelemetry in the cluster, gone after the test."""
    path = f"{TELEMETRY}/e2e-no-such-node"
    made = admin.create(TELEMETRY, telemetry(), dry_run=None)
    assert made.allowed, made.message
    yield path
    admin.delete(path, dry_run=None)


def test_two_managers_keep_their_devices_in_one_list(admin: Caller, shown: str) -> None:
    for manager, one in (("a", device("GPU-1", 0)), ("b", device("GPU-2", 1))):
        applied = admin.apply(f"{shown}/status", telemetry(status=status(one)), manager=manager, dry_run=None)
        assert applied.allowed, applied.message
    changed = telemetry(status=status(device("GPU-1", 0, utilizationPercent=7)))
    devices = admin.apply(f"{shown}/status", changed, manager="a", dry_run=None).body["status"]["devices"]
    assert [(one["uuid"], one.get("utilizationPercent")) for one in devices] == [("GPU-1", 7), ("GPU-2", None)]
    gone = admin.apply(f"{shown}/status", telemetry(status=status()), manager="a", dry_run=None).body
    assert [one["uuid"] for one in gone["status"]["devices"]] == ["GPU-2"]


@pytest.mark.usefixtures("operator_asleep")  # it writes conditions, too
def test_two_managers_keep_their_conditions(admin: Caller, standing: JsonObject) -> None:
    path = f"{WORKLOADS}/immutable/status"
    condition = {"status": "True", "reason": "Test", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    meta = {key: standing[key] for key in ("apiVersion", "kind")} | {"metadata": {"name": "immutable"}}
    for kind in ("Degraded", "FromElsewhere"):
        body = {**meta, "status": {"conditions": [{**condition, "type": kind}]}}
        applied = admin.apply(path, body, manager=kind.lower(), dry_run=None)
        assert applied.allowed, applied.message
    types = {one["type"] for one in admin.get(path)["status"]["conditions"]}
    assert types >= {"Degraded", "FromElsewhere"}


def test_status_is_written_by_its_subresource_alone(admin: Caller, shown: str) -> None:
    by_spec = admin.patch(shown, {"status": status()}).body
    assert "status" not in by_spec
    by_status = admin.patch(f"{shown}/status", {"status": status(), "spec": {"assignments": [ASSIGNMENT]}}).body
    assert by_status["status"]["agentVersion"] == "0.1.0"
    assert by_status["spec"] == {}


def test_generation_rises_with_spec_alone(admin: Caller, shown: str) -> None:
    before = admin.get(shown)["metadata"]["generation"]
    after_status = admin.patch(f"{shown}/status", {"status": status()}, dry_run=None).body["metadata"]["generation"]
    reserved = admin.patch(shown, {"spec": {"assignments": [ASSIGNMENT]}}, dry_run=None)
    assert (after_status, reserved.body["metadata"]["generation"]) == (before, before + 1)


def test_crds_are_accepted_by_strict_validation_and_complete(installed: Cluster) -> None:
    crds = repository_root() / "crds"
    words = ("--server-side", "--dry-run=server", "--validate=strict", f"--filename={crds}")
    # Without a conflict with helm's fields: the server stores them as they stand, so GitOps tools see no drift.
    assert installed.kubectl("apply", *words).stdout.count("serverside-applied (server dry run)") == 2
    listing = json.loads(installed.kubectl("get", "crd", "--output=json").stdout)["items"]
    ours = [one for one in listing if one["spec"]["group"] == "gpufleet.dev"]
    assert len(ours) == 2
    for one in ours:
        conditions = {condition["type"]: condition["status"] for condition in one["status"]["conditions"]}
        assert conditions["Established"] == "True"
        assert conditions.get("NonStructuralSchema", "False") == "False"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_is_accepted(installed: Cluster, admin: Caller, path: Path) -> None:
    words = ("create", f"--namespace={NAMESPACE}", "--dry-run=server", "--validate=strict", "--filename", str(path))
    assert "created (server dry run)" in installed.kubectl(*words).stdout


def cells(line: str) -> str:
    """A line of a table with its columns one space apart."""
    return " ".join(line.split())


def test_plain_get_tells_the_story(installed: Cluster, admin: Caller, standing: JsonObject, shown: str) -> None:
    admin.patch(f"{shown}/status", {"status": status(device("GPU-1", 0))}, dry_run=None)
    header, row = installed.kubectl("get", "gputelemetries", "e2e-no-such-node").stdout.splitlines()
    assert cells(header) == "NAME GPUS HEALTHY ALLOCATED USED MIB TOTAL MIB UTIL % TEMP C MILLIWATTS OBSERVED"
    assert cells(row).startswith("e2e-no-such-node 2 2 0 412 81559 3 41 71250 ")
    header, row = installed.kubectl("get", "gpuw", "immutable", f"--namespace={NAMESPACE}").stdout.splitlines()
    assert cells(header) == "NAME CONFIRMED GPUS EACH NODES READY REASON AGE"
    assert " 2 " in cells(row)


def test_explain_is_helpful(installed: Cluster) -> None:
    assert "in degrees Celsius" in installed.kubectl("explain", "gpuworkload.spec.requirements").stdout
