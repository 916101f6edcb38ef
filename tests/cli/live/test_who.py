"""`gpufleet who` finds the pods of GPUs and the GPUs of pods."""

import pytest

from gpufleet_testing.cli.clusters import RecordedCluster, holder, live_telemetry, reservation
from gpufleet_testing.cli.files import gpu
from gpufleet_testing.cli.runner import run_cli

SHARED = holder("team", "infer-0", shared=True, memoryMiB=8000, computePercent=20, overuse={"memoryUsedMiB": 9000})


@pytest.fixture
def recorded(cluster: RecordedCluster) -> RecordedCluster:
    spec = {
        "assignments": [
            reservation("team", "train-0", "train", "GPU-node-1-0"),
            reservation("team", "next-0", "next", "GPU-node-1-1"),
        ]
    }
    devices = [
        gpu("node-1", 0, allocatedTo=[holder("team", "train-0")]),
        gpu("node-1", 1),
        gpu("node-1", 2, allocatedTo=[SHARED, holder("other", "old", terminating=True)]),
        gpu("node-1", 3),
    ]
    cluster.fleet([live_telemetry("node-1", *devices, observed="2099-01-01T00:00:00Z", spec=spec)])
    return cluster


def rows(name: str, *arguments: str) -> list[list[str]]:
    done = run_cli("who", name, "--no-headers", *arguments)
    assert done.code == 0, done.err
    return [line.split() for line in done.out.splitlines()]


def test_gpu_has_its_holder_with_workload_and_replica(recorded: RecordedCluster) -> None:
    row = ["node-1", "0", "GPU-node-1-0", "Holds", "team", "train-0", "main", "train", "0", "whole"]
    for name in ("GPU-node-1-0", "node-1/0"):
        assert rows(name) == [row]


def test_reservation_and_free_gpu_are_told_apart(recorded: RecordedCluster) -> None:
    assert rows("GPU-node-1-1")[0][3:6] == ["Reserved", "team", "next-0"]
    assert rows("GPU-node-1-3")[0][3:6] == ["Free", "-", "-"]


def test_sharers_have_promise_and_overuse(recorded: RecordedCluster) -> None:
    (first, second) = run_cli("who", "node-1/2").out.splitlines()[1:]
    assert first.endswith("8,000 MiB, 20 % (uses 9,000)")
    assert "Terminating" in second


@pytest.mark.parametrize("name", ["train-0", "team/train-0", "pod/train-0", "train"])
def test_pod_or_workload_has_its_gpus(recorded: RecordedCluster, name: str) -> None:
    assert [row[2] for row in rows(name)] == ["GPU-node-1-0"]


def test_node_has_all_its_gpus(recorded: RecordedCluster) -> None:
    assert [row[1] for row in rows("node-1")] == ["0", "1", "2", "2", "3"]


def test_unknown_and_ambiguous_names_are_errors(recorded: RecordedCluster) -> None:
    unknown = run_cli("who", "trein-0")
    assert (unknown.code, unknown.out) == (2, "")
    assert unknown.err.startswith(
        'error: "trein-0" is not a GPU, a node, or a pod or GPUWorkload of namespace team that '
    )
    assert "that has a GPU: did you mean train-0, " in unknown.err
    assert "GPU-node-1 is the start of several UUIDs" in run_cli("who", "GPU-node-1").err


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["node-1/9"], 'error: node "node-1" has no GPU "9": it has 0, 1, 2, 3\n'),
        (["train-0", "-n", "other"], "did you mean team/train-0"),
        (["team/trein-0"], "did you mean team/train-0"),
    ],
)
def test_name_of_another_node_or_namespace_is_suggested(
    recorded: RecordedCluster, words: list[str], error: str
) -> None:
    done = run_cli("who", *words)
    assert (done.code, done.out) == (2, "")
    assert error in done.err
    assert done.err.count("team/train-0,") <= 1
