"""`gpufleet status` shows workloads as trees down to containers and GPUs."""

from typing import Any

from gpufleet_testing.cli.clusters import (
    RecordedCluster,
    condition,
    holder,
    live_telemetry,
    live_workload,
    workload_pod,
)
from gpufleet_testing.cli.files import gpu
from gpufleet_testing.cli.runner import run_cli

READY = [condition("Ready", "True", "AllReplicasReady"), condition("Placed", "True", "Placed")]
RUNNING: dict[str, Any] = {
    "state": "Running",
    "ready": "1/1",
    "conditions": READY,
    "placements": [
        {"replica": 0, "state": "Allocated", "pod": "train-0", "node": "node-1", "devices": ["GPU-node-1-0"]}
    ],
}
WAITING: dict[str, Any] = {
    "state": "Pending",
    "ready": "0/1",
    "conditions": [
        condition("Ready", "False", "WaitingForDevices", "0/1 GPUs are available: 1 in use."),
        condition("Placed", "False", "NoDevicesAvailable", "0/1 GPUs are available: 1 in use."),
        condition("Stalled", "False", "AsExpected"),
    ],
    "placements": [{"replica": 0, "state": "Pending", "pod": "next-0"}],
}


def record(cluster: RecordedCluster, *pods: dict[str, Any]) -> None:
    device = gpu("node-1", 0, allocatedTo=[holder("team", "train-0")], utilizationPercent=80, memoryUsedMiB=1024)
    telemetry = live_telemetry("node-1", device, observed="2099-01-01T00:00:00Z")
    workloads = [live_workload("train", status=RUNNING), live_workload("next", status=WAITING)]
    gated = workload_pod("next-0", "next", gated=True, annotations={"gpufleet.dev/waiting-for": "Devices"})
    cluster.fleet([telemetry], workloads, pods or [workload_pod("train-0", "train"), gated])


def test_tree_has_replica_pod_container_and_gpu(cluster: RecordedCluster) -> None:
    record(cluster)
    done = run_cli("status", "train")
    assert done.code == 0
    assert done.out.splitlines() == [
        "team/train: Running, 1/1 ready (1 replica of 1 GPU, Best)",
        "├── replica 0: Allocated on node-1",
        "│   └── pod train-0: Running, main: running",
        "│       └── GPU 0 GPU-node-1-0, NVIDIA H100 80GB HBM3, 80 % busy, 1,024 of 80,000 MiB, 30 °C",
        "└── Ready is True, AllReplicasReady",
    ]


def test_waiting_replica_says_what_it_waits_for_and_each_message_once(cluster: RecordedCluster) -> None:
    record(cluster)
    assert run_cli("status", "team/next").out.splitlines() == [
        "team/next: Pending, 0/1 ready (1 replica of 1 GPU, Best)",
        "├── replica 0: Pending",
        "│   └── pod next-0: SchedulingGated, waits for devices",
        "└── Ready is False, WaitingForDevices: 0/1 GPUs are available: 1 in use.",
    ]
    assert "Stalled is False, AsExpected" in run_cli("status", "next", "-o", "wide").out


def test_container_that_fails_is_shown_with_reason_and_restarts(cluster: RecordedCluster) -> None:
    container = {
        "name": "main",
        "restartCount": 4,
        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": {"exitCode": 3}},
    }
    record(cluster, workload_pod("train-0", "train", status={"phase": "Running", "containerStatuses": [container]}))
    line = "pod train-0: CrashLoopBackOff, main: CrashLoopBackOff, 4 restarts (last exit code 3)"
    assert line in run_cli("status", "train").out


def test_without_a_name_all_workloads_of_the_namespace_are_shown(cluster: RecordedCluster) -> None:
    record(cluster)
    assert run_cli("status", "-o", "name").out.split() == [
        "gpuworkload.gpufleet.dev/train",
        "gpuworkload.gpufleet.dev/next",
    ]
    assert [one["name"] for one in run_cli("status", "-A", "-o", "json").json] == ["train", "next"]
    paths = [call.split()[2] for call in cluster.calls if "gpuworkloads" in call]
    assert paths == [
        "/apis/gpufleet.dev/v1alpha1/namespaces/team/gpuworkloads",
        "/apis/gpufleet.dev/v1alpha1/gpuworkloads",
    ]


def test_unknown_workload_is_answered_with_names_that_are_close(cluster: RecordedCluster) -> None:
    record(cluster)
    done = run_cli("status", "trian")
    assert (done.code, done.out) == (2, "")
    assert done.err == 'error: GPUWorkload "trian" not found in namespace team: did you mean train?\n'


def test_forbidden_telemetry_leaves_the_tree_without_measurements(cluster: RecordedCluster) -> None:
    record(cluster)
    cluster.fail("/apis/gpufleet.dev/v1alpha1/gputelemetries", "Error from server (Forbidden): User 'dev' cannot list")
    done = run_cli("status", "train")
    assert (done.code, "GPU GPU-node-1-0" in done.out) == (0, True)
    assert done.notes == [
        "gputelemetries not read: User 'dev' cannot list: ask an administrator of the cluster for this permission"
    ]


def test_workload_that_the_operator_has_not_seen_says_so(cluster: RecordedCluster) -> None:
    fresh = live_workload("train", status={"observedGeneration": 0})
    cluster.fleet([], [fresh])
    out = run_cli("status").out
    assert "the operator has not seen the last change yet" in out
    assert "no condition yet: the operator has not seen the workload; see gpufleet doctor" in out
