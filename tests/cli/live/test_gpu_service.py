"""`gpufleet cordon`, `uncordon`, `drain` and `acknowledge` write what an administrator would, and nothing else."""

import json
from typing import Any

import pytest

from gpufleet_cli.cluster.kinds import TELEMETRY
from gpufleet_testing.cli.clusters import RecordedCluster, holder, live_telemetry, reservation
from gpufleet_testing.cli.files import gpu
from gpufleet_testing.cli.runner import run_cli

ENTRY = {"uuid": "GPU-node-1-1", "reason": "cable", "by": "bob"}
OBSERVED = "2099-01-01T00:00:00Z"
FAULT = {"state": "Unhealthy", "reasons": [{"code": "XidError", "message": "XID 79", "since": OBSERVED}]}


def node(*cordoned: dict[str, Any], annotations: dict[str, str] | None = None, **spec: object) -> dict[str, Any]:
    devices = [gpu("node-1", 0, health=FAULT), gpu("node-1", 1)]
    found = live_telemetry("node-1", *devices, observed=OBSERVED, spec={"cordoned": list(cordoned), **spec})
    found["metadata"] |= {"generation": 7, "uid": "u", "annotations": annotations or {}}
    return found


def patches(cluster: RecordedCluster) -> list[list[dict[str, Any]]]:
    calls = [call for call in cluster.calls if call.startswith("patch")]
    return [json.loads(call.partition("--patch=")[2].partition(" --field-manager")[0]) for call in calls]


def test_cordon_adds_an_entry_and_keeps_those_of_others(cluster: RecordedCluster) -> None:
    cluster.fleet([node(ENTRY)])
    done = run_cli("cordon", "node-1/0", "--reason", "fan", "--by", "ann", "--until", "2099-01-02T00:00:00Z")
    assert (done.code, done.out) == (0, "node-1/0 GPU-node-1-0 cordoned\n")
    mine = {"uuid": "GPU-node-1-0", "reason": "fan", "by": "ann", "until": "2099-01-02T00:00:00Z"}
    (patch,) = patches(cluster)
    assert patch == [
        {"op": "test", "path": "/metadata/uid", "value": "u"},
        {"op": "test", "path": "/metadata/generation", "value": 7},
        {"op": "add", "path": "/spec/cordoned", "value": [ENTRY, mine]},
    ]


def test_cordon_of_a_cordoned_gpu_changes_what_is_given(cluster: RecordedCluster) -> None:
    cluster.fleet([node(ENTRY)])
    assert run_cli("cordon", "GPU-node-1-1", "--reason", "cable").code == 0
    assert patches(cluster) == []
    assert run_cli("cordon", "GPU-node-1-1", "--reason", "board").code == 0
    assert patches(cluster)[0][-1]["value"] == [{**ENTRY, "reason": "board"}]


def test_uncordon_removes_only_the_entry_of_the_gpu(cluster: RecordedCluster) -> None:
    other = {"uuid": "GPU-node-1-0", "reason": "fan"}
    cluster.fleet([node(other, ENTRY)])
    assert run_cli("uncordon", "node-1/1").out == "node-1/1 GPU-node-1-1 uncordoned\n"
    assert patches(cluster)[0][-1]["value"] == [other]
    cluster.fleet([node(other)])
    assert run_cli("uncordon", "node-1/1").out == "node-1/1 GPU-node-1-1 is not cordoned\n"
    assert len(patches(cluster)) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["node-1/0"], "--reason is required"),
        (["node-1/0", "--reason", "x", "--until", "noon"], "--until noon: must be an RFC 3339 time"),
        (["node-1/0", "--reason", "x", "--until", "2001-01-01T00:00:00Z"], "must be in the future"),
        (["node-1/0", "--reason", "x", "--until", "2099-01-01T00:00:00Z", "--for-hours", "1"], "mutually exclusive"),
        (["node-1/9", "--reason", "x"], 'node "node-1" has no GPU "9": it has 0'),
        (["node-1/0", "--reason", "x", "--from", "f"], "no such option: --from"),
    ],
)
def test_wrong_cordon_is_an_error_and_writes_nothing(
    cluster: RecordedCluster, arguments: list[str], message: str
) -> None:
    cluster.fleet([node()])
    done = run_cli("cordon", *arguments)
    assert (done.code, message in done.err, patches(cluster)) == (2, True, [])


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["cordon", "node-1/0", "--reason", "x"], "cordon"),
        (["suspend", "train"], "suspend"),
        (["snapshot", "save", "folder"], "snapshot save"),
    ],
)
def test_saved_objects_cannot_be_changed(cluster: RecordedCluster, arguments: list[str], command: str) -> None:
    done = run_cli("--from", "f", *arguments)
    assert (done.code, done.err) == (2, f"error: --from may not be given: {command} needs a cluster\n")
    assert cluster.calls == []


