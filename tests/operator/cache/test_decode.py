"""Objects of the API are decoded; invalid ones keep their identity."""

from datetime import UTC, datetime
from typing import Any

import pytest

from gpufleet_api.names import AGENT_FIELD_MANAGER, RESOURCE
from gpufleet_operator.cache import decode, decode_pod

META: dict[str, Any] = {
    "name": "train",
    "namespace": "ml",
    "uid": "u",
    "generation": 3,
    "resourceVersion": "7",
    "creationTimestamp": "2026-01-01T00:00:00Z",
}


def test_an_invalid_workload_keeps_identity_status_and_reason() -> None:
    status = {"conditions": [], "ready": "1/1"}

    found = decode.workload({"metadata": META, "spec": {"replicas": "many", "template": {}}, "status": status})

    assert found.model is None
    assert "spec.replicas" in found.invalid
    assert "'many'" in found.invalid
    assert found.uid == "u"
    assert found.status is not None
    assert found.status.ready == "1/1"


def telemetry(managed: list[dict[str, Any]], **status: object) -> dict[str, Any]:
    full = {
        "observedAt": "2026-01-01T00:00:00Z",
        "agentVersion": "x",
        "summary": {"devices": 0, "healthy": 0, "allocated": 0},
        **status,
    }
    return {"metadata": {**META, "managedFields": managed}, "status": full}


AGENT = {"manager": AGENT_FIELD_MANAGER, "subresource": "status", "time": "2026-01-01T10:00:00Z"}

MANAGED: dict[str, tuple[list[dict[str, Any]], datetime | None]] = {
    "the agent's status write": ([AGENT], datetime(2026, 1, 1, 10, tzinfo=UTC)),
    "not its write of the object": ([{"manager": AGENT_FIELD_MANAGER, "time": "2026-01-01T10:00:00Z"}], None),
    "not another's status write": ([{**AGENT, "manager": "kubectl"}], None),
    "nothing": ([], None),
}


@pytest.mark.parametrize(("managed", "written"), MANAGED.values(), ids=MANAGED.keys())
def test_written_at_is_the_time_of_the_apiserver(managed: list[dict[str, Any]], written: datetime | None) -> None:
    assert decode.telemetry(telemetry(managed)).confirmed_at == written


def test_an_invalid_status_keeps_the_reservations() -> None:
    assignment = {
        "podUID": "p",
        "namespace": "ml",
        "pod": "x",
        "container": "c",
        "workload": "w",
        "workloadUID": "wu",
        "replica": 0,
        "replicas": 1,
        "resource": RESOURCE,
        "devices": ["GPU-1"],
        "decidedAt": "2026-01-01T00:00:00Z",
    }
    body = {**telemetry([AGENT], summary="all fine"), "spec": {"assignments": [assignment]}}

    found = decode.telemetry(body)

    assert [a.pod_uid for a in found.assignments] == ["p"]
    assert found.status is None
    assert found.decode_error.startswith("the status of the agent is invalid: ")


def test_conditions_are_decoded_also_from_an_invalid_status() -> None:
    fresh = {"type": "Fresh", "status": "True", "reason": "Ready", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    body = telemetry([AGENT], summary="all fine", conditions=[fresh, {"type": "Healthy", "status": "Maybe"}, "text"])

    found = decode.telemetry(body)

    assert {kind: condition.reason for kind, condition in found.conditions.items()} == {"Fresh": "Ready"}


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        (
            [{"type": "Ready", "status": "True"}, {"type": "GPUHealthy", "status": "False", "reason": "XidError"}],
            "XidError",
        ),
        ([{"type": "GPUHealthy", "status": "Maybe"}], None),
        ([{"type": "Ready", "status": "True"}], None),
        ("text", None),
    ],
    ids=["present", "malformed", "absent", "not a list"],
)
def test_node_condition_is_the_operators_own(conditions: object, expected: str | None) -> None:
    found = decode.node({"metadata": META, "spec": {}, "status": {"conditions": conditions}}).condition

    assert (found.reason if found else None) == expected


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ([], ""),
        ([{"type": "Ready", "status": "True", "message": "kubelet is posting ready status"}], ""),
        (
            [{"type": "Ready", "status": "Unknown", "message": "Kubelet stopped posting node status."}],
            "Kubelet stopped",
        ),
        ([{"type": "Ready", "status": "False", "reason": "KubeletNotReady"}], "KubeletNotReady"),
        ([{"type": "Ready"}], "condition Ready is not True"),
    ],
    ids=["none", "ready", "unknown", "without a message", "empty"],
)
def test_node_that_is_not_ready_has_the_message_of_the_condition(conditions: object, expected: str) -> None:
    found = decode.node({"metadata": META, "spec": {}, "status": {"conditions": conditions}}).not_ready

    assert found.startswith(expected)
    assert bool(found) == bool(expected)


@pytest.mark.parametrize("reason", ["Unschedulable", "SchedulerError"])
def test_pod_has_the_response_of_its_scheduler(reason: str) -> None:
    condition = {"type": "PodScheduled", "status": "False", "reason": reason, "message": "no"}
    created = {**META, "namespace": "ml", "creationTimestamp": "2026-01-01T00:00:00Z"}

    found = decode_pod.pod({"metadata": created, "status": {"conditions": [condition]}})

    assert (found.unschedulable, found.scheduler) == ("no", "default-scheduler")


