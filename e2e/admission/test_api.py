"""The CRDs on a real apiserver: pruning, defaults, immutability and printer columns."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from gpufleet_e2e.identities import (
    ASSIGNMENT,
    NAMESPACE,
    STATUS,
    TELEMETRY,
    TEMPLATE,
    WORKLOADS,
    Client,
    JsonObject,
    telemetry,
    wait_until,
    workload,
)
from gpufleet_testbed import Cluster, repository_root

EXAMPLES = sorted((repository_root() / "examples").glob("*.yaml"))

HEALTHY = {"state": "Healthy"}


def test_misspelled_field_is_rejected_by_strict_validation(admin: Client) -> None:
    rejected = admin.create(WORKLOADS, workload(placment={"strategy": "Pack"}))
    assert rejected.status == 400
    assert 'unknown field "spec.placment"' in rejected.message


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
    "count": ({"devices": {"count": 1}}, "devices"),
    "container": ({"devices": {"container": "other"}}, "devices"),
    "network": ({"network": {"enableDNSHostnames": False}}, "network"),
    "items": ({"distribution": {"items": 99}}, "distribution"),
    "distribution away": ({"distribution": None}, "distribution"),
}


APPLIED: dict[str, JsonObject] = {
    "requirements": {
        "requirements": {
            "models": ["m"],
            "includeUUIDs": ["GPU-1"],
            "excludeUUIDs": ["GPU-2"],
            "nodeSelector": {"a": "b"},
        }
    },
    "placement": {"placement": {"weights": {"memory": 1}, "strategy": "Pack"}},
    "runPolicy": {"runPolicy": {"backoffLimit": 3}},
    "updateStrategy": {"updateStrategy": {"maxUnavailable": 2}},
}


@pytest.fixture(scope="module")
def full_workload(admin: Client) -> JsonObject:
    """Creates a suspended workload with every field set."""
    created = admin.create(WORKLOADS, FULL, dry_run=None)
    assert created.allowed, created.message
    return dict(created.body)


@pytest.mark.parametrize("case", CHANGES)
def test_immutable_field_cannot_change(admin: Client, full_workload: JsonObject, case: str) -> None:
    change, field = CHANGES[case]
    rejected = admin.patch(f"{WORKLOADS}/immutable", {"spec": change})
    assert rejected.status == 422
    assert f"spec.{field}" in rejected.fields
    assert "field is immutable; create another GPUWorkload" in rejected.message


def test_distribution_cannot_be_added(admin: Client) -> None:
    created = admin.create(WORKLOADS, workload("bare", placement={"gang": True}), dry_run=None)
    assert created.allowed, created.message
    rejected = admin.patch(f"{WORKLOADS}/bare", {"spec": {"distribution": {"items": 9}}})
    assert rejected.status == 422
    assert "spec.distribution" in rejected.fields
    assert "field is immutable; create another GPUWorkload" in rejected.message


MUTABLE: dict[str, JsonObject] = {
    "a container": {"template": {"spec": {"containers": [{"name": "other"}]}}},
    "another field of the pod spec": {"template": {"spec": {"hostNetwork": True}}},
    "a label": {"template": {"metadata": {"labels": {"a": "c"}}}},
    "metadata away": {"template": {"metadata": None}},
    "a requirement": {"requirements": {"minFreeMemoryMiB": 2}},
    "requirements away": {"requirements": None},
    "strategy": {"placement": {"strategy": "Best"}},
    "weights": {"placement": {"weights": {"memory": 1}}},
    "run policy": {"runPolicy": {"backoffLimit": 0, "onReplicaFailure": "Fail"}},
    "update strategy": {"updateStrategy": {"type": "OnDelete", "maxUnavailable": "50%"}},
}


def test_replicas_can_change_unless_items_are_distributed(admin: Client, full_workload: JsonObject) -> None:
    change = {"spec": {"replicas": 3}}
    rejected = admin.patch(f"{WORKLOADS}/immutable", change)
    assert (rejected.status, rejected.fields) == (422, {"spec.replicas"})
    assert "field is immutable while spec.distribution is set" in rejected.message
    assert admin.create(WORKLOADS, workload("scaled"), dry_run=None).allowed
    assert admin.patch(f"{WORKLOADS}/scaled", change).allowed
    assert admin.patch(f"{WORKLOADS}/scaled/scale", change).allowed


@pytest.mark.parametrize("case", MUTABLE)
def test_mutable_field_can_change(admin: Client, full_workload: JsonObject, case: str) -> None:
    changed = admin.patch(f"{WORKLOADS}/immutable", {"spec": MUTABLE[case]})
    assert changed.allowed, changed.message


def test_suspend_can_change_and_applying_again_changes_nothing(admin: Client, full_workload: JsonObject) -> None:
    resumed = admin.patch(f"{WORKLOADS}/immutable", {"spec": {"suspend": False}, "metadata": {"labels": {"a": "b"}}})
    assert resumed.allowed, resumed.message
    again = admin.apply(f"{WORKLOADS}/immutable", FULL, manager="gitops")
    assert again.allowed, again.message
    assert again.body["metadata"]["generation"] == full_workload["metadata"]["generation"]


def test_defaults_are_filled_in(admin: Client) -> None:
    created = admin.create(WORKLOADS, workload()).body
    assert created["spec"] == {
        "replicas": 1,
        "suspend": True,
        "template": TEMPLATE,
        "devices": {"count": 1, "mode": "Exclusive"},
        "runPolicy": {"backoffLimit": 6},
        "updateStrategy": {"type": "RollingUpdate", "maxUnavailable": 1},
        "network": {"enableDNSHostnames": True},
        "placement": {
            "strategy": "Best",
            "topology": "None",
            "gang": False,
            "gangTimeoutSeconds": 600,
            "scaleUp": False,
            "minRuntimeSeconds": 0,
            "onDegraded": "Ignore",
            "onPressure": "Ignore",
            "demand": "Promised",
            "weights": {"memory": 40, "utilization": 30, "temperature": 20, "power": 10},
        },
    }
    part = admin.create(WORKLOADS, workload(placement={"weights": {"power": 0}})).body
    assert part["spec"]["placement"]["weights"] == {"memory": 40, "utilization": 30, "temperature": 20, "power": 0}
    assert admin.create(TELEMETRY, telemetry()).body["spec"] == {}


def test_fresh_workload_is_pending_for_kstatus(admin: Client) -> None:
    status = admin.create(WORKLOADS, workload()).body["status"]
    (condition,) = status["conditions"]
    assert status["state"] == "Pending"
    assert (condition["type"], condition["status"], condition["reason"]) == ("Ready", "Unknown", "Pending")


def test_unknown_fields_are_pruned_and_the_pod_spec_is_kept(admin: Client) -> None:
    body = workload(unheardOf=1, template={"spec": {**TEMPLATE["spec"], "unheardOf": {"deep": [1]}}, "unheardOf": 1})
    created = admin.create(WORKLOADS, body, field_validation="Ignore").body
    assert "unheardOf" not in created["spec"]
    assert created["spec"]["template"] == {"spec": {**TEMPLATE["spec"], "unheardOf": {"deep": [1]}}}


def device(uuid: str, index: int, **values: object) -> JsonObject:
    return {"uuid": uuid, "index": index, "model": "m", "health": HEALTHY, **values}


def status(*devices: JsonObject) -> JsonObject:
    summary: JsonObject = {"state": "Ready", "devices": 2, "healthy": 2, "allocated": 0, "free": 2}
    summary |= {"memoryUsedMiB": 412, "memoryTotalMiB": 81559}
    summary |= {"meanUtilizationPercent": 3, "meanTemperatureCelsius": 41, "powerWatts": 71}
    return {**STATUS, "devices": list(devices), "summary": summary}


@pytest.fixture
def telemetry_path(admin: Client) -> Iterator[str]:
    """Creates a GPUTelemetry for the test."""
    path = f"{TELEMETRY}/e2e-no-such-node"
    created = admin.create(TELEMETRY, telemetry(), dry_run=None)
    assert created.allowed, created.message
    yield path
    admin.delete(path, dry_run=None)


def test_report_replaces_the_devices_of_the_one_before(admin: Client, telemetry_path: str) -> None:
    """The list has one owner as a whole: an owner of each field of each device would cost the apiserver more."""
    both, one = (device("GPU-1", 0), device("GPU-2", 1)), (device("GPU-2", 1),)
    for devices in (both, one):
        applied = admin.apply(f"{telemetry_path}/status", telemetry(status=status(*devices)), manager="a", dry_run=None)
        assert applied.allowed, applied.message
    stored = admin.get(telemetry_path)
    assert [found["uuid"] for found in stored["status"]["devices"]] == ["GPU-2"]
    (owned,) = [one for one in stored["metadata"]["managedFields"] if one["manager"] == "a"]
    assert owned["fieldsV1"]["f:status"]["f:devices"] == {}


def test_last_cordon_is_removed_by_its_owner(admin: Client, telemetry_path: str) -> None:
    """As Flux, Terraform and `kubectl apply --server-side` remove what they left out."""
    entry = {"uuid": "GPU-1", "reason": "fan"}
    assert admin.apply(telemetry_path, telemetry(spec={"cordoned": [entry]}), manager="ann", dry_run=None).allowed
    removed = admin.apply(telemetry_path, telemetry(), manager="ann", dry_run=None)
    assert removed.allowed, removed.message
    assert not removed.body.get("spec", {}).get("cordoned")


@pytest.mark.parametrize("field", APPLIED)
def test_applied_field_is_removed_by_its_owner(admin: Client, field: str) -> None:
    name = f"applied-{field.lower()}"
    path = f"{WORKLOADS}/{name}"
    assert admin.apply(path, workload(name, **APPLIED[field]), manager="flux", dry_run=None).allowed
    removed = admin.apply(path, workload(name), manager="flux", dry_run=None)
    assert removed.allowed, removed.message


@pytest.mark.usefixtures("operator_stopped")  # it also writes conditions
def test_two_managers_keep_their_conditions(admin: Client, full_workload: JsonObject) -> None:
    path = f"{WORKLOADS}/immutable/status"
    condition = {"status": "True", "reason": "Test", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    meta = {key: full_workload[key] for key in ("apiVersion", "kind")} | {"metadata": {"name": "immutable"}}
    for kind in ("Degraded", "FromElsewhere"):
        body = {**meta, "status": {"conditions": [{**condition, "type": kind}]}}
        applied = admin.apply(path, body, manager=kind.lower(), dry_run=None)
        assert applied.allowed, applied.message
    types = {one["type"] for one in admin.get(path)["status"]["conditions"]}
    assert types >= {"Degraded", "FromElsewhere"}


def test_status_is_written_only_by_its_subresource(admin: Client, telemetry_path: str) -> None:
    by_spec = admin.patch(telemetry_path, {"status": status()}).body
    assert "status" not in by_spec
    by_status = admin.patch(
        f"{telemetry_path}/status", {"status": status(), "spec": {"assignments": [ASSIGNMENT]}}
    ).body
    assert by_status["status"]["agentVersion"] == "0.1.0"
    assert by_status["spec"] == {}


def test_generation_changes_only_with_the_spec(admin: Client, telemetry_path: str) -> None:
    before = admin.get(telemetry_path)["metadata"]["generation"]
    after_status = admin.patch(f"{telemetry_path}/status", {"status": status()}, dry_run=None).body["metadata"][
        "generation"
    ]
    reserved = admin.patch(telemetry_path, {"spec": {"assignments": [ASSIGNMENT]}}, dry_run=None)
    assert (after_status, reserved.body["metadata"]["generation"]) == (before, before + 1)


def test_crds_are_accepted_by_strict_validation_and_complete(installed: Cluster) -> None:
    crds = repository_root() / "crds"
    words = ("--server-side", "--dry-run=server", "--validate=strict", f"--filename={crds}")
    # Without a conflict with helm's fields: the server stores them unchanged, so that GitOps tools see no drift.
    assert installed.kubectl("apply", *words).stdout.count("serverside-applied (server dry run)") == 3
    listing = json.loads(installed.kubectl("get", "crd", "--output=json").stdout)["items"]
    ours = [one for one in listing if one["spec"]["group"] == "gpufleet.dev"]
    assert len(ours) == 3
    for one in ours:
        conditions = {condition["type"]: condition["status"] for condition in one["status"]["conditions"]}
        assert conditions["Established"] == "True"
        assert conditions.get("NonStructuralSchema", "False") == "False"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_is_accepted(installed: Cluster, admin: Client, path: Path) -> None:
    words = ("create", f"--namespace={NAMESPACE}", "--dry-run=server", "--validate=strict", "--filename", str(path))
    assert "created (server dry run)" in installed.kubectl(*words).stdout


def cells(line: str) -> str:
    """Joins the columns of a table's line with single blanks."""
    return " ".join(line.split())


