"""Reading single facts out of API objects, with what may be absent absent."""

from typing import Any

import pytest

from gpufleet_e2e.proof import assemble, objects
from gpufleet_e2e.proof.evidence import FleetEvidence, Holding


def test_gpus_are_sorted_and_keep_missing_values() -> None:
    bare = {"uuid": "GPU-b", "index": 1, "model": "T4", "health": {"state": "Unhealthy"}}
    full = {**bare, "uuid": "GPU-a", "index": 0, "memoryTotalMiB": 0, "health": {"state": "Healthy"}}
    found = objects.gpus({"metadata": {"name": "node-1"}, "status": {"devices": [bare, full]}})
    assert [(gpu.uuid, gpu.healthy, gpu.memory_total_mib) for gpu in found] == [
        ("GPU-a", True, 0),
        ("GPU-b", False, None),
    ]


def test_a_node_whose_agent_has_not_reported_has_no_gpus() -> None:
    assert objects.gpus({"metadata": {"name": "node-1"}}) == ()


def test_fleet_returns_the_holder_of_a_device() -> None:
    holding = Holding("node-1", "demo", "a", "main", "gpufleet.dev/gpu", ("GPU-a",))
    fleet = FleetEvidence((), (holding,))
    assert fleet.holder("GPU-a") == holding
    assert fleet.holder("GPU-b") is None
    assert fleet.gpu("GPU-a") is None


def test_environ_is_split_at_nul_and_keeps_equals_signs() -> None:
    assert objects.environment("A=1\0B=x=y\0EMPTY=\0") == {"A": "1", "B": "x=y", "EMPTY": ""}


@pytest.mark.parametrize(
    ("variables", "shard"),
    [
        ({"GPUFLEET_SHARD_START": "3", "GPUFLEET_SHARD_END": "9"}, (3, 9)),
        ({"GPUFLEET_SHARD_START": "3"}, None),
        ({"GPUFLEET_SHARD_START": "x", "GPUFLEET_SHARD_END": "9"}, None),
    ],
)
def test_a_shard_is_read_from_the_environment(variables: dict[str, str], shard: tuple[int, int] | None) -> None:
    assert objects.shard_of_environment(variables) == shard


def test_condition_of_an_older_generation_does_not_count() -> None:
    ready = {"type": "Ready", "status": "True", "reason": "AllReplicasReady"}
    workload: dict[str, Any] = {
        "metadata": {"generation": 2},
        "status": {"conditions": [{**ready, "observedGeneration": 1}]},
    }
    assert not objects.is_true(workload, "Ready")
    workload["status"]["conditions"][0]["observedGeneration"] = 2
    assert objects.is_true(workload, "Ready")
    assert not objects.is_true(workload, "Placed")


def test_completed_and_deleted_pods_are_not_live() -> None:
    pods: list[dict[str, Any]] = [
        {"metadata": {"name": "a"}, "status": {"phase": "Running"}},
        {"metadata": {"name": "b"}, "status": {"phase": "Failed"}},
        {"metadata": {"name": "c", "deletionTimestamp": "now"}, "status": {"phase": "Running"}},
        {"metadata": {"name": "d"}},
    ]
    assert [pod["metadata"]["name"] for pod in assemble.live_pods(pods)] == ["a", "d"]


def test_the_container_is_the_named_one_or_the_first() -> None:
    template = {"spec": {"containers": [{"name": "sidecar"}, {"name": "main"}]}}
    assert assemble.container_of({"spec": {"template": template}}, {}) == "sidecar"
    assert assemble.container_of({"spec": {"template": template, "devices": {"container": "main"}}}, {}) == "main"
    pod = {"spec": {"containers": [{"name": "server"}]}}
    assert assemble.container_of({"spec": {}}, pod) == "server"