@pytest.mark.parametrize(
    ("ends", "grace", "requested"),
    [
        ("2026-01-01T00:00:30Z", 30, datetime(2026, 1, 1, tzinfo=UTC)),
        ("2026-01-01T00:00:00Z", 0, datetime(2026, 1, 1, tzinfo=UTC)),
        ("2026-01-01T00:00:00Z", 10**18, None),
        ("soon", 30, None),
        (None, None, None),
    ],
)
def test_pod_has_the_time_at_which_its_deletion_was_requested(
    ends: str | None, grace: int | None, requested: datetime | None
) -> None:
    meta = {**META, "deletionTimestamp": ends, "deletionGracePeriodSeconds": grace}

    assert decode_pod.pod({"metadata": meta}).deletion_requested == requested


def test_pod_has_the_volume_claims_that_kube_scheduler_binds() -> None:
    created = {"uid": "u", "namespace": "ml", "name": "p", "creationTimestamp": "2026-01-01T00:00:00Z"}
    named = {"name": "data", "persistentVolumeClaim": {"claimName": "data-1"}}
    volumes = [named, {"name": "scratch", "ephemeral": {}}, {"name": "empty", "emptyDir": {}}, "odd"]

    assert decode_pod.pod({"metadata": created, "spec": {"volumes": volumes}}).volume_claims == ("data-1", "p-scratch")


def test_pod_has_its_scheduler_and_the_claims_that_it_needs() -> None:
    claims = [{"resourceClaimName": "a"}, {"resourceClaimTemplateName": "b"}, {"name": "odd"}, None]
    created = {**META, "namespace": "ml", "creationTimestamp": "2026-01-01T00:00:00Z"}

    found = decode_pod.pod({"metadata": created, "spec": {"schedulerName": "volcano", "resourceClaims": claims}})

    assert (found.scheduler, found.unschedulable) == ("volcano", None)
    assert found.claims == ('ResourceClaim "a"', 'ResourceClaimTemplate "b"')


def test_node_allocatable_is_in_millicores_and_bytes() -> None:
    allocatable = {"cpu": "3920m", "memory": "1Gi", "pods": "110", RESOURCE: "8"}
    taint = {"key": "k", "effect": "NoSchedule"}

    found = decode.node({"metadata": META, "spec": {"taints": [taint]}, "status": {"allocatable": allocatable}})

    assert found.allocatable == {"cpu": 3920, "memory": 2**30, "pods": 110, RESOURCE: 8}
    assert [t.key for t in found.taints] == ["k"]


def test_a_bound_pod_has_its_requests() -> None:
    container = {"resources": {"requests": {"cpu": "250m"}, "limits": {"memory": "1Ki"}}}

    found = decode.bound_pod({"metadata": META, "spec": {"nodeName": "n", "containers": [container, container]}})

    assert (found.node, found.requests) == ("n", {"cpu": 500, "memory": 2048})


def test_a_bound_pod_has_a_name_only_if_it_may_have_devices() -> None:
    """Thousands of other pods would cost memory for nothing."""
    limits = {"limits": {"gpufleet.dev/gpu": "1"}}
    names = [
        decode.bound_pod({"metadata": META, "spec": {"nodeName": "n", "containers": [{"resources": given}]}}).name
        for given in (limits, {"limits": {"cpu": "1"}}, {})
    ]

    assert names == [META["name"], "", ""]


@pytest.mark.parametrize(
    ("kind", "movable"), [("ReplicaSet", True), ("Job", True), ("DaemonSet", False), ("Node", False), (None, False)]
)
def test_a_bound_pod_is_movable_if_its_controller_creates_it_elsewhere(kind: str | None, movable: bool) -> None:
    owners = [{"kind": "Other", "uid": "o"}, *([{"kind": kind, "uid": "c", "controller": True}] if kind else [])]

    found = decode.bound_pod({"metadata": {**META, "ownerReferences": owners}, "spec": {"nodeName": "n"}})

    assert found.movable is movable


def test_a_service_has_the_fields_that_the_operator_sets() -> None:
    spec = {"type": "ClusterIP", "clusterIP": "None", "selector": {"a": "b"}, "ports": [{"port": 1}]}

    found = decode.service({"metadata": {**META, "labels": {"c": "d"}}, "spec": spec})

    assert found.labels == {"c": "d"}
    assert found.spec == {"type": "ClusterIP", "clusterIP": "None", "selector": {"a": "b"}}


def test_a_bound_pod_has_what_other_pods_can_conflict_with() -> None:
    term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "x"}}}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": [term]}
    spec = {
        "nodeName": "n",
        "containers": [{"ports": [{"containerPort": 80, "hostPort": 8080}]}],
        "affinity": {"podAntiAffinity": required, "podAffinity": required},
    }
    meta = {**META, "labels": {"app": "x"}, "deletionTimestamp": "2026-01-01T00:00:00Z"}

    found = decode.bound_pod({"metadata": meta, "spec": spec})

    assert found.deleting
    assert (found.traits.namespace, found.traits.labels) == ("ml", {"app": "x"})
    assert [str(port) for port in found.traits.ports] == ["8080/TCP"]
    assert [anti.topology_key for anti in found.traits.anti_affinity] == ["kubernetes.io/hostname"]
    assert found.traits.affinity == ()