def test_printer_columns(installed: Cluster, admin: Client, full_workload: JsonObject, telemetry_path: str) -> None:
    admin.patch(f"{telemetry_path}/status", {"status": status(device("GPU-1", 0))}, dry_run=None)
    wait_until(lambda: "conditions" in admin.get(telemetry_path)["status"], "conditions by the operator")
    header, row = installed.kubectl("get", "gputelemetries", "e2e-no-such-node").stdout.splitlines()
    assert cells(header) == "NAME STATUS GPUS HEALTHY ALLOCATED FREE USED-MIB TOTAL-MIB UTIL% TEMP-C WATTS OBSERVED"
    name, state, *numbers = cells(row).split()
    assert (name, state, numbers[:9]) == (
        "e2e-no-such-node",
        "Stale",
        ["2", "2", "0", "2", "412", "81559", "3", "41", "71"],
    )
    header, _ = installed.kubectl("get", "gpuw", "immutable", f"--namespace={NAMESPACE}").stdout.splitlines()
    assert cells(header) == "NAME READY STATUS REASON GPUS NODES AGE"


def test_explain_describes_units_and_containers(installed: Cluster) -> None:
    assert "in degrees Celsius" in installed.kubectl("explain", "gpuworkload.spec.requirements").stdout
    told = installed.kubectl("explain", "gpuworkload.spec.template.spec.containers").stdout
    assert "Image of the container" in told
    assert "-required-" in told.partition("name\t")[2].partition("\n")[0]