def test_forbidden_cordon_names_the_role(cluster: RecordedCluster) -> None:
    cluster.fleet([node()])
    cluster.fail("patch-gputelemetries", "Error from server (Forbidden): gputelemetries is forbidden: no")
    done = run_cli("cordon", "node-1/0", "--reason", "x")
    assert done.code == 2
    assert "bind the ClusterRole gpufleet-cordon" in done.err


def test_lost_race_with_the_operator_is_tried_again(cluster: RecordedCluster) -> None:
    cluster.fleet([node()])
    cluster.fail("patch-gputelemetries", 'The request is invalid: the server rejected our request: "testing value"')
    done = run_cli("cordon", "node-1/0", "--reason", "x")
    assert done.code == 2
    assert len(patches(cluster)) == 5


def test_drain_waits_until_no_pod_has_the_gpu(cluster: RecordedCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.fleet([node(assignments=[reservation("team", "train-0", "train", "GPU-node-1-1")])])
    monkeypatch.setattr("gpufleet_cli.commands.live.gpu_service.time.sleep", lambda _: cluster.put(TELEMETRY, node()))
    done = run_cli("drain", "node-1/1", "--reason", "board")
    assert done.code == 0
    assert done.out.splitlines() == [
        "node-1/1 GPU-node-1-1 cordoned, its pods are evicted",
        "node-1/1 GPU-node-1-1 waits for team/train-0",
        "node-1/1 GPU-node-1-1 drained",
    ]
    assert patches(cluster)[0][-1]["value"] == [{"uuid": "GPU-node-1-1", "reason": "board", "drain": True}]


def test_drain_that_does_not_end_exits_with_1(cluster: RecordedCluster) -> None:
    cluster.fleet([node(assignments=[reservation("team", "train-0", "train", "GPU-node-1-1")])])
    done = run_cli("drain", "node-1/1", "--reason", "board", "--timeout", "0")
    assert done.code == 1
    assert "a PodDisruptionBudget may not allow the eviction" in done.err


def test_drain_names_pods_that_are_not_evicted(cluster: RecordedCluster) -> None:
    found = node()
    found["status"]["devices"][1]["allocatedTo"] = [holder("team", "by-hand")]
    cluster.fleet([found])
    done = run_cli("drain", "node-1/1", "--reason", "board", "--timeout", "0")
    assert (done.code, "waits for team/by-hand" in done.out) == (1, True)
    assert done.notes[0].endswith(
        "pods without a controller, of a DaemonSet, and static pods are not evicted: delete them"
    )


@pytest.mark.parametrize(
    ("arguments", "before", "value"),
    [
        (["node-1"], "", OBSERVED),
        (["node-1", "0"], "GPU-x=2026-01-01T00:00:00Z", f"GPU-x=2026-01-01T00:00:00Z,GPU-node-1-0={OBSERVED}"),
        (["node-1", "GPU-node-1-0"], "GPU-node-1-0=2026-01-01T00:00:00Z", f"GPU-node-1-0={OBSERVED}"),
    ],
)
def test_acknowledgment_is_up_to_the_last_report(
    cluster: RecordedCluster, arguments: list[str], before: str, value: str
) -> None:
    annotations = {"gpufleet.dev/acknowledged-faults": before} if before else None
    cluster.fleet([node(annotations=annotations)])
    done = run_cli("acknowledge", *arguments)
    assert (done.code, done.out) == (0, "node-1/0 GPU-node-1-0: XidError (XID 79) acknowledged\n")
    (call,) = [call for call in cluster.calls if call.startswith("annotate")]
    assert f"gputelemetries node-1 gpufleet.dev/acknowledged-faults={value} --overwrite" in call
