from typing import Any

import pytest

from gpufleet_agent.kube.model import Assignment, Cordon, ObjectFormatError, parse_object
from gpufleet_api.telemetry.gpu_telemetry import GPUTelemetry

ENTRY: dict[str, Any] = {
    "podUID": "uid-1",
    "namespace": "ml",
    "pod": "train-0-x7k2p",
    "container": "main",
    "workload": "train",
    "workloadUID": "uid-w",
    "replica": 0,
    "replicas": 2,
    "resource": "gpufleet.dev/gpu",
    "devices": ["GPU-1", "GPU-0"],
    "shardStart": 0,
    "shardEnd": 500,
    "decidedAt": "2026-01-01T00:00:00.000001Z",
}
METADATA = {"name": "node-1", "uid": "uid-t", "generation": 4, "resourceVersion": "17"}


def test_an_object_with_a_reservation_is_read_as_the_models_read_it() -> None:
    document = {"metadata": METADATA, "spec": {"assignments": [ENTRY]}, "status": {"anything": 1}}
    read = parse_object(document)
    assert (read.uid, read.generation, read.resource_version) == ("uid-t", 4, 17)
    assert read.assignments == (
        Assignment(
            pod_uid="uid-1",
            namespace="ml",
            pod="train-0-x7k2p",
            container="main",
            resource="gpufleet.dev/gpu",
            devices=("GPU-1", "GPU-0"),
            workload="train",
            replica=0,
            replicas=2,
            shard_start=0,
            shard_end=500,
            decided_at="2026-01-01T00:00:00.000001Z",
        ),
    )
    (model,) = GPUTelemetry.model_validate({"metadata": METADATA, "spec": {"assignments": [ENTRY]}}).spec.assignments
    (ours,) = read.assignments
    for field in Assignment.__dataclass_fields__.keys() - {"order"}:
        theirs = getattr(model, field)
        assert getattr(ours, field) == (tuple(theirs) if isinstance(theirs, list) else theirs)


def test_containers_of_a_pod_have_assignments_of_their_own() -> None:
    containers = [{"name": "server", "count": 1}, {"name": "main", "count": 2}]
    entry = {**ENTRY, "container": "server", "containers": containers, "devices": ["GPU-2", "GPU-0", "GPU-1"]}

    read = parse_object({"metadata": METADATA, "spec": {"assignments": [entry]}})

    assert [(a.order, a.container, a.devices, a.pod_uid) for a in read.assignments] == [
        (0, "server", ("GPU-2",), "uid-1"),
        (1, "main", ("GPU-0", "GPU-1"), "uid-1"),
    ]


def test_devices_out_of_service_are_read() -> None:
    entries = [{"uuid": "GPU-0", "reason": "fan"}, {"uuid": "GPU-1", "reason": "fan", "until": "1970-01-01T00:01:00Z"}]
    read = parse_object({"metadata": METADATA, "spec": {"cordoned": entries}})
    assert read.cordons == (Cordon("GPU-0"), Cordon("GPU-1", 60.0))


@pytest.mark.parametrize("spec", [{}, {"spec": {}}, {"spec": None}, {"spec": {"assignments": None}}])
def test_an_object_without_reservations_has_none(spec: dict[str, Any]) -> None:
    assert parse_object({"metadata": METADATA, **spec}).assignments == ()


def test_a_share_is_read_with_what_is_promised() -> None:
    entry = {**ENTRY, "resource": "gpufleet.dev/gpu-shared", "memoryMiB": 8000, "computePercent": 40}
    document = {"metadata": METADATA, "spec": {"assignments": [entry]}}
    (ours,) = parse_object(document).assignments
    (model,) = GPUTelemetry.model_validate(document).spec.assignments
    assert (ours.memory_mib, ours.compute_percent) == (model.memory_mib, model.compute_percent) == (8000, 40)


def test_shard_bounds_are_optional() -> None:
    entry = {name: value for name, value in ENTRY.items() if not name.startswith("shard")}
    (assignment,) = parse_object({"metadata": METADATA, "spec": {"assignments": [entry]}}).assignments
    assert (assignment.shard_start, assignment.shard_end) == (None, None)


@pytest.mark.parametrize("field", ["podUID", "pod", "devices", "resource", "replica", "decidedAt"])
def test_reservation_without_a_field_is_an_error_with_its_name(field: str) -> None:
    entry = {name: value for name, value in ENTRY.items() if name != field}
    with pytest.raises(ObjectFormatError, match=field):
        parse_object({"metadata": METADATA, "spec": {"assignments": [entry]}})


def test_what_is_no_object_at_all_is_unreadable() -> None:
    with pytest.raises(ObjectFormatError, match="metadata"):
        parse_object({"kind": "Status"})
