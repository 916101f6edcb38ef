"""`gpufleet simulate` on a cluster: the fleet as it is now, and pods that the apiserver would admit."""

from datetime import UTC, datetime
from typing import Any

import pytest

from gpufleet_cli.cluster.kinds import DEMANDS
from gpufleet_operator.model.demands.template import TemplateKey
from gpufleet_testing.cli.clusters import RecordedCluster, condition, holder, live_telemetry
from gpufleet_testing.cli.files import ObjectFiles, gpu, gpu_workload
from gpufleet_testing.cli.runner import run_cli

JsonObject = dict[str, Any]


def node(name: str = "node-1") -> JsonObject:
    return {"metadata": {"name": name}, "status": {"allocatable": {"cpu": "8", "memory": "64Gi", "pods": "110"}}}


def telemetry(*devices: JsonObject, name: str = "node-1", **fields: object) -> JsonObject:
    at = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    return live_telemetry(name, *(devices or [gpu(name, 0)]), observed=at, **fields)


@pytest.fixture
def recorded(cluster: RecordedCluster) -> RecordedCluster:
    cluster.fleet([telemetry()], nodes=[node()])
    cluster.record("create---dry-run=server", "pod/train-0\n")
    return cluster


def test_workload_is_placed_on_the_fleet_of_the_cluster(recorded: RecordedCluster, files: ObjectFiles) -> None:
    done = run_cli("simulate", "-f", files.write(gpu_workload()), "-o", "json")
    assert done.code == 0, done.err
    assert done.json["workloads"][0]["placements"][0]["devices"] == ["GPU-node-1-0"]
    assert done.notes == []


def test_demands_of_the_cluster_replace_promises(recorded: RecordedCluster, files: ObjectFiles) -> None:
    key = TemplateKey("team", "GPUWorkload", "train", "main", "example")
    demand = {
        "metadata": {"name": key.name, "namespace": "team"},
        "spec": {"owner": {"kind": key.owner_kind, "name": key.owner}, "container": "main", "image": "example"},
        "status": {"observedAt": "2026-01-01T00:00:00Z", "countedRuns": 5, "p80MiB": 10_000},
    }
    recorded.put(DEMANDS, demand)
    shared = {"mode": "Shared", "memoryMiB": 60_000}
    file = files.write(gpu_workload(replicas=2, devices=shared, placement={"demand": "Learned"}))
    done = run_cli("simulate", "-f", file)
    assert done.code == 0, done.err
    assert "team/train: counted with 11,000 MiB learned from 5 runs, promised 60,000 MiB" in done.err


def test_holders_of_the_cluster_count(recorded: RecordedCluster, files: ObjectFiles) -> None:
    recorded.fleet([telemetry(gpu("node-1", 0, allocatedTo=[holder("team", "a")]))], nodes=[node()])
    done = run_cli("simulate", "-f", files.write(gpu_workload()))
    assert (done.code, "0/1 GPUs are available: 1 in use." in done.out) == (1, True)


def test_telemetry_that_the_operator_calls_stale_is_not_used(recorded: RecordedCluster, files: ObjectFiles) -> None:
    stale = condition("Fresh", "False", "Stale", "telemetry is 95 s old, limit 90 s")
    recorded.fleet([telemetry(conditions=[stale])], nodes=[node()])
    done = run_cli("simulate", "-f", files.write(gpu_workload()))
    assert (done.code, "1 stale telemetry" in done.out) == (1, True)


def test_pod_that_the_apiserver_rejects_is_reported(recorded: RecordedCluster, files: ObjectFiles) -> None:
    error = 'Error from server (Forbidden): pods "train-0-x" is forbidden: exceeded quota: gpus, requested: 1'
    recorded.fail("create---dry-run=server", error)
    file = files.write(gpu_workload())
    done = run_cli("simulate", "-f", file)
    assert done.code == 1
    why = error.removeprefix("Error from server (Forbidden): ")
    assert done.out.splitlines()[-1] == f"team/train: the apiserver rejects its pods: {why}"
    found = run_cli("simulate", "-f", file, "-o", "json").json["workloads"][0]
    assert (found["placed"], "exceeded quota" in found["podRejection"]) == (True, True)


def test_user_who_may_not_create_pods_gets_a_note(recorded: RecordedCluster, files: ObjectFiles) -> None:
    error = 'Error from server (Forbidden): pods is forbidden: User "dev" cannot create resource "pods" in API group ""'
    recorded.fail("create---dry-run=server", error)
    done = run_cli("simulate", "-f", files.write(gpu_workload()))
    assert done.code == 0
    assert done.notes[0].startswith("team/train: not checked whether the apiserver admits its pods: pods is forbidden")


def test_manifest_without_namespace_is_of_the_flags_or_the_context(
    recorded: RecordedCluster, files: ObjectFiles
) -> None:
    file = files.write(gpu_workload())
    assert run_cli("simulate", "-f", file, "-n", "other", "-o", "name").out == "other/train\n"
    assert run_cli("simulate", "-f", file, "-o", "name").out == "team/train\n"
    named = gpu_workload()
    named["metadata"]["namespace"] = "own"
    assert run_cli("simulate", "-f", files.write(named), "-n", "other", "-o", "name").out == "own/train\n"


def test_saved_objects_ask_no_apiserver(cluster: RecordedCluster, files: ObjectFiles) -> None:
    assert run_cli("simulate", "-f", files.write(gpu_workload()), "--from", files.write(telemetry())).code == 0
    assert cluster.calls == []
    assert "--now requires --from" in run_cli("rank", "--now", "2026-01-01T00:00:00Z").err
