"""`gpufleet top` shows every GPU of a cluster with its state and holder."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import process_time
from typing import Any

import pytest

from gpufleet_cli.cluster.kinds import TELEMETRY
from gpufleet_testing.cli.clusters import RecordedCluster, condition, holder, live_telemetry, reservation
from gpufleet_testing.cli.files import gpu
from gpufleet_testing.cli.runner import run_cli


def ago(seconds: float = 5) -> str:
    return f"{datetime.now(UTC) - timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%SZ}"


def statuses(*arguments: object) -> dict[str, str]:
    return {one["uuid"]: one["state"] for one in run_cli("top", *arguments, "-o", "json").json}


def node(
    name: str = "node-1", *devices: dict[str, Any], observed: str | None = None, **fields: object
) -> dict[str, Any]:
    return live_telemetry(name, *devices, observed=observed or ago(), **fields)


def test_top_shows_measurements_state_and_holder_of_each_gpu(cluster: RecordedCluster) -> None:
    held = gpu("node-1", 0, memoryUsedMiB=40000, utilizationPercent=97, allocatedTo=[holder("team", "train-0")])
    free = gpu("node-1", 1)
    cluster.fleet([node("node-1", held, free)])
    done = run_cli("top")
    assert done.code == 0
    assert done.out.splitlines() == [
        "NODE    GPU  MODEL                  USED-MIB  TOTAL-MIB  UTIL%  TEMP-C  WATTS  STATUS  HELD-BY",
        "node-1    0  NVIDIA H100 80GB HBM3     40000      80000     97      30     70  InUse   team/train-0",
        "node-1    1  NVIDIA H100 80GB HBM3         0      80000      0      31     70  Free    -",
        "2 GPUs on 1 node: 1 Free, 1 InUse",
    ]
    assert cluster.calls == ["get --raw /apis/gpufleet.dev/v1alpha1/gputelemetries --request-timeout=30s"]


def test_state_names_the_first_reason_why_a_gpu_cannot_be_used(cluster: RecordedCluster) -> None:
    fault = {"state": "Unhealthy", "reasons": [{"code": "XidError", "message": "XID 79", "since": ago()}]}
    cordon = {"uuid": "GPU-node-1-2", "reason": "fan", "by": "ann"}
    ended = {"uuid": "GPU-node-1-6", "reason": "fan", "until": ago(60)}
    spec = {"assignments": [reservation("team", "next-0", "next", "GPU-node-1-3")], "cordoned": [cordon, ended]}
    devices = [
        gpu("node-1", 0),
        gpu("node-1", 1, health=fault),
        gpu("node-1", 2),
        gpu("node-1", 3),
        gpu("node-1", 4, processCount=1),
        gpu("node-1", 5, withheld="/dev/nvidia5 is missing"),
        gpu("node-1", 6),
        gpu("node-1", 7, allocatedTo=[holder("team", "a", shared=True, memoryMiB=8000)]),
    ]
    cluster.fleet([node("node-1", *devices, spec=spec)])
    states = ["Free", "XidError", "Cordoned", "Reserved", "ForeignProcess", "Withheld", "Free", "Shared"]
    assert list(statuses().values()) == states
    messages = [one["message"] for one in run_cli("top", "-o", "json").json]
    assert messages[1:3] == ["XidError (XID 79)", "cordoned by ann: fan"]
    assert "team/next-0 (reserved)" in run_cli("top").out


@pytest.mark.parametrize(
    ("fields", "state"),
    [
        ({"observed": ago(400)}, "Stale"),
        ({"conditions": [condition("Fresh", "False", "Invalid", "status.devices: bad")]}, "Invalid"),
        ({"conditions": [condition("Fresh", "False", "NoDriver", "driver not available on the node")]}, "NoDriver"),
    ],
)
def test_values_of_a_node_that_is_not_current_are_not_shown(
    cluster: RecordedCluster, fields: dict[str, Any], state: str
) -> None:
    cluster.fleet([node("node-1", gpu("node-1", 0, utilizationPercent=50), **fields)])
    done = run_cli("top", "-o", "json")
    assert (done.json[0]["state"], done.json[0]["utilizationPercent"]) == (state, None)
    assert [note.split(": ")[:2] for note in done.notes] == [["node-1", state]]


def test_nodes_and_namespace_limit_the_gpus(cluster: RecordedCluster) -> None:
    one = node("node-1", gpu("node-1", 0, allocatedTo=[holder("team", "a")]), gpu("node-1", 1))
    two = node("node-2", gpu("node-2", 0))
    cluster.fleet([one, two])
    assert list(statuses("node-2")) == ["GPU-node-2-0"]
    assert list(statuses("-n", "team")) == ["GPU-node-1-0"]
    assert run_cli("top", "-n", "other").notes == ["no pod of namespace other has a GPU"]
    unknown = run_cli("top", "node-3")
    assert (unknown.code, unknown.out) == (2, "")
    assert unknown.err == 'error: node "node-3" has no GPUTelemetry: did you mean node-2, node-1?\n'


def test_formats_have_the_same_gpus(cluster: RecordedCluster) -> None:
    cluster.fleet([node("node-1", gpu("node-1", 0))])
    assert run_cli("top", "-o", "name").out == "GPU-node-1-0\n"
    assert "uuid: GPU-node-1-0" in run_cli("top", "-o", "yaml").out
    wide = run_cli("top", "-o", "wide").out
    assert ("UUID" in wide, "GPU-node-1-0" in wide) == (True, True)
    bare = run_cli("top", "--no-headers").out.splitlines()
    assert len(bare) == 1
    assert bare[0].startswith("node-1  0  NVIDIA")


def test_watch_prints_again_until_it_is_interrupted(cluster: RecordedCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        cluster.put(TELEMETRY, node("node-1", gpu("node-1", 0, allocatedTo=[holder("team", "a")])))
        if len(waits) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("gpufleet_cli.commands.live.reading.time.sleep", sleep)
    cluster.fleet([node("node-1", gpu("node-1", 0))])
    shown = run_cli("top", "-w", "-o", "json").out.splitlines()
    assert ['"state": "Free"' in line for line in shown] == [True, False]
    assert waits == [2.0, 2.0]


def test_saved_objects_are_shown_without_their_age(cluster: RecordedCluster, examples: Path) -> None:
    done = run_cli("top", "--from", examples / "fleets" / "mixed.yaml")
    assert done.out.splitlines()[-1] == "16 GPUs on 2 nodes: 11 Free, 5 InUse"
    assert cluster.calls == []


def test_thousand_nodes_take_less_than_five_seconds_of_cpu(cluster: RecordedCluster) -> None:
    nodes = [node(f"node-{n}", *(gpu(f"node-{n}", i) for i in range(8))) for n in range(1000)]
    cluster.fleet(nodes)
    begun = process_time()
    table, done = run_cli("top"), run_cli("top", "-o", "json")
    assert process_time() - begun < 5
    assert (len(table.out.splitlines()), len(done.json)) == (8002, 8000)
