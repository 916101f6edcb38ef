"""`gpufleet explain NAME` says why a workload or pod waits, and why it has its devices."""

import pytest

from gpufleet_testing.cli.clusters import (
    RecordedCluster,
    condition,
    event,
    holder,
    live_telemetry,
    live_workload,
    workload_pod,
)
from gpufleet_testing.cli.files import gpu
from gpufleet_testing.cli.runner import run_cli

MESSAGE = "0/2 GPUs are available: 1 in use, 1 insufficient memory."
WAITING = {
    "state": "Pending",
    "ready": "0/1",
    "conditions": [condition("Ready", "False", "WaitingForDevices", MESSAGE)],
    "placements": [{"replica": 0, "state": "Pending", "pod": "next-0"}],
    "explanation": {
        "message": MESSAGE,
        "ineligibleDevices": [{"reason": "DeviceInUse", "devices": 1, "nodes": 1}],
        "nearestMiss": {"node": "node-1", "device": "GPU-node-1-1", "message": "lacks 10 MiB"},
        "nodeRejections": [{"replica": 0, "node": "node-2", "by": "kubelet", "message": "OutOfcpu"}],
    },
}
PLACED = {
    "state": "Running",
    "ready": "1/1",
    "conditions": [condition("Ready", "True", "AllReplicasReady")],
    "placements": [
        {
            "replica": 0,
            "state": "Allocated",
            "pod": "train-0",
            "node": "node-1",
            "devices": ["GPU-node-1-0"],
            "score": {"total": 976, "memory": 1000, "temperature": 933},
        }
    ],
}


@pytest.fixture
def recorded(cluster: RecordedCluster) -> RecordedCluster:
    device = gpu("node-1", 0, allocatedTo=[holder("team", "train-0")])
    plain = workload_pod("plain", "none", spec={"containers": [{"resources": {"limits": {"nvidia.com/gpu": "1"}}}]})
    plain["metadata"]["labels"], plain["metadata"]["ownerReferences"] = {}, []
    cluster.fleet(
        [live_telemetry("node-1", device, gpu("node-1", 1), observed="2099-01-01T00:00:00Z")],
        [live_workload("train", status=PLACED), live_workload("next", status=WAITING)],
        [
            workload_pod("train-0", "train"),
            workload_pod("next-0", "next", gated=True),
            workload_pod("lost-0", "lost", gated=True),
            plain,
        ],
        events=[event("Pod", "next-0", "WaitingForDevices", MESSAGE), event("Pod", "other", "Killing", "stop")],
    )
    return cluster


def test_waiting_workload_has_reason_counts_nearest_miss_and_events(recorded: RecordedCluster) -> None:
    assert run_cli("explain", "next").out.splitlines() == [
        "team/next: Pending, 0/1 ready (1 replica of 1 GPU, Best)",
        "├── Why it waits",
        f"│   ├── Ready is False, WaitingForDevices: {MESSAGE}",
        "│   │   ├── 1 GPU on 1 node: DeviceInUse",
        "│   │   └── closest is node-1/GPU-node-1-1: lacks 10 MiB",
        "│   └── kubelet rejected replica 0 on node-2: OutOfcpu",
        "└── Events",
        f"    └── 2026-01-01 00:00:05Z pod next-0: WaitingForDevices: {MESSAGE}",
    ]


def test_placed_workload_names_learned_demand_and_why_it_is_not_moved(cluster: RecordedCluster) -> None:
    placed = {"replica": 0, "pod": "train-0", "node": "node-1", "devices": ["GPU-node-1-0"], "demandMiB": 14000}
    placed["demandRuns"] = 14
    why = "not moved from full devices: a gang is never moved in part"
    conditions = [
        condition("Ready", "True", "AllReplicasReady"),
        condition("Placed", "True", "Placed", f"replicas: 1 on node-1; counted with 14,000 MiB learned; {why}"),
    ]
    workload = live_workload("train", status={**PLACED, "placements": [placed], "conditions": conditions})
    workload["spec"]["devices"] = {"mode": "Shared", "memoryMiB": 40000}
    telemetry = live_telemetry("node-1", gpu("node-1", 0), observed="2099-01-01T00:00:00Z")
    cluster.fleet([telemetry], [workload], [workload_pod("train-0", "train")])
    lines = run_cli("explain", "train").out.splitlines()
    assert "    │   ├── counted with 14,000 MiB learned from 14 runs, promised 40,000 MiB" in lines
    assert f"    └── {why}" in lines


def test_failed_workload_has_failed_and_does_not_wait(cluster: RecordedCluster) -> None:
    conditions = [
        condition("Ready", "False", "BackoffLimitExceeded", "exit code 3"),
        condition("Failed", "True", "BackoffLimitExceeded", "exit code 3"),
    ]
    cluster.fleet([], [live_workload("crash", status={"state": "Failed", "conditions": conditions})])
    assert run_cli("explain", "crash").out.splitlines()[1:] == [
        "└── Why it failed",
        "    └── Failed is True, BackoffLimitExceeded: exit code 3",
    ]


def test_placed_workload_has_the_score_of_its_devices(recorded: RecordedCluster) -> None:
    out = run_cli("explain", "train").out
    assert "replica 0 on node-1: score 0.976 of 1 (free memory 1.000, temperature 0.933)" in out
    assert "Why it waits" not in out


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("next-0", ["held by gpufleet's scheduling gate: waits until its devices are reserved", "Why it waits"]),
        ("pod/lost-0", ['which nothing removes: GPUWorkload "lost" does not exist']),
        ("plain", ["no GPUWorkload controls it: it requests nvidia.com/gpu=1, and a device plugin picks its devices"]),
        ("train-0", ["node-1/0 GPU-node-1-0", "Why these devices"]),
    ],
)
def test_pod_is_explained_with_its_workload(recorded: RecordedCluster, name: str, words: list[str]) -> None:
    done = run_cli("explain", name)
    assert done.code == 0
    assert [word for word in words if word not in done.out] == []


def test_unknown_name_is_answered_with_names_that_are_close(recorded: RecordedCluster) -> None:
    done = run_cli("explain", "trein")
    assert (done.code, done.out) == (2, "")
    assert 'no GPUWorkload or pod "trein" in namespace team: did you mean train' in done.err


def test_name_and_manifest_exclude_each_other(recorded: RecordedCluster) -> None:
    assert "a name may not be given with -f" in run_cli("explain", "train", "-f", "x.yaml").err


def test_json_has_reasons_and_events(recorded: RecordedCluster) -> None:
    found = run_cli("explain", "next", "-o", "json").json
    assert found["reasons"][0] == f"Ready is False, WaitingForDevices: {MESSAGE}"
    assert [one["reason"] for one in found["events"]] == ["WaitingForDevices"]