def test_one_variable_is_applied_without_the_rest_of_its_container(admin: Client) -> None:
    path = f"{WORKLOADS}/merged"
    full = {"name": "main", "image": "a", "command": ["b"], "env": [{"name": "A", "value": "1"}]}
    whole = workload("merged", template={"spec": {"restartPolicy": "Never", "containers": [full]}})
    one = {"name": "main", "env": [{"name": "B", "value": "2"}]}
    part = {**whole, "spec": {"template": {"spec": {"containers": [one]}}}}
    assert admin.apply(path, whole, manager="team", dry_run=None).allowed
    merged = admin.apply(path, part, manager="platform", dry_run=None)
    assert merged.allowed, merged.message
    (container,) = merged.body["spec"]["template"]["spec"]["containers"]
    assert (container["image"], container["command"]) == ("a", ["b"])
    assert [(entry["name"], entry["value"]) for entry in container["env"]] == [("A", "1"), ("B", "2")]
    admin.delete(path, dry_run=None)


def test_kustomize_merges_one_variable_into_its_container(installed: Cluster, tmp_path: Path) -> None:
    """Also in a Deployment of the same kustomization: a schema of its own replaces the one of Kustomize."""
    main = {"name": "main", "image": "a", "command": ["b"], "env": [{"name": "A", "value": "1"}]}
    patch = {"name": "main", "env": [{"name": "A", "value": "2"}, {"name": "B", "value": "3"}]}
    for file, container in (("base", main), ("patch", patch)):
        kinds = (("gpufleet.dev/v1alpha1", "GPUWorkload"), ("apps/v1", "Deployment"), ("batch/v1", "Job"))
        spec = {"template": {"spec": {"containers": [container]}}}
        parts = [
            {"apiVersion": version, "kind": kind, "metadata": {"name": "x"}, "spec": spec} for version, kind in kinds
        ]
        (tmp_path / f"{file}.yaml").write_text("---\n".join(json.dumps(part) + "\n" for part in parts))
    schema = (repository_root() / "crds/kustomize/openapi.json").read_text()
    (tmp_path / "openapi.json").write_text(schema)
    overlay = {"resources": ["base.yaml"], "patches": [{"path": "patch.yaml"}], "openapi": {"path": "openapi.json"}}
    (tmp_path / "kustomization.yaml").write_text(json.dumps(overlay))
    built = list(yaml.safe_load_all(installed.kubectl("kustomize", str(tmp_path)).stdout))
    assert len(built) == 3
    for found in built:
        (container,) = found["spec"]["template"]["spec"]["containers"]
        assert (container["image"], container["command"]) == ("a", ["b"]), found["kind"]
        assert {entry["name"]: entry["value"] for entry in container["env"]} == {"A": "2", "B": "3"}, found["kind"]
