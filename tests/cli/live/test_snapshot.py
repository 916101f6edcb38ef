"""`gpufleet snapshot save` writes what other commands read, without secrets."""

import json
from pathlib import Path
from typing import Any

import pytest

from gpufleet_cli.cluster import kinds
from gpufleet_testing.cli.clusters import (
    RecordedCluster,
    agent_lease,
    condition,
    live_telemetry,
    live_workload,
    workload_pod,
)
from gpufleet_testing.cli.files import gpu
from gpufleet_testing.cli.runner import run_cli

SECRET = "hunter2"
"""A value that must not be in any file."""


def secretive_container() -> dict[str, Any]:
    return {
        "name": "main",
        "image": "example:1",
        "command": ["train", f"--token={SECRET}"],
        "args": [SECRET],
        "env": [{"name": "TOKEN", "value": SECRET}, {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "k"}}}],
        "livenessProbe": {"httpGet": {"httpHeaders": [{"name": "Authorization", "value": SECRET}]}},
        "lifecycle": {"preStop": {"exec": {"command": [SECRET]}}},
    }


@pytest.fixture
def recorded(cluster: RecordedCluster) -> RecordedCluster:
    spec = {"restartPolicy": "Always", "containers": [secretive_container()]}
    waiting = {"state": "Pending", "conditions": [condition("Ready", "False", "WaitingForDevices", "0/1 GPUs")]}
    workload = live_workload("train", status=waiting, template={"spec": spec})
    workload["metadata"]["annotations"] = {"kubectl.kubernetes.io/last-applied-configuration": SECRET}
    pod = workload_pod("train-0", "train", spec={"initContainers": [secretive_container()], **spec})
    pod["metadata"]["annotations"] = {"vault.example/token": SECRET, "gpufleet.dev/waiting-for": "Devices"}
    node = {
        "metadata": {"name": "node-1"},
        "status": {"allocatable": {"cpu": "8", "memory": "64Gi", "pods": "110"}, "images": [{"names": ["x"]}]},
    }
    cluster.fleet(
        [live_telemetry("node-1", gpu("node-1", 0), observed="2026-01-01T00:00:00Z")], [workload], [pod], nodes=[node]
    )
    cluster.put(kinds.CRDS, {"metadata": {"name": "gputelemetries.gpufleet.dev"}}, {"metadata": {"name": "others.x"}})
    cluster.record("/version", json.dumps({"gitVersion": "v1.36.3"}))
    return cluster


def test_snapshot_has_no_secret_and_says_what_is_missing(recorded: RecordedCluster, tmp_path: Path) -> None:
    folder = tmp_path / "state"
    done = run_cli("snapshot", "save", folder)
    assert done.code == 0
    assert "1 gputelemetries, 1 nodes, 1 gpuworkloads, 1 pods" in done.out
    text = "".join(path.read_text() for path in folder.iterdir())
    assert SECRET not in text
    assert '"TOKEN"' in text
    assert "others.x" not in text
    assert any(note.startswith("namespaces not saved: ") for note in done.notes)
    assert "kubernetes: v1.36.3" in (folder / "about.txt").read_text()
    assert not [call for call in recorded.calls if "secrets" in call or "configmaps" in call]


def test_other_commands_read_a_snapshot(recorded: RecordedCluster, tmp_path: Path) -> None:
    folder = tmp_path / "state"
    run_cli("snapshot", "save", folder, "--no-logs")
    assert run_cli("top", "--from", folder).out.splitlines()[-1] == "1 GPU on 1 node: 1 Free"
    assert "team/train: Pending" in run_cli("status", "--from", folder).out
    simulated = run_cli("simulate", "-f", folder / "gpuworkloads.json", "--from", folder, "-o", "json")
    assert simulated.json["placed"]
    assert not any("not checked" in note for note in simulated.notes)


def test_age_of_a_snapshot_counts_its_leases(recorded: RecordedCluster, tmp_path: Path) -> None:
    folder = tmp_path / "state"
    lease = agent_lease("node-1", "2026-01-01T00:00:00Z", "2026-01-01T00:04:30Z")
    recorded.put(kinds.AGENT_LEASES, lease)
    assert "leases" in run_cli("snapshot", "save", folder, "--no-logs").out
    saved = json.loads((folder / "leases.json").read_text())["items"]
    assert saved[0]["metadata"]["annotations"] == lease["metadata"]["annotations"]

    def usable(now: str) -> int:
        return int(run_cli("rank", "--from", folder, "--now", now, "-o", "json").json["devicesEligible"])

    assert (usable("2026-01-01T00:05:30Z"), usable("2026-01-01T00:07:00Z")) == (1, 0)


def test_show_summarizes_what_waits(recorded: RecordedCluster, tmp_path: Path) -> None:
    run_cli("snapshot", "save", tmp_path / "state")
    done = run_cli("snapshot", "show", tmp_path / "state")
    assert done.code == 0
    assert done.out.splitlines()[-3:] == [
        "1 GPU on 1 node: 1 Free",
        "1 GPUWorkloads: 1 Pending",
        "team/train: WaitingForDevices: 0/1 GPUs",
    ]


def test_folder_must_be_new_and_a_snapshot_recognizable(recorded: RecordedCluster, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "must be a new or empty folder" in run_cli("snapshot", "save", tmp_path).err
    assert "about.txt is missing" in run_cli("snapshot", "show", tmp_path).err
